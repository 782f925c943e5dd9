"""The anomaly scores on made populations: calibrated, null without history, quantiles, order of calls, no ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import score_rows
import zstandard

from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import ANOMALY_COLUMNS, Scorer
from monitor.score.blob import unpack

WARM = 8


def scorer(**changed: Any) -> Scorer:
    return Scorer(score_rows.small(**changed), ACCOUNT_FEATURES)


def test_ranks_of_honest_accounts_are_calibrated() -> None:
    """New accounts of the same population: at most the nominal share, and the trimmed one, ranks over 0.95."""
    figures = [share_over(seed) for seed in (3, 4)]
    assert 0.01 < float(np.mean(figures)) < 0.09


def share_over(seed: int) -> float:
    of = scorer(window=64, cold_rows=200, warm_rows=60, calibration_min=100, calibration_rows=400)
    score_rows.run(of, 0, 20, accounts=1_000, partitions=1, seed=seed)
    of.advance(0, 20)
    fresh = of.score(score_rows.rows(20, np.arange(50_000, 51_000), seed, partitions=1))
    return float((fresh["anomaly_population"].drop_nulls() > 0.95).mean())


def test_odd_accounts_rank_high_and_honest_ones_do_not() -> None:
    of = scorer(window=64, cold_rows=200, warm_rows=60, calibration_min=100, calibration_rows=400)
    score_rows.run(of, 0, 20, accounts=1_000, partitions=1)
    of.advance(0, 20)
    for column in ANOMALY_COLUMNS:
        odd = of.score(score_rows.rows(20, np.arange(300), odd=0.8, partitions=1))[column]
        plain = of.score(score_rows.rows(20, np.arange(300), partitions=1))[column]
        assert (odd.median() or 0) > 0.97
        assert 0.3 < (plain.median() or 0) < 0.7


def test_change_needs_history() -> None:
    of = scorer()
    score_rows.run(of, 0, 2 * WARM)
    of_new = of.score(score_rows.rows(2 * WARM, np.arange(100), history=False))
    assert of_new["anomaly_change"].null_count() == 100
    assert of_new["anomaly_population"].null_count() < 20


def test_an_operator_may_accept_a_change_of_the_population() -> None:
    of = scorer(learn_epochs=1, promote_epochs=2)
    score_rows.run(of, 0, 12, accounts=400)
    score_rows.run(of, 12, 40, accounts=400, odd=0.7)
    held = of.status().partitions[0].models[("chat", "population")]
    assert held.drift
    assert held.refusals > 0
    of.advance(0, 40, accept_drift=True)
    accepted = of.status().partitions[0].models[("chat", "population")]
    assert not accepted.drift
    assert accepted.champion_epoch == 40


def test_a_time_named_in_the_settings_accepts_once_and_only_there() -> None:
    of = scorer(learn_epochs=1, promote_epochs=2, accept_drift_epoch=40)
    score_rows.run(of, 0, 12, accounts=400)
    score_rows.run(of, 12, 40, accounts=400, odd=0.7)
    assert of.status().partitions[0].models[("chat", "population")].drift
    of.advance(0, 42)
    assert of.status().partitions[0].models[("chat", "population")].champion_epoch == 42
    late = scorer(learn_epochs=1, promote_epochs=2, accept_drift_epoch=40)
    late.load(0, of.dump(0))
    late.advance(0, 43)
    assert late.status().partitions[0].models[("chat", "population")].champion_epoch == 42


def test_quantiles_are_those_of_the_class() -> None:
    of = scorer(sketch_rows=256, sketch_per_epoch=60)
    score_rows.run(of, 0, 12, accounts=1_000, partitions=1)
    of.advance(0, 12)
    everyone = score_rows.rows(11, np.arange(1_000), partitions=1).filter(pl.col("client_class") == 1)["requests_24h"]
    for level in (0.1, 0.5, 0.9):
        value = everyone.quantile(level)
        assert value is not None
        assert of.quantile(0, "requests_24h", 1, value) == pytest.approx(level, abs=0.12)
    assert of.quantile(0, "requests_24h", 1, -1.0) == 0.0
    assert of.quantile(0, "requests_24h", 1, 1e12) == 1.0
    for unknown in ((1, "requests_24h", 1), (0, "no_such_feature", 1), (0, "requests_24h", 200)):
        assert of.quantile(*unknown, 5.0) is None
    assert of.quantile(0, "requests_24h", 1, float("nan")) is None
    assert scorer(sketch_min=1_000).quantile(0, "requests_24h", 1, 5.0) is None


def test_the_order_of_calls_is_watched() -> None:
    of = scorer()
    frame = score_rows.rows(3, np.arange(20))
    of.collect(of.score(frame))
    with pytest.raises(ValueError, match="call advance first"):
        of.collect(of.score(score_rows.rows(4, np.arange(20))))
    of.advance(0, 5)
    with pytest.raises(ValueError, match="cannot go back"):
        of.advance(0, 4)


def test_models_of_other_settings_are_left_aside_and_said() -> None:
    kept, other = scorer(), scorer(window=20)
    score_rows.run(kept, 0, WARM)
    other.load(0, kept.dump(0))
    assert "warm up again" in other.status().cold_starts[0]
    frame = score_rows.rows(WARM, np.arange(40))
    assert other.score(frame)["anomaly_population"].null_count() == 40
    other.drop(0)
    assert other.status().cold_starts == {}


def test_no_id_is_in_the_state() -> None:
    """Subjects are kept as hashes: an account's id is in no byte of it, unpacked; a planted one is found."""
    of = scorer()
    score_rows.run(of, 0, WARM, prefix="canary")

    def unpacked() -> bytes:
        outer = of.dump(0)
        return b"".join(zstandard.ZstdDecompressor().decompress(b) for b in (outer, unpack(outer)["models"]))

    assert b"canary" not in unpacked()
    assert b"quarantine" in unpacked()
    leak = np.frombuffer(b"canary-000001   ", np.uint64)
    of._population._parts[0].calibration[0].subject[:2] = leak
    of._population._packed.clear()
    assert b"canary" in unpacked()
