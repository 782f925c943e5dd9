"""Frozen panes: the same numbers come back, and a stage that freezes makes the rows of one that never does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from feature_events import CODES, DAY, HOUR, T0, TEXT, TICK, build, engine, event, events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.arrays import StateUnreadable
from monitor.features import panes, state
from monitor.features.engine import FeatureEngine, FeatureOptions
from monitor.features.frozen import encode, gather, longest, sound, thaw
from monitor.features.panes import Level
from monitor.features.shapes import Sums

WORDS = 11


def ints(low: int, high: int, n: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.one_of(st.just(0), st.integers(-3, 300), st.integers(low, high)), min_size=n, max_size=n)


word = st.one_of(
    st.just(0), st.integers(0, 63).map(lambda c: 1 << c), st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 63), min_size=5, max_size=8).map(lambda cells: sum({1 << c for c in cells})),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    ints(-(2**31) + 1, 2**31 - 1, 9), ints(-(2**63), 2**63 - 1, 3), ints(0, 2**31 - 1, 7),
    st.lists(word, min_size=WORDS, max_size=WORDS), st.booleans(),
)  # fmt: skip
def test_what_is_frozen_comes_back(
    narrow: list[int], wide: list[int], hours: list[int], bits: list[int], twice: bool
) -> None:
    out = np.full(longest(9, 3, WORDS, 7), 77, np.uint8)
    arrays = (
        np.array([narrow], np.int32), np.array([wide], np.int64), np.array([bits], np.uint64),
        np.array([hours], np.int32),
    )  # fmt: skip
    length = encode(0, *arrays, out)
    assert length <= len(out)
    sums: list[npt.NDArray[Any]] = [
        np.zeros(a.shape[1], np.uint64 if a.dtype == np.uint64 else np.int64) for a in arrays
    ]
    for _ in range(1 + twice):
        thaw(0, out[:length].copy(), *sums)
    with np.errstate(over="ignore"):
        for made, a in zip(sums, arrays, strict=True):
            expected = a[0] if a.dtype == np.uint64 else a[0].astype(np.int64) * (1 + twice)
            assert np.array_equal(made, expected)


def test_a_pane_of_one_request_is_short() -> None:
    stage = crowded()
    rows = [{"subject": f"a{i}", "t_ms": T0 + i, "prompt_exact": 3, "shape": [9] * 24, "minhash": [1] * 64,
             "lexicon": 1, "net": 2**50, "user_agent": 2**60} for i in range(200)]  # fmt: skip
    stage.update(events(rows), {0: T0})
    stage.update(events([{"subject": "b", "t_ms": T0 + 2 * HOUR}]), {0: T0 + 2 * HOUR})
    assert stage.hour.cold == 200
    assert stage.hour.arrays.frozen_start[200] / 200 < 100
    arrays = stage.hour.arrays
    dense = sum(getattr(arrays, name).nbytes // len(arrays.slot) for name in ("narrow", "wide", "bits"))
    assert dense > 500


class Crowded(FeatureEngine):
    """A stage whose arrays are as if always full: it drops and freezes with every batch."""

    def make_room(self, rows: int, horizon_ms: Mapping[int, int] = MappingProxyType({})) -> None:
        super().make_room(rows, horizon_ms)
        for level in (self.minute, self.hour, self.day):
            level.compact(self.horizon_of(level, horizon_ms))


def crowded() -> FeatureEngine:
    return Crowded(FeatureOptions(), TEXT, CODES)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(event, min_size=2, max_size=80), st.lists(st.integers(0, 80), min_size=2, max_size=12), st.booleans())
def test_freezing_changes_no_row(drawn: list[dict[str, object]], cuts: list[int], kept_full: bool) -> None:
    """Beside one that keeps all as it is: one that freezes with every batch, and one that is restored each time, from
    a full dump or from one and the changes since."""
    frame = events(build(drawn))
    plain, freezing, restored = engine(), crowded(), crowded()
    for level in (plain.hour, plain.day):
        level.freezes = False
    blobs: list[bytes] = []
    edges = sorted({0, *(int(frame["tick"][c]) for c in cuts if c < len(frame)), 1 << 60})
    for low, high in itertools.pairwise(edges):
        part = frame.filter((pl.col("tick") >= low) & (pl.col("tick") < high))
        if part.is_empty():
            continue
        horizon = {0: int(part["tick"].to_numpy()[0]) * TICK}
        rows = plain.update(part, horizon).drop("origin")
        assert rows.equals(freezing.update(part, horizon).drop("origin"))
        assert rows.equals(restored.update(part, horizon).drop("origin"))
        blobs = [restored.dump(0)] if kept_full else [*blobs, restored.dump(0, full=not blobs)]
        restored = crowded()
        for blob in blobs:
            restored.load(0, blob)


def _long_quiet(stage: FeatureEngine) -> pl.DataFrame:
    """Three weeks of twenty accounts, by half days: rows of all."""
    made = []
    for half in range(42):
        rows: list[dict[str, object]] = [
            {"subject": f"s{a}", "t_ms": T0 + half * DAY // 2 + (a * 7 + h * 5) % 12 * HOUR, "prompt_exact": a + h + 1,
             "input_tokens": 1 + a * 50 + half}
            for a in range(20) for h in range(2)
        ]  # fmt: skip
        rows.sort(key=lambda row: int(str(row["t_ms"])))
        made.append(stage.update(events(rows), {0: T0 + half * DAY // 2}).drop("origin"))
    return pl.concat(made)


def test_what_no_window_reaches_leaves() -> None:
    stage = crowded()
    _long_quiet(stage)
    # a week of days and a day of hours are reached; at most a batch more may wait to be dropped
    assert 20 * 7 <= stage.day.cold <= 20 * 9
    assert 0 < stage.hour.cold <= 20 * 4 * 3
    assert stage.hour.size <= 20 * 4
    stage.drop(0)
    assert (stage.hour.arrays.head == -1).all()
    assert (stage.day.arrays.frozen_slot[: stage.day.cold] == -1).all()


def _forgets_the_chain(m: pytest.MonkeyPatch) -> None:
    """A frozen pane's past is lost when the frozen are moved together."""
    inner = panes._drop_frozen

    def drop(size: int, cold: int, pane_ms: int, span: int, horizon_ms: Any, level: Any) -> int:
        left = int(inner(size, cold, pane_ms, span, horizon_ms, level))
        level.frozen_prev[:left] = -1
        return left

    m.setattr(panes, "_drop_frozen", drop)


def _freezes_what_is_written(m: pytest.MonkeyPatch) -> None:
    """A pane is frozen an hour or a day before it is over."""
    inner = Level.compact
    m.setattr(Level, "compact", lambda self, horizon: inner(self, horizon + (self.pane_ms if self.freezes else 0)))


@pytest.mark.parametrize("defect", [_forgets_the_chain, _freezes_what_is_written])
def test_planted_in_the_log(defect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _long_quiet(engine())
    assert _long_quiet(crowded()).equals(expected)
    defect(monkeypatch)
    assert not _long_quiet(crowded()).equals(expected)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_are_panes(data: st.DataObject) -> None:
    """Nothing is read or written outside of the arrays, whatever a checkpoint holds."""
    stage = _kept()
    start, body = stage.hour.arrays.frozen_start[: stage.hour.cold + 1], stage.hour.arrays.frozen.copy()
    rows = np.arange(data.draw(st.integers(1, 8)))
    lengths, held = np.diff(start)[rows].astype(np.int32), gather(rows, start, body)
    columns = stage.hour.columns
    assert sound(lengths, held, *columns)
    for _ in range(data.draw(st.integers(1, 4))):
        held[data.draw(st.integers(0, len(held) - 1))] = data.draw(st.integers(0, 255))
    if sound(lengths, held, *columns):
        ends = np.cumsum(lengths)
        for at in (ends - lengths).tolist():
            thaw(at, held, *Sums.empty(*columns))
    assert not sound(lengths, held[:-1].copy(), *columns)
    assert not sound(np.append(lengths, np.int32(1)), held, *columns)


@cache
def _kept() -> FeatureEngine:
    stage = crowded()
    _long_quiet(stage)
    return stage


def test_a_damaged_dump_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = _kept()
    next_day = events([{"subject": f"s{a}", "t_ms": T0 + 21 * DAY} for a in range(20)])
    restored = engine()
    restored.load(0, stage.dump(0))
    monkeypatch.setattr(state, "gather", lambda rows, start, data: gather(rows[::-1].copy(), start, data))
    with pytest.raises(StateUnreadable, match="no panes"):
        engine().load(0, stage.dump(0))
    expected = stage.update(next_day, {0: T0 + 21 * DAY}).drop("origin")
    assert restored.update(next_day, {0: T0 + 21 * DAY}).drop("origin").equals(expected)
