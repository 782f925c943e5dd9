"""Did an account or a group change against its own past? A two-sample test on shape scalars, whole sessions shuffled.

The only test of the pilot that caught every source of attack text without an attack label: it needs no model of what
an attack looks like, only a past. Statistic: squared MMD between past and recent requests by random Fourier features
(Rahimi and Recht 2007) at four bandwidths; its z against shuffles of whole sessions, because the turns of one
conversation resemble each other. Thresholds come from harmless accounts, never from a normal table: composed tenants
put 1 % above z = 2.7, the pilot's (whose sessions drifted) above 8.4, and real accounts change products.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from .shape import F64, I64, U8

FREQUENCIES: Final = 256
"""Random features; 64 of each bandwidth."""
_TURN: Final = 4096
"""Steps of a full turn: phases are integers, and cosines come from a table, so that sums do not depend on order."""
_PHASE: Final = 1 << 12
_BANDWIDTHS: Final = (0.5, 1.0, 2.0, 4.0)
_UNIT: Final = 90.0
"""Distance between two prompts' scalars, after the weights below, that the middle bandwidths resolve."""
_FLAG: Final = 0.25
"""Weight of a scalar that is 0 or 255 (the last 11 of 24) beside one that takes every value."""
_FLAGS: Final = 11


@lru_cache(maxsize=4)
def _frequencies(scalars: int) -> tuple[F64, I64]:
    """Integer frequencies (scalars, FREQUENCIES) in 1 / (_PHASE * _TURN) turns, and the table of cosines."""
    rng = np.random.default_rng(20_261_125)
    weight = np.ones(scalars)
    if scalars == 24:
        weight[-_FLAGS:] = _FLAG
    wide = np.repeat(np.array(_BANDWIDTHS), FREQUENCIES // len(_BANDWIDTHS)) * _UNIT
    turns = rng.standard_normal((scalars, FREQUENCIES)) * weight[:, None] / wide / (2 * np.pi)
    steps = np.round(turns * (_PHASE * _TURN))
    table = np.round(np.cos(np.arange(_TURN) * (2 * np.pi / _TURN)) * 32_767).astype(np.int64)
    return steps, table


def features(scalars: U8) -> tuple[I64, I64]:
    """Cosines and sines of ``scalars`` (n, S), both (n, FREQUENCIES) integers: the same bits in any order of rows."""
    steps, table = _frequencies(scalars.shape[1])
    # products of integers below 2**53 are exact in floats, whatever the order of the sum
    phase = (scalars.astype(np.float64) @ steps).astype(np.int64) // _PHASE
    return table[phase % _TURN], table[(phase - _TURN // 4) % _TURN]


def _by_session(scalars: U8, session: I64) -> tuple[F64, F64]:
    """Sums of the features (s, 2 x FREQUENCIES) and the number of requests (s,) of each session, by its number."""
    _, of = np.unique(session, return_inverse=True)
    waves = np.hstack(features(scalars)).astype(np.float64)
    order = np.argsort(of, kind="stable")
    starts = np.flatnonzero(np.diff(of[order], prepend=-1))
    return np.add.reduceat(waves[order], starts, axis=0), np.bincount(of).astype(np.float64)


def change_z(
    past: U8, past_session: npt.ArrayLike, recent: U8, recent_session: npt.ArrayLike, shuffles: int = 60, seed: int = 0
) -> float:
    """How many standard deviations of ``shuffles`` the recent requests lie from the past ones.

    ``past`` (n, S) and ``recent`` (m, S) quantised scalars, with the number of each request's session (any integers;
    a session on both sides counts as two). Deterministic for a ``seed``, and the same for any order of the requests.
    ``nan`` where a side has fewer than two sessions, since then nothing can be shuffled.
    """
    of_old, of_new = np.asarray(past_session, np.int64), np.asarray(recent_session, np.int64)
    if len(np.unique(of_old)) < 2 or len(np.unique(of_new)) < 2:
        return float("nan")
    old, n_old = _by_session(past, of_old)
    new, n_new = _by_session(recent, of_new)
    sums, sizes = np.vstack([old, new]), np.concatenate([n_old, n_new])
    total, n = sums.sum(axis=0), sizes.sum()
    rng = np.random.default_rng(seed)
    # rows: 0 as it was, then shuffles; the recent side of each is filled with whole sessions up to its size
    chosen = np.zeros((shuffles + 1, len(sizes)))
    chosen[0, len(n_old) :] = 1.0
    for i in range(shuffles):
        order = rng.permutation(len(sizes))
        filled = np.cumsum(sizes[order])
        take = order[: int(np.searchsorted(filled, n_new.sum())) + 1]
        chosen[i + 1, take[: len(sizes) - 1]] = 1.0
    there = chosen @ sizes
    side = chosen @ sums
    gap = side / there[:, None] - (total - side) / (n - there)[:, None]
    mmd = (gap * gap).mean(axis=1) / 32_767.0**2
    # what the mean would be without any change: within-group scatter over the two sizes
    expected = 1.0 / there + 1.0 / (n - there)
    values = mmd / expected
    spread = float(values[1:].std())
    return float((values[0] - values[1:].mean()) / spread) if spread > 0 else 0.0
