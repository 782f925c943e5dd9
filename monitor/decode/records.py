"""The kernels over records: which are plain, where their values lie, and strings copied out. Knows no field's name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    PLAIN,
    STRINGS,
    TEXT,
    TIME,
    U8,
    hex4,
    literal,
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
    """The fields: ``names`` joined, field ``f`` at ``name_at[f]:name_at[f + 1]``; ``slots`` a hash table of names.

    ``kind, required`` uint8 and ``low, high`` float64 [fields]; ``id_length`` characters an id may have. ``words``
    are the spellings of all closed tables joined; those of field ``f`` are ``word_first[f]:word_first[f + 1]``,
    each with its bytes ``word_at`` and its ``word_code``. ``policy`` is the field whose code, if it is not
    ``full``, says something about the ``content`` fields.
    """

    names: U8
    name_at: I64
    slots: I32
    kind: U8
    required: U8
    low: F64
    high: F64
    words: U8
    word_at: I64
    word_first: I64
    word_code: I64
    content: U8
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
def _word(data: U8, start: int, stop: int, f: int, layout: Layout) -> int:
    """Code of a word of field ``f``; 0 where the table has no such spelling."""
    for w in range(layout.word_first[f], layout.word_first[f + 1]):
        at = layout.word_at[w]
        if layout.word_at[w + 1] - at == stop - start:
            j = 0
            while j < stop - start and data[start + j] == layout.words[at + j]:
                j += 1
            if j == stop - start:
                return int(layout.word_code[w])
    return 0


@njit
def _is_name(data: U8, i: int, f: int, layout: Layout) -> bool:
    """Whether the bytes at ``i`` are the name of field ``f`` and a quote."""
    at, end = layout.name_at[f], layout.name_at[f + 1]
    for j in range(end - at):
        if data[i + j] != layout.names[at + j]:
            return False
    return bool(data[i + end - at] == 0x22)


@njit
def _field(data: U8, i: int, stop: int, layout: Layout) -> int:
    """The field whose name is ``data[i:stop]``, a quote behind it; -1 where none has it."""
    size = stop - i
    if size == 0:
        return -1
    slot = name_slot(data, i, size, len(layout.slots))
    while layout.slots[slot] >= 0:
        f = int(layout.slots[slot])
        if layout.name_at[f + 1] - layout.name_at[f] == size and _is_name(data, i, f, layout):
            return f
        slot = (slot + 1) & (len(layout.slots) - 1)
    return -1


@njit
def _value(data: U8, i: int, end: int, r: int, f: int, layout: Layout, cells: Cells) -> int:
    """Read the value of field ``f`` at ``i`` into its cell; its end, -1 where it is not plain."""
    kind = layout.kind[f]
    b = data[i]
    begin = i
    if b == 0x6E:
        i, what = literal(data, i, end)
        return i if what == 0 and not layout.required[f] else -1
    if b == 0x22 and (kind == ID or kind == TEXT or kind == CODE or kind == TIME):
        begin = i + 1
        i, state = string(data, begin, end)
        if i < 0 or (state == ESCAPED and kind != TEXT):
            return -1
        if kind == ID and not 1 <= i - begin <= layout.id_length:
            return -1
        if kind == CODE:
            cells.integer[r, f] = _word(data, begin, i, f, layout)
            if cells.integer[r, f] == 0:
                return -1
        if kind == TIME:
            x = rfc3339(data, begin, i)
            if not layout.low[f] <= x <= layout.high[f]:
                return -1
            cells.number[r, f] = x
        cells.start[r, f], cells.stop[r, f] = begin, i
        cells.state[r, f] = state
        return i + 1
    if kind == TIME or kind == NUMBER or kind == INTEGER or kind == ANY_INTEGER:
        i, value, power, state = number(data, i, end)
        if i < 0:
            return -1
        if kind == INTEGER or kind == ANY_INTEGER:
            if state != PLAIN or power != 1 or not layout.low[f] <= value <= layout.high[f]:
                return -1
            cells.integer[r, f] = value
        elif state == LATER or abs(value) > _EXACT or power < -22:
            state = LATER
            cells.start[r, f], cells.stop[r, f] = begin, i
        else:
            x = np.float64(value)
            if power < 0:
                x /= _POWERS[-power]
            if not layout.low[f] <= x <= layout.high[f]:
                return -1
            cells.number[r, f] = x
        cells.state[r, f] = state
        return i
    if kind == BOOLEAN:
        i, what = literal(data, i, end)
        cells.integer[r, f] = what - 1
    elif kind == STRINGS and b == 0x5B:
        i = strings(data, i, end)
    elif b == 0x7B and kind > STRINGS:
        i = skip(data, i, end)
    else:
        return -1
    cells.start[r, f], cells.stop[r, f] = begin, i
    cells.state[r, f] = PLAIN
    return i


@njit
def _record(data: U8, i: int, end: int, r: int, layout: Layout, guess: I64, cells: Cells) -> bool:
    """Read one record into row ``r``; whether it is plain. ``guess[f]``: the field that came after ``f`` last time."""
    i = space(data, i, end)
    if i >= end or data[i] != 0x7B:
        return False
    i = space(data, i + 1, end)
    last, content = len(layout.kind), False
    while True:
        if i >= end or data[i] != 0x22:
            return False
        i += 1
        f = int(guess[last])
        if f >= 0 and _is_name(data, i, f, layout):
            i += layout.name_at[f + 1] - layout.name_at[f] + 1
        else:
            stop, state = string(data, i, end)
            if stop < 0 or state != PLAIN:
                return False
            f = _field(data, i, stop, layout)
            if f >= 0:
                guess[last] = f
            i = stop + 1
        i = space(data, i, end)
        if i >= end or data[i] != 0x3A:
            return False
        i = space(data, i + 1, end)
        if i >= end:
            return False
        if f < 0:
            i = skip(data, i, end)
        elif cells.state[r, f] != ABSENT:
            return False  # a name that occurs twice
        else:
            i = _value(data, i, end, r, f, layout, cells)
            content |= layout.content[f] == 1 and cells.state[r, f] != ABSENT
            last = f
        if i < 0:
            return False
        i = space(data, i, end)
        if i >= end:
            return False
        if data[i] == 0x7D:
            break
        if data[i] != 0x2C:
            return False
        i = space(data, i + 1, end)
    if space(data, i + 1, end) != end:
        return False
    for f in range(len(layout.kind)):
        if layout.required[f] and cells.state[r, f] == ABSENT:
            return False
    p = layout.policy
    return not content or cells.state[r, p] == ABSENT or cells.integer[r, p] == layout.full


@njit
def read_records(data: U8, at: I64, wanted: U8, layout: Layout, guess: I64, cells: Cells) -> None:
    """Read each ``wanted`` record ``data[at[r]:at[r + 1]]`` into its row; ``wanted`` becomes 0 where it is not plain.

    ``data`` must have ``PADDING`` bytes more, ``cells.state`` be zeros and ``guess`` -1 [fields + 1].
    """
    for r in range(len(wanted)):
        if wanted[r]:
            wanted[r] = _record(data, at[r], at[r + 1], r, layout, guess, cells)


@njit
def _unescape(data: U8, i: int, stop: int, out: U8, o: int) -> int:
    """Copy a string with escapes that :func:`string` found good; the new end of ``out``."""
    while i < stop:
        b = data[i]
        if b != 0x5C:
            out[o] = b
            o += 1
            i += 1
            continue
        e = data[i + 1]
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
    o = 0
    for k in range(len(rows)):
        if state[k] != ABSENT:
            i, end = int(start[rows[k], f]), int(stop[rows[k], f])
            if state[k] == ESCAPED:
                o = _unescape(data, i, end, out, o)
            else:
                for j in range(end - i):
                    out[o + j] = data[i + j]
                o += end - i
        offsets[k + 1] = o
    return o


@njit
def copy_lists(data: U8, rows: I64, state: U8, start: I32, stop: I32, f: int, offsets: I64, ends: I64, out: U8) -> int:
    """The strings of the lists of field ``f`` in ``rows``; returns how many: ``ends[1:]`` of them, ``offsets`` of rows."""
    count, o = 0, 0
    for k in range(len(rows)):
        if state[k] != ABSENT:
            inside = False
            for i in range(start[rows[k], f], stop[rows[k], f]):
                if data[i] == 0x22:
                    inside = not inside
                    if not inside:
                        count += 1
                        ends[count] = o
                elif inside:
                    out[o] = data[i]
                    o += 1
        offsets[k + 1] = count
    return count
