"""The loops with which a graph is made anew, against the plain way of each."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monitor.campaigns.calibrate import _FROM, _SPREAD, _least, calibration_groups
from monitor.campaigns.evidence import _span
from monitor.campaigns.fetching import ask, room
from monitor.campaigns.graph import Shared, shared_values
from monitor.campaigns.holdings import placed
from monitor.campaigns.links import SCHEMA, Splice, chosen, followed
from monitor.campaigns.numbering import _further
from monitor.jit import njit, sealed

U64S = st.one_of(st.integers(0, 5), st.integers(2**64 - 3, 2**64 - 1), st.integers(0, 2**64 - 1))
VALUES = st.lists(st.tuples(st.integers(0, 3), U64S), max_size=60)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([k for k, _ in pairs], np.uint8), np.array([v for _, v in pairs], np.uint64)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_further_values_are_numbered_as_in_a_dictionary(
    known: list[tuple[int, int]], new: list[tuple[int, int]]
) -> None:
    known = list(dict.fromkeys(known))
    numbers = {pair: i for i, pair in enumerate(known)}
    expected = [numbers.setdefault(pair, len(numbers)) for pair in new]
    ids, kind, value = _further(*columns(known), *(sealed(column) for column in columns(new)))
    assert ids.tolist() == expected
    assert list(zip(kind.tolist(), value.tolist(), strict=True)) == list(numbers)


@settings(deadline=None)
@given(hnp.arrays(np.uint64, st.integers(0, 40), elements=U64S), st.integers(1, 50))
def test_the_least_are_the_first_of_a_stable_order(place: np.ndarray, count: int) -> None:
    assert _least(place, count).tolist() == np.argsort(place, kind="stable")[:count].tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), max_size=60), st.lists(st.integers(0, 25), max_size=60))
def test_rows_of_accounts_are_those_of_plain_looking(of_rows: list[int], who: list[int]) -> None:
    account = np.array(sorted(of_rows), np.int32)
    begin, size = _span(np.array(who, np.int64), account)
    member, row, _ = placed(np.zeros(size.sum(), np.int32), np.zeros(1, np.int64), begin, size)
    expected = [(i, r) for i, a in enumerate(who) for r in np.flatnonzero(account == a).tolist()]
    assert list(zip(member.tolist(), row.tolist(), strict=True)) == expected


@settings(deadline=None)
@given(hnp.arrays(np.int32, st.integers(0, 200), elements=st.integers(0, 9)),
       hnp.arrays(np.int32, 10, elements=st.integers(-1, 3)))  # fmt: skip
def test_links_that_have_a_key_and_links_of_keys_asked_for(ids: np.ndarray, key_of: np.ndarray) -> None:
    account = np.arange(len(ids), dtype=np.int32) // 3
    whose, key, row = followed(sealed(ids), key_of, sealed(account))
    assert row.tolist() == np.flatnonzero(key_of[ids] >= 0).tolist()
    assert key.tolist() == key_of[ids][row].tolist()
    assert whose.tolist() == account[row].tolist()
    asked = np.array([True, False, True, False])
    assert chosen(sealed(key), sealed(asked)).tolist() == np.flatnonzero(asked[key]).tolist()


@settings(deadline=None)
@given(st.integers(0, 50), st.lists(st.integers(0, 50), max_size=20))
def test_rows_are_put_before_those_that_are_named(old: int, places: list[int]) -> None:
    at = np.sort(np.minimum(np.array(places, np.int32), old)).astype(np.int32)
    for dtype in (np.uint8, np.int32, np.uint64):
        before, new = np.arange(old).astype(dtype), (100 + np.arange(len(at))).astype(dtype)
        made = Splice(at, new.astype(np.uint8), new.astype(np.uint64)).put(before, new)
        assert made.dtype == dtype
        assert made.tolist() == np.insert(before, at, new).tolist()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_calibration_groups_are_the_first_in_a_keyed_order_that_have_members(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    links = pl.DataFrame(
        {"account": rng.integers(0, 40, 400), "kind": rng.choice(_FROM[:3], 400), "value": rng.integers(0, 40, 400)}
    ).unique().sort("account", "kind", "value")  # fmt: skip
    links = links.with_columns(count=1, first=0, last=9).select(pl.col(c).cast(t) for c, t in SCHEMA.items())
    shared = shared_values(links, np.arange(40, dtype=np.int32))
    label = np.where(rng.random(40) < 0.4, 0, -1)
    found = calibration_groups(shared, label, most, largest=12)
    assert found.rows() == plain_groups(shared, label, most, 12)


def plain_groups(shared: Shared, label: np.ndarray, most: int, largest: int) -> list[tuple[int, int]]:
    groups: list[list[int]] = []
    keyed = (shared.value * _SPREAD).tolist()
    for key in sorted(range(len(shared.df)), key=lambda k: (keyed[k], k)):
        mine = [a for a in shared.account[shared.key == key].tolist() if label[a] < 0]
        if len(mine) >= 3 and len(groups) < most and shared.df[key] <= largest:
            groups.append(mine)
    return [(number, account) for number, mine in enumerate(groups) for account in mine]


@njit
def _asks(array: np.ndarray, index: np.ndarray) -> int:
    total = 0
    for i in range(len(index)):
        ask(array, index[i])
        if 0 <= index[i] < len(array):
            total += array[index[i]]
    return total


def test_to_ask_for_memory_changes_nothing_whatever_the_place() -> None:
    array = room(5, np.int32)
    array[:] = range(5)
    assert _asks(array, np.array([0, 4, 5, -1, 2**31 - 1, -(2**31)], np.int32)) == 4
    assert _asks(array[:0], np.array([0], np.int32)) == 0


def test_room_has_the_size_that_is_asked_for() -> None:
    for items in (0, 1, 200_000, 3_000_000):
        for dtype in (np.int32, np.dtype(np.uint8)):
            made = room(items, dtype)
            assert made.shape == (items,)
            assert made.dtype == dtype
            assert made.flags.c_contiguous
