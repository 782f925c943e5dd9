"""The simulated log: contract 1, deterministic, real rates, truth and context beside it."""

import io
import itertools
import json
import subprocess
import sys
from importlib import resources
from itertools import pairwise

import jsonschema
import numpy as np
import polars as pl
import pytest

from monitor import fields
from monitor.errors import BadInput
from monitor.simulate import Simulator, api, find
from monitor.simulate.scenario import background

_SCHEMAS = resources.files("monitor.schemas")
REQUEST, TRUTH, CONTEXT = (
    jsonschema.Draft202012Validator(json.loads((_SCHEMAS / f"{name}.v1.json").read_text()))
    for name in ("request-log", "truth", "context")
)
DEMO = ["D1", "D2", "B1", "B3", "B8"]


def _log(world: Simulator) -> pl.DataFrame:
    return pl.concat([c.frame.with_columns(pl.Series("event_s", c.event_s)) for c in world])


@pytest.fixture(scope="module")
def demo() -> tuple[Simulator, pl.DataFrame]:
    world = Simulator(DEMO, accounts=400, days=2, seed=4, heavy_cap=800)
    return world, _log(world)


def _only(name: str, **changes: object) -> list[object]:
    return [find([name])[0].model_copy(update=changes)]


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path):
    for name, seed in (("a", 9), ("b", 9), ("c", 10)):
        api.simulate(DEMO, tmp_path / f"{name}.ndjson", accounts=60, days=1, seed=seed, heavy_cap=300)
    for part in ("ndjson", "truth.ndjson", "context.ndjson"):
        a, b, c = ((tmp_path / f"{n}.{part}").read_bytes() for n in "abc")
        assert a == b
        assert a != c


def test_another_process_writes_the_same_bytes(tmp_path):
    code = (
        f"from monitor.simulate import api; api.simulate(['S1'], r'{tmp_path}/x.ndjson', accounts=40, days=1, seed=2)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"}
    )
    api.simulate(["S1"], tmp_path / "y.ndjson", accounts=40, days=1, seed=2)
    assert (tmp_path / "x.ndjson").read_bytes() == (tmp_path / "y.ndjson").read_bytes()


def test_iterating_again_gives_the_same_run(demo):
    world, log = demo
    assert _log(world).equals(log)


def test_compressed_outputs_hold_the_same_lines(tmp_path):
    import gzip

    import zstandard

    for name in ("p.ndjson", "g.ndjson.gz", "z.ndjson.zst"):
        api.simulate(["S8"], tmp_path / name, accounts=30, days=1, seed=3)
    plain = (tmp_path / "p.ndjson").read_bytes()
    assert gzip.decompress((tmp_path / "g.ndjson.gz").read_bytes()) == plain
    assert (
        zstandard.ZstdDecompressor().stream_reader(io.BytesIO((tmp_path / "z.ndjson.zst").read_bytes())).read() == plain
    )


def test_chunks_are_ordered_by_event_time(demo):
    world, log = demo
    assert (np.diff(log["event_s"].to_numpy()) >= 0).all()
    ends = [c.end_ts for c in world]
    assert all(a < b for a, b in pairwise(ends))
    assert log["event_s"].equals(log["completed_at"].rename("event_s"))


def test_lines_are_requests_of_the_contract(demo):
    _, log = demo
    assert set(log.drop("event_s").columns) <= set(fields.FIELDS)
    for name in ("ts", "request_id", "account_id", "model", "input_tokens", "output_tokens", "status"):
        assert log[name].null_count() == 0
    assert log["request_id"].n_unique() == len(log)
    assert (log["output_tokens"] >= 0).all()
    assert log.filter(pl.col("status") >= 400)["output_tokens"].max() == 0
    assert (log["completed_at"] > log["ts"]).all()
    assert REQUEST.is_valid(json.loads(fields.GOOD_EXAMPLE))
    for text in next(iter(Simulator(["S5", "S8", "G1"], 60, 1, 1))).ndjson().splitlines()[:400]:
        REQUEST.validate(json.loads(text))


@pytest.mark.parametrize("kept", [100_000, 0])
def test_the_joined_lines_say_what_polars_would_write(monkeypatch, kept):
    """Every field of every kind: batches, blobs, tools, hidden networks, failed calls, a dozen languages."""
    monkeypatch.setattr("monitor.simulate.log.KEPT_FRAGMENTS", kept)
    world = Simulator(["S5", "S8", "S14", "G1", "S13", "B7", "B9"], 80, 0.7, 1, heavy_cap=100)
    seen: dict[str, set[bool]] = {}
    for chunk in world:
        buffer = io.BytesIO()
        chunk.frame.write_ndjson(buffer)
        polars, joined = ([json.loads(x) for x in text.splitlines()] for text in (buffer.getvalue(), chunk.ndjson()))
        assert joined == polars
        for name in chunk.frame.columns:
            seen.setdefault(name, set()).update(chunk.frame[name].is_null().unique().to_list())
    assert {n for n, nulls in seen.items() if nulls == {True}} <= {"referral_fp"}
    assert {n for n, nulls in seen.items() if nulls == {False, True}} >= {"system", "ip", "tools", "reasoning_blob_fp"}


def test_prompts_are_mostly_distinct(demo):
    _, log = demo
    chat = log.filter(pl.col("status") == 200)
    assert chat["prompt"].n_unique() / len(chat) > 0.95


def test_a_failed_request_is_sent_again_with_the_same_text(demo):
    _, log = demo
    pair = (
        log.sort("ts").group_by("conversation_id", "prompt", "turn_index").agg(pl.col("status"), pl.col("request_id"))
    )
    again = pair.filter(pl.col("status").list.len() == 2, pl.col("status").list.first() >= 429)
    assert len(again) > 20
    assert (again["status"].list.last() == 200).all()
    assert (again["request_id"].list.n_unique() == 2).all()


@pytest.mark.parametrize("population", [1000, 8000])
def test_scaling_keeps_an_accounts_rate_and_the_pools_density(population):
    full = find(["S4"])[0]
    many = Simulator(_only("S4", min_accounts=10), population, 1, 6)
    rows, a = many.casts[0].rows, many.accounts
    first = rows[a.start_s[rows] <= a.start_s[rows].min() + 1]
    expected = max(10, round(full.accounts * population / 1_000_000))
    assert len(first) == expected
    assert many.casts[0].ratio.endswith(f": {population}")
    assert a.rate[first].mean() == pytest.approx(26.2, rel=3 * 0.9 / np.sqrt(expected))
    prefixes = len(np.unique(a.network[first] >> 8))
    assert prefixes <= max(1, round(900 * expected / full.accounts))


def test_a_scenarios_minimum_counts_accounts_that_come():
    """A month of batches on a third of the days, cut to two: of four accounts one may come, or none."""
    acting = {False: [], True: []}
    for seed, absent_count in itertools.product(range(8), acting):  # a seed's two worlds share its grammar, 1 s to make
        world = Simulator([_calm_batches()], 50, 3, seed, heavy_cap=20, absent_count=absent_count)
        list(world)
        acting[absent_count].append(len(list(world.truth())))
        assert (len(world.casts[0].rows) == 4) >= absent_count
    assert min(acting[False]) >= 4
    assert min(acting[True]) < 3, "the world would have held no campaign"


def _calm_batches():
    [scenario] = _only("S13")
    [group] = scenario.groups
    rate = group.rate.model_copy(update={"mean": 60.0})
    return scenario.model_copy(update={"groups": [group.model_copy(update={"rate": rate})]})


def test_what_is_sent_matches_the_rate_in_a_full_week():
    world = Simulator(_only("S4", min_accounts=300, start=0.0), 50, 7, 6, heavy_cap=50)
    list(world)
    rows = world.casts[0].rows
    life = (world.accounts.end_s[rows] - world.accounts.start_s[rows]).sum() / 86_400
    assert world.requests_of[rows].sum() / life == pytest.approx(26.2, rel=0.12)


def test_truth_names_every_scenario_account_that_appeared(demo):
    world, log = demo
    truth = list(world.truth())
    spans = log.group_by("account_id").agg(pl.col("ts").min().alias("lo"), pl.col("ts").max().alias("hi"))
    seen = {r["account_id"]: r for r in spans.iter_rows(named=True)}
    assert {t["scenario"] for t in truth} == set(DEMO)
    for line in truth:
        TRUTH.validate(line)
        assert (line["first_ts"], line["last_ts"]) == (seen[line["account_id"]]["lo"], seen[line["account_id"]]["hi"])
        assert (line["actor"] == "benign") == line["scenario"].startswith("B")
        assert ("campaign" in line) == (line["scenario"] == "D2")
    assert len({t["account_id"] for t in truth}) == len(truth)


def test_context_tells_creations_the_release_and_bans(demo):
    world, log = demo
    events = list(world.context())
    kinds = {e["type"] for e in events}
    for event in events:
        CONTEXT.validate(event)
    assert {"account_created", "model_released", "product_seen", "agreement"} <= kinds
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)
    release = next(e for e in events if e["type"] == "model_released")
    assert log.filter(pl.col("model") == release["model"])["ts"].min() >= release["ts"]
    assert {e["account_id"] for e in events if "account_id" in e} <= set(world._log.account_id.to_list())


def test_banned_accounts_stop_and_others_take_their_place():
    world = Simulator(_only("S6", min_accounts=80), 50, 6, 2)
    log = _log(world)
    bans = {e["account_id"]: e["ts"] for e in world.context() if e["type"] == "account_banned"}
    assert len(bans) > 3
    last = log.group_by("account_id").agg(pl.col("ts").max())
    for row in last.filter(pl.col("account_id").is_in(list(bans))).iter_rows(named=True):
        assert row["ts"] < bans[row["account_id"]] + 3600  # a conversation under way may end
    assert len(world.casts[0].rows) == 80 + len(bans)


def test_stolen_keys_speak_beside_their_owners():
    world = Simulator(_only("S11", min_accounts=40), 600, 3, 2, heavy_cap=100)
    log = _log(world)
    truth = {t["account_id"]: t for t in world.truth()}
    assert {t["actor"] for t in truth.values()} == {"stolen_key"}
    theirs = log.filter(pl.col("account_id").is_in(list(truth)))
    before = theirs.filter(pl.col("ts") < min(t["first_ts"] for t in truth.values()))
    assert before["account_id"].n_unique() > 15
    assert theirs.filter(pl.col("ts") > before["ts"].max())["ip"].n_unique() > before["ip"].n_unique()


def test_release_moves_the_share_that_the_scenario_says():
    world = Simulator([], 900, 4, 3, heavy_cap=100)
    log = _log(world)
    at = next(e["ts"] for e in world.context() if e["type"] == "model_released")
    later = log.filter(pl.col("ts") > at + 86_400, pl.col("operation") == "chat")
    users = later.group_by("account_id").agg((pl.col("model") == world.new_model).any().alias("moved"))
    # the rest follows over 20 days, so a little over the first day's share
    assert users["moved"].mean() == pytest.approx(0.165, abs=0.045)


def test_sync_campaign_fires_together():
    world = Simulator(_only("S1", min_accounts=40, start=0.0), 30, 1, 5)
    log = _log(world)
    mine = {t["account_id"] for t in world.truth()}
    ts = np.sort(log.filter(pl.col("account_id").is_in(list(mine)), pl.col("status") == 200)["ts"].to_numpy())
    near = np.searchsorted(ts, ts + 4) - np.searchsorted(ts, ts - 4)
    assert np.median(near) > 10


def test_weak_channel_has_no_network_and_the_other_has():
    world = Simulator(_only("S14", min_accounts=40, start=0.0), 30, 1, 5)
    mine = {t["account_id"] for _ in [list(world)] for t in world.truth()}
    log = _log(world).filter(pl.col("account_id").is_in(list(mine)))
    cloud, api_rows = log.filter(pl.col("channel") == "cloud"), log.filter(pl.col("channel") == "api")
    for name in ("ip", "asn", "ja4", "payment_fp"):
        assert cloud[name].null_count() == len(cloud) > 100
        assert api_rows[name].null_count() == 0


def test_enterprise_has_its_share_of_the_traffic():
    world = Simulator(["B15"], 200, 7, 5, heavy_cap=500)
    list(world)
    assert world.requests_of[world.casts[0].rows].sum() / world.requests == pytest.approx(0.16, abs=0.035)


def test_blobs_are_shared_by_replayers_only():
    world = Simulator(["S8", "B12"], 200, 2, 5, heavy_cap=100)
    log = _log(world).explode("reasoning_blob_fp").drop_nulls("reasoning_blob_fp")
    users = log.group_by("reasoning_blob_fp").agg(pl.col("account_id").unique())
    shared = set(users.filter(pl.col("account_id").list.len() > 1)["account_id"].explode())
    attack = {t["account_id"] for t in world.truth() if t["scenario"] == "S8"}
    assert shared
    assert shared <= attack


def test_producing_paces_event_time_and_stamps_records():
    sent: list[tuple[bytes, int]] = []
    wall = [0.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        wall[0] += seconds

    world = Simulator([], 40, 0.5, 5, heavy_cap=50)
    done = api.produce(world, lambda key, value, timestamp_ms: sent.append((value, timestamp_ms)),
                       api.Clock(lambda: wall[0], sleep), speed=3600.0)  # fmt: skip
    assert done.requests == len(sent) > 50
    stamps = [at for _, at in sent]
    assert stamps == sorted(stamps)
    assert all(abs(json.loads(v)["completed_at"] * 1000 - at) <= 1 for v, at in sent)
    assert wall[0] == pytest.approx((stamps[-1] - stamps[0]) / 1000 / 3600, abs=0.05)
    assert len(slept) > 3


def test_bad_arguments_are_all_said_at_once(tmp_path):
    with pytest.raises(BadInput) as caught:
        api.build([], accounts=0, days=-1, seed=-3)
    assert [p.field for p in caught.value.problems] == ["accounts", "days", "seed"] or len(caught.value.problems) == 3
    with pytest.raises(BadInput, match="cannot be written"):
        api.simulate([], tmp_path / "no" / "x.ndjson", accounts=20, days=0.1)


def test_progress_reaches_the_end(tmp_path):
    calls: list[tuple[float, int]] = []
    done = api.simulate([], tmp_path / "x.ndjson", accounts=100, days=2, progress=lambda s, n: calls.append((s, n)))
    assert calls[-1] == (1.0, done.requests)
    assert all(a[0] <= b[0] and a[1] < b[1] for a, b in pairwise(calls))


def test_background_is_a_scenario_file_too():
    assert background().kind == "background"
    assert sum(g.share for g in background().groups) == pytest.approx(1.0, abs=1e-9)
