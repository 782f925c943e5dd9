"""HMAC-SHA-256 of 32 short messages at once, one to a lane of the processor's vectors. Knows no identifier.

The same rounds as :mod:`.sha`, with each variable a row of 32: a message of one block takes 80 ns in place of 420.
Rows lie in flat arrays at distances that are constants, or the compiler can't tell that a row which is written is none
of those that are read, and makes no vectors (three times slower). What is ``a`` in a round is ``b`` in the next one,
so nothing is moved: each round writes a new row behind the last.
"""

from __future__ import annotations

import numpy as np

from monitor.jit import njit
from monitor.siphash import U64Array

from .sha import ROUNDS, U32Array, first_eight, turn

LANES = 32
SHORT = 55
"""Bytes of the longest message that fits one block."""
_N = np.uint64  # of the places: for a signed one numba tests whether it counts from the end
_L = _N(LANES)
_2, _3, _4, _7, _8, _15, _16, _64 = (_N(n) for n in (2, 3, 4, 7, 8, 15, 16, 64))
_E = _N(68)  # rows of `a`: the four it begins with, then one a round; behind them those of `e`
ROWS = 8 + 64 + 2 * 68
"""Rows of the room: state, words of the block, then the rows of the rounds."""
_W, _V = _8 * _L, np.uint64(72) * _L


@njit
def put_lane(room: U32Array, lane: int, w: U32Array) -> None:
    """The 16 words of a message's only block, in ``w``, into its lane of ``room`` [ROWS * LANES]."""
    for i in range(_16):
        room[_W + i * _L + _N(lane)] = w[i]


@njit
def _compress(room: U32Array, start: U32Array) -> None:
    """The block of each lane behind the state ``start`` [8], which all have in common: into the rows of the state."""
    for i in range(_16, _64):
        o = _W + i * _L
        for lane in range(_L):
            a, b = room[o - _15 * _L + lane], room[o - _2 * _L + lane]
            s0 = turn(a, 7) ^ turn(a, 18) ^ np.uint32(a >> np.uint32(3))
            s1 = turn(b, 17) ^ turn(b, 19) ^ np.uint32(b >> np.uint32(10))
            before = np.uint32(room[o - _16 * _L + lane] + s0)
            room[o + lane] = np.uint32(before + np.uint32(room[o - _7 * _L + lane] + s1))
    for j in range(_4):
        for lane in range(_L):
            room[_V + (_3 - j) * _L + lane] = start[j]
            room[_V + (_E + _3 - j) * _L + lane] = start[_4 + j]
    for i in range(_64):
        k = ROUNDS[i]
        o = _V + i * _L
        p = o + _E * _L
        at = _W + i * _L
        for lane in range(_L):
            a, b, c, d = room[o + _3 * _L + lane], room[o + _2 * _L + lane], room[o + _L + lane], room[o + lane]
            e, f, g, h = room[p + _3 * _L + lane], room[p + _2 * _L + lane], room[p + _L + lane], room[p + lane]
            t1 = np.uint32(h + np.uint32(turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)))
            t1 = np.uint32(t1 + np.uint32(np.uint32((e & f) ^ (~e & g)) + np.uint32(k + room[at + lane])))
            t2 = np.uint32(np.uint32(turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + np.uint32((a & b) ^ (a & c) ^ (b & c)))
            room[p + _4 * _L + lane] = np.uint32(d + t1)
            room[o + _4 * _L + lane] = np.uint32(t1 + t2)
    for j in range(_4):
        for lane in range(_L):
            room[j * _L + lane] = np.uint32(start[j] + room[_V + (_64 + _3 - j) * _L + lane])
            room[(_4 + j) * _L + lane] = np.uint32(start[_4 + j] + room[_V + (_E + _64 + _3 - j) * _L + lane])


@njit
def hmac_lanes(room: U32Array, used: int, rows: U64Array, inner: U32Array, outer: U32Array, out: U64Array) -> None:
    """``sha.hmac64`` of the first ``used`` lanes to ``out[rows]``; ``inner`` and ``outer`` as there."""
    _compress(room, inner)
    for i in range(_8):
        for lane in range(_L):
            room[_W + i * _L + lane] = room[i * _L + lane]
    for i in range(_8, _16):
        word = np.uint32(0x80000000 if i == _8 else (64 + 32) * 8 if i == _15 else 0)
        for lane in range(_L):
            room[_W + i * _L + lane] = word
    _compress(room, outer)
    for lane in range(used):
        out[rows[lane]] = first_eight(room[_N(lane)], room[_L + _N(lane)])
