"""What the pipeline did, told to the metrics: the only place where a step's result meets a metric."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import polars as pl

from monitor.errors import Problem
from monitor.fields import SEVERITIES
from monitor.records import Alert, Decoded, RawBatch
from monitor.rules import Evaluation, RuleSet
from monitor.telemetry import Telemetry
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

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time one pass of a stage."""
        return self.telemetry.stage(name)

    def decoded(self, batch: RawBatch, decoded: Decoded, present: frozenset[str]) -> None:
        """A batch was decoded; ``present`` are the contract fields it had."""
        m, c = self.telemetry, self.counts
        c.events += len(decoded.frame) + len(decoded.rejects)
        c.decoded += len(decoded.frame)
        c.ignored += decoded.ignored
        c.fields |= present
        m.records.inc(len(batch))
        m.record_bytes.inc(sum(len(v) for v in batch.values if v is not None))
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
        self.telemetry.suppressed.labels("exception").inc(agreed)
        fired = evaluation.firings.group_by("rule").len().rows() if len(evaluation.firings) else []
        for rule, count in fired:
            self.telemetry.firings.labels(rule, rules.rules[rule].mode).inc(count)
        for (rule, exception), count in evaluation.exception_hits.items():
            self.telemetry.exception_hits.labels(rule, exception).inc(count)

    def rules_in_force(self, rules: RuleSet) -> None:
        """Another rule set took over."""
        self.telemetry.set_rules((r.id, r.mode, r.severity, r.hypothesis) for r in rules.rules.values())

    def model_in_force(self, model: str, problems: Sequence[Problem]) -> None:
        """Another classifier took over; or, with ``problems``, one that was put in place is unfit and does not."""
        self.telemetry.set_model(model, "")
        for problem in problems:
            _LOG.warning("the classifier that was put in place is unfit, %s serves on: %s", model, problem)

    def standing(
        self, accounts: int, state_bytes: Mapping[str, int], open_alerts: Mapping[str, int], inactive: Inactive
    ) -> None:
        """What stands now: accounts with state, its size by step, open alerts by severity, and what cannot work."""
        m = self.telemetry
        m.accounts.set(accounts)
        for component, size in state_bytes.items():
            m.state_bytes.labels(component).set(size)
        for severity in SEVERITIES:
            m.alerts_open.labels(severity).set(open_alerts.get(severity, 0))
        m.rules_inactive.set(len(inactive.rules))
        for detector, columns in _SCORES.items():
            m.detector_active.labels(detector).set(any(c not in inactive.detectors for c in columns))

    def raised(self, alerts: Sequence[Alert]) -> None:
        """Alerts and revisions were made."""
        for alert in alerts:
            if alert.revision > 1:
                self.telemetry.alert_revisions.labels(alert.state).inc()
            for rule in alert.rules[:1] if alert.revision == 1 else ():
                self.telemetry.alerts.labels(rule, alert.severity, alert.hypothesis, alert.mode).inc()
