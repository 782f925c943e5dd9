"""Daily rows to a linker and back: what it says is scored by account-days, and nothing of the truth reaches it."""

from __future__ import annotations

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.cli import daily_links
from monitor.errors import BadInput
from monitor.evaluate import Ledger, evaluate, nightly
from monitor.evaluate.inputs import Revision, Truth
from monitor.evaluate.suite_report import detector_rows, false_rows, suite_markdown
from monitor.simulate.daily import LINKS, DailyWorld

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
    monkeypatch.setattr(nightly, "SCENARIOS", ("S4", "B5"))
    monkeypatch.setattr(nightly.run_nightly, "__kwdefaults__", {**nightly.run_nightly.__kwdefaults__,
                        "accounts": 2000, "days": 2, "scenarios": ("S4", "B5")})  # fmt: skip
    result = CliRunner().invoke(build(), ["evaluate", "--suite", "nightly", "--seeds", "2", "--json",
                                          str(tmp_path / "n.json"), "--quiet"])  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "n.json").read_text())
    assert (report["suite"], report["seeds"]) == ("nightly", [1, 2])
    assert [o["name"] for o in report["outcomes"]] == [daily_links.NAME, *nightly.BASELINES] * 2
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
    assert campaign.core_recall > 0.8
    assert next(c for c in ours.confounders if c.scenario == "B5").contamination == 0.0
    assert ours.false_campaigns.count <= naive.false_campaigns.count


def test_no_seed_is_said():
    with pytest.raises(BadInput, match="seed"):
        nightly.run_nightly(seeds=0)
    assert set(LINKS) >= {"payment", "prefix", "template"}
