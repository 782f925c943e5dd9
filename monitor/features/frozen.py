"""Panes that nothing is added to any more, as bytes: most columns of a quiet account's hour are zero or small.

A pane of one request takes about 90 bytes so, and 570 as it lies while it is written; an account of 26 requests a day
has nine of its hours and eight of its days in the windows. What is frozen is never changed: it is added up where a
window is read (0.15 us a pane), and dropped once no window reaches it.

Layout of one: a bit a number that tells which are not zero (``narrow``, ``wide``, ``hours``, in this order), those
numbers as varints (LEB128, zigzag: small ones of either sign are short), a bit a word of ``bits``, and for each word
that is not zero the cell that is set, or how many cells and which, or all of its eight bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numba.cpython.unsafe.numbers import trailing_zeros

from monitor.jit import njit

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_lowest: Callable[[np.uint64], np.int64] = cast(Any, trailing_zeros)
"""Which bit of a word is its lowest that is set: one instruction. Asking bit by bit took 0.45 us a pane, not 0.15."""
_CELLS = 64
_FEW = 6
"""Cells that are written one by one: from seven on the whole word is shorter."""
_WHOLE = 255


def longest(narrow: int, wide: int, bits: int, hours: int) -> int:
    """Most bytes that a pane of so many columns takes."""
    numbers, words = narrow + wide + hours, bits
    return numbers // 8 + 1 + numbers * 10 + words // 8 + 1 + words * 9


@njit
def _put_number(value: np.int64, out: U8, at: int) -> int:
    """Zigzag and LEB128; returns where the next one goes."""
    rest = np.uint64((value << np.int64(1)) ^ (value >> np.int64(63)))
    while rest >= np.uint64(128):
        out[at] = np.uint8(rest & np.uint64(127)) | np.uint8(128)
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@njit
def _put_word(word: np.uint64, out: U8, at: int) -> int:
    """The cells of one word that is not zero; returns where the next one goes."""
    one = np.uint64(1)
    n = 0
    rest = word
    while rest != 0:
        rest &= rest - one
        n += 1
    if n > _FEW:
        out[at] = _WHOLE
        for b in range(8):
            out[at + 1 + b] = np.uint8((word >> np.uint64(8 * b)) & np.uint64(255))
        return at + 9
    if n > 1:
        out[at] = _CELLS + n
        at += 1
    for cell in range(_CELLS):
        if (word >> np.uint64(cell)) & one != 0:
            out[at] = cell
            at += 1
    return at


@njit
def encode(p: int, narrow: I32, wide: I64, bits: U64, hours: I32, out: U8) -> int:
    """Pane ``p`` of these arrays [panes, columns] into ``out``, which has room for :func:`longest`; its length."""
    numbers = narrow.shape[1] + wide.shape[1] + hours.shape[1]
    at: int = numbers // 8 + 1
    for b in range(at):
        out[b] = 0
    i = 0
    for c in range(narrow.shape[1]):
        if narrow[p, c] != 0:
            out[i >> 3] |= np.uint8(1 << (i & 7))
            at = _put_number(np.int64(narrow[p, c]), out, at)
        i += 1
    for c in range(wide.shape[1]):
        if wide[p, c] != 0:
            out[i >> 3] |= np.uint8(1 << (i & 7))
            at = _put_number(np.int64(wide[p, c]), out, at)
        i += 1
    for c in range(hours.shape[1]):
        if hours[p, c] != 0:
            out[i >> 3] |= np.uint8(1 << (i & 7))
            at = _put_number(np.int64(hours[p, c]), out, at)
        i += 1
    told = at
    at += bits.shape[1] // 8 + 1
    for b in range(told, at):
        out[b] = 0
    for c in range(bits.shape[1]):
        if bits[p, c] != 0:
            out[told + (c >> 3)] |= np.uint8(1 << (c & 7))
            at = _put_word(bits[p, c], out, at)
    return at


@njit
def thaw(at: int, data: U8, narrow: I64, wide: I64, bits: U64, hours: I64) -> None:
    """Add the pane that lies at ``data[at:]`` to these sums [columns]; their lengths are those it was encoded with."""
    n_narrow, n_wide = len(narrow), len(wide)
    one = np.uint64(1)
    told = at
    told_bytes = (n_narrow + n_wide + len(hours)) // 8 + 1
    at += told_bytes
    for first in range(0, told_bytes, 8):
        these = np.uint64(0)
        for b in range(min(8, told_bytes - first)):
            these |= np.uint64(data[told + first + b]) << np.uint64(8 * b)
        while these != 0:
            i = (first << 3) + _lowest(these)
            these &= these - one
            value = np.uint64(data[at])
            at += 1
            if value >= np.uint64(128):
                value &= np.uint64(127)
                shift = np.uint64(7)
                while data[at] >= 128:
                    value |= np.uint64(data[at] & np.uint8(127)) << shift
                    shift += np.uint64(7)
                    at += 1
                value |= np.uint64(data[at]) << shift
                at += 1
            number = np.int64(value >> one) ^ -np.int64(value & one)
            if i < n_narrow:
                narrow[i] += number
            elif i < n_narrow + n_wide:
                wide[i - n_narrow] += number
            else:
                hours[i - n_narrow - n_wide] += number
    told = at
    at += len(bits) // 8 + 1
    for c in range(len(bits)):
        if (data[told + (c >> 3)] >> (c & 7)) & 1:
            head = data[at]
            at += 1
            if head < _CELLS:
                bits[c] |= one << np.uint64(head)
            elif head == _WHOLE:
                for b in range(8):
                    bits[c] |= np.uint64(data[at + b]) << np.uint64(8 * b)
                at += 8
            else:
                for _ in range(head - _CELLS):
                    bits[c] |= one << np.uint64(data[at])
                    at += 1


@njit
def _end(at: int, end: int, data: U8, numbers: int, words: int) -> int:
    """Where the pane at ``data[at:]`` ends by its own bytes; -1 where that is behind ``end``, or they are no pane."""
    told = at
    at += numbers // 8 + 1
    if at > end:
        return -1
    for i in range((numbers // 8 + 1) * 8):
        if (data[told + (i >> 3)] >> (i & 7)) & 1:
            if i >= numbers:
                return -1
            length = 1
            while at < end and data[at] >= 128:
                at += 1
                length += 1
            if at >= end or length > 10:
                return -1
            at += 1
    told = at
    at += words // 8 + 1
    if at > end:
        return -1
    for c in range((words // 8 + 1) * 8):
        if (data[told + (c >> 3)] >> (c & 7)) & 1:
            if c >= words or at >= end:
                return -1
            head = data[at]
            at += 1
            if head == _WHOLE:
                at += 8
            elif head > _CELLS + _FEW or head == _CELLS:
                return -1
            elif head > _CELLS:
                cells = int(head) - _CELLS
                if at + cells > end:
                    return -1
                for _ in range(cells):
                    if data[at] >= _CELLS:
                        return -1
                    at += 1
            if at > end:
                return -1
    return at


@njit
def sound(lengths: I32, data: U8, narrow: int, wide: int, bits: int, hours: int) -> bool:
    """Whether ``data`` is panes of these lengths and columns and nothing else: :func:`thaw` trusts what it reads."""
    at = int(np.int64(0))
    for i in range(len(lengths)):
        end = at + lengths[i]
        if lengths[i] < 0 or end > len(data) or _end(at, end, data, narrow + wide + hours, bits) != end:
            return False
        at = end
    return at == len(data)


@njit(makes_arrays=True)
def gather(rows: I64, start: I64, data: U8) -> U8:
    """The bytes of these panes, one after the other; pane ``f`` lies at ``data[start[f]:start[f + 1]]``."""
    size = 0
    for i in range(len(rows)):
        size += start[rows[i] + 1] - start[rows[i]]
    out = np.empty(size, np.uint8)
    at = 0
    for i in range(len(rows)):
        for b in range(start[rows[i]], start[rows[i] + 1]):
            out[at] = data[b]
            at += 1
    return out
