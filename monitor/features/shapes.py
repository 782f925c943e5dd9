"""The arrays that the kernels of this package share, by name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.features.pages import PagesView

RING = 32
"""First turns remembered per account, for repeats."""
MINHASH_BYTES = 16
"""Bins compared for a near repeat, out of the sketch's 64."""
NEAR_BINS = 10
"""Equal bins of 16 that make a near repeat: unrelated prompts agree in 0.5 of 16 by chance (8 bits a bin plus a
Jaccard similarity of 0.03), two fillings of one template in 10 or more from a similarity of about 0.6."""
EXEMPLARS = 8
EXEMPLAR_BYTES = 40
MODELS = 8
TOTALS = 5


class Accounts(NamedTuple):
    """Per-account arrays, indexed by slot [accounts, ...]."""

    partition: npt.NDArray[np.int32]
    first_ms: npt.NDArray[np.int64]
    last_ms: npt.NDArray[np.int64]
    created_ms: npt.NDArray[np.int64]
    dirty: npt.NDArray[np.uint8]
    totals: npt.NDArray[np.int64]
    tick_at: npt.NDArray[np.int64]
    tick_n: npt.NDArray[np.int32]
    ring_at: npt.NDArray[np.uint8]
    ring_exact: npt.NDArray[np.uint64]
    exemplar_day: npt.NDArray[np.int32]
    exemplar_key: npt.NDArray[np.uint64]
    exemplar_id: npt.NDArray[np.uint8]
    models: npt.NDArray[np.int16]
    recent_n: npt.NDArray[np.int64]
    judged_n: npt.NDArray[np.int64]
    judged_ms: npt.NDArray[np.int64]
    opinion: npt.NDArray[np.float32]


class Rings(NamedTuple):
    """What is kept of an account's last requests: ``recent`` their vectors, ``minhash`` of its last first turns."""

    recent: PagesView
    minhash: PagesView


class Events(NamedTuple):
    """Sorted events of closed ticks [events, ...]."""

    slot: npt.NDArray[np.int32]
    tick: npt.NDArray[np.int64]
    t_ms: npt.NDArray[np.int64]
    created_ms: npt.NDArray[np.int64]
    narrow: npt.NDArray[np.int32]
    wide: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint64]
    first: npt.NDArray[np.uint8]
    exact: npt.NDArray[np.uint64]
    minhash: npt.NDArray[np.uint8]
    opening: npt.NDArray[np.uint64]
    closing: npt.NDArray[np.uint64]
    key: npt.NDArray[np.uint64]
    request_id: npt.NDArray[np.uint8]
    model: npt.NDArray[np.int16]
    vector: npt.NDArray[np.uint8]


class Columns(NamedTuple):
    """Where the kernel finds the columns it treats by name."""

    n: int
    batch: int
    template: int
    model: int
    gap_n: int
    gap: int
    first: int
    exact: int
    near: int
    gap2: int
    bits_models: int
    day_narrow: int
    day_wide: int
    day_bits: int
    minute_narrow: int
    minute_wide: int
    novelty: int
    vector_gap: int


class Sums(NamedTuple):
    """Sums over a window's panes [columns], in the layout of one level."""

    narrow: npt.NDArray[np.int64]
    wide: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint64]
    hours: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, narrow: int, wide: int, bits: int, hours: int) -> Sums:
        """Room for so many columns."""
        return cls(
            np.zeros(narrow, np.int64), np.zeros(wide, np.int64), np.zeros(bits, np.uint64), np.zeros(hours, np.int64)
        )


class Room(NamedTuple):
    """Where a tick's events and the windows of its row are summed: a day's and a week's, and apart what of them is
    frozen, which the next row of the account may need again. ``cold`` [10], for hours and then for days, says when it
    holds: account, first frozen pane, times from and before which the last pane outside the window may lie, and how
    many panes it is."""

    of_tick: Sums
    of_day: Sums
    of_week: Sums
    cold_day: Sums
    cold_week: Sums
    cold: npt.NDArray[np.int64]


class Windows(NamedTuple):
    """What the windows hold [columns, rows]; see :func:`fold`."""

    slot: npt.NDArray[np.int32]
    tick: npt.NDArray[np.int64]
    t_ms: npt.NDArray[np.int64]
    minute: npt.NDArray[np.int64]
    hour_narrow: npt.NDArray[np.int64]
    hour_wide: npt.NDArray[np.int64]
    hour_peak: npt.NDArray[np.int64]
    day_narrow: npt.NDArray[np.int64]
    day_wide: npt.NDArray[np.int64]
    day_bits: npt.NDArray[np.uint64]
    day_hours: npt.NDArray[np.int64]
    past_narrow: npt.NDArray[np.int64]
    past_wide: npt.NDArray[np.int64]
    past_days: npt.NDArray[np.int64]
    week_n: npt.NDArray[np.int64]
    week_output: npt.NDArray[np.int64]
    week_bits: npt.NDArray[np.uint64]
    week_hours: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]
    exemplar_key: npt.NDArray[np.uint64]
    exemplar_id: npt.NDArray[np.uint8]
    models: npt.NDArray[np.int16]
    set_end: npt.NDArray[np.int64]
    due: npt.NDArray[np.uint8]
    sets: npt.NDArray[np.uint8]
