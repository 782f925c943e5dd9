"""``monitor features list`` and ``monitor fields``: the vocabularies, as the code has them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .. import fields as vocabulary
from ..features.vocabulary import CATALOGUE
from .common import JsonOption, out, table, write_json

app = typer.Typer(no_args_is_help=True, help="What rules and models may name.")


@app.command("list")
def list_features(
    family: Annotated[str | None, typer.Option(help="Only this family of evidence.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the account features and scores: unit, window, what they need, what they mean."""
    found = [f for f in CATALOGUE if family in (None, f.family)]
    if not found:
        families = ", ".join(sorted({f.family for f in CATALOGUE}))
        raise typer.BadParameter(f"no feature has the family {family!r}; there are {families}")
    if as_json:
        write_json([asdict(f) for f in found])
        return
    rows = ((f.name, f.family, f.unit, f.window or "", " ".join(f.needs), f.meaning) for f in found)
    out.print(table(f"{len(found)} features", ("name", "family", "unit", "window", "needs", "meaning"), rows))


def list_fields(as_json: JsonOption = False) -> None:
    """List the fields of the request log (contract 1) and the reasons for which a record is rejected."""
    known = vocabulary.FIELDS.values()
    if as_json:
        write_json(
            {
                "fields": [{"name": f.name, "group": f.group, "required": f.required, "meaning": f.doc} for f in known],
                "rejects": {reason: help.help for reason, help in vocabulary.REJECT_REASONS.items()},
            }
        )
        return
    rows = ((f.name, f.group, "required" if f.required else "", f.doc) for f in known)
    out.print(table("Request log, version 1", ("field", "group", "", "meaning"), rows))
    rejects = ((reason, help.help) for reason, help in vocabulary.REJECT_REASONS.items())
    out.print(table("A record is rejected for", ("reason", "meaning"), rejects))
