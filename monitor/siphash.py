"""SipHash (Aumasson, Bernstein, 2012) as numba kernels: SipHash-1-3 for text, 2-4 to check against the paper.

Keyed, so that who does not have the key can neither find two texts that collide nor test a guess. Knows nothing of
words or requests. All integers are ``uint64``: numba turns a mix of signed and unsigned into a float.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.jit import njit

U64Array = npt.NDArray[np.uint64]
U8Array = npt.NDArray[np.uint8]
State = tuple[np.uint64, np.uint64, np.uint64, np.uint64]

_C0 = np.uint64(0x736F6D6570736575)
_C1 = np.uint64(0x646F72616E646F6D)
_C2 = np.uint64(0x6C7967656E657261)
_C3 = np.uint64(0x7465646279746573)
_FF = np.uint64(0xFF)
_B0, _B8, _B16, _B24, _B32, _B40, _B48, _B56 = (np.uint64(i) for i in range(0, 64, 8))
_R13, _R17, _R21, _R64 = np.uint64(13), np.uint64(17), np.uint64(21), np.uint64(64)
ONE = np.uint64(1)
_I2, _I3, _I4, _I5, _I6, _I7 = (np.uint64(i) for i in range(2, 8))
ZERO = np.uint64(0)


@njit
def rotl(x: np.uint64, b: np.uint64) -> np.uint64:
    """``x`` rotated left by ``b`` bits, ``b`` from 1 to 63."""
    return (x << b) | (x >> (_R64 - b))


@njit
def sip_round(v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64) -> State:
    """One SipRound."""
    v0 += v1
    v1 = rotl(v1, _R13) ^ v0
    v0 = rotl(v0, _B32)
    v2 += v3
    v3 = rotl(v3, _B16) ^ v2
    v0 += v3
    v3 = rotl(v3, _R21) ^ v0
    v2 += v1
    v1 = rotl(v1, _R17) ^ v2
    v2 = rotl(v2, _B32)
    return v0, v1, v2, v3


@njit
def sip_start(k0: np.uint64, k1: np.uint64) -> State:
    """The state before the first block."""
    return k0 ^ _C0, k1 ^ _C1, k0 ^ _C2, k1 ^ _C3


@njit
def sip_block(v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64, m: np.uint64) -> State:
    """Absorb one block of eight bytes (little endian), one round: the 1 of SipHash-1-3."""
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ m)
    return v0 ^ m, v1, v2, v3


@njit
def sip_end(v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64, last: np.uint64) -> np.uint64:
    """Absorb the last block (length in the top byte, up to 7 bytes below) and finish: the 3 of SipHash-1-3.

    Never 0, which means "none" everywhere in this project: 0 becomes 1.
    """
    v0, v1, v2, v3 = sip_block(v0, v1, v2, v3, last)
    v2 ^= _FF
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    h = v0 ^ v1 ^ v2 ^ v3
    return h if h != ZERO else ONE


@njit
def load64(data: U8Array, i: int) -> np.uint64:
    """Eight bytes at ``i``, little endian.

    The index is unsigned: for a signed one numba tests each of the eight for a wrap-around, and LLVM can't make one
    load of them (2.4 times slower).
    """
    j = np.uint64(i)
    return (
        np.uint64(data[j])
        | np.uint64(data[j + ONE]) << _B8
        | np.uint64(data[j + _I2]) << _B16
        | np.uint64(data[j + _I3]) << _B24
        | np.uint64(data[j + _I4]) << _B32
        | np.uint64(data[j + _I5]) << _B40
        | np.uint64(data[j + _I6]) << _B48
        | np.uint64(data[j + _I7]) << _B56
    )


@njit
def sip_bytes(k0: np.uint64, k1: np.uint64, data: U8Array, start: int, end: int) -> np.uint64:
    """SipHash-1-3 of ``data[start:end]``, never 0."""
    v0, v1, v2, v3 = sip_start(k0, k1)
    i = start
    while i + 8 <= end:
        v0, v1, v2, v3 = sip_block(v0, v1, v2, v3, load64(data, i))
        i += 8
    last = np.uint64((end - start) & 0xFF) << _B56
    shift = ZERO
    while i < end:
        last |= np.uint64(data[i]) << shift
        shift += _B8
        i += 1
    return sip_end(v0, v1, v2, v3, last)


@njit
def sip_words(k0: np.uint64, k1: np.uint64, words: U64Array, start: int, end: int) -> np.uint64:
    """SipHash-1-3 of ``words[start:end]`` as little-endian bytes, never 0."""
    v0, v1, v2, v3 = sip_start(k0, k1)
    for i in range(start, end):
        v0, v1, v2, v3 = sip_block(v0, v1, v2, v3, words[i])
    return sip_end(v0, v1, v2, v3, np.uint64((8 * (end - start)) & 0xFF) << _B56)


def siphash_reference(key: bytes, data: bytes, compress: int = 1, finish: int = 3) -> int:
    """SipHash-c-d in plain Python, as the paper writes it (0 stays 0): what the kernels are tested against.

    >>> hex(siphash_reference(bytes(range(16)), bytes(range(15)), 2, 4))  # appendix A of the paper
    '0xa129ca6149be45e5'
    """
    mask = (1 << 64) - 1
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")
    v = [k0 ^ int(_C0), k1 ^ int(_C1), k0 ^ int(_C2), k1 ^ int(_C3)]

    def turn(x: int, b: int) -> int:
        return ((x << b) | (x >> (64 - b))) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[1] = turn(v[1], 13) ^ v[0]
            v[0] = turn(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = turn(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = turn(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = turn(v[1], 17) ^ v[2]
            v[2] = turn(v[2], 32)

    whole = len(data) & ~7
    blocks = [data[i : i + 8] for i in range(0, whole, 8)]
    blocks.append(data[whole:].ljust(7, b"\0") + bytes([len(data) & 0xFF]))
    for block in blocks:
        m = int.from_bytes(block, "little")
        v[3] ^= m
        rounds(compress)
        v[0] ^= m
    v[2] ^= 0xFF
    rounds(finish)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
