"""Features to [0, 1] by fixed maps. Half-space trees cut that range at random, so where values lie matters.

A map is fixed by the feature's unit and bounds in the catalogue, never by the data: a running minimum and maximum
is ruined by one outlier (and costs two thirds of the learning rate), and fitted quantiles would make two
partitions disagree about one row. A null stays NaN here; forests read it as the middle, 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.jit import njit, warmup
from monitor.score.options import FeatureLike

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_LINEAR: Final = 0
_LOG: Final = 1
_SIGNED: Final = 2
_POSITIVE: Final = 3

# log2 of the value that reaches 1, by unit: a heavy customer's day, not the largest conceivable
_LOG_CAP = {"requests": 17.0, "tokens": 17.0, "USD": 14.0, "ratio": 6.0, "days": 11.0, "hours": 10.0}
_LOG_CAP_ELSE = 10.0
# the change that reaches half way from "as before" to the end
_CHANGE_SCALE = {"log2": 2.0, "share": 0.15}
_SPREAD_SCALE = 2.0  # standard deviations of log2 values: 1 to 3 in production traces


@dataclass(frozen=True, slots=True)
class Squash:
    """Maps of an ordered set of features: ``kind`` and two constants each."""

    names: tuple[str, ...]
    kind: npt.NDArray[np.uint8]
    a: F64
    b: F64

    def __len__(self) -> int:
        return len(self.names)

    def of(self, frame: pl.DataFrame) -> F32:
        """The features of ``frame`` squashed: [rows, features], in [0, 1], NaN where null or not finite."""
        raw = np.full((len(self.names), frame.height), np.nan)
        have = set(frame.columns)
        for i, name in enumerate(self.names):
            if name in have:
                raw[i] = frame.get_column(name).to_numpy()
        out = np.empty((frame.height, len(self.names)), np.float32)
        _squash(raw, self.kind, self.a, self.b, out)
        return out


def _map(feature: FeatureLike) -> tuple[int, float, float]:
    low, high, unit = feature.low, feature.high, feature.unit
    if feature.window == "past":  # a change: small ones matter, the formal range is far wider than the data
        scale = _CHANGE_SCALE.get(unit, 1.0)
        return (_SIGNED if low is None or low < 0 else _POSITIVE), scale, 0.0
    if low is not None and high is not None and not (unit.startswith("log2") and low < 0):
        return (_LINEAR, low, high) if high - low <= 32 else (_LOG, math.log2(1 + high), 0.0)
    if unit.startswith("log2"):
        return (_POSITIVE, _SPREAD_SCALE, 0.0) if low == 0 else (_SIGNED, 2 * _SPREAD_SCALE, 0.0)
    return _LOG, _LOG_CAP.get(unit, _LOG_CAP_ELSE), 0.0


def squash_for(features: Sequence[FeatureLike]) -> Squash:
    """The maps of ``features``, in that order."""
    maps = [_map(f) for f in features]
    return Squash(
        tuple(f.name for f in features),
        np.array([m[0] for m in maps], np.uint8),
        np.array([m[1] for m in maps], np.float64),
        np.array([m[2] for m in maps], np.float64),
    )


@njit
def _squash(raw: F64, kind: npt.NDArray[np.uint8], a: F64, b: F64, out: F32) -> None:
    # Scalar code, not numpy's log2: vectorised maths may round a row differently by its place in the batch.
    for f in range(raw.shape[0]):
        for i in range(raw.shape[1]):
            x = raw[f, i]
            if not math.isfinite(x):
                out[i, f] = np.nan
                continue
            if kind[f] == _LINEAR:
                y = (x - a[f]) / (b[f] - a[f])
            elif kind[f] == _LOG:
                y = math.log2(1.0 + max(x, 0.0)) / a[f]
            elif kind[f] == _SIGNED:
                y = 0.5 + 0.5 * x / (abs(x) + a[f])
            else:
                y = max(x, 0.0) / (max(x, 0.0) + a[f])
            out[i, f] = min(max(y, 0.0), 1.0)


@warmup
def _warm() -> None:
    one = np.ones((1, 1))
    _squash(one, np.zeros(1, np.uint8), one[0], one[0] + 1, np.empty((1, 1), np.float32))
