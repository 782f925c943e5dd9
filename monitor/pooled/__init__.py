"""Tests on pooled requests, as pure functions: shape of the residual, families seen before, change against
the own past, conformal ranks.

Needs numpy only and knows no account, campaign or frame: whoever pools (the campaign stage, the evaluation) hands in
scalars or integer sums and gets numbers. ``nan`` is "don't know" throughout.
"""

from .conformal import Calibration, fuse, order_statistic, p_values, stratum, tail_p_values, threshold
from .family import FamilyReader, fit_family
from .fit import fit_shape
from .history import change_z
from .shape import FEATURES, MIN_KEPT, ShapeModel, pool, pool_from_sums, sums_of

__all__ = [
    "FEATURES", "MIN_KEPT", "Calibration", "FamilyReader", "ShapeModel", "change_z", "fit_family", "fit_shape", "fuse",
    "order_statistic", "p_values", "pool", "pool_from_sums", "stratum", "sums_of", "tail_p_values", "threshold",
]  # fmt: skip
