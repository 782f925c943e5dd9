"""Every metric of the monitor, in one file. Knows no stage: each stage's owner tells it numbers.

No label ever holds an account, key, organisation, address, id of a request, or anything a client chose. A label's
values are either a closed tuple, whose children exist from the start (a counter that appears with its first
increment loses that increment to ``rate()``), or bounded by what an operator configured: rules, partitions.

``shown`` says where a metric is for a person to see: ``dashboard`` (a panel of grafana/ reads it) or ``internal``
(there for debugging). Tests hold this file against the dashboards and the alert rules in both directions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, disable_created_metrics

from .fields import ALERT_KINDS, ALERT_STATES, HYPOTHESES, MODES, OPTIONAL, REJECT_REASONS, SEVERITIES, TIERS
from .metering import Maker, Shown, Spec, label_values

STAGES = ("poll", "decode", "sketch", "features", "score", "campaigns", "rules", "alerts", "checkpoint", "commit")
DETECTORS = ("population", "change", "classifier")
SINKS = ("redis", "kafka", "webhook", "file")
SUPPRESSIONS = ("agreement",)
RESTORES = ("checkpoint", "fresh", "rewound")
PROVIDERS = ("tensorrt", "cuda", "cpu")
REDIS_OPERATIONS = ("alerts", "checkpoint", "links")
INGEST_OUTCOMES = ("accepted", "unreadable", "unauthorised", "oversize", "busy", "unavailable", "bad_request")
COMPONENTS = ("heavy", "ticks", "features")
ANOMALY_KINDS = ("population", "change")
ANOMALY_STATES = ("warming_up", "ready", "drift")
ANOMALY_MODELS = ("champion", "challenger", "anchor")

_STAGE_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_DELAY_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 900, 3_600, 86_400)
_ROWS = (1, 8, 32, 64, 128, 256, 512, 1_024, 4_096)


class Telemetry:
    """The metrics, as attributes, on a registry that the caller made (one a process; a fresh one a test).

    ``detectors`` are the names of the score columns. The clocks are the process's own: ``stage`` and ``checkpoint``
    measure real time, ``tick_closed`` compares event time with the wall clock, and so has no meaning in a backtest.
    """

    def __init__(self, registry: CollectorRegistry, detectors: tuple[str, ...] = DETECTORS) -> None:
        # a second series for each counter, which nothing here reads
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client leaves it unannotated
        m = Maker(registry)
        self.registry = registry
        self._lock = threading.Lock()
        self._detectors = detectors
        per_partition = "one a partition of the topic that this replica holds"
        per_rule = "one a loaded rule"
        d: Shown = "dashboard"
        i: Shown = "internal"

        # in
        self.records = m.counter("records_consumed", "Records read from the source.", d)
        self.record_bytes = m.counter("records_consumed_bytes", "Bytes of the values of these records.", i)
        self.decoded = m.counter("requests_decoded", "Records that are requests by the contract.", d)
        self.rejects = m.counter("rejects", "Records that are no request, by reason.", d, reason=tuple(REJECT_REASONS))
        self.items_ignored = m.counter(
            "items_ignored", "Items of messages of another format that are no request, e.g. other spans.", i
        )
        self.ingest = m.counter("ingest_requests", "Bodies that gateways posted, by what became of them.", i,
                                outcome=INGEST_OUTCOMES)  # fmt: skip
        self.ingest_events = m.counter(
            "ingest_events", "Events of these bodies.", i, outcome=("accepted", "rejected", "ignored")
        )
        self.dead_letters = m.counter("dead_letters", "Dead letters written and acknowledged.", d)
        self.wrong_types = m.counter(
            "wrong_types", "Optional fields of a wrong type, read as not known.", d, field=OPTIONAL
        )
        self.unknown_fields = m.counter("unknown_fields", "Fields outside the contract, ignored.", i)
        self.duplicates = m.counter("duplicates", "Requests delivered twice and counted once.", d)
        self.id_reuse = m.counter("id_reuse", "Requests with the id of another request.", d)
        self.late = m.counter(
            "late", "Requests behind the watermark: folded into the open tick, or too old and dropped.", d,
            outcome=("folded", "dropped"),
        )  # fmt: skip
        self.jumps_held = m.counter("jumps_held", "Requests too far ahead to move the watermark alone.", i)
        self.lag = m.gauge(
            "consumer_lag_records", "Records in the partition after our position.", d, partition=per_partition
        )
        self.stalled = m.gauge(
            "partition_stalled",
            "1 while a partition has records to read and does not move.",
            d,
            partition=per_partition,
        )
        self.stopped = m.gauge(
            "partition_stopped", "1 after too many rejects stopped a partition.", d, partition=per_partition
        )
        self.watermark = m.gauge(
            "watermark_timestamp_seconds", "Event time up to which a partition is complete.", i, partition=per_partition
        )
        self.partitions = m.gauge("partitions_assigned", "Partitions that this replica holds.", d)
        self.rebalances = m.counter(
            "rebalances", "Partitions that came or went, by how.", d, event=("assigned", "revoked", "lost")
        )
        self.paused = m.gauge("paused", "1 while reading is paused because a sink or store is busy.", d)
        self.pauses = m.counter("pauses", "Times that reading was paused.", i)

        # through
        self.stage_seconds = m.histogram("stage_seconds", "Time of one pass of a stage.", d, _STAGE_S, stage=STAGES)
        self.tick_delay = m.histogram(
            "tick_delay_seconds", "Wall clock at the close of a tick, less the event time of its end.", d, _DELAY_S
        )
        self.ticks = m.counter("ticks_closed", "Ticks closed, over all partitions.", i)
        self.rows = m.counter("rows_scored", "Account rows that a detector gave a score.", d, detector=detectors)
        self.score = m.scores("score_ratio", "Scores given, 0 to 1.", d, detectors)
        self.detector_active = m.gauge(
            "detector_active", "1 where a detector has its model and the fields that it needs.", d, detector=detectors
        )
        self.rules_inactive = m.gauge("rules_inactive", "Rules that can't fire: the log lacks a field they need.", d)
        self.accounts = m.gauge("accounts_tracked", "Accounts with state on this replica.", d)
        self.state_bytes = m.gauge(
            "state_bytes", "State in memory by component, as last written.", d, component=COMPONENTS
        )
        self.classifier_seconds = m.histogram(
            "classifier_seconds", "Time of one inference.", d, _STAGE_S, provider=PROVIDERS
        )
        self.classifier_batch = m.histogram("classifier_batch_rows", "Rows of one inference.", d, _ROWS)
        self.classifier_provider = m.gauge(
            "classifier_provider_info", "1 for the execution provider in use.", d, provider=PROVIDERS
        )
        self.classifier_failures = m.counter("classifier_failures", "Inferences that failed: no opinion there.", d)
        self.shadow_rows = m.counter("classifier_shadow_rows", "Rows that the model on trial was compared on.", d)
        self.shadow_differs = m.counter(
            "classifier_shadow_differs_rows", "Rows of these where a score differs by 0.1 or more.", d
        )
        self.anomaly_models = m.gauge(
            "anomaly_models", "Models of a partition and class of client, by how they stand.", d,
            detector=ANOMALY_KINDS, state=ANOMALY_STATES,
        )  # fmt: skip
        self.anomaly_alarms = m.gauge(
            "anomaly_alarm_ratio",
            "Share of the calibration set over the frozen threshold, in the model where it is the largest.",
            d, detector=ANOMALY_KINDS, model=ANOMALY_MODELS,
        )  # fmt: skip
        self.anomaly_promotions = m.gauge(
            "anomaly_promotions", "Challengers promoted and refused in the life of the models that are here.", d,
            detector=ANOMALY_KINDS, outcome=("promoted", "refused"),
        )  # fmt: skip

        # judged
        self.rules_loaded = m.gauge("rules_loaded", "Rules in force by mode.", d, mode=MODES)
        self.reload_successful = m.gauge(
            "rules_last_reload_successful", "1 if the rules on disk are those in force.", d
        )
        self.reload_timestamp = m.gauge(
            "rules_last_reload_success_timestamp_seconds", "When the rules in force were loaded.", d
        )
        self.firings = m.counter("rule_firings", "Rows on which a rule held.", d, rule=per_rule, mode=MODES)
        self.exception_hits = m.counter(
            "rule_exception_hits", "Firings that an exception of the rule took away.", d, rule=per_rule,
            exception="one an exception of a loaded rule",
        )  # fmt: skip
        self.suppressed = m.counter(
            "alerts_suppressed", "Firings that raised no alert, by why.", d, reason=SUPPRESSIONS
        )
        self.alerts = m.counter(
            "alerts", "Alerts opened, by the rule or detector that opened them.", d, rule=per_rule, severity=SEVERITIES,
            hypothesis=HYPOTHESES, mode=MODES,
        )  # fmt: skip
        self.alert_revisions = m.counter(
            "alert_revisions", "Revisions of alerts, the first included, by state.", d, state=ALERT_STATES
        )
        self.alerts_reached = m.counter(
            "alerts_reached", "Alerts that came to be at least of a severity, when opened or by a revision.", d,
            kind=ALERT_KINDS, severity=SEVERITIES,
        )  # fmt: skip
        self.alerts_open = m.gauge("alerts_open", "Alerts that are open now.", d, severity=SEVERITIES)
        self.exposed_requests = m.gauge(
            "exposed_requests", "Requests of the subjects of open alerts, as last written.", d,
            kind=ALERT_KINDS, severity=SEVERITIES,
        )  # fmt: skip
        self.exposed_output_tokens = m.gauge(
            "exposed_output_tokens", "Output tokens that these requests were given.", d,
            kind=ALERT_KINDS, severity=SEVERITIES,
        )  # fmt: skip
        self.campaigns_open = m.gauge(
            "campaigns_open", "Campaigns with an open alert.", d, severity=SEVERITIES, hypothesis=HYPOTHESES
        )
        self.campaign_members = m.gauge("campaign_members", "Accounts in these campaigns, by tier.", d, tier=TIERS)
        self.candidates = m.gauge(
            "campaign_candidates", "Groups of tied accounts that the last step judged, where campaigns are worked.", d
        )
        self.calibration_groups = m.gauge(
            "campaign_calibration_groups", "Groups that these were ranked among; under 100 is too few to rank.", d
        )

        # out
        self.sent = m.counter("sink_alerts", "Alerts and revisions that a sink took.", d, sink=SINKS)
        self.sink_busy = m.counter("sink_busy", "Times that a sink could not take alerts.", d, sink=SINKS)
        self.redis_errors = m.counter(
            "redis_errors", "Failed calls of Redis by what they were for.", d, operation=REDIS_OPERATIONS
        )
        self.checkpoint_seconds = m.histogram("checkpoint_seconds", "Time until a checkpoint is written.", d, _STAGE_S)
        self.checkpoint_pause_seconds = m.histogram(
            "checkpoint_pause_seconds", "Time that a checkpoint took of the loop, in one go.", d, _STAGE_S
        )
        self.checkpoint_bytes = m.counter("checkpoint_bytes", "Bytes that checkpoints wrote.", d)
        self.checkpoint_timestamp = m.gauge(
            "checkpoint_timestamp_seconds", "When a partition was last written down.", d, partition=per_partition
        )
        self.archive_lost = m.counter("archive_lost", "Times that a step of a partition could not be archived.", d)
        self.fenced = m.counter("fenced", "Writes refused because another replica owns the partition.", i)
        self.restores = m.counter("restores", "Partitions taken up, by what from.", d, outcome=RESTORES)
        self.restore_seconds = m.histogram("restore_seconds", "Time to take a partition up.", i, _STAGE_S)

        # itself
        self.ready = m.gauge("ready", "1 while every readiness check holds.", d)
        self.build_info = m.gauge(
            "build_info", "Version that runs, and the hashes of its configuration and rules.", d,
            version="one a process", python="one a process", config="one a process", rules="one at a time",
        )  # fmt: skip
        self.model_info = m.gauge(
            "model_info",
            "The classifier's models: the one in use, and the one on trial.",
            d,
            model="two at a time",
            sha256="two at a time",
            role=("active", "shadow"),
        )
        self.specs: tuple[Spec, ...] = tuple(m.specs)
        self._build: tuple[str, str, str] | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one pass of a stage (a name of :data:`STAGES`)."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(name).observe(time.perf_counter() - begin)

    def tick_closed(self, end_s: float, ticks: int = 1) -> None:
        """``ticks`` ticks closed, the newest of which ended at this event time."""
        self.ticks.inc(ticks)
        self.tick_delay.observe(max(0.0, time.time() - end_s))

    def scored(self, detector: str, scores: npt.NDArray[np.floating[Any]]) -> None:
        """A detector's scores of a batch, NaN where it had no opinion."""
        self.rows.labels(detector).inc(self.score.observe(detector, scores))

    def set_rules(self, rules: Iterable[tuple[str, str, str, str]]) -> None:
        """``(id, mode, severity, hypothesis)`` of every rule in force: children made, those of gone rules removed."""
        now = {name: (mode, severity, hypothesis) for name, mode, severity, hypothesis in rules}
        with self._lock:
            for metric, names in (
                (self.firings, ("rule", "mode")),
                (self.exception_hits, ("rule", "exception")),
                (self.alerts, ("rule", "severity", "hypothesis", "mode")),
            ):
                for values in label_values(metric, *names):
                    if values[0] not in now and values[0] not in self._detectors:
                        metric.remove(*values)
            for name, (mode, severity, hypothesis) in now.items():
                self.firings.labels(name, mode)
                self.alerts.labels(name, severity, hypothesis, mode)
        modes = [mode for mode, _, _ in now.values()]
        for mode in MODES:
            self.rules_loaded.labels(mode).set(modes.count(mode))

    def rules_reloaded(self, ok: bool) -> None:
        """The rules on disk were taken (``ok``), or refused and the old ones kept."""
        self.reload_successful.set(ok)
        if ok:
            self.reload_timestamp.set_to_current_time()

    def assigned(self, partitions: Iterable[int]) -> None:
        """Partitions came to this replica."""
        for partition in partitions:
            label = str(partition)
            self.rebalances.labels("assigned").inc()
            for gauge in (self.lag, self.stalled, self.stopped):
                gauge.labels(label).set(0)
            self.checkpoint_timestamp.labels(label).set_to_current_time()

    def released(self, partitions: Iterable[int], *, lost: bool = False) -> None:
        """Partitions left this replica: their series go, or they would stand still for ever."""
        for partition in partitions:
            self.rebalances.labels("lost" if lost else "revoked").inc()
            for gauge in (self.lag, self.stalled, self.stopped, self.watermark, self.checkpoint_timestamp):
                if (str(partition),) in label_values(gauge, "partition"):
                    gauge.remove(str(partition))

    def checkpointed(self, seconds: float, written: int, partitions: Iterable[int]) -> None:
        """A checkpoint of these partitions took so long and wrote so many bytes."""
        self.checkpoint_seconds.observe(seconds)
        self.checkpoint_bytes.inc(written)
        for partition in partitions:
            self.checkpoint_timestamp.labels(str(partition)).set_to_current_time()

    def set_build(self, version: str, python: str, config: str, rules: str) -> None:
        """What runs."""
        self._build = version, python, config
        self.set_rules_hash(rules)

    def set_rules_hash(self, rules: str) -> None:
        """Another rule set is in force; without effect before :meth:`set_build`."""
        if self._build is not None:
            self.build_info.clear()
            self.build_info.labels(*self._build, rules).set(1)

    def set_models(self, active: str | None, shadow: str | None = None) -> None:
        """The classifier's models, each as ``name-version:first digits of its hash``; None: there is none."""
        self.model_info.clear()
        for role, label in (("active", active), ("shadow", shadow)):
            if label is not None:
                name, _, sha256 = label.partition(":")
                self.model_info.labels(name, sha256, role).set(1)

    def set_provider(self, provider: str | None) -> None:
        """The execution provider in use; None: no model."""
        for name in PROVIDERS:
            self.classifier_provider.labels(name).set(name == provider)


class DrillTelemetry:
    """What a live drill says of itself, on a registry of its own: its pipeline's counts are nobody's to add up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        m = Maker(registry)
        self.running = m.gauge("drill_running", "1 in a process of `monitor drill --live`.", "internal")
        self.missed = m.gauge("drill_missed", "1 after a campaign was not found in its time, until one is.", "internal")
        self.rounds = m.counter(
            "drill_rounds", "Campaigns laid over the traffic, by whether they were found.", "internal",
            outcome=("found", "missed"),
        )  # fmt: skip
        self.found_after = m.gauge(
            "drill_found_after_seconds", "Event time that the last campaign took to become HIGH.", "internal"
        )
        self.specs: tuple[Spec, ...] = tuple(m.specs)
