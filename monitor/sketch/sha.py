"""HMAC-SHA-256 of one message in compiled code (FIPS 180-4, RFC 2104), truncated to 64 bits. Knows no identifier."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.jit import njit
from monitor.siphash import U8Array

U32Array = npt.NDArray[np.uint32]


def _roots() -> tuple[U32Array, U32Array]:
    """Round constants and initial state: fractions of the cube and square roots of the first primes, in integers."""
    primes = [n for n in range(2, 312) if all(n % d for d in range(2, int(n**0.5) + 1))]

    def fraction(n: int, power: int) -> int:
        low, high = 0, 1 << 40
        while low < high:  # the largest x with (x / 2**32) ** power <= n
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**power <= n << (32 * power) else (low, middle - 1)
        return low & 0xFFFFFFFF

    rounds = np.array([fraction(p, 3) for p in primes[:64]], np.uint32)
    return rounds, np.array([fraction(p, 2) for p in primes[:8]], np.uint32)


ROUNDS, _START = _roots()


@njit
def turn(x: np.uint32, n: int) -> np.uint32:
    """``x`` turned right by ``n`` bits."""
    return np.uint32(np.uint32(x >> np.uint32(n)) | np.uint32(x << np.uint32(32 - n)))


@njit
def _compress(state: U32Array, w: U32Array) -> None:
    """One block, the first 16 words of ``w`` [64], into ``state`` [8]."""
    for i in range(16, 64):
        a, b = w[i - 15], w[i - 2]
        s0 = turn(a, 7) ^ turn(a, 18) ^ np.uint32(a >> np.uint32(3))
        s1 = turn(b, 17) ^ turn(b, 19) ^ np.uint32(b >> np.uint32(10))
        w[i] = np.uint32(np.uint32(w[i - 16] + s0) + np.uint32(w[i - 7] + s1))
    a, b, c, d = state[0], state[1], state[2], state[3]
    e, f, g, h = state[4], state[5], state[6], state[7]
    for i in range(64):
        t1 = np.uint32(h + np.uint32(turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)))
        t1 = np.uint32(t1 + np.uint32(np.uint32((e & f) ^ (~e & g)) + np.uint32(ROUNDS[i] + w[i])))
        t2 = np.uint32(np.uint32(turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + np.uint32((a & b) ^ (a & c) ^ (b & c)))
        h, g, f, e = g, f, e, np.uint32(d + t1)
        d, c, b, a = c, b, a, np.uint32(t1 + t2)
    state[0] = np.uint32(state[0] + a)
    state[1] = np.uint32(state[1] + b)
    state[2] = np.uint32(state[2] + c)
    state[3] = np.uint32(state[3] + d)
    state[4] = np.uint32(state[4] + e)
    state[5] = np.uint32(state[5] + f)
    state[6] = np.uint32(state[6] + g)
    state[7] = np.uint32(state[7] + h)


@njit
def block_words(message: U8Array, start: int, size: int, w: U32Array) -> None:
    """Up to 64 bytes of ``message`` from ``start``, big endian; behind its end the bit that closes it, then zeros."""
    for i in range(16):
        word = np.uint32(0)
        for j in range(4):
            at = start + 4 * i + j
            byte = np.uint32(message[at]) if at < size else np.uint32(0x80 if at == size else 0)
            word = np.uint32(np.uint32(word << np.uint32(8)) | byte)
        w[i] = word


@njit
def first_eight(high: np.uint32, low: np.uint32) -> np.uint64:
    """The first eight bytes of a digest, little endian, from its first two words; 1 where they are 0."""
    made = np.uint64(0)
    for i in range(4):
        shift = np.uint32(24 - 8 * i)
        made |= (np.uint64(high >> shift) & np.uint64(0xFF)) << np.uint64(8 * i)
        made |= (np.uint64(low >> shift) & np.uint64(0xFF)) << np.uint64(8 * i + 32)
    return made if made != 0 else np.uint64(1)


@njit
def hmac64(message: U8Array, size: int, inner: U32Array, outer: U32Array, state: U32Array, w: U32Array) -> np.uint64:
    """The first eight bytes, little endian, of the HMAC of ``message[:size]``, 1 where they are 0.

    ``inner`` and ``outer`` are :func:`key_states`; ``state`` [8] and ``w`` [64] are room to work in.
    """
    for i in range(8):
        state[i] = inner[i]
    start = 0
    while size - start >= 56:  # the length does not fit behind what is left
        block_words(message, start, size, w)
        _compress(state, w)
        start += 64
    if start <= size or start == 0:
        block_words(message, start, size, w)
    else:
        for i in range(16):
            w[i] = np.uint32(0)
    w[15] = np.uint32((64 + size) * 8)
    _compress(state, w)
    for i in range(8):
        w[i] = state[i]
        state[i] = outer[i]
    w[8] = np.uint32(0x80000000)
    for i in range(9, 15):
        w[i] = np.uint32(0)
    w[15] = np.uint32((64 + 32) * 8)
    _compress(state, w)
    return first_eight(state[0], state[1])


def key_states(secret: bytes) -> tuple[U32Array, U32Array]:
    """The states behind the key's blocks, inner and outer. ``secret`` of at most 64 bytes."""
    if len(secret) > 64:
        raise ValueError("a secret of at most 64 bytes")
    states = []
    for pad in (0x36, 0x5C):
        block = bytes(b ^ pad for b in secret.ljust(64, b"\0"))
        w = np.zeros(64, np.uint32)
        w[:16] = np.frombuffer(block, ">u4")
        state = _START.copy()
        _compress(state, w)
        states.append(state)
    return states[0], states[1]
