"""The whole pipeline on simulated traffic: what must not change an alert does not, byte for byte."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spine import Record, pipeline, run, told, world
from spine_checks import (
    check_interleaved,
    check_missing,
    check_polls,
    check_relabelled,
    check_reordered,
    check_restored,
    rows_of,
    watch,
    without,
)

from monitor.fields import FIELDS, REQUIRED
from monitor.offline import backtest_files
from monitor.records import Alert
from monitor.sketch import Keyring, Sketcher

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def whole() -> list[Alert]:
    """Alerts of the log in one poll."""
    alerts = run(world())
    assert {a.severity for a in alerts} >= {"medium"}
    assert len({a.alert_id for a in alerts}) >= 5
    return alerts


def _cuts(seed: int, n: int, count: int) -> list[int]:
    """Polls of one record up to thousands: some ends close together, some far."""
    rng = np.random.default_rng(seed)
    start = int(rng.integers(0, n))
    return [*rng.integers(0, n, count).tolist(), *range(start, start + 8)]


@few
@given(seed=seeds)
def test_polls_change_nothing(seed: int, whole: list[Alert]) -> None:
    check_polls(world(), _cuts(seed, len(world()), 12), whole)


@few
@given(seed=seeds)
def test_order_within_a_tick_changes_nothing(seed: int, whole: list[Alert]) -> None:
    check_reordered(world(), seed, whole)


@few
@given(seed=seeds)
def test_interleaving_of_partitions_changes_nothing(seed: int, whole: list[Alert]) -> None:
    check_interleaved(world(), seed, whole)


@few
@given(seed=seeds)
def test_restarts_from_checkpoints_change_nothing(seed: int, whole: list[Alert]) -> None:
    moves = set(np.random.default_rng(seed).integers(0, 18, 3).tolist())
    check_restored(world(), _cuts(seed, len(world()), 10), moves, whole)


def test_more_changes_than_a_checkpoint_keeps(whole: list[Alert]) -> None:
    """The 21st change is written as a whole again; a restart right before and after it is the same."""
    n = len(world())
    check_restored(world(), range(0, n, n // 24), {19, 20, 21, 22}, whole)


@pytest.fixture(scope="module")
def brief() -> Sequence[Record]:
    return world()[-150:]


@pytest.fixture(scope="module")
def inactive(brief: Sequence[Record]) -> frozenset[str]:
    """What the log as it is cannot feed."""
    p = pipeline()
    run(brief, (), p)
    return frozenset(p.inactive().features)


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in REQUIRED])
def test_a_missing_field_is_said_and_nothing_fails(
    name: str, brief: Sequence[Record], inactive: frozenset[str]
) -> None:
    check_missing(brief, name, inactive)


def test_a_field_that_stands_in_for_another_keeps_its_features(brief: Sequence[Record]) -> None:
    p = pipeline()
    rows = rows_of(without(brief, "turn_index"), (), p)
    assert "follow_up_share_24h" not in p.inactive().features
    assert rows["follow_up_share_24h"].null_count() < len(rows)


def test_geography_is_no_evidence() -> None:
    check_relabelled(world())


def test_text_and_its_sketch_are_the_same_request() -> None:
    records = world()[:1_500]
    sketcher = Sketcher(Keyring.from_seed(1))
    events = sketcher.sketch_many([json.loads(r.value) for r in records])
    assert all("prompt" not in e and "sketch" in e for e in events)
    other = [replace(r, value=json.dumps(e).encode()) for r, e in zip(records, events, strict=True)]
    mine, theirs = pipeline(), pipeline()
    a, b = watch(mine), watch(theirs)
    assert told(run(records, (700,), mine)) == told(run(other, (300, 900), theirs))
    left, right = a.rows(), b.rows()
    for column in left.columns:
        assert left[column].equals(right[column], null_equal=True), column
    assert mine.inactive() == theirs.inactive()


def _write(records: Sequence[Record], path: Path) -> Path:
    data = b"".join(r.value + b"\n" for r in records)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def test_a_backtest_is_the_same_whatever_the_files_are(tmp_path: Path) -> None:
    """Twice, files in another order, compressed, as Parquet: the same bytes."""
    records = sorted(world(), key=lambda r: r.t_ms)[:3_000]
    half = len(records) // 2
    plain = [_write(records[:half], tmp_path / "a.ndjson"), _write(records[half:], tmp_path / "b.ndjson")]
    packed = [_write(records[:half], tmp_path / "a.ndjson.gz"), _write(records[half:], tmp_path / "b.ndjson.zst")]
    parquet = tmp_path / "all.parquet"
    pl.DataFrame([json.loads(r.value) for r in records], infer_schema_length=None).write_parquet(parquet)
    given = [plain, plain, plain[::-1], packed, [parquet]]
    written = []
    for i, logs in enumerate(given):
        summary = backtest_files(logs, tmp_path / f"{i}.alerts.ndjson", partitions=3)
        assert summary["events"] == summary["decoded"] == 3_000
        written.append((tmp_path / f"{i}.alerts.ndjson").read_bytes())
    assert len(written[0].splitlines()) > 10
    assert set(written) == {written[0]}
