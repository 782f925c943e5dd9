"""Compiled loops over pairs of an account's rarest values: which pairs more accounts hold than chance explains.

One value after another, the values beside it are counted in its holders: an array of one counter a value is all the
memory that takes, and a pair is known in full before the next value is looked at. A table of all pairs (25 an account
with ten links) was half of a rebuild's time, and its rows the larger part of its memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.campaigns.kernels import I32, I64, U8, U64
from monitor.campaigns.kinds import GROUPS
from monitor.jit import njit, sealed, warmup

A_GROUP = np.array([8 if name == "template" else 3 for name in GROUPS], np.int64)
"""Values of a group that an account brings into pairs, the rarest ones: the number of pairs stays linear."""
_MOST = int(A_GROUP.max())
_ATTESTED, _GROUP = 128, 127
"""Bits of a key's code: whether it is attested, and its group."""
_ROOM = 1 << 12
"""Pairs for which there is room at first."""
_SLACK = 0.01
"""Bits by which a pair may miss what is asked: it is weighed again, and differently rounded, by whoever asked."""
EVERY = -1.0
"""``bits`` that every pair has."""


@njit
def _rarest(account: I32, key: I32, df: I64, code: U8) -> tuple[I32, I32, I32]:
    """The ``A_GROUP`` rarest keys of each group of each account, one account after another, by group; the last of each
    account as ``~key``; where each account's begin, and whose they are. ``account`` must be sorted."""
    n = len(account)
    people = 0
    for i in range(n):
        people += i == 0 or account[i] != account[i - 1]
    held = np.empty(n, np.int32)
    begins, whose = np.zeros(people + 1, np.int32), np.empty(people, np.int32)
    groups = len(A_GROUP)
    chosen, filled = np.zeros((groups, _MOST), np.int64), np.zeros(groups, np.int64)
    total, start, person = 0, 0, 0
    for end in range(1, n + 1):
        if end < n and account[end] == account[start]:
            continue
        filled[:] = 0
        for i in range(start, end):
            k = key[i]
            g = code[k] & _GROUP
            most, f = A_GROUP[g], filled[g]
            # insertion by (df, key): few values, and the order must not depend on anything else
            j = f
            while j > 0 and (df[chosen[g, j - 1]] > df[k] or (df[chosen[g, j - 1]] == df[k] and chosen[g, j - 1] > k)):
                if j < most:
                    chosen[g, j] = chosen[g, j - 1]
                j -= 1
            if j < most:
                chosen[g, j] = k
                filled[g] = min(f + 1, most)
        for g in range(groups):
            for j in range(filled[g]):
                held[total] = chosen[g, j]
                total += 1
        held[total - 1] = ~held[total - 1]
        whose[person] = account[start]
        person += 1
        begins[person] = total
        start = end
    return held[:total], begins, whose


@njit
def _places(held: I32, keys: int) -> tuple[I32, I32]:
    """Where each key stands in ``held``: places one key after another, and where each key's begin [keys + 1]."""
    begin = np.zeros(keys + 1, np.int32)
    for h in held:
        begin[max(h, ~h) + 1] += 1
    for k in range(keys):
        begin[k + 1] += begin[k]
    place, at = np.empty(len(held), np.int32), begin[:-1].copy()
    for i in range(len(held)):
        k = max(held[i], ~held[i])
        place[at[k]] = i
        at[k] += 1
    return place, begin


@njit
def _counted(
    held: I32, begins: I32, whose: I32, place: I32, begin: I32, df: I64, code: U8, least: int, tenants: int, bits: float
) -> tuple[U64, I32, int]:
    """(pair, account) of the pairs asked for; how many different pairs there are."""
    keys = len(df)
    count, touched = np.zeros(keys, np.int32), np.empty(keys, np.int32)
    pair, who, kept, different = np.empty(_ROOM, np.uint64), np.empty(_ROOM, np.int32), 0, 0
    last_attested = -1
    for k in range(keys):
        if code[k] & _ATTESTED:
            last_attested = max(last_attested, code[k] & _GROUP)
    for k in range(keys):
        group, attested = code[k] & _GROUP, (code[k] & _ATTESTED) != 0
        if not attested and group >= last_attested:
            continue
        n = 0
        for p in range(begin[k], begin[k + 1]):
            j = place[p]
            while held[j] >= 0:
                j += 1
                other = max(held[j], ~held[j])
                c = code[other]
                if (c & _GROUP) > group and (attested or (c & _ATTESTED) != 0):
                    if count[other] == 0:
                        touched[n] = other
                        n += 1
                    count[other] += 1
        different += n
        asked = bits + np.log2(different) - _SLACK if bits >= 0.0 and different else -1.0
        several = False
        for t in range(n):
            other = touched[t]
            enough = count[other] >= least and (
                bits < 0.0 or _surprise(count[other], df[k] * df[other] / tenants) >= asked
            )
            several |= enough
            if not enough:
                count[other] = 0
        if not several:
            continue
        for p in range(begin[k], begin[k + 1]):
            j = place[p]
            while held[j] >= 0:
                j += 1
                other = max(held[j], ~held[j])
                if count[other] > 0:
                    if kept == len(pair):
                        pair, who = _longer(pair, who)
                    pair[kept] = (np.uint64(k) << np.uint64(32)) | np.uint64(other)
                    who[kept] = whose[np.searchsorted(begins, j, side="right") - 1]
                    kept += 1
        for t in range(n):
            count[touched[t]] = 0
    return pair[:kept].copy(), who[:kept].copy(), different


@njit
def _surprise(held: int, expected: float) -> float:
    """Bits of surprise, as ``graph.surprise`` has them."""
    if held <= expected:
        return 0.0
    return float(held * np.log2(held / max(expected, 1e-12)) - (held - expected) * 1.4426950408889634)


@njit
def _longer(pair: U64, who: I32) -> tuple[U64, I32]:
    n = len(pair)
    more, whose = np.empty(2 * n, np.uint64), np.empty(2 * n, np.int32)
    more[:n] = pair
    whose[:n] = who
    return more, whose


def repeated_pairs(
    account: I32, key: I32, df: I64, group: I64, attested: npt.NDArray[np.bool_], least: int, tenants: int, bits: float
) -> tuple[U64, I32, int]:
    """(pair, account) of the pairs that ``least`` accounts hold and that, if each were a tenant, would surprise by
    ``bits`` and the logarithm of the pairs looked at (:data:`EVERY`: by anything); how many pairs there are in all.

    Pairs are of two groups, one key attested: ``key << 32 | key``, the smaller group first. Links must be sorted by
    account; ``df``, ``group`` and ``attested`` are by key.
    """
    code = (group + attested * _ATTESTED).astype(np.uint8)
    held, begins, whose = _rarest(sealed(account), sealed(key), sealed(df), sealed(code))
    place, begin = _places(held, len(df))
    pair, who, different = _counted(
        held, begins, whose, place, begin, sealed(df), sealed(code), least, tenants, float(bits)
    )
    return pair, who, different


@warmup
def _warm() -> None:
    row = np.zeros(1, np.int32)
    repeated_pairs(row, row, np.full(1, 3), np.zeros(1, np.int64), np.ones(1, np.bool_), 2, 1, EVERY)
