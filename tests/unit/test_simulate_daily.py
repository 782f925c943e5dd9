"""Daily account rows are those of the same people as the request log: volumes, presence and who shares what."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict

import numpy as np
import polars as pl
import pytest

from monitor.simulate import Simulator, find
from monitor.simulate.daily import LINKS, DailyWorld, daily_rows, write_daily

ACCOUNTS, DAYS, SEED, CAP = 1200, 7, 5, 60.0
CAST = ("S4", "S6", "S1", "B5", "P2")


@pytest.fixture(scope="module")
def daily() -> tuple[DailyWorld, pl.DataFrame, pl.DataFrame]:
    world = DailyWorld(CAST, ACCOUNTS, DAYS, SEED, heavy_cap=CAP)
    days = list(world)
    return world, pl.concat([d.links for d in days]), pl.concat([d.accounts for d in days])


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    world = Simulator(CAST, ACCOUNTS, DAYS, SEED, heavy_cap=CAP)
    keep = ["account_id", "ts", "payment_fp", "org_id", "ja4", "user_agent", "contact_domain", "referral_fp", "ip",
            "account_created_at", "conversation_id"]  # fmt: skip
    day = ((pl.col("ts") - world.start_ts) // 86_400).cast(pl.Int64).alias("day")
    return pl.concat([c.frame.select(keep) for c in world]).with_columns(day).filter(pl.col("day") < DAYS)


def names(world: DailyWorld, column: pl.Series) -> pl.Series:
    return world.account_ids.gather(column)


def test_rows_have_the_published_shape(daily):
    world, links, accounts = daily
    assert dict(links.schema) == {"account": pl.UInt64, "kind": pl.UInt8, "value": pl.UInt64}
    assert accounts.schema["account"] == pl.UInt64
    assert not accounts.select("account", "day").is_duplicated().any()
    assert accounts.null_count().sum_horizontal()[0] == 0
    assert accounts["account"].max() < len(world) == len(world.account_ids)
    assert (accounts["requests"] >= accounts["sessions"]).all()
    assert (accounts["requests"] >= accounts["failed"]).all()
    assert (accounts["sessions"] > 0).all()
    first, second = (next(iter(DailyWorld(CAST, 300, 1, s)))[0] for s in (1, 1))
    assert not first.is_duplicated().any()
    assert first.equals(second)
    assert not first.equals(next(daily_rows(CAST, 300, 1, 2)).links)
    shown = {LINKS[k] for k in links["kind"].unique().to_list()}
    assert shown >= set(LINKS) - {"referral"}


def test_volume_and_presence_are_those_of_the_request_log(daily, log):
    world, _, accounts = daily
    truth = {t["account_id"]: t["scenario"] for t in world.truth().iter_rows(named=True)}
    made: dict[str, list[float]] = defaultdict(lambda: [0, 0])
    seen: dict[str, list[float]] = defaultdict(lambda: [0, 0])
    rows = accounts.with_columns(names(world, accounts["account"]).alias("account_id"))
    sums = (rows.group_by("account_id").agg(pl.col("requests").sum(), pl.len()),
            log.group_by("account_id").agg(pl.len(), pl.col("day").n_unique().alias("days")))  # fmt: skip
    for into, table in zip((made, seen), sums, strict=True):
        for account, requests, days in table.iter_rows():
            into[truth.get(account, "background")][0] += requests
            into[truth.get(account, "background")][1] += days
    assert set(made) == {"background", *CAST}
    for name, (requests, days) in seen.items():
        # both are draws: what one heavy account does in a week differs by a fifth from one to the next
        assert made[name][0] == pytest.approx(requests, rel=0.2), name
        assert made[name][1] == pytest.approx(days, rel=0.1), name


@pytest.mark.parametrize(
    ("kind", "column"),
    [("payment", "payment_fp"), ("org", "org_id"), ("ja4", "ja4"), ("user_agent", "user_agent"),
     ("contact", "contact_domain")],
)  # fmt: skip
def test_who_shares_what_is_as_in_the_request_log(daily, log, kind, column):
    world, links, _ = daily
    mine = links.filter(pl.col("kind") == LINKS.index(kind)).select("account", "value").unique()
    both = mine.with_columns(names(world, mine["account"]).alias("account_id")).join(
        log.select("account_id", pl.col(column).alias("theirs")).drop_nulls().unique(), on="account_id"
    )
    assert both["account_id"].n_unique() > 0.8 * ACCOUNTS
    # equal values on one side are equal on the other; two client builds in the log may look alike, never the reverse
    assert (both.group_by("value").agg(pl.col("theirs").n_unique())["theirs"] == 1).all()
    again = both.group_by("theirs").agg(pl.col("value").n_unique())["value"]
    assert again.mean() < (1.2 if kind == "user_agent" else 1.0 + 1e-9)
    assert both.group_by("value").len()["len"].max() > 5


def test_networks_of_a_day_are_as_many_as_in_the_request_log(daily, log):
    _, links, _ = daily
    prefix = links.filter(pl.col("kind") == LINKS.index("prefix"))
    per_day = len(prefix) / links.filter(pl.col("kind") == LINKS.index("org")).height
    theirs = log.with_columns(pl.col("ip").str.extract(r"^(\d+\.\d+\.\d+)").alias("net")).group_by("account_id", "day")
    assert per_day == pytest.approx(theirs.agg(pl.col("net").n_unique())["net"].mean(), rel=0.12)


def test_a_stolen_account_is_one_account(daily):
    theft = find(["S11"])[0].model_copy(update={"min_accounts": 60, "start": 0.0})
    world = DailyWorld([theft], 400, 3, 2, heavy_cap=50)
    assert len(world) == 400
    alone = DailyWorld([], 400, 3, 2, heavy_cap=50)
    stolen = set(world.truth()["account"].to_list())
    assert len(stolen) == 60
    assert world.account_ids.equals(alone.account_ids)
    count = [sum(d.accounts.filter(pl.col("account").is_in(list(stolen)))["requests"].sum() for d in w)
             for w in (world, alone)]  # fmt: skip
    assert count[0] - count[1] == pytest.approx(60 * 3 * 40, rel=0.25)
    assert not next(iter(world)).accounts["account"].is_duplicated().any()


def test_the_weak_channel_shows_no_network_and_no_payment():
    weak = find(["S14"])[0].model_copy(update={"min_accounts": 200, "start": 0.0})
    world = DailyWorld([weak], 50, 1, 2)
    day = next(iter(world))
    members = day.accounts.filter(pl.col("account").is_in(world.truth()["account"].to_list()))["account"]
    shown = day.links.filter(pl.col("account").is_in(members.to_list()))
    having = {k: shown.filter(pl.col("kind") == LINKS.index(k))["account"].n_unique() / len(members)
              for k in ("payment", "prefix", "ja4", "org")}  # fmt: skip
    assert having["org"] == 1.0
    for kind in ("payment", "prefix", "ja4"):
        assert having[kind] == pytest.approx(0.4, abs=0.12)


def test_truth_and_bans_name_the_campaign(daily):
    world, _, accounts = daily
    truth = world.truth()
    assert set(truth["scenario"]) == set(CAST)
    assert truth.filter(pl.col("actor") == "benign")["campaign"].null_count() == (truth["actor"] == "benign").sum()
    assert truth.filter(pl.col("scenario") == "S6")["also"].to_list()[0] == ["distillation"]
    assert not truth["account"].is_duplicated().any()
    bans = world.bans()
    assert len(bans) > 5
    assert set(bans["account"].to_list()) <= set(truth["account"].to_list())
    last = accounts.group_by("account").agg(pl.col("day").max())
    gone = bans.join(last, on="account")
    assert (gone["day"] <= (gone["at_s"] - world.start_ts) / 86_400).all()


def test_the_index_does_not_tell_the_campaign(daily):
    world, _, _ = daily
    member = np.zeros(len(world))
    member[world.truth()["account"].to_numpy()] = 1
    rank = np.arange(len(world))
    assert abs(np.corrcoef(rank, member)[0, 1]) < 0.08


def test_files_hold_what_iterating_gives(tmp_path):
    world = DailyWorld(["S4"], 300, 2, 3, heavy_cap=50)
    written = write_daily(world, tmp_path)
    days = list(world)
    assert written == sum(len(d.accounts) for d in days)
    assert pl.read_parquet(tmp_path / "links-001.parquet").equals(days[1].links)
    assert pl.read_parquet(tmp_path / "accounts-000.parquet").equals(days[0].accounts)
    assert pl.read_parquet(tmp_path / "truth.parquet").equals(world.truth())


def test_memory_does_not_grow_with_the_days():
    code = (
        "import resource, sys\nfrom monitor.simulate.daily import daily_rows\n"
        "n = sum(len(d.links) for d in daily_rows(['S4'], 40_000, int(sys.argv[1]), 1))\n"
        "print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    runs = [subprocess.run([sys.executable, "-c", code, str(d)], check=True, capture_output=True, text=True,
                           env={"PYTHONPATH": ":".join(sys.path), "POLARS_MAX_THREADS": "1"}).stdout.split()
            for d in (2, 12)]  # fmt: skip
    (few, small), (many, large) = [(int(a), int(b)) for a, b in runs]
    assert many > 5 * few
    # ten more days of links kept would be 3 million rows of 17 bytes
    assert large - small < 35_000
