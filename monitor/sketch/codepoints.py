"""Classes of characters: what joins a word, what ends one, what stands alone, and of which script it is.

Ranges by block, written by hand: exact for the languages of the word lists, "other" for the rest. Kernels only; knows
nothing of words or sketches. Arbitrary bytes are allowed: what is not UTF-8 reads as U+FFFD, one byte at a time.
"""

from __future__ import annotations

import numpy as np

from monitor.jit import njit
from monitor.siphash import U8Array

# What a character does to words.
JOIN, PUNCT, SPACE, ALONE, DIGIT, SYMBOL = 0, 1, 2, 3, 4, 5
# Indices of vocabulary.SCRIPTS.
NONE, LATIN, CYRILLIC, GREEK, HAN, KANA, HANGUL, ARABIC, HEBREW, DEVANAGARI, INDIC, THAI, OTHER = range(13)

# Classes of ASCII.
A_LOWER, A_UPPER, A_DIGIT, A_SPACE, A_NEWLINE, A_PUNCT, A_CODE, A_CONTROL = range(8)


def _ascii_classes() -> U8Array:
    table = np.full(128, A_CONTROL, np.uint8)
    for chars, cls in (
        ("abcdefghijklmnopqrstuvwxyz", A_LOWER), ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", A_UPPER), ("0123456789", A_DIGIT),
        (" \t\r\v\f", A_SPACE), ("\n", A_NEWLINE), ("!\"'(),-.:;?", A_PUNCT), ("#$%&*+/<=>@[\\]^_`{|}~", A_CODE),
    ):  # fmt: skip
        table[[ord(c) for c in chars]] = cls
    return table


ASCII_CLASS = _ascii_classes()


@njit
def decode(data: U8Array, i: int, end: int) -> tuple[int, int]:
    """Code point at ``i`` and its bytes; U+FFFD and 1 where ``data`` is not UTF-8 there."""
    c = int(np.int64(data[i]))
    size = 1
    point = c
    if c >= 0x80:
        if 0xC2 <= c < 0xE0:
            size, point = 2, c & 0x1F
        elif 0xE0 <= c < 0xF0:
            size, point = 3, c & 0x0F
        elif 0xF0 <= c < 0xF5:
            size, point = 4, c & 0x07
        else:
            return 0xFFFD, 1
        if i + size > end:
            return 0xFFFD, 1
        for j in range(i + 1, i + size):
            d = int(np.int64(data[j]))
            if d & 0xC0 != 0x80:
                return 0xFFFD, 1
            point = (point << 6) | (d & 0x3F)
    return point, size


@njit
def classify(p: int) -> tuple[int, int]:
    """Kind and script of the code point ``p``, which is not ASCII."""
    if p < 0x370:
        if p < 0xC0:
            if p in (0xAA, 0xB5, 0xBA):
                return JOIN, LATIN
            return (SPACE, NONE) if p in (0xA0, 0x85) else (PUNCT, NONE)
        if p in (0xD7, 0xF7):
            return SYMBOL, NONE
        return JOIN, LATIN if p < 0x2B0 else NONE
    if 0x3400 <= p < 0xA000 or 0x20000 <= p < 0x40000 or 0xF900 <= p < 0xFB00:
        return ALONE, HAN
    if p < 0x530:
        if p in (0x37E, 0x387):
            return PUNCT, NONE
        return JOIN, GREEK if p < 0x400 else CYRILLIC
    if p < 0x900:
        if p < 0x590:
            return (PUNCT, NONE) if 0x55A <= p <= 0x55F or p >= 0x589 else (JOIN, OTHER)
        if p < 0x600:
            return (PUNCT, NONE) if p in (0x5BE, 0x5C0, 0x5C3, 0x5F3, 0x5F4) else (JOIN, HEBREW)
        if p in (0x60C, 0x60D, 0x61B, 0x61E, 0x61F, 0x66A, 0x66B, 0x66C, 0x66D, 0x6D4):
            return PUNCT, NONE
        if 0x660 <= p <= 0x669 or 0x6F0 <= p <= 0x6F9:
            return DIGIT, NONE
        return JOIN, ARABIC if p < 0x700 or 0x750 <= p < 0x780 or p >= 0x8A0 else OTHER
    if p < 0xE00:
        if p in (0x964, 0x965, 0x970):
            return PUNCT, NONE
        if 0x66 <= (p & 0x7F) <= 0x6F:
            return DIGIT, NONE
        return JOIN, DEVANAGARI if p < 0x980 else INDIC
    if p < 0x2000:
        if p < 0xE80:
            if 0xE50 <= p <= 0xE59:
                return DIGIT, NONE
            return (PUNCT, NONE) if p in (0xE3F, 0xE4F, 0xE5A, 0xE5B) else (ALONE, THAI)
        if p < 0xF00 or 0x1000 <= p < 0x10A0 or 0x1780 <= p < 0x1800:
            return ALONE, OTHER
        if 0x1100 <= p < 0x1200:
            return JOIN, HANGUL
        if p >= 0x1E00:
            return JOIN, LATIN if p < 0x1F00 else GREEK
        return JOIN, OTHER
    if p < 0x3040:
        if p < 0x2070:
            if p <= 0x200B or p in (0x2028, 0x2029, 0x202F, 0x205F):
                return SPACE, NONE
            return (JOIN if p in (0x200C, 0x200D, 0x2060) else PUNCT), NONE
        if p < 0x2C00:
            return SYMBOL, NONE
        if p < 0x2E00:
            return JOIN, OTHER
        if p < 0x3000:
            return PUNCT, NONE
        if p == 0x3000:
            return SPACE, NONE
        return (ALONE, HAN) if 0x3005 <= p <= 0x3007 else (PUNCT, NONE)
    if p < 0x3400:
        if p == 0x30FB or p == 0x30A0:
            return PUNCT, NONE
        if p < 0x3100 or 0x31F0 <= p < 0x3200:
            return ALONE, KANA
        if 0x3130 <= p < 0x3190:
            return JOIN, HANGUL
        return (ALONE, OTHER) if p < 0x31F0 else (SYMBOL, NONE)
    if p < 0xE000:
        return JOIN, HANGUL if 0xAC00 <= p < 0xD7B0 else OTHER
    if p < 0x10000:
        if 0xFF00 <= p < 0xFFF0:
            if 0xFF10 <= p <= 0xFF19:
                return DIGIT, NONE
            if 0xFF21 <= p <= 0xFF3A or 0xFF41 <= p <= 0xFF5A:
                return JOIN, LATIN
            return (ALONE, KANA) if 0xFF66 <= p <= 0xFF9F else (PUNCT, NONE)
        if 0xFE00 <= p < 0xFE10 or p == 0xFEFF:
            return JOIN, NONE  # variation selectors, byte-order mark
        if 0xFB50 <= p < 0xFE00 or 0xFE70 <= p < 0xFF00:
            return JOIN, ARABIC
        if 0xFB1D <= p < 0xFB50:
            return JOIN, HEBREW
        return (PUNCT, NONE) if 0xFE10 <= p < 0xFE70 else (SYMBOL, NONE)
    return (SYMBOL, NONE) if 0x1F000 <= p < 0x20000 or p >= 0xE0000 else (JOIN, OTHER)


@njit
def fold(p: int) -> int:
    """Lower case of the code point ``p`` where it is written with as many bytes, else ``p``: Latin, Greek, Cyrillic."""
    if p < 0x100:
        return p + 0x20 if 0xC0 <= p <= 0xDE and p != 0xD7 else p
    if p < 0x180:
        if p in (0x130, 0x131, 0x138, 0x149, 0x17F):
            return p
        if p == 0x178:
            return 0xFF
        odd_upper = 0x139 <= p <= 0x148 or 0x179 <= p <= 0x17E
        return p + 1 if (p & 1 == 1) == odd_upper else p
    if p < 0x370:
        return p
    if p < 0x400:
        if 0x391 <= p <= 0x3AB:
            return p + 0x20
        if p == 0x386:
            return 0x3AC
        if 0x388 <= p <= 0x38A:
            return p + 0x25
        if p == 0x38C:
            return 0x3CC
        return p + 0x3F if p in (0x38E, 0x38F) else p
    if p < 0x530:
        if p < 0x410:
            return p + 0x50
        if p < 0x430:
            return p + 0x20
        pairs = 0x460 <= p < 0x482 or 0x48A <= p < 0x4C0 or p >= 0x4D0
        return p + 1 if pairs and p & 1 == 0 else p
    if 0x1E00 <= p < 0x1F00 and not 0x1E96 <= p < 0x1EA0:
        return p + 1 if p & 1 == 0 else p
    return p


@njit
def ends_sentence(p: int) -> bool:
    """A full stop, question or exclamation mark outside ASCII."""
    return p in (0x3002, 0xFF01, 0xFF0E, 0xFF1F, 0x61F, 0x6D4, 0x964, 0x965, 0x2026, 0x203C, 0x2047, 0x2048, 0x2049)


@njit
def closer_of(p: int) -> int:
    """The quotation mark that closes what ``p`` opens; 0 if it opens nothing."""
    if p in (0x22, 0x60):
        return p
    if p == 0x201C:
        return 0x201D
    if p == 0x201E:
        return 0x201C
    if p == 0xAB:
        return 0xBB
    if p in (0x300C, 0x300E):
        return p + 1
    return 0
