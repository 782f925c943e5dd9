"""Window state: a log of small panes by minute, hour and day, chained by account.

A pane is written only while its minute, hour or day lasts. Panes stand in the order in which they were begun
and each points to the one before of the same account, so that a window is read by following the chain until
it is too old: the cost is per pane of the account, not per account of the partition (a scan of the whole state
costs 198 ms per 100,000 accounts). When the arrays are full, panes that no window reaches are dropped in place, and
those of hours and days that are over for good are frozen: see :mod:`monitor.features.frozen`.

In a chain (``head``, ``prev``) a number from 0 on is a pane as it is written, -1 ends it, and -2 - f is the frozen
pane f. Before a frozen pane stand only frozen ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from monitor.features import aggregates as agg
from monitor.features.frozen import encode, longest
from monitor.jit import njit

_Ms = TypeVar("_Ms", int, npt.NDArray[np.int64])
NONE = -1
# Loops in the kernels of this package stand where a slice would do: numba takes up to a second to compile each
# assignment of a slice, and the first run pays for all of them.
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
_GROWTH = 1.1
"""realloc moves a large array without a copy, and numpy touches what it adds: growing often costs less than room."""
_FIRST = 1024
INT32_MAX = np.int64(2_147_483_647)
_ROWS = ("slot", "time", "prev", "dirty", "narrow", "wide", "bits", "hours")
_FROZEN_ROWS = ("frozen_slot", "frozen_time", "frozen_prev", "frozen_dirty", "frozen_start")


class LevelView(NamedTuple):
    """The arrays of one :class:`Level`, as kernels take them.

    Shapes: ``slot, time, prev`` and ``dirty`` [capacity] (``time`` is event time // pane_ms); ``narrow``, ``wide``,
    ``bits`` and ``hours`` [capacity, columns]; ``frozen_`` ones [frozen capacity], of which the pane f lies at
    ``frozen[frozen_start[f]:frozen_start[f + 1]]``; ``head`` [accounts].
    """

    slot: npt.NDArray[np.int32]
    time: npt.NDArray[np.int32]
    prev: npt.NDArray[np.int32]
    dirty: npt.NDArray[np.uint8]
    narrow: npt.NDArray[np.int32]
    wide: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint64]
    hours: npt.NDArray[np.int32]
    frozen_slot: npt.NDArray[np.int32]
    frozen_time: npt.NDArray[np.int32]
    frozen_prev: npt.NDArray[np.int32]
    frozen_dirty: npt.NDArray[np.uint8]
    frozen_start: npt.NDArray[np.int64]
    frozen: npt.NDArray[np.uint8]
    head: npt.NDArray[np.int32]


@dataclass(slots=True)
class Level:
    """One pane length. ``span`` panes of ``pane_ms`` make the window; ``arrays``, which grow in place, hold ``size``
    panes and ``cold`` frozen ones. ``freezes``: whether panes are ever frozen."""

    pane_ms: int
    span: int
    freezes: bool
    arrays: LevelView
    size: int = 0
    cold: int = 0

    @classmethod
    def empty(
        cls, pane_ms: int, span: int, narrow: int, wide: int, bits: int, hours: int = 0, *, freezes: bool = True
    ) -> Level:
        """A level without panes."""
        arrays = LevelView(
            np.zeros(_FIRST, np.int32), np.zeros(_FIRST, np.int32), np.zeros(_FIRST, np.int32),
            np.zeros(_FIRST, np.uint8), np.zeros((_FIRST, narrow), np.int32), np.zeros((_FIRST, wide), np.int64),
            np.zeros((_FIRST, bits), np.uint64), np.zeros((_FIRST, hours), np.int32),
            np.zeros(_FIRST, np.int32), np.zeros(_FIRST, np.int32), np.zeros(_FIRST, np.int32),
            np.zeros(_FIRST, np.uint8), np.zeros(_FIRST + 1, np.int64), np.zeros(_FIRST, np.uint8),
            np.zeros(0, np.int32),
        )  # fmt: skip
        return cls(pane_ms, span, freezes, arrays)

    @property
    def columns(self) -> tuple[int, int, int, int]:
        """How many ``narrow``, ``wide``, ``bits`` and ``hours`` a pane has."""
        a = self.arrays
        return a.narrow.shape[1], a.wide.shape[1], a.bits.shape[1], a.hours.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(a.nbytes for a in self.arrays)

    def has_room(self, panes: int) -> bool:
        """Whether ``panes`` more fit in."""
        return self.size + panes <= len(self.arrays.slot)

    def reserve(self, panes: int, horizon_ms: npt.NDArray[np.int64]) -> None:
        """Make room for ``panes`` more; ``horizon_ms`` [accounts]: the event time before which none is written."""
        capacity = len(self.arrays.slot)
        if self.has_room(panes):
            return
        self.compact(horizon_ms)
        need = self.size + panes
        if need > capacity * 0.8:  # else the next batches compact again and again
            self._grow(_ROWS, int(max(need * _GROWTH, capacity * _GROWTH)))

    def compact(self, horizon_ms: npt.NDArray[np.int64]) -> None:
        """Drop the panes that ended a window before ``horizon_ms`` [accounts], freeze those that ended before it."""
        most = longest(*self.columns)
        if self.freezes:
            panes, size = _freezable(self.size, self.pane_ms, self.span, horizon_ms, most, self.arrays)
            self.reserve_frozen(panes, size, horizon_ms)
        self.size, self.cold = _compact(
            self.size, self.cold, self.pane_ms, self.span, horizon_ms, self.freezes, most, self.arrays
        )

    def reserve_frozen(self, panes: int, size: int, horizon_ms: npt.NDArray[np.int64]) -> None:
        """Make room for ``panes`` more frozen panes of ``size`` bytes together; ``horizon_ms``: see :meth:`reserve`."""
        a = self.arrays
        rows, space = len(a.frozen_slot), len(a.frozen)
        used = int(a.frozen_start[self.cold])
        if self.cold + panes <= rows and used + size <= space:
            return
        self.cold = _drop_frozen(self.size, self.cold, self.pane_ms, self.span, horizon_ms, a)
        used = int(a.frozen_start[self.cold])
        if self.cold + panes > rows * 0.9:
            wanted = int(max((self.cold + panes) * _GROWTH, rows * _GROWTH))
            self._grow(_FROZEN_ROWS[:-1], wanted)
            self._grow(_FROZEN_ROWS[-1:], wanted + 1)
        if used + size > space * 0.9:
            self._grow(("frozen",), int(max((used + size) * _GROWTH, space * _GROWTH)))

    def _grow(self, names: tuple[str, ...], wanted: int) -> None:
        for name in names:
            array = getattr(self.arrays, name)
            # realloc: a large array grows without a second copy of it
            array.resize((wanted, *array.shape[1:]), refcheck=False)


def minute_hour_day() -> tuple[Level, Level, Level]:
    """The three levels: 60 minutes, 24 hours, 7 days of the account's own (:func:`days_begin_ms`). Minutes are few
    bytes and soon dropped: they are not frozen."""
    return (
        Level.empty(60_000, 60, len(agg.NARROW_MINUTE), len(agg.WIDE_MINUTE), 0, freezes=False),
        Level.empty(HOUR_MS, 24, len(agg.NARROW_HOUR), len(agg.WIDE_HOUR), len(agg.BITS_HOUR)),
        Level.empty(DAY_MS, 7, len(agg.NARROW_DAY), len(agg.WIDE_DAY), len(agg.BITS_DAY), 24),
    )


@njit
def _gone(s: int, time: int, pane_ms: int, span: int, horizon_ms: npt.NDArray[np.int64]) -> bool:
    """Whether no window of account ``s`` reaches that pane, or nobody has it (evicted or reset: -1)."""
    return s < 0 or (np.int64(time) + 1 + span) * pane_ms <= horizon_ms[s]


@njit(makes_arrays=True)
def _freezable(
    size: int, pane_ms: int, span: int, horizon_ms: npt.NDArray[np.int64], most: int, level: LevelView
) -> tuple[int, int]:
    """How many panes :func:`_compact` would freeze, and bytes of all of them."""
    out = np.empty(most, np.uint8)
    count = int(np.int64(0))
    total = int(np.int64(0))
    for i in range(size):
        s = level.slot[i]
        if _gone(s, level.time[i], pane_ms, span, horizon_ms):
            continue
        if (np.int64(level.time[i]) + 1) * pane_ms <= horizon_ms[s]:
            count += 1
            total += encode(i, level.narrow, level.wide, level.bits, level.hours, out)
    return count, total


@njit(makes_arrays=True)
def _compact(
    size: int,
    cold: int,
    pane_ms: int,
    span: int,
    horizon_ms: npt.NDArray[np.int64],
    freezes: bool,
    most: int,
    level: LevelView,
) -> tuple[int, int]:
    """Drop what is gone, freeze what is over (there is room), keep the order, mend the chains; both new sizes."""
    moved = np.full(size, NONE, np.int32)
    out = np.empty(most, np.uint8)
    kept = int(np.int64(0))
    for i in range(size):
        s = level.slot[i]
        if _gone(s, level.time[i], pane_ms, span, horizon_ms):
            continue
        before = level.prev[i]
        if before >= 0:
            before = moved[before]
        if freezes and before < 0 and (np.int64(level.time[i]) + 1) * pane_ms <= horizon_ms[s]:
            start = level.frozen_start[cold]
            length = encode(i, level.narrow, level.wide, level.bits, level.hours, out)
            for b in range(length):
                level.frozen[start + b] = out[b]
            level.frozen_start[cold + 1] = start + length
            level.frozen_slot[cold] = s
            level.frozen_time[cold] = level.time[i]
            level.frozen_prev[cold] = before
            level.frozen_dirty[cold] = level.dirty[i]
            moved[i] = -2 - cold
            cold += 1
            continue
        moved[i] = kept
        level.prev[kept] = before
        if kept != i:
            level.slot[kept] = s
            level.time[kept] = level.time[i]
            level.dirty[kept] = level.dirty[i]
            for c in range(level.narrow.shape[1]):
                level.narrow[kept, c] = level.narrow[i, c]
            for c in range(level.wide.shape[1]):
                level.wide[kept, c] = level.wide[i, c]
            for c in range(level.bits.shape[1]):
                level.bits[kept, c] = level.bits[i, c]
            for c in range(level.hours.shape[1]):
                level.hours[kept, c] = level.hours[i, c]
        kept += 1
    for a in range(len(level.head)):
        if level.head[a] >= 0:
            level.head[a] = moved[level.head[a]]
    return kept, cold


@njit(makes_arrays=True)
def _drop_frozen(
    size: int, cold: int, pane_ms: int, span: int, horizon_ms: npt.NDArray[np.int64], level: LevelView
) -> int:
    """Drop the frozen panes that are gone, close the gaps, mend the chains; returns how many are left."""
    moved = np.full(cold, NONE, np.int32)
    kept = int(np.int64(0))
    end = int(np.int64(0))
    for f in range(cold):
        s = level.frozen_slot[f]
        first, last = level.frozen_start[f], level.frozen_start[f + 1]
        if _gone(s, level.frozen_time[f], pane_ms, span, horizon_ms):
            continue
        before = level.frozen_prev[f]
        level.frozen_prev[kept] = moved[-2 - before] if before <= -2 else NONE
        level.frozen_slot[kept] = s
        level.frozen_time[kept] = level.frozen_time[f]
        level.frozen_dirty[kept] = level.frozen_dirty[f]
        level.frozen_start[kept] = end
        for b in range(last - first):
            level.frozen[end + b] = level.frozen[first + b]
        end += last - first
        moved[f] = -2 - kept
        kept += 1
    level.frozen_start[kept] = end
    for i in range(size):
        if level.prev[i] <= -2:
            level.prev[i] = moved[-2 - level.prev[i]]
    for a in range(len(level.head)):
        if level.head[a] <= -2:
            level.head[a] = moved[-2 - level.head[a]]
    return kept


def days_begin_ms(first_ms: _Ms) -> _Ms:
    """At which time of day (milliseconds after midnight UTC, whole hours) the days of an account begin whose first
    request came at ``first_ms``, or of many such accounts.

    At midnight UTC they would begin in the middle of somebody's working day and at the end of another's, and what is
    said of the two would differ by where they live.
    """
    return first_ms // HOUR_MS * HOUR_MS % DAY_MS


_day_begins_ms = njit(days_begin_ms)


@njit
def day_of(at_ms: int, first_ms: int) -> int:
    """The number of that day of an account whose first request came at ``first_ms``, as its panes have it."""
    return (at_ms - _day_begins_ms(first_ms)) // DAY_MS


@njit
def find_or_begin(s: int, t: int, size: int, level: LevelView) -> tuple[int, int]:
    """The pane of account ``s`` at ``t``: the head if it is that or later, else a new one. Returns (pane, size).

    A frozen head is always earlier: it was over for good.
    """
    h = level.head[s]
    if h >= 0 and level.time[h] >= t:
        level.dirty[h] = 1
        return h, size
    level.slot[size] = s
    level.time[size] = t
    level.prev[size] = h
    level.dirty[size] = 1
    for c in range(level.narrow.shape[1]):
        level.narrow[size, c] = 0
    for c in range(level.wide.shape[1]):
        level.wide[size, c] = 0
    for c in range(level.bits.shape[1]):
        level.bits[size, c] = 0
    for c in range(level.hours.shape[1]):
        level.hours[size, c] = 0
    level.head[s] = size
    return size, size + 1


@njit
def unlink(s: int, level: LevelView) -> None:
    """Forget the panes of account ``s``; the space comes back with the next compaction."""
    p = level.head[s]
    while p >= 0:
        level.slot[p] = NONE
        p = level.prev[p]
    while p <= -2:
        level.frozen_slot[-2 - p] = NONE
        p = level.frozen_prev[-2 - p]
    level.head[s] = NONE
