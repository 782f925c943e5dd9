"""Which slot a subject of a partition has: a hash table over many strings at once, without an object for any.

A dict of pairs took 2 of 70 us of processor time a request, all of it under the interpreter's lock, and 130 bytes a
subject; this takes 24 to 48. A subject is known by two SipHashes under keys of the process's own: who chooses account
names can't make two of them meet, and of a million the chance that any two do is one in 10^26.
"""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.features.strings import utf8
from monitor.jit import njit, sealed
from monitor.siphash import sip_bytes

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
_SMALLEST = 1 << 10
_FULL = 0.7
NONE, GONE = -1, -2
"""What stands in the place of a slot: nothing yet; a subject that left, which a search goes on over."""


class Subjects:
    """Slots by subject and partition. The caller says which slots are free."""

    def __init__(self) -> None:
        self._key = np.frombuffer(secrets.token_bytes(32), np.uint64)
        self._names, self._slots = np.zeros((_SMALLEST, 2), np.uint64), np.full(_SMALLEST, NONE, np.int32)
        self._used = self._live = 0

    def __len__(self) -> int:
        return self._live

    def prints(self, subjects: pl.Series, partitions: I32) -> U64:
        """What the table knows each subject by: uint64 [subjects, 2]."""
        at, raw = utf8(subjects)
        out = np.empty((len(subjects), 2), np.uint64)
        prints_of(raw, at, sealed(partitions), self._key, out)
        return out

    def find(self, prints: U64) -> I32:
        """The slot of each, -1 where it has none: int32 [subjects]."""
        found = np.empty(len(prints), np.int32)
        find_all(prints, self._names, self._slots, found)
        return found

    def assign(self, prints: U64, free: I32) -> tuple[I32, I64]:
        """The slot of each; one that has none takes the next of ``free``, of which there are as many as may be needed.

        Returns the slots, int32 [subjects], and where each of ``free`` that was taken occurs first, int64 [taken].
        """
        if self._used + len(prints) > _FULL * len(self._slots):
            self._rebuild(len(prints))
        found, first = np.empty(len(prints), np.int32), np.empty(len(prints), np.int64)
        taken = assign_all(prints, self._names, self._slots, free, found, first)
        self._used += taken
        self._live += taken
        return found, first[:taken]

    def remove(self, prints: U64) -> None:
        """Forget subjects that are there."""
        self._live -= remove_all(prints, self._names, self._slots)

    def _rebuild(self, more: int) -> None:
        kept = self._slots >= 0
        names, slots = self._names[kept], self._slots[kept]
        size = max(_SMALLEST, 1 << int(np.ceil(np.log2((len(slots) + more) / _FULL * 1.3))))
        self._names, self._slots = np.zeros((size, 2), np.uint64), np.full(size, NONE, np.int32)
        found, first = np.empty(len(slots), np.int32), np.empty(len(slots), np.int64)
        assign_all(names, self._names, self._slots, slots, found, first)
        self._used = len(slots)


@njit
def prints_of(raw: U8, at: I64, partitions: I32, key: U64, out: U64) -> None:
    """Both hashes of each string of a partition, under a key of four words."""
    for i in range(len(out)):
        partition = np.uint64(partitions[i])
        out[i, 0] = sip_bytes(key[0] ^ partition, key[1], raw, at[i], at[i + 1])
        out[i, 1] = sip_bytes(key[2], key[3] ^ partition, raw, at[i], at[i + 1])


@njit
def place(a: np.uint64, b: np.uint64, names: U64, slots: I32) -> int:
    """Where a subject stands, or the first place with nothing."""
    mask = np.uint64(len(slots) - 1)
    at = a & mask
    while slots[at] != NONE and not (slots[at] >= 0 and names[at, 0] == a and names[at, 1] == b):
        at = (at + np.uint64(1)) & mask
    return int(at)


@njit
def find_all(prints: U64, names: U64, slots: I32, found: I32) -> None:
    """See :meth:`Subjects.find`."""
    for i in range(len(prints)):
        found[i] = slots[place(prints[i, 0], prints[i, 1], names, slots)]


@njit
def assign_all(prints: U64, names: U64, slots: I32, free: I32, found: I32, first: I64) -> int:
    """See :meth:`Subjects.assign`; how many were taken."""
    taken = 0
    for i in range(len(prints)):
        at = place(prints[i, 0], prints[i, 1], names, slots)
        if slots[at] == NONE:
            names[at, 0], names[at, 1] = prints[i, 0], prints[i, 1]
            slots[at] = free[taken]
            first[taken] = i
            taken += 1
        found[i] = slots[at]
    return taken


@njit
def remove_all(prints: U64, names: U64, slots: I32) -> int:
    """See :meth:`Subjects.remove`; how many were there."""
    gone = 0
    for i in range(len(prints)):
        at = place(prints[i, 0], prints[i, 1], names, slots)
        if slots[at] != NONE:
            slots[at] = GONE
            gone += 1
    return gone
