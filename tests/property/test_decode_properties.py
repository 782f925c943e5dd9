"""Properties of decode over records that hypothesis makes: any bytes, any JSON, any typed record, any split."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from decode_oracle import check, same
from hypothesis import given, settings
from hypothesis import strategies as st
from records_made import OPTIONS, SMALL, STAMP, dumps, part

from monitor.decode import decode
from monitor.fields import FIELDS, OPTIONAL, Field, Kind
from monitor.records import RawBatch

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def good(field: Field) -> st.SearchStrategy[Any]:
    """Good values of a field, null aside."""
    match field.kind:
        case Kind.TIME:
            return st.floats(946684800, 4102444800) | st.integers(946684800, 4102444800)
        case Kind.ID:
            return IDS
        case Kind.STRING | Kind.TEXT:
            return WORDS
        case Kind.CODE:
            return st.sampled_from(field.values) | WORDS
        case Kind.INTEGER:
            bounded = st.integers(0, int(field.high)) if field.high < 1e18 else st.integers()
            return bounded | st.integers(0, 10).map(lambda n: min(float(n), field.high))
        case Kind.NUMBER:
            return st.floats(field.low, field.high) | st.integers(0, int(field.high))
        case Kind.BOOLEAN:
            return st.booleans()
        case Kind.STRINGS:
            return st.lists(WORDS, max_size=4)
        case Kind.OBJECT:
            return st.dictionaries(WORDS, st.integers(), max_size=3)


typed = st.fixed_dictionaries(
    {n: good(FIELDS[n]) for n in SMALL}, optional={n: st.none() | good(FIELDS[n]) for n in OPTIONAL}
)
maybe: dict[str, st.SearchStrategy[Any]] = {"unknown": ANY} | {n: good(FIELDS[n]) | ANY for n in OPTIONAL}
mixed = st.fixed_dictionaries({n: good(FIELDS[n]) | ANY for n in SMALL}, optional=maybe)
near_good = st.fixed_dictionaries({n: st.just(v) for n, v in SMALL.items()}, optional=maybe)
values = st.lists(
    st.none() | st.binary(max_size=40) | ANY.map(dumps) | mixed.map(dumps) | near_good.map(dumps) | typed.map(dumps),
    max_size=12,
)


def batch(values: list[bytes | None], stamps: list[int], partitions: list[int], start: int) -> RawBatch:
    n = len(values)
    stamp = np.resize(np.array(stamps, np.int64), n)
    return RawBatch(values, np.resize(np.array(partitions, np.int32), n), np.arange(start, start + n), stamp, {})


@settings(max_examples=150, deadline=None)
@given(st.lists(typed, min_size=1, max_size=5))
def test_a_well_typed_record_is_never_refused(records: list[dict[str, Any]]) -> None:
    decoded = decode(batch([dumps(r) for r in records], [-1], [0], 0), OPTIONS)
    assert decoded.rejects == ()
    assert decoded.wrong_types == {}
    frame = decoded.frame
    for name in (
        "request_id",
        "account_id",
        "model",
        "org_id",
        "prompt",
        "user_agent",
        "country",
        "asn",
        "n",
        "stream",
    ):
        column = [None] * len(records) if name not in frame.columns else frame.get_column(name).to_list()
        lost = [name == "prompt" and r.get("content_policy") not in (None, "full") for r in records]
        for value, record, gone in zip(column, records, lost, strict=True):
            assert value == record.get(name) or (gone and value is None)


@settings(max_examples=200, deadline=None)
@given(values, st.lists(st.sampled_from([-1, 0, STAMP, STAMP * 2]), min_size=1, max_size=3), st.integers(0, 5000))
def test_rows_and_rejects_are_the_records_in_order(values: list[bytes | None], stamps: list[int], start: int) -> None:
    check(batch(values, stamps, [0], start), OPTIONS)


@settings(max_examples=100, deadline=None)
@given(values, st.lists(st.integers(0, 12), max_size=3), st.integers(0, 3000))
def test_splitting_a_batch_changes_nothing(values: list[bytes | None], cuts: list[int], start: int) -> None:
    whole = batch(values, [STAMP, -1], [0, 1, 1], start)
    edges = [0, *sorted(min(c, len(values)) for c in cuts), len(values)]
    parts = [part(whole, lo, hi) for lo, hi in pairwise(edges)]
    same([decode(whole, OPTIONS)], [decode(p, OPTIONS) for p in parts])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer(value: bytes) -> None:
    check(batch([value], [-1], [0], 0), OPTIONS)
