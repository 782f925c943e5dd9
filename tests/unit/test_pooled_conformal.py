"""Ranks, order statistics, tails, strata and fusion, each against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.pooled import Calibration, fuse, order_statistic, p_values, stratum, tail_p_values, threshold


def test_p_values_by_hand() -> None:
    harmless = np.array([3.0, 1.0, np.nan, 2.0, 2.0])
    found = p_values(harmless, [0.0, 2.0, 2.5, 9.0, np.nan])
    assert found.tolist() == pytest.approx([1, 4 / 5, 2 / 5, 1 / 5, np.nan], nan_ok=True)
    assert p_values(np.array([]), [1.0]).tolist() == [1.0]


def test_p_values_are_uniform_on_harmless_scores() -> None:
    rng = np.random.default_rng(1)
    p = np.concatenate([p_values(rng.normal(size=99), rng.normal(size=20)) for _ in range(400)])
    for level in (0.01, 0.1, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=3 * np.sqrt(level / 400))


@pytest.mark.parametrize(
    ("n", "alpha", "k"),
    [(20_000, 1e-4, 0), (30_000, 1e-4, 1), (100_000, 1e-4, 5), (300_000, 1e-4, 21), (1_000_000, 1e-4, 84),
     (2_994, 1e-3, 0), (3_000, 1e-3, 1), (30_000, 1e-3, 21), (58, 0.05, 0), (59, 0.05, 1)],
)  # fmt: skip
def test_order_statistics_of_the_literature(n: int, alpha: float, k: int) -> None:
    assert order_statistic(n, alpha) == k


def test_a_threshold_holds_its_rate_in_nineteen_of_twenty() -> None:
    rng = np.random.default_rng(2)
    # uniform scores: the rate above a threshold t is 1 - t
    rates = np.array([1 - threshold(rng.random(1000), 0.01) for _ in range(2000)])
    assert 0.93 < (rates <= 0.01).mean() < 0.985
    assert threshold(rng.random(50), 0.01) == np.inf
    with pytest.raises(ValueError, match="between 0 and 1"):
        order_statistic(10, 0.0)


def test_the_tail_goes_on_where_ranks_end() -> None:
    rng = np.random.default_rng(3)
    far = -np.log(1e-5)
    found = np.array([tail_p_values(rng.standard_exponential(20_000), [far, 1.0]) for _ in range(40)])
    assert np.exp(np.log(found[:, 0] + 1e-12).mean()) == pytest.approx(1e-5, rel=1.5)
    assert (found[:, 0] < 1 / 20_001).all()
    assert found[:, 1] == pytest.approx(np.exp(-1), rel=0.05)
    few = rng.standard_exponential(200)
    assert tail_p_values(few, [9.0]).tolist() == p_values(few, [9.0]).tolist()


def test_strata_never_mix_templates_with_people() -> None:
    strata = stratum([0, 0, 1, 1], [0.1, 0.9, 0.1, 0.9], [500, 500, 500, 500])
    assert len(set(strata.tolist())) == 4
    scores = np.concatenate([np.full(120, 1.0), np.full(120, 5.0)])
    cal = Calibration(scores, np.repeat(strata[:2], 120))
    assert cal.of(int(strata[0])).tolist() == [1.0] * 120
    # class 1 has none of its own: it borrows from class 0, but from the same kept share
    assert cal.of(int(strata[2])).tolist() == [1.0] * 120
    assert cal.p_values([3.0, 3.0, 3.0, 3.0], strata).tolist() == pytest.approx([1 / 121, 1.0, 1 / 121, 1.0])
    small = Calibration(scores[:99], np.repeat(strata[:1], 99))
    assert np.isnan(small.p_values([3.0], strata[:1])).all()
    assert small.thresholds(strata[:1].tolist(), 0.05).tolist() == [1.0]
    other_size = stratum([0], [0.1], [5000])
    assert cal.of(int(other_size[0])).tolist() == [1.0] * 120


def test_fusion_spends_a_share_each_and_takes_the_largest() -> None:
    lanes = np.array([[0.01, 0.5], [0.5, 0.004], [np.nan, 0.004], [np.nan, np.nan], [0.9, 0.8]])
    p, lane = fuse(lanes)
    assert p.tolist() == pytest.approx([0.02, 0.008, 0.008, np.nan, 1.0], nan_ok=True)
    assert lane.tolist() == [0, 1, 1, -1, 1]
    assert fuse(lanes, [0.8, 0.2])[0][1] == pytest.approx(0.02)
    for bad in ([0.5], [0.9, 0.2], [1.0, 0.0]):
        with pytest.raises(ValueError, match="share of the budget"):
            fuse(lanes, bad)
    # the budget holds however the lanes depend on each other
    u = np.random.default_rng(4).random(20_000)
    for second in (u, 1 - u):
        assert (fuse(np.column_stack([u, second]))[0] <= 0.1).mean() <= 0.105
