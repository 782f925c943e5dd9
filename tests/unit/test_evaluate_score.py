"""The scorer on cases small enough to do by hand.

Ten accounts. c1 = {a0..a3} (distillation, S4), c2 = {a4, a5} (resale also distillation, S6); a6, a7 are the
confounder B5; a8, a9 are background. Each sends one request an hour from hour 0 to hour 99 (100 requests of
10 tokens), so that what leaks by hour h is h requests.
"""

import pytest

from monitor.evaluate import Ledger, evaluate
from monitor.evaluate.bounds import poisson_upper, share_upper
from monitor.evaluate.inputs import Revision, Truth

H = 3600.0
T0 = 1_767_571_200.0
ACCOUNTS = [f"a{i}" for i in range(10)]
C1, C2, B5 = ACCOUNTS[:4], ACCOUNTS[4:6], ACCOUNTS[6:8]
TRUTH = [
    *(Truth(a, "distillation", "S4", "c1", [], T0, T0 + 99 * H) for a in C1),
    *(Truth(a, "resale", "S6", "c2", ["distillation"], T0, T0 + 99 * H) for a in C2),
    *(Truth(a, "benign", "B5", None, [], T0, T0 + 99 * H) for a in B5),
]
LOG = Ledger.of(
    [a for a in ACCOUNTS for _ in range(100)], [T0 + h * H for _ in ACCOUNTS for h in range(100)], [10] * 1000
)


def alert(name, accounts, hour, *, kind="campaign", hypothesis="distillation", members=None, **more):
    tiers = {a: {"tier": "core", "membership": 1.0, "roots": []} for a in (members or accounts)}
    more = {"severity": "high", "revised_at": T0 + hour * H, **more}
    return Revision(alert_id=name, kind=kind, hypothesis=hypothesis, accounts=list(accounts), members=tiers, **more)


def by_name(evaluation):
    return {c.campaign: c for c in evaluation.campaigns}


def test_perfect():
    e = evaluate([alert("x", C1, 10), alert("y", C2, 20, hypothesis="resale")], TRUTH, LOG)
    c1, c2 = by_name(e)["c1"], by_name(e)["c2"]
    assert (c1.found, c1.hypothesis_right, c1.hours_to_high) == (True, True, 10.0)
    assert (c2.found, c2.hypothesis_right, c2.hours_to_high) == (True, True, 20.0)
    # four accounts, ten requests each before hour 10; four hours later fourteen each; a day later 34 each
    assert [(x.requests, x.tokens) for x in c1.leaks] == [(40, 400), (56, 560), (136, 1360)]
    assert [x.share for x in c1.leaks] == pytest.approx([0.10, 0.14, 0.34])
    assert (c1.core_precision, c1.core_recall, c1.member_precision, c1.member_recall) == (1, 1, 1, 1)
    assert e.false_campaigns.count == e.false_accounts.count == 0
    assert (e.core_precision, e.core_recall) == (1, 1)
    assert [(x.scenario, x.false_high, x.contaminated) for x in e.confounders] == [("B5", 0, 0)]


def test_what_comes_in_a_members_first_ten_minutes_leaks_whatever_is_said():
    at = {"a0": [0, 599.9, 600, 9000], "a1": [590, 620, 9000], "a2": [5000], "a3": []}
    log = Ledger.of([a for a in at for _ in at[a]], [T0 + s for of in at.values() for s in of], [1] * 8)
    truth = [Truth(a, "distillation", "S4", "c1", [], T0, T0 + H) for a in at]
    (c1,) = evaluate([alert("x", [*at], -1)], truth, log).campaigns
    assert (c1.leaked_at_least, c1.leaks[0].share) == (4 / 8, 0.0)
    # what the owner of a stolen key sent before the theft is not the thief's
    stolen = [Truth("a0", "stolen_key", "S11", "c1", [], T0 + 600, T0 + H)]
    assert evaluate([], stolen, log).campaigns[0].leaked_at_least == 1 / 2
    days = Ledger.of_days(["a0"], [0, 0], [T0, T0 + 24 * H], [5, 5], [9, 9])
    assert evaluate([], stolen, days).campaigns[0].leaked_at_least is None


def test_empty_leaks_everything_and_accuses_nobody():
    e = evaluate([], TRUTH, LOG)
    assert e.found == 0
    for c in e.campaigns:
        assert (c.hypothesis, c.hours_to_high, c.core_precision, c.core_recall) == (None, None, None, None)
        assert [x.share for x in c.leaks] == [1.0, 1.0, 1.0]
    assert by_name(e)["c1"].leaks[0].requests == 400
    assert (e.core_precision, e.core_recall) == (None, 0.0)
    # hours 0 to 99 touch five calendar days; four honest accounts: 20 account-days, none accused: at most 3.0
    assert e.account_days == 20
    assert e.false_accounts.per_million_account_days_upper == pytest.approx(2.9957 / 20 * 1e6, rel=1e-3)


def test_everyone_in_one_campaign_finds_nothing_when_most_are_honest():
    crowd = [f"z{i}" for i in range(20)]
    log = Ledger.of([*[a for a in ACCOUNTS for _ in range(100)], *crowd],
                    [*[T0 + h * H for _ in ACCOUNTS for h in range(100)], *[T0] * 20], [10] * 1020)  # fmt: skip
    e = evaluate([alert("x", [*ACCOUNTS, *crowd], 0)], TRUTH, log)
    assert e.found == 0
    assert [c.leaks[0].share for c in e.campaigns] == [1.0, 1.0]
    assert (e.false_campaigns.count, e.false_accounts.count) == (1, 24)
    assert e.core_precision == pytest.approx(6 / 30)
    assert [x.contamination for x in e.confounders] == [1.0]


def test_everyone_by_an_alert_each_stops_the_leak_but_accuses_all():
    e = evaluate([alert(f"x{a}", [a], 0, kind="account") for a in ACCOUNTS], TRUTH, LOG)
    assert e.found == 0
    assert [c.leaks[0].requests for c in e.campaigns] == [0, 0]
    assert (e.false_campaigns.count, e.false_accounts.count) == (0, 4)
    assert e.core_precision == pytest.approx(0.6)
    # 4 of 4 honest accounts over 99 hours
    assert e.false_accounts.per_week == pytest.approx(4 / (99 / 168))
    assert e.false_accounts.per_million_account_days == pytest.approx(4 / 20 * 1e6)


def test_late_leaks_what_was_sent():
    e = evaluate([alert("x", C1, 90)], TRUTH, LOG)
    c1 = by_name(e)["c1"]
    assert (c1.hours_to_high, c1.leaks[0].share, c1.leaks[1].share, c1.leaks[2].share) == (90, 0.90, 0.94, 1.0)


def test_first_high_revision_counts_not_the_first_low_one():
    e = evaluate([alert("x", C1[:2], 5, severity="medium"), alert("x", C1, 30, revision=2)], TRUTH, LOG)
    c1 = by_name(e)["c1"]
    assert (c1.found, c1.hours_to_high, c1.leaks[0].requests) == (True, 30, 120)
    assert [(p.severity, p.alerts, p.found) for p in e.thresholds][2:4] == [("medium", 1, 1), ("high", 1, 1)]


def test_members_named_later_leak_longer():
    e = evaluate([alert("x", C1[:3], 10), alert("x", C1, 50, revision=2)], TRUTH, LOG)
    c1 = by_name(e)["c1"]
    assert c1.hours_to_high == 10
    assert c1.leaks[0].requests == 3 * 10 + 50
    assert c1.core_recall == 1.0


def test_wrong_members():
    e = evaluate([alert("x", [*C1, *B5, "a8"], 10)], TRUTH, LOG)
    c1 = by_name(e)["c1"]
    assert c1.found  # four of seven
    assert c1.core_precision == pytest.approx(4 / 7)
    assert (e.false_campaigns.count, e.false_accounts.count) == (0, 3)
    assert e.confounders[0].contaminated == 2
    e = evaluate([alert("x", [*C1, *B5, "a8", "a9"], 10)], TRUTH, LOG)
    assert e.found == 0  # half is not more than half
    assert e.false_campaigns.count == 1
    assert e.confounders[0].false_high == 1
    assert by_name(e)["c1"].leaks[0].share == 1.0


def test_merged_campaigns_count_for_the_larger_only():
    e = evaluate([alert("x", [*C1, *C2], 10)], TRUTH, LOG)
    c1, c2 = by_name(e)["c1"], by_name(e)["c2"]
    assert (c1.found, c2.found) == (True, False)
    assert c1.core_precision == pytest.approx(4 / 6)
    assert e.false_campaigns.count == 0  # all of them are abusive
    assert c2.leaks[0].share == pytest.approx(0.10)  # and they may be acted on


def test_split_campaign_is_found_once_by_two_alerts():
    e = evaluate([alert("x", C1[:2], 10), alert("y", C1[2:], 30)], TRUTH, LOG)
    c1 = by_name(e)["c1"]
    assert (c1.found, c1.alerts, c1.hours_to_high) == (True, 2, 10)
    assert (c1.core_precision, c1.core_recall) == (1, 1)
    assert c1.leaks[0].requests == 2 * 10 + 2 * 30
    assert e.found == 1


def test_an_alert_merged_into_another_keeps_what_it_found():
    e = evaluate([alert("x", C1, 10), alert("x", C1, 40, revision=2, state="merged"), alert("y", C1, 40)], TRUTH, LOG)
    assert by_name(e)["c1"].hours_to_high == 10


def test_withdrawn_finds_nothing_and_still_was_a_false_alarm():
    right = [alert("x", C1, 10), alert("x", C1, 20, revision=2, state="withdrawn")]
    assert evaluate(right, TRUTH, LOG).found == 0
    wrong = [alert("x", B5, 10), alert("x", [], 20, revision=2, state="withdrawn")]
    assert evaluate(wrong, TRUTH, LOG).false_campaigns.count == 1


def test_shadow_and_medium_alerts_find_nothing():
    assert evaluate([alert("x", C1, 10, mode="shadow")], TRUTH, LOG).found == 0
    e = evaluate([alert("x", C1, 10, severity="medium"), alert("y", B5, 10, severity="medium")], TRUTH, LOG)
    assert (e.found, e.false_campaigns.count, e.false_accounts.count) == (0, 0, 0)


def test_hypothesis_wrong_and_right_through_also():
    e = evaluate([alert("x", C1, 10, hypothesis="resale"), alert("y", C2, 10, hypothesis="distillation")], TRUTH, LOG)
    assert (by_name(e)["c1"].hypothesis_right, by_name(e)["c2"].hypothesis_right) == (False, True)


def test_an_alert_names_each_hypothesis_that_it_holds_to_the_end():
    revisions = [
        alert("y", C2, 10, severity="medium", hypotheses={"resale": 0.85}),
        alert("y", C2, 12, revision=2, hypotheses={"resale": 0.85, "distillation": 0.2, "account_farm": 0.9}),
        alert("y", C2, 15, revision=3, hypotheses={"resale": 0.85, "distillation": 0.5, "account_farm": 0.4}),
        # a closing revision names nobody
        alert("y", [], 20, revision=4, state="closed", hypotheses={"resale": 0.85, "distillation": 0.5}),
        alert("z", B5, 10, hypotheses={"evaluation": 0.9}),
    ]
    e = evaluate(revisions, TRUTH, LOG)
    assert by_name(e)["c2"].named == {"distillation": 15.0, "resale": 12.0}
    assert by_name(e)["c1"].named == {}
    # a detector that gives no confidences names one
    assert by_name(evaluate([alert("x", C1, 10)], TRUTH, LOG))["c1"].named == {"distillation": 10.0}


def test_a_lone_scraper_is_noticed_at_medium_and_leaks_until_high():
    truth = [Truth("a8", "distillation", "D1", None, [], T0, T0 + 99 * H)]
    e = evaluate([alert("x", ["a8"], 7, kind="account", severity="medium")], truth, LOG)
    assert [(x.scenario, x.high, x.medium, x.hours_to_medium) for x in e.lone] == [("D1", 0, 1, 7.0)]
    assert e.lone[0].leaks[0].share == 1.0
    e = evaluate([alert("x", ["a8"], 7, kind="account")], truth, LOG)
    assert (e.lone[0].high, e.lone[0].leaks[0].requests) == (1, 7)


def test_traffic_of_a_hijacked_account_before_the_theft_is_no_leak():
    truth = [Truth("a0", "stolen_key", "S11", "s", [], T0 + 50 * H, T0 + 99 * H)]
    e = evaluate([alert("x", ["a0"], 60, hypothesis="stolen_key")], truth, LOG)
    assert (e.campaigns[0].requests, e.campaigns[0].leaks[0].requests, e.campaigns[0].hours_to_high) == (50, 10, 10)


def test_order_of_alerts_changes_nothing():
    alerts = [alert("x", C1[:3], 10), alert("x", C1, 50, revision=2), alert("y", [*B5, "a4"], 3)]
    assert evaluate(alerts, TRUTH, LOG) == evaluate(alerts[::-1], TRUTH[::-1], LOG)


@pytest.mark.parametrize(("count", "upper"), [(0, 2.9957), (1, 4.7439), (2, 6.2958), (10, 16.9622)])
def test_exact_poisson_bounds(count, upper):
    assert poisson_upper(count) == pytest.approx(upper, abs=1e-3)


@pytest.mark.parametrize(
    ("count", "total", "upper"), [(0, 10, 0.2589), (1, 10, 0.3942), (5, 100, 0.1023), (0, 0, 1.0), (3, 3, 1.0)]
)
def test_exact_binomial_bounds(count, total, upper):
    assert share_upper(count, total) == pytest.approx(upper, abs=1e-3)


def test_account_alerts_at_medium_are_counted_apart():
    def one(account, **more):
        return alert(account, [account], 5, kind="account", **{"severity": "medium", **more})

    e = evaluate(
        [one("a0"), one("a1", mode="shadow"), one("a2", severity="low"), one("a3", state="withdrawn"), one("a4"),
         one("a6"), one("a8", severity="high")],
        TRUTH, LOG,
    )  # fmt: skip
    assert (by_name(e)["c1"].noticed, by_name(e)["c2"].noticed) == (1, 1)
    assert (e.noticed_abusive, e.noticed_honest) == (2, 2)
    assert [(x.scenario, x.noticed, x.contaminated) for x in e.confounders] == [("B5", 1, 0)]
    assert e.found == 0
    # at medium or more: a0, a4, a6 and a8 of which two are abusive; the shadow one was shown to nobody
    point = next(p for p in e.thresholds if p.severity == "medium")
    assert (point.alerts, point.right) == (4, 2)
