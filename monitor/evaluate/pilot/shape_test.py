"""The shape model under the protocol: one source left out, thresholds by stratum, false positives on new tenants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.pooled import ShapeModel, fit_shape
from monitor.pooled.conformal import RESIDUAL_EDGES
from monitor.pooled.shape import F64, I64, KEPT

from .windows import SHARES, Windows

NOMINAL = 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """Share of windows caught at each attacker share, at thresholds of ``NOMINAL`` on side B's harmless tenants.

    ``false_positives``: the share of side B's tenants above thresholds of the same kind on side A's, which is what
    a deployment on new tenants sees; None where the test has one side only.
    """

    test: str
    source: str
    caught: tuple[float, ...]
    false_positives: float | None = None


def _strata(features: F64) -> I64:
    return np.asarray(np.digitize(features[:, KEPT], RESIDUAL_EDGES), np.int64)


def thresholds(model: ShapeModel, windows: Windows, side_a: bool) -> F64:
    """The 1 - ``NOMINAL`` quantile of harmless scores by stratum of kept share; infinite without any.

    Windows too small to have a shape count as harmless scores below all others: they never alert.
    """
    null = windows.null(side_a)
    score, strata = model.score(windows.features[null]), _strata(windows.features[null])
    low = np.where(np.isnan(score), -np.inf, score)
    return np.array([
        np.quantile(low[strata == k], 1 - NOMINAL, method="higher") if (strata == k).any() else np.inf
        for k in range(len(RESIDUAL_EDGES) + 1)
    ])  # fmt: skip


def above(model: ShapeModel, features: F64, limits: F64) -> float:
    """Share of windows that score above their stratum's limit; a window without a shape does not."""
    score = model.score(features)
    return float((score > limits[_strata(features)]).mean()) if len(features) else float("nan")


def train(windows: Windows, sources: Sequence[str]) -> ShapeModel:
    """A model of side A's tenants and of ``sources`` on side A."""
    hostile = np.isin(np.array(windows.attack), list(sources)) & windows.side_a
    use = hostile | windows.null(side_a=True)
    return fit_shape(windows.features[use], hostile[use])


def judge(test: str, model: ShapeModel, windows: Windows, source: str, cells: Windows | None = None) -> Row:
    """A model on one source's windows of side B; ``cells`` instead of those of ``windows``."""
    limits, new = thresholds(model, windows, side_a=False), thresholds(model, windows, side_a=True)
    of = windows if cells is None else cells
    caught = tuple(above(model, of.features[of.cell(source, share)], limits) for share in SHARES)
    null = windows.features[windows.null(side_a=False)]
    return Row(test, source, caught, above(model, null, new))
