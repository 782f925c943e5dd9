"""The table of links: each account, kind and value once, in this order, and what is merged into it.

The order is kept: a merge is one pass over both, where a table of all links (a random read each) took six times as
long; the graph finds an account's links side by side; and equal tables give equal bytes. Links that are known are not
compared anew, but looked for. Columns are made one after another and the old ones let go, so that two whole tables
never stand side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.fetching import ask, room
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
_ADD, _LOWER, _RAISE = 0, -1, 1
_AHEAD = 32
"""Links whose keys are asked for before their turn."""
_DRAWN = {"last": _RAISE, "first": _LOWER, "count": _ADD}
"""How what is new of a known link is drawn into its row; by ``last`` it is told which rows stay."""


def merged(table: pl.DataFrame, fresh: Sequence[pl.DataFrame], oldest: int = _NEVER) -> pl.DataFrame:
    """``table`` (in order, each link once) with the rows of ``fresh``, less the links last seen before ``oldest``.

    All are of :data:`SCHEMA`; ``fresh`` may be in any order and name a link more than once.
    """
    return spliced(table, fresh, oldest)[0]


def spliced(table: pl.DataFrame, fresh: Sequence[pl.DataFrame], oldest: int = _NEVER) -> tuple[pl.DataFrame, Splice]:
    """:func:`merged`, and how the rows of ``table`` became its rows."""
    new: dict[str, npt.NDArray[Any]] = {name: _column(fresh, name) for name in SCHEMA}
    del fresh  # the caller may have let go of them, too
    order = in_order(new["account"], new["kind"], new["value"])
    head = _drawn(new["account"], new["kind"], new["value"], new["count"], new["first"], new["last"], order)
    old = {name: sealed(table[name].to_numpy()) for name in SCHEMA}
    at, known = _places(old["account"], old["kind"], old["value"], new["account"], new["kind"], new["value"], head)
    del table, order
    row, more = at[known], head[known]
    at, head = at[~known], head[~known]
    row += np.searchsorted(at, row, side="right").astype(np.int32)
    how = Splice(at, new["kind"][head], new["value"][head])
    made: dict[str, npt.NDArray[Any]] = {}
    # most links of a step are known: what they add is written where they stand
    for name, draw in _DRAWN.items():
        column = _inserted(sealed(old.pop(name)), sealed(new[name]), head, at)
        _draw(column, row, sealed(new.pop(name)), more, draw)
        if name == "last" and len(column) and column.min() < oldest:
            how = replace(how, kept=column >= oldest)
        made[name] = column if how.kept is None else column[how.kept]
    for name in ("account", "kind", "value"):
        column = _inserted(sealed(old.pop(name)), sealed(new.pop(name)), head, at) if len(at) else old.pop(name)
        made[name] = column if how.kept is None else column[how.kept]
    return pl.DataFrame({name: made.pop(name) for name in SCHEMA}, schema=SCHEMA), how


@dataclass(frozen=True, slots=True)
class Splice:
    """What became of a table's rows: new ones, of ``kind`` and ``value``, stand before its rows ``at`` (in order), and
    of all those together the ``kept`` [rows] stay (None: all)."""

    at: I32
    kind: U8
    value: U64
    kept: npt.NDArray[np.bool_] | None = None

    def put(self, old: npt.NDArray[_T], new: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """A column of the old table, with what the new rows have in it put between, those ``kept`` and the others."""
        return _inserted(sealed(old), sealed(new), np.arange(len(new), dtype=np.int32), self.at)


def _column(parts: Sequence[pl.DataFrame], name: str) -> npt.NDArray[Any]:
    """A column of all parts as an array of its own, which may be written."""
    empty = pl.Series(dtype=SCHEMA[name]).to_numpy()
    return np.concatenate([empty, *(part[name].to_numpy() for part in parts)])


def in_order(account: U32, kind: U8, value: U64) -> I32:
    """Rows in order of account, kind and value."""
    return _in_order(sealed(account), sealed(kind), sealed(value))


@njit(makes_arrays=True)
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


@njit(makes_arrays=True)
def _drawn(account: U32, kind: U8, value: U64, count: I64, first: I32, last: I32, order: I32) -> I32:
    """One row of each link, in order, into which count, first and last of all its rows have been drawn together."""
    head, size, f, m = np.empty(len(order), np.int32), 0, 0, len(order)
    while f < m:
        r = order[f]
        f += 1
        while f < m:
            s = order[f]
            if account[s] != account[r] or kind[s] != kind[r] or value[s] != value[r]:
                break
            count[r] += count[s]
            first[r] = min(first[r], first[s])
            last[r] = max(last[r], last[s])
            f += 1
        head[size] = r
        size += 1
    return head[:size].copy()


@njit(makes_arrays=True)
def _places(
    account: U32, kind: U8, value: U64, new_account: U32, new_kind: U8, new_value: U64, head: I32
) -> tuple[I32, npt.NDArray[np.bool_]]:
    """The first row that is not before each new link (in order), and whether it is that link."""
    n, low = len(account), 0
    at, known = np.empty(len(head), np.int32), np.empty(len(head), np.bool_)
    for f in range(len(head)):
        a, k, v = new_account[head[f]], new_kind[head[f]], new_value[head[f]]
        # an account is looked for in ever longer steps, then by halves: those that did not call are passed over
        if low < n and account[low] < a:
            stride = 1
            while low + stride < n and account[low + stride] < a:
                low += stride
                stride *= 2
            high = min(low + stride, n)
            while low + 1 < high:
                middle = (low + high) // 2
                if account[middle] < a:
                    low = middle
                else:
                    high = middle
            low = high
        while low < n and account[low] == a and (kind[low] < k or (kind[low] == k and value[low] < v)):
            low += 1
        at[f] = low
        known[f] = low < n and account[low] == a and kind[low] == k and value[low] == v
    return at, known


@njit
def _draw(column: npt.NDArray[_T], row: I32, new: npt.NDArray[_T], more: I32, how: int) -> None:
    """Draw the rows ``more`` of ``new`` into the rows ``row`` of a column."""
    for i in range(len(row)):
        held, come = column[row[i]], new[more[i]]
        if how == _ADD:
            column[row[i]] = held + come
        else:
            column[row[i]] = max(held, come) if how == _RAISE else min(held, come)


def _inserted(old: npt.NDArray[_T], new: npt.NDArray[_T], head: I32, at: I32) -> npt.NDArray[_T]:
    """``old`` with the rows ``head`` of ``new`` before its rows ``at``, in order."""
    out = room(len(old) + len(head), old.dtype)
    _insert(old, new, head, at, out)
    return out


@njit
def _insert(old: npt.NDArray[_T], new: npt.NDArray[_T], head: I32, at: I32, out: npt.NDArray[_T]) -> None:
    begin = 0
    for f in range(len(head) + 1):
        end = at[f] if f < len(head) else len(old)
        # parts, counted from 0: only so the compiler knows of no place before the first, and copies many at once
        part, given = out[begin + f : end + f], old[begin:end]
        for i in range(len(given)):
            part[i] = given[i]
        if f < len(head):
            out[end + f] = new[head[f]]
        begin = end


def followed(ids: I32, key_of: I32, account: I32) -> tuple[I32, I32, I32]:
    """Rows whose number has a key (not -1), in order: account, key, row."""
    # room for all: memory that nobody writes costs nothing, and counting first was half of the time
    whose, key, row = (room(len(ids), np.int32) for _ in range(3))
    size = _follow(ids, key_of, account, whose, key, row)
    return whose[:size], key[:size], row[:size]


@njit
def _follow(ids: I32, key_of: I32, account: I32, whose: I32, key: I32, row: I32) -> int:
    at, n = 0, len(ids)
    for i in range(n):
        ask(key_of, ids[min(i + _AHEAD, n - 1)])
        # written in any case, and over again by the next: which of them have none no branch can foresee
        k = key_of[ids[i]]
        whose[at], key[at], row[at] = account[i], k, i
        at += k >= 0
    return at


def chosen(key: I32, asked: npt.NDArray[np.bool_]) -> I64:
    """Rows whose key is ``asked`` [keys] for, in order."""
    row = room(len(key), np.int64)
    return row[: _choose(key, asked, row)].copy()


@njit
def _choose(key: I32, asked: npt.NDArray[np.bool_], row: I64) -> int:
    at = 0
    for i in range(len(key)):
        row[at] = i  # as above
        at += asked[key[i]]
    return at


@warmup
def _warm() -> None:
    one = pl.DataFrame({name: [0] for name in SCHEMA}, schema=SCHEMA)
    merged(one, [one])
    merged(one, [one.with_columns(account=pl.lit(1, pl.UInt32))])
    row = np.zeros(1, np.int32)
    followed(sealed(row), row, sealed(row))
    chosen(sealed(row), sealed(np.zeros(1, np.bool_)))
