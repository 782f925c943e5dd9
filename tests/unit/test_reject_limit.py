"""Limits on bad records: found at the record that crosses them, however the stream is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.records import RawBatch, Reject
from monitor.source.reject_limit import RejectLimit
from monitor.source.stall import StallWatch


def batch_of(flags, partition=0, start=0):
    n = len(flags)
    batch = RawBatch(
        values=[b""] * n,
        partition=np.full(n, partition, np.int32),
        offset=np.arange(start, start + n, dtype=np.int64),
        timestamp_ms=np.full(n, -1, np.int64),
        next_offsets={partition: start + n},
    )
    return batch, [Reject(partition, start + i, "not_json", 0, "") for i, bad in enumerate(flags) if bad]


def slow_trip(flags, ratio, window, consecutive):
    """The definition, record by record."""
    row = 0
    for i, bad in enumerate(flags):
        row = row + 1 if bad else 0
        recent = flags[max(0, i + 1 - window) : i + 1]
        if row >= consecutive or (len(recent) == window and sum(recent) > ratio * window):
            return i + 1
    return None


@given(
    flags=st.lists(st.booleans(), min_size=1, max_size=120),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=10),
    ratio=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    window=st.integers(1, 30),
    consecutive=st.integers(1, 20),
)
def test_trips_where_the_definition_says_however_it_is_cut(flags, cuts, ratio, window, consecutive):
    limit, at, turn, tripped = RejectLimit(ratio, window, consecutive), 0, 0, None
    while at < len(flags) and tripped is None:
        size = cuts[turn % len(cuts)]
        tripped = limit.observe(*batch_of(flags[at : at + size], start=at)).get(0)
        at, turn = at + size, turn + 1
    assert tripped == slow_trip(flags, ratio, window, consecutive)


def test_one_partition_trips_and_the_others_go_on():
    limit = RejectLimit(0.5, 100, 10)
    assert limit.observe(*batch_of([True] * 50, partition=3)) == {3: 10}
    assert limit.observe(*batch_of([False] * 50, partition=1)) == {}
    assert limit.observe(*batch_of([True] * 50, partition=3, start=50)) == {}, "told once"
    assert limit.tripped == {3: 10}
    limit.clear(3)
    assert limit.observe(*batch_of([True] * 9, partition=3)) == {}


@pytest.mark.parametrize("moves", [True, False])
def test_a_partition_is_stalled_only_if_records_wait_and_it_stands_still(moves):
    watch = StallWatch(10)
    due = [watch.observe(t, {0: t if moves else 7, 1: 5}, {0: 1000, 1: 5}) for t in range(0, 40, 5)]
    assert due == ([[]] * 8 if moves else [[], [], [0], [], [0], [], [0], []])
    assert watch.stalled() == ({} if moves else {0: 35.0})


def test_a_paused_partition_is_not_stalled_and_starts_anew():
    watch = StallWatch(10)
    assert [watch.observe(t, {0: 1}, {0: 9}, idle={0}) for t in (0, 20, 40)] == [[], [], []]
    assert watch.observe(45, {0: 1}, {0: 9}) == []
    assert watch.observe(49, {0: 1}, {0: 9}) == []
    assert watch.observe(51, {0: 1}, {0: 9}) == [0]
    watch.forget(0)
    assert watch.stalled() == {}
