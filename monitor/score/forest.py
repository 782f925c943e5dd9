"""river's half-space trees: learned by river a row at a time, scored in bulk from a frozen snapshot.

river is the model; the snapshot is only its trees as arrays, walked by a compiled kernel that gives the same
number (1.3 million rows a second instead of 0.1). Knows nothing of classes, time or calibration.

Half-space trees: Tan, Ting and Liu, "Fast anomaly detection for streaming data", IJCAI 2011.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from river.anomaly import HalfSpaceTrees

from monitor.jit import njit, sealed, warmup
from monitor.score.blob import BadBlob

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

NULL = np.float32(0.5)
"""What a forest reads where a feature is not known: the middle of the range."""
SIZE_LIMIT = 0.1
"""Share of a window under which river's walk stops (the paper's constant)."""


@njit(inline="always")
def load_row(row: F32, start: int, into: F64) -> np.int64:
    """Copy a row's features from ``start`` into the float64 buffer ``into`` (river compares Python floats), nulls
    as the middle; how many were known."""
    known = np.int64(0)
    for f in range(into.shape[0]):
        value = row[start + f]
        if value == value:
            known += 1
            into[f] = value
        else:
            into[f] = NULL
    return known


@njit(inline="always")
def walk(row: F64, feature: U8, threshold: F64, mass: I32, limit: float, height: int) -> np.int64:
    """Sum over trees of mass times 2 ** depth along the row's path: an integer, so exact in any order.

    Trees are in heap order: the children of node i are 2 i + 1 and 2 i + 2. Shapes: feature and threshold
    [trees, 2 ** height - 1], mass [trees, 2 ** (height + 1) - 1].
    """
    total = np.int64(0)
    for t in range(feature.shape[0]):
        node, weight, here = np.int64(0), np.int64(1), mass[t, 0]
        total += np.int64(here)
        for _ in range(height):
            if here < limit:
                break
            # arithmetic, not a branch that the processor would guess wrong half the time: 250 ns a row, not 310
            node = 2 * node + 2 - np.int64(row[feature[t, node]] < threshold[t, node])
            weight += weight
            here = mass[t, node]
            total += np.int64(here) * weight
    return total


@njit
def _score(rows: F32, feature: U8, threshold: F64, mass: I32, window: int, height: int, out: F64, row: F64) -> None:
    top = feature.shape[0] * window * (2 ** (height + 1) - 1)
    for i in range(rows.shape[0]):
        load_row(rows[i], 0, row)
        out[i] = 1.0 - walk(row, feature, threshold, mass, SIZE_LIMIT * window, height) / top


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A forest at one moment: ``feature`` and ``threshold`` [trees, branches], ``mass`` [trees, nodes]."""

    feature: U8
    threshold: F64
    mass: I32
    window: int
    height: int

    def score(self, rows: F32) -> F64:
        """river's ``score_one`` of each row [n, features], high is unusual. NaN in a row reads as 0.5."""
        out = np.empty(len(rows))
        forest = (sealed(self.feature), sealed(self.threshold), sealed(self.mass))
        _score(sealed(rows), *forest, self.window, self.height, out, np.empty(rows.shape[1]))
        return out

    def dump(self) -> dict[str, Any]:
        """Plain arrays for :func:`monitor.score.blob.pack`."""
        return {"feature": self.feature, "threshold": self.threshold, "mass": self.mass}

    @classmethod
    def load(cls, body: Mapping[str, Any], trees: int, height: int, window: int) -> Snapshot:
        """The snapshot that :meth:`dump` gave. Raises BadBlob where the arrays do not have the forest's shape."""
        branches = (1 << height) - 1
        feature, threshold, mass = body.get("feature"), body.get("threshold"), body.get("mass")
        if (
            not isinstance(feature, np.ndarray)
            or not isinstance(threshold, np.ndarray)
            or not isinstance(mass, np.ndarray)
            or feature.shape != (trees, branches)
            or threshold.shape != feature.shape
            or mass.shape != (trees, 2 * branches + 1)
        ):
            raise BadBlob("a forest of another shape")
        return cls(feature, threshold, mass, window, height)


class Forest:
    """One river ``HalfSpaceTrees`` over ``width`` values in [0, 1].

    ``learned`` counts rows; the forest is ``ready`` after two windows (river's first window scores everything 0,
    and the second is the first whose profile is of a whole window).
    """

    def __init__(self, width: int, *, trees: int = 10, height: int = 6, window: int = 256, seed: int = 1):
        if not 1 <= width <= 255:
            raise ValueError("a forest takes 1 to 255 features")
        self.width, self.height, self.window = width, height, window
        self.learned = 0
        self._model: Any = HalfSpaceTrees(n_trees=trees, height=height, window_size=window, seed=seed)
        self._trees = trees
        self._nodes: list[list[Any]] = []
        self._cuts: tuple[U8, F64] | None = None

    @property
    def ready(self) -> bool:
        """Whether two windows were learned, fewer than which give no opinion."""
        return self.learned >= 2 * self.window

    @property
    def river(self) -> Any:
        """The model itself, for comparison with a snapshot."""
        return self._model

    def learn(self, rows: F32) -> None:
        """Learn each row [n, width] in order. NaN reads as 0.5."""
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ValueError(f"rows of {self.width} features expected")
        learn_one = self._model.learn_one
        for row in np.where(np.isnan(rows), NULL, rows).tolist():
            learn_one(dict(enumerate(row)))
        self.learned += len(rows)

    def score_one(self, row: F32) -> float:
        """river's own score of one row (0 in its first window), as the reference for snapshots."""
        return float(self._model.score_one(dict(enumerate(np.where(np.isnan(row), NULL, row).tolist()))))

    def snapshot(self) -> Snapshot | None:
        """The trees as they are; None before the second window is full."""
        if not self.ready:
            return None
        nodes = self._heap()
        feature, threshold = self._geometry()
        mass = np.array([[n.r_mass for n in tree] for tree in nodes], np.int32)
        return Snapshot(feature, threshold, mass, self.window, self.height)

    def _heap(self) -> list[list[Any]]:
        """river's nodes in heap order, found once: a tree never changes its shape, only its masses."""
        if not self._nodes and self._model.trees:
            for root in self._model.trees:
                tree = [root]
                for i in range((1 << self.height) - 1):
                    tree.extend(tree[i].children)
                self._nodes.append(tree)
        return self._nodes

    def _geometry(self) -> tuple[U8, F64]:
        """Cuts of the trees, made into arrays once: river never moves them. Read only."""
        if self._cuts is None:
            branches = (1 << self.height) - 1
            heap = self._heap()
            feature = np.array([[n.feature for n in tree[:branches]] for tree in heap], np.uint8)
            threshold = np.array([[n.threshold for n in tree[:branches]] for tree in heap], np.float64)
            feature.flags.writeable = threshold.flags.writeable = False
            self._cuts = feature, threshold
        return self._cuts

    def dump(self) -> dict[str, Any]:
        """Plain arrays: trees, both mass profiles and the number of rows learned."""
        if not self.learned:
            return {"learned": 0}
        feature, threshold = self._geometry()
        return {
            "learned": self.learned,
            "feature": feature,
            "threshold": threshold,
            "mass": np.array([[n.r_mass for n in tree] for tree in self._heap()], np.int32),
            "current": np.array([[n.l_mass for n in tree] for tree in self._heap()], np.int32),
        }

    def load(self, body: Mapping[str, Any]) -> None:
        """Continue exactly where :meth:`dump` left off, on a fresh forest of the same shape. Raises BadBlob.

        river builds its trees when it learns its first row, and leaves its first window at the first pivot. So
        a row is learned for show, just before a pivot if one lay behind, and everything it did is overwritten:
        cuts too, which makes the state independent of how this version of river draws them.
        """
        learned = body.get("learned")
        if not isinstance(learned, int) or learned < 0:
            raise BadBlob("a forest without its number of rows")
        if not learned:
            return
        frozen = Snapshot.load(body, self._trees, self.height, self.window)
        current = body.get("current")
        if not isinstance(current, np.ndarray) or current.shape != frozen.mass.shape:
            raise BadBlob("a forest of another shape")
        if frozen.feature.max() >= self.width:
            raise BadBlob("a forest over more features")
        if learned >= self.window:
            self._model.counter = self.window - 1
        self._model.learn_one(dict.fromkeys(range(self.width), 0.0))
        self._model.counter = learned % self.window
        self.learned = learned
        branches = (1 << self.height) - 1
        for t, tree in enumerate(self._heap()):
            right, left = frozen.mass[t].tolist(), current[t].tolist()
            cuts = zip(frozen.feature[t].tolist(), frozen.threshold[t].tolist(), strict=True)
            for node, r_mass, l_mass in zip(tree, right, left, strict=True):
                node.r_mass, node.l_mass = r_mass, l_mass
            for node, (feature, threshold) in zip(tree[:branches], cuts, strict=True):
                node.feature, node.threshold = feature, threshold


@warmup
def _warm() -> None:
    Snapshot(np.zeros((1, 1), np.uint8), np.zeros((1, 1)), np.zeros((1, 3), np.int32), 10, 1).score(
        np.zeros((1, 1), np.float32)
    )
