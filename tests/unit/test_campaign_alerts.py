"""From fired rules to campaign alerts: severity, revisions, merging, closing, and what would weaken one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jsonschema
import msgspec
import pytest

from monitor import schemas
from monitor.alerts import AlertOptions
from monitor.alerts.campaigns import CampaignAlerts, Judged
from monitor.features.catalogue import CLIENT_CLASSES
from monitor.features.vocabulary import CATALOGUE
from monitor.records import Alert
from monitor.rules import RuleSet, changes, load_rules, packaged_rules
from monitor.rules.counterfactual import GRAIN

STEP_MS = 600_000
T0 = 1_750_000_000_000 // STEP_MS * STEP_MS


@dataclass(frozen=True)
class Who:
    account: str
    tier: str = "core"
    membership: float = 0.9
    families: tuple[str, ...] = ("linkage", "content")


@dataclass(frozen=True)
class Found:
    members: tuple[Who, ...]
    links: tuple[dict[str, Any], ...] = ()
    exposure: Any = None
    exemplars: tuple[str, ...] = ("r-1",)
    start_ms: int = T0
    history: tuple[tuple[int, int, int], ...] = ((T0 // STEP_MS, 3, 3),)
    corpus: dict[str, Any] | None = None


EXPOSURE = {"requests": 9, "input_tokens": 1, "output_tokens": 1, "reasoning_tokens": 0, "cost_usd": 0.0, "models": []}
VALUES = {
    "tenants": 24.0, "attested_share": 1.0, "link_groups": 4.0, "harvest_share": 0.64, "harvest_breadth": 0.96,
    "harvest_quantile": 0.99, "calibration_groups": 300.0, "template_share": 1.0, "template_quantile": 0.99,
    "question_share": 0.0, "impersonal_quantile": 0.99,
}  # fmt: skip


@pytest.fixture(scope="module")
def rules() -> RuleSet:
    return load_rules([packaged_rules()], CATALOGUE, CLIENT_CLASSES)


def stage(rules: RuleSet) -> CampaignAlerts:
    ranked = {"harvest_quantile": "harvest_share", "template_quantile": "template_share"}
    return CampaignAlerts(rules.policy, rules.rules, AlertOptions(versions={"monitor": "1"}), STEP_MS, ranked)


def judged(rules: RuleSet, *fired: str, members: int = 12, campaign: str = "camp_1", **values: float | None) -> Judged:
    given = {**VALUES, **values}
    found = Found(tuple(Who(f"a{i}") for i in range(members)), exposure=EXPOSURE)
    return Judged(campaign, given, fired, found, partial(changes, rules, given, fired))


def one(alerts: list[Alert]) -> Alert:
    assert len(alerts) == 1
    return alerts[0]


def test_two_roots_and_an_attested_fact_are_high_and_meet_the_contract(rules: RuleSet) -> None:
    alert = one(stage(rules).decide([judged(rules, "campaign-harvest")], (), T0))
    assert (alert.severity, alert.hypothesis, alert.kind, alert.state) == ("high", "distillation", "campaign", "open")
    assert not alert.uncalibrated
    assert alert.expected_false_per_week is not None
    assert alert.accounts == [f"a{i}" for i in range(12)]
    assert alert.members["a0"].roots == ["content", "identity"]
    jsonschema.validate(msgspec.to_builtins(alert), schemas.load("alert.v1"))


def test_without_enough_calibration_it_says_so_and_stops_at_medium(rules: RuleSet) -> None:
    alert = one(stage(rules).decide([judged(rules, "campaign-harvest", calibration_groups=60.0)], (), T0))
    assert (alert.severity, alert.uncalibrated, alert.expected_false_per_week) == ("medium", True, None)


def test_links_alone_stay_low(rules: RuleSet) -> None:
    assert one(stage(rules).decide([judged(rules, "campaign-linked")], (), T0)).severity == "low"


def test_it_is_written_again_for_growth_rules_and_time_only(rules: RuleSet) -> None:
    alerts = stage(rules)
    first = one(alerts.decide([judged(rules, "campaign-harvest", members=100)], (), T0))
    assert alerts.decide([judged(rules, "campaign-harvest", members=100)], (), T0 + STEP_MS) == []
    assert alerts.decide([judged(rules, "campaign-harvest", members=101)], (), T0 + 2 * STEP_MS) == []
    grown = one(alerts.decide([judged(rules, "campaign-harvest", members=102)], (), T0 + 3 * STEP_MS))
    joined = one(alerts.decide([judged(rules, "campaign-harvest", "campaign-synchronised", members=102)], (),
                               T0 + 4 * STEP_MS))  # fmt: skip
    later = one(alerts.decide([judged(rules, "campaign-harvest", members=103)], (), T0 + 11 * STEP_MS))
    assert [a.revision for a in (first, grown, joined, later)] == [1, 2, 3, 4]
    assert {a.alert_id for a in (first, grown, joined, later)} == {first.alert_id}
    assert later.raised_at == first.raised_at
    assert joined.families == ["content", "linkage", "timing"]


def test_each_new_member_of_a_small_core_is_named_at_once(rules: RuleSet) -> None:
    alerts = stage(rules)
    alerts.decide([judged(rules, "campaign-harvest")], (), T0)
    assert one(alerts.decide([judged(rules, "campaign-harvest", members=13)], (), T0 + STEP_MS)).accounts[-1] == "a12"


def test_silence_closes_it_in_event_time(rules: RuleSet) -> None:
    alerts = stage(rules)
    alerts.decide([judged(rules, "campaign-harvest")], (), T0)
    assert alerts.decide((), (), T0 + 47 * 3_600_000) == []
    closed = one(alerts.decide((), (), T0 + 49 * 3_600_000))
    assert (closed.state, closed.revision, closed.revised_at) == ("closed", 2, T0 / 1000 + 48 * 3600)
    assert alerts.ledger() == [closed]


def test_a_merged_campaign_says_into_which(rules: RuleSet) -> None:
    alerts = stage(rules)
    old = one(alerts.decide([judged(rules, "campaign-harvest", campaign="camp_old")], (), T0))
    young = one(alerts.decide([judged(rules, "campaign-harvest", campaign="camp_young")], (), T0 + STEP_MS))
    merged = one(alerts.decide((), [("camp_young", "camp_old")], T0 + 2 * STEP_MS))
    assert (merged.alert_id, merged.state, merged.merged_into) == (young.alert_id, "merged", old.alert_id)


def test_a_warm_up_is_silent_and_what_lasts_is_written_at_its_end(rules: RuleSet) -> None:
    alerts = stage(rules)
    alerts.mute(T0 + 6 * STEP_MS)
    assert alerts.decide([judged(rules, "campaign-harvest")], (), T0) == []
    written = one(alerts.decide([judged(rules, "campaign-harvest")], (), T0 + 6 * STEP_MS))
    assert (written.revision, written.raised_at) == (1, (T0 + 6 * STEP_MS) / 1000)


def test_a_restart_goes_on_from_the_dump(rules: RuleSet) -> None:
    alerts = stage(rules)
    alerts.decide([judged(rules, "campaign-harvest")], (), T0)
    copy = stage(rules)
    copy.load(alerts.dump())
    step = [judged(rules, "campaign-harvest", members=20)]
    assert alerts.decide(step, (), T0 + STEP_MS) == copy.decide(step, (), T0 + STEP_MS)


def test_core_members_are_suspects_and_peripheral_ones_are_not(rules: RuleSet) -> None:
    alerts = stage(rules)
    given = judged(rules, "campaign-harvest")
    found = replace(given.findings, members=(Who("a"), Who("b", "likely"), Who("c", "peripheral")))  # type: ignore[type-var]
    alerts.decide([replace(given, findings=found)], (), T0)
    assert alerts.suspects() == {"a", "b"}


def test_applying_a_counterfactual_drops_the_alert_and_half_of_it_does_not(rules: RuleSet) -> None:
    fired = ("campaign-harvest", "campaign-shared-template")
    alert = one(stage(rules).decide([judged(rules, *fired)], (), T0))
    told = alert.evidence["counterfactual"]
    assert told
    levels = ("info", "low", "medium", "high", "critical")

    def severity_of(values: dict[str, float]) -> int:
        import polars as pl

        frame = pl.DataFrame({**{k: [v] for k, v in values.items()}, "t_ms": [0]})
        still = [r for r in fired if frame.select(rules.rules[r].when.expr.fill_null(False)).item()]
        if not still:
            return -1
        return levels.index(one(stage(rules).decide([judged(rules, *still, **values)], (), T0)).severity)

    for entry in told:
        name, start, end = entry["change"], entry["from"], entry["to"]
        assert severity_of({**VALUES, name: end}) < levels.index("high"), entry
        grain = 1.0 if name in rules.whole else GRAIN
        half = start + math.trunc((end - start) / 2 / grain) * grain
        assert severity_of({**VALUES, name: half}) == levels.index("high"), entry


@pytest.mark.parametrize(("name", "value", "to"), [("tenants", 3.0, 2.0), ("harvest_share", 0.25, 0.249999)])
def test_on_the_very_threshold_the_change_is_one_grain(rules: RuleSet, name: str, value: float, to: float) -> None:
    given = judged(rules, "campaign-harvest", **{name: value})
    told = one(stage(rules).decide([given], (), T0)).evidence["counterfactual"]
    assert [e["to"] for e in told if e["change"] == name] == [to]
    assert all(e["to"] == round(e["to"], 6) for e in told)
