"""Compiled loops over pairs of an account's rarest values: which pairs more accounts hold than chance explains.

One value after another, the values beside it are counted in its holders: an array of one counter a value is all the
memory that takes, and a pair is known in full before the next value is looked at. A table of all pairs (25 an account
with ten links) was half of a rebuild's time, and its rows the larger part of its memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.campaigns.fetching import ask, room
from monitor.campaigns.kernels import I32, I64, U8, U64
from monitor.campaigns.kinds import GROUPS
from monitor.jit import njit, sealed, warmup

A_GROUP = np.array([8 if name == "template" else 3 for name in GROUPS], np.int64)
"""Values of a group that an account brings into pairs, the rarest ones: the number of pairs stays linear."""
_MOST = int(A_GROUP.max())
_ATTESTED, _FIRST, _GROUP = 128, 64, 63
"""Bits of a key's code: whether it is attested, whether it may come first in a pair, and its group."""
_WANTED = np.int32(-1)
"""Count of a key whose pair with the one that is looked at is asked for."""
_AHEAD, _LINE = 12, 8
"""Accounts whose keys are asked for before their turn, or half of the time goes into waiting for memory: from the first
key, and from so many on, as most of them lie across two lines of the processor's cache."""
_FURTHER = 64
"""Links whose keys' ends are asked for before their turn."""
_ROOM = 1 << 12
"""Pairs for which there is room at first."""
_SLACK = 0.01
"""Bits by which a pair may miss what is asked: it is weighed again, and differently rounded, by whoever asked."""
EVERY = -1.0
"""``bits`` that every pair has."""


@njit
def _beginnings(key: I32, code: U8, begin: I32) -> int:
    """Fill ``begin`` [keys + 1] with where the places of each key begin that may come first in a pair, one key after
    another, were each of its links brought; how many that is."""
    keys = len(code)
    begin[:] = 0
    for i in range(len(key)):
        begin[key[i] + 1] += code[key[i]] >= _FIRST
    for k in range(keys):
        begin[k + 1] += begin[k]
    return int(begin[keys])


@njit(makes_arrays=True)
def _brought(
    account: I32, key: I32, df: I64, code: U8, begin: I32, held: I32, begins: I32, whose: I32, place: I32, end: I32
) -> int:
    """Fill ``held`` with the ``A_GROUP`` rarest keys of each group of each account, one account after another, by
    group, the last of each account as ``~key``; ``begins`` and ``whose`` with where each account's begin, and whose
    they are. Fill ``place`` [begin[k], end[k]] with where, in each account of a key, what stands behind its group
    begins. ``account`` must be sorted. How many accounts there are."""
    n, groups = len(account), len(A_GROUP)
    chosen, filled = np.zeros((groups, _MOST), np.int64), np.zeros(groups, np.int64)
    end[:] = begin[:-1]
    total, start, person = 0, 0, 0
    begins[0] = 0
    for stop in range(1, n + 1):
        if stop < n and account[stop] == account[start]:
            continue
        # most accounts bring few enough of each group, by group already: those are taken as they stand
        first, plain = total, True
        behind, group = start, np.int64(code[key[start]] & _GROUP)
        for i in range(start, stop):
            k = key[i]
            held[total + i - start] = k
            ask(end, key[min(i + _FURTHER, n - 1)])
            now = np.int64(code[k] & _GROUP)
            if now != group:
                plain = plain and bool(now > group) and bool(i - behind <= A_GROUP[group])
                behind, group = i, now
        plain = plain and bool(stop - behind <= A_GROUP[group])
        if plain:
            total += stop - start
        else:
            filled[:] = 0
            for i in range(start, stop):
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
        behind, group = first, np.int64(code[held[first]] & _GROUP)
        for i in range(first + 1, total):
            now = np.int64(code[held[i]] & _GROUP)
            if now == group:
                continue
            for j in range(behind, i):
                k = held[j]
                if code[k] >= _FIRST:
                    place[end[k]] = i
                    end[k] += 1
            behind, group = i, now
        held[total - 1] = ~held[total - 1]
        whose[person] = account[start]
        person += 1
        begins[person] = total
        start = stop
    return person


@njit(makes_arrays=True)
def _counted(
    held: I32, begins: I32, whose: I32, place: I32, begin: I32, end: I32, df: I64, code: U8, count: I32, least: int,
    tenants: int, bits: float,
) -> tuple[U64, I32, int]:  # fmt: skip
    """(pair, account) of the pairs asked for; how many different pairs there are.

    ``count`` is never cleared, as most pairs are held once and clearing them took as long as counting: what it says up
    to ``base`` is of an earlier key.
    """
    keys, last = len(df), len(place) - 1
    often = np.empty(keys, np.int32)
    count[:] = 0
    pair, who, kept, different = np.empty(_ROOM, np.uint64), np.empty(_ROOM, np.int32), 0, 0
    base = 0
    for k in range(keys):
        attested = (code[k] & _ATTESTED) != 0
        n, enough = 0, base + least
        for p in range(begin[k], end[k]):
            j, later = place[p], place[min(p + _AHEAD, last)]
            ask(held, later)
            ask(held, later + _LINE)
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
        base += end[k] - begin[k]
        if not several:
            continue
        for p in range(begin[k], end[k]):
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
    return pair[:kept].copy(), who[:kept].copy(), different


@njit
def _surprise(held: int, expected: float) -> float:
    """Bits of surprise, as ``graph.surprise`` has them."""
    if held <= expected:
        return 0.0
    return float(held * np.log2(held / max(expected, 1e-12)) - (held - expected) * 1.4426950408889634)


@njit(makes_arrays=True)
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
    # behind what the client chooses, from the last attested group on, stands nothing attested
    first = attested | (group < group[attested].max(initial=-1))
    code = sealed((group + attested * _ATTESTED + first * _FIRST).astype(np.uint8))
    account, key, df = sealed(account), sealed(key), sealed(df)
    begin, end = room(len(df) + 1, np.int32), room(len(df), np.int32)
    place = room(_beginnings(key, code, begin), np.int32)
    held, begins, whose = (room(n, np.int32) for n in (len(key), len(key) + 1, len(key)))
    people = _brought(account, key, df, code, begin, held, begins, whose, place, end)
    count = room(len(df), np.int32)
    return _counted(held, begins[: people + 1], whose, place, begin, end, df, code, count, least, tenants, float(bits))


@warmup
def _warm() -> None:
    row = np.zeros(1, np.int32)
    repeated_pairs(row, row, np.full(1, 3), np.zeros(1, np.int64), np.ones(1, np.bool_), 2, 1, EVERY)
