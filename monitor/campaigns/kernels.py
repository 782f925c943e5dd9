"""Compiled loops of the graph: numbering values, and the pairs of an account's rarest values.

Both work in time linear in the links. Most pairs are held by one account alone: they are told apart by a table of small
counters before anything is sorted, so memory is for the pairs that repeat.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.campaigns.kinds import GROUPS
from monitor.jit import njit, sealed, warmup

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

A_GROUP = np.array([8 if name == "template" else 3 for name in GROUPS], np.int64)
"""Values of a group that an account brings into pairs, the rarest ones: the number of pairs stays linear."""
_MOST = int(A_GROUP.max())
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xC2B2AE3D27D4EB4F)
_PAIRS_A_LINK = 4
"""Half the counters for each link, of two bits: an account with ten links brings some twenty-five pairs."""
_ROOM = 1 << 16
"""Pairs for which there is room at first."""


def table_bits(items: int) -> int:
    """Size of a table for so many items as a power of two, half empty at least."""
    return max(4, int(2 * items - 1).bit_length()) if items else 4


def number(one: U64, other: U64, bits: int) -> tuple[I32, I64]:
    """Number each pair (one, other) in order of its first row: the number of each row, the first row of each number.

    ``bits``: see :func:`table_bits`.
    """
    ids, first = _number(sealed(one), sealed(other), bits)
    return ids, first


@njit
def _number(one: U64, other: U64, bits: int) -> tuple[I32, I64]:
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
def ordered(first: I32, second: I32, firsts: int, seconds: int) -> I64:
    """Rows in order of ``first`` (under ``firsts``) and then ``second`` (under ``seconds``): two counting sorts."""
    by_second = _counting_sort(np.arange(len(second)), second, seconds)
    return _counting_sort(by_second, first, firsts)


@njit
def _counting_sort(rows: I64, of: I32, most: int) -> I64:
    """``rows`` in order of ``of``; equal ones stay as they are."""
    place = np.zeros(most + 1, np.int64)
    for i in range(len(of)):
        place[of[i] + 1] += 1
    for i in range(most):
        place[i + 1] += place[i]
    out = np.empty(len(rows), np.int64)
    for r in rows:
        out[place[of[r]]] = r
        place[of[r]] += 1
    return out


@njit
def _rarest(account: I32, key: I32, df: I64, group: I64, groups: int) -> tuple[I32, U8, I64, I32]:
    """The ``A_GROUP`` rarest keys of each group of each account: keys one account after another, by group; how many
    [accounts, groups]; where each account's begin; and whose they are. ``account`` must be sorted."""
    n = len(account)
    people = 0
    for i in range(n):
        people += i == 0 or account[i] != account[i - 1]
    held, filled = np.empty(n, np.int32), np.zeros((people, groups), np.uint8)
    begins, whose = np.zeros(people + 1, np.int64), np.empty(people, np.int32)
    chosen = np.zeros((groups, _MOST), np.int64)
    total, start, person = 0, 0, 0
    for end in range(1, n + 1):
        if end < n and account[end] == account[start]:
            continue
        mine = filled[person]
        for i in range(start, end):
            k = key[i]
            g = group[k]
            most, f = A_GROUP[g], int(mine[g])
            # insertion by (df, key): few values, and the order must not depend on anything else
            j = f
            while j > 0 and (df[chosen[g, j - 1]] > df[k] or (df[chosen[g, j - 1]] == df[k] and chosen[g, j - 1] > k)):
                if j < most:
                    chosen[g, j] = chosen[g, j - 1]
                j -= 1
            if j < most:
                chosen[g, j] = k
                mine[g] = min(f + 1, most)
        for g in range(groups):
            for j in range(mine[g]):
                held[total] = chosen[g, j]
                total += 1
        whose[person] = account[start]
        person += 1
        begins[person] = total
        start = end
    return held[:total].copy(), filled, begins, whose


@njit
def _visit(
    mark: bool, held: I32, filled: U8, begins: I64, whose: I32, attested: npt.NDArray[np.bool_], counters: U8
) -> tuple[int, U64, I32]:
    """Each account's pairs of two groups, one attested: mark them in ``counters``, or give those (and whose they are)
    whose counter says that they may repeat. Counters are of two bits, up to 2. Returns how many pairs there are."""
    groups = filled.shape[1]
    pair, who = np.empty(0 if mark else _ROOM, np.uint64), np.empty(0 if mark else _ROOM, np.int32)
    mask = np.uint64(4 * len(counters) - 1)
    total, kept = 0, 0
    for person in range(len(whose)):
        at = begins[person]
        for g in range(groups):
            others = at + filled[person, g]
            for h in range(g + 1, groups):
                until = others + filled[person, h]
                for i in range(at, at + filled[person, g]):
                    for j in range(others, until):
                        one, other = held[i], held[j]
                        if not (attested[one] or attested[other]):
                            continue
                        total += 1
                        made = (np.uint64(one) << np.uint64(32)) | np.uint64(other)
                        spot = ((made * _MIX) >> np.uint64(30)) & mask
                        byte, bit = spot >> np.uint64(2), np.uint8(2) * np.uint8(spot & np.uint64(3))
                        count = (counters[byte] >> bit) & np.uint8(3)
                        if mark:
                            if count < 2:
                                counters[byte] += np.uint8(1) << bit
                        elif count >= 2:
                            if kept == len(pair):
                                pair, who = _longer(pair, who)
                            pair[kept] = made
                            who[kept] = whose[person]
                            kept += 1
                others = until
            at += filled[person, g]
    return total, pair[:kept].copy(), who[:kept].copy()


@njit
def _longer(pair: U64, who: I32) -> tuple[U64, I32]:
    n = len(pair)
    more, whose = np.empty(2 * n, np.uint64), np.empty(2 * n, np.int32)
    more[:n] = pair
    whose[:n] = who
    return more, whose


def repeated_pairs(
    account: I32, key: I32, df: I64, group: I64, attested: npt.NDArray[np.bool_], groups: int = len(GROUPS)
) -> tuple[U64, I32, int]:
    """(pair, account) of all pairs that more than one account may hold, and how many pairs were left out as single.

    Links must be sorted by account. A pair is ``key << 32 | key``, the smaller group first.
    """
    chosen = _rarest(account, key, df, group, groups)
    counters = np.zeros(1 << table_bits(_PAIRS_A_LINK * len(account)) >> 2, np.uint8)
    total, _, _ = _visit(True, *chosen, attested, counters)
    _, pair, who = _visit(False, *chosen, attested, counters)
    return pair, who, total - len(pair)


@warmup
def _warm() -> None:
    one = np.zeros(1, np.int64)
    ids, _ = number(np.zeros(1, np.uint64), np.zeros(1, np.uint64), 4)
    counted(ids, 1, np.zeros(1, np.int32))
    wide, narrow = np.zeros((1, 2), np.int64), np.zeros((1, 1), np.int32)
    folded(ids, 1, wide, wide, np.zeros(1, np.uint64), np.zeros(1, np.uint64), wide, narrow)
    merged(ids, 1, one, np.zeros(1, np.int32), np.zeros(1, np.int32))
    row = np.zeros(1, np.int32)
    ordered(row, row, 1, 1)
    repeated_pairs(row, row, np.full(1, 3), one, np.ones(1, np.bool_))
