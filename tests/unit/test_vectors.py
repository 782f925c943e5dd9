"""The request vector: what each byte says, and what it must never depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from feature_rows import T0, frame

from monitor.fields import DELIVERIES, FINISH_REASONS, RESPONSE_FORMATS, code
from monitor.records import EVENT_SCHEMA, SHAPE_SCALARS
from monitor.sketch.vocabulary import LEXICON_FLAGS, SHAPE_NAMES
from monitor.vectors import GAP, NOVELTY, VectorLayout, unpack
from monitor.wiring import CODES, VECTORS


def one(**told: Any) -> dict[str, int]:
    """The bytes of one event, by name."""
    return many([told])[0]


def many(rows: list[dict[str, Any]]) -> list[dict[str, int]]:
    events = frame(["a0"] * len(rows), T0 + np.arange(len(rows), dtype=np.int64))
    for name in {name for row in rows for name in row}:
        old = events[name].to_list()
        values = [row.get(name, was) for row, was in zip(rows, old, strict=True)]
        events = events.with_columns(pl.Series(name, values, EVENT_SCHEMA[name]))
    return [dict(zip(VECTORS.names, row, strict=True)) for row in VECTORS.pack(events, CODES).tolist()]


def test_the_layout_is_what_models_were_trained_on() -> None:
    """Another order or meaning is another hash, and then every model must be trained anew."""
    assert VECTORS.width == 48
    assert VECTORS.hash == "0e80cf75b3ecb027"
    assert len(set(VECTORS.names)) == 48
    turned = VectorLayout((*SHAPE_NAMES[1:], SHAPE_NAMES[0]), LEXICON_FLAGS)
    assert turned.hash != VECTORS.hash
    with pytest.raises(ValueError, match="wrapper"):
        VectorLayout(SHAPE_NAMES, tuple(f for f in LEXICON_FLAGS if f != "wrapper"))


def test_it_has_no_place_for_geography_the_hour_or_an_id() -> None:
    words = {word for name in VECTORS.names for word in name.split("_")}
    assert not words & {"country", "asn", "net", "ip", "hour", "day", "script", "language", "id", "key", "hash"}


def test_unknown_is_neither_no_nor_yes() -> None:
    bare = one()
    flags = {name for name, kind in VECTORS.fields if kind == "flag"} - {"ok"}
    assert {bare[name] for name in flags} == {128}
    rest = {name for name, kind in VECTORS.fields if kind != "flag"} - {"input_tokens", "output_tokens"}
    assert {bare[name] for name in rest} == {0}
    assert one(reasoning_tokens=0)["reasoning_tokens"] == 1


@pytest.mark.parametrize(
    ("told", "name", "byte"),
    [
        ({"stream": True}, "stream", 255),
        ({"stream": False}, "stream", 0),
        ({"n_tools": 0}, "tools", 0),
        ({"n_tools": 3}, "tools", 255),
        ({"response_format": code(RESPONSE_FORMATS, "json_schema")}, "json", 255),
        ({"response_format": code(RESPONSE_FORMATS, "text")}, "json", 0),
        ({"max_tokens": 7}, "capped", 255),
        ({"max_tokens": 700}, "capped", 0),
        ({"max_tokens": 700, "finish_reason": code(FINISH_REASONS, "length")}, "capped", 255),
        ({"finish_reason": code(FINISH_REASONS, "stop")}, "capped", 0),
        ({"turn_index": 0, "n_messages": 9}, "follow_up", 0),
        ({"n_messages": 3}, "follow_up", 255),
        ({"status": 204}, "ok", 255),
        ({"status": 429}, "ok", 0),
        ({"delivery": code(DELIVERIES, "batch")}, "batch", 255),
        ({"temperature_milli": 0}, "temperature", 1),
        ({"temperature_milli": 700}, "temperature", 85),
        ({"temperature_milli": 2_000_000}, "temperature", 253),
        ({"input_tokens": 0}, "input_tokens", 1),
        ({"input_tokens": 1_023}, "input_tokens", 81),
        ({"output_tokens": 10**9}, "output_tokens", 240),
        ({"lexicon": 1 << LEXICON_FLAGS.index("rubric_grading")}, "lex_rubric_grading", 255),
        ({"lexicon": 1 << LEXICON_FLAGS.index("rubric_grading")}, "lex_rewriting", 0),
        ({"shape": list(range(SHAPE_SCALARS))}, f"shape_{SHAPE_NAMES[7]}", 7),
        ({"shape": [0] * SHAPE_SCALARS}, "text", 255),
    ],
)
def test_what_a_byte_says(told: dict[str, Any], name: str, byte: int) -> None:
    assert one(**told)[name] == byte


def test_nothing_else_moves_a_byte() -> None:
    """Country, network, identifiers and the time: relabelled or moved, the vector is the same."""
    read = {
        "shape", "lexicon", "input_tokens", "output_tokens", "reasoning_tokens", "stream", "n_tools",
        "response_format", "max_tokens", "finish_reason", "turn_index", "n_messages", "status", "delivery",
        "temperature_milli",
    }  # fmt: skip
    plain = one(stream=True, shape=[9] * SHAPE_SCALARS)
    checked = 0
    for name, kind in EVENT_SCHEMA.items():
        if name in read or name in ("subject", "t_ms"):
            continue
        values: list[Any] = [7, 123] if kind.is_numeric() else ["x", "another"]
        values = {pl.Boolean(): [True, False], pl.List(pl.UInt64()): [[1], [2, 3]]}.get(kind, values)
        if isinstance(kind, pl.Array):
            values = [[1] * kind.size, [2] * kind.size]
        for value in values:
            assert one(stream=True, shape=[9] * SHAPE_SCALARS, **{name: value}) == plain, name
        checked += 1
    assert checked > 40
    assert {plain[name] for name in (NOVELTY, GAP)} == {0}  # the features stage's to fill


def test_a_row_does_not_depend_on_its_frame() -> None:
    rng = np.random.default_rng(3)
    rows = [
        {"input_tokens": int(rng.integers(0, 10**6)), "output_tokens": int(rng.integers(0, 10**5)),
         "shape": rng.integers(0, 256, SHAPE_SCALARS).tolist() if i % 3 else None,
         "lexicon": int(rng.integers(0, 1 << 15)) if i % 2 else None, "n_tools": i % 4 or None}
        for i in range(200)
    ]  # fmt: skip
    assert many(rows) == [one(**row) for row in rows]


def test_sets_are_unpacked_as_they_were_packed() -> None:
    rng = np.random.default_rng(4)
    vectors = [rng.integers(0, 256, (n, 48)).astype(np.uint8) for n in (1, 32, 8)]
    events, mask = unpack(pl.Series([v.tobytes() for v in vectors], dtype=pl.Binary), 48, 32)
    assert mask.sum(axis=1).tolist() == [1, 32, 8]
    for i, v in enumerate(vectors):
        assert np.array_equal(events[i, : len(v)], v)
        assert not events[i, len(v) :].any()
