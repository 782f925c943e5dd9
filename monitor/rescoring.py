"""Asks a model again about what the archive kept of every account and day: who would have been named by it, and when.

A file of the archive is a job that needs nothing of the others, so an engine may spread them. In one process they are
spread over threads, each with a session of its own: reading releases the interpreter's lock, as inference does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
import polars as pl

from monitor import wiring
from monitor.archive import SCORES, layout_of, scan
from monitor.engines import Engine
from monitor.errors import BadInput, Problem
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import Classifier, ClassifierOptions

SLICE = 32_768
"""Rows of a file scored at once: 50 MB of sets."""
THEN = tuple(f"then_{name}" for name in SCORES)
"""What the model of that day said, by the columns of :data:`SCORES`."""

_HERE = local()


@dataclass(frozen=True, slots=True)
class Work:
    """A job: one file of one day. Rows come back where a score, then or now, is at least ``above``."""

    file: Path
    day: date
    options: ClassifierOptions
    above: float


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of a file: its rows, those without an opinion, those in another layout (not read). ``found``:
    account, day, SCORES, THEN, each 0 to 1 or null. ``providers``: batches by where they ran."""

    rows: int
    silent: int
    foreign: int
    found: pl.DataFrame
    providers: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Rescored:
    """All of it. ``rows`` of ``days`` days; ``seconds`` by the clock, with reading."""

    days: int
    rows: int
    silent: int
    foreign: int
    found: pl.DataFrame
    providers: Counter[str]
    seconds: float

    def accounts(self, above: float) -> pl.DataFrame:
        """A row of each account with a score of at least ``above``, then or now: its highest scores, days above now,
        the first of them, and ``named``: ``new`` (now alone), ``still`` or ``no longer``; highest now first."""
        best = {name: pl.max_horizontal(of).fill_null(0.0) for name, of in (("now", SCORES), ("then", THEN))}
        each = self.found.with_columns(**best).with_columns(hit=pl.col("now") >= above)
        one = each.group_by("account").agg(
            pl.col("now", "then").max(), pl.col(SCORES).max(), days=pl.col("hit").sum(),
            since=pl.col("day").filter("hit").min(),
        )  # fmt: skip
        leading = pl.concat_list(pl.col(SCORES).fill_null(0.0)).list.arg_max()
        names = pl.Series([name.removeprefix("classifier_") for name in SCORES])
        still = pl.when(pl.col("now") < above).then(pl.lit("no longer"))
        named = still.when(pl.col("then") < above).then(pl.lit("new")).otherwise(pl.lit("still"))
        shown = one.with_columns(
            hypothesis=leading.replace_strict(dict(enumerate(names)), return_dtype=pl.String), named=named
        )
        columns = ("account", "named", "hypothesis", "now", "then", "days", "since")
        return shown.select(columns).sort(["now", "then", "account"], descending=[True, True, False])


def rescore(
    path: Path, options: ClassifierOptions, engine: Engine | None = None, *, first: date | None = None,
    last: date | None = None, above: float = 0.5, threads: int = 1, told: Callable[[int], None] = lambda rows: None,
) -> Rescored:  # fmt: skip
    """Ask the model of ``options`` about the archive's days from ``first`` to ``last``. ``engine`` None: ``threads`` of
    this process. ``told``: how many rows are done. Raises BadInput for an unfit model, or where nothing is kept.
    """
    if options.model_dir is None:
        why = "no model is configured: name --model DIR"
        raise BadInput([Problem("settings", 0, why, "score.classifier.model_dir")])
    model = Classifier(options, ACCOUNT_FEATURES, wiring.VECTORS)  # an unfit one is told here, and not by a job
    if not model.reads_sets:
        why = "reads no sets of requests, and the archive holds nothing else"
        raise BadInput([Problem(str(options.model_dir), 0, why)])
    work = [Work(file, day, options, above) for day, files in scan(path, first, last, "r") for file in files]
    began, rows, silent, foreign = time.perf_counter(), 0, 0, 0
    found: list[pl.DataFrame] = []
    providers: Counter[str] = Counter()
    for part in engine.run(score, work) if engine is not None else _threads(work, threads):
        rows, silent, foreign = rows + part.rows, silent + part.silent, foreign + part.foreign
        providers += part.providers
        found.append(part.found)
        told(rows)
    days = len({job.day for job in work})
    return Rescored(days, rows, silent, foreign, pl.concat(found), providers, time.perf_counter() - began)


def score(work: Work) -> Scored:
    """One job."""
    found = [pl.DataFrame(schema=_FOUND)]
    if layout_of(work.file) != wiring.VECTORS.hash:
        foreign = pl.scan_parquet(work.file).select(pl.len()).collect().item()
        return Scored(0, 0, foreign, found[0])
    model, rows, silent = _model(work.options), pl.read_parquet(work.file), 0
    for part in rows.iter_slices(SLICE):
        now = {name: values for name, values in model.score(part).items() if name in SCORES}
        best = np.fmax.reduce([*now.values()])
        silent += int(np.isnan(best).sum())
        high = pl.any_horizontal(pl.col(THEN) >= work.above).fill_null(value=False)
        held = part.select("account", *_SAID).with_columns(high=high)
        at = np.flatnonzero((best >= work.above) | held["high"].to_numpy())
        scores = [pl.Series(name, values[at], nan_to_null=True) for name, values in now.items()]
        found.append(held[at].with_columns(*scores, day=pl.lit(work.day)).select([*_FOUND]))
    if model.status().failures:
        raise BadInput([Problem(str(work.file), 0, str(model.status().inactive))])
    providers = Counter({provider: n for provider, n, _ in model.take_timings()})
    return Scored(len(rows), silent, 0, pl.concat(found), providers)


_SAID = [(pl.col(name) * (1 / 255)).alias(then) for name, then in zip(SCORES, THEN, strict=True)]
_FOUND: dict[str, Any] = {"account": pl.String, "day": pl.Date, **dict.fromkeys((*SCORES, *THEN), pl.Float64)}


def _model(options: ClassifierOptions) -> Classifier:
    """The model of this thread."""
    if getattr(_HERE, "options", None) != options:
        _HERE.options, _HERE.model = options, Classifier(options, ACCOUNT_FEATURES, wiring.VECTORS)
        _HERE.model.take_timings()  # those of the golden rows
    model: Classifier = _HERE.model
    return model


def _threads(work: Sequence[Work], threads: int) -> Iterator[Scored]:
    with ThreadPoolExecutor(threads, "rescore") as pool:
        yield from pool.map(score, work)
