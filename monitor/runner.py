"""The live service: polls, processes, delivers, checkpoints, commits; hands partitions over and survives.

The order is what makes a crash harmless: alerts are delivered (each sink takes a repeated one as the same), then
state and offsets are written together, then the offsets are committed to Kafka. Killed anywhere, the next owner
starts from the last checkpoint, reads the same records again and makes the same alerts. State is copied with its
offset between two batches, some of it each turn, and written by a thread while the loop goes on.

A batch is decoded and sketched in a thread while the loop takes in the one before it and polls the next: neither of
those steps keeps state. Campaign steps are worked in a second thread beside the batches that follow, and waited for
before anything reads or writes their state; a batch's links are collected beside its features, and waited for too.
Everything else happens on the loop's own thread, batch after batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from monitor.ahead import Ahead, split_batch
from monitor.alerts import Sink
from monitor.beside import Beside
from monitor.campaigning import LEADER
from monitor.checkpointing import Checkpointer
from monitor.dead_letters import DeadLetterBox
from monitor.errors import Fenced
from monitor.patience import Patience
from monitor.pipeline import Pipeline, Prepared
from monitor.records import Alert, Checkpoint, RawBatch, Reject
from monitor.rounds import Rounds
from monitor.rules import Reloader
from monitor.service import Health, Signals, Systemd, fields
from monitor.source.protocol import Source
from monitor.source.reject_limit import RejectLimit

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_FOREVER_MS = 1 << 62
CHECKS = ("partitions", "records", "sinks", "checkpoints")
"""Conditions of readiness that the loop itself sees to."""
_MEASURE_S, _MEASURE_AT_LATEST_S = 2.0, 10.0
_STEPS_BEHIND = 1
"""Steps that may be complete and not worked while the loop goes on, where a backlog is read: what a checkpoint then
waits for stays short."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Seconds of wall clock; ``max_records`` a poll."""

    max_records: int = 20_000
    checkpoint_s: float = 30.0
    drain_s: float = 20.0
    reload_s: float = 30.0
    idle_s: float = 60.0


@dataclass(slots=True)
class Runner:
    """One member of the group. ``step(name)`` is called after each step of a checkpoint, for tests that kill."""

    pipeline: Pipeline
    checkpoints: Checkpointer
    sink: Sink
    dead_letters: DeadLetterBox
    limit: RejectLimit
    health: Health
    signals: Signals
    systemd: Systemd
    options: RunOptions
    reloader: Reloader | None = None
    step: Callable[[str], None] = lambda name: None
    rewind: Callable[[Source, int], int | None] = lambda source, partition: None
    """Where a partition has offsets but no state: seek back one window, return the offset until which to be mute."""
    said: Callable[[Sequence[Alert]], Mapping[str, Alert]] = lambda alerts: {}
    """What an earlier life, whose state is lost, last wrote of these alerts (or of their subjects), by their ids."""
    forgotten: Callable[[Source, int], bool] = lambda source, partition: False
    """Whether Kafka has no offset of the group any more: it was empty for too long and begins at generation 1."""
    check_topic: Callable[[Source, RawBatch], None] = lambda source, batch: None
    look_around: Callable[[Runner], None] = lambda runner: None
    """Every few seconds, and when partitions came: context that arrived, a Redis that lost its data."""
    done: Callable[[Source], bool] = lambda source: source.finished
    source: Source = field(init=False)
    _patiently: Patience = field(init=False)
    _ahead: Ahead = field(default_factory=Ahead)
    _beside: Beside = field(default_factory=Beside)
    began: float = 0.0
    _next: dict[int, int] = field(default_factory=dict)
    _lost: set[int] = field(default_factory=set)
    _catching_up: dict[int, int] = field(default_factory=dict)
    _rounds: Rounds = field(init=False)
    _last_reload: float = 0.0
    _last_measure: float = 0.0
    _stopped: set[int] = field(default_factory=set)
    _quiet: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rounds = Rounds(
            self.checkpoints, self.pipeline, self.health, self._flush, self._leave, lambda name: self.step(name)
        )

    def run(self, open_source: Callable[[Runner], Source]) -> None:
        """Until a signal says stop, or ``done`` says that nothing more will come: then every open tick closes."""
        self.source = open_source(self)
        self._patiently = Patience(
            self.source, self.pipeline.observe, self.health, self.signals, self.systemd, self.options.drain_s,
            held=lambda: self._stopped | self._lost,
        )  # fmt: skip
        self.began = self._rounds.ended = self._last_reload = time.monotonic()
        for check in CHECKS[1:]:
            self.health.set(check, True)
        self._patiently(lambda: self.look_around(self))
        self.systemd.ready()
        try:
            while not self.signals.stopping:
                self._turn()
                if self.done(self.source):
                    self.settle()
                    self._deliver(self.pipeline.finish().alerts)
                    self._publish_campaigns()
                    # no step begins while a snapshot is read, and these are the last
                    self._rounds.take_written(self.source, wait=True)
                    self._begin_campaigns()
                    break
            self.settle()
        except BaseException:
            # The state may hold records whose alerts nobody got: handing it over would lose them.
            self._next.clear()
            self._ahead.forget()
            self._beside.forget()
            self._rounds.drop()
            raise
        finally:
            self.systemd.stopping()
            self.source.close()
            self._ahead.close()
            self._beside.close()
            self.checkpoints.close()
            self.sink.close()

    def _turn(self) -> None:
        batch = self.source.poll(self.options.max_records, 0.0 if self._ahead.busy else _POLL_S)
        self.health.beat()
        self.systemd.watchdog()
        if len(batch):
            self._patiently(lambda: self.check_topic(self.source, batch))
        if len(batch) and not self._catching_up:
            self._take_in(self._ahead.swap(self.pipeline, batch))
        else:
            self.settle()
            for part in split_batch(batch, self._catching_up):
                if len(part):
                    self._take_in(self.pipeline.prepare(part))
                else:
                    self._follow(part)
        self._publish_campaigns(closed=True)
        self._rounds.turn(self._next, self.source, self.options.checkpoint_s, copies=self._beside.idle)
        self.pipeline.campaigns.begin_close()  # not before: what is copied then would wait for it
        # a checkpoint may have waited for a broker that is away: readiness is to say so now, not after the next
        self._measure(time.monotonic())
        self._begin_campaigns()
        now = time.monotonic()
        if self.reloader is not None and self._reload_due(now):
            self._reload(now)

    def settle(self) -> None:
        """Take in the batch and the campaign steps that are under way: before partitions come or go, and the end."""
        self._take_in(self._ahead.result())
        self._settle_campaigns()

    def _settle_campaigns(self) -> None:
        found: list[Alert] = []
        self._patiently(lambda: found.extend(self._beside.result()))
        self._deliver(self.pipeline.campaigns_raised(found))

    def _publish_campaigns(self, *, closed: bool = False) -> None:
        """Publish what steps closed; ``closed``: before the last batch. A pass is waited for only where they ran ahead
        of it: it would hold the loop."""
        now, lag = time.monotonic(), self.source.lag()
        for partition in self.source.assigned:
            if lag.get(partition, 1):
                self._quiet.pop(partition, None)
            elif now - self._quiet.setdefault(partition, now) >= self.options.idle_s:
                self.pipeline.campaigns.rest(partition)
        campaigns = self.pipeline.campaigns
        if self._beside.idle or campaigns.leaves_out or campaigns.behind > _STEPS_BEHIND:
            self._settle_campaigns()
        self._patiently(lambda: self.pipeline.publish_campaigns(closed=closed))

    def _begin_campaigns(self) -> None:
        """The owner of partition 0 works the steps that every live partition has passed."""
        mine = LEADER in self.source.assigned - self._lost
        if mine and not self._beside.busy and not self.pipeline.campaigns.being_read:
            self._beside.begin(self.pipeline.campaign_pass())

    def _take_in(self, prepared: Prepared | None) -> None:
        if prepared is None:
            return
        # It was polled before the batch in front of it stopped these.
        prepared = prepared.without(self._stopped | self._lost)
        batch = prepared.batch
        if len(batch):
            outcome = self.pipeline.take(prepared)
            self.step("processed")
            self._deliver(outcome.alerts)
            self.step("delivered")
            self._reject(batch, outcome.rejects, outcome.partly)
        self._follow(batch)

    def _follow(self, batch: RawBatch) -> None:
        """What this batch had is taken in: a source may be further without a record."""
        self._next.update({p: o for p, o in batch.next_offsets.items() if p in self.source.assigned})
        self._unmute()

    # ------------------------------------------------------------------------------------- what the source tells

    def on_assign(self, partitions: frozenset[int], generation: int) -> None:
        """Take partitions over: state from the last checkpoint, and the offset that it reflects."""
        self.settle()
        telemetry = self.pipeline.observe.telemetry
        telemetry.assigned(partitions)
        self.checkpoints.expect(sorted(partitions), generation)
        for partition in sorted(partitions):
            began = time.monotonic()
            try:
                saved = self._restore(partition, generation)
            except Fenced as error:
                _LOG.warning("partition not taken over", extra=fields(partition=partition, error=str(error)))
                self._give_up(partition)
                continue
            self._lost.discard(partition)
            self.pipeline.campaigns.expect(partition)
            if saved is not None:
                self.source.seek(partition, saved.next_offset)
                self._next[partition] = saved.next_offset
                outcome = "checkpoint"
            else:
                until = self.rewind(self.source, partition)
                if until is not None:
                    self._catching_up[partition] = until
                    self.pipeline.alerts.mute(partition, _FOREVER_MS)
                outcome = "fresh" if until is None else "rewound"
            telemetry.restores.labels(outcome).inc()
            telemetry.restore_seconds.observe(time.monotonic() - began)
            _LOG.info("partition taken over", extra=fields(partition=partition, generation=generation, state=outcome))
        self.pipeline.close_later()
        self._say_lost()

    def on_revoke(self, partitions: frozenset[int]) -> None:
        """Hand partitions over: everything delivered and written before another member reads them."""
        self.settle()
        mine = {p: o for p, o in self._next.items() if p in partitions}
        try:
            self.checkpoint(mine)
        finally:
            self._forget(partitions)
            self.pipeline.observe.telemetry.released(partitions)

    def on_lost(self, partitions: frozenset[int]) -> None:
        """Partitions belong to another member already: nothing may be written."""
        self._ahead.leave_out(partitions)
        if LEADER in partitions:
            self._beside.forget()
        self._forget(partitions)
        self.pipeline.observe.telemetry.released(partitions, lost=True)

    def checkpoint(self, offsets: dict[int, int]) -> None:
        """Flush sinks, save each partition's state with its offset, commit; all of it now. See ``checkpointing``."""
        if offsets:
            # whoever takes over may have no batch for long with which the steps that have ended would close
            self._patiently(self.pipeline.campaigns.publish)
            self._rounds.all_now(offsets, self.source)

    def _flush(self) -> None:
        """Everything that the state reflects is delivered."""
        self._settle_campaigns()
        # Steps that closed since the last turn: the state that is written now has them no more.
        self._patiently(self.pipeline.campaigns.publish_closed)
        self._patiently(self.sink.flush)
        self._patiently(self.dead_letters.flush)

    def _leave(self, partition: int) -> None:
        self._forget({partition})
        self._give_up(partition)

    # --------------------------------------------------------------------------------------------------- inside

    def _restore(self, partition: int, generation: int) -> Checkpoint | None:
        """State of a partition; waits for a store that is away. Raises Fenced where a newer member has it."""
        found: list[Checkpoint | None] = []

        def restore() -> None:
            try:
                found.append(self.checkpoints.restore(partition, generation))
            except Fenced:
                if not self.forgotten(self.source, partition):
                    raise
                # Kafka counts generations from 1 again. Were there a newer member after all, its next write wins.
                _LOG.warning("Kafka has forgotten the group: its fence is lifted", extra=fields(partition=partition))
                self.checkpoints.store.unfence(partition)
                found.append(self.checkpoints.restore(partition, generation))

        self._patiently(restore)
        return found[0]

    def _deliver(self, alerts: Sequence[Alert]) -> None:
        if alerts:
            self._patiently(lambda: self.sink.send(alerts))

    def _give_up(self, partition: int) -> None:
        """A newer member has it: nothing of it is read any more, nor are campaigns worked for it."""
        self._lost.add(partition)
        self.source.pause([partition])
        self._say_lost()

    def _say_lost(self) -> None:
        lost = ", ".join(map(str, sorted(self._lost)))
        self.health.set("partitions", not lost, f"a newer member has written partitions {lost}" if lost else "")

    def _reject(self, batch: RawBatch, rejects: Sequence[Reject], partly: frozenset[tuple[int, int]]) -> None:
        if rejects:
            self._patiently(lambda: self.dead_letters.put(rejects))
            self.pipeline.observe.telemetry.dead_letters.inc(len(rejects))
        bad = [r for r in rejects if (r.partition, r.offset) not in partly] if partly else rejects
        for partition in self.limit.observe(batch, bad):
            self._stopped.add(partition)
            self.source.pause([partition])
            self.pipeline.observe.telemetry.stopped.labels(str(partition)).set(1)
            _LOG.error("partition stopped: too many bad records", extra=fields(partition=partition))
        if self._stopped:
            stopped = ", ".join(map(str, sorted(self._stopped)))
            reason = f"partitions {stopped} are stopped: too many bad records, see `monitor dlq show`"
            self.health.set("records", False, reason)

    def _unmute(self) -> None:
        """Partitions whose state has been made anew up to the committed offset speak again, from where they were."""
        alerts, tick_ms = self.pipeline.alerts, self.pipeline.tick_ms
        for partition, until in list(self._catching_up.items()):
            if self._next.get(partition, 0) >= until:
                said: dict[str, Alert] = {}
                held = alerts.unheard(partition)
                self._patiently(lambda held=held, said=said: said.update(self.said(held)))  # type: ignore[misc]  # mypy can't infer defaults
                alerts.adopt(partition, said)
                del self._catching_up[partition]
                # The tick that is open now has said nothing yet.
                alerts.mute(partition, self.pipeline.ticks.watermarks_ms.get(partition, 0) // tick_ms * tick_ms)

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._next.pop(partition, None)
            self._catching_up.pop(partition, None)
            self._stopped.discard(partition)
            self._quiet.pop(partition, None)
            self._lost.discard(partition)
            self.limit.clear(partition)
            self.checkpoints.forget(partition)

    def _reload_due(self, now: float) -> bool:
        every = self.options.reload_s
        return self.signals.take_reload() or (every > 0 and now - self._last_reload >= every)

    def _reload(self, now: float) -> None:
        self._last_reload = now
        found = self.reloader.poll() if self.reloader is not None else None
        if found is None:
            return
        telemetry = self.pipeline.observe.telemetry
        telemetry.rules_reloaded(found.successful)
        if found.rules is None:
            for problem in found.problems:
                _LOG.error("rules refused, the old ones go on", extra=fields(problem=str(problem)))
            return
        self.pipeline.next_rules = found.rules
        _LOG.info("rules take effect with the next epoch", extra=fields(rules=found.rules.hash))

    def _measure(self, now: float) -> None:
        since = now - self._last_measure
        # what is measured must not change meanwhile: after a pass, if one ends soon
        if since < _MEASURE_S or (not self._beside.idle and since < _MEASURE_AT_LATEST_S):
            return
        self._last_measure = now
        self._settle_campaigns()
        telemetry = self.pipeline.observe.telemetry
        for partition, records in self.source.lag().items():
            telemetry.lag.labels(str(partition)).set(records)
        stalled = self.source.stalled()
        for partition in self.source.assigned:
            telemetry.stalled.labels(str(partition)).set(stalled.get(partition, 0) > 0)
        telemetry.partitions.set(len(self.source.assigned))
        self.pipeline.measure()
        self._patiently(lambda: self.look_around(self))
