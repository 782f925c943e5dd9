"""One batch ahead changes nothing of what comes out, and leaves out what another member has."""

from __future__ import annotations

import itertools

import numpy as np
import spine

from monitor.ahead import Ahead
from monitor.pipeline import Prepared
from monitor.records import Alert, RawBatch


def batches(size: int = 500) -> list[RawBatch]:
    records = spine.world(accounts=60, days=1.0)
    return [spine.batch(records[i : i + size]) for i in range(0, len(records), size)]


def test_the_alerts_are_those_of_one_batch_after_the_other() -> None:
    polled = batches()
    assert len(polled) > 3
    plain, overlapped = spine.pipeline(), spine.pipeline()
    expected = [a for b in polled for a in plain.process(b).alerts] + plain.finish().alerts
    made: list[Alert] = []
    with Ahead() as ahead:
        prepared: list[Prepared | None] = []
        for b in polled:
            prepared.append(ahead.swap(overlapped, b))
            if prepared[-1] is not None:
                made += overlapped.take(prepared[-1]).alerts
        last = ahead.result()
        assert last is not None
        made += overlapped.take(last).alerts + overlapped.finish().alerts
        assert ahead.result() is None
    assert prepared[0] is None
    assert [p.batch for p in (*prepared[1:], last) if p is not None] == polled
    assert spine.told(made) == spine.told(expected)
    assert expected


def test_partitions_that_are_gone_are_left_out() -> None:
    first, second = itertools.islice(batches(), 2)
    gone = int(first.partition[0])
    p = spine.pipeline()
    with Ahead() as ahead:
        ahead.leave_out([gone])  # nothing is in preparation: this concerns nobody
        assert ahead.swap(p, first) is None
        assert ahead.busy
        ahead.leave_out([gone])
        without = ahead.swap(p, second)
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
