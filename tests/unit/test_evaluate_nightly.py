"""Daily rows to a linker and back: what it says is scored by account-days, and nothing of the truth reaches it."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.campaigns import StepBlob
from monitor.campaigns.kinds import CODE
from monitor.campaigns.sums import NAMES
from monitor.campaigns.tally import TOTALS
from monitor.cli import daily_campaigns, daily_links
from monitor.errors import BadInput
from monitor.evaluate import Ledger, evaluate, nightly
from monitor.evaluate.inputs import Revision, Truth
from monitor.evaluate.suite_report import detector_rows, false_rows, suite_markdown
from monitor.offline import Detector
from monitor.settings import Settings
from monitor.simulate import find
from monitor.simulate.daily import CONVERSATIONS, LINKS, DailyWorld
from monitor.simulate.scenario import TASKS

DAY = 86_400.0


def test_account_days_weigh_what_they_stand_for():
    """Two accounts, three days of 10, 20 and 30 requests each (100 tokens a request), named at the end of day one."""
    at = [(d + 0.5) * DAY for d in range(3)] * 2
    log = Ledger.of_days(["never", "a", "b"], [1, 1, 1, 2, 2, 2], at, [10, 20, 30] * 2, [1000, 2000, 3000] * 2)
    assert log.accounts == ["a", "b"]
    truth = [Truth("a", "distillation", "S4", "c", [], 0.0, 3 * DAY), Truth("b", "distillation", "S4", "c", [], DAY)]
    alert = Revision(alert_id="x", kind="campaign", severity="high", revised_at=DAY, accounts=["a"])
    e = evaluate([alert], truth, log)
    (c,) = e.campaigns
    assert c.requests == 60 + 50
    assert [(x.requests, x.tokens) for x in c.leaks] == [(60, 6000), (60, 6000), (80, 8000)]
    assert sum(e.timelines["c"]["sent"]) == 110
    assert sum(e.timelines["c"]["named"]) == 50
    assert (e.account_days, e.population) == (0, 2)


def test_a_linker_that_knows_the_answer_scores_full_marks_and_one_that_names_all_does_not():
    world = DailyWorld(["S4", "B5"], 2000, 3, 1, heavy_cap=100)
    members = [str(t["account"]) for t in world.truth().iter_rows(named=True) if t["campaign"]]

    def alert(accounts, at):
        return Revision(alert_id="x", kind="campaign", severity="high", revised_at=at, accounts=accounts,
                        hypothesis="distillation")  # fmt: skip

    def oracle(days, start):
        for number, _ in enumerate(days):
            if number == 1:
                yield alert(members, start + 2 * DAY)

    def everybody(days, start):
        accounts = set()
        for day in days:
            assert set(day.accounts.columns).isdisjoint({"actor", "scenario", "campaign", "account_id"})
            accounts |= set(day.accounts["account"].to_list())
        yield alert([str(a) for a in sorted(accounts)], start)

    best = nightly.run_night("oracle", oracle, world)
    (c,) = best.evaluation.campaigns
    assert (c.found, c.hypothesis_right, c.core_precision, best.evaluation.false_accounts.count) == (True, True, 1.0, 0)
    first = min(t["first_s"] for t in world.truth().iter_rows(named=True) if t["campaign"])
    assert c.hours_to_high == pytest.approx((world.start_ts + 2 * DAY - first // DAY * DAY) / 3600, abs=24)
    third_day = list(world)[2].accounts.filter(pl.col("account").is_in([int(m) for m in members]))["requests"].sum()
    assert c.requests - c.leaks[0].requests == third_day > 0
    worst = nightly.run_night("everybody", everybody, world)
    assert worst.evaluation.found == 0
    assert worst.evaluation.false_accounts.count > 1500
    assert worst.summary["account_days"] == sum(len(d.accounts) for d in world)


def test_sharing_two_things_accuses_fewer_than_sharing_one():
    world = DailyWorld(["S4", "B5", "B6"], 6000, 2, 1, heavy_cap=100)
    payment = nightly.run_night("payment", nightly.shared_payment, world).evaluation
    both = nightly.run_night("both", nightly.shared_prefix_and_template, world).evaluation
    card = next(c for c in payment.confounders if c.scenario == "B5")
    assert card.contamination > 0.9
    assert both.false_accounts.count < payment.false_accounts.count / 3
    assert both.campaigns[0].core_recall > payment.campaigns[0].core_recall


def test_the_command_writes_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(nightly.run_nightly, "__kwdefaults__", {**nightly.run_nightly.__kwdefaults__,
                        "scenarios": ("S4", "B5")})  # fmt: skip
    result = CliRunner().invoke(build(), ["evaluate", "--suite", "nightly", "--seeds", "2", "--accounts", "2000",
                                          "--days", "2", "--json", str(tmp_path / "n.json")])  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in ("1 of 16: day 1 of detector, seed 1", "16 of 16: day 2 of shared network and template, seed 2"):
        assert text in result.output
    report = json.loads((tmp_path / "n.json").read_text())
    assert (report["suite"], report["seeds"]) == ("nightly", [1, 2])
    assert [o["name"] for o in report["outcomes"]] == [daily_campaigns.NAME, daily_links.NAME, *nightly.BASELINES] * 2
    made = nightly.run_nightly(accounts=2000, days=2, seeds=2, scenarios=("S4", "B5"))
    assert [row[0] for row in detector_rows(made)] == [*nightly.BASELINES]
    (payment, _) = false_rows(made)
    runs = [o.evaluation for o in made.of("shared payment")]
    assert payment[1] == str(sum(e.account_days for e in runs))
    count = sum(e.false_campaigns.count for e in runs)
    weeks = sum(e.days for e in runs) / 7
    assert payment[2:5:2] == [str(count), payment[4]]
    assert payment[4].startswith(f"{count / weeks:.2f} (")
    assert "False alarms" in suite_markdown(made)


def test_the_monitors_own_linker_finds_the_campaign_and_spares_the_enterprise():
    world = DailyWorld(["S4", "B5", "B6"], 12_000, 2, 1, heavy_cap=100)
    ours = nightly.run_night("linker", daily_links.linked, world).evaluation
    naive = nightly.run_night("both", nightly.shared_prefix_and_template, world).evaluation
    (campaign,) = ours.campaigns
    assert campaign.found
    assert campaign.core_recall > 0.6
    assert next(c for c in ours.confounders if c.scenario == "B5").contamination == 0.0
    assert ours.false_campaigns.count <= naive.false_campaigns.count


DETECTOR = Detector(Settings())


def test_the_tests_tell_a_course_from_the_campaign_where_the_linker_alone_does_not():
    world = DailyWorld(["S4", "B6", "B9", "B5"], 6000, 2, 1, heavy_cap=100)
    linked = nightly.run_night("linker", daily_links.linked, world).evaluation
    tested = nightly.run_night("tests", partial(daily_campaigns.judged, DETECTOR), world).evaluation
    course, same = (next(c for c in e.confounders if c.scenario == "B6") for e in (linked, tested))
    assert course.contamination > 0.6
    assert (same.contamination, tested.false_campaigns.count, tested.false_accounts.count) == (0.0, 0, 0)
    (campaign,) = tested.campaigns
    assert (campaign.found, campaign.hypothesis_right) == (True, True)
    assert campaign.core_recall > 0.7


def test_a_customer_with_an_agreement_is_spared_and_without_one_he_looks_like_what_he_does():
    """B2 generates training data at scale, under a contract that the context tells."""
    licensed = find(["B2"])[0].model_copy(update={"accounts": 40, "min_accounts": 40})
    found = []
    for customer in (licensed, licensed.model_copy(update={"agreement": None})):
        world = DailyWorld([customer], 3000, 2, 1, heavy_cap=100)
        e = nightly.run_night("tests", partial(daily_campaigns.judged, DETECTOR), world).evaluation
        found.append((e.false_campaigns.count, e.confounders[0].contamination))
    assert found[0] == (0, 0.0)
    assert found[1][0] >= 1, "in one part or two"
    assert found[1][1] == 1.0


def test_runs_by_name_leave_out_the_others():
    made = nightly.run_nightly(accounts=1000, days=1, scenarios=("B5",), runs=["shared network and template"])
    assert [o.name for o in made.outcomes] == ["shared network and template"]
    with pytest.raises(BadInput, match="no run of nightly is called 'ours'"):
        nightly.run_nightly(accounts=1000, days=1, scenarios=("B5",), runs=["ours"])


def test_a_campaign_that_asks_as_people_do_is_linked_and_not_accused():
    """So the tests can fail: the links are there, and what the rows say of the prompts decides."""
    plain = find(["S4"])[0]
    talk = [g.model_copy(update={"text": g.text.model_copy(update={"tasks": {"chat": 1.0}, "human": 0.9})})
            for g in plain.groups]  # fmt: skip
    world = DailyWorld([plain.model_copy(update={"groups": talk})], 6000, 2, 1, heavy_cap=100)
    assert nightly.run_night("linker", daily_links.linked, world).evaluation.found == 1
    assert nightly.run_night("tests", partial(daily_campaigns.judged, DETECTOR), world).evaluation.found == 0


def test_a_day_as_a_blob_holds_its_requests_its_links_and_its_templates():
    world = DailyWorld(["S4", "B5"], 1000, 1, 3, heavy_cap=100)
    (day,) = world
    rates = daily_campaigns.prompt_rates(1, prompts=60)
    blob = daily_campaigns.blob_of(day, 7, 600_000, rates, np.random.default_rng(1))
    rows = day.accounts.sort("account")
    assert blob.accounts["account"].to_list() == [str(a) for a in rows["account"]]
    sums = dict(zip(NAMES, blob.sums().T, strict=True))
    assert (sums["n_text"] == rows["requests"].to_numpy()).all()
    assert (sums["n_follow"] == (rows["requests"] - rows["sessions"]).to_numpy()).all()
    assert all((sums[name] <= sums["n_text"]).all() for name in ("question", "n_human", "n_harvest", "n_cap"))
    assert sums["question"].sum() > 0.05 * sums["n_text"].sum()
    shown = blob.links.filter(pl.col("kind") == CODE["template_opening"]).group_by("account").agg(pl.col("count").sum())
    templated = rows["templated"].to_numpy()[shown["account"].to_numpy()]
    assert (shown["count"].to_numpy() >= templated).all()
    assert (shown["count"].to_numpy() <= templated + CONVERSATIONS).all()
    orgs = day.links.filter(pl.col("kind") == LINKS.index("org"))["value"].n_unique()
    assert blob.accounts["tenant"].n_unique() == orgs
    again = StepBlob.decode(dataclasses.replace(blob, made=None, accounts=blob.accounts.hstack(
        [pl.Series(n, v) for n, v in zip((*TOTALS, *NAMES), (*blob.totals().T, *blob.sums().T), strict=True)]
    )).encode())  # fmt: skip
    assert (again.sums() == blob.sums()).all()


def test_what_a_prompt_of_a_task_shows_is_what_the_sketches_see():
    rates = daily_campaigns.prompt_rates(1, prompts=150)
    shown = {name: rates[..., k] for k, name in enumerate(daily_campaigns.SHOWN)}
    task = {name: TASKS.index(name) for name in ("chat", "trace", "rubric", "dataset_gen", "coding")}
    assert shown["n_harvest"][task["chat"]].max() < 0.05
    assert shown["lex_reasoning"][task["trace"], 0, 0] > 0.6
    assert shown["lex_rubric"][task["rubric"], 0, 0] > 0.6
    assert shown["lex_dataset"][task["dataset_gen"], 0, 0] > 0.4
    assert shown["n_human"][task["coding"], 1, 0] > shown["n_human"][task["coding"], 0, 0] + 0.3
    assert shown["question"][task["chat"], 0, 0] > shown["question"][task["chat"], 0, 1] + 0.3


def test_no_seed_is_said():
    with pytest.raises(BadInput, match="seed"):
        nightly.run_nightly(seeds=0)
    assert set(LINKS) >= {"payment", "prefix", "template"}
