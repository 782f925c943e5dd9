"""``monitor formats``: the log formats that can be read, and help for writing one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .common import ConfigOption, JsonOption, guarded, out, table, write_json

app = typer.Typer(no_args_is_help=True, help="Log formats: mappings to the request log (contract 1).")


@app.command("list")
@guarded
def list_formats(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the formats, those of decode.mappings included."""
    from ..decode import load_formats
    from ..settings import load_settings

    settings = load_settings(config, read_secrets=False)
    known = load_formats(settings.decode.mappings, settings.decode.account_from)
    rows = [(n, known.plans[n].title, len(known.mapper(n).fields), known.files[n]) for n in sorted(known.plans)]
    if as_json:
        write_json([{"id": n, "title": t, "fields": sorted(known.mapper(n).fields), "file": f} for n, t, _, f in rows])
        return
    own = [("native", "The request log, contract 1", "", ""), ("auto", "Each message by what it looks like", "", "")]
    out.print(table("Formats", ("name", "what it is", "fields", "file"), [*own, *rows]))


@app.command("lint")
@guarded
def lint(directories: Annotated[list[Path], typer.Argument(help="Directories (or files) of mappings.")]) -> None:
    """Check mappings of your own: every problem at once, with file and line."""
    from ..decode import load_formats

    known = load_formats(directories)
    out.print(f"{len(known.plans)} mappings, those of the package included: no problem")


@app.command("schema")
@guarded
def schema(
    write: Annotated[
        bool, typer.Option("--write", help="Write the committed file instead of standard output.")
    ] = False,
) -> None:
    """The JSON Schema of mappings, for editors: name it in `# yaml-language-server: $schema=...`."""
    from ..decode.formats import json_schema, packaged_mappings

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if write:
        (packaged_mappings().parent / "mapping.schema.json").write_text(text, "utf-8")
    else:
        typer.echo(text, nl=False)
