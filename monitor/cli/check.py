"""``monitor check``: what a log carries, and what the monitor cannot do for want of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import ConfigOption, JsonOption, err, guarded, out, table, write_json

if TYPE_CHECKING:
    from ..coverage import Coverage


@guarded
def check(
    logs: Annotated[list[Path], typer.Option("--input", "-i", help="NDJSON (.gz, .zst) or Parquet; may be repeated.")],
    format: Annotated[str, typer.Option(help="native, auto, or a mapping of `monitor formats list`.")] = "auto",
    config: ConfigOption = None,
    rules: Annotated[Path | None, typer.Option(help="Directory of rules instead of the settings'.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read so many messages at most.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which format a log has, what was rejected and why, which fields it gives, and what is inactive without.

    Exit status: 0 every record is a request, or none of our business; 1 some were rejected; 2 unusable arguments;
    3 no record is a request.
    """
    from ..coverage import check_files
    from ..settings import load_settings

    found = check_files(logs, load_settings(config, read_secrets=False), format, rules, limit)
    if as_json:
        write_json(found.as_json())
    else:
        _show(found)
    if found.rejects or found.problems or not found.requests:
        raise typer.Exit(1 if found.requests else 3)


def _show(found: Coverage) -> None:
    from ..fields import FIELDS, REJECT_REASONS

    rows = [
        ("format", " · ".join(f"{name} {count:,}" for name, count in sorted(found.formats.items()))),
        ("messages", f"{found.messages:,}"),
        ("requests", f"{found.requests:,} of {found.accounts:,} accounts"),
        ("rejected", f"{sum(found.rejects.values()):,}"),
        ("no request", f"{found.ignored:,} items"),
        ("of a wrong type", " · ".join(f"{n} {c:,}" for n, c in found.wrong_types.most_common()) or "none"),
    ]
    out.print(table("Log", ("", ""), rows))
    if found.rejects:
        lost = [
            (reason, name, f"{count:,}", REJECT_REASONS[reason].help)
            for (reason, name), count in found.rejects.most_common()
        ]
        out.print(table("Rejected", ("reason", "field", "items", "what to do"), lost))
    if found.requests:
        shares = found.shares()
        fields = [(FIELDS[n].group, n, f"{s:.1%}") for n, s in shares.items()]
        out.print(table(f"{len(shares)} of {len(FIELDS)} fields", ("group", "field", "requests that say it"), fields))
        out.print(table("Absent", ("fields",), [(", ".join(n for n in FIELDS if n not in shares) or "none",)]))
        missing: list[tuple[str, str, str]] = []
        for kind, names in (("rule", found.inactive.rules), ("feature", found.inactive.features)):
            missing += [(kind, name, _words(lacks)) for name, lacks in sorted(names.items())]
        missing += [("detector", name, why) for name, why in sorted(found.inactive.detectors.items())]
        out.print(table("Inactive", ("", "name", "for want of"), missing or [("", "nothing", "")]))
    for problem in found.problems:
        err.print(f"damaged: {problem}", style="yellow", markup=False)


def _words(lacks: Sequence[str]) -> str:
    return ", ".join(lacks)
