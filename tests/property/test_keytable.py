"""The table of keys against a dictionary that forgets nothing until asked: expiry, bounds, partitions, dumps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.keytable import KeyTable

HORIZON = 100
PARTITIONS = (0, 1, 5)

probe = st.tuples(
    st.sampled_from(PARTITIONS),
    st.integers(0, 60),  # how far time goes on before it
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9), st.integers(0, 30)), min_size=1, max_size=12),
)
"""A call: partition, and (key, value, step of time) each."""


@dataclass
class Slow:
    """The same promise, one key at a time."""

    most: int
    kept: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)
    overflow: int = 0

    def one(self, partition: int, key: int, value: int, now: int) -> tuple[int, int]:
        if key == 0:
            return 0, 0
        mine = {k: e for k, e in self.kept.get(partition, {}).items() if e[1] >= now - HORIZON}
        self.kept[partition] = mine
        if key in mine:
            return 1, mine[key][0]
        if len(mine) >= self.most:
            self.overflow += 1
        else:
            mine[key] = (value, now)
        return 0, 0


def mixed(keys: list[int]) -> np.ndarray:
    """Small numbers as 64-bit keys; every third shares its low bits with the others, so that chains form. 0 stays."""
    return np.array([0 if k == 0 else (k << 40 | (7 if k % 3 == 0 else k)) for k in keys], np.uint64)


def ask(table: KeyTable, partition: int, rows: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Probe (key, value, time) rows in one call."""
    keys, values, times = zip(*rows, strict=True)
    found = table.probe(partition, mixed(list(keys)), np.array(values, np.uint64), np.array(times, np.int64))
    return list(zip(found.seen.tolist(), found.value.tolist(), strict=True))


def rows_of(calls: list[tuple[int, int, list[tuple[int, int, int]]]]) -> list[tuple[int, list[tuple[int, int, int]]]]:
    """Calls with the time that each key has: it never falls within a partition."""
    now = dict.fromkeys(PARTITIONS, 1_000)
    made = []
    for partition, gap, steps in calls:
        now[partition] += gap
        rows = []
        for key, value, step in steps:
            now[partition] += step
            rows.append((key, value, now[partition]))
        made.append((partition, rows))
    return made


@settings(max_examples=200, deadline=None)
@given(
    calls=st.lists(probe, max_size=25),
    most=st.sampled_from([3, 10, 1_000]),
    sweeps=st.sets(st.integers(0, 24)),
    moves=st.sets(st.integers(0, 24)),
    singly=st.booleans(),
    valued=st.booleans(),
)
def test_it_answers_as_a_dictionary_does(
    calls: list[tuple[int, int, list[tuple[int, int, int]]]],
    most: int,
    sweeps: set[int],
    moves: set[int],
    singly: bool,
    valued: bool,
) -> None:
    """However calls are cut, whenever it sweeps, and through a dump and load (full, or full and changes)."""
    table, slow = KeyTable(HORIZON, most, valued=valued), Slow(most)
    blobs: dict[int, list[dict[str, np.ndarray]]] = {p: [] for p in PARTITIONS}
    lost = 0
    for i, (partition, rows) in enumerate(rows_of(calls)):
        wanted = [slow.one(partition, key, value, now) for key, value, now in rows]
        wanted = [(seen, value if valued else 0) for seen, value in wanted]
        parts = [[row] for row in rows] if singly else [rows]
        assert [answer for part in parts for answer in ask(table, partition, part)] == wanted
        if i in sweeps:
            table._rebuild(0)
        if i in moves:
            again = KeyTable(HORIZON, most, valued=valued)
            for p in PARTITIONS:
                blobs[p].append(table.dump(p, full=not blobs[p]))
                for blob in blobs[p]:
                    again.load(p, blob)
            lost += table.overflow
            table = again
            assert table.overflow == 0, "what was kept fits again"
    assert lost + table.overflow == slow.overflow


@settings(max_examples=60, deadline=None)
@given(calls=st.lists(probe, min_size=2, max_size=15), gone=st.sampled_from(PARTITIONS))
def test_a_dropped_partition_is_forgotten_and_no_other(
    calls: list[tuple[int, int, list[tuple[int, int, int]]]], gone: int
) -> None:
    table, slow = KeyTable(HORIZON), Slow(10**6)
    made = rows_of(calls)
    half = len(made) // 2
    for i, (partition, rows) in enumerate(made):
        if i == half:
            table.drop(gone)
            slow.kept.pop(gone, None)
            assert all(len(v) == 0 for v in table.dump(gone, full=True).values())
        assert ask(table, partition, rows) == [slow.one(partition, key, value, now) for key, value, now in rows]


def test_a_full_table_takes_new_keys_again_once_old_ones_expire() -> None:
    """A partition that met the bound once must not be without duplicates for good."""
    table = KeyTable(HORIZON, most=50)
    assert ask(table, 0, [(k, 1, 0) for k in range(1, 101)]) == [(0, 0)] * 100
    assert table.overflow == 50
    later = HORIZON + 1
    ask(table, 0, [(k, 2, later) for k in range(200, 240)])
    assert ask(table, 0, [(k, 3, later) for k in range(200, 240)]) == [(1, 2)] * 40
    assert table.overflow == 50


def test_an_entry_that_returns_after_it_expired_counts_once() -> None:
    table = KeyTable(HORIZON, most=10)
    for turn in range(30):
        ask(table, 0, [(k, 1, turn * (HORIZON + 1)) for k in range(1, 10)])
    assert table.overflow == 0


@pytest.mark.parametrize("step", [1, 10])
def test_memory_follows_the_horizon_and_not_the_stream(step: int) -> None:
    """Without a checkpoint too: a backtest of months never writes one."""
    table = KeyTable(HORIZON)
    sizes = []
    for turn in range(400):
        keys = np.arange(turn * 1_000 + 1, (turn + 1) * 1_000 + 1, dtype=np.uint64)
        table.probe(0, keys, keys, np.full(1_000, turn * step * 10, np.int64))
        sizes.append(table.nbytes + sum(a.nbytes for part in table._fresh[0] for a in part))
    assert max(sizes[200:]) <= max(sizes[:100]) * 2


def test_a_sweep_in_the_middle_forgets_nothing_that_the_calls_first_keys_may_still_ask_for():
    table, many = KeyTable(HORIZON), 2_000
    early = [(n, 1, 0) for n in range(1, many + 1)]
    ask(table, 0, early)
    late = [(n, 1, 2 * HORIZON) for n in range(many + 1, 2 * many)]
    again = ask(table, 0, [(1, 1, HORIZON), *late])
    assert again[0] == (1, 1), "within the horizon, though the call that makes the table grow ends beyond it"
