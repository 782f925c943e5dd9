"""Compiled loops over the links of groups of accounts: which values each group holds, and by how many tenants.

One group after another and in each one tenant after another, so that a value needs to know only who had it last: tables
of (group, value) and of (group, value, tenant) were an eighth of the campaign steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.campaigns.kernels import I32, I64
from monitor.jit import njit, sealed, warmup


class Holdings(NamedTuple):
    """``ids``: a number for each (group, key), of each row of the accounts, one account after another. By number, a
    group's together: the ``key``, the ``group``, its tenants that have the key (``held``), its ``tenants`` that have
    any, and the ``requests``."""

    ids: I32
    key: I32
    group: I64
    held: I32
    tenants: I32
    requests: I64


def holdings(group: I64, begin: I64, size: I64, tenant: I32, key: I32, row: I32, count: I64, keys: int) -> Holdings:
    """What accounts, group by group, hold of so many ``keys``: the rows of ``key`` and ``row`` that are an account's
    are ``size`` from ``begin`` on; ``count`` is by ``row``."""
    order = np.argsort(group << 32 | tenant)  # any order of a tenant's accounts will do
    return Holdings(*_holdings(order, group, begin, size, tenant, sealed(key), sealed(row), sealed(count), keys))


@njit(makes_arrays=True)
def _holdings(
    order: I64, group: I64, begin: I64, size: I64, tenant: I32, key: I32, row: I32, count: I64, keys: int
) -> tuple[I32, I32, I64, I32, I32, I64]:  # fmt: skip
    n, accounts = size.sum(), len(size)
    at = np.cumsum(size) - size
    ids, what, whose = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int64)
    held, people, total = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int64)
    # of each key its number and the tenant that had it last
    last = np.full((keys, 2), -1, np.int32)
    numbers, first, tenants, before = 0, 0, 0, np.int64(-1)
    for o in range(accounts):
        a = order[o]
        if o and group[a] != group[order[o - 1]]:
            people[first:numbers] = tenants
            first, tenants, before = numbers, 0, np.int64(-1)
        if size[a]:
            tenants += tenant[a] != before
            before = np.int64(tenant[a])
        for j in range(begin[a], begin[a] + size[a]):
            k = key[j]
            c = last[k, 0]
            if c < first:  # of an earlier group
                c = numbers
                what[c], whose[c], held[c], total[c] = k, group[a], 0, 0
                last[k, 0], last[k, 1] = c, -1
                numbers += 1
            held[c] += last[k, 1] != tenant[a]
            last[k, 1] = tenant[a]
            total[c] += count[row[j]]
            ids[at[a] + j - begin[a]] = c
    people[first:numbers] = tenants
    return (ids, what[:numbers].copy(), whose[:numbers].copy(), held[:numbers].copy(), people[:numbers].copy(),
            total[:numbers].copy())  # fmt: skip


@njit(makes_arrays=True)
def placed(ids: I32, place: I64, begin: I64, size: I64) -> tuple[I64, I64, I64]:
    """Of the rows whose number has a ``place`` (not -1): which account's each is, the row, the place."""
    n = len(ids)
    whose, row, at = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    i, found = 0, 0
    for a in range(len(size)):
        for j in range(begin[a], begin[a] + size[a]):
            # written in any case, and over again by the next: which of them have none no branch can foresee
            whose[found], row[found], at[found] = a, j, place[ids[i]]
            found += at[found] >= 0
            i += 1
    return whose[:found].copy(), row[:found].copy(), at[:found].copy()


@warmup
def _warm() -> None:
    row, none = np.zeros(1, np.int32), np.zeros(1, np.int64)
    found = holdings(none, none, none + 1, row, row, row, none, 1)
    placed(found.ids, none, none, none + 1)
