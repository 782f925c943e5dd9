"""What the metrics are told of alerts, models, sinks and Redis: the numbers that panels and alert rules stand on."""

from __future__ import annotations

import math

import msgspec
import pytest
from campaign_rows import campaign, lone
from prometheus_client import CollectorRegistry
from tick_events import DAY, T0, Event, frame

from monitor.errors import DependencyDown, MonitorError, SinkBusy
from monitor.metering import PREFIX
from monitor.observe import CountedSink, Observer
from monitor.records import Alert
from monitor.score import ScoreOptions, Scorer, ScorerStatus
from monitor.score.champion import Standing
from monitor.score.classifier import ClassifierStatus
from monitor.score.population import PartitionStatus
from monitor.store.redis_checkpoints import RedisCheckpointStore
from monitor.store.redis_link import RedisOptions
from monitor.store.redis_links import RedisLinkStore
from monitor.store.redis_sink import RedisSink
from monitor.telemetry import Telemetry
from monitor.ticks import TickOptions, TickStage


@pytest.fixture
def observer() -> Observer:
    return Observer(Telemetry(CollectorRegistry()))


def value(observer: Observer, name: str, **labels: str) -> float | None:
    return observer.telemetry.registry.get_sample_value(PREFIX + name, labels)


def at(alert: Alert, revision: int, severity: str, **more: str) -> Alert:
    return msgspec.structs.replace(alert, revision=revision, severity=severity, **more)


def test_a_severity_is_reached_once_however_it_comes(observer: Observer) -> None:
    alert = campaign(1)
    observer.raised([at(alert, 1, "medium")])
    assert [reached(observer, s) for s in ("info", "low", "medium", "high")] == [1, 1, 1, 0]
    observer.raised([at(alert, 2, "high"), at(alert, 3, "medium"), at(alert, 4, "high")])
    assert [reached(observer, s) for s in ("medium", "high", "critical")] == [1, 1, 0]
    observer.raised([at(alert, 5, "high", state="closed")])
    observer.raised([at(alert, 1, "critical", mode="shadow", alert_id="other")])
    assert [reached(observer, s) for s in ("high", "critical")] == [1, 0]


def test_after_a_restart_only_what_is_new_is_counted(observer: Observer) -> None:
    taken_over = at(campaign(3), 3, "medium")
    observer.suspected([taken_over], 0, 0)
    observer.raised([at(campaign(3), 4, "high")])
    assert [reached(observer, s) for s in ("medium", "high")] == [0, 1]
    unknown = at(campaign(3), 9, "high", alert_id="never-seen")
    observer.raised([unknown])
    assert reached(observer, "high") == 1, "what it was before is not known"


def reached(observer: Observer, severity: str) -> float | None:
    return value(observer, "alerts_reached_total", kind="campaign", severity=severity)


def test_what_is_open_is_told_with_its_tiers_and_what_it_took(observer: Observer) -> None:
    alert, other = campaign(3), lone(1, 1)
    observer.suspected([alert, other], 7, 140)
    tiers = [m.tier for m in alert.members.values()]
    for tier in ("core", "likely", "peripheral"):
        assert value(observer, "campaign_members", tier=tier) == tiers.count(tier)
    assert tiers.count("core") > 0
    assert value(observer, "campaigns_open", severity=alert.severity, hypothesis=alert.hypothesis) == 1
    for a in (alert, other):
        labels = {"kind": a.kind, "severity": a.severity}
        assert value(observer, "exposed_requests", **labels) == a.exposure["requests"] > 0
        assert value(observer, "exposed_output_tokens", **labels) == (a.exposure["output_tokens"] or 0)
    assert value(observer, "campaign_candidates") == 7
    assert value(observer, "campaign_calibration_groups") == 140
    observer.suspected([], 0, 0)
    assert value(observer, "campaigns_open", severity=alert.severity, hypothesis=alert.hypothesis) == 0
    assert value(observer, "alerts_open", severity=alert.severity) == 0


def standing(**changed: object) -> Standing:
    plain = Standing(100, True, 50, 2, 1, False, 3, 0.05, 0.04, 0.06)
    return Standing(**{name: changed.get(name, getattr(plain, name)) for name in Standing.__slots__})  # type: ignore[arg-type]


def status(rows: int, differs: int, *standings: Standing) -> ScorerStatus:
    models = {(str(i), "population"): s for i, s in enumerate(standings)}
    classifier = ClassifierStatus("m-1:aa", "m-2:bb", ("CUDAExecutionProvider", "CPUExecutionProvider"), None, None, 3,
                                  rows, differs)  # fmt: skip
    return ScorerStatus({0: PartitionStatus(0, 0, models)}, classifier, {}, 1, {}, {})


def test_models_are_told_as_they_stand(observer: Observer) -> None:
    observer.models(status(10, 1, standing(), standing(drift=True, anchor_rate=0.2), standing(ready=False)))
    assert value(observer, "model_info", model="m-1", sha256="aa", role="active") == 1
    assert value(observer, "model_info", model="m-2", sha256="bb", role="shadow") == 1
    assert value(observer, "classifier_provider_info", provider="cuda") == 1
    for state in ("drift", "ready", "warming_up"):
        assert value(observer, "anomaly_models", detector="population", state=state) == 1
    assert value(observer, "anomaly_alarm_ratio", detector="population", model="anchor") == 0.2
    assert math.isnan(value(observer, "anomaly_alarm_ratio", detector="change", model="anchor") or 0.0)
    assert value(observer, "anomaly_promotions", detector="population", outcome="promoted") == 6
    observer.models(status(25, 2))
    assert value(observer, "classifier_shadow_rows_total") == 25
    observer.models(status(4, 0))  # another model is on trial
    assert value(observer, "classifier_shadow_rows_total") == 29
    assert value(observer, "classifier_shadow_differs_rows_total") == 2
    assert value(observer, "classifier_failures_total") == 3


def test_a_scorer_without_a_model_says_so(observer: Observer) -> None:
    from monitor.features.catalogue import ACCOUNT_FEATURES

    observer.models(Scorer(ScoreOptions(), ACCOUNT_FEATURES).status())
    assert value(observer, "classifier_provider_info", provider="cpu") == 0
    assert "model_info{" not in str(list(observer.telemetry.model_info.collect()))


class Refusing:
    """Takes alerts after the first attempt."""

    def __init__(self) -> None:
        self.asked = 0

    def send(self, alerts: object) -> None:
        self.asked += 1
        if self.asked == 1:
            raise SinkBusy("not now")

    def flush(self) -> None:
        raise SinkBusy("never")

    def close(self) -> None: ...


def test_a_sink_s_deliveries_and_refusals_are_counted(observer: Observer) -> None:
    sink = CountedSink("webhook", Refusing(), observer.telemetry)
    for attempt in (1, 2):
        if attempt == 1:
            with pytest.raises(SinkBusy):
                sink.send([campaign(1), campaign(2)])
        else:
            sink.send([campaign(1), campaign(2)])
    with pytest.raises(SinkBusy):
        sink.flush()
    assert value(observer, "sink_alerts_total", sink="webhook") == 2
    assert value(observer, "sink_busy_total", sink="webhook") == 2


def test_a_redis_that_is_away_is_counted_by_what_it_was_for(observer: Observer) -> None:
    away = RedisOptions(url="redis://127.0.0.1:1/0", connect_timeout_s=1, socket_timeout_s=1)
    sink = RedisSink(away)
    links = RedisLinkStore(away, "t/g")
    store = RedisCheckpointStore(away, "t/g")
    for use, ask in (
        ("alerts", lambda: sink.send([campaign(1)])),
        ("links", lambda: links.idle(0)),
        ("checkpoint", lambda: store.unfence(0)),
    ):
        with pytest.raises(MonitorError) as refused:
            ask()
        observer.failed(refused.value)
        assert value(observer, "redis_errors_total", operation=use) == 1
    observer.failed(DependencyDown("a broker"))
    assert sum(value(observer, "redis_errors_total", operation=o) or 0 for o in ("alerts", "links", "checkpoint")) == 3


def test_requests_that_may_not_move_the_clock_are_counted(observer: Observer) -> None:
    stage = TickStage(TickOptions())
    absurd = Event(0, "a-9", T0 + 400 * DAY, 9)
    stream = [*(Event(0, f"a-{i}", T0 + i, i) for i in range(4)), absurd, Event(0, "a-1", T0 + 9, 10)]
    _, stats = stage.push(frame(stream))
    observer.ticked(stats, stage.watermarks_ms)
    assert value(observer, "jumps_held_total") == 1
    _, stats = stage.push(frame([Event(0, f"b-{i}", T0 + 400 * DAY + i, 20 + i) for i in range(3)]))
    observer.ticked(stats, stage.watermarks_ms)
    assert stage.watermarks_ms[0] > T0 + 399 * DAY, "three agreed"
    assert (value(observer, "jumps_held_total") or 0) <= 3
