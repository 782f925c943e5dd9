"""The compiled reader of plain records: JSON bytes to spans and numbers, one row a record. Knows no field's name.

It accepts a strict subset of what the typed struct of ``monitor.decode.wire`` accepts, with the same values; on the
least doubt a record is left to that one: a repeated name, an escape in a name or an id, a word outside its table,
an integer written as a float, bytes that are not UTF-8. It runs without the interpreter's lock.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.jit import njit

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

TIME, ID, TEXT, CODE, INTEGER, ANY_INTEGER, NUMBER, BOOLEAN, STRINGS, OBJECT = range(10)
"""Kinds of value, as the kernel tells them apart."""
ABSENT, PLAIN, ESCAPED, LATER = range(4)
"""States of a value: not there or null; as it stands; a string with escapes; a number for Python's own float()."""
MAX_DEPTH = 32
"""Deeper nesting is left to the other reader."""
_DIGITS = 18
_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _SLASHES, _SPACES = (np.uint64(b * 0x0101010101010101) for b in (0x22, 0x5C, 0x20))
_MONTHS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


@njit
def name_slot(data: U8, start: int, size: int, slots: int) -> int:
    """Where a name begins to be looked for in the hash table (``slots`` is a power of two)."""
    first, middle, last = np.int64(data[start]), np.int64(data[start + size // 2]), np.int64(data[start + size - 1])
    h = size * 131 + first * 31 + last * 7 + middle
    return int((h * 0x9E3779B1 >> 12) & (slots - 1))


@njit
def space(data: U8, i: int, end: int) -> int:
    """The first byte from ``i`` that is no white space; ``end`` where all are."""
    while i < end:
        b = byte(data, i)
        if b > 0x20 or not (b == 0x20 or b == 0x0A or b == 0x0D or b == 0x09):
            break
        i += 1
    return i


@njit
def byte(data: U8, i: int) -> np.uint8:
    """The byte at ``i``. An unsigned index: for a signed one numba tests for a wrap-around, 1.7 times slower in all."""
    found: np.uint8 = data[np.uint64(i)]
    return found


@njit
def load(data: U8, i: int) -> np.uint64:
    """Eight bytes at ``i``, little endian: one load."""
    j = np.uint64(i)
    x = np.uint64(data[j])
    x |= np.uint64(data[j + np.uint64(1)]) << np.uint64(8)
    x |= np.uint64(data[j + np.uint64(2)]) << np.uint64(16)
    x |= np.uint64(data[j + np.uint64(3)]) << np.uint64(24)
    x |= np.uint64(data[j + np.uint64(4)]) << np.uint64(32)
    x |= np.uint64(data[j + np.uint64(5)]) << np.uint64(40)
    x |= np.uint64(data[j + np.uint64(6)]) << np.uint64(48)
    x |= np.uint64(data[j + np.uint64(7)]) << np.uint64(56)
    return x


@njit
def hex4(data: U8, i: int) -> int:
    """Four hex digits, -1 where they are not."""
    value = 0
    for j in range(4):
        b = int(np.int64(byte(data, i + j)))
        if 0x30 <= b <= 0x39:
            b -= 0x30
        else:
            b = (b | 0x20) - 0x57
            if b < 10 or b > 15:
                return -1
        value = value * 16 + b
    return value


@njit
def utf8(data: U8, i: int, end: int) -> int:
    """Bytes of the well-formed character above ASCII at ``i``; 0 where there is none."""
    b = np.int64(byte(data, i))
    size = 2 if 0xC2 <= b < 0xE0 else 3 if 0xE0 <= b < 0xF0 else 4 if 0xF0 <= b < 0xF5 else 0
    if size == 0 or i + size > end:
        return 0
    second = np.int64(byte(data, i + 1))
    if (b == 0xE0 and second < 0xA0) or (b == 0xED and second > 0x9F):
        return 0
    if (b == 0xF0 and second < 0x90) or (b == 0xF4 and second > 0x8F):
        return 0
    for j in range(1, size):
        if byte(data, i + j) & 0xC0 != 0x80:
            return 0
    return size


@njit
def string(data: U8, i: int, end: int) -> tuple[int, int]:
    """(its closing quote, PLAIN or ESCAPED) of the string whose first byte is ``i``; (-1, 0) where it is not good."""
    state = PLAIN
    while i < end:
        x = load(data, i)
        quote, slash = x ^ _QUOTES, x ^ _SLASHES
        found = (((quote - _ONES) & ~quote) | ((slash - _ONES) & ~slash) | ((x - _SPACES) & ~x) | x) & _HIGHS
        if found == 0:
            i += 8
            continue
        # Lower bytes are right for certain: borrows of these tests only run upwards.
        low = ((found & (~found + np.uint64(1))) >> np.uint64(7)) - np.uint64(1)
        i += int(np.int64(((low & _ONES) * _ONES) >> np.uint64(56)))
        if i >= end:
            break
        b = byte(data, i)
        if b == 0x22:
            return i, state
        if b == 0x5C:
            state = ESCAPED
            e = byte(data, i + 1)
            if e == 0x75:
                value = hex4(data, i + 2)
                if value < 0 or i + 6 > end:
                    return -1, 0
                i += 6
                if 0xD800 <= value < 0xE000:
                    pair = byte(data, i) == 0x5C and byte(data, i + 1) == 0x75 and value < 0xDC00
                    if not pair or not 0xDC00 <= hex4(data, i + 2) < 0xE000:
                        return -1, 0
                    i += 6
            elif e == 0x22 or e == 0x5C or e == 0x2F or e == 0x62 or e == 0x66 or e == 0x6E or e == 0x72 or e == 0x74:
                i += 2
            else:
                return -1, 0
        elif b < 0x20:
            return -1, 0
        elif b < 0x80:
            i += 1
        else:
            while i < end and byte(data, i) >= 0x80:
                size = utf8(data, i, end)
                if size == 0:
                    return -1, 0
                i += size
    return -1, 0


@njit
def number(data: U8, i: int, end: int) -> tuple[int, int, int, int]:
    """(end, digits as an integer, power of ten, state) of a JSON number; end -1 where it is none.

    LATER: more digits than are kept, or an exponent; the integer then means nothing. The power is 1 for a number
    without a point, else 0 or less.
    """
    negative = byte(data, i) == 0x2D
    i += negative
    if i >= end or not 0x30 <= byte(data, i) <= 0x39:
        return -1, 0, 0, ABSENT
    if byte(data, i) == 0x30 and i + 1 < end and 0x30 <= byte(data, i + 1) <= 0x39:
        return -1, 0, 0, ABSENT
    value, digits, power, state = np.int64(0), 0, 1, PLAIN
    while i < end and 0x30 <= byte(data, i) <= 0x39:
        if digits < _DIGITS:
            value = value * 10 + (np.int64(byte(data, i)) - 0x30)
        digits += 1
        i += 1
    if i < end and byte(data, i) == 0x2E:
        first = i + 1
        i += 1
        power = 0
        while i < end and 0x30 <= byte(data, i) <= 0x39:
            if digits < _DIGITS:
                value = value * 10 + (np.int64(byte(data, i)) - 0x30)
            power -= 1
            digits += 1
            i += 1
        if i == first:
            return -1, 0, 0, ABSENT
    if digits > _DIGITS:
        state = LATER
    if i < end and (byte(data, i) | 0x20) == 0x65:
        state = LATER
        i += 1
        if i < end and (byte(data, i) == 0x2B or byte(data, i) == 0x2D):
            i += 1
        first = i
        while i < end and 0x30 <= byte(data, i) <= 0x39:
            i += 1
        if i == first or i - first > 2:  # 1e999: what the other reader says
            return -1, 0, 0, ABSENT
    return i, int(-value if negative else value), power, state


@njit
def literal(data: U8, i: int, end: int) -> tuple[int, int]:
    """(end, 0 null, 1 false, 2 true) of a literal; end -1 where it is none."""
    if i + 4 <= end:
        word = load(data, i) & np.uint64(0xFFFFFFFF)
        if word == np.uint64(0x6C6C756E):
            return i + 4, 0
        if word == np.uint64(0x65757274):
            return i + 4, 2
        if word == np.uint64(0x736C6166) and i + 5 <= end and byte(data, i + 4) == 0x65:
            return i + 5, 1
    return -1, 0


@njit
def skip(data: U8, i: int, end: int) -> int:
    """The end of any JSON value at ``i``; -1 where it is not good or nested deeper than ``MAX_DEPTH``."""
    kinds, depth = np.int64(0), 0  # a bit a level: 1 for an object
    while True:
        i = space(data, i, end)
        if i >= end:
            return -1
        b = byte(data, i)
        opened = b == 0x7B or b == 0x5B
        if opened:
            if depth == MAX_DEPTH:
                return -1
            kinds = kinds << 1 | np.int64(b == 0x7B)
            depth += 1
            i = space(data, i + 1, end)
            if i >= end:
                return -1
        elif b == 0x22:
            i, _ = string(data, i + 1, end)
            if i < 0:
                return -1
            i += 1
        elif b == 0x2D or 0x30 <= b <= 0x39:
            i, _, _, _ = number(data, i, end)
        else:
            i, _ = literal(data, i, end)
        if i < 0:
            return -1
        while True:  # after a value, or right after an opening
            if depth == 0:
                return i
            i = space(data, i, end)
            if i >= end:
                return -1
            if byte(data, i) == (0x7D if kinds & 1 else 0x5D):
                kinds >>= 1
                depth -= 1
                i += 1
                opened = False
                continue
            break
        if not opened:
            if byte(data, i) != 0x2C:
                return -1
            i = space(data, i + 1, end)
        if kinds & 1:
            if i >= end or byte(data, i) != 0x22:
                return -1
            i, _ = string(data, i + 1, end)
            if i < 0:
                return -1
            i = space(data, i + 1, end)
            if i >= end or byte(data, i) != 0x3A:
                return -1
            i += 1


@njit
def two(data: U8, i: int) -> int:
    """Two decimal digits; -1000 where they are not."""
    a, b = int(np.int64(byte(data, i))) - 0x30, int(np.int64(byte(data, i + 1))) - 0x30
    return a * 10 + b if 0 <= a <= 9 and 0 <= b <= 9 else -1000


@njit
def rfc3339(data: U8, i: int, end: int) -> float:
    """Epoch seconds of ``YYYY-MM-DDTHH:MM:SS[.ffffff](Z|+HH:MM)``, which fills ``i:end``; -1 for what is not that."""
    if end - i < 20 or byte(data, i + 4) != 0x2D or byte(data, i + 7) != 0x2D or byte(data, i + 10) != 0x54:
        return -1.0
    if byte(data, i + 13) != 0x3A or byte(data, i + 16) != 0x3A:
        return -1.0
    year = two(data, i) * 100 + two(data, i + 2)
    month, day, hour = two(data, i + 5), two(data, i + 8), two(data, i + 11)
    minute, second = two(data, i + 14), two(data, i + 17)
    if year < 1970 or not 1 <= month <= 12 or day < 1 or not 0 <= hour <= 23:
        return -1.0
    if not 0 <= minute <= 59 or not 0 <= second <= 59:
        return -1.0
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    if day > _MONTHS[month - 1] + (leap and month == 2):
        return -1.0
    i += 19
    micros, digits = np.int64(0), 0
    if byte(data, i) == 0x2E:
        i += 1
        while i < end and 0x30 <= byte(data, i) <= 0x39:
            micros = micros * 10 + (np.int64(byte(data, i)) - 0x30)
            digits += 1
            i += 1
        if not 1 <= digits <= 6:
            return -1.0
    for _ in range(digits, 6):
        micros *= 10
    shift = 0
    if i + 1 == end and byte(data, i) == 0x5A:
        shift = 0
    elif i + 6 == end and (byte(data, i) == 0x2B or byte(data, i) == 0x2D) and byte(data, i + 3) == 0x3A:
        hours, minutes = two(data, i + 1), two(data, i + 4)
        if not 0 <= hours <= 23 or not 0 <= minutes <= 59:
            return -1.0
        shift = (hours * 60 + minutes) * (60 if byte(data, i) == 0x2B else -60)
    else:
        return -1.0
    days = (year - 1970) * 365 + (year - 1969) // 4 - (year - 1901) // 100 + (year - 1601) // 400 + day - 1
    for m in range(month - 1):
        days += _MONTHS[m]
    days += leap and month > 2
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - shift
    return np.float64(seconds * 1_000_000 + micros) / 1e6


@njit
def strings(data: U8, i: int, end: int) -> int:
    """The end of a list of strings without escapes, whose opening bracket is at ``i``; -1 where it is none."""
    i = space(data, i + 1, end)
    if i < end and byte(data, i) == 0x5D:
        return i + 1
    while i < end and byte(data, i) == 0x22:
        i, state = string(data, i + 1, end)
        if i < 0 or state != PLAIN:
            return -1
        i = space(data, i + 1, end)
        if i >= end:
            return -1
        if byte(data, i) == 0x5D:
            return i + 1
        if byte(data, i) != 0x2C:
            return -1
        i = space(data, i + 1, end)
    return -1
