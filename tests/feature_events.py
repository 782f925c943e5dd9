"""Events for the features stage, drawn and by hand, and the stage itself."""

from __future__ import annotations

import polars as pl
from hypothesis import strategies as st

from monitor.features.aggregates import TextLayout
from monitor.features.engine import FeatureEngine, FeatureOptions
from monitor.records import EVENT_SCHEMA
from monitor.sketch.vocabulary import LEXICON_FLAGS, SHAPE_NAMES

TEXT = TextLayout(SHAPE_NAMES, LEXICON_FLAGS)
CODES = {"batch": 3, "length": 2, "json": 2, "json_schema": 3, "high": 3}
T0 = 20_000 * 86_400_000
TICK = 10_000
HOUR, DAY = 3_600_000, 86_400_000


def events(rows: list[dict[str, object]]) -> pl.DataFrame:
    """Event frame of rows; what a row does not say is null."""
    made = []
    for i, row in enumerate(rows):
        base = {
            "partition": 0, "offset": i, "ts_ms": row["t_ms"], "account_id": row["subject"], "request_id": f"r{i}",
            "model": "m", "status": 200, "input_tokens": 10, "output_tokens": 20, "request_key": i + 1,
            "dedup_key": i + 1,
        }  # fmt: skip
        made.append({**base, **row, "tick": row["t_ms"] // TICK})  # type: ignore[operator]  # a row has its time
    schema = {**EVENT_SCHEMA, "tick": pl.Int64()}
    return pl.DataFrame([{k: r.get(k) for k in schema} for r in made], schema=schema)


def engine() -> FeatureEngine:
    return FeatureEngine(FeatureOptions(), TEXT, CODES)


event = st.fixed_dictionaries(
    {
        "subject": st.sampled_from(["a", "b", "c"]),
        "gap_ms": st.one_of(st.integers(0, 30_000), st.integers(0, 6 * HOUR), st.integers(0, 3 * DAY)),
        "model": st.sampled_from(["m1", "m2", "m3"]),
        "status": st.sampled_from([200, 200, 200, 429, 500]),
        "input_tokens": st.integers(0, 4000),
        "output_tokens": st.integers(0, 4000),
        "latency_ms": st.one_of(st.none(), st.integers(0, 60_000)),
        "temperature_milli": st.sampled_from([None, 0, 700]),
        "turn_index": st.sampled_from([None, 0, 1]),
        "delivery": st.sampled_from([None, 1, CODES["batch"]]),
        "net": st.one_of(st.none(), st.integers(1, 2**64 - 1)),
        "prompt_exact": st.sampled_from([11, 12, 13, 2**60]),
        "prompt_skeleton": st.sampled_from([2**59 + 3, 2**61 + 21, 2**63 + 40]),
        "question": st.booleans(),
    }
)


def build(drawn: list[dict[str, object]]) -> list[dict[str, object]]:
    t, rows = T0, []
    for d in drawn:
        t += int(d["gap_ms"])  # type: ignore[call-overload]  # drawn as an int
        shape = [0] * len(SHAPE_NAMES)
        shape[SHAPE_NAMES.index("has_question")] = 255 if d["question"] else 0
        row = {k: v for k, v in d.items() if k not in ("gap_ms", "question")}
        row["prompt_prefix"] = row["prompt_skeleton"]
        rows.append({**row, "t_ms": t, "shape": shape, "minhash": [int(d["prompt_exact"]) % 251] * 64, "lexicon": 0})  # type: ignore[call-overload]
    return rows
