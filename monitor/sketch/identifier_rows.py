"""Identifiers of a batch made even and hashed in one compiled call.

``hmac.digest`` takes 1.4 us and the call around it as much again, all of it under the interpreter's lock; a batch has
about one new identifier a request, of a kind. This takes 0.1 us, where the value is short, and releases the lock.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.jit import njit
from monitor.siphash import U8Array, U64Array

from .sha import U32Array, block_words, hmac64
from .sha_lanes import LANES, ROWS, SHORT, hmac_lanes, put_lane

AS_IT_IS, LOWER, DOMAIN, UPPER, ADDRESS, NETWORK = range(6)
"""How :func:`hash_rows` makes a value even before it is hashed."""


@njit
def _number(data: U8Array, i: int, end: int) -> tuple[int, int]:
    """A number of an IPv4 address at ``i`` and its end; -1 where it is none."""
    value, digits = 0, 0
    while i + digits < end and 0x30 <= data[i + digits] <= 0x39 and digits < 4:
        value = value * 10 + int(np.int64(data[i + digits]) - 0x30)
        digits += 1
    if digits == 0 or digits > 3 or value > 255 or (digits > 1 and data[i] == 0x30):
        return -1, i
    return value, i + digits


@njit
def _address(data: U8Array, start: int, end: int, out: U8Array, o: int) -> int:
    """Four bytes of a dotted IPv4 address to ``out[o:]``; the end, -1 where it is none."""
    i = start
    for part in range(4):
        value, i = _number(data, i, end)
        if value < 0 or (part < 3 and (i >= end or data[i] != 0x2E)):
            return -1
        out[o + part] = value
        i += part < 3
    return o + 4 if i == end else -1


@njit(makes_arrays=True)
def hash_rows(
    data: U8Array, offsets: npt.NDArray[np.int64], mode: int, message: U8Array, kind: int, inner: U32Array,
    outer: U32Array, out: U64Array, done: U8Array,
) -> None:  # fmt: skip
    """:func:`hmac64` of each ``data[offsets[r]:offsets[r + 1]]``, made even by ``mode``; 0 for an empty one.

    ``message`` begins with ``kind`` bytes that go before each, and has room for the longest value. ``done`` is 0 where
    the caller must do it: white space at an end, letters above ASCII to fold, an address that is not plain IPv4.
    """
    state, w = np.zeros(8, np.uint32), np.zeros(64, np.uint32)
    room, waiting = np.zeros(ROWS * LANES, np.uint32), np.zeros(LANES, np.uint64)
    _hash_rows(data, offsets, mode, message, kind, inner, outer, out, done, state, w, room, waiting)


@njit
def _hash_rows(
    data: U8Array, offsets: npt.NDArray[np.int64], mode: int, message: U8Array, kind: int, inner: U32Array,
    outer: U32Array, out: U64Array, done: U8Array, state: U32Array, w: U32Array, room: U32Array, waiting: U64Array,
) -> None:  # fmt: skip
    used = int(np.int64(0))  # no literal: what it is passed to would be compiled twice
    for r in range(len(done)):
        start, end = offsets[r], offsets[r + 1]
        done[r] = 1
        if start == end:
            continue
        if mode >= ADDRESS:
            size = _address(data, start, end, message, kind)
            if size < 0:
                done[r] = 0
                continue
            size -= mode == NETWORK
        else:
            first, last = data[start], data[end - 1]
            good = 0x20 < first < 0x80 and 0x20 < last < 0x80 and not (mode == DOMAIN and last == 0x2E)
            for j in range(end - start):
                b = data[start + j]
                if mode != AS_IT_IS and (b >= 0x80 or (mode == DOMAIN and b == 0x40)):
                    good = False
                if LOWER <= mode <= DOMAIN and 0x41 <= b <= 0x5A:
                    b += np.uint8(0x20)
                if mode == UPPER and 0x61 <= b <= 0x7A:
                    b -= np.uint8(0x20)
                message[kind + j] = b
            if not good:
                done[r] = 0
                continue
            size = kind + end - start
        if size > SHORT:
            out[r] = hmac64(message, size, inner, outer, state, w)
            continue
        block_words(message, 0, size, w)
        w[15] = np.uint32((64 + size) * 8)
        put_lane(room, used, w)
        waiting[used] = r
        used += 1
        if used == LANES:
            hmac_lanes(room, used, waiting, inner, outer, out)
            used = 0
    if used > 0:
        hmac_lanes(room, used, waiting, inner, outer, out)
