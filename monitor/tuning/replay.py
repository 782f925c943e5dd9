"""Rule sets over stored rows: evaluation, episodes and severities as in a run, for several sets in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import polars as pl

from monitor.alerts import AlertOptions, AlertStage
from monitor.alerts.campaigns import CampaignAlerts, Judged
from monitor.alerts.severity import rank
from monitor.alerts.stage import TOTALS
from monitor.campaigns.calibrate import RANKED
from monitor.records import Alert
from monitor.rules import Evaluation, HoldState, Rule, RuleSet

from .rows import AGREED, Rows, Step

STEPS = 100
"""Campaign steps judged at once; members of large campaigns are in memory for as many."""
KEYS = ("subject", "partition", "tick", "t_ms", "client_class", *TOTALS, AGREED)


@dataclass(slots=True)
class Run:
    """What a rule set led to. ``alerts``: last revision by id; ``peak``: the highest severity of each.

    ``true`` counts rows on which a condition held, ``fired`` those on which its rule fired (after ``for``, exceptions
    and agreements), ``subjects`` whom it fired on, all by rule.
    """

    rules: RuleSet
    alerts: dict[str, Alert] = field(default_factory=dict)
    peak: dict[str, str] = field(default_factory=dict)
    true: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    subjects: dict[str, set[str]] = field(default_factory=dict)

    def take(self, alerts: Sequence[Alert]) -> None:
        """Note revisions, in order."""
        for alert in alerts:
            before = self.peak.get(alert.alert_id)
            self.peak[alert.alert_id] = alert.severity if before is None else max(before, alert.severity, key=rank)
            self.alerts[alert.alert_id] = alert


@dataclass(slots=True)
class _Judge:
    """One set at work. ``tried`` is the rule in which it differs from the first set; None: it is judged whole."""

    run: Run
    own: RuleSet
    tried: str | None
    hold: HoldState
    steps: HoldState
    alerts: AlertStage
    campaigns: CampaignAlerts

    @classmethod
    def of(cls, rules: RuleSet, rows: Rows, tried: str | None) -> _Judge:
        meta = rows.meta
        options = AlertOptions(tick_ms=meta.tick_ms, subject_type=meta.entity, versions={"rules": rules.hash})
        own = rules if tried is None else replace(rules, rules={tried: rules.rules[tried]})
        return cls(
            Run(rules), own, tried, HoldState(meta.tick_ms / 1000), HoldState(meta.step_ms / 1000),
            AlertStage(rules.policy, rules.rules, options),
            CampaignAlerts(rules.policy, rules.rules, options, meta.step_ms, {r: s for r, (s, _) in RANKED.items()}),
        )  # fmt: skip

    def evaluate(self, frame: pl.DataFrame, over: str, entity: str, first: pl.DataFrame | None) -> pl.DataFrame:
        """Firings of this set on ``frame``; ``first`` are those of the first set, where this one shares its rules."""
        hold = self.hold if over == "account" else self.steps
        held = self.own.evaluate(frame, hold, entity, over=over)
        firings = _kept(frame, held)
        self._count(frame, held, firings)
        if first is None:
            return firings
        return pl.concat([first.filter(pl.col("rule") != self.tried), firings]).sort("row", "rule")

    def _count(self, frame: pl.DataFrame, held: Evaluation, firings: pl.DataFrame) -> None:
        self.run.true.update(held.true_counts)
        if firings.is_empty():
            return
        who = firings.with_columns(subject=frame["subject"].gather(firings["row"]))
        for rule, rows, subjects in who.group_by("rule").agg(pl.len(), pl.col("subject").unique()).iter_rows():
            self.run.fired[rule] += rows
            self.run.subjects.setdefault(rule, set()).update(subjects)


def _kept(frame: pl.DataFrame, held: Evaluation) -> pl.DataFrame:
    """Firings less those that an agreement covers."""
    if AGREED not in frame.columns or held.firings.is_empty():
        return held.firings
    return held.firings.filter(~frame[AGREED].gather(held.firings["row"]))


def columns_of(rules: Sequence[Rule]) -> list[str]:
    """Columns of the stored rows that these rules, their exceptions and their evidence need."""
    wanted = set(KEYS)
    for rule in rules:
        wanted |= {*rule.when.columns, *rule.features, *rule.evidence, *(c for e in rule.exceptions for c in e.columns)}
    return sorted(wanted)


def replay(rows: Rows, sets: Sequence[RuleSet], tried: str | None = None) -> list[Run]:
    """One pass over the rows, judged by each set. With ``tried`` all differ from the first in that rule alone."""
    judges = [_Judge.of(rules, rows, tried if i else None) for i, rules in enumerate(sets)]
    over = {sets[0].rules[tried].over} if tried else {"account", "campaign"}
    work = {kind: judges if kind in over else judges[:1] for kind in ("account", "campaign")}
    wanted = columns_of([rule for rules in sets for rule in rules.of("account")])
    last: dict[int, int] = {}
    for frame in rows.frames(wanted):
        first: pl.DataFrame | None = None
        for judge in work["account"]:
            firings = judge.evaluate(frame, "account", rows.meta.entity, first if judge.tried else None)
            first = firings if first is None else first
            judge.run.take(judge.alerts.decide(frame, firings))
        last.update(frame.group_by("partition").agg(pl.col("tick").max()).iter_rows())
    for partition, tick in last.items():
        for judge in work["account"]:
            judge.run.take(judge.alerts.advance(partition, (tick + 1) * rows.meta.tick_ms))
    for steps in _batches(rows.steps(), STEPS):
        _campaigns(steps, work["campaign"], rows)
    runs = [judge.run for judge in judges]
    for kind, judged in work.items():
        for run in runs[len(judged) :]:  # nothing that was tried touches this kind: what the first set led to
            same = {i: a for i, a in runs[0].alerts.items() if a.kind == kind}
            run.alerts |= same
            run.peak |= {i: runs[0].peak[i] for i in same}
    return runs


@dataclass(frozen=True, slots=True)
class Alone:
    """Rows, by their directory, to be judged by one set."""

    rows: Rows
    rules: RuleSet


def judged_alone(job: Alone) -> Run:
    """:func:`replay` of one set: what an engine does where several are judged beside each other."""
    return replay(job.rows, [job.rules])[0]


def _batches(steps: Iterator[Step], size: int) -> Iterator[list[Step]]:
    while batch := list(islice(steps, size)):
        yield batch


def _campaigns(steps: Sequence[Step], judges: Sequence[_Judge], rows: Rows) -> None:
    """Judge the candidates of all steps at once, then let the alerts of each set have them step by step."""
    frames = [frame for frame in map(frame_of, steps) if len(frame)]
    frame = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
    first: pl.DataFrame | None = None
    for judge in judges:
        fired: dict[int, list[str]] = {}
        if len(frame):
            firings = judge.evaluate(frame, "campaign", "campaign", first if judge.tried else None)
            first = firings if first is None else first
            for row, rule in firings.iter_rows():
                fired.setdefault(row, []).append(rule)
        at = 0
        for step in steps:
            judged = [
                Judged(str(values["subject"]), values, fired.get(i, ()), step.findings[str(values["subject"])])
                for i, values in enumerate(step.values, at)
            ]
            at += len(step.values)
            judge.run.take(judge.campaigns.decide(judged, step.merged, (step.step + 1) * rows.meta.step_ms))


def frame_of(step: Step) -> pl.DataFrame:
    """Candidates of a step as a frame: keys as the rules want them, every statistic a double."""
    if not step.values:
        return pl.DataFrame()
    keys = {"subject": pl.String(), "partition": pl.Int32(), "tick": pl.Int64(), "t_ms": pl.Int64(),
            "client_class": pl.UInt8()}  # fmt: skip
    schema = {name: keys.get(name, pl.Float64()) for name in step.values[0]}
    return pl.DataFrame(step.values, schema=schema, orient="row", strict=False)
