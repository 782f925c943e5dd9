"""``monitor rescore``: a model's opinion of what the archive kept, days or months later."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer

from ..errors import BadInput, Problem
from .common import ConfigOption, EngineOption, JsonOption, day_of, guarded, out, progress_bar, table, write_json


@guarded
def rescore(
    archive: Annotated[Path | None, typer.Option("--archive", help="The archive; archive.path without.")] = None,
    model: Annotated[Path | None, typer.Option("--model", help="A model's directory; the settings' without.")] = None,
    days: Annotated[int, typer.Option(min=1, help="Days asked about, the archive's last ones.")] = 90,
    until: Annotated[str | None, typer.Option(help="Last day asked about, as 2026-11-25.")] = None,
    above: Annotated[float, typer.Option(min=0, max=1, help="An account is named from this score on.")] = 0.5,
    engine: EngineOption = "local",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of --engine local; one for each processor without.")
    ] = None,
    into: Annotated[Path | None, typer.Option("--out", help="Parquet file for every account and day named.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows of the table.")] = 40,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a model about the archive's days: who is named now, who was then.

    Needs an archive written with `archive.reads: true`. Nothing is raised and nobody is blocked by it: an account that
    is `new` is a lead for `monitor hunt`.
    """
    from ..archive import days_of
    from ..engines import LOCAL, engine_of
    from ..engines.processes import processors
    from ..rescoring import rescore as ask
    from ..settings import load_settings
    from ..wiring import score_options

    settings = load_settings(config)
    path = archive or settings.archive.path
    if path is None:
        raise BadInput([Problem("arguments", 0, "name --archive FOLDER, or set archive.path")])
    options = score_options(settings).classifier
    if model is not None:
        options = replace(options, model_dir=model)
    held = days_of(path, "r")
    last = day_of(until, "--until") if until is not None else (held[-1] if held else date.max)
    with progress_bar("rescore", None, quiet=as_json) as update:
        done = ask(
            path, options, None if engine == LOCAL else engine_of(engine), first=last - timedelta(days=days - 1),
            last=last, above=above, threads=threads or processors(), told=lambda rows: update(rows, f"{rows:,} rows"),
        )  # fmt: skip
    accounts = done.accounts(above)
    if into is not None:
        done.found.write_parquet(into)
    rate = round(done.rows / done.seconds)
    if as_json:
        write_json({
            "days": done.days, "rows": done.rows, "no_opinion": done.silent, "other_layout": done.foreign,
            "seconds": round(done.seconds, 3), "rows_per_second": rate, "batches": dict(done.providers),
            "accounts": [{**row, "since": None if row["since"] is None else row["since"].isoformat()}
                         for row in accounts.iter_rows(named=True)],
        })  # fmt: skip
        return
    counts = dict(accounts["named"].value_counts().iter_rows())
    title = ", ".join(f"{counts.get(name, 0):,} {name}" for name in ("new", "still", "no longer"))
    columns = ("account", "named", "hypothesis", "now", "then", "days", "since")
    out.print(table(title, columns, map(_row, accounts.head(limit).iter_rows())))
    if len(accounts) > limit:
        out.out(f"{len(accounts) - limit:,} more: --limit, --json or --out FILE", highlight=False)
    where = ", ".join(f"{provider} {n:,} batches" for provider, n in sorted(done.providers.items()))
    out.out(
        f"{done.rows:,} account-days of {done.days} days, {done.silent:,} without an opinion, in {done.seconds:.1f} s: "
        f"{rate:,} a second ({where})",
        highlight=False,
    )
    if done.foreign:
        out.out(f"{done.foreign:,} rows were not read: another release wrote them in another layout", highlight=False)


def _row(row: tuple[object, ...]) -> tuple[object, ...]:
    account, named, hypothesis, now, then, days, since = row
    return (account, named, hypothesis, f"{now:.3f}", f"{then:.3f}", days, "" if since is None else str(since))
