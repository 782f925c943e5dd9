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


def strata_of(features: F64) -> I64:
    """Stratum (m,) of kept share of windows."""
    return np.asarray(np.digitize(features[:, KEPT], RESIDUAL_EDGES), np.int64)


def limits_of(score: F64, strata: I64) -> F64:
    """The 1 - ``NOMINAL`` quantile of harmless scores (m,) by stratum; infinite without any.

    Windows too small to tell (``nan``) count as harmless scores below all others: they never alert.
    """
    low = np.where(np.isnan(score), -np.inf, score)
    return np.array([
        np.quantile(low[strata == k], 1 - NOMINAL, method="higher") if (strata == k).any() else np.inf
        for k in range(len(RESIDUAL_EDGES) + 1)
    ])  # fmt: skip


def train(windows: Windows, sources: Sequence[str]) -> ShapeModel:
    """A model of side A's tenants and of ``sources`` on side A."""
    hostile = np.isin(np.array(windows.attack), list(sources)) & windows.side_a
    use = hostile | windows.null(side_a=True)
    return fit_shape(windows.features[use], hostile[use])


def judge(test: str, model: ShapeModel, windows: Windows, source: str, cells: Windows | None = None) -> Row:
    """A model on one source's windows of side B; ``cells`` instead of those of ``windows``."""
    of = windows if cells is None else cells
    return row_of(test, windows, model.score(windows.features), source, of, model.score(of.features))


def row_of(test: str, windows: Windows, score: F64, source: str, cells: Windows, found: F64) -> Row:
    """Any ``score`` of ``windows`` (m,), and ``found`` of ``cells``, against thresholds by stratum of kept share."""
    strata, null = strata_of(windows.features), windows.null(side_a=False)
    limits, new = (limits_of(score[of], strata[of]) for of in (null, windows.null(side_a=True)))
    over = found > limits[strata_of(cells.features)]
    caught = tuple(float(over[of].mean()) if (of := cells.cell(source, s)).any() else float("nan") for s in SHARES)
    return Row(test, source, caught, float((score[null] > new[strata[null]]).mean()))
