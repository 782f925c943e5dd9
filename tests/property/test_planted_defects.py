"""Each defect planted here turns the check that is there for it red: a check that no defect can fail proves nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from feature_rows import check_long_batch
from spine import Record, world
from spine_checks import check_null, check_polls, check_restored, check_rows, check_suspects
from tick_events import HOUR, OPTIONS, T0, Event, check_accounting, check_late, check_moves, check_oracle, check_splits

import monitor.alerts.compose
import monitor.features.state
import monitor.ticks
from monitor.alerts import AlertStage
from monitor.checkpointing import Checkpointer
from monitor.features.engine import FeatureEngine
from monitor.keytable import Found, KeyTable
from monitor.pipeline import Pipeline
from monitor.score import Scorer
from monitor.ticks import TickStage

Patch = pytest.MonkeyPatch
RNG = np.random.default_rng(5)
STREAM = [
    Event(int(RNG.integers(0, 2)), f"a{RNG.integers(0, 5)}", T0 + i * 1_500 - int(RNG.integers(0, 30_000)), i // 3 % 40)
    for i in range(400)
]
"""Late events, duplicates, two partitions."""
CUTS = [3, 40, 41, 160, 300]


def records() -> Sequence[Record]:
    """The part of the log in which alerts open."""
    return world()[-1_800:]


# ------------------------------------------------------------------------------------------------- ticks


def pollwise_watermark(m: Patch) -> None:
    inner = TickStage._newest

    def newest(self: TickStage, partition: int, t: Any, *rest: Any) -> Any:
        out = inner(self, partition, t, *rest)
        return np.full(len(t), out[-1]) if len(t) else out

    m.setattr(TickStage, "_newest", newest)


def late_dropped(m: Patch) -> None:
    m.setattr(monitor.ticks, "OLDEST_MS", 0)


def edge_moved(m: Patch) -> None:
    """``>=`` for ``>`` at the end of the longest window."""
    m.setattr(monitor.ticks, "OLDEST_MS", monitor.ticks.OLDEST_MS - 1)


def dedup_off(m: Patch) -> None:
    def probe(self: KeyTable, partition: int, keys: Any, values: Any, times: Any) -> Found:
        return Found(np.zeros(len(keys), np.uint8), np.zeros(len(keys), np.uint64))

    m.setattr(KeyTable, "probe", probe)


def expiry_by_wall_clock(m: Patch) -> None:
    inner = KeyTable.probe

    def probe(self: KeyTable, partition: int, keys: Any, values: Any, times: Any) -> Found:
        return inner(self, partition, keys, values, np.full(len(keys), int(time.time() * 1000), np.int64))

    m.setattr(KeyTable, "probe", probe)


def any_time_believed(m: Patch) -> None:
    def newest(self: TickStage, partition: int, t: Any, *rest: Any) -> Any:
        clock = self._clocks.setdefault(partition, monitor.ticks._Clock())
        running = np.maximum.accumulate(np.concatenate(([clock.newest_ms], t)))[1:]
        clock.newest_ms = int(running[-1])
        return running

    m.setattr(TickStage, "_newest", newest)


def open_ticks_not_dumped(m: Patch) -> None:
    inner = TickStage.dump

    def dump(self: TickStage, partition: int, *, full: bool = True) -> bytes:
        held, self._open = self._open, self._open.clear()
        try:
            return inner(self, partition, full=full)
        finally:
            self._open = held

    m.setattr(TickStage, "dump", dump)


def late_counted_twice(m: Patch) -> None:
    inner = TickStage.push

    def push(self: TickStage, events: pl.DataFrame, trusted_clock: bool = False) -> Any:
        closed, stats = inner(self, events, trusted_clock)
        return pl.concat([closed, closed.filter(pl.col("tick") > pl.col("t_ms") // OPTIONS.tick_ms)]), stats

    m.setattr(TickStage, "push", push)


HOURS_APART = [Event(0, "a", T0 + i * HOUR // 2, i % 5) for i in range(40)]
ABSURD = [*(Event(0, f"a{i % 4}", T0 + i * 2_000, i) for i in range(60)), Event(0, "x", T0 + 900 * 86_400_000, 1)]

TICKS: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (pollwise_watermark, lambda: check_splits(STREAM, CUTS)),
    (pollwise_watermark, lambda: check_oracle(STREAM, CUTS)),
    (late_dropped, check_late),
    (edge_moved, check_late),
    (dedup_off, lambda: check_oracle(STREAM)),
    (expiry_by_wall_clock, lambda: check_oracle(HOURS_APART)),
    (any_time_believed, lambda: check_oracle(ABSURD)),
    (open_ticks_not_dumped, lambda: check_moves(STREAM, CUTS, [1, 3])),
    (late_counted_twice, lambda: check_accounting(STREAM)),
]


@pytest.mark.parametrize(("plant", "check"), TICKS, ids=[f"{i}-{t[0].__name__}" for i, t in enumerate(TICKS)])
def test_ticks(plant: Callable[[Patch], None], check: Callable[[], None], monkeypatch: Patch) -> None:
    check()
    with monkeypatch.context() as m:
        plant(m)
        with pytest.raises(AssertionError):
            check()


# ------------------------------------------------------------------------------------------ whole pipeline


def unsorted_rows(m: Patch) -> None:
    """The kernel gets the requests of a tick as they came."""
    inner = FeatureEngine._event_arrays
    m.setattr(FeatureEngine, "_event_arrays", lambda self, e: inner(self, e.sort("slot", "tick", "offset")))


def epoch_by_poll(m: Patch) -> None:
    """All rows of a poll count as of its last epoch, so that learning falls in the middle of one."""

    def epochs_of(self: Pipeline, rows: pl.DataFrame) -> Any:
        if len(rows):
            yield int(rows["tick"].max() or 0) * self.tick_ms // self.epoch_ms, rows  # type: ignore[call-overload]  # ticks are integers

    m.setattr(Pipeline, "_epochs_of", epochs_of)


def learn_before_score(m: Patch) -> None:
    """An epoch's rows are given to learning before they are scored: the score stage itself refuses them."""
    inner = Pipeline._enter

    def enter(self: Pipeline, epoch: int, rows: pl.DataFrame) -> None:
        self.scorer.collect(self.scorer.score(rows))
        inner(self, epoch, rows)

    m.setattr(Pipeline, "_enter", enter)


def forgets_by_the_batchs_end(m: Patch) -> None:
    m.setattr(FeatureEngine, "_oldest_ms", lambda self, events, horizon_ms: dict(horizon_ms))


def test_what_a_long_batch_forgets(monkeypatch: Patch) -> None:
    forgets_by_the_batchs_end(monkeypatch)
    with pytest.raises(AssertionError):
        check_long_batch(2_100)


def suspects_learned(m: Patch) -> None:
    m.setattr(AlertStage, "suspects", lambda self, partition, at_ms: set())


def null_as_zero(m: Patch) -> None:
    inner = Scorer.score
    m.setattr(Scorer, "score", lambda self, rows: inner(self, rows).with_columns(pl.col(pl.Float64).fill_null(0.0)))


def ids_by_counter(m: Patch) -> None:
    numbers = itertools.count()
    m.setattr(monitor.alerts.compose, "alert_id", lambda *parts: f"alert-{next(numbers)}")


def state_older_than_offset(m: Patch) -> None:
    """The snapshot is of before the poll, the offset of after it."""
    held: dict[tuple[int, int], Any] = {}
    inner = Checkpointer.save

    def save(self: Checkpointer, partition: int, next_offset: int, generation: int) -> None:
        before = held.get((id(self), partition))
        inner(self, partition, next_offset, generation)
        held[id(self), partition] = self.store.load(partition)
        if before is not None:
            self.store.save(
                replace(before, next_offset=next_offset, generation=generation, keep=dict.fromkeys(before.parts, 0))
            )

    m.setattr(Checkpointer, "save", save)
    m.setattr("monitor.checkpointing.FULL_EVERY", 0)


def changes_not_written(m: Patch) -> None:
    """A delta without the panes."""
    m.setattr(monitor.features.state, "_LEVELS", ())


def alerts_not_saved(m: Patch) -> None:
    inner = Pipeline.components.fget
    assert inner is not None
    m.setattr(Pipeline, "components", property(lambda self: {k: v for k, v in inner(self).items() if k != "alerts"}))


def random_bits(m: Patch) -> None:
    """Floats summed in an order of its own for each batch: the last bit moves."""
    inner = FeatureEngine._rows

    def rows(self: FeatureEngine, *rest: Any) -> pl.DataFrame:
        out = inner(self, *rest)
        return out.with_columns(pl.col("gap_log_mean_24h") * (1.0 + (len(out) % 7) * 2.0**-52))

    m.setattr(FeatureEngine, "_rows", rows)


def rows_by_order() -> None:
    check_rows(records(), (), 3)


def rows_by_cut() -> None:
    check_rows(records(), (100, 101, 900))


def suspects() -> None:
    check_suspects(records())


def nulls() -> None:
    check_null(records())


def cuts() -> None:
    check_polls(records(), (500, 900))


def restarts() -> None:
    check_restored(records(), (400, 800, 1_200), {2})


WHOLE = [
    (unsorted_rows, rows_by_order),
    (random_bits, rows_by_cut),
    (epoch_by_poll, suspects),
    (learn_before_score, nulls),
    (suspects_learned, suspects),
    (null_as_zero, nulls),
    (ids_by_counter, cuts),
    (state_older_than_offset, restarts),
    (changes_not_written, restarts),
    (alerts_not_saved, restarts),
]


@pytest.fixture(scope="module")
def sound() -> None:
    """Without a defect every one of these checks holds."""
    for check in dict.fromkeys(check for _, check in WHOLE):
        check()


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize(("plant", "check"), WHOLE, ids=[t[0].__name__ for t in WHOLE])
def test_whole_pipeline(plant: Callable[[Patch], None], check: Callable[[], None], monkeypatch: Patch) -> None:
    with monkeypatch.context() as m:
        plant(m)
        with pytest.raises(ValueError if plant is learn_before_score else AssertionError):
            check()
