"""A text without its heavy grams: what is left of a prompt when the wrapper that everyone uses is taken off.

A heavy gram is four words in a row that many prompts share, or three with which many open or close: a frame such as
"Summarise this:" has no fourth word. Without the edges such pipelines pass for people, and a campaign hidden in a
pipeline is found in .05 of windows instead of .95 (the pilot's protocol, 25 % attacker share). A wrapper such as an
instruction frame makes every prompt a template; dropping such prompts leaves nothing to look at, so the shared words
are subtracted and the rest is measured again. Knows no scalars: it makes bytes, which go the same way as the text did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitor.jit import njit
from monitor.siphash import U8Array, U64Array

from .prints import EDGE, GRAM, edge_gram, gram, is_template
from .scan import F_MASK, I64Array

I32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class HeavyGrams:
    """Keyed hashes of the 4-word grams that many prompts share, sorted, as ``Sketcher.grams`` gives them.

    ``key_id`` names the key that they were made under: under another they would match nothing.
    """

    key_id: str
    hashes: U64Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "hashes", np.unique(np.asarray(self.hashes, np.uint64)))


@dataclass(frozen=True)
class HeavyPlan:
    """Which table each row of a batch is stripped by: ``row_table[r]`` is its index, -1: none is known."""

    tables: tuple[HeavyGrams, ...]
    row_table: I32Array


NO_GRAMS: Final = np.empty(0, np.uint64)


SIEVE = 1 << 13
"""Bytes of a sieve: one bit for each value of a gram's top 16 bits."""
_S48, _S51, _SEVEN = np.uint64(48), np.uint64(51), np.uint64(7)


def sieve_of(heavy: U64Array) -> U8Array:
    """A bit for the top bits of each gram: nearly every gram of a text is told from the heavy ones by one load."""
    sieve = np.zeros(SIEVE, np.uint8)
    top = heavy >> _S48
    np.bitwise_or.at(sieve, (top >> np.uint64(3)).astype(np.int64), (1 << (top & _SEVEN)).astype(np.uint8))
    return sieve


@njit
def is_heavy(heavy: U64Array, sieve: U8Array, value: np.uint64) -> bool:
    """True if the sorted ``heavy`` holds ``value``."""
    if (np.uint64(sieve[value >> _S51]) >> ((value >> _S48) & _SEVEN)) & np.uint64(1) == 0:
        return False
    low, high = 0, len(heavy)
    while low < high:
        middle = (low + high) >> 1
        if heavy[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < len(heavy) and heavy[low] == value


@njit
def strip_heavy(
    data: U8Array, begin: int, end: int, hashes: U64Array, flags: U8Array, span: I64Array, n: int,
    keys: U64Array, heavy: U64Array, sieve: U8Array, covered: U8Array, rest: U8Array,
) -> tuple[int, int]:  # fmt: skip
    """Copy the text without the words inside heavy grams to ``rest``: how many bytes, and how many words were heavy.

    Of a text without a heavy gram nothing is copied. What a mask stands for (a slot's number, URL or quotation) is
    never the template's: it is kept.
    """
    for i in range(n):
        covered[i] = 0
    found = False
    for i in range(n - GRAM + 1):
        if is_heavy(heavy, sieve, gram(hashes, i, GRAM, keys)):
            covered[i : i + GRAM] = 1
            found = True
    if n >= EDGE:
        if is_heavy(heavy, sieve, edge_gram(hashes, n, keys, False)):
            covered[:EDGE] = 1
            found = True
        if is_heavy(heavy, sieve, edge_gram(hashes, n, keys, True)):
            covered[n - EDGE : n] = 1
            found = True
    if not found:
        return 0, 0
    taken, size, dropped = begin, 0, 0
    for i in range(n + 1):
        if i < n and not covered[i]:
            continue
        if i < n and flags[i] & F_MASK:
            dropped += 1
            continue
        stop = begin + (span[i] >> 32) if i < n else end
        for j in range(taken, stop):
            rest[size] = data[j]
            size += 1
        if i < n:
            dropped += 1
            taken = begin + (span[i] & 0xFFFFFFFF)
            # with a heavy word after it, what stands between the two (a space, a colon) goes too
            if i + 1 < n and covered[i + 1] and not flags[i + 1] & F_MASK:
                taken = begin + (span[i + 1] >> 32)
    return size, dropped


@njit
def strip_rows(
    data: U8Array, offsets: I64Array, wanted: U8Array, keys: U64Array, heavy: U64Array, sieve: U8Array,
    w_hash: U64Array, w_flag: U8Array, w_span: I64Array, w_at: I64Array,
    m_hash: U64Array, m_flag: U8Array, m_span: I64Array, m_at: I64Array, counts: I64Array,
    rest: U8Array, rest_offsets: I64Array, share: U8Array, touched: U8Array, covered: U8Array,
) -> None:  # fmt: skip
    """The rows' texts without heavy words, one after another in ``rest``; ``share``: words left, of 255.

    ``touched``: which rows had a heavy gram; of the others nothing is in ``rest``. ``covered`` is room for a byte
    a word and one more.
    """
    rest_offsets[0] = 0
    for r in range(len(wanted)):
        at = rest_offsets[r]
        rest_offsets[r + 1] = at
        if wanted[r] == 0:
            continue
        if is_template(counts[r], w_at[r + 1] - w_at[r]):
            a, b, h, f, s = m_at[r], m_at[r + 1], m_hash, m_flag, m_span
        else:
            a, b, h, f, s = w_at[r], w_at[r + 1], w_hash, w_flag, w_span
        size, dropped = strip_heavy(
            data, offsets[r], offsets[r + 1], h[a:b], f[a:b], s[a:b], b - a, keys, heavy, sieve, covered, rest[at:]
        )
        rest_offsets[r + 1] = at + size
        touched[r] = dropped > 0
        share[r] = 255 - np.int64(np.floor(255.0 * dropped / max(b - a, 1) + 0.5))
