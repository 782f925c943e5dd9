"""``monitor exceptions add``: leave an account alone in one rule, with a reason, an owner and an end."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
import yaml

from ..errors import BadInput, Problem
from .common import ConfigOption, guarded, out

app = typer.Typer(no_args_is_help=True, help="Exceptions of rules.")


@app.callback()
def _group() -> None:
    """A group: more commands will join ``add``."""


@app.command()
@guarded
def add(
    rule: Annotated[str, typer.Argument(help="Id of the rule.")],
    account: Annotated[list[str], typer.Option("--account", help="Whom to leave alone; may be given again.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it is right, in ten characters or more.")],
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it.")],
    expires: Annotated[str, typer.Option("--expires", help="Last day on which it holds, as 2027-06-30.")],
    name: Annotated[str | None, typer.Option("--name", help="Name under which its hits are counted.")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Directory of your own rules; one of rules.dirs.")] = Path(
        "site"
    ),
    config: ConfigOption = None,
) -> None:
    """Write an override file beside the rule. It is checked with all the rules, and not written if they refuse it."""
    from ..rules import packaged_rules
    from ..settings import load_settings

    settings = load_settings(config)
    name = name or _name(account[0])
    path = directory / "overrides" / f"{rule}--{name}.yaml"
    problems = []
    for what, value in (("RULE", rule), ("--name", name)):
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
            problems.append(Problem("arguments", 0, f"{what} {value!r} should be lower-case words joined by '-'"))
    try:
        date.fromisoformat(expires)
    except ValueError:
        problems.append(Problem("arguments", 0, f"--expires {expires!r} is no day: write 2027-06-30"))
    if path.exists():
        problems.append(Problem(str(path), 0, "is there already: give another --name, or edit it"))
    if problems:
        raise BadInput(problems)
    dirs = [*settings.rules.dirs] or [packaged_rules()]
    within = any(directory.resolve() == d.resolve() for d in dirs)
    _place(
        path,
        _text(rule, name, account, reason, owner, expires),
        [*dirs, *([] if within else [directory])],
        settings.rules.policy,
    )
    out.out(str(path), highlight=False)
    if not within:
        out.out(f"it takes effect when rules.dirs has {directory}", highlight=False)
    else:
        out.out("it takes effect at the next reload, from the epoch after it", highlight=False)


def _name(account: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", account.lower()).strip("-")[:40].strip("-")
    return words or "account"


def _text(rule: str, name: str, accounts: list[str], reason: str, owner: str, expires: str) -> str:
    """The file; whatever is in a string stays in it."""

    def quoted(value: object) -> str:
        return yaml.safe_dump(value, default_style='"', default_flow_style=True, width=1 << 30).strip()

    return (
        "schema: monitor.override/v1\n"
        f"target: {rule}\n"
        f"reason: {quoted(reason)}\n"
        f"owner: {quoted(owner)}\n"
        "exceptions:\n"
        f"  - name: {name}\n"
        f"    match: {{account_id: {quoted(accounts)}}}\n"
        f"    reason: {quoted(reason)}\n"
        f"    owner: {quoted(owner)}\n"
        f"    expires: {expires}\n"
    )


def _place(path: Path, text: str, dirs: list[Path], policy: Path | None) -> None:
    from ..features.catalogue import CLIENT_CLASSES
    from ..features.vocabulary import CATALOGUE
    from ..rules import load_rules

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise BadInput([Problem(str(path), 0, f"can't be written: {error.strerror}")]) from None
    try:
        load_rules(dirs, CATALOGUE, CLIENT_CLASSES, policy, tests=False)
    except BaseException:
        path.unlink()
        raise
