"""Random draws that are pure functions of the seed: keyed streams, hashes and quantile curves.

Knows nothing of accounts, scenarios or logs. Every stream is ``PCG64`` keyed by (seed, names, numbers), so
what one part of the world draws never depends on how much another part drew before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator keyed by ``seed`` and ``names``; equal keys give equal draws (same numpy version)."""
    key = hashlib.blake2b("\x1f".join(map(str, (seed, *names))).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))


def salt(seed: int, *names: str | int) -> int:
    """A 64-bit constant for :func:`mix`, keyed as :func:`stream` is."""
    key = hashlib.blake2b("\x1f".join(map(str, (seed, *names))).encode(), digest_size=8).digest()
    return int.from_bytes(key, "little")


def mix(values: npt.ArrayLike, key: int = 0) -> U64:
    """splitmix64 of ``values ^ key``: a bijection on 64 bits, so distinct inputs stay distinct."""
    x = np.asarray(values).astype(np.uint64) ^ np.uint64(key)
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def unit(hashes: U64) -> F64:
    """Hashes as numbers in [0, 1)."""
    return (hashes >> np.uint64(11)).astype(np.float64) * (1.0 / (1 << 53))


def from_quantiles(u: F64, curve: Mapping[float, float]) -> F64:
    """Values at probabilities ``u`` of a positive distribution known by quantiles; linear in the logarithm."""
    p = np.array(sorted(curve), dtype=np.float64)
    v = np.log([curve[x] for x in p.tolist()])
    return np.asarray(np.exp(np.interp(u, p, v)), dtype=np.float64)


def choose(u: F64, weights: F64) -> I64:
    """Index of a weighted choice for each ``u`` in [0, 1)."""
    edges = np.cumsum(weights, dtype=np.float64)
    return np.minimum(np.searchsorted(edges / edges[-1], u, side="right"), len(weights) - 1).astype(np.int64)


def choose_rows(u: F64, cumulative: F64) -> I64:
    """As :func:`choose`, each row with its own cumulative weights: ``cumulative`` is (rows, choices), last 1."""
    return np.asarray(np.minimum((u[:, None] >= cumulative).sum(axis=1), cumulative.shape[1] - 1), dtype=np.int64)
