"""Exact one-sided 95 % upper bounds: Poisson rates and binomial shares (Clopper and Pearson, 1934).

Zero false alerts prove little over few account-days; the bound says how little. Knows nothing of alerts.
"""

from __future__ import annotations

from math import exp, lgamma, log

CONFIDENCE = 0.95


def _poisson_cdf(k: int, mean: float) -> float:
    if mean <= 0:
        return 1.0
    return min(1.0, sum(exp(i * log(mean) - mean - lgamma(i + 1)) for i in range(k + 1)))


def _binomial_cdf(k: int, n: int, p: float) -> float:
    if p <= 0:
        return 1.0
    if p >= 1:
        return 1.0 if k >= n else 0.0
    terms = (
        exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) + (n - i) * log(1 - p)) for i in range(k + 1)
    )
    return min(1.0, sum(terms))


def poisson_upper(count: int, confidence: float = CONFIDENCE) -> float:
    """Largest mean under which ``count`` or fewer still has probability 1 - ``confidence`` (3.0 for count 0)."""
    low, high = 0.0, 10.0 + 2.0 * count
    while _poisson_cdf(count, high) > 1 - confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _poisson_cdf(count, middle) > 1 - confidence else (low, middle)
    return high


def share_upper(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound of a share of which ``count`` of ``total`` were seen; 1.0 where there is nothing to see."""
    if total <= 0 or count >= total:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _binomial_cdf(count, total, middle) > 1 - confidence else (low, middle)
    return high
