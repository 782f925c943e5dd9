"""Compiled loops of tallies and the graph: numbering values, and adding up the rows of a number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.jit import njit, sealed, warmup

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xC2B2AE3D27D4EB4F)
_SMALL = 16
"""Power of two of a table's size at first: one that fits the values needs fewer cache lines than one for all rows."""


def table_bits(items: int) -> int:
    """Size of a table for so many items as a power of two, half empty at least."""
    return max(4, int(2 * items - 1).bit_length()) if items else 4


def number(one: U64, other: U64, bits: int) -> tuple[I32, I64]:
    """Number each pair (one, other) in order of its first row: the number of each row, the first row of each number.

    ``bits``: see :func:`table_bits`.
    """
    ids, first = _number(sealed(one), sealed(other), min(bits, _SMALL))
    return ids, first


@njit(makes_arrays=True)
def _number(one: U64, other: U64, bits: int) -> tuple[I32, I64]:
    slots = np.full(1 << bits, -1, np.int32)
    mask = np.uint64((1 << bits) - 1)
    shift = np.uint64(64 - bits)
    ids = np.empty(len(one), np.int32)
    first = np.empty(len(one), np.int64)
    count = 0
    for i in range(len(one)):
        at = (((other[i] ^ (one[i] * _SPREAD)) * _MIX) >> shift) & mask
        while True:
            held = slots[at]
            if held < 0:
                slots[at] = count
                first[count] = i
                ids[i] = count
                count += 1
                break
            j = first[held]
            if one[j] == one[i] and other[j] == other[i]:
                ids[i] = held
                break
            at = (at + np.uint64(1)) & mask
        if 2 * count > len(slots):
            bits += 1
            slots = np.full(1 << bits, -1, np.int32)
            mask = np.uint64((1 << bits) - 1)
            shift = np.uint64(64 - bits)
            for c in range(count):
                j = first[c]
                at = (((other[j] ^ (one[j] * _SPREAD)) * _MIX) >> shift) & mask
                while slots[at] >= 0:
                    at = (at + np.uint64(1)) & mask
                slots[at] = c
    return ids, first[:count].copy()


def repeats(ids: I32, account: I32, tenant: I32, numbers: int) -> I32:
    """How many rows each number has beyond the first of each tenant; ``account`` is by row, ``tenant`` by account."""
    return _repeats(sealed(ids), sealed(account), sealed(tenant), numbers)


@njit(makes_arrays=True)
def _repeats(ids: I32, account: I32, tenant: I32, numbers: int) -> I32:
    """One tenant of several accounts after another, so that a number needs to know only who had it last: a table of
    (number, tenant) took a look into memory for each row and was an eighth to a quarter of the campaign steps."""
    most = -1
    for a in range(len(tenant)):
        most = max(most, tenant[a])
    accounts, end = np.zeros(most + 1, np.int32), np.zeros(most + 2, np.int32)
    for a in range(len(tenant)):
        accounts[tenant[a]] += 1
    for i in range(len(ids)):
        w = tenant[account[i]]
        end[w + 1] += accounts[w] > 1
    for w in range(most + 1):
        end[w + 1] += end[w]
    theirs = np.empty(end[most + 1], np.int32)
    for i in range(len(ids)):
        w = tenant[account[i]]
        if accounts[w] > 1:
            theirs[end[w]] = ids[i]
            end[w] += 1
    last, more, begin = np.full(numbers, -1, np.int32), np.zeros(numbers, np.int32), 0
    for w in range(most + 1):
        for i in range(begin, end[w]):
            more[theirs[i]] += last[theirs[i]] == w
            last[theirs[i]] = w
        begin = end[w]
    return more


@njit(makes_arrays=True)
def folded(
    ids: I32, groups: int, low: I64, high: I64, bits: U64, key: U64, totals: I64, sums: I32
) -> tuple[I64, I64, U64, I64, I64, I32]:
    """Of the rows of each number: the smallest of ``low``, the largest of ``high``, the union of ``bits``, the row with
    the smallest ``key`` (the first of them), the sums of ``totals`` and ``sums``."""
    lows = np.empty((groups, low.shape[1]), np.int64)
    highs = np.empty((groups, high.shape[1]), np.int64)
    best = np.full(groups, -1, np.int64)
    union = np.zeros(groups, np.uint64)
    total = np.zeros((groups, totals.shape[1]), np.int64)
    summed = np.zeros((groups, sums.shape[1]), np.int32)
    for i in range(len(ids)):
        g = ids[i]
        fresh = best[g] < 0
        if fresh or key[i] < key[best[g]]:
            best[g] = i
        for c in range(low.shape[1]):
            lows[g, c] = low[i, c] if fresh else min(lows[g, c], low[i, c])
            highs[g, c] = high[i, c] if fresh else max(highs[g, c], high[i, c])
        union[g] |= bits[i]
        for c in range(totals.shape[1]):
            total[g, c] += totals[i, c]
        for c in range(sums.shape[1]):
            summed[g, c] += sums[i, c]
    return lows, highs, union, best, total, summed


@njit(makes_arrays=True)
def counted(ids: I32, groups: int, count: I32) -> I32:
    """Sum of ``count`` of the rows of each number."""
    total = np.zeros(groups, np.int32)
    for i in range(len(ids)):
        total[ids[i]] += count[i]
    return total


@warmup
def _warm() -> None:
    ids, _ = number(np.zeros(1, np.uint64), np.zeros(1, np.uint64), 4)
    counted(ids, 1, np.zeros(1, np.int32))
    repeats(ids, ids, ids, 1)
    wide, narrow = np.zeros((1, 2), np.int64), np.zeros((1, 1), np.int32)
    folded(ids, 1, wide, wide, np.zeros(1, np.uint64), np.zeros(1, np.uint64), wide, narrow)
