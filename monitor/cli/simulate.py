"""``monitor simulate``: traffic with the disclosed campaigns and honest look-alikes in it, and the truth beside."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import JsonOption, guarded, out, progress_bar, table, write_json

if TYPE_CHECKING:
    from ..simulate import Scenario
    from ..simulate.api import Written

_BESIDE = "default: beside --out where that is a file"


@guarded
def simulate(
    scenarios: Annotated[list[str] | None, typer.Argument(metavar="[SCENARIO]...", help="Names or YAML files.")] = None,
    out_: Annotated[
        str, typer.Option("--out", help="FILE (.ndjson, .gz, .zst, .parquet) or kafka://BROKER/TOPIC.")
    ] = "",
    accounts: Annotated[int, typer.Option(help="Ordinary accounts.")] = 2_000,
    days: Annotated[float, typer.Option(help="Days of event time.")] = 3.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same bytes.")] = 1,
    speed: Annotated[
        float | None,
        typer.Option(help="Seconds of event time in one of the wall, for Kafka; none: as fast as it goes."),
    ] = None,
    prompts: Annotated[list[Path] | None, typer.Option(help="Parquet with system, prompt, session_id, turn.")] = None,
    trace: Annotated[list[Path] | None, typer.Option(help="Parquet of arrivals and token counts.")] = None,
    heavy_cap: Annotated[
        float | None, typer.Option(help="Most requests a day of a heavy ordinary account; small worlds need it.")
    ] = None,
    evade: Annotated[
        list[str] | None,
        typer.Option(metavar="KNOB=VALUE", help="An evasion of every attack (cover=0.9, human=0.5, age_days=200, …)."),
    ] = None,
    context: Annotated[Path | None, typer.Option(help=f"Where context events go; {_BESIDE}.")] = None,
    truth: Annotated[Path | None, typer.Option(help=f"Where the truth goes; {_BESIDE}.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the scenarios that ship, and the knobs.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a scenario file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a request log, its context and its truth (contracts 1, 5 and 4)."""
    from ..errors import BadInput, Problem
    from ..simulate import json_schema

    if schema:
        sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")
        return
    if list_:
        _list()
        return
    problems = []
    if not out_:
        problems.append(Problem("arguments", 0, "--out FILE or --out kafka://BROKER/TOPIC is needed"))
    kafka = out_.startswith("kafka://")
    if speed is not None and (not kafka or speed <= 0):
        problems.append(Problem("arguments", 0, "--speed paces kafka:// alone, and is over 0"))
    if problems:
        raise BadInput(problems)
    cast = _cast(scenarios or [], evade or [])

    with progress_bar("simulate", 1.0, quiet=as_json) as update:

        def progress(share: float, requests: int) -> None:
            update(share, f"{share:.0%} · {requests:,} requests")

        if kafka:
            from ..live import produce_simulation

            written = produce_simulation(
                cast, out_, accounts=accounts, days=days, seed=seed, speed=speed, heavy_cap=heavy_cap,
                prompts=prompts or (), trace=trace or (), context=context, truth=truth, progress=progress,
            )  # fmt: skip
        else:
            from ..simulate.api import simulate as make

            written = make(
                cast, out_, accounts=accounts, days=days, seed=seed, heavy_cap=heavy_cap, context=context, truth=truth,
                prompts=prompts or (), trace=trace or (), progress=progress,
            )  # fmt: skip
    _show(written, out_, as_json)


def _cast(names: list[str], knobs: list[str]) -> Sequence[Scenario]:
    """The scenarios by name or path, with their knobs turned. Raises BadInput with every problem of either."""
    from ..simulate import evade, find

    found = find(names)
    if not knobs:
        return found
    turned = _knobs(knobs)
    return [evade(scenario, **turned) for scenario in found]


def _knobs(given: list[str]) -> dict[str, float | bool]:
    from ..errors import BadInput, Problem

    turned: dict[str, float | bool] = {}
    problems = []
    for item in given:
        name, _, text = item.partition("=")
        word = text.strip().lower()
        try:
            turned[name.strip()] = word == "true" if word in ("true", "false") else float(word)
        except ValueError:
            problems.append(Problem("arguments", 0, f"--evade takes KNOB=NUMBER or KNOB=true, not {item!r}"))
    if problems:
        raise BadInput(problems)
    return turned


def _list() -> None:
    from ..simulate import scenario

    found = [scenario.load(path) for path in scenario.shipped().values()]
    rows = ((s.id, s.kind, f"{s.accounts:,} : {scenario.POPULATION:,}", s.title) for s in found)
    out.print(table("Scenarios", ("name", "kind", "accounts at full size", "title"), rows))
    out.print(f"knobs for --evade: {', '.join(scenario.Evasion.model_fields)}", soft_wrap=True)


def _show(written: Written, to: str, as_json: bool) -> None:
    if as_json:
        write_json(written.as_dict())
        return
    rows = [("requests", f"{written.requests:,}"), ("accounts", f"{written.accounts:,}"), ("written to", to)]
    rows += [
        (name, f"{ratio} accounts · {written.requests_by_scenario[name]:,} requests")
        for name, ratio in written.campaigns.items()
    ]
    out.print(table("Simulated", ("", ""), rows))
