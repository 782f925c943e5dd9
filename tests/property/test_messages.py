"""Messages in one array are the list that they were made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.decode.plain import read_plain
from monitor.messages import PADDING, Messages
from monitor.records import RawBatch

values = st.lists(st.none() | st.binary(max_size=20), max_size=12)


@given(values)
def test_a_sequence(given_values: list[bytes | None]) -> None:
    made = Messages.of(given_values)
    assert Messages.of(made) is made
    assert list(made) == [made[i] for i in range(len(made))] == given_values
    assert made[-1:] == given_values[-1:]
    assert made.nbytes == sum(len(v) for v in given_values if v is not None)
    assert len(made.data) == made.nbytes + PADDING
    with pytest.raises(IndexError):
        made[len(made)]


@given(values, st.data())
def test_a_batch_takes_rows_of_either(given_values: list[bytes | None], data: st.DataObject) -> None:
    n = len(given_values)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=8)) if n else [], np.int64)
    batches = [
        RawBatch(v, np.zeros(n, np.int32), np.arange(n), np.zeros(n, np.int64), {0: n})
        for v in (given_values, Messages.of(given_values))
    ]
    one, two = (list(b.take(rows, {}).values) for b in batches)
    assert one == two
    assert batches[0].nbytes == batches[1].nbytes


@given(values, st.data())
def test_what_was_given_back_has_lengths_and_nothing_else(
    given_values: list[bytes | None], data: st.DataObject
) -> None:
    n = len(given_values)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=8)) if n else [], np.int64)
    made = Messages.of(given_values)
    batch = RawBatch(made, np.zeros(n, np.int32), np.arange(n), np.zeros(n, np.int64), {0: n})
    size, sizes = batch.nbytes, sum(len(given_values[i] or b"") for i in rows.tolist())
    batch.forget()
    assert (len(batch), batch.nbytes, batch.take(rows, {}).nbytes) == (n, size, sizes)
    for read in (list, lambda m: m[0] if n else list(m)):
        with pytest.raises(ValueError, match="given back"):
            read(made)


def test_kept_cells_say_nothing_of_the_batch_before() -> None:
    """The room for cells is used again: what an earlier record had must not appear in a later one without it."""
    head = b'{"ts":1750000000,"request_id":"%d","account_id":"a","model":"m","status":200'
    head += b',"input_tokens":1,"output_tokens":1'
    full = [head % i + b',"country":"DE","prompt":"one","tools":["x"],"cost_usd":2}' for i in range(5)]
    bare = [head % i + b"}" for i in range(3)]
    alone = {s.name: s.to_list() for s in read_plain(bare, 1 << 20).series()}
    first = {s.name for s in read_plain(full, 1 << 20).series()}
    after = {s.name: s.to_list() for s in read_plain(bare, 1 << 20).series()}
    assert first > set(alone)
    assert after == alone
