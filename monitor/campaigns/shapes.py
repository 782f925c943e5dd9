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
from monitor.pooled.shape import COUNTED, SPREAD, ShapeModel, pool_from_sums

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
"""Prompts without a template with which a tenant counts in a pool; the shape of 20 takes three tenants so."""
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


def statistics(by_tenant: Cut, by_group: Cut, sums: I64) -> F64:
    """:data:`STATISTICS` [groups, 3] of members' sums [members, SHAPE]; NaN where too little is known.

    The mean share of a tenant's prompts without a heavy gram (0 to 1), the prompts that are pooled, and the log odds
    that the pool holds instructions of a campaign.
    """
    tenant = by_tenant.total(sums)
    told, kept = tenant[:, 0], tenant[:, 1]
    weight = np.minimum(1.0, MOST / np.maximum(kept, 1.0))
    pool = by_group.total(tenant[:, 1:] * weight[:, None])
    share = by_group.mean(np.where(told > 0, kept / np.maximum(told, 1.0), np.nan))
    n = np.divide(pool[:, 0], share, out=np.zeros(len(pool)), where=share > 0)
    counts, sums_, squares = np.split(pool[:, 1:], (_SUMS - 2, _SQUARES - 2), axis=1)
    features = pool_from_sums(n, pool[:, 0], counts, sums_, squares, SCALE)
    score = _model().score(np.round(features, DIGITS))
    return np.column_stack([share, pool[:, 0], score])


@cache
def _model() -> ShapeModel:
    return ShapeModel.shipped()


assert len(SHAPE) == _SQUARES + len(SPREAD)
