"""The table of subjects against a dict, through arrivals, departures and returns."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.features.accounts import AccountTable

subject = st.text(max_size=6) | st.sampled_from(["a", "a\0", "", "ä"])
pair = st.tuples(subject, st.integers(0, 3))
step = st.tuples(st.booleans(), st.lists(pair, max_size=40))


def columns(pairs: list[tuple[str, int]]) -> tuple[pl.Series, pl.Series]:
    return pl.Series([s for s, _ in pairs], dtype=pl.String), pl.Series([p for _, p in pairs], dtype=pl.Int32)


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=12))
def test_slots_are_those_of_a_dict(steps: list[tuple[bool, list[tuple[str, int]]]]) -> None:
    table, known = AccountTable(6, 48), dict[tuple[str, int], int]()
    for leave, pairs in steps:
        if leave:
            gone = [p for p in dict.fromkeys(pairs) if p in known]
            table.release([known.pop(p) for p in gone])
        else:
            slots = table.assign(*columns(pairs)).tolist()
            for p, slot in zip(pairs, slots, strict=True):
                assert known.setdefault(p, slot) == slot
                assert table.name(slot) == p[0]
                assert table.arrays.partition[slot] == p[1]
        assert len(table) == len(known) == len(set(known.values()))
        for partition in range(4):
            here = {slot for (_, p), slot in known.items() if p == partition}
            assert set(table.of_partition(partition).tolist()) == here
        for p in dict.fromkeys(pairs):
            assert table.find(p[1], p[0]) == known.get(p)


def test_many_come_and_go_in_bounded_room() -> None:
    """Places of those who left are found again: a table that only grew would hold every account there ever was."""
    table = AccountTable(6, 48)
    for day in range(30):
        names = pl.Series([f"account-{day}-{i}" for i in range(2000)])
        slots = table.assign(names, pl.Series(np.zeros(2000, np.int32)))
        assert len(np.unique(slots)) == 2000
        table.release(slots.tolist())
    assert len(table) == 0
    assert table.capacity < 6000
    assert len(table._subjects._slots) < 10_000
