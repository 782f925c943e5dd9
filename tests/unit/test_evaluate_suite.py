"""Baselines on logs made by hand and by the simulator; ablations; the suite runner with a detector handed in."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from monitor.errors import BadInput, Problem
from monitor.evaluate import ablation, baselines, evaluate, fairness, read_log, sizes, suite
from monitor.evaluate import api as api_of
from monitor.evaluate import suite_report as tables
from monitor.evaluate.inputs import Ledger, read_truth
from monitor.evaluate.score import CampaignScore
from monitor.simulate import api, find
from monitor.simulate.arrivals import DAY, day_factor
from monitor.simulate.world import Simulator

SMALL = sizes.Size(
    100, 0.8, ("S1", "D1", "P3", "B5"), 100, mixes=(0.25,), sizes=(10,), ablations=("no payment",), fairness=True,
    pairs=True,
)  # fmt: skip
EMPTY = evaluate([], [], Ledger.of(["a"], [0.0], [1]))
PAIR = sizes.Pair("P2 glues", ("S1", "P2"), ("S1", "P2"), 1.0)


def frame(rows):
    columns = {"account_id": [], "at": [], "prompt": [], "payment_fp": [], "ip": []}
    for row in rows:
        for name, values in columns.items():
            values.append(row.get(name))
    schema = {name: pl.Float64 if name == "at" else pl.String for name in columns}
    return pl.DataFrame(columns, schema=schema).sort("at", "account_id")


def oracle(log, context, alerts):
    """A detector that reads the truth beside the log: what the suite does with a perfect one."""
    by_campaign: dict[str, list] = {}
    truth_file = next(p for p in (log.with_name("log.truth.ndjson"),) if p.exists())
    for line in read_truth(truth_file):
        if line.campaign:
            by_campaign.setdefault(line.campaign, []).append(line)
    lines = [
        {"alert_id": name, "kind": "campaign", "severity": "high", "revised_at": min(t.first_ts for t in who) + 3600,
         "accounts": [t.account_id for t in who], "hypothesis": who[0].actor}
        for name, who in by_campaign.items()
    ]  # fmt: skip
    alerts.write_text("".join(json.dumps(x) + "\n" for x in lines))
    return {"events": sum(1 for _ in log.open()), "fields": sorted(json.loads(log.open().readline()))}


def failing(log, context, alerts):
    """A detector that can't."""
    raise BadInput([Problem(log.name, 0, "no such log")])


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(suite, "SUITES", {"small": SMALL})
    monkeypatch.setattr(suite, "PAIRS", (PAIR,))
    monkeypatch.setattr(tables, "PAIRS", (PAIR,))


def test_calls_an_hour_counts_any_sixty_minutes():
    rows = [{"account_id": "a", "at": 1800.0 + i * 7} for i in range(500)]  # 500 within 58 minutes over a full hour
    rows += [{"account_id": "b", "at": i * 7.3} for i in range(499)] + [
        {"account_id": "c", "at": i * 7.3} for i in range(2000)
    ]
    assert [(r.subject, r.revised_at) for r in baselines.calls_per_hour(frame(rows))] == [("a", 1800.0 + 499 * 7)]


def test_volume_takes_the_top_account_day():
    rows = [{"account_id": f"u{i}", "at": float(k)} for i in range(1000) for k in range(2)]
    rows += [{"account_id": "big", "at": float(k)} for k in range(50)]
    assert [r.subject for r in baselines.volume_quantile(frame(rows))] == ["big"]


def test_sharing_alerts_from_the_third_account_on():
    rows = [{"account_id": f"a{i}", "at": 10.0 * i, "payment_fp": "p", "ip": f"10.0.0.{i}"} for i in range(5)]
    rows += [{"account_id": f"b{i}", "at": 1.0, "payment_fp": f"q{i}", "ip": f"10.1.{i}.1"} for i in range(5)]
    for found in (baselines.shared_payment(frame(rows)), baselines.shared_network(frame(rows))):
        assert [(r.revision, r.revised_at, len(r.accounts)) for r in found] == [(1, 20.0, 3), (2, 40.0, 5)]


def test_template_masks_figures():
    text = "Case {} please sort the following note into one of five piles"
    rows = [{"account_id": f"a{i}", "at": float(i), "prompt": text.format(i)} for i in range(3)]
    rows += [{"account_id": f"b{i}", "at": 1.0, "prompt": f"word{chr(97 + i)} " * 12} for i in range(3)]
    assert [r.accounts for r in baselines.shared_template(frame(rows))] == [["a0", "a1", "a2"]]


def test_reasoning_words_need_a_fifth_of_twenty():
    def ask(account, every, text):
        return [{"account_id": account, "at": float(i), "prompt": "hi" if i % every else text} for i in range(40)]

    rows = ask("a", 5, "show your chain of thought") + ask("b", 9, "step by step")
    assert [(r.subject, r.revised_at) for r in baselines.chain_of_thought(frame(rows))] == [("a", 19.0)]


def test_normality_statistic():
    rng = np.random.default_rng(1)
    assert baselines.normality(rng.standard_normal(300)) > 0.98
    assert baselines.normality(np.repeat([0.0, 1.0], 150)) < 0.75
    assert baselines.normality(np.ones(50)) == 1.0


def test_embedding_is_of_words_not_of_case_or_order_of_rows():
    x = baselines.embed(pl.Series(["The cat sat", "the CAT sat", "dogs ran far away", None]))
    assert np.allclose(x[0], x[1])
    assert abs(x[0] @ x[2]) < 0.5
    assert x[3].tolist() == [0.0] * baselines.DIMENSIONS
    assert np.allclose(np.linalg.norm(x[:3], axis=1), 1)


def test_mmd_separates_two_populations_and_not_one():
    rng = np.random.default_rng(0)
    benign, other = rng.standard_normal((3000, 16)), rng.standard_normal((3000, 16)) + 0.5
    mmd = baselines.Mmd(benign[:1000], rng)
    limit = baselines.mmd_threshold(mmd, benign[1000:2000], 300, rng)

    def hits(x):
        return np.mean(
            [mmd.distance(mmd.features(x[rng.integers(len(x), size=300)]).mean(axis=0)) > limit for _ in range(40)]
        )

    assert hits(other) == 1.0
    assert hits(benign[2000:]) < 0.25


def test_ablations_take_fields_away_and_nothing_else(tmp_path):
    api.simulate(["S8"], tmp_path / "log.ndjson", accounts=30, days=1, seed=1)
    lines = (tmp_path / "log.ndjson").read_text().splitlines()
    for name, gone in ablation.GROUPS.items():
        log, change = tmp_path / "log.ndjson", suite.transform_of(name)
        assert ablation.rewrite(log, tmp_path / "o.ndjson", change) == len(lines)
        for before, after in zip(lines[:50], (tmp_path / "o.ndjson").read_text().splitlines()[:50], strict=True):
            assert json.loads(after) == {k: v for k, v in json.loads(before).items() if k not in gone}


def test_relabelling_is_one_to_one_and_merging_is_not():
    rename = ablation.relabel_geography()
    asns = [rename({"asn": n})["asn"] for n in range(64_000, 66_000)]
    assert len(set(asns)) == 2000
    codes = [rename({"country": c})["country"] for c in ("US", "DE", "FR")]
    assert len(set(codes)) == 3
    assert rename({"asn": None, "ip": "x"}) == {"asn": None, "ip": "x"}
    assert ablation.shift_phase(2)({"ts": 10, "completed_at": 11.5, "x": 1}) == {
        "ts": 7210.0,
        "completed_at": 7211.5,
        "x": 1,
    }


def test_suite_runs_every_job_and_scores_it(tmp_path, small):
    told: list[tuple[int, int, str]] = []
    report = suite.run_suite("small", oracle, tmp_path, seeds=2, progress=lambda *x: told.append(x))
    pair = {"P2 glues, without", "P2 glues, with"}
    expected = {"detector", *baselines.NAMES, "no payment", *fairness.TESTS, "mix 25", "size 10", *pair}
    assert set(report.names) == expected
    assert all(len(report.of(n)) == 2 for n in expected)
    worlds = {(1, "composed"), (2, "composed")}  # the others are made by the one run that reads them
    assert [x[0] for x in told] == [*range(1, len(report.outcomes) + len(worlds) + 1)]
    assert {x[1] for x in told} == {told[-1][0]}
    assert {x[2] for x in told[: len(worlds)]} == {f"world {variant}, seed {seed}" for seed, variant in worlds}
    for outcome in report.of("detector"):
        assert outcome.evaluation.found == len(outcome.evaluation.campaigns) == 2
        assert outcome.evaluation.false_campaigns.count == 0
    assert "payment_fp" in report.of("detector")[0].summary["fields"]
    assert "payment_fp" not in report.of("no payment")[0].summary["fields"]
    assert report.time_to_alert() == [
        ("mix 25", 2, 2, 1.0, [("resale", 2, 1.0)]), ("size 10", 2, 2, 1.0, [("distillation", 2, 1.0)]),
    ]  # fmt: skip
    assert json.loads(report.to_json())["suite"] == "small"
    text = api_of.suite_markdown(report)
    assert "| mix 25 | 2 | 2 | 1.0 | resale 2 (1.0) |" in text
    assert "| detector | 4 of 4 | 4 | - |" in text
    assert "| 500 calls an hour | 0 of 4 | 0 | all |" in text
    assert all(f"| {name} |" in text for name in baselines.NAMES)
    assert {row[0] for row in tables.scenario_rows(report)} == {"S1", "P3"}
    # the customer whom P3 frames is honest: a row among the look-alikes
    assert [(row[0], row[2]) for row in tables.confounder_rows(report)] == [("B5", "0"), ("P3", "0")]
    (cost,) = tables.cost_rows(report)
    assert cost[:6] == ["P2 glues", "2", "S1, P2", "100.0%", "100.0%", "+0.0"]
    ours = tables.false_rows(report)[0]
    days = sum(o.evaluation.account_days for o in report.of("detector"))
    # nothing seen in n account-days: at most 3.00 / n
    assert ours[:4] == ["detector", str(days), "0", f"0.0 ({2.995732 / days * 1e6:.1f})"]
    assert [row[0] for row in tables.fairness_rows(report)] == [*fairness.TESTS] * 2
    assert [t.row_count for t in api_of.suite_tables(report)] == [
        len(text_rows)
        for text_rows in (
            tables.detector_rows(report),
            tables.false_rows(report),
            tables.scenario_rows(report),
            tables.worst_rows(report),
            tables.confusion_rows(report),
            tables.confounder_rows(report),
            tables.lone_rows(report),
            tables.cost_rows(report),
            report.time_to_alert(),
            report.fairness,
            tables.group_rows(report),
        )
    ]
    api_of.write_suite(report, tmp_path / "s.json", tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert "<script" not in page
    assert page.count("<svg") >= 2
    again = suite.run_suite("small", oracle, tmp_path / "b", with_baselines=False, keep=False)
    assert {p.parent.name for p in (tmp_path / "b").rglob("log.ndjson")} == {"composed"}
    assert {p.parent.name for p in tmp_path.glob("seed1/*/log.ndjson")} == {o.variant.replace(" ", "-").replace(
        ",", "") for o in report.outcomes}  # fmt: skip
    ran = {(o.name, o.seed): o for o in report.outcomes}
    assert all(ran[o.name, o.seed] == o for o in again.outcomes)


def test_runs_by_name_or_first_word_leave_out_all_others(tmp_path, small):
    wanted = ["detector", "mix", "merged networks"]
    report = suite.run_suite("small", oracle, tmp_path, with_baselines=False, runs=wanted)
    assert report.names == ["detector", "merged networks", "mix 25"]
    assert [f.name for f in report.fairness] == ["merged networks"]
    assert not suite.run_suite("small", oracle, tmp_path, runs=["merged networks"]).fairness
    assert suite.run_suite("small", oracle, tmp_path, runs=["baselines"]).names == [*baselines.NAMES]
    with pytest.raises(BadInput, match=r"'mi'.*mix 25"):
        suite.run_suite("small", oracle, tmp_path, runs=["mi", "detector"])


def test_a_kept_folder_with_the_world_of_another_suite_is_made_anew(tmp_path, small, monkeypatch):
    def population():
        (outcome,) = suite.run_suite("small", oracle, tmp_path, runs=["detector"]).outcomes
        return outcome.evaluation.population

    first, log = population(), tmp_path / "seed1" / "composed" / "log.ndjson"
    made = log.stat().st_mtime_ns
    assert population() == first
    assert log.stat().st_mtime_ns == made
    monkeypatch.setattr(suite, "SUITES", {"small": dataclasses.replace(SMALL, accounts=60)})
    assert population() < first - 20


def test_a_suite_that_was_stopped_goes_on_and_one_of_other_code_starts_again(tmp_path, small):
    read = tmp_path / "read"

    class Counting:
        def __init__(self, broken):
            self.broken = broken

        def __call__(self, log, context, alerts):
            with read.open("a") as file:
                file.write(f"{alerts.name}\n")
            if self.broken in alerts.name:
                raise BadInput([Problem(log.name, 0, "stopped")])
            return oracle(log, context, alerts)

    wanted = {"runs": ["detector", "no payment", "mix"], "keep": False}
    with pytest.raises(BadInput, match="stopped"):
        suite.run_suite("small", Counting("mix"), tmp_path, stamp="one", **wanted)
    assert read.read_text().split() == ["alerts-detector.ndjson", "alerts-no-payment.ndjson", "alerts-mix-25.ndjson"]
    report = suite.run_suite("small", Counting("none"), tmp_path, stamp="one", **wanted)
    assert read.read_text().split()[3:] == ["alerts-mix-25.ndjson"]
    whole = suite.run_suite("small", Counting("none"), tmp_path / "whole", **wanted)
    assert report == whole
    read.unlink()
    suite.run_suite("small", Counting("none"), tmp_path, stamp="two", **wanted)
    assert len(read.read_text().split()) == 3


def test_the_first_run_that_fails_ends_a_suite_over_several_processes(tmp_path, small):
    with pytest.raises(BadInput, match="no such log"):
        suite.run_suite("small", failing, tmp_path, processes=2, runs=["detector"])


def test_a_pair_differs_in_the_attack_alone(tmp_path):
    with_it, without = (sizes.pair_cast(PAIR, side) for side in ("with", "without"))
    assert with_it == ["S1", "P2"]
    assert without[0] == "S1"
    assert [g.links.copy_from for g in without[1].groups] == [None, None]
    assert sizes.pair_cast(sizes.Pair("P1 poisons", ("S1", "P1"), ("S1",), 1.0), "without") == ["S1"]
    logs = []
    for number, cast in enumerate((with_it, without)):
        api.simulate(cast, tmp_path / f"{number}.ndjson", accounts=60, days=1, seed=1, heavy_cap=50)
        members = {t.account_id for t in read_truth(tmp_path / f"{number}.truth.ndjson") if t.scenario == "S1"}
        rows = [json.loads(x) for x in (tmp_path / f"{number}.ndjson").open()]
        logs.append(
            {(r["account_id"], r["payment_fp"], r["account_created_at"]) for r in rows if r["account_id"] in members}
        )
    assert logs[0] == logs[1]
    assert {p.cast[-1] for p in sizes.PAIRS} == {"P1", "P2"}
    for pair in sizes.PAIRS:
        assert set(pair.measured) <= set(pair.cast)


def test_payment_baseline_is_beaten_by_an_enterprise(tmp_path, small):
    report = suite.run_suite("small", oracle, tmp_path)
    shared = report.of("shared payment")[0].evaluation
    enterprise = next(c for c in shared.confounders if c.scenario == "B5")
    assert enterprise.contamination > 0.9
    assert shared.false_campaigns.count >= 1


def test_sizes_and_mixes_are_what_they_say(tmp_path):
    for n in (10, 58):
        api.simulate([sizes.size_variant(n)], tmp_path / "log.ndjson", accounts=100, days=4, seed=1, heavy_cap=50)
        members = {t.account_id for t in read_truth(tmp_path / "log.truth.ndjson")}
        assert n * 0.8 <= len(members) <= n * 1.1
        rows = [json.loads(x) for x in (tmp_path / "log.ndjson").open()]
        # 25,000 accounts leave from 900 address prefixes: so few leave from as few
        shared = {r["ip"].rsplit(".", 1)[0] for r in rows if r["account_id"] in members}
        assert len(shared) <= max(2, n / 5)
    assert sizes.mix_variant(0.05).groups[0].evasion.cover == pytest.approx(0.95)
    assert len(read_log([tmp_path / "log.ndjson"]).accounts) > 100


@pytest.mark.parametrize("accounts", sizes.BATCHES)
def test_so_many_accounts_of_the_harvest_come_on_the_whole_days_of_a_batch_world(accounts):
    size = sizes.SUITES["standard"]
    world = Simulator(sizes.batch_cast(accounts), size.accounts, size.days, 1, heavy_cap=size.heavy_cap)
    active = np.array([group.arrivals.active_days for group in world._profiles.groups])[world.accounts.group]
    nothing = np.zeros(len(active))
    whole = [int(world._first_s // DAY) + day for day in (1, 2)]  # it begins within the first of the three
    first, second = (day_factor(1, day, active, nothing, nothing) > 0 for day in whole)
    rows = {cast.scenario.id: cast.rows for cast in world.casts}
    assert set(rows) == {"B14", "S13"}
    assert int((first | second)[rows["S13"]].sum()) == accounts < len(rows["S13"])


def test_hypotheses_are_counted_over_runs_what_most_name_first():
    told = [{"resale": 2.0, "distillation": 1.0}, {"resale": 4.0}, {}]
    campaigns = [
        CampaignScore("c", "S6", "resale", 2, 9, 5, bool(named), None, None, None, 0, (), None, None, None, None,
                      named=named)
        for named in told
    ]  # fmt: skip
    outcomes = tuple(
        suite.Outcome("mix 5", seed, "mix 5", dataclasses.replace(EMPTY, campaigns=(c,)), {})
        for seed, c in enumerate(campaigns)
    )
    report = suite.SuiteReport("small", (0, 1, 2), outcomes)
    assert report.time_to_alert() == [("mix 5", 3, 2, None, [("resale", 2, 3.0), ("distillation", 1, 1.0)])]
    assert "| mix 5 | 3 | 2 | - | resale 2 (3.0), distillation 1 (1.0) |" in api_of.suite_markdown(report)
    nobody = suite.SuiteReport("small", (2,), outcomes[2:])
    assert "| mix 5 | 1 | 0 | - | - |" in api_of.suite_markdown(nobody)


def test_a_batch_is_run_with_and_without_text_on_one_world(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "SUITES", {"small": sizes.Size(30, 0.3, ("S1",), 40, batches=(2,))})
    report = suite.run_suite("small", oracle, tmp_path, with_baselines=False, runs=["batch"])
    whole, without = (report.of(name)[0].summary for name in ("batch 2", "batch 2, metadata only"))
    assert whole["events"] == without["events"] > 100
    assert set(whole["fields"]) - set(without["fields"]) == {"prompt", "system"}
    told = report.time_to_alert()
    assert [name for name, *_ in told] == ["batch 2", "batch 2, metadata only"]
    assert [runs for _, runs, *_ in told] == [found for _, _, found, *_ in told]


def test_whole_lives_are_a_world_of_their_own_as_long_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "SUITES", {"small": sizes.Size(60, 0.3, ("S1", "B5"), 40, lives=True)})
    monkeypatch.setattr(suite, "LIVES_ACCOUNTS", 10)
    monkeypatch.setattr(suite, "LIVES_DAYS", 1.5)
    report = suite.run_suite("small", oracle, tmp_path, seeds=2, with_baselines=False)
    assert report.names == ["detector", "lives"]
    short, long = ([o.evaluation for o in report.of(name)] for name in report.names)
    assert all(b.days > 2 * a.days for a, b in zip(short, long, strict=True))
    assert all(b.population < a.population for a, b in zip(short, long, strict=True))
    shown = {title: [row[0] for row in rows] for title, _, rows in tables.sections(report)}
    assert shown["Scenarios over their lives"] == shown["The worst seed of each, over their lives"] == ["S1"]
    assert [row[0] for row in tables.detector_rows(report)] == ["detector"]  # nothing else has read this log
    assert [row[:2] for row in tables.false_rows(report)] == [
        [name, str(sum(e.account_days for e in runs))] for name, runs in zip(report.names, (short, long), strict=True)
    ]
    longest = max(s.days for s in find(sizes.SUITES["standard"].scenarios) if s.id == "S9")
    assert longest + 4 <= sizes.LIVES_DAYS  # the account of S9 that comes last


def test_unknown_suite_and_no_seed_are_said(tmp_path):
    with pytest.raises(BadInput, match="smoke, standard"):
        suite.run_suite("huge", oracle, tmp_path)
    with pytest.raises(BadInput, match="seed"):
        suite.run_suite("smoke", oracle, tmp_path, seeds=0)


def test_every_suite_names_scenarios_that_ship():
    from monitor.simulate import shipped

    for size in sizes.SUITES.values():
        assert set(size.scenarios) <= set(shipped())
        assert set(size.ablations) <= set(ablation.GROUPS)
    assert sizes.SUITES["standard"].sizes == sizes.SIZES == (10, 58, 100, 1000)
    assert sizes.SUITES["standard"].batches == sizes.BATCHES
    assert sizes.SUITES["standard"].mixes == sizes.MIXES == (0.01, 0.05, 0.10, 0.25, 1.0)
