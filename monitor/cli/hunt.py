"""``monitor hunt``: from one tip to the accounts it belongs with, over the archive."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadInput, Problem
from .common import ConfigOption, JsonOption, day_of, err, guarded, out, table, write_json

if TYPE_CHECKING:
    from ..hunting import Found


@guarded
def hunt(
    seed: Annotated[list[str], typer.Option("--seed", help="An account that is suspected; may be given again.")],
    archive: Annotated[Path | None, typer.Option("--archive", help="The archive; archive.path without.")] = None,
    days: Annotated[int, typer.Option(min=1, help="Days looked at, the archive's last ones.")] = 30,
    until: Annotated[str | None, typer.Option(help="Last day looked at, as 2026-11-25.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=16, help="Steps from account to account.")] = 4,
    margin: Annotated[float, typer.Option(min=0, help="Bits of surprise beyond chance; fewer find more.")] = 5.0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows of the table.")] = 60,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find who belongs with an account: shared links by rarity, round by round, and who does the same.

    `core` shares a link that the provider attests and does the same as the seeds; `linked` shares links only, and may
    be a victim. It is a lead, not evidence: raise no alert and block nobody on it alone.
    """
    from ..archive import days_of
    from ..hunting import HuntOptions, load
    from ..hunting import hunt as follow
    from ..settings import load_settings

    path = archive or load_settings(config).archive.path
    if path is None:
        raise BadInput([Problem("arguments", 0, "name --archive FOLDER, or set archive.path")])
    held = days_of(path)
    last = day_of(until, "--until") if until is not None else (held[-1] if held else date.max)
    people = load(path, last - timedelta(days=days - 1), last)
    found = follow(people, seed, HuntOptions(margin_bits=margin, rounds=rounds))
    if as_json:
        write_json(found.as_dict())
        return
    core = [f for f in found.found if f.tier == "core"]
    columns = ("account", "round", "tier", "bits", "shares (tenants that do)", "does the same", "nearer", "classifier",
               "requests", "last seen")  # fmt: skip
    out.print(table(f"{len(found.found)} accounts, {len(core)} core", columns, map(_row, found.found[:limit])))
    if len(found.found) > limit:
        out.out(f"{len(found.found) - limit} more: --limit or --json", highlight=False)
    tenants = len({f.tenant for f in found.found})
    out.out(
        f"of {found.accounts:,} accounts in {found.days} days; {tenants} tenants, "
        f"{sum(f.requests for f in found.found):,} requests, "
        f"{sum(f.output_tokens for f in found.found):,} output tokens; {found.significant} of {found.pairs} pairs of "
        f"links tie, at {found.threshold:.1f} bits",
        highlight=False,
    )
    if len(found.found) == len(seed):
        err.print("nobody shares a rare pair of links with it: try more --days, another seed, or fewer --margin bits",
                  style="yellow")  # fmt: skip


def _row(f: Found) -> tuple[object, ...]:
    shares = ", ".join(f"{kind} {n}" for kind, n in sorted(f.links.items(), key=lambda x: x[1]))
    near = "" if f.distance is None else f"{f.distance:.1%}"
    seen = datetime.fromtimestamp(f.last, UTC).strftime("%Y-%m-%d %H:%M")
    return (f.account, f.round or "seed", f.tier, f"{f.bits:.1f}", shares, ", ".join(f.does), near,
            "" if f.classifier is None else f"{f.classifier:.2f}", f"{f.requests:,}", seen)  # fmt: skip
