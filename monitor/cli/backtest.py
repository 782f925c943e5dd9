"""``monitor backtest``: the whole pipeline over files (contract 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import ConfigOption, EngineOption, err, guarded, out, progress_bar, table


@guarded
def backtest(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="NDJSON (.gz, .zst) or Parquet, in any order.")],
    alerts: Annotated[Path, typer.Option("--alerts", help="Where the alerts go, one JSON object a line.")],
    context: Annotated[list[Path] | None, typer.Option(help="Context events (contract 5); may be repeated.")] = None,
    format: Annotated[
        str | None, typer.Option(help="Format of the logs: native, auto or a mapping; the settings' without.")
    ] = None,
    config: ConfigOption = None,
    rules: Annotated[Path | None, typer.Option(help="Directory of rules instead of the settings'.")] = None,
    warmup: Annotated[
        list[Path] | None, typer.Option(help="Logs that fill the baselines first; their alerts are not written.")
    ] = None,
    summary: Annotated[Path | None, typer.Option("--json", help="Where the summary goes as JSON.")] = None,
    partitions: Annotated[int | None, typer.Option(help="Virtual partitions; the topic's number to compare.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sketch key where the settings have none.")] = 1,
    engine: EngineOption = "local",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
) -> None:
    """Run what `monitor run` runs over files, in event time, without a server."""
    from .. import offline
    from ..engines import engine_of

    on = engine_of(engine)
    if alerts.exists():
        alerts.unlink()
    with progress_bar("backtest", None, quiet=quiet) as update:
        result = offline.backtest_files(
            logs, alerts, context=context or (), format=format, config=config, rules=rules, warmup=warmup or (),
            partitions=partitions, seed=seed, engine=on,
            progress=lambda events, raised: update(events, f"{events:,} requests, {raised} alerts"),
        )  # fmt: skip
    if summary is not None:
        summary.write_text(_dumps(result), "utf-8")
    if not quiet:
        _show(result, alerts)


def _dumps(value: Any) -> str:
    import json

    return json.dumps(value, indent=2, sort_keys=False) + "\n"


def _memory(result: dict[str, Any]) -> str:
    one, every = (f"{result[key]:,.0f}" for key in ("peak_rss_mb", "peak_rss_mb_all"))
    return one if one == every else f"{one} MB in one process, all together {every}"


def _show(result: dict[str, Any], alerts: Path) -> None:
    rejects, ignored = sum(result["rejects"].values()), result["ignored"]
    rows = [
        ("requests", f"{result['events']:,}" + (f" · {ignored:,} items are none" if ignored else "")),
        ("accounts", f"{result['accounts']:,}"),
        ("rejected", f"{rejects:,}" + "".join(f" · {k} {v}" for k, v in result["rejects"].items())),
        (
            "alerts",
            f"{result['alerts']['total']:,}" + "".join(f" · {k} {v}" for k, v in result["alerts"]["severity"].items()),
        ),
        ("hypotheses", " · ".join(f"{k} {v}" for k, v in result["alerts"]["hypothesis"].items()) or "none"),
        ("time", f"{result['seconds']:.1f} s, {result['events_per_second']:,} requests a second"),
        ("memory", f"{_memory(result)} MB at most"),
        ("inactive rules", ", ".join(result["inactive"]["rules"]) or "none"),
        ("written to", alerts),
    ]
    out.print(table("Backtest", ("", ""), rows))
    for problem in result["problems"]:
        err.print(f"damaged: {problem}", style="yellow", markup=False)
