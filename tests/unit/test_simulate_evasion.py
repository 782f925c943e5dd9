"""Evasion knobs do what they say on any attack, and text and timing can come from files."""

import numpy as np
import polars as pl
import pytest

from monitor.errors import BadInput
from monitor.simulate import Simulator, evade, find
from monitor.simulate.replay import read_prompts, read_trace


def scenario(name, **knobs):
    return evade(find([name])[0].model_copy(update={"min_accounts": 40, "start": 0.0}), **knobs)


def attack(attempt, days=2.0, **more):
    world = Simulator([attempt], 60, days, 5, heavy_cap=50, **more)
    log = pl.concat([c.frame for c in world])
    mine = [t["account_id"] for t in world.truth()]
    return world, log.filter(pl.col("account_id").is_in(mine))


def test_cover_traffic_takes_its_share():
    def asks(log):
        return log["prompt"].str.contains(r"JSON with reward|score|winner|verdict|A=\?").mean()

    plain, covered = (attack(scenario("S10", cover=c))[1] for c in (0.0, 0.6))
    assert asks(plain) > 0.9
    assert asks(covered) == pytest.approx(0.4 * asks(plain), abs=0.07)


def test_jitter_breaks_synchrony():
    def together(log):
        ts = np.sort(log["ts"].to_numpy())
        return np.median(np.searchsorted(ts, ts + 4) - np.searchsorted(ts, ts - 4))

    assert together(attack(scenario("S1"))[1]) > 5 * together(attack(scenario("S1", jitter_s=3000.0))[1])


def test_unique_payment_egress_and_age():
    world, log = attack(scenario("S1"))
    assert log["payment_fp"].n_unique() <= 3
    world, log = attack(scenario("S1", unique_payment=True, age_days=300.0))
    assert log["payment_fp"].n_unique() == log["account_id"].n_unique()
    assert (world.start_ts - log["account_created_at"].max()) / 86_400 > 300
    _, log = attack(scenario("S5"))
    shared = log["ip"].str.extract(r"^(\d+\.\d+\.\d+)").n_unique()
    _, log = attack(scenario("S5", unique_egress=True))
    assert log["ip"].str.extract(r"^(\d+\.\d+\.\d+)").n_unique() > 1.2 * shared


def test_paraphrase_spreads_the_template_and_human_adds_questions():
    def heads(log):
        return log["prompt"].str.slice(0, 40).value_counts()["count"].max() / len(log)

    assert heads(attack(scenario("S10", paraphrase=1.0))[1]) < 0.8 * heads(attack(scenario("S10", paraphrase=0.0))[1])
    rate = [attack(scenario("S10", human=h))[1]["prompt"].str.contains(r"\?\s").mean() for h in (0.0, 1.0)]
    assert rate[1] > rate[0] + 0.3


def test_bans_are_followed_by_successors():
    calm, _ = attack(scenario("S4"))
    world, _ = attack(scenario("S4", bans_per_day=0.3, replace_minutes=20.0))
    assert len(world.bans) > 5
    assert len(world.casts[0].rows) == len(calm.casts[0].rows) + len(world.bans)


def test_the_honest_group_of_a_scenario_does_not_evade():
    turned = evade(find(["P3"])[0], cover=0.5)
    assert [g.evasion.cover for g in turned.groups] == [0.0, 0.5]


def test_unknown_and_wrong_knobs_are_refused():
    with pytest.raises(BadInput, match="the knobs are cover"):
        evade(find(["S4"])[0], stealth=1.0)
    with pytest.raises(BadInput, match="cover"):
        evade(find(["S4"])[0], cover=7.0)


@pytest.fixture
def files(tmp_path):
    benign = pl.DataFrame({
        "system": ["be kind", None, None, None], "prompt": ["first", "second", "lone", "form A x"],
        "session_id": ["s", "s", None, None], "turn": [0, 1, None, None], "kind": ["benign"] * 4,
        "group": [None, None, None, "A"],
    })  # fmt: skip
    benign.write_parquet(tmp_path / "benign.parquet")
    pl.DataFrame({"prompt": ["extract me"], "kind": ["distill"]}).write_parquet(tmp_path / "attack.parquet")
    rng = np.random.default_rng(0)
    ts = np.cumsum(rng.gamma(0.2, 50, 400))
    lengths = {"input_tokens": np.full(400, 77), "output_tokens": np.full(400, 33)}
    pl.DataFrame({"ts": ts, **lengths}).write_parquet(tmp_path / "trace.parquet")
    return tmp_path


def test_prompts_keep_sessions_turns_and_sides(files):
    _, log = attack(scenario("S5"), prompts=[files / "benign.parquet", files / "attack.parquet"])
    assert set(log["prompt"]) == {"extract me"}
    world = Simulator([], 80, 1, 5, heavy_cap=50, prompts=[files / "benign.parquet", files / "attack.parquet"])
    everyone = pl.concat([c.frame for c in world])
    assert set(everyone["prompt"]) == {"first", "second", "lone", "form A x"}
    assert everyone.filter(pl.col("prompt") == "second")["turn_index"].min() == 1
    assert set(everyone.filter(pl.col("prompt") == "first")["system"]) == {"be kind"}


def test_the_customer_who_is_framed_sends_no_attack_text(files):
    world, log = attack(scenario("P3"), prompts=[files / "benign.parquet", files / "attack.parquet"])
    guilty = {line["account_id"] for line in world.truth() if line["actor"] != "benign"}
    sent = log.drop_nulls("prompt").group_by(pl.col("account_id").is_in(sorted(guilty)).alias("guilty"))
    texts = dict(sent.agg(pl.col("prompt").unique()).iter_rows())
    assert set(texts[True]) == {"extract me"}
    assert set(texts[False]) <= {"first", "second", "lone", "form A x"}


def test_trace_gives_lengths_and_burstiness(files):
    _, log = attack(scenario("S5"), trace=[files / "trace.parquet"])
    assert set(log.filter(pl.col("status") == 200)["input_tokens"]) == {77}
    gaps = read_trace([files / "trace.parquet"]).gaps
    assert gaps.mean() == pytest.approx(1.0)
    assert gaps.std() > 1.8


def test_unusable_files_are_all_named(files):
    pl.DataFrame({"text": ["x"]}).write_parquet(files / "wrong.parquet")
    (files / "junk.parquet").write_bytes(b"no")
    with pytest.raises(BadInput) as caught:
        read_prompts([files / "wrong.parquet", files / "junk.parquet", files / "none.parquet"])
    assert len(caught.value.problems) == 3
    short = pl.DataFrame({"ts": [1.0, 2.0], "input_tokens": [1, 1], "output_tokens": [1, 1]})
    short.write_parquet(files / "short.parquet")
    with pytest.raises(BadInput, match="20 requests"):
        read_trace([files / "short.parquet"])
