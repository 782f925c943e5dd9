"""An account's last requests in the features stage: what is kept, when it is looked at, and that no cut shows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from feature_rows import DAY, MINUTE, T0, engine, frame

import monitor.features.state
from monitor.features.engine import FeatureEngine
from monitor.features.recent import JUDGED_AFTER_MS, JUDGED_EVERY, JUDGED_FROM, carried
from monitor.records import REQUEST_SET
from monitor.vectors import GAP, NOVELTY, unpack
from monitor.wiring import VECTORS

COLUMNS = ("classifier_distillation", "classifier_resale")


def busy(n: int = 400, seed: int = 5, gap_ms: int = 9 * MINUTE) -> pl.DataFrame:
    """Requests of four accounts on two partitions, of different sizes, so that vectors differ."""
    rng = np.random.default_rng(seed)
    times = T0 + np.cumsum(rng.integers(1, gap_ms, n)).astype(np.int64)
    events = frame([f"a{i}" for i in rng.integers(0, 4, n)], times, partitions=2)
    return events.with_columns(
        input_tokens=pl.Series(rng.integers(0, 9_000, n)), output_tokens=pl.Series(rng.integers(0, 900, n)),
        prompt_exact=pl.Series(rng.integers(1, 9, n), dtype=pl.UInt64),
        minhash=pl.Series(rng.integers(0, 256, (n, 64)).astype(np.uint8), dtype=pl.Array(pl.UInt8, 64)),
    )  # fmt: skip


def made(events: pl.DataFrame, cuts: Sequence[int], stage: FeatureEngine | None = None) -> pl.DataFrame:
    """Rows of the events cut at ticks, each call's scores carried: a due row's score is told from its set."""
    stage = stage or engine()
    edges = [0, *sorted({int(events["tick"][c]) for c in cuts}), 1 << 60]
    out = []
    for low, high in itertools.pairwise(edges):
        part = events.filter((pl.col("tick") >= low) & (pl.col("tick") < high))
        rows = stage.update(part, {0: T0, 1: T0})
        told = rows[REQUEST_SET].hash(7).cast(pl.Float64) * 2.0**-64
        rows = rows.with_columns(told.alias(COLUMNS[0]), (1 - told).alias(COLUMNS[1]))
        out.append(stage.carry(rows, COLUMNS).drop("origin"))
    return pl.concat(out).sort("partition", "tick", "subject")


def test_a_set_holds_the_last_requests_oldest_first() -> None:
    events = busy()
    rows = made(events, ())
    due = rows.filter(pl.col(REQUEST_SET).is_not_null())
    sets, mask = unpack(due[REQUEST_SET], VECTORS.width, 32)
    plain = VECTORS.pack(events, {"batch": 3, "length": 2, "json": 2, "json_schema": 3})
    own = [i for i in range(VECTORS.width) if VECTORS.names[i] not in (NOVELTY, GAP)]
    for row, (events_of, there) in zip(due.iter_rows(named=True), zip(sets, mask, strict=True), strict=True):
        mine = (events["subject"] == row["subject"]) & (events["tick"] <= row["tick"])
        expected = plain[mine.to_numpy()][-32:]
        assert int(there.sum()) == len(expected) >= JUDGED_FROM
        assert np.array_equal(events_of[: len(expected)][:, own], expected[:, own])
    assert mask.sum(axis=1).max() == 32


def test_the_two_bytes_of_its_past() -> None:
    times = T0 + np.array([0, 1_000, 61_000, 62_000, 63_000, 64_000, 65_000, 66_000], np.int64)
    exact = [5, 6, 5, 7, 8, 9, 10, 11]
    minhash = np.arange(8 * 64).reshape(8, 64).astype(np.uint8)
    minhash[3] = minhash[1]
    events = frame(["a0"] * 8, times).with_columns(
        prompt_exact=pl.Series(exact, dtype=pl.UInt64), minhash=pl.Series(minhash, dtype=pl.Array(pl.UInt8, 64)),
        turn_index=pl.Series([0, 0, 0, 0, 1, 0, 0, 0], dtype=pl.Int32),
    )  # fmt: skip
    stage = engine()
    stage.update(events, {0: T0})
    last = stage.recent(0, "a0")
    # equal to the first, near the second, no first turn at all
    assert last[:5, VECTORS.index(NOVELTY)].tolist() == [255, 255, 64, 128, 0]
    assert last[:4, VECTORS.index(GAP)].tolist() == [0, 1 + 80, 1 + 127, 1 + 80]
    assert stage.recent(0, "nobody").shape == (0, VECTORS.width)


def test_when_an_account_is_looked_at() -> None:
    """At its eighth request, at each sixteenth, and at its first after six hours."""
    steps = [MINUTE] * 40 + [JUDGED_AFTER_MS] + [MINUTE] * 3 + [JUDGED_AFTER_MS - 30 * MINUTE, 31 * MINUTE]
    times = T0 + np.cumsum(np.array(steps, np.int64))
    rows = made(frame(["a0"] * len(times), times), ())
    count = np.arange(1, len(times) + 1)
    due = count[rows[REQUEST_SET].is_not_null().to_numpy()].tolist()
    assert due == [JUDGED_FROM, JUDGED_EVERY, 2 * JUDGED_EVERY, 41, 46]


def test_between_them_the_last_score_stands_and_before_them_none() -> None:
    rows = made(busy(), ()).filter(pl.col("subject") == "a1")
    due = rows[REQUEST_SET].is_not_null()
    scores = rows[COLUMNS[0]]
    first = due.arg_true()[0]
    assert first > 0
    assert scores[:first].null_count() == first
    assert scores[first:].null_count() == 0
    told = (rows[REQUEST_SET].hash(7).cast(pl.Float64) * 2.0**-64).cast(pl.Float32).cast(pl.Float64)
    wanted = pl.select(pl.when(due).then(told)).to_series().forward_fill()
    assert scores.to_list() == wanted.to_list()
    assert scores.n_unique() > 4


def check_cuts(cuts: Sequence[int]) -> None:
    assert made(busy(), ()).equals(made(busy(), cuts))


def test_no_cut_shows() -> None:
    check_cuts((1, 2, 50, 51, 52, 200, 399))
    check_cuts(tuple(range(0, 400, 3)))


def check_restored(delta: bool) -> None:
    """Saved after half of the events, by a full dump and (or) a change, and taken over under other slots."""
    events = busy()
    cut = [int(events["tick"][200]), int(events["tick"][260])]
    first, second = events.filter(pl.col("tick") < cut[0]), events.filter(pl.col("tick") >= cut[1])
    between = events.filter((pl.col("tick") >= cut[0]) & (pl.col("tick") < cut[1]))
    kept, taken = engine(), engine()
    made(first, (), kept)
    blobs = [kept.dump(p) for p in (0, 1)]
    made(between, (), kept)
    more = [kept.dump(p, full=not delta) for p in (0, 1)]
    for p in (1, 0):
        for blob in [blobs[p], more[p]] if delta else [more[p]]:
            taken.load(p, blob)
    assert made(second, (), kept).equals(made(second, (), taken))


@pytest.mark.parametrize("delta", [False, True])
def test_a_checkpoint_holds_it(delta: bool) -> None:
    check_restored(delta)


def test_an_account_that_was_away_too_long_starts_afresh() -> None:
    times = T0 + np.concatenate([np.arange(20) * MINUTE, 8 * DAY + np.arange(9) * MINUTE]).astype(np.int64)
    events = frame(["a0"] * 29, times)
    rows = made(events, ())
    assert rows.equals(made(events, (20,)))
    assert rows[COLUMNS[0]][20:27].null_count() == 7
    assert len(rows[REQUEST_SET][27]) == 8 * VECTORS.width


def test_carried_leaves_columns_it_has_no_place_for_alone() -> None:
    opinion = np.full((2, 8), np.nan, np.float32)
    due, values = np.array([2, 0, 1], np.uint8), np.array([[0.5], [0.9], [0.1]])
    out = carried(np.array([1, 0, 1], np.int32), due, values, opinion)
    assert out[[0, 2], 0].tolist() == [0.5, 0.5]
    assert np.isnan(out[1, 0])
    assert opinion[1, 0] == 0.5
    assert np.isnan(opinion[1, 1:]).all()


# Each defect turns the check that is there for it red.


def state_left_out(m: pytest.MonkeyPatch) -> None:
    m.setattr(monitor.features.state, "_SKIPPED", ("partition", "dirty", "opinion"))
    inner = FeatureEngine.load

    def load(self: FeatureEngine, partition: int, blob: bytes) -> None:
        inner(self, partition, blob)
        self.accounts.arrays.opinion[:] = np.nan

    m.setattr(FeatureEngine, "load", load)


def due_by_batch(m: pytest.MonkeyPatch) -> None:
    inner = FeatureEngine.update

    def update(self: FeatureEngine, *rest: Any) -> pl.DataFrame:
        self.accounts.arrays.judged_n[:] = -1
        return inner(self, *rest)

    m.setattr(FeatureEngine, "update", update)


def nothing_carried(m: pytest.MonkeyPatch) -> None:
    inner = FeatureEngine.carry

    def carry(self: FeatureEngine, rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        self.accounts.arrays.opinion[:] = np.nan
        return inner(self, rows, columns)

    m.setattr(FeatureEngine, "carry", carry)


@pytest.mark.parametrize("plant", [state_left_out, due_by_batch, nothing_carried])
def test_planted_defects(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check = (lambda: check_restored(False)) if plant is state_left_out else (lambda: check_cuts((50, 200)))
    check()
    with monkeypatch.context() as m:
        plant(m)
        with pytest.raises(AssertionError):
            check()
