"""Pages against a dictionary: what was put last is there, and no page has two owners."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.features.pages import PAGE, Pages, give_back, page_of
from monitor.jit import njit

ENTRIES, WIDTH, ACCOUNTS = 16, 3, 5
step = st.one_of(
    st.tuples(st.just("put"), st.integers(0, ACCOUNTS - 1), st.integers(0, ENTRIES - 1)),
    st.tuples(st.just("afresh"), st.integers(0, ACCOUNTS - 1), st.just(0)),
    st.tuples(st.just("release"), st.integers(0, ACCOUNTS - 1), st.just(0)),
    st.tuples(st.just("move"), st.integers(0, ACCOUNTS - 1), st.integers(0, 1)),
)


@njit
def _put(s: int, entry: int, value: int, pages: object) -> None:
    page = page_of(s, entry, pages)  # type: ignore[arg-type]  # numba's, a PagesView
    for b in range(3):
        pages.data[page, entry % PAGE, b] = value  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=60))
def test_what_was_put_is_there(steps: list[tuple[str, int, int]]) -> None:
    pages, kept = Pages(ENTRIES, WIDTH, ACCOUNTS), dict[tuple[int, int], int]()
    for i, (what, s, entry) in enumerate(steps):
        if what == "put":
            pages.reserve(1)
            _put(s, entry, i % 250 + 1, pages.arrays)
            kept[s, entry] = i % 250 + 1
        elif what == "move":  # to another member, all of them or some anew
            slots = np.arange(ACCOUNTS if entry else s + 1, dtype=np.int32)
            told = pages.dump(slots)
            if entry:
                pages = Pages(ENTRIES, WIDTH, 1)
                pages.fit(ACCOUNTS)
            pages.load(slots, told)
        else:
            give_back(s, pages.arrays) if what == "afresh" else pages.release(np.array([s], np.int32))
            kept = {place: value for place, value in kept.items() if place[0] != s}
        for (account, at), value in kept.items():
            assert pages.entries(account, np.array([at])).tolist() == [[value] * WIDTH]
        check_owners(pages)


def check_owners(pages: Pages) -> None:
    """Every page that was ever taken has one owner or is free."""
    of, _, free, state = pages.arrays
    held: npt.NDArray[np.int32] = np.concatenate([of[of >= 0], free[: state[0]]])
    assert sorted(held.tolist()) == list(range(int(state[1])))


def test_an_account_takes_the_pages_it_needs() -> None:
    pages = Pages(ENTRIES, WIDTH, ACCOUNTS)
    for entry in (0, 7, 8):
        _put(1, entry, 9, pages.arrays)
    assert pages.arrays.state.tolist() == [0, 2]
    with pytest.raises(IndexError):
        pages.entries(2, np.array([0]))
    with pytest.raises(ValueError, match="whole pages"):
        Pages(12, WIDTH, ACCOUNTS)
