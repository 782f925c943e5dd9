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

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import polars as pl

from monitor.alerts.compose import compose, confidence, refreshed, same_content, severity_of
from monitor.alerts.episodes import STATE_VERSION, Episode, Held, PartitionState, dump_state, load_state
from monitor.alerts.evidence import baseline_columns
from monitor.alerts.options import AlertOptions, Detection, Lookups
from monitor.alerts.severity import rank
from monitor.records import Alert, Policy

TOTALS = (
    "total_requests", "total_input_tokens", "total_output_tokens", "total_reasoning_tokens", "total_cost_microusd",
)  # fmt: skip
"""Columns of running totals (Int64, null: not known); absent ones count as not known."""


class _Row(NamedTuple):
    at: int
    subject: str
    partition: int
    tick: int
    t_ms: int
    totals: list[int | None]


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
        self._open: dict[int, dict[tuple[str, str], Episode]] = {}
        self._closed: dict[int, list[Alert]] = {}
        self._muted: dict[int, int] = {}
        self.use(policy, rules, self._options.versions)

    def use(self, policy: Policy, rules: Mapping[str, Detection], versions: Mapping[str, str]) -> None:
        """Take another rulebook from the next row on. Open episodes keep what their rules said."""
        self._policy = policy
        self._rules = rules
        self._versions = dict(versions)
        self._evidence = {f for rule in rules.values() for f in rule.evidence}
        self._features = {f for rule in rules.values() for f in rule.features}

    def decide(
        self, frame: pl.DataFrame, firings: pl.DataFrame, watermarks: Mapping[int, int] | None = None
    ) -> list[Alert]:
        """Alerts and revisions of these rows, by event time.

        ``frame`` has ``ROW_KEYS`` and feature columns, any number of ticks and partitions, a subject's rows in
        tick order and never before those of an earlier call; ``firings`` has ``FIRING_SCHEMA``. ``watermarks``
        (partition -> ms of event time that is complete) also closes what has been silent: see ``advance``.
        """
        alerts: list[Alert] = []
        fired: dict[int, list[str]] = {}
        for index, rule in zip(firings["row"].to_list(), firings["rule"].to_list(), strict=True):
            fired.setdefault(index, []).append(rule)
        measured = self._measured(frame, sorted(fired))
        for row in self._rows_of_interest(frame, sorted(fired)):
            names = sorted(fired.get(row.at, ()))
            for mode in ("alert", "shadow"):
                here = [name for name in names if self._rules[name].mode == mode]
                alerts += self._step(mode, row, here, measured.get(row.at, {}))
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
            for e in self._open.get(partition, {}).values()
            if e.written is not None and rank(e.written.severity) >= rank("medium")
            if e.closes_ms(self._options.tick_ms) > at_ms
        }

    def open_alerts(self) -> list[Alert]:
        """Open alerts of mode ``alert`` of all partitions, as last written."""
        written = [e.written for held in self._open.values() for e in held.values() if e.mode == "alert"]
        return [alert for alert in written if alert is not None and alert.revision]

    def mute(self, partition: int, until_ms: int) -> None:
        """Hold back what begins in ticks before ``until_ms`` (warm-up, state rebuilt after a loss).

        What is still open at ``until_ms``, rounded up to a tick, is written then: revision 1, ``raised_at`` that
        time, because only then did anybody listen.
        """
        tick_ms = self._options.tick_ms
        self._muted[partition] = -(-until_ms // tick_ms) * tick_ms

    def unheard(self, partition: int) -> list[Alert]:
        """What was held back and is still open, as it stands (revision 0)."""
        written = [e.written for e in self._open.get(partition, {}).values()]
        return _in_order([alert for alert in written if alert is not None and not alert.revision])

    def adopt(self, partition: int, said: Mapping[str, Alert]) -> None:
        """``said``: id of a held-back alert -> what was last written of it by a life whose state is lost.

        Or of another alert on the same subject that is still open, where less was left to read than it began with.
        The episode goes on from that revision: nothing is opened twice.
        """
        for episode in self._open.get(partition, {}).values():
            held = episode.written
            if held is not None and not held.revision and (last := said.get(held.alert_id)) is not None:
                episode.written = last
                episode.raised_ms = round(last.raised_at * 1_000)
                episode.start_tick = round(last.window["start"] * 1_000) // self._options.tick_ms

    def ledger(self, partition: int) -> list[Alert]:
        """Last revisions of what is open or was closed in the last ``ledger_s``: to write again after a flush."""
        held = [e.written for e in self._open.get(partition, {}).values() if e.written and e.written.revision]
        return _in_order([*held, *self._closed.get(partition, ())])

    def dump(self, partition: int) -> bytes:
        """State of a partition; the same bytes for the same history, however it was cut."""
        return dump_state(
            PartitionState(
                version=STATE_VERSION,
                tick_ms=self._options.tick_ms,
                muted_until_ms=self._muted.get(partition, 0),
                episodes=list(self._open.get(partition, {}).values()),
                closed=list(self._closed.get(partition, ())),
            )
        )

    def load(self, partition: int, blob: bytes) -> None:
        """Replace a partition's state. Raises MonitorError where it was written for other ticks."""
        state = load_state(blob, self._options.tick_ms)
        self._open[partition] = {(e.mode, e.subject): e for e in state.episodes}
        self._closed[partition] = state.closed
        self._muted[partition] = state.muted_until_ms

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        for kept in (self._open, self._closed, self._muted):
            kept.pop(partition, None)

    # -------------------------------------------------------------------------------------------- inside

    def _rows_of_interest(self, frame: pl.DataFrame, fired: list[int]) -> Iterator[_Row]:
        """Rows of subjects that fire here or are in an episode: all the others cost one vectorised look."""
        subjects = set(frame["subject"].gather(fired).to_list()) if fired else set()
        subjects |= {key[1] for episodes in self._open.values() for key in episodes}
        if not subjects or not len(frame):
            return
        held = [name for name in TOTALS if name in frame.columns]
        rows = (
            frame.lazy()
            .select("subject", "partition", "tick", "t_ms", *held)
            .with_row_index("row")
            .filter(pl.col("subject").is_in(list(subjects)))
            .collect(engine="in-memory")
        )
        keys = (rows[name].to_list() for name in ("row", "subject", "partition", "tick", "t_ms"))
        totals = [rows[name].to_list() if name in held else [None] * len(rows) for name in TOTALS]
        yield from map(_Row, *keys, map(list, zip(*totals, strict=True)))

    def _measured(self, frame: pl.DataFrame, fired: list[int]) -> dict[int, dict[str, Any]]:
        """Evidence columns, and what they are compared with, of the rows in which something fires."""
        if not fired:
            return {}
        wanted = {"client_class", *self._evidence, *self._features}
        for feature in self._evidence:
            wanted |= set(baseline_columns(feature, frame.columns).values())
        rows = frame.select(sorted(wanted & set(frame.columns)))[fired].to_dicts()
        return dict(zip(fired, rows, strict=True))

    def _step(self, mode: str, row: _Row, fired: list[str], measured: Mapping[str, Any]) -> list[Alert]:
        """One row's effect on the subject's episode in ``mode``."""
        episodes = self._open.setdefault(row.partition, {})
        key = (mode, row.subject)
        begins = row.tick * self._options.tick_ms
        now_ms = max(row.t_ms, begins)  # a late event folds into a tick that began after it
        alerts = self._settle(row.partition, key, begins)
        episode = episodes.get(key)
        if episode is None:
            if not fired:
                return alerts
            episode = Episode(row.subject, mode, row.tick, row.tick, now_ms, {}, [None] * len(TOTALS))
            episodes[key] = episode
        episode.exposure = row.totals
        if fired:
            episode.last_tick = row.tick
            for name in fired:
                episode.rules[name] = self._held(name, episode.rules.get(name), measured)
            if self._worth_writing(episode, now_ms):
                alerts += self._write(episode, row.partition, now_ms, begins, fired, measured)
        return alerts

    def _held(self, name: str, before: Held | None, measured: Mapping[str, Any]) -> Held:
        rule = self._rules[name]
        known = {name for name in (*rule.evidence, *rule.features) if measured.get(name) is not None}
        # Which half of an `a || b` held is not told here: fields are facts only where nothing was unknown.
        fields = rule.raw_fields if known.issuperset(rule.features) else ()
        return Held(
            severity=rule.severity,
            families=sorted(rule.families),
            hypothesis=rule.hypothesis,
            confidence=confidence(rule.confidence),
            cooldown_s=rule.cooldown_s,
            facts=sorted({*known, *fields, *(before.facts if before is not None else ())}),
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
        return grown and now_ms - round(last.revised_at * 1_000) >= self._options.revise_s * 1_000

    def _write(
        self, episode: Episode, partition: int, now_ms: int, begins: int, fired: list[str], measured: Mapping[str, Any]
    ) -> list[Alert]:
        shown = sorted({feature for name in fired for feature in self._rules[name].evidence})
        alert = compose(
            episode, partition, now_ms, measured, shown, self._policy, self._versions, self._options, self._lookups
        )
        unheard = episode.written is None or episode.written.revision == 0
        if unheard and begins < self._muted.get(partition, 0):
            episode.written = msgspec.structs.replace(alert, revision=0)
            return []
        if episode.written is not None and same_content(episode.written, alert):
            return []
        episode.written = alert
        return [alert]

    def _settle(self, partition: int, key: tuple[str, str], boundary_ms: int) -> list[Alert]:
        """What the passing of time up to ``boundary_ms`` (a tick's start) does to one episode."""
        episode = self._open.get(partition, {}).get(key)
        if episode is None or episode.written is None:
            return []
        alerts: list[Alert] = []
        tick_ms = self._options.tick_ms
        closes_ms = episode.closes_ms(tick_ms)
        heard_ms = self._muted.get(partition, 0)
        if episode.written.revision == 0 and heard_ms <= boundary_ms and heard_ms < closes_ms:
            episode.written = refreshed(episode, heard_ms, tick_ms, raised_at=heard_ms / 1_000)
            alerts.append(episode.written)
        if closes_ms <= boundary_ms:
            del self._open[partition][key]
            if episode.written.revision:
                last = refreshed(episode, closes_ms, tick_ms, state="closed")
                self._closed.setdefault(partition, []).append(last)
                alerts.append(last)
        return alerts

    def _settle_all(self, partition: int, watermark_ms: int) -> list[Alert]:
        boundary_ms = watermark_ms // self._options.tick_ms * self._options.tick_ms
        alerts = [a for key in list(self._open.get(partition, {})) for a in self._settle(partition, key, boundary_ms)]
        oldest = boundary_ms / 1_000 - self._options.ledger_s
        self._closed[partition] = [a for a in self._closed.get(partition, ()) if a.revised_at > oldest]
        return alerts


def _in_order(alerts: list[Alert]) -> list[Alert]:
    return sorted(alerts, key=lambda a: (a.revised_at, a.subject, a.mode, a.window["start"], a.revision))
