"""From rules that hold to alerts: one episode a subject, revised sparingly. Reads no clock, writes nowhere.

**Episode.** The first firing opens it; its id is a hash of the subject and the start of that tick. Every rule
that fires joins it. It ends when nothing fired for the longest ``cooldown`` of its rules, and the watermark
says so, as a last revision ``closed`` at that event time. Rules in shadow mode have episodes of their own.

**Revision.** Only for a rule that was not in it, a higher severity, or ``revise_s`` (1 h) of event time with
more requests. An episode of H hours whose set of rules grew R times is thus written at most 2 + H + R times,
however often it fires, and not at all where nothing in it changed.

**Time.** Everything is a function of the rows of a partition in tick order and of the watermark's ticks, so
neither a split into calls nor a restart changes an id, a revision or a byte; ``decide`` returns alerts in
order of event time. Lookups are asked as of ``until_ms``, the end of the row's tick, and must answer so.
A closing asks nobody: at that time the subject's state may be gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

import msgspec
import polars as pl

from monitor.alerts.compose import compose, confidence, refreshed, same_content, severity_of
from monitor.alerts.episodes import STATE_VERSION, Episode, Held, PartitionState, dump_state, load_state
from monitor.alerts.evidence import baseline_columns
from monitor.alerts.options import AlertOptions, Detection, Lookups
from monitor.alerts.severity import rank
from monitor.alerts.standing import MODES, Agenda, Closed, Firing, Firings, Standing
from monitor.records import Alert, Policy

TOTALS = (
    "total_requests", "total_input_tokens", "total_output_tokens", "total_reasoning_tokens", "total_cost_microusd",
)  # fmt: skip
"""Columns of running totals (Int64, null: not known); absent ones count as not known."""


class _Row(NamedTuple):
    subject: str
    partition: int
    tick: int
    begins_ms: int
    now_ms: int
    totals: list[int | None]
    firing: Firing | None
    rules: Sequence[str]
    """Of one mode."""
    values: pl.DataFrame
    """Evidence columns, and what they are compared with, at ``at``."""
    at: int


class AlertStage:
    """Episodes of all partitions that this process owns. State per partition: ``dump``, ``load``, ``drop``."""

    def __init__(
        self,
        policy: Policy,
        rules: Mapping[str, Detection],
        options: AlertOptions | None = None,
        lookups: Lookups | None = None,
    ):
        self._options = options or AlertOptions()
        self._lookups = lookups or Lookups()
        self._open: dict[int, dict[tuple[str, str], Standing]] = {}
        self._agenda: dict[int, Agenda] = {}
        self._closed: dict[int, Closed] = {}
        self._muted: dict[int, int] = {}
        self.use(policy, rules, self._options.versions)

    def use(self, policy: Policy, rules: Mapping[str, Detection], versions: Mapping[str, str]) -> None:
        """Take another rulebook from the next row on. Open episodes keep what their rules said."""
        self._policy = policy
        self._rules = rules
        self._versions = dict(versions)
        self._evidence = {f for rule in rules.values() for f in rule.evidence}
        features = {f for rule in rules.values() for f in rule.features}
        self._columns = sorted(self._evidence | features)
        # anew: no firing by these rules is one that was said
        self._firings = Firings({name: rule.mode for name, rule in rules.items()}, self._columns)

    def decide(
        self, frame: pl.DataFrame, firings: pl.DataFrame, watermarks: Mapping[int, int] | None = None
    ) -> list[Alert]:
        """Alerts and revisions of these rows, by event time.

        ``frame`` has ``ROW_KEYS`` and feature columns, any number of ticks and partitions, a subject's rows in
        tick order and never before those of an earlier call; ``firings`` has ``FIRING_SCHEMA``. ``watermarks``
        (partition -> ms of event time that is complete) also closes what has been silent: see ``advance``.
        """
        alerts: list[Alert] = []
        fired = self._firings.of(frame, firings)
        values = frame.select(sorted(self._shown(frame))) if fired else frame
        tick_ms = self._options.tick_ms
        for at, subject, partition, tick, t_ms, totals in self._rows_of_interest(frame, fired):
            begins_ms = tick * tick_ms
            now_ms = max(t_ms, begins_ms)  # a late event folds into a tick that began after it
            firing = fired.get(at)
            episodes = self._open.setdefault(partition, {})
            for mode in MODES:
                standing = episodes.get((mode, subject))
                names = firing.rules[mode] if firing is not None else ()
                if standing is None and not names:
                    continue
                if standing is not None and standing.is_old(firing if names else None, begins_ms, now_ms):
                    standing.episode.exposure = totals
                    if names:
                        standing.episode.last_tick = tick
                    continue
                row = _Row(subject, partition, tick, begins_ms, now_ms, totals, firing, names, values, at)
                alerts += self._step(mode, row)
        for partition, watermark_ms in (watermarks or {}).items():
            alerts += self._settle_all(partition, watermark_ms)
        return _in_order(alerts)

    def advance(self, partition: int, watermark_ms: int) -> list[Alert]:
        """Close what is over: every tick that ends by ``watermark_ms`` has been given to ``decide``."""
        return _in_order(self._settle_all(partition, watermark_ms))

    def suspects(self, partition: int, at_ms: int) -> set[str]:
        """Subjects with an episode of ``medium`` or more that is open at this event time: nothing learns from them."""
        return {
            e.subject
            for e in self._episodes(partition)
            if e.written is not None and rank(e.written.severity) >= rank("medium")
            if e.closes_ms(self._options.tick_ms) > at_ms
        }

    def open_alerts(self) -> list[Alert]:
        """Open alerts of mode ``alert`` of all partitions, as last written."""
        written = [s.episode.written for s in self._standing() if s.episode.mode == "alert"]
        return [alert for alert in written if alert is not None and alert.revision]

    def mute(self, partition: int, until_ms: int) -> None:
        """Hold back what begins in ticks before ``until_ms`` (warm-up, state rebuilt after a loss).

        What is still open at ``until_ms``, rounded up to a tick, is written then: revision 1, ``raised_at`` that
        time, because only then did anybody listen.
        """
        tick_ms = self._options.tick_ms
        self._muted[partition] = -(-until_ms // tick_ms) * tick_ms
        for standing in self._open.get(partition, {}).values():
            standing.unsettle()
            self._note(partition, standing)

    def unheard(self, partition: int) -> list[Alert]:
        """What was held back and is still open, as it stands (revision 0)."""
        written = [e.written for e in self._episodes(partition)]
        return _in_order([alert for alert in written if alert is not None and not alert.revision])

    def adopt(self, partition: int, said: Mapping[str, Alert]) -> None:
        """``said``: id of a held-back alert -> what was last written of it by a life whose state is lost.

        Or of another alert on the same subject that is still open, where less was left to read than it began with.
        The episode goes on from that revision: nothing is opened twice.
        """
        for standing in self._open.get(partition, {}).values():
            episode, held = standing.episode, standing.episode.written
            if held is not None and not held.revision and (last := said.get(held.alert_id)) is not None:
                standing.unsettle()
                episode.written = last
                episode.raised_ms = round(last.raised_at * 1_000)
                episode.start_tick = round(last.window["start"] * 1_000) // self._options.tick_ms

    def ledger(self, partition: int) -> list[Alert]:
        """Last revisions of what is open or was closed in the last ``ledger_s``: to write again after a flush."""
        held = [e.written for e in self._episodes(partition) if e.written and e.written.revision]
        return _in_order([*held, *self._closed_of(partition).alerts])

    def dump(self, partition: int) -> bytes:
        """State of a partition; the same bytes for the same history, however it was cut."""
        return dump_state(
            PartitionState(
                version=STATE_VERSION,
                tick_ms=self._options.tick_ms,
                muted_until_ms=self._muted.get(partition, 0),
                episodes=self._episodes(partition),
                closed=self._closed_of(partition).alerts,
            )
        )

    def load(self, partition: int, blob: bytes) -> None:
        """Replace a partition's state. Raises MonitorError where it was written for other ticks."""
        state = load_state(blob, self._options.tick_ms)
        self.drop(partition)
        self._muted[partition] = state.muted_until_ms
        self._closed[partition] = Closed(state.closed)
        held = self._open[partition] = {(e.mode, e.subject): Standing(e) for e in state.episodes}
        for standing in held.values():
            self._note(partition, standing)

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        for kept in (self._open, self._agenda, self._closed, self._muted):
            kept.pop(partition, None)

    # -------------------------------------------------------------------------------------------- inside

    def _standing(self) -> Iterator[Standing]:
        return (standing for held in self._open.values() for standing in held.values())

    def _episodes(self, partition: int) -> list[Episode]:
        return [standing.episode for standing in self._open.get(partition, {}).values()]

    def _closed_of(self, partition: int) -> Closed:
        return self._closed.setdefault(partition, Closed())

    def _shown(self, frame: pl.DataFrame) -> set[str]:
        """Columns of the frame that an alert may show, or compare with what it shows."""
        wanted = {"client_class", *self._columns}
        for feature in self._evidence:
            wanted |= set(baseline_columns(feature, frame.columns).values())
        return wanted & set(frame.columns)

    def _rows_of_interest(
        self, frame: pl.DataFrame, fired: Mapping[int, Firing]
    ) -> Iterator[tuple[int, str, int, int, int, list[int | None]]]:
        """Row, subject, partition, tick, time and totals of those who fire here or are in an episode."""
        if not len(frame) or not (fired or any(self._open.values())):
            return
        subjects, partitions = frame["subject"].to_list(), frame["partition"].to_list()
        held = {p: self._open.get(p, {}) for p in set(partitions)}
        begin = {subjects[i] for i in fired}
        at = [
            i
            for i, (subject, p) in enumerate(zip(subjects, partitions, strict=True))
            if subject in begin or (held[p] and (("alert", subject) in held[p] or ("shadow", subject) in held[p]))
        ]
        rows = frame.select("tick", "t_ms", *(name for name in TOTALS if name in frame.columns))[at]
        totals = [rows[name].to_list() if name in rows.columns else repeat(None, len(at)) for name in TOTALS]
        ticks, times = rows["tick"].to_list(), rows["t_ms"].to_list()
        for i, tick, t_ms, known in zip(at, ticks, times, zip(*totals, strict=True), strict=True):
            yield i, subjects[i], partitions[i], tick, t_ms, list(known)

    def _step(self, mode: str, row: _Row) -> list[Alert]:
        """One row's effect on the subject's episode in ``mode``."""
        episodes = self._open[row.partition]
        key = (mode, row.subject)
        standing = episodes.get(key)
        alerts = [] if standing is None else self._settle(row.partition, standing, row.begins_ms)
        standing = episodes.get(key)
        if standing is None:
            if not row.rules:
                return alerts
            episode = Episode(row.subject, mode, row.tick, row.tick, row.now_ms, {}, [None] * len(TOTALS))
            standing = episodes[key] = Standing(episode)
        episode = standing.episode
        episode.exposure = row.totals
        if row.rules:
            episode.last_tick = row.tick
            assert row.firing is not None
            for name in row.rules:
                episode.rules[name] = self._held(name, episode.rules.get(name), row.firing.known)
            if self._worth_writing(episode, row.now_ms):
                alerts += self._write(standing, row)
            last = episode.written
            assert last is not None
            standing.until_ms = _ms(last.revised_at) + self._options.revise_s * 1_000
            if row.now_ms < standing.until_ms:
                standing.said.add(row.firing)
        standing.settles_ms = self._note(row.partition, standing)
        return alerts

    def _held(self, name: str, before: Held | None, known: frozenset[str]) -> Held:
        rule = self._rules[name]
        here = known.intersection((*rule.evidence, *rule.features))
        # Which half of an `a || b` held is not told here: fields are facts only where nothing was unknown.
        fields = rule.raw_fields if here.issuperset(rule.features) else ()
        return Held(
            severity=rule.severity,
            families=sorted(rule.families),
            hypothesis=rule.hypothesis,
            confidence=confidence(rule.confidence),
            cooldown_s=rule.cooldown_s,
            facts=sorted({*here, *fields, *(before.facts if before is not None else ())}),
            thresholds=dict(rule.params),
        )

    def _worth_writing(self, episode: Episode, now_ms: int) -> bool:
        last = episode.written
        if last is None or set(episode.rules) != set(last.rules) or episode.families != last.families:
            return True
        if rank(severity_of(episode, self._policy, self._options)) > rank(last.severity):
            return True
        requests, before = episode.exposure[0], last.exposure["requests"]
        grown = requests is None or before is None or requests > before
        return grown and now_ms - _ms(last.revised_at) >= self._options.revise_s * 1_000

    def _write(self, standing: Standing, row: _Row) -> list[Alert]:
        episode = standing.episode
        shown = sorted({feature for name in row.rules for feature in self._rules[name].evidence})
        alert = compose(
            episode, row.partition, row.now_ms, row.values.row(row.at, named=True), shown, self._policy, self._versions,
            self._options, self._lookups,
        )  # fmt: skip
        unheard = episode.written is None or episode.written.revision == 0
        if unheard and row.begins_ms < self._muted.get(row.partition, 0):
            standing.unsettle()
            episode.written = msgspec.structs.replace(alert, revision=0)
            return []
        if episode.written is not None and same_content(episode.written, alert):
            return []
        standing.unsettle()
        episode.written = alert
        return [alert]

    def _note(self, partition: int, standing: Standing) -> int:
        """See to it that the episode is looked at when time alone changes it; that time."""
        episode, heard_ms = standing.episode, self._muted.get(partition, 0)
        due_ms = episode.closes_ms(self._options.tick_ms)
        if episode.written is not None and not episode.written.revision:
            due_ms = min(due_ms, heard_ms)
        self._agenda.setdefault(partition, Agenda()).note(standing, due_ms)
        return due_ms

    def _settle(self, partition: int, standing: Standing, boundary_ms: int) -> list[Alert]:
        """What the passing of time up to ``boundary_ms`` (a tick's start) does to one episode."""
        episode = standing.episode
        if episode.written is None:
            return []
        alerts: list[Alert] = []
        tick_ms = self._options.tick_ms
        closes_ms = episode.closes_ms(tick_ms)
        heard_ms = self._muted.get(partition, 0)
        if episode.written.revision == 0 and heard_ms <= boundary_ms and heard_ms < closes_ms:
            standing.unsettle()
            episode.written = refreshed(episode, heard_ms, tick_ms, raised_at=heard_ms / 1_000)
            alerts.append(episode.written)
        if closes_ms <= boundary_ms:
            del self._open[partition][episode.mode, episode.subject]
            if episode.written.revision:
                last = refreshed(episode, closes_ms, tick_ms, state="closed")
                self._closed_of(partition).add(last)
                alerts.append(last)
        return alerts

    def _settle_all(self, partition: int, watermark_ms: int) -> list[Alert]:
        boundary_ms = watermark_ms // self._options.tick_ms * self._options.tick_ms
        alerts: list[Alert] = []
        held = self._open.get(partition, {})
        if (agenda := self._agenda.get(partition)) is not None:
            # taken whole first: one that is noted again for a time before this one would be taken for ever
            for standing in list(agenda.take(boundary_ms)):
                key = standing.episode.mode, standing.episode.subject
                if held.get(key) is standing:
                    alerts += self._settle(partition, standing, boundary_ms)
                if held.get(key) is standing:
                    self._note(partition, standing)
        self._closed_of(partition).keep_after(boundary_ms / 1_000 - self._options.ledger_s)
        return alerts


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)


def _in_order(alerts: list[Alert]) -> list[Alert]:
    return sorted(alerts, key=lambda a: (a.revised_at, a.subject, a.mode, a.window["start"], a.revision))
