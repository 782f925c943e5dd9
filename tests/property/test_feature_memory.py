"""What the features stage may forget, and when: never what a row of the same batch still looks at."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from feature_rows import DAY, T0, check_long_batch, frame, rows


@pytest.mark.parametrize("size", [700, 2_100, 6_000])
def test_panes_that_a_long_batch_still_needs_are_kept(size: int) -> None:
    """A batch of days makes the minutes' arrays full: the hour before its first row is not yet over."""
    check_long_batch(size)


@pytest.mark.parametrize("size", [900, 2_500])
def test_accounts_that_a_long_batch_brings_back_are_kept(size: int) -> None:
    """Accounts once every six days, so many that slots are short: each time they continue, they do not begin."""
    ring = [f"a{i}" for i in range(1_000)]
    subjects = ring * 6
    times = T0 + np.arange(len(subjects), dtype=np.int64) * (6 * DAY // 1_000)
    events = frame(subjects, times, partitions=2)
    whole = rows(events, size)
    assert whole.equals(rows(events, 97))
    assert whole.filter(pl.col("tick") * 10_000 > T0 + 31 * DAY)["total_requests"].min() == 6


def test_silence_ends_an_account_whether_its_slot_was_wanted_or_not() -> None:
    ring = [f"a{i}" for i in range(2_000)]
    times = T0 + np.arange(2_000, dtype=np.int64) * (15 * DAY // 2_000)
    again = T0 + 15 * DAY + np.arange(1_000, dtype=np.int64) * 1_000
    events = frame([*ring, *ring[:1_000]], np.concatenate([times, again]))
    assert rows(events, 50).equals(rows(events, 3_000))


def test_the_same_batch_twice_gives_the_same_bits() -> None:
    """Sums of floats by threads in no fixed order differ in the last bit, once in a while."""
    rng = np.random.default_rng(2)
    times = np.sort(T0 + rng.integers(0, 9 * DAY, 4_000))
    events = frame([f"a{i % 7}" for i in range(4_000)], times)
    first = rows(events, 4_000)
    assert all(rows(events, 4_000).equals(first) for _ in range(12))
