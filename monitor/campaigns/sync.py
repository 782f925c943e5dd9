"""Co-timing: how many pairs of accounts of a group were active in the same tick, and how many chance would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.campaigns.blob import StepBlob

BITS = 60


@dataclass(frozen=True, slots=True)
class Activity:
    """Who was active in which ticks of a step: ``rows`` of accounts, their activity maps, and how much of all activity
    fell into each tick."""

    rows: npt.NDArray[np.int64]
    ticks: npt.NDArray[np.uint64]
    profile: npt.NDArray[np.float64]


def activity(blobs: Sequence[StepBlob], rows: Sequence[npt.NDArray[np.int64]]) -> Activity | None:
    """Of a step's blobs, whose accounts stand in ``rows``; None where there are none."""
    if not blobs:
        return None
    ticks = np.concatenate([blob.accounts["ticks"].to_numpy() for blob in blobs])
    return Activity(np.concatenate(rows), ticks, bits(ticks).sum(axis=0))


def observed_and_expected(step: Activity, member: npt.NDArray[np.bool_]) -> tuple[float, float, list[int]]:
    """Pairs of members in one tick of this step, the expectation if each chose its ticks as everybody did, and the
    members that met at least two others in a tick. ``member``: whether each of ``step.rows`` is one.

    With ``k_t`` members active in tick t and ``p_t`` the share of all activity that fell into it, observed is
    ``sum C(k_t, 2)`` and expected ``sum_{i<j} a_i a_j * sum p_t**2`` for members with ``a_i`` active ticks. What
    gathers everybody (jobs at the full hour, an outage) gathers the expectation too.
    """
    if member.sum() < 2:
        return 0.0, 0.0, []
    own = bits(step.ticks[member])
    k, a = own.sum(axis=0), own.sum(axis=1)
    share = step.profile / step.profile.sum()
    pairs = (a.sum() ** 2 - (a**2).sum()) / 2.0
    together = step.rows[member][(own[:, k >= 3] > 0).any(axis=1)]
    return float((k * (k - 1) / 2).sum()), float(pairs * (share**2).sum()), together.tolist()


def bits(ticks: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Activity maps as 0/1, [accounts, BITS]."""
    shifted = ticks[:, None] >> np.arange(BITS, dtype=np.uint64)[None, :]
    return np.asarray((shifted & np.uint64(1)).astype(np.float64))
