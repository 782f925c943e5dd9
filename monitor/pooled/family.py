"""Families of attack text that were seen before: how many of a pool's requests read like one of them.

A request is read by ridge regression on random cosines (Rahimi and Recht 2007) of its shape scalars, taught prompts of
the families and harmless ones; a pool by the share of its kept requests that read more like a family than 99 in 100
harmless ones do. So ten attackers among a hundred requests are counted, where a mean over the pool would drown them: at
10 % attacker share .36 of windows by the pool's shape, .92 so (real prompts, one seed). Letter case is left out: it
helped least where it was seen most, and one call of ``lower()`` undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .shape import F64, I64, MIN_KEPT, U8, Bools

WAVES: Final = 800
"""Random cosines, half of each bandwidth."""
WIDTHS: Final = (0.7, 1.4)
"""Bandwidths, times the median distance between two prompts that teach."""
RIDGE: Final = 3.0
LEVEL: Final = 0.99
"""Quantile of harmless prompts above which a request reads like a family."""
PARTS: Final = 5
"""Parts of the teaching prompts, each read by what the others taught."""
_CASE: Final = (1, 22)
"""Places of ``upper_share`` and ``starts_upper`` among the 24 scalars."""
_PAIRS: Final = 4000


@dataclass(frozen=True)
class FamilyReader:
    """What was taught. ``level`` is the reading of which 1 % of harmless prompts are above."""

    centre: F64
    scale: F64
    waves: F64
    phase: F64
    weights: F64
    level: float

    def read(self, scalars: U8, follow: Bools) -> F64:
        """Readings (n,) of ``scalars`` (n, 24), ``follow`` (n,): continues a conversation. High is like a family."""
        made = _columns(scalars, follow)
        return np.asarray(_waves((made - self.centre) / self.scale, self.waves, self.phase) @ self.weights)

    def share(self, readings: F64) -> float:
        """Share of a pool's kept requests (k,) that read like a family; ``nan`` under ``MIN_KEPT`` of them."""
        return float((readings > self.level).mean()) if len(readings) >= MIN_KEPT else float("nan")


def fit_family(
    scalars: U8, follow: Bools, hostile: Bools, weight: F64, unit: I64, seed: int = 0
) -> tuple[FamilyReader, F64]:
    """A reader taught ``n`` prompts, and what readers that never saw a prompt's unit read of it (n,).

    ``scalars`` (n, 24), ``follow``, ``hostile`` (n,), ``weight`` (n,) above 0: each side is scaled to a half of the
    whole. ``unit`` (n,) are numbers of what belongs together, as sessions and templates: ``level`` is taken of harmless
    prompts that taught nothing, because readings of teachers flatter (in the pilot thresholds on them gave 46 to 84 %
    false alarms). Deterministic for a ``seed``. Raises ``ValueError`` where a side has under two units.
    """
    if min(len(np.unique(unit[hostile])), len(np.unique(unit[~hostile]))) < 2:
        raise ValueError("reading families needs prompts of both sides, of two units at least")
    rng = np.random.default_rng([seed, 7])
    made = _columns(scalars, follow)
    w = np.asarray(weight, np.float64).copy()
    for side in (hostile, ~hostile):
        w[side] *= len(w) / 2.0 / w[side].sum()
    centre = made[~hostile].mean(axis=0)
    scale = (made[hostile].std(axis=0) + made[~hostile].std(axis=0)) / 2.0 + 1e-6
    x = (made - centre) / scale
    pair = rng.integers(len(x), size=(2, _PAIRS))
    width = float(np.median(np.linalg.norm(x[pair[0]] - x[pair[1]], axis=1))) or 1.0
    spread = np.repeat(np.array(WIDTHS) * width, WAVES // len(WIDTHS))
    waves = rng.standard_normal((x.shape[1], WAVES)) / spread
    phase = rng.random(WAVES) * 2.0 * np.pi
    a, y = _waves(x, waves, phase), np.where(hostile, 1.0, -1.0)
    _, of = np.unique(unit, return_inverse=True)
    part = _parts(of, hostile, rng)
    # sums of each part, so that what the others taught is a subtraction
    gram = np.stack([(a[part == k] * w[part == k, None]).T @ a[part == k] for k in range(PARTS)])
    right = np.stack([a[part == k].T @ (w[part == k] * y[part == k]) for k in range(PARTS)])
    ridge = RIDGE * np.eye(a.shape[1])
    apart = np.empty(len(x))
    for k in range(PARTS):
        taught = np.linalg.solve(gram.sum(axis=0) - gram[k] + ridge, right.sum(axis=0) - right[k])
        apart[part == k] = a[part == k] @ taught
    weights = np.linalg.solve(gram.sum(axis=0) + ridge, right.sum(axis=0))
    level = _quantile(apart[~hostile], w[~hostile])
    return FamilyReader(centre, scale, waves, phase, weights, level), apart


def _columns(scalars: U8, follow: Bools) -> F64:
    """Numbers of each prompt (n, 23): scalars without case, and whether it goes on with a conversation."""
    kept = [j for j in range(scalars.shape[1]) if j not in _CASE]
    return np.column_stack([scalars[:, kept].astype(np.float64), np.asarray(follow, np.float64) * 255.0])


def _waves(x: F64, waves: F64, phase: F64) -> F64:
    """Cosines, the numbers themselves, and 1: (n, WAVES + 23 + 1)."""
    cosines = np.cos(x @ waves + phase) * (3.0 * np.sqrt(2.0 / waves.shape[1]))
    return np.hstack([cosines, 0.3 * x, np.ones((len(x), 1))])


def _parts(unit: I64, hostile: Bools, rng: np.random.Generator) -> I64:
    """A part for each prompt, the same for those of a unit, units dealt round on each side."""
    of_unit = np.zeros(int(unit.max()) + 1, np.int64)
    for side in (hostile, ~hostile):
        dealt = rng.permutation(np.unique(unit[side]))
        of_unit[dealt] = np.arange(len(dealt)) % PARTS
    return of_unit[unit]


def _quantile(readings: F64, weight: F64) -> float:
    order = np.argsort(readings)
    reached = np.cumsum(weight[order]) >= LEVEL * weight.sum()
    return float(readings[order][int(np.argmax(reached))])
