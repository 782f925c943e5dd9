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
_WANTED = np.int32(-1)
"""Count of a key whose pair with the one that is looked at is asked for."""
_AHEAD = 5
"""Accounts whose keys are asked for before their turn: where one account's end tells the next, memory is waited for."""
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
        # most accounts bring few enough of each group, by group already: those are taken as they stand
        plain, last, run = True, np.int64(-1), 0
        for i in range(start, end):
            group = np.int64(code[key[i]] & _GROUP)
            run = run + 1 if group == last else 1
            plain = plain and bool(group >= last) and bool(run <= A_GROUP[group])
            last = group
            held[total + i - start] = key[i]
        if plain:
            total += end - start
        else:
            filled[:] = 0
            for i in range(start, end):
                k = key[i]
                g = code[k] & _GROUP
                most, f = A_GROUP[g], filled[g]
                # insertion by (df, key): few values, and which are left out must not depend on anything else
                j = f
                while j > 0 and (
                    df[chosen[g, j - 1]] > df[k] or (df[chosen[g, j - 1]] == df[k] and chosen[g, j - 1] > k)
                ):
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
def _places(held: I32, code: U8) -> tuple[I32, I32]:
    """Where, in each account of a key, what stands behind its group begins: places in ``held``, one key after another,
    for the keys that come first in a pair; and where each key's begin [keys + 1]."""
    keys = len(code)
    attested = np.int64(-1)
    for k in range(keys):
        if code[k] & _ATTESTED:
            attested = max(attested, np.int64(code[k] & _GROUP))
    begin, behind = np.zeros(keys + 1, np.int32), np.empty(len(held), np.int32)
    after, group = -1, np.int64(-1)
    for i in range(len(held) - 1, -1, -1):
        k = max(held[i], ~held[i])
        g = np.int64(code[k] & _GROUP)
        if held[i] < 0:
            after = -1
        elif g != group:
            after = i + 1
        group = g
        # behind what the client chooses, from the last attested group on, stands nothing attested
        behind[i] = after if (code[k] & _ATTESTED) or g < attested else -1
        begin[k + 1] += behind[i] >= 0
    for k in range(keys):
        begin[k + 1] += begin[k]
    place, at = np.empty(begin[keys], np.int32), begin[:-1].copy()
    for i in range(len(held)):
        if behind[i] >= 0:
            k = max(held[i], ~held[i])
            place[at[k]] = behind[i]
            at[k] += 1
    return place, begin


@njit
def _counted(
    held: I32, begins: I32, whose: I32, place: I32, begin: I32, df: I64, code: U8, least: int, tenants: int, bits: float
) -> tuple[U64, I32, int]:
    """(pair, account) of the pairs asked for; how many different pairs there are.

    ``count`` is never cleared, as most pairs are held once and clearing them took as long as counting: what it says up
    to ``base`` is of an earlier key.
    """
    keys = len(df)
    count, often = np.zeros(keys, np.int32), np.empty(keys, np.int32)
    pair, who, kept, different = np.empty(_ROOM, np.uint64), np.empty(_ROOM, np.int32), 0, 0
    base, ahead = 0, np.int32(0)
    for k in range(keys):
        attested = (code[k] & _ATTESTED) != 0
        n, enough, stop = 0, base + least, begin[k + 1]
        for p in range(begin[k], stop):
            j = place[p]
            ahead ^= held[place[min(p + _AHEAD, stop - 1)]]
            while True:
                h = held[j]
                other = max(h, ~h)
                if attested or (code[other] & _ATTESTED) != 0:
                    c = max(count[other], base) + 1
                    count[other] = c
                    different += c == base + 1
                    if c == enough:
                        often[n] = other
                        n += 1
                if h < 0:
                    break
                j += 1
        asked = bits + np.log2(different) - _SLACK if bits >= 0.0 and different else -1.0
        several = 0
        for t in range(n):
            other = often[t]
            if bits < 0.0 or _surprise(count[other] - base, df[k] * df[other] / tenants) >= asked:
                often[several] = other
                count[other] = _WANTED
                several += 1
        base += begin[k + 1] - begin[k]
        if not several:
            continue
        for p in range(begin[k], begin[k + 1]):
            j = place[p]
            while True:
                h = held[j]
                other = max(h, ~h)
                if count[other] == _WANTED:
                    if kept == len(pair):
                        pair, who = _longer(pair, who)
                    pair[kept] = (np.uint64(k) << np.uint64(32)) | np.uint64(other)
                    who[kept] = whose[np.searchsorted(begins, j, side="right") - 1]
                    kept += 1
                if h < 0:
                    break
                j += 1
        for t in range(several):
            count[often[t]] = 0
    if keys:
        often[0] = ahead  # or the compiler leaves those reads out
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
    place, begin = _places(held, sealed(code))
    pair, who, different = _counted(
        held, begins, whose, place, begin, sealed(df), sealed(code), least, tenants, float(bits)
    )
    return pair, who, different


@warmup
def _warm() -> None:
    row = np.zeros(1, np.int32)
    repeated_pairs(row, row, np.full(1, 3), np.zeros(1, np.int64), np.ones(1, np.bool_), 2, 1, EVERY)
