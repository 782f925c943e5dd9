"""Batches that a network can't learn the log's habits from: fields dropped, sets thinned, benign cover mixed in, pools.

All numpy, seeded. Knows samples and the layout of vectors, and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from monitor.errors import NothingReadable
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.vectors import POOL_SIZE, SET_SIZE, UNKNOWN_FLAG, VectorLayout

from .dataset import Samples

U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Tree = list[list[list[I64]]]
"""Samples of each account of each group of each scenario."""
T = TypeVar("T")

FEWEST = 8
"""Fewest vectors of a set, as the features stage has it."""
_POOL_MEMBERS = (3, 16)
_SCRAMBLED = ("shape_non_ascii_share",)
"""Dealt out anew among the sets of each batch, so that nothing can be learned from them: which script a customer writes
in is no evidence."""


@dataclass(frozen=True, slots=True)
class Batch:
    """``events`` uint8 [n, K, width], ``mask`` uint8 [n, K], ``aggregates`` float32 [n, F] with NaN, ``labels``."""

    events: U8
    mask: U8
    aggregates: F32
    labels: I8


@dataclass(slots=True)
class Sampler:
    """Draws batches of ``samples``: half of them abusive, evenly by scenario, group and account; of the benign half
    looks-alike as often as background."""

    samples: Samples
    layout: VectorLayout
    features: Sequence[str]
    rng: np.random.Generator
    cover_most: float = 0.7
    _attacks: Tree = field(init=False)
    _honest: Tree = field(init=False)
    _ordinary: list[I64] = field(init=False)
    """Rows of each background account."""

    def __post_init__(self) -> None:
        s = self.samples
        abusive = (s.labels == 1).any(axis=1)
        self._attacks = _tree(s, abusive)
        self._honest = _tree(s, ~abusive & (s.scenario != ""))
        background = _tree(s, ~abusive & (s.scenario == ""))
        self._ordinary = [rows for groups in background for group in groups for rows in group]
        if not self._attacks or not self._ordinary:
            raise NothingReadable("training needs abusive accounts and ordinary ones, each with eight requests")

    def accounts(self, n: int) -> Batch:
        """Sets of single accounts, K = 32."""
        rows = np.array([self._one(*self._kind()) for _ in range(n)])
        return self._finish(*self._mixed(rows))

    def pools(self, n: int) -> Batch:
        """Pooled sets of several accounts of one group, or of unrelated honest ones, K = 128."""
        s, rng = self.samples, self.rng
        events = np.zeros((n, POOL_SIZE, s.events.shape[2]), np.uint8)
        mask = np.zeros((n, POOL_SIZE), np.uint8)
        aggregates = np.full((n, s.aggregates.shape[1]), np.nan, np.float32)
        labels = np.zeros((n, s.labels.shape[1]), np.int8)
        for i in range(n):
            tree, abusive = self._kind()
            members = int(rng.integers(*_POOL_MEMBERS))
            if tree is None:
                chosen = [int(rng.choice(_pick(self._ordinary, rng))) for _ in range(members)]
            else:
                group = _pick(_pick(tree, rng), rng)
                chosen = [int(rng.choice(_pick(group, rng))) for _ in range(min(members, 2 * len(group)))]
            cover = []
            if rng.random() < 0.5:
                share = rng.uniform(0, self.cover_most)
                many = round(share / (1 - share) * len(chosen))
                cover = [int(rng.choice(_pick(self._ordinary, rng))) for _ in range(many)]
            vectors = np.concatenate([s.events[c][s.mask[c] == 1] for c in (*chosen, *cover)])
            keep = rng.permutation(len(vectors))[: int(rng.integers(SET_SIZE, POOL_SIZE + 1))]
            events[i, : len(keep)], mask[i, : len(keep)] = vectors[keep], 1
            aggregates[i] = _mean_known(s.aggregates[[*chosen, *cover]])
            labels[i] = s.labels[chosen[0]] if abusive else 0
        return self._finish(events, mask, aggregates, labels)

    def _kind(self) -> tuple[Tree | None, bool]:
        """A tree of samples, or None for the background; whether it is abusive."""
        draw = self.rng.random()
        if draw < 0.5:
            return self._attacks, True
        return (self._honest, False) if draw < 0.75 and self._honest else (None, False)

    def _one(self, tree: Tree | None, abusive: bool) -> int:
        if tree is None:
            return int(self.rng.choice(_pick(self._ordinary, self.rng)))
        return int(self.rng.choice(_pick(_pick(_pick(tree, self.rng), self.rng), self.rng)))

    def _mixed(self, rows: I64) -> tuple[U8, U8, F32, I8]:
        """Sets of ``rows``, four in ten with a random share of an ordinary account's requests in place of theirs."""
        s, rng = self.samples, self.rng
        events, mask = s.events[rows].copy(), s.mask[rows].copy()
        aggregates, labels = s.aggregates[rows].copy(), s.labels[rows].copy()
        other = np.array([rng.choice(_pick(self._ordinary, rng)) for _ in rows])
        share = np.where(rng.random(len(rows)) < 0.4, rng.uniform(0, self.cover_most, len(rows)), 0.0)
        swap = (rng.random(mask.shape) < share[:, None]) & (s.mask[other] == 1) & (mask == 1)
        events[swap] = s.events[other][swap]
        theirs, ours = s.aggregates[other], share[:, None].astype(np.float32)
        blend = np.where(np.isnan(theirs), aggregates, (1 - ours) * aggregates + ours * theirs)
        return events, mask, np.where(ours > 0, blend, aggregates), labels

    def _finish(self, events: U8, mask: U8, aggregates: F32, labels: I8) -> Batch:
        """Thin the sets and drop fields, each with a chance of its own."""
        rng, n = self.rng, len(events)
        thin = np.where(rng.random(n) < 0.5, rng.uniform(0, 0.75, n), 0.0)
        kept = mask & (rng.random(mask.shape) >= thin[:, None])
        few = kept.sum(axis=1) < FEWEST
        mask = np.where(few[:, None], mask, kept).astype(np.uint8)
        silent = rng.random(n) < 0.15
        for name in _SCRAMBLED:
            at = self.layout.index(name)
            events[:, :, at] = events[rng.permutation(n), :, at]
        drop_fields(events, self.layout, rng)
        drop_text(events, aggregates, self.layout, self.features, silent)
        aggregates[rng.random(aggregates.shape) < 0.1] = np.nan
        aggregates[rng.random(n) < 0.2] = np.nan
        events[mask == 0] = 0
        return Batch(events, mask, aggregates, labels)


def drop_fields(events: U8, layout: VectorLayout, rng: np.random.Generator) -> None:
    """Each flag, count and level unknown in one set of seven, and noise on the scalars of shape (6 of 255)."""
    for at, (name, code) in enumerate(layout.fields):
        if name.startswith("shape_"):
            # 0 and 255 say no and yes, or nothing: they stay
            inner = (events[:, :, at] > 0) & (events[:, :, at] < 255)
            moved = events[:, :, at] + np.rint(rng.normal(0, 6, events.shape[:2]))
            events[:, :, at] = np.where(inner, np.clip(moved, 1, 254), events[:, :, at]).astype(np.uint8)
        elif name not in ("text", "ok", "input_tokens", "output_tokens"):
            gone = rng.random(len(events)) < 1 / 7
            events[gone, :, at] = UNKNOWN_FLAG if code == "flag" else 0


def drop_text(events: U8, aggregates: F32, layout: VectorLayout, features: Sequence[str], silent: Bools) -> None:
    """What ``silent`` sets say where a provider keeps no content."""
    for at, (name, code) in enumerate(layout.fields):
        if name.startswith(("shape_", "lex_")) or name in ("text", "novelty"):
            events[silent, :, at] = UNKNOWN_FLAG if code == "flag" else 0
    text = {"prompt", "system"}
    needs_text = np.array([i for i, name in enumerate(features) if text.intersection(ACCOUNT_FEATURES[name].needs)])
    aggregates[np.ix_(np.flatnonzero(silent), needs_text)] = np.nan


def _mean_known(rows: F32) -> F32:
    known = ~np.isnan(rows)
    count = known.sum(axis=0)
    total = np.where(known, rows, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def _tree(samples: Samples, chosen: Bools) -> Tree:
    """Rows of the chosen samples by scenario, group and account."""
    rows = np.flatnonzero(chosen)
    order = np.lexsort((rows, samples.account[rows], samples.group[rows], samples.scenario[rows]))
    rows = rows[order]
    found: dict[str, dict[int, dict[int, list[int]]]] = {}
    for row in rows.tolist():
        scenario = found.setdefault(str(samples.scenario[row]), {})
        scenario.setdefault(int(samples.group[row]), {}).setdefault(int(samples.account[row]), []).append(row)
    return [[[np.array(r) for r in a.values()] for a in groups.values()] for groups in found.values()]
