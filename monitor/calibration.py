"""The calibration that ships: statistics of groups in simulated worlds in which everybody is honest.

``monitor evaluate --calibration FILE`` writes it. Seeds are its own: no world that measures the detector is among them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from monitor import wiring
from monitor.alerts import FileSink
from monitor.backtest import backtest
from monitor.campaigns.calibrate import ENOUGH, to_ship
from monitor.evaluate.sizes import CONFOUNDERS
from monitor.offline import context_events
from monitor.settings import Settings
from monitor.simulate import api
from monitor.sketch import Keyring

SEEDS = (901, 902, 903, 904)
ACCOUNTS, DAYS, HEAVY_CAP = 1_000, 0.75, 300.0
HOURS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""When groups are measured: what ships is asked in a log's first hours, when everybody has sent little."""


def measure(
    settings: Settings, seeds: Sequence[int] = SEEDS, progress: Callable[[int], None] = lambda seed: None
) -> bytes:
    """The file that ships: as many groups as are ever asked, drawn evenly from seeds and hours."""
    found: list[pl.DataFrame] = []
    for seed in seeds:
        found += _world(settings, seed)
        progress(seed)
    pool = pl.concat(found)
    chosen = np.random.default_rng(seeds[0]).permutation(len(pool))[: 2 * ENOUGH]
    return to_ship(pool[chosen])


def _world(settings: Settings, seed: int) -> list[pl.DataFrame]:
    """The groups of one honest world, at each of the hours."""
    with tempfile.TemporaryDirectory() as folder:
        log, alerts = Path(folder) / "log.ndjson", Path(folder) / "alerts.ndjson"
        api.simulate(list(CONFOUNDERS), log, accounts=ACCOUNTS, days=DAYS, seed=seed, heavy_cap=HEAVY_CAP)
        pipeline = wiring.pipeline(settings, keys=Keyring.from_seed(seed), rules=wiring.load(settings))
        pipeline.known.take(context_events([log.with_name("log.context.ndjson")]))
        stage, step_s = pipeline.campaigns.stage, settings.campaigns.step_s
        stage.honest, stage.options = True, replace(stage.options, shipped_calibration=False)
        held: list[tuple[int, pl.DataFrame]] = []

        def note(step: int, reference: pl.DataFrame) -> None:
            held.append((step, reference))

        stage.on_reference = note
        sink = FileSink(alerts)
        try:
            backtest(pipeline, [log], sink, partitions=1, max_bytes=settings.decode.max_bytes)
        finally:
            sink.close()
        begun = stage.population.first_step
        wanted = [begun + hours * 3_600 / step_s for hours in HOURS]
        at = sorted({min((s for s, _ in held if s >= w), default=held[-1][0]) for w in wanted})
        return [reference for step, reference in held if step in at]
