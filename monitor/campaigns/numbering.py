"""A number for each different value of the table of links, kept from one rebuild to the next.

To number ten million links anew takes a look into a large table for each of them, an eighth of a rebuild; of an hour's
links most are known, and only what is new is looked up. Which number a value has depends on the past, so nothing that
goes out may: keys are ordered by kind and value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.fetching import room
from monitor.campaigns.kernels import I32, I64, U8, U64, table_bits
from monitor.campaigns.links import Splice
from monitor.jit import njit, sealed, warmup

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xC2B2AE3D27D4EB4F)


@dataclass(frozen=True, slots=True)
class Numbers:
    """``ids`` [rows of the table]: the number of each link's value; by number its ``kind`` and ``value``, and how many
    ``rows`` have it. ``gone``: rows dropped since everything was numbered, whose values may be nobody's now."""

    ids: I32
    kind: U8
    value: U64
    rows: I64
    gone: int = 0

    @classmethod
    def of(cls, links: pl.DataFrame) -> Numbers:
        """Of a table, from nothing."""
        ids = room(len(links), np.int32)
        kind, value = _numbered(sealed(links["kind"].to_numpy()), sealed(links["value"].to_numpy()), ids)
        return cls(ids, kind, value, np.bincount(ids, minlength=len(kind)))

    def after(self, how: Splice, links: pl.DataFrame) -> Numbers:
        """Of the table that ``how`` made of the one that this is of, ``links``."""
        gone = self.gone + (0 if how.kept is None else int((~how.kept).sum()))
        if 2 * gone > len(links):
            return Numbers.of(links)
        new, kind, value, ids = self.ids[:0], self.kind, self.value, self.ids
        if len(how.at):
            new, kind, value = _further(kind, value, sealed(how.kind), sealed(how.value))
            ids = how.put(ids, new)
        # counted where they change: to count all of them takes a random look for each
        rows = np.bincount(new, minlength=len(kind))
        rows[: len(self.rows)] += self.rows
        if how.kept is not None:
            rows -= np.bincount(ids[~how.kept], minlength=len(kind))
            ids = ids[how.kept]
        return Numbers(ids, kind, value, rows, gone)

    def where(self, rows: npt.NDArray[np.bool_]) -> Numbers:
        """Of some rows of the table."""
        ids = self.ids[rows]
        return Numbers(ids, self.kind, self.value, np.bincount(ids, minlength=len(self.kind)))


def _further(kind: U8, value: U64, new_kind: U8, new_value: U64) -> tuple[I32, U8, U64]:
    """Numbers of further rows; kind and value by number, with those that are new at the end."""
    ids, head = _looked_up(sealed(kind), sealed(value), new_kind, new_value, table_bits(len(new_kind)))
    return ids, np.concatenate([kind, new_kind[head]]), np.concatenate([value, new_value[head]])


@njit(makes_arrays=True)
def _numbered(kind: U8, value: U64, ids: I32) -> tuple[U8, U64]:
    """Fill ``ids`` with a number for each different (kind, value), of each row; by number the kind and the value.

    Kind by kind: the values of one fit the processor's cache, those of all do not.
    """
    rows, n = np.zeros(256, np.int64), len(kind)
    for i in range(n):
        rows[kind[i]] += 1
    of_kind, of_value, count = np.empty(n, np.uint8), np.empty(n, np.uint64), 0
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
    return of_kind[:count].copy(), of_value[:count].copy()


@njit
def _spot(value: np.uint64, bits: int) -> np.int64:
    return np.int64((value * _MIX) >> np.uint64(64 - bits))


@njit(makes_arrays=True)
def _looked_up(kind: U8, value: U64, new_kind: U8, new_value: U64, bits: int) -> tuple[I32, I32]:
    """The number of each new row, and the first row of each number that is new.

    The few that are new make the table in which the many that are known are looked for: a table of these took ten times
    as long. Most of them end at a bit that is not set.
    """
    slots, mask, shift = np.full(1 << bits, -1, np.int32), np.uint64((1 << bits) - 1), np.uint64(64 - bits)
    seen, fine = np.zeros(1 << bits, np.uint8), np.uint64(61 - bits)
    head, count = np.empty(len(new_kind), np.int32), 0
    ids = np.empty(len(new_kind), np.int32)
    for i in range(len(new_kind)):
        k, v = new_kind[i], new_value[i]
        mixed = _mixed(k, v)
        at, bit = mixed >> shift, mixed >> fine
        seen[bit >> np.uint64(3)] |= np.uint8(1) << np.uint8(bit & np.uint64(7))
        while slots[at] >= 0 and (new_kind[head[slots[at]]] != k or new_value[head[slots[at]]] != v):
            at = (at + np.uint64(1)) & mask
        if slots[at] < 0:
            slots[at] = count
            head[count] = i
            count += 1
        ids[i] = slots[at]
    number = np.full(count, -1, np.int32)
    for c in range(len(kind)):
        mixed = _mixed(kind[c], value[c])
        bit = mixed >> fine
        if not (seen[bit >> np.uint64(3)] >> np.uint8(bit & np.uint64(7))) & 1:
            continue
        at = mixed >> shift
        while slots[at] >= 0:
            i = head[slots[at]]
            if new_kind[i] == kind[c] and new_value[i] == value[c]:
                number[slots[at]] = c
                break
            at = (at + np.uint64(1)) & mask
    further = 0
    for c in range(count):
        if number[c] < 0:
            number[c] = len(kind) + further
            head[further] = head[c]
            further += 1
    for i in range(len(ids)):
        ids[i] = number[ids[i]]
    return ids, head[:further].copy()


@njit
def _mixed(kind: int, value: np.uint64) -> np.uint64:
    return np.uint64((value ^ (np.uint64(kind) * _SPREAD)) * _MIX)


@warmup
def _warm() -> None:
    kind, value = np.zeros(1, np.uint8), np.zeros(1, np.uint64)
    _further(kind, value, sealed(kind), sealed(value))
    _numbered(sealed(kind), sealed(value), np.zeros(1, np.int32))
