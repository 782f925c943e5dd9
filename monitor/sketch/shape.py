"""From words and counts to the scalars of a text: shape, lexicon flags, script. Knows no bytes but to count ASCII.

Every scalar depends on the text alone: the key only decides by which hashes the word lists are looked up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.jit import njit
from monitor.siphash import ONE, ZERO, U8Array, U64Array, rotl

from .classes import count_ascii
from .prints import mix
from .scan import (
    CHARS,
    CODES,
    DIGITS,
    ENDS_STOPPED,
    EXCLAMATIONS,
    F_ALONE,
    FENCES,
    K_CHAIN,
    LETTERS,
    LIST_LINES,
    NEWLINES,
    NON_ASCII,
    OPTIONS,
    PUNCTS,
    QUESTIONS,
    QUOTED,
    SCRIPT0,
    SENTENCES,
    SPACES,
    STARTS_UPPER,
    UPPER,
    URLS,
    WORD_CHARS,
    WORDS,
    I64Array,
)  # fmt: skip
from .vocabulary import LEXICON_FLAGS, SCRIPTS

U32Array = npt.NDArray[np.uint32]
I32Array = npt.NDArray[np.int32]

SET_SIZE, SET_WORDS = 2048, 1024  # the set that counts different words: places, and most words that enter it
MAX_PHRASE = 16
# Kinds of word that a list gives, as bits.
STOP, FIRST, SECOND, POLITE, ASK_FIRST, COMMAND_FIRST, ASK, COMMAND = (1 << i for i in range(8))
_ONLY_FIRST = ASK_FIRST | COMMAND_FIRST
# The value of a phrase in the table: flags of the lexicon, number of its entry, whether longer phrases begin so.
HAS_MORE = np.uint64(1 << 62)
_FLAG_BITS, _ENTRY = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF)
_S32, _S33, _S45, _S48, _R21 = (np.uint64(n) for n in (32, 33, 45, 48, 21))
FIRST_BITS, LATER_BITS = 1 << 16, 1 << 19
_SCRIPTS = len(SCRIPTS)
_HAN, _JAPANESE = SCRIPTS.index("han"), SCRIPTS.index("japanese")
_CHOICE = np.uint32(1 << LEXICON_FLAGS.index("multiple_choice"))


@njit
def distinct(hashes: U64Array, n: int, places: U64Array, stamps: I64Array, stamp: int) -> int:
    """Different hashes among the first ``n`` (at most ``SET_WORDS``). ``stamp`` is new for each call: no clearing."""
    found = 0
    for i in range(n):
        h = hashes[i]
        j = int(np.int64(h & np.uint64(SET_SIZE - 1)))
        while stamps[j] == stamp and places[j] != h:
            j = (j + 1) & (SET_SIZE - 1)
        if stamps[j] != stamp:
            stamps[j] = stamp
            places[j] = h
            found += 1
    return found


@njit
def chain(state: np.uint64, word: np.uint64, keys: U64Array) -> np.uint64:
    """Hash of a phrase from that of its beginning (0: none) and its next word; never 0."""
    return mix(rotl(state, _R21) * keys[K_CHAIN] ^ word) | ONE


@njit
def find(table: U64Array, key: np.uint64) -> int:
    """Place of ``key`` in the open-addressing ``table`` of (key, value) pairs; -1 if it is not there."""
    mask = len(table) // 2 - 1
    j = int(np.int64(key >> _S33)) & mask
    while table[2 * j] != ZERO:
        if table[2 * j] == key:
            return 2 * j
        j = (j + 1) & mask
    return -1


@njit
def first_bit(state: np.uint64) -> int:
    """Bit of a phrase's first word, by its chained hash."""
    return int(np.int64(state >> _S48))


@njit
def later_bit(state: np.uint64) -> int:
    """Bit of a phrase's beginning of two words or more."""
    return FIRST_BITS + int(np.int64(state >> _S45))


@njit
def is_set(bits: U64Array, bit: int) -> bool:
    """Whether the bit is set."""
    return bool((bits[bit >> 6] >> np.uint64(bit & 63)) & ONE != ZERO)


@njit
def match(
    hashes: U64Array, n: int, keys: U64Array,
    begins: U64Array, table: U64Array, entry_at: I32Array, entry_language: U8Array, entry_kinds: U8Array,
    hits: I64Array, kinds: I64Array,
) -> tuple[np.uint32, int]:  # fmt: skip
    """Every listed phrase in the stream W: the lexicon's flags, and the kinds of word in the text's language.

    The language is the one with most hits, and only its kinds count: "i" is I in English, the in Italian, and in
    Polish. Among equals the first in the list of languages. ``begins`` are two bitmaps, of the phrases' first words and
    of their beginnings of more words: most of what is looked up is not there, and 72 KB of bits stay in the cache where
    2 MB of table do not. ``hits`` and ``kinds`` are room for one number a language.
    """
    hits[:] = 0
    kinds[:] = 0
    flags = ZERO
    for i in range(n):
        state = chain(ZERO, hashes[i], keys)
        if not is_set(begins, first_bit(state)):
            continue
        for j in range(i, min(n, i + MAX_PHRASE)):
            if j > i:
                state = chain(state, hashes[j], keys)
                if not is_set(begins, later_bit(state)):
                    break
            place = find(table, state)
            if place < 0:
                break
            value = table[place + 1]
            flags |= value & _FLAG_BITS
            entry = np.int64((value >> _S32) & _ENTRY)
            for e in range(entry_at[entry], entry_at[entry + 1]):
                kind = np.int64(entry_kinds[e])
                if i > 0:
                    kind &= ~_ONLY_FIRST
                language = entry_language[e]
                hits[language] += 1
                kinds[language] |= kind
            if value & HAS_MORE == ZERO:
                break
    best = 0
    for language in range(1, len(hits)):
        if hits[language] > hits[best]:
            best = language
    return np.uint32(flags), kinds[best]


@njit
def share(part: int, whole: int) -> np.uint8:
    """255 x sqrt(part / whole), 0 where there is no whole."""
    if whole <= 0 or part <= 0:
        return np.uint8(0)
    return np.uint8(min(255.0, np.floor(255.0 * np.sqrt(part / whole) + 0.5)))


@njit
def logarithm(x: float, scale: float) -> np.uint8:
    """scale x log2(1 + x), at most 255."""
    return np.uint8(min(255.0, np.floor(scale * np.log2(1.0 + x) + 0.5)))


@njit
def fill_shape(count: I64Array, size: int, alone: int, unique: int, kinds: int, out: U8Array) -> None:
    """The 24 scalars (``vocabulary.SHAPE_NAMES``) from what was counted; ``alone`` words are single characters."""
    chars, words = count[CHARS], count[WORDS]
    out[0] = logarithm(chars, 12.0)
    out[1] = share(count[UPPER], count[LETTERS])
    out[2] = share(count[DIGITS], chars)
    out[3] = share(count[SPACES] + count[NEWLINES], chars)
    out[4] = share(count[PUNCTS], chars)
    out[5] = share(count[CODES], chars)
    out[6] = share(count[NEWLINES], chars)
    out[7] = share(count[NON_ASCII], chars)
    out[8] = share(unique, min(words, SET_WORDS))
    out[9] = np.uint8(min(255.0, np.floor(16.0 * count[WORD_CHARS] / max(words, 1) + 0.5)))
    # two characters of a script without spaces pass for a word
    out[10] = logarithm((words - alone + alone / 2) / max(count[SENTENCES], 1), 32.0)
    out[11] = share(count[LIST_LINES], count[NEWLINES] + 1)
    out[12] = share(count[QUOTED], size)
    flags = (
        count[URLS], count[QUESTIONS], count[EXCLAMATIONS], count[FENCES], kinds & FIRST, kinds & SECOND,
        kinds & POLITE, kinds & (ASK | ASK_FIRST), kinds & (COMMAND | COMMAND_FIRST), count[STARTS_UPPER],
        count[ENDS_STOPPED],
    )  # fmt: skip
    for i in range(11):
        out[13 + i] = 255 if flags[i] > 0 else 0


@njit
def main_script(count: I64Array) -> np.uint8:
    """Index of the script of most letters; Japanese where kana are a tenth of its characters, 0 without a letter."""
    han, kana = count[SCRIPT0 + _HAN], count[SCRIPT0 + _JAPANESE]
    if kana * 9 >= han:
        count[SCRIPT0 + _JAPANESE], count[SCRIPT0 + _HAN] = han + kana, 0
    best = 0
    for i in range(1, _SCRIPTS):
        if count[SCRIPT0 + i] > (count[SCRIPT0 + best] if best > 0 else 0):
            best = i
    return np.uint8(best)


@njit
def scalar_rows(
    data: U8Array, offsets: I64Array, wanted: U8Array, keys: U64Array,
    w_hash: U64Array, w_flag: U8Array, w_at: I64Array, counts: I64Array,
    begins: U64Array, table: U64Array, entry_at: I32Array, entry_language: U8Array, entry_kinds: U8Array,
    places: U64Array, stamps: I64Array, hits: I64Array, kinds_of: I64Array, room: U8Array,
    shape: U8Array, lexicon: U32Array, script: U8Array,
) -> None:  # fmt: skip
    """Shape, lexicon flags and script of each ``wanted`` row; see ``lexicon.Tables`` for the tables.

    Room to work in: ``places`` and ``stamps`` [SET_SIZE], the latter at first -1; ``hits`` and ``kinds_of``
    [languages]; ``room`` [8].
    """
    for r in range(len(offsets) - 1):
        if wanted[r] == 0:
            continue
        count = counts[r]
        count_ascii(data, offsets[r], offsets[r + 1], count, room)
        hashes, n = w_hash[w_at[r] : w_at[r + 1]], w_at[r + 1] - w_at[r]
        script[r] = main_script(count)
        flags, kinds = match(hashes, n, keys, begins, table, entry_at, entry_language, entry_kinds, hits, kinds_of)
        lexicon[r] = flags | (_CHOICE if count[OPTIONS] >= 3 else np.uint32(0))
        alone = int(np.int64(0))  # no literal: what it is passed to would be compiled twice
        for i in range(w_at[r], w_at[r + 1]):
            alone += w_flag[i] & F_ALONE
        unique = distinct(hashes, min(n, SET_WORDS), places, stamps, r)
        fill_shape(count, offsets[r + 1] - offsets[r], alone, unique, kinds, shape[r])
