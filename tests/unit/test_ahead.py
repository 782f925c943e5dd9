"""Batches ahead change nothing of what comes out, and leaves out what another member has."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import spine

from monitor.ahead import Ahead
from monitor.pipeline import Prepared
from monitor.records import Alert, RawBatch


def batches(size: int = 500) -> list[RawBatch]:
    records = spine.world(accounts=60, days=1.0)
    return [spine.batch(records[i : i + size]) for i in range(0, len(records), size)]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_alerts_are_those_of_one_batch_after_the_other(depth: int) -> None:
    polled = batches()
    assert len(polled) > 3
    plain, overlapped = spine.pipeline(), spine.pipeline()
    expected = [a for b in polled for a in plain.process(b).alerts] + plain.finish().alerts
    made: list[Alert] = []
    taken: list[RawBatch] = []

    def take(prepared: Prepared | None) -> None:
        if prepared is not None:
            taken.append(prepared.batch)
            made.extend(overlapped.take(prepared).alerts)

    with Ahead(depth) as ahead:
        for i, b in enumerate(polled):
            take(ahead.swap(overlapped, b))
            assert len(taken) == max(0, i + 1 - depth)
        while ahead.busy:
            take(ahead.result())
        assert ahead.result() is None
    made += overlapped.finish().alerts
    assert taken == polled
    assert spine.told(made) == spine.told(expected)
    assert expected


def test_partitions_that_are_gone_are_left_out() -> None:
    first, second = itertools.islice(batches(), 2)
    gone = int(first.partition[0])
    p = spine.pipeline()
    with Ahead(2) as ahead:
        ahead.leave_out([gone])  # nothing is in preparation: this concerns nobody
        assert ahead.swap(p, first) is None
        assert ahead.busy
        ahead.leave_out([gone])
        assert ahead.swap(p, second) is None
        without = ahead.result()
        after = ahead.result()
    assert without is not None
    assert after is not None
    assert gone in first.next_offsets
    assert without.batch.next_offsets == {q: o for q, o in first.next_offsets.items() if q != gone}
    assert gone not in without.decoded.frame["partition"].unique().to_list()
    assert len(without.batch) == int((first.partition != gone).sum()) == without.decoded.frame.height
    assert np.array_equal(after.batch.offset, second.offset)


def test_what_is_forgotten_never_comes() -> None:
    p = spine.pipeline()
    with Ahead() as ahead:
        ahead.swap(p, batches()[0])
        ahead.forget()
        assert not ahead.busy
        assert ahead.result() is None
