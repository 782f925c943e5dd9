"""Counting the classes of ASCII characters in a run of bytes, eight bytes to a machine word. Knows no word and no text.

A class is one or more ranges of bytes. For seven-bit bytes ``x``, ``x + (0x80 - a)`` has its high bit set where
``x >= a``, so two additions test a range in eight bytes at once (Warren, Hacker's Delight, 2013, chapter 6), and the
compiler makes whole vectors of these words. The hits add up in the bytes of one word a class. A loop over single
bytes took 1.7 ns a byte here, this 0.2.
"""

from __future__ import annotations

import numpy as np

from monitor.jit import njit
from monitor.siphash import ZERO, U8Array, load64

from .codepoints import LATIN
from .scan import (
    CHARS,
    CODES,
    DIGITS,
    LETTERS,
    NEWLINES,
    NON_ASCII,
    PUNCTS,
    SCRIPT0,
    SPACES,
    UPPER,
    I64Array,
)  # fmt: skip

_EACH = 0x0101010101010101
_HIGH, _LOW7, _CASE = (np.uint64(b * _EACH) for b in (0x80, 0x7F, 0x20))
_S1, _S7, _S8, _S48 = (np.uint64(n) for n in (1, 7, 8, 48))
_EVEN, _PAIRS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0001000100010001)
_MOST = 255  # words whose hits fit in a byte each
_NOTHING = 0x80  # a byte that is of no class and begins no character


def _range(first: int, last: int) -> tuple[np.uint64, np.uint64]:
    return np.uint64((0x80 - first) * _EACH), np.uint64((0x7F - last) * _EACH)


_LOWER, _UPPER, _DIGIT, _LINE, _BLANK = (
    _range(*ends) for ends in ((0x61, 0x7A), (0x41, 0x5A), (0x30, 0x39), (0x0A, 0x0A), (0x20, 0x20))
)
_WHITE, _CONTROL, _DELETE = _range(0x09, 0x0D), _range(0x0E, 0x1F), _range(0x7F, 0x7F)
_HASH, _STAR, _SLASH, _LESS, _AT, _BRACKET, _BRACE = (
    _range(*ends)
    for ends in ((0x23, 0x26), (0x2A, 0x2B), (0x2F, 0x2F), (0x3C, 0x3E), (0x40, 0x40), (0x5B, 0x60), (0x7B, 0x7E))
)


@njit
def _within(x: np.uint64, ends: tuple[np.uint64, np.uint64]) -> np.uint64:
    """The high bit of each seven-bit byte that lies in a range."""
    return (x + ends[0]) & ~(x + ends[1])


@njit
def _sum(hits: np.uint64) -> int:
    """Of the eight bytes."""
    return int(np.int64((((hits & _EVEN) + ((hits >> _S8) & _EVEN)) * _PAIRS) >> _S48))


@njit
def _count_words(data: U8Array, begin: int, words: int, count: I64Array) -> None:
    """Add the classes of ``words`` (at most 255) times eight bytes from ``begin`` on."""
    onward = other = letters = upper = digits = spaces = lines = control = codes = ZERO
    for k in range(words):
        raw = load64(data, begin + 8 * k)
        x = raw & _LOW7
        ascii_only = ~raw & _HIGH
        other += (raw & _HIGH) >> _S7
        onward += (raw & ~(raw << _S1) & _HIGH) >> _S7  # bytes of a character that began before
        letters += (_within(x | _CASE, _LOWER) & ascii_only) >> _S7
        upper += (_within(x, _UPPER) & ascii_only) >> _S7
        digits += (_within(x, _DIGIT) & ascii_only) >> _S7
        line = _within(x, _LINE)
        lines += (line & ascii_only) >> _S7
        spaces += ((_within(x, _BLANK) | (_within(x, _WHITE) & ~line)) & ascii_only) >> _S7
        control += ((~(x + _WHITE[0]) | _within(x, _CONTROL) | _within(x, _DELETE)) & ascii_only) >> _S7
        code = _within(x, _HASH) | _within(x, _STAR) | _within(x, _SLASH) | _within(x, _LESS)
        code |= _within(x, _AT) | _within(x, _BRACKET) | _within(x, _BRACE)
        codes += (code & ascii_only) >> _S7
    chars, plain = 8 * words - _sum(onward), 8 * words - _sum(other)
    known = _sum(letters) + _sum(digits) + _sum(spaces) + _sum(lines) + _sum(codes) + _sum(control)
    count[CHARS] += chars
    count[NON_ASCII] += chars - plain
    count[LETTERS] += _sum(letters)
    count[UPPER] += _sum(upper)
    count[DIGITS] += _sum(digits)
    count[SPACES] += _sum(spaces)
    count[NEWLINES] += _sum(lines)
    count[CODES] += _sum(codes)
    count[PUNCTS] += plain - known
    count[SCRIPT0 + LATIN] += _sum(letters)


@njit
def count_ascii(data: U8Array, begin: int, end: int, count: I64Array, room: U8Array) -> None:
    """Add the classes of ASCII in ``data[begin:end]`` and the characters to ``count``; ``room`` is for eight bytes."""
    i = begin
    while i + 8 <= end:
        words = min((end - i) // 8, _MOST)
        _count_words(data, i, words, count)
        i += 8 * words
    if i < end:
        for k in range(8):
            room[k] = data[i + k] if i + k < end else np.uint8(_NOTHING)
        _count_words(room, 0, 1, count)
