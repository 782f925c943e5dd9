"""Window state: a log of small panes by minute, hour and day, chained by account.

A pane is written only while its minute, hour or day lasts. Panes stand in the order in which they were begun
and each points to the one before of the same account, so that a window is read by following the chain until
it is too old: the cost is per pane of the account, not per account of the partition (a scan of the whole state
costs 198 ms per 100,000 accounts). Expired panes are dropped from all arrays at once, in place, when one is full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.features import aggregates as agg
from monitor.jit import njit

NONE = -1
# Loops in the kernels of this package stand where a slice would do: numba takes up to a second to compile each
# assignment of a slice, and the first run pays for all of them.
_GROWTH = 1.3
_FIRST = 1024
INT32_MAX = np.int64(2_147_483_647)


class LevelView(NamedTuple):
    """The arrays of one :class:`Level`, as kernels take them."""

    slot: npt.NDArray[np.int32]
    time: npt.NDArray[np.int32]
    prev: npt.NDArray[np.int32]
    dirty: npt.NDArray[np.uint8]
    narrow: npt.NDArray[np.int32]
    wide: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint64]
    hours: npt.NDArray[np.int32]
    head: npt.NDArray[np.int32]


@dataclass(slots=True)
class Level:
    """One pane length. ``span`` panes of ``pane_ms`` make the window; arrays hold ``size`` panes.

    Shapes: ``slot, time, prev`` int32 [capacity] (``time`` is event time // pane_ms); ``dirty`` uint8; ``narrow``
    int32, ``wide`` int64, ``bits`` uint64 and ``hours`` int32 [capacity, columns]; ``head`` int32 [accounts].
    """

    pane_ms: int
    span: int
    slot: npt.NDArray[np.int32]
    time: npt.NDArray[np.int32]
    prev: npt.NDArray[np.int32]
    dirty: npt.NDArray[np.uint8]
    narrow: npt.NDArray[np.int32]
    wide: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint64]
    hours: npt.NDArray[np.int32]
    head: npt.NDArray[np.int32]
    size: int = 0

    @classmethod
    def empty(cls, pane_ms: int, span: int, narrow: int, wide: int, bits: int, hours: int = 0) -> Level:
        """A level without panes."""
        return cls(
            pane_ms, span,
            np.zeros(_FIRST, np.int32), np.zeros(_FIRST, np.int32), np.zeros(_FIRST, np.int32),
            np.zeros(_FIRST, np.uint8), np.zeros((_FIRST, narrow), np.int32), np.zeros((_FIRST, wide), np.int64),
            np.zeros((_FIRST, bits), np.uint64), np.zeros((_FIRST, hours), np.int32), np.zeros(0, np.int32),
        )  # fmt: skip

    def view(self) -> LevelView:
        """The arrays as they are now; growth makes the view stale."""
        return LevelView(
            self.slot, self.time, self.prev, self.dirty, self.narrow, self.wide, self.bits, self.hours, self.head
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(a.nbytes for a in self.view())

    def reserve(self, panes: int, oldest_ms: npt.NDArray[np.int64]) -> None:
        """Make room for ``panes`` more; ``oldest_ms`` [accounts] is the event time before which panes are done with."""
        capacity = len(self.slot)
        if self.size + panes <= capacity:
            return
        self.size = _compact(self.size, self.pane_ms, oldest_ms, self.view())
        need = self.size + panes
        if need > capacity * 0.8:  # else the next batches compact again and again
            wanted = int(max(need * _GROWTH, capacity * _GROWTH))
            for name in ("slot", "time", "prev", "dirty", "narrow", "wide", "bits", "hours"):
                array = getattr(self, name)
                # realloc: a large array grows without a second copy of it
                array.resize((wanted, *array.shape[1:]), refcheck=False)


def minute_hour_day() -> tuple[Level, Level, Level]:
    """The three levels: 60 minutes, 24 hours, 7 days."""
    return (
        Level.empty(60_000, 60, len(agg.NARROW_MINUTE), len(agg.WIDE_MINUTE), 0),
        Level.empty(3_600_000, 24, len(agg.NARROW_HOUR), len(agg.WIDE_HOUR), len(agg.BITS_HOUR)),
        Level.empty(86_400_000, 7, len(agg.NARROW_DAY), len(agg.WIDE_DAY), len(agg.BITS_DAY), 24),
    )


@njit
def _compact(size: int, pane_ms: int, oldest_ms: npt.NDArray[np.int64], level: LevelView) -> int:
    """Drop expired panes, keep the order, mend the chains; returns the new size."""
    moved = np.full(size, NONE, np.int32)
    kept = 0
    for i in range(size):
        s = level.slot[i]
        # unlinked (evicted or reset) panes carry slot -1
        if s < 0 or (np.int64(level.time[i]) + 1) * pane_ms <= oldest_ms[s]:
            continue
        moved[i] = kept
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
        before = level.prev[i]
        level.prev[kept] = moved[before] if before >= 0 else NONE
        kept += 1
    for a in range(len(level.head)):
        if level.head[a] >= 0:
            level.head[a] = moved[level.head[a]]
    return kept


@njit
def find_or_begin(s: int, t: int, size: int, level: LevelView) -> tuple[int, int]:
    """The pane of account ``s`` at ``t``: the head if it is that or later, else a new one. Returns (pane, size)."""
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
    level.head[s] = NONE
