"""Ordinary traffic against the published figures of ServeGen (arXiv 2505.09999, m-large) and the small tail."""

import numpy as np
import polars as pl
import pytest

from monitor.simulate import Simulator
from monitor.simulate.draws import from_quantiles
from monitor.simulate.scenario import background


@pytest.fixture(scope="module")
def heavy() -> tuple[Simulator, pl.DataFrame]:
    base = background()
    group = next(g for g in base.groups if g.name == "heavy").model_copy(update={"share": 1.0})
    # the cap keeps the test short: it touches volumes above 4,000 a day only, which are tested on the rates
    world = Simulator([], 90, 2, 11, base=base.model_copy(update={"groups": [group]}), heavy_cap=4000)
    keep = ["account_id", "ts", "input_tokens", "output_tokens"]
    return world, pl.concat([c.frame.select(keep) for c in world]).sort("account_id", "ts")


def test_volumes_follow_the_published_quantiles():
    base = background()
    group = next(g for g in base.groups if g.name == "heavy").model_copy(update={"share": 1.0})
    rate = Simulator([], 4000, 1, 3, base=base.model_copy(update={"groups": [group]})).accounts.rate
    for p, published in ((0.1, 661), (0.5, 11_615), (0.9, 202_589)):
        assert np.quantile(rate, p) == pytest.approx(published, rel=0.25)


def test_burstiness_within_ten_minute_windows(heavy):
    _, log = heavy
    window = log.with_columns((pl.col("ts") // 600).alias("w")).with_columns(
        pl.col("ts").diff().over("account_id", "w").alias("gap")
    )
    cv = window.group_by("account_id", "w").agg((pl.col("gap").std() / pl.col("gap").mean()).alias("cv"), pl.len())
    by_client = cv.filter(pl.col("len") >= 20).group_by("account_id").agg(pl.col("cv").median())["cv"].drop_nulls()
    low, middle, high = np.quantile(by_client.to_numpy(), [0.1, 0.5, 0.9])
    assert low == pytest.approx(1.04, rel=0.3)
    assert middle == pytest.approx(2.47, rel=0.35)
    # ten minutes cut the longest gaps off, so a CV of 11 is seen as 5 to 12
    assert 4.0 < high < 14


def test_clients_are_active_in_few_windows(heavy):
    _, log = heavy
    active = log.with_columns((pl.col("ts") // 600).alias("w")).group_by("account_id").agg(pl.col("w").n_unique() / 288)
    assert 0.03 < active["w"].median() < 0.2


def test_token_medians(heavy):
    _, log = heavy
    assert log["input_tokens"].median() == pytest.approx(950, rel=0.15)
    assert log.filter(pl.col("output_tokens") > 0)["output_tokens"].median() == pytest.approx(101, rel=0.15)


def test_the_small_tail_has_a_median_of_5_to_30_a_day():
    world = Simulator([], 2000, 1, 3)
    small = world.accounts.rate[world.accounts.rate < 650]
    assert len(small) > 1900
    assert 5 < np.median(small) < 30


def test_traffic_peaks_by_day_and_rests_at_the_weekend():
    world = Simulator([], 800, 7, 3, heavy_cap=100)
    hours = np.concatenate([(c.frame["ts"].to_numpy() - world.start_ts) // 3600 for c in world]).astype(int)
    by_hour = np.bincount(hours, minlength=168)[:168]
    assert 1.4 < by_hour.max() / by_hour.mean() < 4.5
    days = by_hour.reshape(7, 24).sum(axis=1)
    assert days[5:].mean() < 0.85 * days[:5].mean()


def test_new_accounts_come_every_day():
    world = Simulator([], 3000, 5, 3)
    day = (world.accounts.created_s - world._first_s) / 86_400
    joined = np.bincount(day[day >= 0].astype(int), minlength=5)
    assert (joined[:5] > 5).all()


def test_quantile_curve_hits_its_points_and_is_monotone():
    curve = {0.0: 1.0, 0.5: 10.0, 1.0: 1000.0}
    u = np.linspace(0, 1, 101)
    values = from_quantiles(u, curve)
    assert values[[0, 50, 100]] == pytest.approx([1, 10, 1000])
    assert (np.diff(values) > 0).all()
