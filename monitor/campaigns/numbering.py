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

from monitor.campaigns.kernels import I32, U8, U64, table_bits
from monitor.campaigns.links import Splice
from monitor.jit import njit, sealed, warmup

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xC2B2AE3D27D4EB4F)


@dataclass(frozen=True, slots=True)
class Numbers:
    """``ids`` [rows of the table]: the number of each link's value; ``kind`` and ``value`` by number. ``gone``: rows
    dropped since everything was numbered, whose values may be nobody's now."""

    ids: I32
    kind: U8
    value: U64
    gone: int = 0

    @classmethod
    def of(cls, links: pl.DataFrame) -> Numbers:
        """Of a table, from nothing."""
        return cls(*_numbered(sealed(links["kind"].to_numpy()), sealed(links["value"].to_numpy())))

    def after(self, how: Splice, links: pl.DataFrame) -> Numbers:
        """Of the table that ``how`` made of the one that this is of, ``links``."""
        gone = self.gone + (0 if how.kept is None else int((~how.kept).sum()))
        if 2 * gone > len(links):
            return Numbers.of(links)
        if not len(how.at):
            return Numbers(how.of(self.ids, self.ids[:0]), self.kind, self.value, gone)
        new, kind, value = _further(self.kind, self.value, sealed(how.kind), sealed(how.value))
        return Numbers(how.of(self.ids, new), kind, value, gone)

    def where(self, rows: npt.NDArray[np.bool_]) -> Numbers:
        """Of some rows of the table."""
        return Numbers(self.ids[rows], self.kind, self.value)


def _further(kind: U8, value: U64, new_kind: U8, new_value: U64) -> tuple[I32, U8, U64]:
    """Numbers of further rows; kind and value by number, with those that are new at the end."""
    ids, head = _looked_up(sealed(kind), sealed(value), new_kind, new_value, table_bits(len(kind) + len(new_kind)))
    return ids, np.concatenate([kind, new_kind[head]]), np.concatenate([value, new_value[head]])


@njit
def _numbered(kind: U8, value: U64) -> tuple[I32, U8, U64]:
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
    return np.int64((value * _MIX) >> np.uint64(64 - bits))


@njit
def _looked_up(kind: U8, value: U64, new_kind: U8, new_value: U64, bits: int) -> tuple[I32, I32]:
    """The number of each new row, and the first row of each number that is new."""
    slots = np.full(1 << bits, -1, np.int32)
    mask, shift = np.uint64((1 << bits) - 1), np.uint64(64 - bits)
    known = len(kind)
    for c in range(known):
        at = ((value[c] ^ (np.uint64(kind[c]) * _SPREAD)) * _MIX) >> shift
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = c
    ids, head, count = np.empty(len(new_kind), np.int32), np.empty(len(new_kind), np.int32), 0
    for i in range(len(new_kind)):
        k, v = new_kind[i], new_value[i]
        at = ((v ^ (np.uint64(k) * _SPREAD)) * _MIX) >> shift
        while True:
            c = slots[at]
            if c < 0:
                slots[at] = known + count
                head[count] = i
                ids[i] = known + count
                count += 1
                break
            if c < known:
                same = kind[c] == k and value[c] == v
            else:
                same = new_kind[head[c - known]] == k and new_value[head[c - known]] == v
            if same:
                ids[i] = c
                break
            at = (at + np.uint64(1)) & mask
    return ids, head[:count].copy()


@warmup
def _warm() -> None:
    kind, value = np.zeros(1, np.uint8), np.zeros(1, np.uint64)
    _further(kind, value, sealed(kind), sealed(value))
    _numbered(sealed(kind), sealed(value))
