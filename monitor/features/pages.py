"""Entries of an account's ring, in pages that it takes when it needs them: most accounts never fill theirs.

An account of ten requests needs two of the four pages of its last 32; a million such accounts a gigabyte less.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.jit import njit

PAGE = 8
"""Entries of a page."""
_GROWTH = 1.1
_FIRST = 64
NONE = -1


class PagesView(NamedTuple):
    """As kernels take them: ``of`` [accounts, pages of one] is a page's number or -1, ``data`` [pages, PAGE, width],
    ``free`` the numbers of pages that were given back; ``state``: how many those are, how many were ever taken."""

    of: npt.NDArray[np.int32]
    data: npt.NDArray[np.uint8]
    free: npt.NDArray[np.int32]
    state: npt.NDArray[np.int64]


class Pages:
    """Rings of ``entries`` (a multiple of PAGE) of ``width`` bytes, for accounts by slot. ``arrays`` grow in place."""

    def __init__(self, entries: int, width: int, accounts: int):
        if entries % PAGE:
            raise ValueError(f"{entries} entries are no whole pages of {PAGE}")
        self.arrays = PagesView(
            np.full((accounts, entries // PAGE), NONE, np.int32), np.zeros((_FIRST, PAGE, width), np.uint8),
            np.zeros(_FIRST, np.int32), np.zeros(2, np.int64),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays)

    def fit(self, accounts: int) -> None:
        """Room for so many accounts."""
        old = len(self.arrays.of)
        if accounts > old:
            self.arrays.of.resize((accounts, self.arrays.of.shape[1]), refcheck=False)
            self.arrays.of[old:] = NONE

    def reserve(self, pages: int) -> None:
        """Make room for ``pages`` more."""
        free, taken = self.arrays.state.tolist()
        need = taken + max(pages - free, 0)
        if need > len(self.arrays.data):
            wanted = int(max(need, len(self.arrays.data)) * _GROWTH) + 1
            self.arrays.data.resize((wanted, *self.arrays.data.shape[1:]), refcheck=False)
            self.arrays.free.resize(wanted, refcheck=False)

    def entries(self, slot: int, at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Entries of an account by their places in its ring: [places, width]. Raises IndexError where there is none."""
        pages = self.arrays.of[slot, at // PAGE]
        if (pages < 0).any():
            raise IndexError(f"no entry of account {slot}")
        found: npt.NDArray[np.uint8] = self.arrays.data[pages, at % PAGE]
        return found

    def release(self, slots: npt.NDArray[np.int32]) -> None:
        """Take the pages of these accounts back."""
        pages = self.arrays.of[slots]
        pages = pages[pages >= 0]
        free = int(self.arrays.state[0])
        self.arrays.free[free : free + len(pages)] = pages
        self.arrays.state[0] = free + len(pages)
        self.arrays.of[slots] = NONE

    def dump(self, slots: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[Any]]:
        """Which pages these accounts have [accounts, pages of one], and those."""
        pages = self.arrays.of[slots]
        has = pages >= 0
        return {"has": has.astype(np.uint8), "data": self.arrays.data[pages[has]]}

    def load(self, slots: npt.NDArray[np.int32], arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Give these accounts, all different, what :meth:`dump` told of them."""
        self.release(slots)
        has = arrays["has"] > 0
        self.reserve(int(has.sum()))
        account, at = np.nonzero(has)
        _take(slots[account], at, arrays["data"], self.arrays)


@njit
def page_of(s: int, entry: int, pages: PagesView) -> int:
    """The page of account ``s`` that holds ``entry`` of its ring; taken if it had none (there is room)."""
    at = entry // PAGE
    page = pages.of[s, at]
    if page < 0:
        if pages.state[0] > 0:
            pages.state[0] -= 1
            page = pages.free[pages.state[0]]
        else:
            page = np.int32(pages.state[1])
            pages.state[1] += 1
        pages.of[s, at] = page
    return int(page)


@njit
def give_back(s: int, pages: PagesView) -> None:
    """Account ``s`` starts afresh."""
    for at in range(pages.of.shape[1]):
        page = pages.of[s, at]
        if page >= 0:
            pages.free[pages.state[0]] = page
            pages.state[0] += 1
            pages.of[s, at] = NONE


@njit
def _take(
    slots: npt.NDArray[np.int32], at: npt.NDArray[np.int64], data: npt.NDArray[np.uint8], pages: PagesView
) -> None:
    for i in range(len(slots)):
        page = page_of(int(slots[i]), int(at[i]) * PAGE, pages)
        for e in range(PAGE):
            for b in range(data.shape[2]):
                pages.data[page, e, b] = data[i, e, b]
