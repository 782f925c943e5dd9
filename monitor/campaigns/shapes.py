"""The shape of a group's prompts without templates: small integer sums of each account, and a score of their pool.

Each account holds :data:`~monitor.campaigns.sums.SHAPE` for today and for yesterday, 39 bytes each. A pool adds them up
tenant by tenant: a tenant speaks with :data:`MOST` of its prompts at most, so neither one busy member nor one whose
traffic was copied into the group says what the group's shape is.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from monitor.campaigns.cut import Cut
from monitor.campaigns.sums import SHAPE
from monitor.pooled.shape import COUNTED, MIN_KEPT, SPREAD, ShapeModel, pool_from_sums

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_ROW: Final = np.dtype(
    [("counts", "u1", 2 + len(COUNTED)), ("sums", "<u2", len(SPREAD)), ("squares", "<u4", len(SPREAD))]
)
WIDTH: Final = _ROW.itemsize
"""Bytes of a row: an account's sums of one day."""
HELD: Final = 255
"""Prompts that a row holds; one that would hold more is halved, all of its sums alike. Scalars have six bits, so their
sums fit 16 bits then and their squares 32."""
SCALE: Final = 63.75
"""The largest scalar, 255, in six bits."""
MOST: Final = 8
"""Prompts without a template with which a tenant counts in a pool: the 20 that have a shape take three tenants so."""
LEAST_ALONE: Final = 8
"""Prompts of one tenant that have a shape of their own, if a rough one: of tenants with as many, 15 % of the honest
ones and 85 % of those behind a public instruction set have log odds over 1."""
DIGITS: Final = 6
"""Of the features, as of the model's edges: a last bit must not decide on which side of one a pool lies."""
_SUMS, _SQUARES = 2 + len(COUNTED), 2 + len(COUNTED) + len(SPREAD)
STATISTICS = ("residual_share", "shape_prompts", "shape_score")
"""What :func:`statistics` gives of each group, in order."""


def read(rows: U8) -> I64:
    """Sums [accounts, SHAPE] of rows [accounts, WIDTH]."""
    held = np.ascontiguousarray(rows).view(_ROW)[:, 0]
    return np.concatenate([held["counts"], held["sums"], held["squares"]], axis=1, dtype=np.int64, casting="unsafe")


def added(rows: U8, more: npt.NDArray[np.integer]) -> U8:
    """Rows [accounts, WIDTH] with sums [accounts, SHAPE] added; halved where they would not fit."""
    total = read(rows) + more
    # bits over the eight that a count has
    over = np.maximum(np.ceil(np.log2(total[:, 0] + 1.0)).astype(np.int64) - 8, 0)
    total >>= over[:, None]
    out = np.zeros(len(total), _ROW)
    out["counts"], out["sums"], out["squares"] = np.split(total, (_SUMS, _SQUARES), axis=1)
    return out[:, None].view(np.uint8)


def statistics(by_group: Cut, tenant: F64) -> F64:
    """:data:`STATISTICS` [groups, 3] of tenants' sums [tenants, SHAPE]; NaN where too little is known.

    The mean share of a tenant's prompts without a heavy gram (0 to 1), the prompts that are pooled, and the log odds
    that the pool holds instructions of a campaign.
    """
    told, kept = tenant[:, 0], tenant[:, 1]
    weight = np.minimum(1.0, MOST / np.maximum(kept, 1.0))
    pool = by_group.total(tenant[:, 1:] * weight[:, None])
    share = by_group.mean(np.where(told > 0, kept / np.maximum(told, 1.0), np.nan))
    n = np.divide(pool[:, 0], share, out=np.zeros(len(pool)), where=share > 0)
    return np.column_stack([share, pool[:, 0], _score(np.column_stack([n, pool]), MIN_KEPT)])


def alone(sums: I64) -> F64:
    """Log odds [tenants] by their own sums [tenants, SHAPE]; NaN under :data:`LEAST_ALONE` prompts."""
    return _score(sums, LEAST_ALONE)


def _score(sums: F64 | I64, least: int) -> F64:
    n, kept = sums[:, 0], sums[:, 1]
    counts, first, second = np.split(sums[:, 2:], (_SUMS - 2, _SQUARES - 2), axis=1)
    features = pool_from_sums(n, kept, counts, first, second, SCALE, least)
    return _model().score(np.round(features, DIGITS))


@cache
def _model() -> ShapeModel:
    return ShapeModel.shipped()


assert len(SHAPE) == _SQUARES + len(SPREAD)
