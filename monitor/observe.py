"""What the pipeline did, told to the metrics: the only place where a step's result meets a metric."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import polars as pl

from monitor.alerts import Sink
from monitor.errors import MonitorError, SinkBusy
from monitor.fields import ALERT_KINDS, HYPOTHESES, SEVERITIES, TIERS
from monitor.records import Alert, Decoded, RawBatch
from monitor.rules import Evaluation, RuleSet
from monitor.score import ScorerStatus, provider_of
from monitor.service import fields
from monitor.telemetry import ANOMALY_KINDS, Telemetry
from monitor.ticks import TickStats

_LOG = logging.getLogger(__name__)
_SCORES = {
    "population": ("anomaly_population",),
    "change": ("anomaly_change",),
    "classifier": (
        "classifier_distillation", "classifier_resale", "classifier_account_farm", "classifier_stolen_key",
        "classifier_evaluation",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Inactive:
    """What this log cannot feed, each with what is missing: features, score columns, rules."""

    features: Mapping[str, Sequence[str]]
    detectors: Mapping[str, str]
    rules: Mapping[str, Sequence[str]]


@dataclass(slots=True)
class Counts:
    """Where records went: ``events = decoded + rejects``; decoded ones are duplicates, dropped, in rows or waiting.

    A message of another format may hold several events, or none: ``ignored`` counts items that are no request.
    """

    events: int = 0
    decoded: int = 0
    ignored: int = 0
    duplicates: int = 0
    dropped: int = 0
    late: int = 0
    id_reuse: int = 0
    rows: int = 0
    rows_scored: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    wrong_types: dict[str, int] = field(default_factory=dict)
    fields: set[str] = field(default_factory=set)


class Observer:
    """Counts for the summary, and the same to Prometheus."""

    def __init__(self, telemetry: Telemetry, *, live: bool = False):
        self.telemetry = telemetry
        self.counts = Counts()
        self._live = live
        self._reached: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self.on_archive: Callable[[str], None] = lambda why: None
        """Told after each writing of the archive why something was lost; "" where nothing was."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time one pass of a stage."""
        return self.telemetry.stage(name)

    def archived(self, lost: int, why: str) -> None:
        """The archive has written; ``lost`` blobs it could not, which stops nothing else."""
        self.on_archive(why)
        if lost:
            self.telemetry.archive_lost.inc(lost)
            _LOG.warning("not archived: a later hunt will miss it", extra=fields(steps=lost, error=why))

    def decoded(self, batch: RawBatch, decoded: Decoded, present: frozenset[str]) -> None:
        """A batch was decoded; ``present`` are the contract fields it had."""
        m, c = self.telemetry, self.counts
        c.events += len(decoded.frame) + len(decoded.rejects)
        c.decoded += len(decoded.frame)
        c.ignored += decoded.ignored
        c.fields |= present
        m.records.inc(len(batch))
        m.record_bytes.inc(batch.nbytes)
        m.decoded.inc(len(decoded.frame))
        m.items_ignored.inc(decoded.ignored)
        m.unknown_fields.inc(decoded.unknown_fields)
        for reject in decoded.rejects:
            c.rejects[reject.reason] = c.rejects.get(reject.reason, 0) + 1
            m.rejects.labels(reject.reason).inc()
        for name, count in decoded.wrong_types.items():
            c.wrong_types[name] = c.wrong_types.get(name, 0) + count
            m.wrong_types.labels(name).inc(count)

    def ticked(self, stats: TickStats, watermarks_ms: Mapping[int, int]) -> None:
        """Events were given their tick."""
        m, c = self.telemetry, self.counts
        c.duplicates += stats.duplicates
        c.id_reuse += stats.id_reuse
        c.late += stats.late
        c.dropped += stats.dropped
        m.duplicates.inc(stats.duplicates)
        m.id_reuse.inc(stats.id_reuse)
        m.jumps_held.inc(stats.held)
        m.late.labels("folded").inc(stats.late)
        m.late.labels("dropped").inc(stats.dropped)
        for partition, ms in watermarks_ms.items():
            m.watermark.labels(str(partition)).set(ms / 1000)

    def rows(self, rows: pl.DataFrame, tick_ms: int) -> None:
        """Ticks closed and gave rows."""
        self.counts.rows += len(rows)
        if len(rows) and self._live:
            ticks = rows["tick"]
            self.telemetry.tick_closed((int(ticks[-1]) + 1) * tick_ms / 1000, ticks.n_unique())

    def scored(self, rows: pl.DataFrame) -> None:
        """Detectors gave scores; null is no opinion."""
        for detector, columns in _SCORES.items():
            for column in columns:
                known = rows[column].drop_nulls()
                if len(known):
                    self.telemetry.scored(detector, known.to_numpy())
                    seen = self.counts.rows_scored
                    seen[column] = seen.get(column, 0) + len(known)

    def judged(self, evaluation: Evaluation, rules: RuleSet, agreed: int = 0) -> None:
        """Rules were held against rows; ``agreed`` firings fell to a sanctioned use."""
        self.telemetry.suppressed.labels("agreement").inc(agreed)
        fired = evaluation.firings.group_by("rule").len().rows() if len(evaluation.firings) else []
        for rule, count in fired:
            self.telemetry.firings.labels(rule, rules.rules[rule].mode).inc(count)
        for (rule, exception), count in evaluation.exception_hits.items():
            self.telemetry.exception_hits.labels(rule, exception).inc(count)

    def rules_in_force(self, rules: RuleSet) -> None:
        """Another rule set took over."""
        self.telemetry.set_rules((r.id, r.mode, r.severity, r.hypothesis) for r in rules.rules.values())
        self.telemetry.set_rules_hash(rules.hash)

    def models(self, status: ScorerStatus) -> None:
        """Which models run, on what, and how those that learn stand."""
        m, c = self.telemetry, status.classifier
        m.set_models(c.active, c.shadow)
        m.set_provider(provider_of(c.providers))
        for name, counter, total in (
            ("failures", m.classifier_failures, c.failures),
            ("rows", m.shadow_rows, c.shadow_rows),
            ("differs", m.shadow_differs, c.shadow_differs),
        ):
            # another model on trial begins at zero
            counter.inc(total - self._told.get(name, 0) if total >= self._told.get(name, 0) else total)
            self._told[name] = total
        for kind in ANOMALY_KINDS:
            found = [s for part in status.partitions.values() for (_, k), s in part.models.items() if k == kind]
            m.anomaly_models.labels(kind, "drift").set(sum(s.drift for s in found))
            m.anomaly_models.labels(kind, "ready").set(sum(s.ready and not s.drift for s in found))
            m.anomaly_models.labels(kind, "warming_up").set(sum(not s.ready and not s.drift for s in found))
            for model, rates in (
                ("champion", [s.champion_rate for s in found]),
                ("challenger", [s.challenger_rate for s in found]),
                ("anchor", [s.anchor_rate for s in found]),
            ):
                known = [rate for rate in rates if rate is not None]
                m.anomaly_alarms.labels(kind, model).set(max(known, default=math.nan))
            m.anomaly_promotions.labels(kind, "promoted").set(sum(s.promotions for s in found))
            m.anomaly_promotions.labels(kind, "refused").set(sum(s.refusals for s in found))

    def inferred(self, timings: Iterable[tuple[str, int, float]]) -> None:
        """Inferences were made: provider, rows and seconds of each."""
        for provider, rows, seconds in timings:
            self.telemetry.classifier_seconds.labels(provider).observe(seconds)
            self.telemetry.classifier_batch.observe(rows)

    def failed(self, error: MonitorError) -> None:
        """A server did not do what it was asked for."""
        if error.redis_use is not None:
            self.telemetry.redis_errors.labels(error.redis_use).inc()

    def suspected(self, alerts: Sequence[Alert], candidates: int, groups: int) -> None:
        """Alerts that are open, and the candidates of the last campaign step with the groups they were ranked among."""
        m = self.telemetry
        tiers = Counter(member.tier for a in alerts if a.kind == "campaign" for member in a.members.values())
        open_now = Counter(a.severity for a in alerts)
        campaigns = Counter((a.severity, a.hypothesis) for a in alerts if a.kind == "campaign")
        for severity in SEVERITIES:
            m.alerts_open.labels(severity).set(open_now[severity])
            for kind in ALERT_KINDS:
                here = [a.exposure for a in alerts if (a.kind, a.severity) == (kind, severity)]
                m.exposed_requests.labels(kind, severity).set(sum(e.get("requests") or 0 for e in here))
                m.exposed_output_tokens.labels(kind, severity).set(sum(e.get("output_tokens") or 0 for e in here))
            for hypothesis in HYPOTHESES:
                m.campaigns_open.labels(severity, hypothesis).set(campaigns[severity, hypothesis])
        for tier in TIERS:
            m.campaign_members.labels(tier).set(tiers[tier])
        m.candidates.set(candidates)
        m.calibration_groups.set(groups)
        for alert in alerts:  # taken over from a checkpoint: what they had reached was counted by who wrote it
            self._reached.setdefault(alert.alert_id, SEVERITIES.index(alert.severity))

    def standing(self, accounts: int, state_bytes: Mapping[str, int], inactive: Inactive) -> None:
        """What stands now: accounts with state, its size by step, and what cannot work."""
        m = self.telemetry
        m.accounts.set(accounts)
        for component, size in state_bytes.items():
            m.state_bytes.labels(component).set(size)
        m.rules_inactive.set(len(inactive.rules))
        for detector, columns in _SCORES.items():
            m.detector_active.labels(detector).set(any(c not in inactive.detectors for c in columns))

    def raised(self, alerts: Sequence[Alert]) -> None:
        """Alerts and revisions were made."""
        for alert in alerts:
            self._reach(alert)
            self.telemetry.alert_revisions.labels(alert.state).inc()
            for rule in alert.rules[:1] if alert.revision == 1 else ():
                self.telemetry.alerts.labels(rule, alert.severity, alert.hypothesis, alert.mode).inc()

    def _reach(self, alert: Alert) -> None:
        """Count the severities that an alert is the first time at or above."""
        if alert.mode != "alert":
            return
        level = SEVERITIES.index(alert.severity)
        before = self._reached.get(alert.alert_id, -1 if alert.revision == 1 else level)
        for severity in SEVERITIES[before + 1 : level + 1]:
            self.telemetry.alerts_reached.labels(alert.kind, severity).inc()
        if alert.state == "open":
            self._reached[alert.alert_id] = max(before, level)
        else:
            self._reached.pop(alert.alert_id, None)


class CountedSink:
    """A sink whose name, deliveries and refusals the metrics know."""

    def __init__(self, name: str, sink: Sink, telemetry: Telemetry):
        self._sink = sink
        self._sent = telemetry.sent.labels(name)
        self._busy = telemetry.sink_busy.labels(name)

    def send(self, alerts: Sequence[Alert]) -> None:
        """See :class:`~monitor.alerts.Sink`."""
        with self._refusals():
            self._sink.send(alerts)
        self._sent.inc(len(alerts))

    def flush(self) -> None:
        """See :class:`~monitor.alerts.Sink`."""
        with self._refusals():
            self._sink.flush()

    def close(self) -> None:
        """See :class:`~monitor.alerts.Sink`."""
        self._sink.close()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except SinkBusy:
            self._busy.inc()
            raise
