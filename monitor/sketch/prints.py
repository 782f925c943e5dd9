"""Fingerprints of a stream of word hashes: template sketch, similarity hash, word-list hits. Knows no bytes of text.

* MinHash: one permutation, 64 bins (Li, Owen, Zhang 2012) of 3-word shingles, empty bins filled by optimal
  densification (Shrivastava 2017), 8 bits kept (b-bit minwise hashing, Li and König 2010): two prompts of one template
  agree in about as many of the 64 places as their shingles overlap (Jaccard), plus 1 in 256 of the rest.
  Where words are single characters, shingles are of 4: 3 bytes each in UTF-8, the 12-byte grams that were measured.
* SimHash (Charikar 2002): 64 bits, each the majority of that bit over the hashes of words and pairs of words.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.jit import njit
from monitor.siphash import ONE, ZERO, U8Array, U64Array, rotl, sip_words

from .scan import F_ALONE, K_CHAIN, K_MUL0, K_MUL1, K_MUL2, K_TEXT0, K_TEXT1, N_PLAIN, I64Array

BINS = 64
PLANES = 32
GRAM = 4  # words of a heavy gram
EDGE = 3  # and of one that opens or closes a text
_PLAIN_ENOUGH = 4  # words that masks must leave, or the text is not read as a template
_S32, _S33, _S58 = np.uint64(32), np.uint64(33), np.uint64(58)
_BIN_BITS = np.uint64((1 << 58) - 1)
_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
_R21, _R42 = np.uint64(21), np.uint64(42)
_F1, _F2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_BYTE, _SIX = np.uint64(0xFF), np.uint64(63)

I32Array = npt.NDArray[np.int32]


@njit
def mix(x: np.uint64) -> np.uint64:
    """A bijection in which every bit of the input moves every bit of the output (the finaliser of MurmurHash3)."""
    x ^= x >> _S33
    x *= _F1
    x ^= x >> _S33
    x *= _F2
    return x ^ (x >> _S33)


@njit
def pair(a: np.uint64, b: np.uint64, keys: U64Array) -> np.uint64:
    """Hash of two words in this order. The words' hashes are keyed; here they are only tied together."""
    return mix((a * keys[K_MUL0]) ^ rotl(b * keys[K_MUL1], _R21))


@njit
def gram(hashes: U64Array, i: int, size: int, keys: U64Array) -> np.uint64:
    """Hash of the ``size`` (1 to 4) words from ``i``, in order."""
    h = hashes[i] * keys[K_MUL0]
    if size > 1:
        h ^= rotl(hashes[i + 1] * keys[K_MUL1], _R21)
    if size > 2:
        h ^= rotl(hashes[i + 2] * keys[K_MUL2], _R42)
    h = mix(h)
    return mix(h ^ hashes[i + 3] * keys[K_CHAIN]) if size > 3 else h


@njit
def edge_gram(hashes: U64Array, n: int, keys: U64Array, last: bool) -> np.uint64:
    """Hash of the first or the last three of ``n`` words as such: where a frame is short, its place makes it one."""
    return mix(gram(hashes, n - EDGE if last else 0, EDGE, keys) ^ keys[K_TEXT1 if last else K_TEXT0])


@njit
def minhash(hashes: U64Array, flags: U8Array, n: int, keys: U64Array, lowest: U64Array, out: U8Array) -> None:
    """One-permutation MinHash of ``n`` (at least 1) words into ``out`` (64 places); ``lowest`` is room for 64."""
    for b in range(BINS):
        lowest[b] = _FULL
    last = max(n - 2, 1)
    for i in range(last):
        h = gram(hashes, i, min(4 if flags[i] & F_ALONE else 3, n - i), keys)
        b = int(np.int64(h >> _S58))
        lowest[b] = min(lowest[b], h & _BIN_BITS)
    for b in range(BINS):
        source = b
        tries = ZERO
        while lowest[source] == _FULL:
            tries += ONE
            source = int(np.int64(mix(np.uint64(b) << _S32 | tries) & _SIX))
        out[b] = np.uint8(lowest[source] & _BYTE)


@njit
def add3(a: np.uint64, b: np.uint64, c: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Sum of three bits in each of 64 places: the carries and the sums."""
    u = a ^ b
    return (a & b) | (u & c), u ^ c


@njit
def simhash(hashes: U64Array, n: int, keys: U64Array, planes: U64Array) -> np.uint64:
    """SimHash of ``n`` (at least 1) words and their pairs, never 0; ``planes`` is room for PLANES.

    The 64 counts are kept bit-sliced: plane ``j`` holds bit ``j`` of every count. Eight hashes at a time go through a
    tree of adders (Harley and Seal), so that the carry loop, whose length can't be predicted, runs once in eight.
    """
    planes[:] = ZERO
    ones = twos = fours = ZERO
    for i in range(0, n, 4):
        h0 = hashes[i]
        h1 = hashes[i + 1] if i + 1 < n else ZERO
        h2 = hashes[i + 2] if i + 2 < n else ZERO
        h3 = hashes[i + 3] if i + 3 < n else ZERO
        p0 = pair(h0, h1, keys) if i + 1 < n else ZERO
        p1 = pair(h1, h2, keys) if i + 2 < n else ZERO
        p2 = pair(h2, h3, keys) if i + 3 < n else ZERO
        p3 = pair(h3, hashes[i + 4], keys) if i + 4 < n else ZERO
        c0, ones = add3(ones, h0, h1)
        c1, ones = add3(ones, h2, h3)
        d0, twos = add3(twos, c0, c1)
        c0, ones = add3(ones, p0, p1)
        c1, ones = add3(ones, p2, p3)
        d1, twos = add3(twos, c0, c1)
        carry, fours = add3(fours, d0, d1)
        j = 3
        while carry != ZERO:
            both = planes[j] & carry
            planes[j] ^= carry
            carry = both
            j += 1
    planes[0], planes[1], planes[2] = ones, twos, fours
    # count > half of all, for all 64 at once: compare from the top plane down
    half = np.uint64((2 * n - 1) // 2)
    above, equal = ZERO, _FULL
    for j in range(31, -1, -1):
        bit = _FULL if (half >> np.uint64(j)) & ONE else ZERO
        above |= equal & planes[j] & ~bit
        equal &= ~(planes[j] ^ bit)
    return above if above != ZERO else ONE


@njit
def edges(hashes: U64Array, flags: U8Array, n: int, keys: U64Array) -> tuple[np.uint64, np.uint64]:
    """Hashes of the first and of the last eight words (16 where a word is one character)."""
    k0, k1 = keys[K_TEXT0], keys[K_TEXT1]
    head = weight = 0
    while head < n and weight < 16:
        weight += 1 if flags[head] & F_ALONE else 2
        head += 1
    tail, weight = n, 0
    while tail > 0 and weight < 16:
        tail -= 1
        weight += 1 if flags[tail] & F_ALONE else 2
    # the lengths keep a prefix and a tail of the same words apart from each other
    return sip_words(k0 ^ ONE, k1, hashes, 0, head), sip_words(k0, k1 ^ ONE, hashes, tail, n)


@njit
def is_template(count: I64Array, words: int) -> bool:
    """Whether a text is read with its slots masked; a text that is hardly more than slots is read word by word."""
    return bool(count[N_PLAIN] >= _PLAIN_ENOUGH or count[N_PLAIN] == words)


@njit
def print_rows(
    wanted: U8Array, keys: U64Array, w_hash: U64Array, w_flag: U8Array, w_at: I64Array,
    m_hash: U64Array, m_flag: U8Array, m_at: I64Array, counts: I64Array, similar: bool,
    hashes: U64Array, bins: U8Array, lowest: U64Array, planes: U64Array,
) -> None:  # fmt: skip
    """Of each ``wanted`` row: ``hashes[r, 1:]`` = skeleton and, if ``similar``, prefix, tail, SimHash; and ``bins``.

    A row without a word keeps what it has. ``lowest`` [BINS] and ``planes`` [PLANES] are room to work in.
    """
    for r in range(len(wanted)):
        if wanted[r] == 0 or w_at[r] == w_at[r + 1]:
            continue
        if is_template(counts[r], w_at[r + 1] - w_at[r]):
            words, flags = m_hash[m_at[r] : m_at[r + 1]], m_flag[m_at[r] : m_at[r + 1]]
        else:
            words, flags = w_hash[w_at[r] : w_at[r + 1]], w_flag[w_at[r] : w_at[r + 1]]
        n = len(words)
        hashes[r, 1] = sip_words(keys[K_TEXT0], keys[K_TEXT1], words, 0, n)
        if similar:
            hashes[r, 2], hashes[r, 3] = edges(words, flags, n, keys)
            hashes[r, 4] = simhash(words, n, keys, planes)
            minhash(words, flags, n, keys, lowest, bins[r])


@njit
def gram_rows(
    wanted: U8Array, keys: U64Array, w_hash: U64Array, w_at: I64Array, m_hash: U64Array, m_at: I64Array,
    counts: I64Array, first_row: int, grams: U64Array, rows: I32Array, found: int,
) -> int:  # fmt: skip
    """Append every 4-word gram of each row and its two edges, with the row's number: how many there are then."""
    for r in range(len(wanted)):
        if wanted[r] == 0:
            continue
        masked = is_template(counts[r], w_at[r + 1] - w_at[r])
        words = m_hash[m_at[r] : m_at[r + 1]] if masked else w_hash[w_at[r] : w_at[r + 1]]
        for i in range(len(words) - GRAM + 1):
            grams[found] = gram(words, i, GRAM, keys)
            rows[found] = first_row + r
            found += 1
        if len(words) >= EDGE:
            for last in (False, True):
                grams[found] = edge_gram(words, len(words), keys, last)
                rows[found] = first_row + r
                found += 1
    return found
