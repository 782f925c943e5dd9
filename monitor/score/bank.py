"""All champions of all partitions side by side, so that a frame of any of them is scored in one compiled call.

Knows slots and arrays, nothing of how a champion came to be.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from monitor.jit import njit, warmup
from monitor.score.forest import SIZE_LIMIT, Snapshot, load_row, walk

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
_T = TypeVar("_T", bound=np.generic)


@njit
def _rank(
    rows: F32, start: int, width: int, need: int, slot: I64, feature: U8, threshold: F64, mass: I32, scores: F64,
    count: I64, window: int, height: int, out: F64, row: F64,
) -> None:  # fmt: skip
    limit = SIZE_LIMIT * window
    top = feature.shape[1] * window * (2 ** (height + 1) - 1)
    for i in range(rows.shape[0]):
        out[i] = np.nan
        s = slot[i]
        if s < 0 or count[s] == 0 or load_row(rows[i], start, row) < need:
            continue
        raw = 1.0 - walk(row, feature[s], threshold[s], mass[s], limit, height) / top
        below, over = 0, count[s]
        while below < over:
            middle = (below + over) // 2
            if scores[s, middle] < raw:
                below = middle + 1
            else:
                over = middle
        out[i] = below / (count[s] + 1)


class Bank:
    """Champions of one kind of forest in numbered slots, each with its calibration scores.

    ``start`` and ``width`` say which columns of a row are its features, ``need`` how many must be known.
    """

    def __init__(self, start: int, width: int, need: int, *, trees: int, height: int, window: int, capacity: int):
        self._columns = (start, width, need)
        self._window, self._height = window, height
        branches = (1 << height) - 1
        self._feature = np.zeros((0, trees, branches), np.uint8)
        self._threshold = np.zeros((0, trees, branches))
        self._mass = np.zeros((0, trees, 2 * branches + 1), np.int32)
        self._scores = np.zeros((0, capacity))
        self._count = np.zeros(0, np.int64)

    def _grow(self, slots: int) -> None:
        self._feature, self._threshold = _longer(self._feature, slots), _longer(self._threshold, slots)
        self._mass, self._scores = _longer(self._mass, slots), _longer(self._scores, slots)
        self._count = _longer(self._count, slots)

    def put(self, slot: int, snapshot: Snapshot | None, scores: F64) -> None:
        """Fill a slot; without a snapshot or calibration scores (ascending) it gives no opinion."""
        if slot >= len(self._count):
            self._grow(max(8, slot + 1, 2 * len(self._count)))
        self._count[slot] = 0
        if snapshot is None or not len(scores):
            return
        self._feature[slot], self._threshold[slot] = snapshot.feature, snapshot.threshold
        self._mass[slot] = snapshot.mass
        self._scores[slot, : len(scores)] = scores
        self._count[slot] = len(scores)

    def rank(self, rows: F32, slot: I64) -> F64:
        """Conformal rank of each row [n, all features], in [0, 1); NaN for no opinion. Slot -1: none."""
        out = np.empty(len(rows))
        start, width, need = self._columns
        _rank(
            rows, start, width, need, slot, self._feature, self._threshold, self._mass, self._scores, self._count,
            self._window, self._height, out, np.empty(width),
        )  # fmt: skip
        return out


def _longer(array: npt.NDArray[_T], slots: int) -> npt.NDArray[_T]:
    out = np.zeros((slots, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


@warmup
def _warm() -> None:
    bank = Bank(0, 1, 1, trees=1, height=1, window=10, capacity=2)
    bank.put(0, Snapshot(np.zeros((1, 1), np.uint8), np.zeros((1, 1)), np.zeros((1, 3), np.int32), 10, 1), np.zeros(1))
    bank.rank(np.zeros((1, 1), np.float32), np.zeros(1, np.int64))
