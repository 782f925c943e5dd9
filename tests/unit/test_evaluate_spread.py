"""The worst seed and the confusion of hypotheses, from scores made by hand."""

from __future__ import annotations

from dataclasses import replace

from monitor.evaluate import evaluate
from monitor.evaluate.inputs import Ledger
from monitor.evaluate.score import CampaignScore, Leak
from monitor.evaluate.spread import CONFUSION, WORST, confusion_rows, worst_rows
from monitor.evaluate.suite import Outcome, SuiteReport

EMPTY = evaluate([], [], Ledger.of(["a"], [0.0], [1]))
FOUND = CampaignScore("s1-0", "S1", "distillation", 10, 100, 50, True, "distillation", True, 2.0, 1,
                      (Leak(0, 5, 0.1, 500),), 1.0, 0.9, 1.0, 1.0)  # fmt: skip
MISSED = replace(FOUND, found=False, hypothesis=None, hypothesis_right=None, hours_to_high=None, alerts=0,
                 leaks=(Leak(0, 50, 1.0, 5_000),), core_precision=None, core_recall=None, member_precision=None,
                 member_recall=None)  # fmt: skip


def report(*seeds: tuple[CampaignScore, ...], run: str = "detector") -> SuiteReport:
    outcomes = tuple(
        Outcome(run, i, "composed", replace(EMPTY, campaigns=campaigns), {}) for i, campaigns in enumerate(seeds)
    )
    return SuiteReport("small", tuple(range(len(seeds))), outcomes)


def test_each_figure_is_that_of_its_worst_seed() -> None:
    late = replace(FOUND, hours_to_high=9.0, core_recall=0.95, member_recall=0.8)
    leaky = replace(FOUND, leaks=(Leak(0, 20, 0.4, 2_000),), core_precision=0.5)
    rows = worst_rows(report((FOUND,), (late,), (leaky,)))
    assert dict(zip(WORST, rows[0], strict=True)) == {
        "scenario": "S1", "seeds": "3", "found in": "3", "hours to HIGH": "9.0", "leaked +0 h": "40.0%",
        "core precision": "0.50", "core recall": "0.90", "all-member recall": "0.80",
    }  # fmt: skip


def test_a_seed_that_missed_leaks_everything_and_has_no_members() -> None:
    assert worst_rows(report((FOUND,), (MISSED,))) == [["S1", "2", "1", "2.0", "100.0%", "1.00", "0.90", "1.00"]]
    assert worst_rows(report((MISSED,), (MISSED,))) == [["S1", "2", "0", "-", "100.0%", "-", "-", "-"]]


def test_one_seed_has_no_worst_and_other_runs_are_not_the_detectors() -> None:
    assert worst_rows(report((FOUND,))) == []
    assert worst_rows(report((FOUND,), (FOUND,), run="campaign steps")) == []
    assert len(worst_rows(report((FOUND,), (FOUND,), run="campaign steps"), "campaign steps")) == 1


def test_campaigns_are_counted_by_what_they_are_and_are_called() -> None:
    farm = replace(FOUND, actor="account_farm", hypothesis="distillation", hypothesis_right=False)
    rows = confusion_rows(report((FOUND, farm), (FOUND, MISSED)))
    assert [row[0] for row in rows] == ["distillation", "account_farm"]
    first = dict(zip(CONFUSION, rows[0], strict=True))
    assert (first["distillation"], first["not found"], first["account_farm"]) == ("2", "1", "0")
    assert dict(zip(CONFUSION, rows[1], strict=True))["distillation"] == "1"
    assert sum(int(n) for row in rows for n in row[1:]) == 4
