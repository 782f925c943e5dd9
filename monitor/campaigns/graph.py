"""Which accounts belong together: pairs of links that too many accounts share, and their connected components.

One shared value says little: a million ordinary accounts with ten links each form one component. So an edge needs
two values at once, of two different groups of kinds, one of them attested by the provider, that more unrelated
tenants share than chance explains. Chance is independence of the two: ``expected = df1 * df2 / N``. The surprise is
Dunning's (1993) log-likelihood ratio for Poisson counts, ``G = m log2(m / expected) - (m - expected) log2 e`` bits,
and it must pass ``log2(pairs looked at) + margin``: looking at more pairs asks for more surprise. A vendor's prompt
in 10,000 accounts, a firm's address or a regional VPN has nothing beside it that is not as common as the two make it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from monitor.campaigns.kinds import GROUPS, KINDS
from monitor.jit import njit, warmup

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

A_GROUP = 3
"""Values of a group that an account brings into pairs, the rarest ones: the number of pairs stays linear."""
LEAST_SHARED = 3
"""Unrelated tenants that must share a pair. Two are a household, or a person with two accounts."""
_LOG2E = 1.4426950408889634
_GROUP = np.array([kind.group_code for kind in KINDS], np.int64)
_ATTESTED = np.array([kind.attested for kind in KINDS], np.bool_)
_EXACT = np.array([kind.family == "replay" for kind in KINDS], np.bool_)


@dataclass(frozen=True, slots=True)
class Shared:
    """Values that at least ``LEAST_SHARED`` tenants share, as links of accounts: parallel arrays sorted by account.

    ``key`` numbers a (kind, value); ``df`` [keys] counts tenants, ``kind`` and ``value`` [keys] say what it is.
    ``rows`` are the same links as a frame: account, key, kind, df, tenant, count, first.
    """

    rows: pl.DataFrame
    account: I64
    key: I64
    kind: I64
    value: U64
    df: I64
    tenants: int


@dataclass(frozen=True, slots=True)
class Components:
    """``label`` [accounts]: the component, -1 for none; ``pairs`` significant pairs, ``looked_at`` pairs in all,
    ``threshold`` bits."""

    label: I64
    count: int
    pairs: int
    looked_at: int
    threshold: float


def shared_values(links: pl.DataFrame, tenant: I32, most: float = 0.5) -> Shared:
    """Links of values held by at least three tenants and by at most the share ``most`` of all tenants."""
    tenants = len(np.unique(tenant))
    # Nine in ten values are held by one account alone: they go before anything is counted by tenant.
    held = links.lazy().group_by("kind", "value").agg(n=pl.len()).filter(pl.col("n") >= 2).select("kind", "value")
    common = links.join(held.collect(engine="in-memory"), on=["kind", "value"], how="semi")
    whose = common.with_columns(tenant=pl.Series(tenant).gather(common["account"]))
    df = whose.lazy().group_by("kind", "value").agg(df=pl.col("tenant").n_unique().cast(pl.Int64))
    exact = [code for code, kind in enumerate(KINDS) if kind.family == "replay"]
    least = pl.when(pl.col("kind").is_in(exact)).then(2).otherwise(LEAST_SHARED)
    keys = df.filter((pl.col("df") >= least) & (pl.col("df") <= max(most * tenants, LEAST_SHARED)))
    table = keys.sort("kind", "value").with_row_index("key").collect(engine="in-memory")
    rows = (
        whose.join(table, on=["kind", "value"], how="inner")
        .sort("account", "key").select("account", "key", "kind", "df", "tenant", "count", "first")
    )  # fmt: skip
    return Shared(
        rows, rows["account"].to_numpy().astype(np.int64), rows["key"].to_numpy().astype(np.int64),
        table["kind"].to_numpy().astype(np.int64), table["value"].to_numpy(), table["df"].to_numpy().astype(np.int64),
        tenants,
    )  # fmt: skip


def components(shared: Shared, tenant: I32, accounts: int, margin_bits: float) -> Components:
    """Connected components over the significant pairs, and over values that are exact by themselves."""
    who, node, pairs, looked_at, threshold = _significant(shared, tenant, margin_bits)
    # An opaque blob that two tenants send back needs no second witness: each was given to one conversation.
    exact = np.flatnonzero(_EXACT[shared.kind[shared.key]])
    who = np.concatenate([who, shared.account[exact]])
    node = np.concatenate([node, pairs + shared.key[exact]])
    label = np.full(accounts, -1, np.int64)
    if not len(who):
        return Components(label, 0, pairs, looked_at, threshold)
    size = accounts + pairs + len(shared.df)
    graph = coo_array((np.ones(len(who), np.int8), (who, accounts + node)), shape=(size, size))
    _, found = connected_components(graph, directed=False)
    linked = np.unique(who)
    names, renamed = np.unique(found[linked], return_inverse=True)
    label[linked] = renamed
    return Components(label, len(names), pairs, looked_at, threshold)


def _significant(shared: Shared, tenant: I32, margin_bits: float) -> tuple[I64, I64, int, int, float]:
    """(account, pair) of each significant pair's holders, pairs numbered from 0; how many; how many looked at; bits."""
    none = np.zeros(0, np.int64)
    pair, who, expected = pairs_of(shared.account, shared.key, shared.df, shared.kind, shared.tenants)
    if not len(pair):
        return none, none, 0, 0, margin_bits
    order = np.lexsort((tenant[who], pair))
    pair, who, expected = pair[order], who[order], expected[order]
    begins = np.append(True, pair[1:] != pair[:-1])
    first = np.flatnonzero(begins)
    new_tenant = begins | np.append(True, tenant[who[1:]] != tenant[who[:-1]])
    held = np.add.reduceat(new_tenant.astype(np.int64), first).astype(np.float64)
    threshold = float(np.log2(len(first))) + margin_bits
    good = (held >= LEAST_SHARED) & (surprise(held, expected[first]) >= threshold)
    number = np.cumsum(begins) - 1
    edge = good[number]
    return who[edge], (np.cumsum(good) - 1)[number[edge]], int(good.sum()), len(first), threshold


def surprise(held: F64, expected: F64) -> F64:
    """Bits of surprise that ``held`` tenants share what ``expected`` would by chance; 0 where no more do."""
    expected = np.maximum(expected, 1e-12)
    bits = held * np.log2(np.maximum(held, 1e-12) / expected) - (held - expected) * _LOG2E
    return np.asarray(np.where(held > expected, bits, 0.0))


def pairs_of(account: I64, key: I64, df: I64, kind: I64, tenants: int) -> tuple[U64, I64, F64]:
    """Pairs of links of two groups, one attested, that each account holds: pair, account, and what chance gives.

    ``account`` (sorted) and ``key`` are links; ``df`` [keys] counts a link's tenants, ``kind`` [keys] is its kind.
    Of each group an account brings its ``A_GROUP`` rarest.
    """
    return _pairs(account, key, df, _GROUP[kind], _ATTESTED[kind], tenants, len(GROUPS))


def _pairs(
    account: I64, key: I64, df: I64, group: I64, attested: npt.NDArray[np.bool_], tenants: int, groups: int
) -> tuple[U64, I64, F64]:
    size = _count_pairs(account, key, df, group, attested, groups)
    pair, who, expected = np.zeros(size, np.uint64), np.zeros(size, np.int64), np.zeros(size, np.float64)
    _write_pairs(account, key, df, group, attested, tenants, groups, pair, who, expected)
    return pair, who, expected


@njit
def _rarest(start: int, end: int, key: I64, df: I64, group: I64, chosen: I64, filled: I64) -> None:
    """The ``A_GROUP`` rarest keys of each group among links [start, end), into ``chosen`` [groups, A_GROUP]."""
    filled[:] = 0
    for i in range(start, end):
        k = key[i]
        g = group[k]
        n = filled[g]
        # insertion by (df, key): few values, and the order must not depend on anything else
        j = n if n < A_GROUP else A_GROUP
        while j > 0 and (df[chosen[g, j - 1]] > df[k] or (df[chosen[g, j - 1]] == df[k] and chosen[g, j - 1] > k)):
            if j < A_GROUP:
                chosen[g, j] = chosen[g, j - 1]
            j -= 1
        if j < A_GROUP:
            chosen[g, j] = k
            if n < A_GROUP:
                filled[g] = n + 1


@njit
def _count_pairs(account: I64, key: I64, df: I64, group: I64, attested: npt.NDArray[np.bool_], groups: int) -> int:
    chosen, filled = np.zeros((groups, A_GROUP), np.int64), np.zeros(groups, np.int64)
    total, start, n = 0, 0, len(account)
    for end in range(1, n + 1):
        if end < n and account[end] == account[start]:
            continue
        _rarest(start, end, key, df, group, chosen, filled)
        for g in range(groups):
            for h in range(g + 1, groups):
                for i in range(filled[g]):
                    for j in range(filled[h]):
                        if attested[chosen[g, i]] or attested[chosen[h, j]]:
                            total += 1
        start = end
    return total


@njit
def _write_pairs(
    account: I64, key: I64, df: I64, group: I64, attested: npt.NDArray[np.bool_], tenants: int, groups: int, pair: U64,
    who: I64, expected: F64,
) -> None:  # fmt: skip
    chosen, filled = np.zeros((groups, A_GROUP), np.int64), np.zeros(groups, np.int64)
    at, start, n = 0, 0, len(account)
    for end in range(1, n + 1):
        if end < n and account[end] == account[start]:
            continue
        _rarest(start, end, key, df, group, chosen, filled)
        for g in range(groups):
            for h in range(g + 1, groups):
                for i in range(filled[g]):
                    for j in range(filled[h]):
                        one, other = chosen[g, i], chosen[h, j]
                        if attested[one] or attested[other]:
                            pair[at] = (np.uint64(one) << np.uint64(32)) | np.uint64(other)
                            who[at] = account[start]
                            expected[at] = float(df[one]) * float(df[other]) / tenants
                            at += 1
        start = end


@warmup
def _warm() -> None:
    one = np.zeros(1, np.int64)
    _pairs(one, one, np.full(1, 3), one, np.ones(1, np.bool_), 3, len(GROUPS))
