"""Episodes, revisions, severity and evidence, one behaviour a test."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import polars as pl
import pytest
from alert_rows import POLICY, RULES, Row, Rule, frames, part

from monitor.alerts import AlertOptions, AlertStage, Lookups
from monitor.alerts.severity import severity
from monitor.errors import MonitorError
from monitor.fields import HYPOTHESES
from monitor.records import Alert, Policy

A = "a-1"
P = part(A)
VERSIONS = {"monitor": "0.1.0", "rules": "beef"}


def stage(policy: Policy = POLICY, rules: dict[str, Rule] | None = None, **options: object) -> AlertStage:
    lookups = Lookups(
        exemplars=lambda partition, subject, until_ms: [f"{subject}-r{i}" for i in range(60)],
        models=lambda partition, subject, until_ms: ["m-2", "m-1", "m-2"],
        quantile=lambda partition, feature, client_class, value: value / 2 if client_class == 2 else None,
    )
    return AlertStage(policy, rules or RULES, AlertOptions(versions=VERSIONS, **options), lookups)  # type: ignore[arg-type]  # keywords


def run(s: AlertStage, *rows: Row, watermark: int | None = None) -> list[Alert]:
    return s.decide(*frames(rows), {P: watermark} if watermark is not None else None)


def test_nothing_fires_nothing_is_written() -> None:
    assert run(stage(), (A, 1, []), (A, 2, []), watermark=10**9) == []


def test_the_first_firing_opens_an_episode_that_says_everything_the_contract_asks() -> None:
    (alert,) = run(stage(), (A, 100, ["timing.metronome", "template.sweep"]))
    assert (alert.schema, alert.kind, alert.state, alert.revision, alert.mode) == (
        "alert/v1", "account", "open", 1, "alert",
    )  # fmt: skip
    assert alert.accounts == [A]
    assert alert.members[A].tier == "core"
    assert alert.members[A].roots == ["behaviour", "content"]
    assert alert.rules == ["template.sweep", "timing.metronome"]
    assert alert.families == ["template", "timing"]
    assert alert.window == {"start": 1_000.0, "end": 1_010.0}
    assert (alert.raised_at, alert.revised_at) == (1_007.0, 1_007.0)
    assert alert.exposure == {
        "requests": 200, "input_tokens": 100_000, "output_tokens": 1_000, "reasoning_tokens": None,
        "cost_usd": 1.5001, "models": ["m-1", "m-2"],
    }  # fmt: skip
    assert alert.exemplars == [f"{A}-r{i}" for i in range(40)]
    assert alert.versions == VERSIONS
    assert (alert.score, alert.expected_false_per_week, alert.uncalibrated) == (None, None, True)
    assert len(alert.alert_id) == 32
    assert int(alert.alert_id, 16) >= 0
    json.loads(msgspec.json.encode(alert))


def test_the_id_is_a_function_of_subject_start_and_mode_alone() -> None:
    def id_of(subject: str, tick: int, rule: str = "timing.metronome", **options: object) -> str:
        s = stage(**options)
        return s.decide(*frames([(subject, tick, [rule])]))[0].alert_id

    assert id_of(A, 100) == id_of(A, 100) == id_of(A, 100, "volume.flood")
    others = {id_of(A, 101), id_of("a-2", 100), id_of(A, 100, "client.trial"), id_of(A, 100, subject_type="org")}
    assert len(others | {id_of(A, 100)}) == 5
    assert id_of(A, 100) == "368268320c82af8c0305824ef846c1ae", "another formula orphans every open alert"


def test_hypotheses_are_combined_by_noisy_or() -> None:
    (alert,) = run(stage(), (A, 1, ["timing.metronome", "template.sweep", "volume.flood"]))
    assert set(alert.hypotheses) == set(HYPOTHESES)
    assert alert.hypotheses["distillation"] == pytest.approx(1 - 0.5 * 0.4)
    assert alert.hypotheses["automation"] == 0.5
    assert alert.hypotheses["resale"] == 0.0
    assert alert.hypothesis == "distillation"


def test_evidence_has_value_baseline_quantile_thresholds_and_what_is_not_known() -> None:
    s = stage()
    (alert,) = s.decide(*frames([(A, 8, ["timing.metronome", "template.sweep"])], template_24h=None))
    features = alert.evidence["features"]
    assert features["regularity_1h"] == {"value": 0.8, "baseline": None, "quantile": 0.4}
    assert features["template_24h"] == {"value": None, "baseline": 0.65, "vs_past": 0.25, "quantile": None}
    assert alert.evidence["not_known"] == ["template_24h"]
    assert alert.evidence["thresholds"] == {"template.sweep": {"share": 0.8}, "timing.metronome": {"regularity": 0.9}}
    assert alert.evidence["score_basis"] == "declared"


def test_text_can_not_become_evidence() -> None:
    s = stage(rules={"r": Rule(evidence=("subject",))})
    with pytest.raises(MonitorError, match="'subject' is not a number"):
        s.decide(*frames([(A, 1, ["r"])]))


def test_an_infinite_value_is_not_known() -> None:
    (alert,) = stage().decide(*frames([(A, 1, ["timing.metronome"])], regularity_1h=float("inf")))
    assert alert.evidence["features"]["regularity_1h"]["value"] is None
    assert alert.evidence["not_known"] == ["regularity_1h"]


# ------------------------------------------------------------------------------------------- revisions


def test_firing_on_is_not_a_revision() -> None:
    alerts = run(stage(), *((A, tick, ["timing.metronome"]) for tick in range(100, 400)))
    assert [a.revision for a in alerts] == [1]


def test_a_new_rule_is_a_revision_and_stays() -> None:
    alerts = run(stage(), (A, 1, ["timing.metronome"]), (A, 2, ["volume.flood"]), (A, 3, ["timing.metronome"]))
    assert [(a.revision, a.rules, a.revised_at) for a in alerts] == [
        (1, ["timing.metronome"], 17.0),
        (2, ["timing.metronome", "volume.flood"], 27.0),
    ]
    assert len({a.alert_id for a in alerts}) == 1
    assert alerts[1].raised_at == alerts[0].raised_at
    assert alerts[1].window == {"start": 10.0, "end": 30.0}
    assert alerts[1].evidence["features"]["regularity_1h"]["value"] == 0.1, "as it was when its rule fired"
    assert alerts[1].evidence["features"]["requests_1h"]["value"] == 2.0


def test_an_hour_with_more_requests_is_a_revision_and_not_a_second_less() -> None:
    alerts = run(stage(), *((A, tick, ["timing.metronome"]) for tick in range(1, 363)))
    assert [(a.revision, a.revised_at) for a in alerts] == [(1, 17.0), (2, 3_617.0)]


def test_an_hour_without_growth_is_no_revision() -> None:
    rows = [(A, tick, ["timing.metronome"]) for tick in range(1, 500)]
    assert len(stage().decide(*frames(rows, total_requests=7))) == 1


def test_higher_severity_is_a_revision() -> None:
    rules = {"r": Rule("high", ("timing", "linkage"), features=("regularity_1h", "template_24h"), evidence=())}
    policy = replace(POLICY, attested=("template_24h",))
    s = stage(policy, rules, calibrated=True)
    first = s.decide(*frames([(A, 1, ["r"])], template_24h=None))
    again = s.decide(*frames([(A, 2, ["r"])], template_24h=0.5))
    third = s.decide(*frames([(A, 3, ["r"])], template_24h=None))
    assert [a.severity for a in (*first, *again, *third)] == ["medium", "high"]


def test_write_amplification_is_bounded() -> None:
    rows = [(A, t, list(RULES)[: 1 + t % 3]) for t in range(1, 8_640)]  # a day, every tick
    alerts = run(stage(), *rows, watermark=10**9)
    assert len(alerts) <= 2 + 24 + 3


# -------------------------------------------------------------------------------------------- closing


def test_an_episode_closes_after_its_longest_cooldown_at_that_time_and_not_before() -> None:
    s = stage()
    opened = run(s, (A, 1, ["timing.metronome", "template.sweep"]), (A, 5, ["timing.metronome"]))
    end = 60_000 + 1_200_000
    assert s.advance(P, end - 1) == []
    (closed,) = s.advance(P, end)
    assert (closed.state, closed.revision, closed.revised_at) == ("closed", 2, end / 1_000)
    assert closed.alert_id == opened[0].alert_id
    assert closed.window == {"start": 10.0, "end": 60.0}
    assert s.advance(P, 10**12) == []


def test_closing_carries_the_last_totals_and_asks_nobody() -> None:
    asked: list[int] = []

    def models(partition: int, subject: str, until_ms: int) -> list[str]:
        asked.append(until_ms)
        return ["m"]

    s = AlertStage(POLICY, RULES, AlertOptions(), Lookups(models=models))
    run(s, (A, 1, ["timing.metronome"]), (A, 30, []))
    (closed,) = s.advance(P, 10**9)
    assert closed.exposure["requests"] == 130
    assert closed.exposure["models"] == ["m"]
    assert asked == [20_000]


def test_a_firing_after_the_end_is_a_new_episode_even_in_one_call() -> None:
    last_in, first_out = 2 + 60 - 1, 2 + 60  # cooldown 600 s after tick 1 has ended
    alerts = run(stage(), (A, 1, ["timing.metronome"]), (A, last_in, ["timing.metronome"]))
    assert [a.state for a in alerts] == ["open"]
    alerts = run(stage(), (A, 1, ["timing.metronome"]), (A, first_out, ["timing.metronome"]))
    assert [(a.state, a.revision) for a in alerts] == [("open", 1), ("closed", 2), ("open", 1)]
    assert alerts[0].alert_id == alerts[1].alert_id != alerts[2].alert_id


def test_a_partition_waits_for_its_own_watermark() -> None:
    s = stage()
    run(s, (A, 1, ["timing.metronome"]))
    assert s.advance(P + 1, 10**9) == []
    assert len(s.advance(P, 10**9)) == 1


# ----------------------------------------------------------------------------------------------- shadow


def test_shadow_has_its_own_episode_and_never_touches_the_other() -> None:
    s = stage()
    alerts = run(s, (A, 1, ["client.trial", "timing.metronome"]), (A, 2, ["client.trial"]), watermark=10**9)
    by_mode = {m: [a for a in alerts if a.mode == m] for m in ("alert", "shadow")}
    assert [a.rules for a in by_mode["alert"]] == [["timing.metronome"]] * 2
    assert [a.rules for a in by_mode["shadow"]] == [["client.trial"]] * 2
    assert by_mode["alert"][0].alert_id != by_mode["shadow"][0].alert_id
    assert by_mode["alert"][0].families == ["timing"]


# ----------------------------------------------------------------------------------------------- muting


def test_what_is_still_open_when_the_mute_ends_is_written_then_as_revision_1() -> None:
    s = stage()
    s.mute(P, 400_000)
    silent = run(s, (A, 1, ["timing.metronome"]), (A, 20, ["volume.flood"]), (A, 30, []), watermark=399_999)
    assert silent == []
    (alert,) = run(s, (A, 41, []), watermark=420_000)
    assert (alert.revision, alert.raised_at, alert.revised_at) == (1, 400.0, 400.0)
    assert alert.rules == ["timing.metronome", "volume.flood"]
    assert alert.window["start"] == 10.0
    assert alert.exposure["requests"] == 130, "as of the end of the mute"


def test_what_ended_while_muted_is_never_written() -> None:
    s = stage()
    s.mute(P, 10_000_000)
    assert run(s, (A, 1, ["timing.metronome"]), watermark=20_000_000) == []
    assert s.ledger(P) == []


# ---------------------------------------------------------------------------------------------- the rest


def test_a_reload_leaves_open_episodes_what_their_rules_said() -> None:
    s = stage()
    run(s, (A, 1, ["template.sweep"]))
    s.use(POLICY, {"timing.metronome": Rule(cooldown_s=10)}, {"rules": "new"})
    (alert,) = run(s, (A, 2, ["timing.metronome"]))
    assert alert.rules == ["template.sweep", "timing.metronome"]
    assert alert.versions == {"rules": "new"}
    assert s.advance(P, 1_229_999) == []
    assert len(s.advance(P, 1_230_000)) == 1, "the longest cooldown, that of a rule that is gone"


def test_the_ledger_has_last_revisions_of_open_and_lately_closed_episodes() -> None:
    s = stage(ledger_s=1_000)
    run(s, (A, 1, ["timing.metronome"]), (A, 2, ["volume.flood"]))
    assert [(a.subject, a.revision, a.state) for a in s.ledger(P)] == [(A, 2, "open")]
    s.advance(P, 630_000)
    assert [(a.subject, a.revision, a.state) for a in s.ledger(P)] == [(A, 3, "closed")]
    s.advance(P, 1_629_999)
    assert len(s.ledger(P)) == 1
    s.advance(P, 1_630_000)
    assert s.ledger(P) == []


def test_state_of_other_ticks_is_refused_with_the_remedy() -> None:
    s = stage()
    run(s, (A, 1, ["timing.metronome"]))
    with pytest.raises(MonitorError, match=r"tick_s.*kafka\.group"):
        stage(tick_ms=5_000).load(P, s.dump(P))


def test_state_has_the_same_bytes_whoever_came_first() -> None:
    one, other = stage(), stage()
    rows: list[Row] = [(A, 2, ["timing.metronome"]), ("a-2", 1, ["timing.metronome"])]
    assert part("a-2") == P
    run(one, *rows)
    run(other, rows[1])
    run(other, rows[0])
    assert one.dump(P) == other.dump(P)
    assert one.dump(P) == one.dump(P)


def test_drop_forgets_one_partition() -> None:
    s = stage()
    b = "a-10"
    assert part(b) != P
    run(s, (A, 1, ["timing.metronome"]), (b, 1, ["timing.metronome"]))
    s.drop(P)
    assert s.ledger(P) == []
    assert len(s.ledger(part(b))) == 1


def test_a_late_event_does_not_turn_time_back() -> None:
    frame, firings = frames([(A, 100, ["timing.metronome"])])
    (alert,) = stage().decide(frame.with_columns(pl.lit(5_000, dtype=pl.Int64).alias("t_ms")), firings)
    assert alert.revised_at == 1_000.0


@pytest.mark.parametrize(
    ("subject_type", "subject", "accounts"),
    [
        ("account", "a:b", ["a:b"]),
        ("account+end_user", "a:b:00ff00ff00ff00ff", ["a:b"]),
        ("account+end_user", "a:b", ["a:b"]),
        ("org", "o-1", []),
    ],
)
def test_accounts_of_other_subjects(subject_type: str, subject: str, accounts: list[str]) -> None:
    (alert,) = stage(subject_type=subject_type).decide(*frames([(subject, 1, ["timing.metronome"])]))
    assert alert.accounts == accounts == list(alert.members)
    assert alert.subject == subject


# ---------------------------------------------------------------------------------------------- severity


@pytest.mark.parametrize(
    ("declared", "families", "facts", "expected"),
    [
        (["critical"], ["volume"], [], "low"),
        (["high"], ["timing", "template"], [], "medium"),  # two roots, nothing attested
        (["high"], ["timing", "template"], ["payment_fp"], "high"),
        (["critical", "low"], ["timing", "template"], ["account_age_days"], "critical"),
        (["high"], ["timing", "history"], ["payment_fp"], "medium"),  # one root
        (["high"], ["timing", "anomaly"], ["payment_fp"], "medium"),
        (["high"], ["timing", "classifier"], ["payment_fp"], "medium"),
        (["high"], ["template", "volume"], ["payment_fp"], "medium"),  # volume is no second root
        (["high"], ["linkage", "timing"], [], "high"),  # the family itself is attested
        (["high"], ["replay", "timing"], [], "high"),  # exact
        (["high"], ["replay", "intel"], [], "medium"),  # exact, one root
        (["info"], ["replay", "timing"], [], "info"),
        (["medium", "low"], ["timing"], [], "medium"),
        (["low"], ["volume"], [], "low"),
        (["info"], ["volume"], [], "info"),
    ],
)
def test_severity_is_what_the_evidence_carries(
    declared: list[str], families: list[str], facts: list[str], expected: str
) -> None:
    assert severity(declared, families, facts, POLICY, lone=False, calibrated=False) == expected
    assert severity(declared, families, facts, POLICY, lone=True, calibrated=True) == expected


def test_a_lone_account_is_capped_until_calibrated() -> None:
    args = (["critical"], ["replay", "timing"], ["payment_fp"], POLICY)
    assert severity(*args, lone=True, calibrated=False) == "medium"
    assert severity(*args, lone=True, calibrated=True) == "critical"


def test_an_unknown_half_of_a_condition_attests_nothing() -> None:
    rules = {"r": Rule("high", ("timing", "template"), features=("regularity_1h", "template_24h"), evidence=(),
                       raw_fields=("ts", "payment_fp"))}  # fmt: skip
    (known,) = stage(rules=rules, calibrated=True).decide(*frames([(A, 1, ["r"])]))
    (unknown,) = stage(rules=rules, calibrated=True).decide(*frames([(A, 1, ["r"])], template_24h=None))
    assert (known.severity, unknown.severity) == ("high", "medium")
