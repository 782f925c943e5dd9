"""Compiled loops of the graph: numbering values, and the pairs of an account's rarest values.

Both work in time linear in the links. Most pairs are held by one account alone: they are told apart by a table of small
counters before anything is sorted, so memory is for the pairs that repeat.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.campaigns.kinds import GROUPS
from monitor.jit import njit, warmup

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

A_GROUP = np.array([8 if name == "template" else 3 for name in GROUPS], np.int64)
"""Values of a group that an account brings into pairs, the rarest ones: the number of pairs stays linear."""
_MOST = int(A_GROUP.max())
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xC2B2AE3D27D4EB4F)
_PAIRS_A_LINK = 2
"""Half the counters for each link: an account with ten links brings some twenty-five pairs."""
_MARK, _KEEP, _WRITE = 0, 1, 2


def table_bits(items: int) -> int:
    """Size of a table for so many items as a power of two, half empty at least."""
    return max(4, int(2 * items - 1).bit_length()) if items else 4


@njit
def number(one: U64, other: U64, bits: int) -> tuple[I32, I64]:
    """Number each pair (one, other) in order of its first row: the number of each row, the first row of each number."""
    slots = np.full(1 << bits, -1, np.int32)
    mask = np.uint64((1 << bits) - 1)
    shift = np.uint64(64 - bits)
    ids = np.empty(len(one), np.int32)
    first = np.empty(len(one), np.int64)
    count = 0
    for i in range(len(one)):
        h = (other[i] ^ (one[i] * _SPREAD)) * _MIX
        at = (h >> shift) & mask
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
    return ids, first[:count].copy()


@njit
def merged(ids: I32, groups: int, count: I64, first: I32, last: I32) -> tuple[I64, I32, I32]:
    """Sum of ``count``, smallest ``first`` and largest ``last`` of the rows of each number."""
    total = np.zeros(groups, np.int64)
    begun = np.full(groups, 2**31 - 1, np.int32)
    ended = np.full(groups, -(2**31), np.int32)
    for i in range(len(ids)):
        g = ids[i]
        total[g] += count[i]
        begun[g] = min(begun[g], first[i])
        ended[g] = max(ended[g], last[i])
    return total, begun, ended


@njit
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


@njit
def counted(ids: I32, groups: int, count: I32) -> I32:
    """Sum of ``count`` of the rows of each number."""
    total = np.zeros(groups, np.int32)
    for i in range(len(ids)):
        total[ids[i]] += count[i]
    return total


@njit
def _rarest(start: int, end: int, key: I64, df: I64, group: I64, chosen: I64, filled: I64) -> None:
    """The ``A_GROUP`` rarest keys of each group among links [start, end), into ``chosen`` [groups, _MOST]."""
    filled[:] = 0
    for i in range(start, end):
        k = key[i]
        g = group[k]
        n, most = filled[g], A_GROUP[g]
        # insertion by (df, key): few values, and the order must not depend on anything else
        j = n if n < most else most
        while j > 0 and (df[chosen[g, j - 1]] > df[k] or (df[chosen[g, j - 1]] == df[k] and chosen[g, j - 1] > k)):
            if j < most:
                chosen[g, j] = chosen[g, j - 1]
            j -= 1
        if j < most:
            chosen[g, j] = k
            if n < most:
                filled[g] = n + 1


@njit
def _visit(
    mode: int, account: I64, key: I64, df: I64, group: I64, attested: npt.NDArray[np.bool_], groups: int, counters: U8,
    pair: U64, who: I64,
) -> int:  # fmt: skip
    """Each account's pairs of two groups, one attested: mark them in ``counters``, or count or write those whose
    counter says that they may repeat. Returns how many."""
    chosen, filled = np.zeros((groups, _MOST), np.int64), np.zeros(groups, np.int64)
    total, start, n = 0, 0, len(account)
    mask = np.uint64(len(counters) - 1)
    for end in range(1, n + 1):
        if end < n and account[end] == account[start]:
            continue
        _rarest(start, end, key, df, group, chosen, filled)
        for g in range(groups):
            for h in range(g + 1, groups):
                for i in range(filled[g]):
                    for j in range(filled[h]):
                        one, other = chosen[g, i], chosen[h, j]
                        if not (attested[one] or attested[other]):
                            continue
                        made = (np.uint64(one) << np.uint64(32)) | np.uint64(other)
                        at = ((made * _MIX) >> np.uint64(30)) & mask
                        if mode == _MARK:
                            if counters[at] < 2:
                                counters[at] += 1
                            total += 1
                        elif counters[at] >= 2:
                            if mode == _WRITE:
                                pair[total] = made
                                who[total] = account[start]
                            total += 1
        start = end
    return total


def repeated_pairs(
    account: I64, key: I64, df: I64, group: I64, attested: npt.NDArray[np.bool_], groups: int = len(GROUPS)
) -> tuple[U64, I64, int]:
    """(pair, account) of all pairs that more than one account may hold, and how many pairs were left out as single.

    Links must be sorted by account. A pair is ``key << 32 | key``, the smaller group first.
    """
    nothing, nobody = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    links = (account, key, df, group, attested, groups)
    counters = np.zeros(1 << table_bits(_PAIRS_A_LINK * len(account)), np.uint8)
    total = _visit(_MARK, *links, counters, nothing, nobody)
    kept = _visit(_KEEP, *links, counters, nothing, nobody)
    pair, who = np.zeros(kept, np.uint64), np.zeros(kept, np.int64)
    _visit(_WRITE, *links, counters, pair, who)
    return pair, who, total - kept


@warmup
def _warm() -> None:
    one = np.zeros(1, np.int64)
    ids, _ = number(np.zeros(1, np.uint64), np.zeros(1, np.uint64), 4)
    counted(ids, 1, np.zeros(1, np.int32))
    wide, narrow = np.zeros((1, 2), np.int64), np.zeros((1, 1), np.int32)
    folded(ids, 1, wide, wide, np.zeros(1, np.uint64), np.zeros(1, np.uint64), wide, narrow)
    merged(ids, 1, one, np.zeros(1, np.int32), np.zeros(1, np.int32))
    repeated_pairs(one, one, np.full(1, 3), one, np.ones(1, np.bool_))
