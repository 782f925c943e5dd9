"""``monitor config show|check|schema|example``: the settings in force, what is wrong, what there is to set."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml

from ..errors import BadInput, Problem
from ..settings import Settings, example_yaml, json_schema, load_settings, masked

app = typer.Typer(no_args_is_help=True, help="Show, check and describe the settings.")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of settings; without it defaults and environment.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]
SecretsOption = Annotated[
    bool, typer.Option("--secrets/--no-secrets", help="Whether to open the files that *_file settings name.")
]


@app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False, secrets: SecretsOption = True) -> None:
    """Print every setting in force: file, then environment, over the defaults. Secrets are masked."""
    try:
        settings = load_settings(config, read_secrets=secrets)
    except BadInput as error:
        _refuse(error.problems, as_json)
    tree = masked(settings)
    typer.echo(_json(tree) if as_json else yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).rstrip())


@app.command()
def check(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    secrets: SecretsOption = True,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Also demand what `monitor run` demands.")] = True,
) -> None:
    """Say everything that is wrong, each with file, line and remedy; exit 2 if anything is."""
    try:
        settings = load_settings(config, read_secrets=secrets)
    except BadInput as error:
        _refuse(error.problems, as_json)
    problems = run_problems(settings, config) if run else []
    if problems:
        _refuse(problems, as_json)
    if as_json:
        typer.echo(_json({"problems": [], "hash": settings.hash}))
    else:
        typer.echo(f"ok: {config or 'defaults and environment'} (hash {settings.hash})")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the settings file, for an editor to check it while it is written."""
    typer.echo(_json(json_schema()))


@app.command()
def example() -> None:
    """Print a settings file that shows every knob with its meaning and default."""
    typer.echo(example_yaml(), nl=False)


def run_problems(settings: Settings, config: Path | str | None) -> list[Problem]:
    """What ``monitor run`` needs beyond valid settings."""
    file = str(config) if config is not None else "settings"
    return [Problem(file, 0, message, field) for field, message in settings.missing_for_run()]


def _refuse(problems: Iterable[Problem], as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(_json({"problems": [asdict(problem) for problem in problems]}))
    else:
        for problem in problems:
            typer.echo(str(problem), err=True)
    raise typer.Exit(2)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
