"""What is read of a row's window sums before Polars derives the features: what would be dozens of expressions each.

Polars plans anew for every batch, at a cost of its nodes and not of its rows: second moments, entropies and distances
as expressions took 12 of 19 ms a batch, however short. Here a kernel reads them, row by row, so a row's bits do not
depend on its batch. Integers are added as integers, floats from left to right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.features import aggregates as agg
from monitor.features.shapes import Windows
from monitor.jit import njit, warmup

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

CELLS = 64
READABLE = 60
"""Set cells of 64 up to which an estimate is good: about 177 values, to within a sixth."""
_HOURS = 24
_SHARES = ("question", "first_person", "second_person", "politeness", "wh")

DISTINCT = tuple(f"d_{name}_distinct" for name in agg.BITS_HOUR if name not in agg.CORPUS_BITS)
DISTINCT_WEEK = tuple(f"w_{name}_distinct" for name in agg.BITS_DAY)
MOMENTS = ("d_opening_moment", "d_closing_moment", "p_opening_moment", "p_closing_moment", "d_model_moment")
"""Sums of squared bucket counts."""
OTHERS = ("corpus_items", "models_per_item", "day_entropy", "model_distance", "style_distance")
NAMES = (*DISTINCT, *DISTINCT_WEEK, *MOMENTS, *OTHERS)
"""Columns of the readings, in order: Float64, NaN where not known."""


class Places(NamedTuple):
    """Where the columns lie: first bucket of each in the day's narrow sums, first of the corpus cells in its bits."""

    opening: int
    closing: int
    model: int
    n: int
    n_text: int
    shares: I64
    corpus: int


_narrow = agg.NARROW_HOUR.index
PLACES = Places(
    _narrow("opening_0"), _narrow("closing_0"), _narrow("model_0"), _narrow("n"), _narrow("n_text"),
    np.array([_narrow(name) for name in _SHARES], np.int64), agg.BITS_HOUR.index(agg.CORPUS_BITS[0]),
)  # fmt: skip
_SAMPLES = np.array(agg.CORPUS_SAMPLES, np.float64)
_DISTINCT = np.array([-CELLS * math.log(max(CELLS - cells, 1) * (1 / CELLS)) for cells in range(CELLS + 1)])
"""Linear counting by set cells (Whang et al. 1990); all set reads as 270, where the estimate ends."""


@njit
def _set_cells(bits: int) -> int:
    count, left = 0, np.uint64(bits)
    while left:
        left &= left - np.uint64(1)
        count += 1
    return count


@njit
def _moment(sums: I64, first: int, buckets: int, row: int) -> float:
    total = np.int64(0)
    for i in range(first, first + buckets):
        total += sums[i, row] * sums[i, row]
    return float(total)


@njit
def _share(part: int, whole: int) -> float:
    return min(max(part / whole, 0.0), 1.0)


@njit
def _entropy(hours: I64, whole: int, row: int) -> float:
    """Of the hours of the day, in units of that of 24 equal ones."""
    total = 0.0
    for h in range(_HOURS):
        p = hours[h, row] / whole
        if p > 0:
            total += p * math.log(p)
    return -total * (1 / math.log(_HOURS))


@njit
def _corpus(bits: U64, first: int, row: int, table: F64, samples: F64) -> tuple[float, float]:
    """Different items, of the densest sample that can be read, else of the thinnest; pairs over items, of the densest
    sample whose pairs can be read, NaN where none can or no item is in it."""
    last = len(samples) - 1
    items = table[_set_cells(bits[first + 2 * last, row])] * samples[last]
    ratio = math.nan
    for k in range(last, -1, -1):
        seen, pairs = _set_cells(bits[first + 2 * k, row]), _set_cells(bits[first + 2 * k + 1, row])
        if k < last and seen <= READABLE:
            items = table[seen] * samples[k]
        if pairs <= READABLE:
            ratio = table[pairs] / table[seen] if table[seen] > 0 else math.nan
    return items, ratio


@njit
def read_windows(
    day: I64, past: I64, day_bits: U64, week_bits: U64, hours: I64, week_n: I64, at: Places, table: F64,
    samples: F64, buckets: int, models: int, corpus_cells: int, out: F64,
) -> None:  # fmt: skip
    """Fill ``out`` [NAMES, rows] from sums [columns, rows or more] of the day, the past and the week."""
    for row in range(out.shape[1]):
        j = 0
        for b in range(len(day_bits)):
            if not at.corpus <= b < at.corpus + corpus_cells:
                out[j, row] = table[_set_cells(day_bits[b, row])]
                j += 1
        for b in range(len(week_bits)):
            out[j, row] = table[_set_cells(week_bits[b, row])]
            j += 1
        out[j, row] = _moment(day, at.opening, buckets, row)
        out[j + 1, row] = _moment(day, at.closing, buckets, row)
        out[j + 2, row] = _moment(past, at.opening, buckets, row)
        out[j + 3, row] = _moment(past, at.closing, buckets, row)
        out[j + 4, row] = _moment(day, at.model, models, row)
        j += 5
        out[j, row], out[j + 1, row] = _corpus(day_bits, at.corpus, row, table, samples)
        out[j + 2, row] = _entropy(hours, week_n[row], row) if week_n[row] > 0 else math.nan
        now, before = day[at.n, row], past[at.n, row]
        out[j + 3, row] = math.nan
        if now > 0 and before > 0:
            total = 0.0
            for i in range(at.model, at.model + models):
                total += abs(day[i, row] / now - past[i, row] / before)
            out[j + 3, row] = total * 0.5
        now, before = day[at.n_text, row], past[at.n_text, row]
        out[j + 4, row] = math.nan
        if now > 0 and before > 0:
            total = 0.0
            for i in at.shares:
                apart = _share(day[i, row], now) - _share(past[i, row], before)
                total += apart * apart
            out[j + 4, row] = math.sqrt(total)


def readings(windows: Windows, rows: int) -> Mapping[str, F64]:
    """Column -> Float64 [rows], NaN where not known."""
    out = np.empty((len(NAMES), rows))
    read_windows(
        windows.day_narrow, windows.past_narrow, windows.day_bits, windows.week_bits, windows.week_hours,
        windows.week_n, PLACES, _DISTINCT, _SAMPLES,
        agg.TEMPLATE_BUCKETS, agg.MODEL_BUCKETS, len(agg.CORPUS_BITS), out,
    )  # fmt: skip
    return dict(zip(NAMES, out, strict=True))


@warmup
def _warm() -> None:
    """Compile the kernel by no rows."""
    none = np.zeros((len(agg.NARROW_HOUR), 1), np.int64)
    bits = np.zeros((len(agg.BITS_HOUR), 1), np.uint64)
    read_windows(
        none, none, bits, bits[:2], none[:_HOURS], np.zeros(0, np.int64), PLACES, _DISTINCT, _SAMPLES,
        agg.TEMPLATE_BUCKETS, agg.MODEL_BUCKETS, len(agg.CORPUS_BITS), np.empty((len(NAMES), 0)),
    )  # fmt: skip
