"""From scores to p-values and thresholds: ranks among harmless pools, order statistics, a tail, fusion by the largest.

A conformal p-value is a rank: (1 + harmless scores at least as high) / (1 + all of them). It holds for any score as
long as the pools are exchangeable, so ranks are taken within strata and on pools that nothing was fitted on. Higher
scores are more suspicious; ``nan`` is "don't know", in and out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, lgamma, log, log1p
from typing import Final

import numpy as np
import numpy.typing as npt

from .shape import F64, I64

RESIDUAL_EDGES: Final = (0.35, 0.85)
"""Kept share that parts pools of templates, of both, and of people: pipelines have a median of 0, people of 1."""
SIZE_EDGES: Final = (100, 300, 1000)
"""Kept requests that part pools by how noisy their features are."""
LEAST: Final = 100
"""Harmless pools that a stratum needs for ranks of its own: the smallest p-value is then 1 %."""


def p_values(calibration: F64, scores: npt.ArrayLike) -> F64:
    """Conformal p-values (m,) of ``scores`` among ``calibration`` (n,) harmless ones; at least 1 / (n + 1)."""
    s, known = np.asarray(scores, np.float64), np.sort(calibration[~np.isnan(calibration)])
    above = len(known) - np.searchsorted(known, s, side="left")
    return np.where(np.isnan(s), np.nan, (1.0 + above) / (len(known) + 1.0))


def order_statistic(n: int, alpha: float, confidence: float = 0.95) -> int:
    """Which of ``n`` harmless scores, from the top, is the lowest threshold with a false-positive rate of ``alpha``.

    The rate above the k-th largest follows Beta(k, n - k + 1); the answer is the largest k for which it lies under
    ``alpha`` with ``confidence``, and 0 where even the maximum does not certify that.

    >>> [order_statistic(n, 1e-4) for n in (20_000, 30_000, 100_000, 300_000)]
    [0, 1, 5, 21]
    """
    if not 0 < alpha < 1 or not 0 < confidence < 1:
        raise ValueError("alpha and confidence are shares between 0 and 1")
    # P(Beta(k, n - k + 1) <= alpha) = P(Binomial(n, alpha) >= k)
    below, k = 0.0, 0
    while k < n:
        log_mass = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(alpha) + (n - k) * log1p(-alpha)
        below += exp(log_mass) if log_mass > -745.0 else 0.0
        if below > 1.0 - confidence:
            return k
        k += 1
    return n


def threshold(calibration: F64, alpha: float, confidence: float = 0.95) -> float:
    """Alert on scores above this: the order statistic of the harmless scores; infinite where too few certify it."""
    known = np.sort(calibration[~np.isnan(calibration)])
    k = order_statistic(len(known), alpha, confidence)
    return float(known[-k]) if k else inf


def tail_p_values(calibration: F64, scores: npt.ArrayLike, above: float = 0.99) -> F64:
    """As :func:`p_values`, beyond the quantile ``above`` by a generalised Pareto tail instead of by rank.

    Helps below about 50,000 harmless scores, where ranks end at 1 / (n + 1). Fitted by probability-weighted moments
    (Hosking and Wallis 1987), shape kept from -0.5 to 0.5. Ranks where fewer than 20 scores lie in the tail.
    """
    s, known = np.asarray(scores, np.float64), np.sort(calibration[~np.isnan(calibration)])
    ranked = p_values(known, s)
    if not len(known):
        return ranked
    start = float(np.quantile(known, above))
    over = known[known > start] - start
    if len(over) < 20:
        return ranked
    place = (np.arange(1, len(over) + 1) - 0.35) / len(over)
    mean, weighted = float(over.mean()), float((over * (1 - place)).mean())
    xi = min(max(2.0 - mean / (mean - 2.0 * weighted), -0.5), 0.5)
    scale = mean * (1.0 - xi)
    z = np.maximum(s - start, 0.0) / scale
    survival = np.exp(-z) if abs(xi) < 1e-9 else np.maximum(1.0 + xi * z, 0.0) ** (-1.0 / xi)
    return np.where(s > start, len(over) / len(known) * survival, ranked)


def stratum(client_class: npt.ArrayLike, kept_share: npt.ArrayLike, kept: npt.ArrayLike) -> I64:
    """Number of each pool's stratum (m,), by class of client (an integer from 0), kept share and kept requests.

    >>> stratum([0, 0, 2], [0.1, 0.9, 0.9], [50, 500, 500]).tolist()
    [0, 10, 34]
    """
    shares, sizes = len(RESIDUAL_EDGES) + 1, len(SIZE_EDGES) + 1
    by_share = np.digitize(np.nan_to_num(np.asarray(kept_share, np.float64)), RESIDUAL_EDGES)
    by_size = np.digitize(np.asarray(kept), SIZE_EDGES)
    return np.asarray((np.asarray(client_class, np.int64) * shares + by_share) * sizes + by_size, np.int64)


@dataclass(frozen=True)
class Calibration:
    """Harmless scores by stratum. A stratum of fewer than ``least`` is widened: all sizes, then all classes too.

    Never over the kept share: what is left of templates and what people write have nothing in common.
    """

    scores: F64
    strata: I64
    least: int = LEAST

    def of(self, number: int) -> F64:
        """The harmless scores that stratum ``number`` is ranked among."""
        sizes, shares = len(SIZE_EDGES) + 1, len(RESIDUAL_EDGES) + 1
        own, group = self.strata, self.strata // sizes
        for same in (own == number, group == number // sizes, group % shares == number // sizes % shares):
            found = self.scores[same & ~np.isnan(self.scores)]
            if len(found) >= self.least:
                return np.asarray(found)
        return np.asarray(found)

    def p_values(self, scores: npt.ArrayLike, strata: I64, tail: bool = False) -> F64:
        """p-value (m,) of each score within its stratum; ``nan`` where even the widest has fewer than ``least``."""
        s = np.asarray(scores, np.float64)
        out = np.full(len(s), np.nan)
        for number in np.unique(strata).tolist():
            harmless, here = self.of(number), strata == number
            if len(harmless) >= self.least:
                out[here] = (tail_p_values if tail else p_values)(harmless, s[here])
        return out

    def thresholds(self, strata: Sequence[int], alpha: float, confidence: float = 0.95) -> F64:
        """Score (len(strata),) above which to alert, by stratum; infinite where too few scores certify ``alpha``."""
        return np.array([threshold(self.of(number), alpha, confidence) for number in strata])


def fuse(lanes: F64, shares: Sequence[float] | None = None) -> tuple[F64, I64]:
    """p-values (m, lanes) as one (m,), and which lane it is from (-1: none is known).

    The largest evidence wins, each lane within its share of the budget (equal shares by default): p / share, at most
    1. Valid however the lanes depend on each other. A mean or a stack is not: one lane that is off ruins both. A lane
    that is ``nan`` keeps its share, so that leaving a field out buys nobody a looser threshold.
    """
    weights = np.full(lanes.shape[1], 1.0 / lanes.shape[1]) if shares is None else np.asarray(shares, np.float64)
    if len(weights) != lanes.shape[1] or (weights <= 0).any() or weights.sum() > 1.0 + 1e-9:
        raise ValueError("one positive share of the budget for each lane, together at most 1")
    spent = np.where(np.isnan(lanes), np.inf, lanes / weights)
    unknown = np.isnan(lanes).all(axis=1)
    best = np.where(unknown, -1, spent.argmin(axis=1))
    return np.where(unknown, np.nan, np.minimum(spent.min(axis=1), 1.0)), np.asarray(best, np.int64)
