"""``monitor templates``: families of prompts that unrelated tenants share, over the archive."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadInput, Problem
from .common import ConfigOption, JsonOption, day_of, guarded, out, table, write_json

if TYPE_CHECKING:
    from ..hunting import Family

_HEADS = ("template", "how", "tenants", "accounts", "clients", "first seen", "last seen", "days", "harvest",
          "age (days)")  # fmt: skip


@guarded
def templates(
    archive: Annotated[Path | None, typer.Option("--archive", help="The archive; archive.path without.")] = None,
    days: Annotated[int, typer.Option(min=1, help="Days looked at, the archive's last ones.")] = 30,
    until: Annotated[str | None, typer.Option(help="Last day looked at, as 2026-11-25.")] = None,
    least: Annotated[int, typer.Option(min=2, help="Unrelated tenants that share it, at least.")] = 3,
    most: Annotated[int | None, typer.Option(min=2, help="And at most: vendors' prompts have thousands.")] = None,
    new: Annotated[int | None, typer.Option(min=1, help="Only those first seen in the last so many days.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows of the table.")] = 40,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List templates that unrelated tenants share: how many, by how many clients, since when, and what they do.

    Keyed hashes, no text. A vendor's product is shared by many, of all ages; a campaign's template by few, young ones,
    with one client, whose prompts ask for reasoning or grades. A lead, not evidence.
    """
    from ..archive import days_of
    from ..hunting import families
    from ..settings import load_settings

    path = archive or load_settings(config).archive.path
    if path is None:
        raise BadInput([Problem("arguments", 0, "name --archive FOLDER, or set archive.path")])
    held = days_of(path)
    last = day_of(until, "--until") if until is not None else (held[-1] if held else date.max)
    found = [
        f for f in families(path, last - timedelta(days=days - 1), last, least)
        if (most is None or f.tenants <= most) and (new is None or f.first > last - timedelta(days=new))
    ]  # fmt: skip
    if as_json:
        write_json({"until": last.isoformat(), "families": [f.as_dict() for f in found]})
        return
    out.print(table(f"{len(found)} templates of {least} tenants or more", _HEADS, map(_row, found[:limit])))
    if len(found) > limit:
        out.out(f"{len(found) - limit} more: --limit, --most, --new or --json", highlight=False)


def _row(f: Family) -> tuple[object, ...]:
    harvest = "" if f.harvest is None else f"{f.harvest:.0%}"
    age = "" if f.age_days is None else f"{f.age_days:.0f}"
    return (f.template, f.kind.removeprefix("template_"), f.tenants, f.accounts, f.clients, f.first, f.last, f.days,
            harvest, age)  # fmt: skip
