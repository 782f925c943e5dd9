"""The published MMD figures (arXiv 2606.05725) on one population, and the same test on many tenants.

One population: reference, null and host windows come from the same benign texts. Many tenants: each null
window is one tenant's own mix of a few benign groups, as windows of a provider's customers are. The drop
between the two is the reason why a per-account MMD raises no alarm here. Knows texts by group, no logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from .baselines import F64, Mmd, embed

Encoder = Callable[[pl.Series], F64]
"""Prompts as vectors, (n, d)."""
BYTE_PLACES = 512
SHARES = (0.05, 0.10, 0.25, 0.50, 1.0)


@dataclass(frozen=True, slots=True)
class MmdRow:
    """Share of windows caught at each attacker share, at a false-positive rate set on null windows."""

    protocol: str
    attack: str
    window: int
    false_positives: float
    caught: tuple[float, ...]


def embed_bytes(prompts: pl.Series) -> F64:
    """Prompts as unit vectors, (n, 512): signed hashes of lower-cased bytes, three and four in a row."""
    out = np.zeros((len(prompts), BYTE_PLACES))
    for i, text in enumerate(prompts.fill_null("").to_list()):
        b = np.frombuffer(text.lower().encode()[:4096], np.uint8).astype(np.uint64)
        if len(b) < 4:
            continue
        three = b[:-2] << np.uint64(16) | b[1:-1] << np.uint64(8) | b[2:]
        grams = np.concatenate([three, three[:-1] << np.uint64(8) | b[3:] | np.uint64(1 << 40)])
        h = grams * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ h >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
        sign = np.where(h >> np.uint64(63), 1.0, -1.0)
        out[i] = np.bincount((h >> np.uint64(40) & np.uint64(BYTE_PLACES - 1)).astype(np.int64), sign, BYTE_PLACES)
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9))


def _sums(features: F64, rows: npt.NDArray[np.int64]) -> F64:
    """Summed features of windows given as rows, (windows, size): a product with counts, not a gather of them all."""
    flat = (rows + len(features) * np.arange(len(rows))[:, None]).ravel()
    counts = np.bincount(flat, minlength=len(rows) * len(features)).reshape(len(rows), len(features))
    return np.asarray(counts.astype(np.float64) @ features)


def drawn(n: int, count: int, size: int, rng: np.random.Generator, twice: bool) -> npt.NDArray[np.int64]:
    """``count`` windows of ``size`` of ``n`` rows, (count, size); ``twice``, or more than there are: with repeats."""
    if twice or size > n:
        return rng.integers(n, size=(count, size))
    return np.array([rng.permutation(n)[:size] for _ in range(count)]).reshape(count, size)


class _Side:
    """Benign features by group, and how a window of each protocol is drawn from them."""

    def __init__(self, features: F64, groups: npt.NDArray[np.int64], rng: np.random.Generator, many: bool, twice: bool):
        self.features, self._rng, self._many, self._twice = features, rng, many, twice
        self._of = [np.flatnonzero(groups == g) for g in np.unique(groups)]

    def windows(self, count: int, size: int) -> npt.NDArray[np.int64]:
        """Rows of ``count`` windows of ``size``: of everything, or each of one to three groups of its own."""
        if not self._many:
            return drawn(len(self.features), count, size, self._rng, self._twice)
        out = np.empty((count, size), np.int64)
        for i in range(count):
            own = self._rng.permutation(len(self._of))[: int(self._rng.integers(1, 4))]
            part = self._rng.dirichlet(np.ones(len(own)))
            pick = self._rng.choice(own, size=size, p=part)
            for g in own:
                mine = np.flatnonzero(pick == g)
                out[i, mine] = self._rng.choice(self._of[g], size=len(mine))
        return out


def mmd_table(
    benign: Mapping[str, Sequence[str]],
    attacks: Mapping[str, Sequence[str]],
    *,
    window: int = 1500,
    null: int = 300,
    trials: int = 60,
    false_positives: float = 0.01,
    seed: int = 0,
    encoder: Encoder = embed,
    protocols: Sequence[str] = ("one population", "many tenants"),
    reference: float = 0.5,
    twice: bool = True,
) -> list[MmdRow]:
    """Both ``protocols`` for each attack text. ``benign`` maps a group (a data set, a template) to its prompts.

    A share ``reference`` of each group is the reference, the rest gives null and host windows, so no prompt is on both
    sides. Thresholds are the 1 - ``false_positives`` quantile of ``null`` windows. ``twice``: a prompt may come more
    than once in a window; many tenants always draw so, their groups being small.
    """
    rng = np.random.default_rng(seed)
    texts = [t for group in benign.values() for t in group]
    groups = np.repeat(np.arange(len(benign)), [len(g) for g in benign.values()])
    x = encoder(pl.Series(texts, dtype=pl.String))
    known = rng.random(len(x)) < reference
    mmd = Mmd(x[known], rng)
    held = mmd.features(x[~known])
    hostile = {name: mmd.features(encoder(pl.Series(list(t), dtype=pl.String))) for name, t in attacks.items()}
    rows = []
    for protocol in protocols:
        side = _Side(held, groups[~known], rng, protocol == "many tenants", twice)
        limit = float(np.quantile(mmd.distance(_sums(held, side.windows(null, window)) / window), 1 - false_positives))
        again = float((mmd.distance(_sums(held, side.windows(null, window)) / window) > limit).mean())
        for name, features in hostile.items():
            caught = []
            for share in SHARES:
                cut = round(share * window)
                host = side.windows(trials, window)[:, cut:]
                own = drawn(len(features), trials, cut, rng, twice)
                means = (_sums(features, own) + _sums(held, host)) / window
                caught.append(float((mmd.distance(means) > limit).mean()))
            rows.append(MmdRow(protocol, name, window, again, tuple(caught)))
    return rows
