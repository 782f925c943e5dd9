"""An account's last requests as vectors, and when the classifier reads them: kernels that :func:`kernel.fold` calls.

When is a function of the account's own requests and ticks alone, so no cut of the stream shows in it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from monitor.features.pages import PAGE, PagesView, page_of
from monitor.jit import njit
from monitor.vectors import REPEAT_CODES, SET_SIZE

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

JUDGED_FROM = 8
"""Fewest requests that are looked at."""
JUDGED_EVERY = 16
"""Requests after which an account is looked at anew: of its last 32, so each is seen twice."""
JUDGED_AFTER_MS = 6 * 3_600_000
"""One of fewer requests is looked at again at its first request after so long."""
OPINIONS = 8
"""Most score columns whose last value is kept for an account."""
NEW, EQUAL, NEAR = REPEAT_CODES
DUE, STANDS = 2, 1


@njit
def remember(
    s: int, vector: U8, found: int, gap: int, novelty_at: int, gap_at: int, recent: PagesView, recent_n: I64
) -> None:
    """Keep a request's vector with the two bytes that the account's past gives: ``found`` 0 new, 1 equal, 2 near
    (-1: no first turn); ``gap`` in eighths of log2 ms (-1: not known)."""
    at = recent_n[s] % SET_SIZE
    page, at = page_of(s, at, recent), at % PAGE
    for b in range(len(vector)):
        recent.data[page, at, b] = vector[b]
    novelty = 0
    if found == 0:
        novelty = NEW
    elif found == 1:
        novelty = EQUAL
    elif found == 2:
        novelty = NEAR
    recent.data[page, at, novelty_at] = novelty
    recent.data[page, at, gap_at] = min(gap + 1, 255)
    recent_n[s] += 1


@njit
def judge(
    r: int, s: int, tick_ms: int, k: int, recent: PagesView, recent_n: I64, judged_n: I64, judged_ms: I64,
    set_end: I64, due: U8, sets: U8,
) -> None:  # fmt: skip
    """Row ``r`` ends tick ``k`` of account ``s``: if it is due, append its last requests to ``sets``, oldest first.

    ``due[r]``: DUE, STANDS (it was due before, since the account began) or 0.
    """
    end = set_end[r - 1] if r > 0 else 0
    n = recent_n[s]
    seen = judged_n[s]
    late = k * tick_ms - judged_ms[s] >= JUDGED_AFTER_MS
    if n >= JUDGED_FROM and (seen < 0 or n // JUDGED_EVERY != seen // JUDGED_EVERY or late):
        for j in range(max(n - SET_SIZE, 0), n):
            page = recent.of[s, j % SET_SIZE // PAGE]
            for b in range(recent.data.shape[2]):
                sets[end + b] = recent.data[page, j % PAGE, b]
            end += recent.data.shape[2]
        due[r] = DUE
        judged_n[s] = n
        judged_ms[s] = k * tick_ms
    elif seen >= 0:
        due[r] = STANDS
    set_end[r] = end


def set_column(name: str, set_end: I64, due: U8, sets: U8) -> pl.Series:
    """The sets of rows as a column: Binary [rows], null where a row is not due."""
    offsets = np.concatenate([np.zeros(1, np.int64), set_end])
    valid = np.packbits(due == DUE, bitorder="little")
    size = int(offsets[-1])
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(sets[:size])]
    return pl.Series(name, pa.Array.from_buffers(pa.large_binary(), len(due), buffers), dtype=pl.Binary)


def carried(
    slots: npt.NDArray[np.int32], due: U8, values: npt.NDArray[np.float64],
    opinion: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:  # fmt: skip
    """``values`` [rows, columns] with each row that STANDS given what the account's last DUE row got, others NaN.

    Rows of an account are in order of time. ``opinion`` [accounts, columns] holds what the rows of earlier calls got,
    and takes over what these get (NaN: no opinion).
    """
    out = values.astype(np.float32)
    if not len(slots):
        return out.astype(np.float64)
    order = np.argsort(slots, kind="stable")
    at, now = slots[order], due[order] == DUE
    first = np.append(True, at[1:] != at[:-1])
    source = np.maximum.accumulate(np.where(now | first, np.arange(len(at)), 0))
    ordered = np.where(now[:, None], out[order], opinion[at, : out.shape[1]])
    # a first row that is not due stands for what the account came with
    filled = np.where((due[order] > 0)[:, None], ordered[source], np.float32(np.nan))
    out[order] = filled
    last = np.append(first[1:], True)
    opinion[at[last], : out.shape[1]] = filled[last]
    return out.astype(np.float64)
