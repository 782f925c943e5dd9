"""Binary fuse filters (Graf and Lemire 2022): is this 64-bit key in the set? Knows nothing of what a key stands for.

A set of ``n`` keys takes about 1.13 n fingerprints; a key of the set is always found, another one by chance with
2^-bits. Keys are keyed hashes already. A library (pyfusefilter, rbloom) answers one Python call at a time; here a
look-up is three loads inside the kernel that made the key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitor.jit import njit, warmup
from monitor.siphash import U64Array

from .prints import mix

U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

BITS: Final = (8, 16, 32)
"""Widths of a fingerprint."""
_MOST_TRIES: Final = 100
_S18, _S32 = np.uint64(18), np.uint64(32)


@dataclass(frozen=True)
class Fuse:
    """One filter. ``prints`` holds fingerprints of ``bits`` bits in 32; see :func:`has` for the other members."""

    prints: U32Array
    bits: int
    seed: int
    segment: int
    spread: int

    @property
    def false_positive_rate(self) -> float:
        """Chance that a key outside the set is found."""
        return 2.0**-self.bits

    def params(self) -> tuple[int, int, int, int]:
        """What :func:`has` reads beside the fingerprints: seed, segment, spread, mask."""
        return self.seed, self.segment, self.spread, (1 << self.bits) - 1


def shape_of(keys: int) -> tuple[int, int]:
    """``(segment, spread)`` for so many keys: the length of a segment, and of all but the last two."""
    n = max(keys, 2)
    segment = min(1 << math.floor(math.log(n) / math.log(3.33) + 2.25), 1 << 18)
    capacity = round(n * max(1.125, 0.875 + 0.25 * math.log(1e6) / math.log(n)))
    segments = max((capacity + segment - 1) // segment - 2, 1)
    return segment, segments * segment


def build(keys: U64Array, bits: int) -> Fuse:
    """The filter of ``keys`` (may repeat). The same keys give the same filter in any order.

    Raises ValueError for a width that is not in :data:`BITS`.
    """
    if bits not in BITS:
        raise ValueError(f"a fingerprint has {', '.join(map(str, BITS))} bits, not {bits}")
    distinct = np.unique(np.asarray(keys, np.uint64))
    segment, spread = shape_of(len(distinct))
    prints = np.zeros(spread + 2 * segment, np.uint32)
    for seed in range(1, _MOST_TRIES):
        if fill(distinct, np.uint64(seed), segment, spread, np.uint64((1 << bits) - 1), prints):
            return Fuse(prints, bits, seed, segment, spread)
    raise RuntimeError("no seed fits these keys: a bug, they are distinct 64-bit hashes")


@njit
def places(h: np.uint64, segment: int, spread: int) -> tuple[int, int, int]:
    """Where a key's three fingerprints stand, from its mixed hash."""
    low = np.uint64(segment - 1)
    first = ((h >> _S32) * np.uint64(spread)) >> _S32
    second = (first + np.uint64(segment)) ^ ((h >> _S18) & low)
    third = (first + np.uint64(2 * segment)) ^ (h & low)
    return int(np.int64(first)), int(np.int64(second)), int(np.int64(third))


@njit
def has(key: np.uint64, prints: U32Array, at: int, seed: np.uint64, segment: int, spread: int, mask: np.uint64) -> bool:
    """True for every key of the filter that begins at ``prints[at]``, and by chance for others."""
    h = mix(key + seed)
    a, b, c = places(h, segment, spread)
    found = np.uint64(prints[at + a] ^ prints[at + b] ^ prints[at + c])
    return bool(found == ((h ^ (h >> _S32)) & mask))


@njit(makes_arrays=True)
def fill(keys: U64Array, seed: np.uint64, segment: int, spread: int, mask: np.uint64, prints: U32Array) -> bool:
    """Set the fingerprints by peeling: false where these keys can't be told apart under ``seed``."""
    n, size = len(keys), len(prints)
    count, xors = np.zeros(size, np.int32), np.zeros(size, np.uint64)
    for key in keys:
        h = mix(key + seed)
        a, b, c = places(h, segment, spread)
        for p in (a, b, c):
            count[p] += 1
            xors[p] ^= h
    alone, peeled, home = np.empty(size, np.int64), np.empty(n, np.uint64), np.empty(n, np.int64)
    todo = done = 0
    for p in range(size):
        if count[p] == 1:
            alone[todo] = p
            todo += 1
    while todo > 0:
        todo -= 1
        p = alone[todo]
        if count[p] != 1:
            continue
        h = xors[p]
        peeled[done], home[done] = h, p
        done += 1
        a, b, c = places(h, segment, spread)
        for q in (a, b, c):
            count[q] -= 1
            xors[q] ^= h
            if count[q] == 1:
                alone[todo] = q
                todo += 1
    if done < n:
        return False
    prints[:] = 0
    for i in range(n - 1, -1, -1):
        h = peeled[i]
        a, b, c = places(h, segment, spread)
        value = np.uint32((h ^ (h >> _S32)) & mask)
        prints[home[i]] = value ^ prints[a] ^ prints[b] ^ prints[c]
    return True


@njit
def has_many(keys: U64Array, prints: U32Array, seed: np.uint64, segment: int, spread: int, mask: np.uint64) -> int:
    """How many of ``keys`` are found."""
    found = 0
    for key in keys:
        found += has(key, prints, 0, seed, segment, spread, mask)
    return found


@warmup
def warm_fuse() -> None:
    """Compile the filter's kernels on two keys."""
    made = build(np.array([1, 2], np.uint64), 8)
    seed, segment, spread, mask = made.params()
    has_many(np.array([1], np.uint64), made.prints, np.uint64(seed), segment, spread, np.uint64(mask))
