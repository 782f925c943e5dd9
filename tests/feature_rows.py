"""Event frames for the features stage alone, and its rows however they are cut. Checks that a defect must fail."""

from __future__ import annotations

import numpy as np
import polars as pl

from monitor.features.engine import FeatureEngine, FeatureOptions
from monitor.records import EVENT_SCHEMA
from monitor.wiring import CODES, TEXT

T0 = 20_000 * 86_400_000
MINUTE, DAY = 60_000, 86_400_000


def engine() -> FeatureEngine:
    return FeatureEngine(FeatureOptions(), TEXT, CODES)


def frame(subjects: list[str], times: np.ndarray, partitions: int = 1) -> pl.DataFrame:
    """One request each, its tick by its own time."""
    n = len(times)
    known = {
        "partition": pl.Series([int(s[1:]) % partitions for s in subjects], dtype=pl.Int32), "t_ms": times,
        "ts_ms": times,
        "subject": subjects, "account_id": subjects, "request_id": [f"r{t}" for t in times.tolist()],
        "model": ["m"] * n, "status": [200] * n, "input_tokens": [5] * n, "output_tokens": [7] * n,
        "request_key": np.arange(1, n + 1, dtype=np.uint64), "dedup_key": times.astype(np.uint64),
        "tick": times // 10_000,
    }  # fmt: skip
    schema = {**EVENT_SCHEMA, "tick": pl.Int64()}
    rows = pl.DataFrame(known).cast({k: schema[k] for k in known})
    return rows.with_columns(pl.lit(None, d).alias(k) for k, d in schema.items() if k not in known).select(list(schema))


def rows(events: pl.DataFrame, size: int) -> pl.DataFrame:
    """Rows of the events in calls of ``size``, each with the watermark behind its last event, as the spine calls."""
    made, stage = [], engine()
    for part in events.iter_slices(size):
        marks = dict(part.group_by("partition").agg(pl.col("t_ms").max() + 1).iter_rows())
        made.append(stage.update(part, marks).drop("origin"))
    return pl.concat(made).sort("partition", "tick", "subject")


def check_long_batch(size: int) -> None:
    """Minutes of four days in one batch or in many: the hour before a row is there for it."""
    times = T0 + np.arange(6_000, dtype=np.int64) * MINUTE
    events = frame(["a0"] * 6_000, times)
    assert rows(events, size).equals(rows(events, 97))
