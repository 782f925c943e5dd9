"""The table of links: each account, kind and value once, in this order, and what is merged into it.

The order is kept: a merge is one pass over both, where a table of all links (a random read each) took six times as
long; the graph finds an account's links side by side; and equal tables give equal bytes. Columns are made one after
another and the old ones let go, so that two whole tables never stand side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.kernels import I32, I64, U8, U64
from monitor.jit import njit, sealed, warmup

_T = TypeVar("_T", bound=np.generic)
U32 = npt.NDArray[np.uint32]

SCHEMA = {
    "account": pl.UInt32(), "kind": pl.UInt8(), "value": pl.UInt64(), "count": pl.Int64(), "first": pl.Int32(),
    "last": pl.Int32(),
}  # fmt: skip
"""``count`` requests from step ``first`` to step ``last``."""
_NEVER = -(2**31)


def merged(table: pl.DataFrame, fresh: Sequence[pl.DataFrame], oldest: int = _NEVER) -> pl.DataFrame:
    """``table`` (in order, each link once) with the rows of ``fresh``, less the links last seen before ``oldest``.

    All are of :data:`SCHEMA`; ``fresh`` may be in any order and name a link more than once.
    """
    new: dict[str, npt.NDArray[Any]] = {name: _column(fresh, name) for name in SCHEMA}
    order = _in_order(new["account"], new["kind"], new["value"])
    old = {name: sealed(table[name].to_numpy()) for name in SCHEMA}
    source = _merged(
        old["account"], old["kind"], old["value"], old["count"], old["first"], old["last"],
        new["account"], new["kind"], new["value"], new["count"], new["first"], new["last"], order, oldest,
    )  # fmt: skip
    del table, order
    columns = {name: pl.Series(name, _gathered(source, old.pop(name), new.pop(name))) for name in SCHEMA}
    return pl.DataFrame(columns)


def _column(parts: Sequence[pl.DataFrame], name: str) -> npt.NDArray[Any]:
    """A column of all parts as an array of its own, which may be written."""
    empty = pl.Series(dtype=SCHEMA[name]).to_numpy()
    return np.concatenate([empty, *(part[name].to_numpy() for part in parts)])


@njit
def _in_order(account: U32, kind: U8, value: U64) -> I32:
    """Rows in order of account, kind and value: a counting sort, then one of the few rows of each account."""
    n = len(account)
    most = np.int64(0)
    for i in range(n):
        most = max(most, np.int64(account[i]) + 1)
    begin = np.zeros(most + 1, np.int32)
    for i in range(n):
        begin[account[i] + 1] += 1
    for a in range(most):
        begin[a + 1] += begin[a]
    order, at = np.empty(n, np.int32), begin[:-1].copy()
    for i in range(n):
        order[at[account[i]]] = i
        at[account[i]] += 1
    for a in range(most):
        low, high = begin[a], begin[a + 1]
        gap = 1
        while gap < (high - low) // 3:
            gap = 3 * gap + 1
        while gap > 0:
            for i in range(low + gap, high):
                row, j = order[i], i
                k, v = kind[row], value[row]
                while j - gap >= low and (
                    kind[order[j - gap]] > k or (kind[order[j - gap]] == k and value[order[j - gap]] > v)
                ):
                    order[j] = order[j - gap]
                    j -= gap
                order[j] = row
            gap //= 3
    return order


@njit
def _merged(
    account: U32, kind: U8, value: U64, count: I64, first: I32, last: I32,
    new_account: U32, new_kind: U8, new_value: U64, new_count: I64, new_first: I32, new_last: I32, order: I32,
    oldest: int,
) -> I32:  # fmt: skip
    """Where each link of the merged table comes from: a row of the old one, or ``~row`` of the new ones, into whose
    count, first and last all rows of the link have been drawn together."""
    n, m = len(account), len(order)
    source = np.empty(n + m, np.int32)
    size, i, f = 0, 0, 0
    while i < n or f < m:
        if f == m:
            if last[i] >= oldest:
                source[size] = i
                size += 1
            i += 1
            continue
        r = order[f]
        if i < n and (
            account[i] < new_account[r]
            or (account[i] == new_account[r] and (kind[i] < new_kind[r]
                or (kind[i] == new_kind[r] and value[i] < new_value[r])))
        ):  # fmt: skip
            if last[i] >= oldest:
                source[size] = i
                size += 1
            i += 1
            continue
        f += 1
        while f < m:
            s = order[f]
            if new_account[s] != new_account[r] or new_kind[s] != new_kind[r] or new_value[s] != new_value[r]:
                break
            new_count[r] += new_count[s]
            new_first[r] = min(new_first[r], new_first[s])
            new_last[r] = max(new_last[r], new_last[s])
            f += 1
        if i < n and account[i] == new_account[r] and kind[i] == new_kind[r] and value[i] == new_value[r]:
            new_count[r] += count[i]
            new_first[r] = min(new_first[r], first[i])
            new_last[r] = max(new_last[r], last[i])
            i += 1
        if new_last[r] >= oldest:
            source[size] = ~r
            size += 1
    return source[:size].copy()


@njit
def _gathered(source: I32, old: npt.NDArray[_T], new: npt.NDArray[_T]) -> npt.NDArray[_T]:
    """A column by :func:`_merged`'s sources."""
    out = np.empty(len(source), old.dtype)
    for i in range(len(source)):
        s = source[i]
        out[i] = old[s] if s >= 0 else new[~s]
    return out


@njit
def numbered(kind: U8, value: U64) -> tuple[I32, U8, U64]:
    """A number for each different (kind, value): of each row, and by number the kind and the value.

    Kind by kind: the values of one fit the processor's cache, those of all do not.
    """
    rows, n = np.zeros(256, np.int64), len(kind)
    for i in range(n):
        rows[kind[i]] += 1
    ids, of_kind, of_value, count = np.empty(n, np.int32), np.empty(n, np.uint8), np.empty(n, np.uint64), 0
    for k in range(256):
        if not rows[k]:
            continue
        begin, bits = count, 10
        slots = np.full(1 << bits, -1, np.int32)
        for i in range(n):
            if kind[i] != k:
                continue
            v = value[i]
            at = _spot(v, bits)
            while slots[at] >= 0 and of_value[slots[at]] != v:
                at = (at + 1) & (len(slots) - 1)
            if slots[at] < 0:
                slots[at] = count
                of_kind[count], of_value[count] = k, v
                count += 1
            ids[i] = slots[at]
            if 2 * (count - begin) > len(slots):
                bits += 1
                slots = np.full(1 << bits, -1, np.int32)
                for c in range(begin, count):
                    at = _spot(of_value[c], bits)
                    while slots[at] >= 0:
                        at = (at + 1) & (len(slots) - 1)
                    slots[at] = c
    return ids, of_kind[:count].copy(), of_value[:count].copy()


@njit
def _spot(value: np.uint64, bits: int) -> np.int64:
    return np.int64((value * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits))


@njit
def followed(ids: I32, key_of: I32, account: I32) -> tuple[I32, I32, I32]:
    """Rows whose number has a key (not -1), in order: account, key, row."""
    size = 0
    for i in range(len(ids)):
        size += key_of[ids[i]] >= 0
    whose, key, row = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    at = 0
    for i in range(len(ids)):
        k = key_of[ids[i]]
        if k >= 0:
            whose[at], key[at], row[at] = account[i], k, i
            at += 1
    return whose, key, row


@warmup
def _warm() -> None:
    one = pl.DataFrame({name: [0] for name in SCHEMA}, schema=SCHEMA)
    merged(one, [one])
    row = np.zeros(1, np.int32)
    followed(row, row, sealed(row))
    numbered(sealed(np.zeros(1, np.uint8)), sealed(np.zeros(1, np.uint64)))
