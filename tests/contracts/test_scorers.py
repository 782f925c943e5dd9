"""The contract of a detector, run against each of them: pure, null when cold, in [0, 1], seeded, restorable, bounded.

One suite for every score column. What a detector needs to have an opinion is in ``CASES``; a new score column without a
case fails ``test_every_score_has_a_case``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_models
import polars as pl
import pytest
import score_rows
from polars.testing import assert_frame_equal

from monitor.features.catalogue import ACCOUNT_FEATURES, SCORES
from monitor.records import ROW_KEYS
from monitor.score import ANOMALY_COLUMNS, CLASSIFIER_COLUMNS, SCORE_COLUMNS, ClassifierOptions, ScoreOptions, Scorer

Make = Callable[[], Scorer]
Case = tuple[tuple[str, ...], Make]


def bare(tmp_path: Path) -> Make:
    return lambda: Scorer(score_rows.small(), ACCOUNT_FEATURES)


def with_model(tmp_path: Path) -> Make:
    if not (tmp_path / "manifest.json").exists():
        onnx_models.write(tmp_path)
    options = score_rows.small()
    classifier = ClassifierOptions(model_dir=tmp_path, providers=("cpu",), buckets=(8, 64))
    options = ScoreOptions(anomaly=options.anomaly, classifier=classifier)
    return lambda: Scorer(options, ACCOUNT_FEATURES)


CASES: dict[str, tuple[tuple[str, ...], Callable[[Path], Make]]] = {
    "anomaly": (ANOMALY_COLUMNS, bare),
    "classifier": (CLASSIFIER_COLUMNS, with_model),
}
"""Columns that one scorer makes in one pass, and that scorer. A test runs it once for all of them: 38 s, 11 s so."""
WARM = 8  # epochs after which the small options have opinions


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    columns, make = CASES[request.param]
    return columns, make(tmp_path)


def test_every_score_has_a_case() -> None:
    assert sorted(name for columns, _ in CASES.values() for name in columns) == sorted(SCORES.names)


def test_warm_it_has_opinions_between_0_and_1(case: Case) -> None:
    columns, make = case
    rows = score_rows.run(make(), 0, WARM)
    for column in columns:
        scored = rows[column]
        assert scored.dtype == pl.Float64, column
        known = scored.drop_nulls()
        assert len(known) > len(scored) // 2, column
        assert known.is_between(0, 1).all(), column
        assert not known.is_nan().any(), column
        assert known.n_unique() > 10, column


def test_cold_or_without_a_model_it_is_null_and_says_why(case: Case) -> None:
    columns, _ = case
    scorer = bare(Path())()
    rows = scorer.score(score_rows.rows(0, np.arange(100)))
    for column in columns:
        assert rows[column].null_count() == 100, column
        assert rows[column].dtype == pl.Float64, column
        assert scorer.status().inactive[column]


def test_a_row_that_knows_nothing_gets_null_never_zero(case: Case) -> None:
    columns, make = case
    scorer = make()
    score_rows.run(scorer, 0, WARM)
    frame = score_rows.rows(WARM, np.arange(50))
    blank = frame.with_columns(pl.lit(None, pl.Float64).alias(n) for n in ACCOUNT_FEATURES.names)
    absent = frame.select(list(ROW_KEYS))
    nobody = frame.with_columns(pl.lit(None, pl.UInt8).alias("client_class"))
    elsewhere = frame.with_columns(pl.lit(77, pl.Int32).alias("partition"))
    for unknown in (blank, absent, *((nobody, elsewhere) if columns == ANOMALY_COLUMNS else ())):
        scored = scorer.score(unknown)
        for column in columns:
            assert scored[column].null_count() == unknown.height, column


def test_scoring_is_pure(case: Case) -> None:
    columns, make = case
    scorer = make()
    score_rows.run(scorer, 0, WARM)
    frame = score_rows.rows(WARM, np.arange(200))
    copy, state = frame.clone(), [scorer.dump(p) for p in range(4)]
    first, second = scorer.score(frame), scorer.score(frame)
    assert_frame_equal(frame, copy)
    assert_frame_equal(first, second)
    assert [scorer.dump(p) for p in range(4)] == state
    assert first.columns == [*frame.columns, *SCORE_COLUMNS]
    assert_frame_equal(first.drop(SCORE_COLUMNS), frame)
    assert_frame_equal(scorer.score(first), first)  # scoring again replaces the columns
    assert set(columns) <= set(first.columns)


def test_an_empty_frame_is_an_empty_answer(case: Case) -> None:
    columns, make = case
    empty = score_rows.rows(0, np.arange(3)).clear()
    scorer = make()
    scored = scorer.score(empty)
    scorer.collect(scored)
    assert [scored[column].dtype for column in columns] == [pl.Float64] * len(columns)
    assert scored.height == 0


def test_a_rows_score_does_not_depend_on_its_neighbours(case: Case) -> None:
    columns, make = case
    scorer = make()
    score_rows.run(scorer, 0, WARM)
    frame = score_rows.rows(WARM, np.arange(100))
    whole = scorer.score(frame).select(columns)
    parts = pl.concat([scorer.score(frame[i : i + 7]).select(columns) for i in range(0, frame.height, 7)])
    assert_frame_equal(whole, parts, check_exact=True)
    back = scorer.score(frame.reverse()).select(columns).reverse()
    assert_frame_equal(whole, back, check_exact=True)


def test_the_same_seed_gives_the_same_scores(case: Case) -> None:
    columns, make = case
    one, two = score_rows.run(make(), 0, WARM), score_rows.run(make(), 0, WARM)
    assert_frame_equal(one.select(columns), two.select(columns), check_exact=True)


def test_another_seed_gives_other_anomaly_scores() -> None:
    one, two = (
        score_rows.run(Scorer(score_rows.small(seed=seed), ACCOUNT_FEATURES), 0, WARM)["anomaly_population"]
        for seed in (1, 2)
    )
    assert not one.equals(two)


def test_restored_it_goes_on_as_if_nothing_had_happened(case: Case) -> None:
    """Saved in the middle of an epoch, half of its rows sampled, and taken over partition by partition."""
    columns, make = case
    kept, restored = make(), make()
    score_rows.run(kept, 0, WARM)
    half = score_rows.rows(WARM, np.arange(200))
    for partition in range(4):
        kept.advance(partition, WARM)
    kept.collect(kept.score(half[:100]))
    for partition in range(4):
        restored.load(partition, kept.dump(partition))
    for partition in range(4):
        assert restored.dump(partition) == kept.dump(partition)
    for scorer in (kept, restored):
        scorer.collect(scorer.score(half[100:]))
    one, two = score_rows.run(kept, WARM + 1, WARM + 9), score_rows.run(restored, WARM + 1, WARM + 9)
    assert_frame_equal(one.select(columns), two.select(columns), check_exact=True)
    assert [kept.dump(p) for p in range(4)] == [restored.dump(p) for p in range(4)]


def test_a_dropped_partition_has_no_opinion_and_no_state(case: Case) -> None:
    columns, make = case
    scorer = make()
    empty = len(scorer.dump(0))
    score_rows.run(scorer, 0, WARM)
    frame = score_rows.rows(WARM, np.arange(200))
    others = pl.col("partition") != 2
    expected = scorer.score(frame).filter(others)
    scorer.drop(2)
    scored = scorer.score(frame)
    assert_frame_equal(scored.filter(others), expected)
    if columns == ANOMALY_COLUMNS:
        for column in columns:
            assert scored.filter(~others)[column].null_count() == scored.filter(~others).height
    assert len(scorer.dump(2)) < empty + 64


def test_memory_is_bounded(case: Case) -> None:
    """State stops growing once its samples are full, however many rows and accounts come."""
    _, make = case
    scorer = make()
    sizes = []
    for step in range(4):
        score_rows.run(scorer, 10 * step, 10 * step + 10, accounts=200 + 100 * step, ticks_each=2)
        status = scorer.status().partitions[0]
        sizes.append((status.quarantined, sum(len(scorer.dump(p)) for p in range(4))))
    assert sizes[3][0] <= 4 * 40 * 4
    assert sizes[3][1] < 1.15 * sizes[1][1]
