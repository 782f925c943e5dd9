"""A partition's blobs depend on its events, not on how these were cut into batches or ordered within a tick."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.arrays import StateUnreadable, pack, unpack
from monitor.campaigns import CampaignStage, LinkCollector, StepBlob, opinions, sums
from monitor.campaigns import blob as blob_format
from monitor.campaigns.kinds import CODE
from monitor.campaigns.tally import TEMPLATES_A_STEP
from monitor.features.aggregates import narrow_expressions
from monitor.records import EVENT_SCHEMA
from monitor.wiring import CODES, TEXT

TICK_MS, STEP_MS = 10_000, 600_000
T0 = 1_750_000_000_000 // STEP_MS * STEP_MS


def collector() -> LinkCollector:
    return LinkCollector(TICK_MS, STEP_MS, sums.expressions(narrow_expressions(TEXT, CODES), TEXT.flag, TEXT.scalar))


def events(rows: list[tuple[int, int, int, int]]) -> pl.DataFrame:
    """(partition, account, seconds, value) as closed events."""
    known = {
        "partition": [p for p, _, _, _ in rows], "account_id": [f"a{p}-{a}" for p, a, _, _ in rows],
        "t_ms": [T0 + 1000 * t for _, _, t, _ in rows], "request_id": [f"r{i}" for i in range(len(rows))],
        "request_key": [i * 7919 % 10_007 + 1 for i in range(len(rows))], "model": [f"m{v % 3}" for *_, v in rows],
        "org_id": [f"o{a % 2}" if v % 2 else None for _, a, _, v in rows], "status": [200] * len(rows),
        "input_tokens": [10 + v for *_, v in rows], "output_tokens": [v for *_, v in rows],
        "payment": [a % 3 + 1 for _, a, _, _ in rows], "prompt_prefix": [v % 40 + 1 for *_, v in rows],
        "blobs": [[v + 1] if v % 5 == 0 else None for *_, v in rows],
        "shape": [[(v * (i + 3)) % 256 for i in range(24)] for *_, v in rows],
        "corpus": [v % 3 if p else None for p, _, _, v in rows],
        "corpus_item": [v * 7919 + a if p and v % 3 else None for p, a, _, v in rows],
        "residual_share": [(255, 90, None)[v % 3] for *_, v in rows], "n_messages": [1 + v % 4 for *_, v in rows],
    }  # fmt: skip
    frame = pl.DataFrame(known, schema={n: EVENT_SCHEMA[n] for n in known})
    rest = [pl.lit(None, d).alias(n) for n, d in EVENT_SCHEMA.items() if n not in known]
    return frame.with_columns(rest).select([*EVENT_SCHEMA]).with_columns(tick=pl.col("t_ms") // TICK_MS)


def opinions_of(part: pl.DataFrame) -> pl.DataFrame:
    """Of every second row of account and tick an opinion that account and tick decide."""
    at = part.select("partition", "tick", subject="account_id").unique(maintain_order=True)
    at = at.filter((pl.col("tick") + pl.col("subject").str.tail(1).cast(pl.Int64)) % 2 == 0)
    code = pl.col("tick") * 37 + pl.col("subject").str.tail(1).cast(pl.Int64) * 11
    # not / 100.0: what Polars gives for that depends on whether the frame has one row or more
    return at.with_columns((code % (90 + i) * 0.01).alias(name) for i, name in enumerate(opinions.READ))


def blobs(parts: list[pl.DataFrame], restart: bool = False) -> list[bytes]:
    held, out = collector(), list[StepBlob]()
    for part in parts:
        held.collect(part)
        held.judge(opinions_of(part))
        if restart:
            fresh = collector()
            for partition in range(3):
                fresh.load(partition, held.dump(partition))
            held = fresh
    out = held.close()
    return [blob.encode() for blob in out]


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 1_500), st.integers(0, 60)), min_size=1, max_size=60
)
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(ROWS, st.lists(st.integers(0, 60), max_size=4), st.integers(0, 1000))
def test_cuts_order_and_restarts_change_no_byte(
    rows: list[tuple[int, int, int, int]], cuts: list[int], seed: int
) -> None:
    whole = events(rows)
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    edges = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    parts = [whole[order][a:b] for a, b in pairwise(edges)]
    expected = blobs([whole])
    assert blobs(parts) == expected
    assert blobs(parts, restart=True) == expected


@SLOW
@given(ROWS)
def test_every_request_is_in_one_blob(rows: list[tuple[int, int, int, int]]) -> None:
    read = [StepBlob.decode(body) for body in blobs([events(rows)])]
    assert sum(int(b.accounts["requests"].sum()) for b in read) == len(rows)
    assert sum(int(b.models["count"].sum()) for b in read) == len(rows)
    assert [(b.step, b.partition) for b in read] == sorted({((T0 + 1000 * t) // STEP_MS, p) for p, _, t, _ in rows})


@SLOW
@given(ROWS)
def test_a_blob_that_travelled_is_taken_in_as_one_that_did_not(rows: list[tuple[int, int, int, int]]) -> None:
    held = collector()
    held.collect(events(rows))
    own = held.close()
    here, there = CampaignStage(), CampaignStage()
    for step in sorted({b.step for b in own}):
        made = [b for b in own if b.step == step]
        assert all(b.made is not None for b in made)
        here.step(step, made)
        there.step(step, [StepBlob.decode(b.encode()) for b in made])
    assert here.dump() == there.dump()


@SLOW
@given(ROWS, st.sets(st.integers(0, 5)))
def test_the_sums_of_disjoint_accounts_add_up(rows: list[tuple[int, int, int, int]], some: set[int]) -> None:
    """And no cut of the batches, no order and no restart changes them: the test above compares every byte."""

    def shapes_of(kept: list[tuple[int, int, int, int]]) -> np.ndarray:
        read = [StepBlob.decode(body) for body in blobs([events(kept)])] if kept else []
        return sum((blob.shape().sum(axis=0, dtype=np.int64) for blob in read), np.zeros(len(sums.SHAPE), np.int64))

    parts = [[r for r in rows if (r[1] in some) is side] for side in (True, False)]
    whole = shapes_of(rows)
    assert whole.tolist() == (shapes_of(parts[0]) + shapes_of(parts[1])).tolist()
    assert whole[:2].tolist() == [sum(v % 3 < 2 for *_, v in rows), sum(v % 3 == 0 for *_, v in rows)]


@SLOW
@given(ROWS)
def test_a_blob_has_the_last_opinion_of_its_step(rows: list[tuple[int, int, int, int]]) -> None:
    whole = events(rows)
    said = opinions_of(whole).sort("tick").rows(named=True)
    last = {(row["partition"], row["tick"] * TICK_MS // STEP_MS, row["subject"]): row[opinions.READ[0]] for row in said}
    found = {}
    for body in blobs([whole]):
        blob = StepBlob.decode(body)
        codes = zip(blob.accounts["account"].to_list(), blob.opinions()[:, 0].tolist(), strict=True)
        found |= {(blob.partition, blob.step, name): code for name, code in codes}
    assert {at: code for at, code in found.items() if code} == {at: round(p * 250) + 1 for at, p in last.items()}


def test_a_blob_of_another_release_is_refused() -> None:
    (made,) = blobs([events([(0, 1, 5, 1)])])
    arrays, values = unpack("links", blob_format.VERSION, made)
    for version in (blob_format.VERSION - 1, blob_format.VERSION + 1):
        with pytest.raises(StateUnreadable, match="another release"):
            StepBlob.decode(pack("links", version, arrays, values))


def test_a_step_closes_when_its_partition_has_passed_it() -> None:
    held = collector()
    held.collect(events([(0, 1, 5, 1), (0, 1, 700, 1), (1, 2, 5, 1)]))
    assert held.close({0: T0 + STEP_MS - 1, 1: T0}) == []
    closed = held.close({0: T0 + STEP_MS, 1: T0})
    assert [(b.step, b.partition) for b in closed] == [(T0 // STEP_MS, 0)]
    assert [(b.step - T0 // STEP_MS, b.partition) for b in held.close()] == [(0, 1), (1, 0)]


def test_a_crowd_of_values_keeps_the_same_ones_everywhere() -> None:
    """What two accounts share is kept in both or in neither, so that crowding makes no link and hides only some."""
    many = [(0, account, 5, v) for account in (1, 2) for v in range(40)]
    (blob,) = (StepBlob.decode(body) for body in blobs([events(many)]))
    templates = blob.links.filter(pl.col("kind") == CODE["template_opening"])
    kept = [set(part["value"].to_list()) for part in templates.partition_by("account")]
    assert len(kept[0]) == TEMPLATES_A_STEP
    assert kept[0] == kept[1]
