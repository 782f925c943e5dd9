"""Two campaigns that chance tied into one component: such a component has a waist, and is cut there.

A pair of values that one campaign shares may be held by a few accounts of another. In one simulated world 4 of 45
accounts had the operator and the half-day of creation that 14 of another campaign's 45 shared: one pair in 40, and both
were one campaign. So a component is cut where hardly anything crosses: the *conductance* of a cut is the share of steps
of a random walk (from an account to one of its pairs, from there to one of its holders, each drawn evenly) that cross
it, on the side that has fewer links. The walk's second eigenvector orders the accounts, and the best cut of this order
is looked at (a sweep), then each part anew (Kannan, Vempala and Vetta 2004, "On clusterings: good, bad and spectral").
By Cheeger's inequality no cut is under ``(1 - second eigenvalue) / 2``, so most components are settled without one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.campaigns.kernels import I32, I64
from monitor.jit import njit, sealed, warmup

F64 = npt.NDArray[np.float64]

MOST = 0.05
"""Conductance up to which a component is cut. In the worlds of seeds 81 and 84, over 2,700 components of rebuilds, it
was 0.006 to 0.033 between two campaigns and 0.10 at least within one (two cells of `P2`; 0.16 of all others)."""
LEAST = 3
"""Tenants on either side."""
_ROUNDS = 96
"""Steps of the walk. An eigenvalue of 0.97 beside others of 0.9 stands out by 10,000 after them."""
_SETTLED = 1e-5
"""Growth of the estimated eigenvalue in a step, after the sixteenth, from which on it is taken to be found."""
_MIX, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(40)


def parted(label: I64, count: int, who: I32, node: I64, tenant: I32) -> tuple[I64, int]:
    """Components with those cut that have a waist: the new ``label`` [accounts], -1 for none, and how many there are.

    ``label`` and ``count`` are the components of the graph in which each account ``who`` [links] holds the pair
    ``node`` [links]; ``tenant`` [accounts] is whose each account is. What is cut off gets a number from ``count`` on.
    """
    label = label.copy()
    asked = np.bincount(label[label >= 0], minlength=count) >= 2 * LEAST
    while asked.any():
        mine = np.flatnonzero(asked[label[who]])
        part = label[who[mine]]
        # a pair that is held on one side of an earlier cut alone says nothing of the other
        held = part * (int(node[mine].max()) + 1) + node[mine]
        _, pair, holders = np.unique(held, return_inverse=True, return_counts=True)
        shared = holders[pair] > 1
        order = np.lexsort((pair[shared], who[mine][shared], part[shared]))
        whose, pair = who[mine][shared][order], pair[shared][order]
        first = np.flatnonzero(np.append(True, whose[1:] != whose[:-1])) if len(whose) else np.zeros(0, np.int64)
        account = whose[first]
        begins = np.flatnonzero(np.append(True, np.diff(label[account]) != 0)) if len(account) else first
        side = _sides(
            np.append(begins, len(account)), np.append(first, len(whose)), sealed(pair.astype(np.int64)),
            sealed(holders.astype(np.float64)), sealed(account.astype(np.int64)), sealed(tenant[account]),
        )  # fmt: skip
        cut = account[side]
        old, new = np.unique(label[cut], return_inverse=True)
        label[cut] = count + new
        count += len(old)
        asked = np.zeros(count, np.bool_)
        asked[old] = asked[count - len(old) :] = True
        asked &= np.bincount(label[label >= 0], minlength=count) >= 2 * LEAST
    return label, count


@njit(makes_arrays=True)
def _sides(begins: I64, first: I64, pair: I64, holders: F64, account: I64, tenant: I32) -> npt.NDArray[np.bool_]:
    """Which accounts are to be cut off: of each component [begins[c], begins[c + 1]) one side of its best cut, or none.

    ``first`` [accounts + 1] is where an account's links begin, ``pair`` [links] what each is to, ``holders`` [pairs].
    """
    out = np.zeros(len(account), np.bool_)
    at, crossed = np.zeros(len(holders)), np.zeros(len(holders))
    for c in range(len(begins) - 1):
        low, high = begins[c], begins[c + 1]
        if high - low < 2 * LEAST:
            continue
        worth = np.empty(high - low)
        if _walked(low, first[low : high + 1], pair, holders, account, at, worth) < 1.0 - 2.0 * MOST:
            continue
        order = np.argsort(worth, kind="mergesort")
        size = _best(order + low, first, pair, holders, tenant, crossed)
        for i in range(size):
            out[low + order[i]] = True
    return out


@njit
def _walked(low: int, first: I64, pair: I64, holders: F64, account: I64, at: F64, worth: F64) -> float:
    """Fill ``worth`` [accounts of a component, from ``low`` on] with the walk's second eigenvector; the eigenvalue, or
    a little less. ``at`` [pairs] is room."""
    n, value = len(worth), 0.0
    links = float(first[n] - first[0])
    for i in range(n):  # a beginning that depends on nothing but whose rows these are
        mixed = np.uint64(account[low + i] + 1) * _MIX
        worth[i] = np.float64(np.int64(mixed >> _SHIFT)) / 2.0**24 - 0.5
    for turn in range(_ROUNDS):
        mean, square, before = 0.0, 0.0, value
        for i in range(n):
            mean += worth[i] * (first[i + 1] - first[i])
        mean /= links
        for i in range(n):
            worth[i] -= mean
            square += worth[i] * worth[i] * (first[i + 1] - first[i])
        # how much is left of what was 1 before the step: no more than the eigenvalue
        value = np.sqrt(square)
        if value == 0.0:
            return 0.0
        for i in range(n):
            worth[i] /= value
        if turn > 16 and value - before < _SETTLED:
            break
        for e in range(first[0], first[n]):
            at[pair[e]] = 0.0
        for i in range(n):
            for e in range(first[i], first[i + 1]):
                at[pair[e]] += worth[i]
        for i in range(n):
            total = 0.0
            for e in range(first[i], first[i + 1]):
                total += at[pair[e]] / holders[pair[e]]
            worth[i] = total / (first[i + 1] - first[i])
    return float(value)


@njit
def _best(order: I64, first: I64, pair: I64, holders: F64, tenant: I32, crossed: F64) -> int:
    """How many of a component's accounts, in ``order``, the best cut takes; 0 where none is narrow enough.
    ``crossed`` [pairs] is room, all 0."""
    n = len(order)
    least, most = _reached(order, tenant, 1), n - _reached(order, tenant, -1)
    links = 0.0
    for i in order:
        links += first[i + 1] - first[i]
    crossing, taken, size, best = 0.0, 0.0, 0, MOST
    for k in range(n):
        i = order[k]
        for e in range(first[i], first[i + 1]):
            p = pair[e]
            held = holders[p]
            crossing += (held - 2.0 * crossed[p] - 1.0) / held
            crossed[p] += 1.0
        taken += first[i + 1] - first[i]
        if least <= k + 1 <= most and crossing <= best * min(taken, links - taken):
            best, size = crossing / min(taken, links - taken), k + 1
    for i in order:
        for e in range(first[i], first[i + 1]):
            crossed[pair[e]] = 0.0
    return size


@njit
def _reached(order: I64, tenant: I32, way: int) -> int:
    """How many accounts, from the one end or (``way`` -1) the other, it takes to have ``LEAST`` tenants."""
    n, seen = len(order), 0
    one, other = -1, -1
    for k in range(n):
        t = tenant[order[k if way > 0 else n - 1 - k]]
        if t != one and t != other:
            one, other, seen = other, t, seen + 1
            if seen == LEAST:
                return k + 1
    return n


@warmup
def _warm() -> None:
    row = np.arange(6, dtype=np.int32)
    parted(np.zeros(6, np.int64), 1, np.repeat(row, 2), np.tile(np.arange(2), 6), row)
