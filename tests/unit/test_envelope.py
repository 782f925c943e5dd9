"""Many records at once are read as one by one, whatever a client wrote into them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.source import envelope
from monitor.source.envelope import read_envelope, read_envelopes

PLAIN = b'{"account_id":"a","ts":5.5}'
PIECES = (
    PLAIN, b'{"account_id":"b","ts":7.0,"completed_at":9.0}', b'{"account_id":"","ts":1.5}', b'{"ts":3}', b"{}",
    b'{"account_id":"c","ts":"2026-01-05T00:00:00Z"}', b'{"account_id":"d","ts":"5.5"}', b'{"account_id":5,"ts":1.0}',
    b'{"account_id":"e"}{"account_id":"f"}', b'{"x":[1', b"2]}", b'{"x":"}', b'{","account_id":"g"}', b'{"x":', b"1}",
    b'{"account_id":"h","ts":1.0}\r',
    b'{"x":{"y":1}', b',"account_id":"i"}', b"[]", b"\xff", b'{"account_id":"\\ud800"}',
    b'{"a":1}\n{"account_id":"j"}',
)  # fmt: skip
"""Whole records, halves that only together are one, two in one line, and what is none."""


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8))
def test_at_once_as_one_by_one(values: list[bytes]) -> None:
    accounts, times = read_envelopes(values)
    each = [read_envelope(v) for v in values]
    assert accounts == [e.account for e in each]
    assert times.tolist() == [np.inf if e.time_s is None else e.time_s for e in each]


def test_ordinary_records_are_read_by_one_call() -> None:
    assert envelope._all_at_once([PLAIN] * 3) is not None
    assert envelope._all_at_once([b'{"a":1}{"a":2}', b'{"x":[{}', b"{}]}"]) is None
