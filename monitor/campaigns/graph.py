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
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from monitor.campaigns.kernels import I32, I64, U8, U64, number, repeats, table_bits
from monitor.campaigns.kinds import ATTESTED, EXACT, GROUP_OF
from monitor.campaigns.links import chosen, followed
from monitor.campaigns.numbering import Numbers
from monitor.campaigns.pairs import EVERY, repeated_pairs
from monitor.campaigns.waist import parted
from monitor.jit import sealed

F64 = npt.NDArray[np.float64]

LEAST_SHARED = 3
"""Unrelated tenants that must share a pair. Two are a household, or a person with two accounts."""
_LOW = np.uint64(0xFFFFFFFF)
_LOG2E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class Shared:
    """Values that at least ``LEAST_SHARED`` tenants share, as links of accounts: parallel arrays sorted by account and
    key.

    ``key`` numbers a (kind, value), in their order; ``df`` [keys] counts tenants, ``kind`` and ``value`` [keys] say
    what it is. ``tenant`` [accounts] is whose each account is. ``row`` is where a link stands in ``links``, which has
    ``count`` and ``first``.
    """

    account: I32
    key: I32
    row: I32
    kind: I64
    value: U64
    df: I64
    tenant: I32
    tenants: int
    links: pl.DataFrame

    def rows_of(self, asked: npt.NDArray[np.bool_]) -> I64:
        """Rows of the links to the keys ``asked`` [keys] for, in order."""
        return chosen(sealed(self.key), sealed(asked)) if asked.any() else np.zeros(0, np.int64)

    def of(self, accounts: npt.NDArray[np.integer[Any]]) -> pl.DataFrame:
        """Links of some accounts, in order: account, key, kind, df, tenant, count, first."""
        who = np.unique(accounts).astype(np.int32)
        begin, end = np.searchsorted(self.account, who), np.searchsorted(self.account, who, side="right")
        size = end - begin
        at = np.repeat(begin - np.append(0, np.cumsum(size)[:-1]), size) + np.arange(size.sum())
        account, key, row = self.account[at], self.key[at], self.row[at]
        return pl.DataFrame(
            {
                "account": account.astype(np.uint32), "key": key.astype(np.uint32),
                "kind": self.kind[key].astype(np.uint8), "df": self.df[key], "tenant": self.tenant[account],
                "count": self.links["count"].to_numpy()[row], "first": self.links["first"].to_numpy()[row],
            }
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Components:
    """``label`` [accounts]: the component, -1 for none; ``pairs`` significant pairs, ``looked_at`` pairs in all,
    ``threshold`` bits."""

    label: I64
    count: int
    pairs: int
    looked_at: int
    threshold: float


def shared_values(links: pl.DataFrame, tenant: I32, most: float = 0.5, numbers: Numbers | None = None) -> Shared:
    """Links of values held by at least three tenants and by at most the share ``most`` of all tenants.

    ``links`` holds an account, kind and value once, in this order: account, kind, value, count, first. ``numbers``
    are those of its values, where they are known already.
    """
    tenants = int((np.bincount(tenant) > 0).sum())
    account = links["account"].to_numpy().view(np.int32)
    known = numbers or Numbers.of(links)
    kind, value = known.kind, known.value
    held = _holders(known.ids, account, tenant, known.rows)
    least = np.where(EXACT[kind], 2, LEAST_SHARED)
    kept = _ordered(np.flatnonzero((held >= least) & (held <= max(most * tenants, LEAST_SHARED))), kind, value)
    key_of = np.full(len(value), -1, np.int32)
    key_of[kept] = np.arange(len(kept), dtype=np.int32)
    return Shared(*followed(sealed(known.ids), key_of, sealed(account)), kind[kept].astype(np.int64), value[kept],
                  held[kept], tenant, tenants, links)  # fmt: skip


def _ordered(numbers: I64, kind: U8, value: U64) -> I64:
    """Numbers by kind and value: kind by kind, as a sort by both took three times as long."""
    of_kind = kind[numbers]
    parts = [numbers[of_kind == k] for k in np.flatnonzero(np.bincount(of_kind))]
    return np.concatenate([numbers[:0], *(part[np.argsort(value[part])] for part in parts)])


def _holders(ids: I32, account: I32, tenant: I32, rows: I64) -> I64:
    """Tenants behind each number that so many ``rows`` have: those, less the further ones of a tenant of several
    accounts."""
    return rows - repeats(ids, account, tenant, len(rows)) if (np.bincount(tenant) > 1).any() else rows


def components(shared: Shared, tenant: I32, accounts: int, margin_bits: float) -> Components:
    """Connected components over the significant pairs, and over values that are exact by themselves; cut at waists."""
    who, node, pairs, looked_at, threshold = _significant(shared, tenant, margin_bits)
    # An opaque blob that two tenants send back needs no second witness: each was given to one conversation.
    exact = shared.rows_of(EXACT[shared.kind])
    who = np.concatenate([who, shared.account[exact]])
    node = np.concatenate([node, pairs + shared.key[exact]])
    label = np.full(accounts, -1, np.int64)
    if not len(who):
        return Components(label, 0, pairs, looked_at, threshold)
    size = accounts + pairs + len(shared.df)
    graph = coo_array((np.ones(len(who), np.int8), (who.astype(np.int64), accounts + node)), shape=(size, size))
    _, found = connected_components(graph, directed=False)
    linked = np.unique(who)
    names, renamed = np.unique(found[linked], return_inverse=True)
    label[linked] = renamed
    label, count = parted(label, len(names), who, node, tenant)
    return Components(label, count, pairs, looked_at, threshold)


def _significant(shared: Shared, tenant: I32, margin_bits: float) -> tuple[I32, I64, int, int, float]:
    """(account, pair) of each significant pair's holders, pairs numbered from 0; how many; how many looked at; bits."""
    asked = LEAST_SHARED, shared.tenants, margin_bits
    pair, who, looked_at = shared_pairs(shared.account, shared.key, shared.df, shared.kind, asked)
    if not len(pair):
        return who, np.zeros(0, np.int64), 0, looked_at, float(np.log2(max(looked_at, 1))) + margin_bits
    ids, first = number(pair, pair, table_bits(len(pair)))
    held = _holders(ids, who, tenant, np.bincount(ids, minlength=len(first)))
    threshold = float(np.log2(looked_at)) + margin_bits
    enough = np.flatnonzero(held >= LEAST_SHARED)
    bits = surprise(held[enough].astype(np.float64), chance(pair[first[enough]], shared.df, shared.tenants))
    good = np.zeros(len(first), np.bool_)
    good[enough[bits >= threshold]] = True
    edge = good[ids]
    return who[edge], (np.cumsum(good) - 1)[ids[edge]], int(good.sum()), looked_at, threshold


def surprise(held: F64, expected: F64) -> F64:
    """Bits of surprise that ``held`` tenants share what ``expected`` would by chance; 0 where no more do."""
    expected = np.maximum(expected, 1e-12)
    bits = held * np.log2(np.maximum(held, 1e-12) / expected) - (held - expected) * _LOG2E
    return np.asarray(np.where(held > expected, bits, 0.0))


def shared_pairs(
    account: I32 | I64, key: I32 | I64, df: I64, kind: I64, asked: tuple[int, int, float] = (2, 1, EVERY)
) -> tuple[U64, I32, int]:
    """Pairs of links of two groups, one attested: pair, account; and how many different pairs there are in all.

    ``account`` (sorted) and ``key`` are links; ``df`` [keys] counts a link's tenants, ``kind`` [keys] is its kind.
    ``asked``: accounts that hold a pair, all tenants, and bits that it surprises by beyond the pairs looked at; as it
    stands, pairs that two accounts hold.
    """
    who, what = account.astype(np.int32, copy=False), key.astype(np.int32, copy=False)
    return repeated_pairs(who, what, df, GROUP_OF[kind], ATTESTED[kind], *asked)


def chance(pair: U64, df: I64, tenants: int) -> F64:
    """Tenants that would hold each pair if its two links had nothing to do with each other."""
    one, other = (pair >> np.uint64(32)).astype(np.int64), (pair & _LOW).astype(np.int64)
    return np.asarray(df[one].astype(np.float64) * df[other].astype(np.float64) / tenants)
