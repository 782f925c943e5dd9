"""The kernels over records: which are plain, where their values lie, and strings copied out. Knows no field's name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.bytewise import copy
from monitor.decode.scan import (
    ABSENT,
    ANY_INTEGER,
    BOOLEAN,
    CODE,
    ESCAPED,
    F64,
    I32,
    I64,
    ID,
    INTEGER,
    LATER,
    NUMBER,
    OBJECT,
    PLAIN,
    STRINGS,
    TEXT,
    TIME,
    U8,
    U64,
    byte,
    hex4,
    literal,
    load,
    name_slot,
    number,
    rfc3339,
    skip,
    space,
    string,
    strings,
)
from monitor.jit import njit

_EXACT = np.int64(1 << 53)
"""Up to here an integer is exact as a float; divided by a power of ten up to 22 it is correctly rounded (Clinger)."""
_POWERS = 10.0 ** np.arange(23)


class Layout(NamedTuple):
    """The fields: each name and a quote as ``name_words`` under ``name_masks`` uint64 [fields, words] and its
    ``name_size`` in bytes; ``slots`` a hash table of names.

    ``kind, required`` uint8 and ``low, high`` float64 [fields]; ``id_length`` characters an id may have. ``words``
    are the spellings of all closed tables joined; those of field ``f`` are ``word_first[f]:word_first[f + 1]``,
    each with its bytes ``word_at`` and its ``word_code``. ``policy`` is the field whose code, if it is not
    ``full``, says something about the ``contents`` fields.
    """

    name_words: U64
    name_masks: U64
    name_size: I64
    slots: I32
    kind: U8
    required: U8
    low: F64
    high: F64
    words: U8
    word_at: I64
    word_first: I64
    word_code: I64
    contents: U8
    policy: int
    full: int
    id_length: int


class Cells(NamedTuple):
    """What was read [records, fields]: a state, the bytes ``start:stop`` of strings and lists, a value of the rest.

    ``number`` holds times and numbers, ``integer`` integers, booleans and codes; both mean nothing where absent.
    """

    state: U8
    start: I32
    stop: I32
    integer: I64
    number: F64


@njit
def _word(data: U8, start: int, stop: int, first: int, last: int, words: U8, word_at: I64) -> int:
    """Which of the spellings ``first`` to ``last`` - 1 is ``data[start:stop]``; -1 where none is."""
    for w in range(first, last):
        at = word_at[w]
        if word_at[w + 1] - at == stop - start:
            j = 0
            while j < stop - start and byte(data, start + j) == words[at + j]:
                j += 1
            if j == stop - start:
                return w
    return -1


@njit
def _is_name(data: U8, i: int, f: int, name_words: U64, name_masks: U64) -> bool:
    """Whether the bytes at ``i`` are the name of field ``f`` and a quote: eight at a time."""
    for w in range(name_words.shape[1]):
        mask = name_masks[f, w]
        if mask == 0:
            break
        if (load(data, i + 8 * w) & mask) != name_words[f, w]:
            return False
    return True


@njit
def _field(data: U8, i: int, stop: int, slots: I32, name_words: U64, name_masks: U64) -> int:
    """The field whose name is ``data[i:stop]``, a quote behind it; -1 where none has it."""
    if stop == i:
        return -1
    slot = name_slot(data, i, stop - i, len(slots))
    while slots[slot] >= 0:
        f = int(slots[slot])
        if _is_name(data, i, f, name_words, name_masks):
            return f
        slot = (slot + 1) & (len(slots) - 1)
    return -1


@njit
def read_records(
    data: U8, at: I64, wanted: U8, guess: I64,
    name_words: U64, name_masks: U64, name_size: I64, slots: I32, kind: U8, required: U8, low: F64, high: F64,
    words: U8, word_at: I64, word_first: I64, word_code: I64, contents: U8, policy: int, full: int, id_length: int,
    state: U8, start: I32, stop: I32, integer: I64, real: F64,
) -> None:  # fmt: skip
    """Read each ``wanted`` record ``data[at[r]:at[r + 1]]`` into its row; ``wanted`` becomes 0 where it is not plain.

    ``data`` must have ``messages.PADDING`` bytes more, ``state`` be zeros; ``guess`` [fields + 1], -1 at first, is the
    field that came after each one last time. The rest are the members of :class:`Layout` and of :class:`Cells`, one by
    one and all in one function: to take an array out of a tuple, or to hand it on, counts a reference, and the records
    of the bench then take 10.3 us each instead of 3.
    """
    fields, needed = len(kind), np.sum(required)
    for r in range(len(wanted)):
        if not wanted[r]:
            continue
        wanted[r] = 0
        i, end = at[r], at[r + 1]
        last, content, many = fields, False, 0
        i = space(data, i, end)
        if i >= end or byte(data, i) != 0x7B:
            continue
        i = space(data, i + 1, end)
        while i < end and byte(data, i) == 0x22:
            i += 1
            f = guess[last]
            if f >= 0 and _is_name(data, i, f, name_words, name_masks):
                i += name_size[f] + 1
            else:
                e, found = string(data, i, end)
                if e < 0 or found != PLAIN:
                    break
                f = _field(data, i, e, slots, name_words, name_masks)
                if f >= 0:
                    guess[last] = f
                i = e + 1
            i = space(data, i, end)
            if i >= end or byte(data, i) != 0x3A:
                break
            i = space(data, i + 1, end)
            if i >= end:
                break
            b, begin, found = byte(data, i), i, PLAIN
            if f < 0:
                i = skip(data, i, end)
            elif state[r, f] != ABSENT:
                break  # a name that occurs twice
            elif b == 0x6E:
                i, what = literal(data, i, end)
                last = f
                if what != 0 or required[f]:
                    break
            else:
                last = f
                k = kind[f]
                if b == 0x22 and k <= CODE:
                    begin = i + 1
                    i, found = string(data, begin, end)
                    if i < 0 or (found == ESCAPED and k != TEXT):
                        break
                    if k == ID and not 1 <= i - begin <= id_length:
                        break
                    if k == CODE:
                        w = _word(data, begin, i, word_first[f], word_first[f + 1], words, word_at)
                        if w < 0:
                            break
                        integer[r, f] = word_code[w]
                    if k == TIME:
                        x = rfc3339(data, begin, i)
                        if not low[f] <= x <= high[f]:
                            break
                        real[r, f] = x
                    start[r, f], stop[r, f] = begin, i
                    i += 1
                elif k == TIME or INTEGER <= k <= NUMBER:
                    i, value, power, found = number(data, i, end)
                    if i < 0:
                        break
                    if k <= ANY_INTEGER and k != TIME:
                        if found != PLAIN or power != 1 or not low[f] <= value <= high[f]:
                            break
                        integer[r, f] = value
                    elif found == LATER or abs(value) > _EXACT or power < -22:
                        found = LATER
                        start[r, f], stop[r, f] = begin, i
                    else:
                        x = np.float64(value)
                        if power < 0:
                            x /= _POWERS[-power]
                        if not low[f] <= x <= high[f]:
                            break
                        real[r, f] = x
                elif k == BOOLEAN:
                    i, what = literal(data, i, end)
                    integer[r, f] = what - 1
                else:
                    if k == STRINGS and b == 0x5B:
                        i = strings(data, i, end)
                    elif k == OBJECT and b == 0x7B:
                        i = skip(data, i, end)
                    else:
                        break
                    start[r, f], stop[r, f] = begin, i
                state[r, f] = found
                content = content or contents[f] == 1
                many += required[f]
            if i < 0:
                break
            i = space(data, i, end)
            if i < end and byte(data, i) == 0x7D:
                good = space(data, i + 1, end) == end and many == needed
                if content and state[r, policy] != ABSENT and integer[r, policy] != full:
                    good = False
                wanted[r] = good
                break
            if i >= end or byte(data, i) != 0x2C:
                break
            i = space(data, i + 1, end)


@njit
def _unescape(data: U8, i: int, stop: int, out: U8, o: int) -> int:
    """Copy a string with escapes that :func:`string` found good; the new end of ``out``."""
    while i < stop:
        b = byte(data, i)
        if b != 0x5C:
            out[o] = b
            o += 1
            i += 1
            continue
        e = byte(data, i + 1)
        i += 2
        if e != 0x75:
            if e == 0x6E:
                e = np.uint8(0x0A)
            elif e == 0x74:
                e = np.uint8(0x09)
            elif e == 0x72:
                e = np.uint8(0x0D)
            elif e == 0x62:
                e = np.uint8(0x08)
            elif e == 0x66:
                e = np.uint8(0x0C)
            out[o] = e
            o += 1
            continue
        p = hex4(data, i)
        i += 4
        if 0xD800 <= p < 0xDC00:
            p = 0x10000 + ((p - 0xD800) << 10) + (hex4(data, i + 2) - 0xDC00)
            i += 6
        if p < 0x80:
            out[o] = p
            o += 1
            continue
        size = 2 if p < 0x800 else 3 if p < 0x10000 else 4
        for j in range(size - 1, 0, -1):
            out[o + j] = 0x80 | (p & 0x3F)
            p >>= 6
        out[o] = p | (0xC0 if size == 2 else 0xE0 if size == 3 else 0xF0)
        o += size
    return o


@njit
def copy_strings(data: U8, rows: I64, state: U8, start: I32, stop: I32, f: int, offsets: I64, out: U8) -> int:
    """The strings of field ``f`` in ``rows`` (``state`` [rows]), one after the other; returns their bytes."""
    o = int(np.int64(0))  # no literal: what it is passed to would be compiled twice
    for k in range(len(rows)):
        if state[k] != ABSENT:
            i, end = int(start[rows[k], f]), int(stop[rows[k], f])
            o = _unescape(data, i, end, out, o) if state[k] == ESCAPED else copy(data, i, end, out, o)
        offsets[k + 1] = o
    return o


@njit
def copy_lists(data: U8, rows: I64, state: U8, start: I32, stop: I32, f: int, offsets: I64, ends: I64, out: U8) -> int:
    """The strings of the lists of field ``f`` in ``rows``: ``ends[1:]`` of each, ``offsets`` of rows; how many."""
    count, o = 0, 0
    for k in range(len(rows)):
        if state[k] != ABSENT:
            inside = False
            for i in range(start[rows[k], f], stop[rows[k], f]):
                if byte(data, i) == 0x22:
                    inside = not inside
                    if not inside:
                        count += 1
                        ends[count] = o
                elif inside:
                    out[o] = byte(data, i)
                    o += 1
        offsets[k + 1] = count
    return count
