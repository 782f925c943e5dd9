"""``monitor decisions propose|approve|undo|list`` and ``monitor takedown``: proposed by anybody, approved by people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ..errors import BadInput, Problem
from ..plain import clean
from ..store.decisions import ACTIONS, Decision, Hit
from .alerts import when
from .casework import AtOption, ByOption, CaseArgument, WhyOption, desk, moment, reader
from .common import ConfigOption, JsonOption, guarded, out, table, write_json

app = typer.Typer(no_args_is_help=True, help="Decisions on accounts: proposed, approved by people, expiring.")
ActionOption = Annotated[str, typer.Option("--action", help=f"One of {', '.join(ACTIONS)}.")]
ProtectOption = Annotated[
    Path | None, typer.Option("--protect", help="File of accounts that are never hit, one a line.")
]
MostOption = Annotated[int, typer.Option("--max-accounts", min=1, help="Most accounts that one decision may hit.")]
IdArgument = Annotated[str, typer.Argument(metavar="DECISION", help="Id of the decision.")]


def _protected(path: Path | None) -> set[str]:
    if path is None:
        return set()
    try:
        return {line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BadInput([Problem(str(path), 0, f"can't be read: {reason}")]) from None


@app.command()
@guarded
def propose(
    case: CaseArgument,
    action: ActionOption,
    by: ByOption,
    why: WhyOption,
    until: Annotated[str, typer.Option("--until", help="When it ends by itself, as 2026-12-01T00:00:00Z.")],
    at: AtOption = None,
    protect: ProtectOption = None,
    max_accounts: MostOption = 1_000,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose an action on the core accounts of an alert. Nobody is hit before people approve it."""
    from ..casework import parse_time
    from ..store import decisions as store

    cases = desk(config)
    name, who = cases.find(case), reader(by)
    cases.note(who, "propose", name)
    hit = store.whom(cases.client, cases.keys, name, action, protected=_protected(protect), max_accounts=max_accounts)
    made = store.propose(
        cases.client, cases.keys, cases.life, hit, by=by, why=why, at=moment(at), until=parse_time(until)
    )
    _tell(made, as_json)


@app.command()
@guarded
def approve(
    decision: IdArgument, by: ByOption, why: WhyOption, at: AtOption = None, config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Approve it: two people for a campaign."""
    from ..store import decisions as store

    cases = desk(config)
    cases.note(reader(by), "approve", store.get(cases.client, cases.keys, decision).alert_id)
    made = store.approve(cases.client, cases.keys, cases.life, decision, by=by, why=why, at=moment(at))
    _tell(made, as_json)


@app.command()
@guarded
def undo(
    decision: IdArgument, by: ByOption, why: WhyOption, at: AtOption = None, config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """End it at once, for everybody whom it hits."""
    from ..store import decisions as store

    cases = desk(config)
    cases.note(reader(by), "undo", store.get(cases.client, cases.keys, decision).alert_id)
    made = store.undo(cases.client, cases.keys, cases.life, decision, by=by, why=why, at=moment(at))
    _tell(made, as_json)


@app.command("list")
@guarded
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every decision, newest first."""
    from ..store import decisions as store

    cases = desk(config)
    found = store.every(cases.client, cases.keys)
    if as_json:
        write_json([msgspec.to_builtins(d) for d in found])
        return
    rows = (
        (d.decision, d.state, d.action, len(d.accounts), f"{len(d.approvals)} of {d.needs}", when(d.until), d.alert_id)
        for d in found
    )
    out.print(table("Decisions", ("id", "state", "action", "accounts", "approved by", "until", "alert"), rows))


@guarded
def takedown(
    case: CaseArgument,
    action: ActionOption = "suspend_account",
    protect: ProtectOption = None,
    max_accounts: MostOption = 1_000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Needed: a takedown itself is proposed and approved.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show whom an action on a case would hit, all at once, and what stands against it."""
    from ..store import decisions as store

    if not dry_run:
        said = "--dry-run is needed: use `monitor decisions propose`, and let people approve it"
        raise BadInput([Problem("arguments", 0, said)])
    cases = desk(config)
    name = cases.find(case)
    cases.note(reader(), "takedown", name)
    hit = store.whom(cases.client, cases.keys, name, action, protected=_protected(protect), max_accounts=max_accounts)
    if as_json:
        write_json(msgspec.to_builtins(hit))
    else:
        _show(hit)
    raise typer.Exit(1 if hit.objections else 0)


def _show(hit: Hit) -> None:
    cost = "not known" if hit.cost_usd is None else f"{hit.cost_usd:,.2f} USD"
    out.out(
        f"{hit.action} would hit {len(hit.accounts)} core accounts at once ({hit.severity}, case {hit.case}): "
        f"{hit.requests} requests, {cost} so far; {len(hit.spared)} are spared",
        highlight=False,
    )
    for account in hit.accounts:
        out.out(clean(account), highlight=False)
    for line in hit.objections:
        out.out(f"against it: {line}", highlight=False)


def _tell(made: Decision, as_json: bool) -> None:
    if as_json:
        write_json(msgspec.to_builtins(made))
        return
    left = made.needs - len(made.approvals)
    more = f", {left} approval(s) to go" if made.state == "proposed" else ""
    out.out(f"{made.decision} is {made.state}{more}: {made.action} on {len(made.accounts)} accounts", highlight=False)
