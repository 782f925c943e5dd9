"""Feature rows made for the tests of the score stage: a benign population by class, and accounts that are odd.

Seeded and vectorised; nothing here is a model of real traffic. Rows have ROW_KEYS and every catalogue feature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from monitor.features.catalogue import ACCOUNT_FEATURES, CLIENT_CLASSES
from monitor.records import ROW_KEYS
from monitor.score import AnomalyOptions, ScoreOptions, Scorer

TICKS = 360  # an hour of ticks of 10 s
PARTITIONS = 4

_CENTRE: dict[str, tuple[float, float]] = {
    # level feature -> mean and spread on the scale it is drawn on (log2 for counts)
    "requests_24h": (5.5, 1.2), "active_hours_24h": (9.0, 2.5), "gap_log_mean_24h": (7.0, 1.5),
    "gap_log_sd_24h": (2.5, 0.5), "day_entropy_7d": (0.7, 0.08), "input_tokens_mean_24h": (9.5, 1.0),
    "output_tokens_mean_24h": (8.5, 0.8), "input_log_sd_24h": (1.5, 0.3), "output_log_sd_24h": (1.4, 0.3),
    "follow_up_share_24h": (0.5, 0.15), "template_concentration_24h": (0.1, 0.05),
    "model_concentration_24h": (0.8, 0.1),
}  # fmt: skip
_LOG = {"requests_24h", "input_tokens_mean_24h", "output_tokens_mean_24h"}
_CHANGE = {f.name for f in ACCOUNT_FEATURES if f.window == "past"}


def rows(
    epoch: int,
    accounts: np.ndarray[Any, Any],
    seed: int = 0,
    *,
    ticks_each: int = 1,
    odd: float = 0.0,
    history: bool = True,
    class_shift: int = 0,
    prefix: str = "acct",
    partitions: int = PARTITIONS,
) -> pl.DataFrame:
    """One epoch's rows: each of ``accounts`` (numbers) in ``ticks_each`` ticks, sorted by tick and subject.

    ``odd`` from 0 (as everyone) to 1 moves level and change features away from the population. Without
    ``history`` the change features are null.
    """
    rng = np.random.default_rng([seed, epoch, int(odd * 1e6)])
    n = len(accounts) * ticks_each
    who = np.repeat(accounts, ticks_each)
    tick = epoch * TICKS + rng.integers(0, TICKS, n)
    columns: dict[str, Any] = {}
    for feature in ACCOUNT_FEATURES:
        name = feature.name
        if name in _CENTRE:
            mean, spread = _CENTRE[name]
            own = ((who * 2654435761 + len(name) * 97) % 1000) / 1000 - 0.5  # what is particular to an account
            value = mean + spread * (0.8 * rng.standard_normal(n) + own) + 5 * spread * odd
            columns[name] = np.maximum(2**value if name in _LOG else value, 0.0)
        elif name in _CHANGE:
            value = 0.4 * rng.standard_normal(n) + 4 * odd
            if feature.unit == "share":
                value = np.clip(0.05 * rng.standard_normal(n) + odd, -1, 1)
            columns[name] = value if history else np.full(n, np.nan)
        else:
            columns[name] = rng.random(n)
    frame = pl.DataFrame(
        {
            "subject": pl.Series([f"{prefix}-{a:06d}" for a in who.tolist()]),
            "partition": (who % partitions).astype(np.int32),
            "tick": tick.astype(np.int64),
            "t_ms": tick * 10_000 + 5_000,
            "client_class": ((who // partitions + class_shift) % len(CLIENT_CLASSES)).astype(np.uint8),
            **columns,
        },
        schema_overrides=ROW_KEYS,
    )
    frame = frame.with_columns(pl.col(ACCOUNT_FEATURES.names).fill_nan(None))
    return frame.unique(["subject", "tick"], keep="first", maintain_order=True).sort("tick", "subject")


def small(**changed: Any) -> ScoreOptions:
    """Options under which a class is ready after a few epochs of 200 accounts."""
    values: dict[str, Any] = {
        "window": 16, "quarantine_h": 2.0, "learn_epochs": 2, "cold_rows": 40, "warm_rows": 12, "calibration_min": 12,
        "calibration_rows": 128, "sketch_rows": 64, "sketch_min": 10, "promote_epochs": 4,
    }  # fmt: skip
    return ScoreOptions(anomaly=AnomalyOptions(**{**values, **changed}))


def run(
    scorer: Scorer, first: int, last: int, accounts: int = 200, suspects: tuple[str, ...] = (), **made: Any
) -> pl.DataFrame:
    """Epochs ``first`` to ``last`` (not included) in the order the pipeline works them; the last epoch, scored."""
    scored = pl.DataFrame()
    for epoch in range(first, last):
        frame = rows(epoch, np.arange(accounts), **made)
        for partition in sorted(frame["partition"].unique().to_list()):
            scorer.advance(partition, epoch, suspects)
        scored = scorer.score(frame)
        scorer.collect(scored)
    return scored
