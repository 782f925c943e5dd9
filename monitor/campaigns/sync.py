"""Co-timing: how many pairs of accounts of a group were active in the same tick, and how many chance would give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.blob import StepBlob

BITS = 60


def observed_and_expected(
    blobs: Sequence[StepBlob], rows_of: Callable[[pl.Series], npt.NDArray[np.int64]], members: set[int]
) -> tuple[float, float, list[int]]:
    """Pairs of members in one tick of this step, the expectation if each chose its ticks as everybody did, and the
    members that met at least two others in a tick.

    With ``k_t`` members active in tick t and ``p_t`` the share of all activity that fell into it, observed is
    ``sum C(k_t, 2)`` and expected ``sum_{i<j} a_i a_j * sum p_t**2`` for members with ``a_i`` active ticks. What
    gathers everybody (jobs at the full hour, an outage) gathers the expectation too.
    """
    profile = np.zeros(BITS)
    mine: list[npt.NDArray[np.uint64]] = []
    who: list[npt.NDArray[np.int64]] = []
    for blob in blobs:
        ticks = blob.accounts["ticks"].to_numpy()
        profile += bits(ticks).sum(axis=0)
        rows = rows_of(blob.accounts["account"])
        chosen = np.isin(rows, list(members))
        if chosen.any():
            mine.append(ticks[chosen])
            who.append(rows[chosen])
    if not mine:
        return 0.0, 0.0, []
    own = bits(np.concatenate(mine))
    if len(own) < 2:
        return 0.0, 0.0, []
    k, a = own.sum(axis=0), own.sum(axis=1)
    share = profile / profile.sum()
    pairs = (a.sum() ** 2 - (a**2).sum()) / 2.0
    together = np.concatenate(who)[(own[:, k >= 3] > 0).any(axis=1)]
    return float((k * (k - 1) / 2).sum()), float(pairs * (share**2).sum()), together.tolist()


def bits(ticks: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Activity maps as 0/1, [accounts, BITS]."""
    shifted = ticks[:, None] >> np.arange(BITS, dtype=np.uint64)[None, :]
    return np.asarray((shifted & np.uint64(1)).astype(np.float64))
