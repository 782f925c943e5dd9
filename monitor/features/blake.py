"""BLAKE2b (RFC 7693) of many strings in one compiled call: 64 bits, no key. Knows no field.

``hashlib.blake2b`` and the call around it take 1.4 us a string, all of it under the interpreter's lock.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from monitor.jit import njit

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_BLOCK = 128
_ROUNDS = 12
_SIGMA = np.array(
    [[int(digit, 16) for digit in row] for row in (
        "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
        "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
    )], np.uint64,
)  # fmt: skip
"""Order of the message's words in each round; the eleventh is as the first again."""
_START = np.array([isqrt(p << 128) & 0xFFFFFFFFFFFFFFFF for p in (2, 3, 5, 7, 11, 13, 17, 19)], np.uint64)
_PARAMETERS = np.uint64(0x01010000 | 8)
"""A digest of 8 bytes, no key, one leaf."""


@njit
def _turn(x: np.uint64, n: int) -> np.uint64:
    return np.uint64((x >> np.uint64(n)) | (x << np.uint64(64 - n)))


@njit
def _mix(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, x: np.uint64, y: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    a = a + b + x
    d = _turn(d ^ a, 32)
    c = c + d
    b = _turn(b ^ c, 24)
    a = a + b + y
    d = _turn(d ^ a, 16)
    c = c + d
    b = _turn(b ^ c, 63)
    return a, b, c, d


@njit
def _compress(h: U64, m: U64, told: int, last: bool) -> None:
    """One block, the 16 words of ``m``, into the state ``h`` [8]; ``told`` bytes with it."""
    v0, v1, v2, v3, v4, v5, v6, v7 = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
    v8, v9, v10, v11, v12, v13 = _START[0], _START[1], _START[2], _START[3], _START[4], _START[5]
    v14, v15 = _START[6], _START[7]
    v12 ^= np.uint64(told)
    if last:
        v14 = ~v14
    for r in range(_ROUNDS):
        s = _SIGMA[r % 10]
        v0, v4, v8, v12 = _mix(v0, v4, v8, v12, m[s[0]], m[s[1]])
        v1, v5, v9, v13 = _mix(v1, v5, v9, v13, m[s[2]], m[s[3]])
        v2, v6, v10, v14 = _mix(v2, v6, v10, v14, m[s[4]], m[s[5]])
        v3, v7, v11, v15 = _mix(v3, v7, v11, v15, m[s[6]], m[s[7]])
        v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[s[8]], m[s[9]])
        v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[s[10]], m[s[11]])
        v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[s[12]], m[s[13]])
        v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[s[14]], m[s[15]])
    h[0] ^= v0 ^ v8
    h[1] ^= v1 ^ v9
    h[2] ^= v2 ^ v10
    h[3] ^= v3 ^ v11
    h[4] ^= v4 ^ v12
    h[5] ^= v5 ^ v13
    h[6] ^= v6 ^ v14
    h[7] ^= v7 ^ v15


@njit
def blake_rows(data: U8, starts: I64, out: U64, h: U64, m: U64) -> None:
    """The first eight bytes, little endian, of each ``data[starts[r]:starts[r + 1]]``; 1 where they are 0.

    ``h`` [8] and ``m`` [16] are room to work in.
    """
    for r in range(len(out)):
        at, end = starts[r], starts[r + 1]
        told = int(np.int64(0))  # no literal: what it is passed to would be compiled twice
        for i in range(8):
            h[i] = _START[i]
        h[0] ^= _PARAMETERS
        last = False
        while not last:
            size = min(end - at, _BLOCK)
            last = at + size == end
            for i in range(16):
                word = np.uint64(0)
                for j in range(min(max(size - 8 * i, 0), 8)):
                    word |= np.uint64(data[at + 8 * i + j]) << np.uint64(8 * j)
                m[i] = word
            at += size
            told += size
            _compress(h, m, told, last)
        out[r] = h[0] if h[0] != 0 else np.uint64(1)
