"""Campaign steps: blobs of every partition in, alerts on campaigns out. Knows no server; the store is handed in.

Each member publishes the blobs of its own partitions. Who owns partition 0 works the steps, in order, each when every
live partition has passed it: Kafka's assignment is the lease, and its generation the fence. The state is a snapshot of
some hours ago; a restart takes it over and works the steps since then again from the same blobs, which gives the
same alerts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.alerts.campaigns import CampaignAlerts, Judged
from monitor.arrays import Frozen, pack, unpack
from monitor.campaigns import CampaignStage, LinkCollector, StepBlob
from monitor.campaigns.options import Facts, KnownCorpus
from monitor.campaigns.stage import Candidates
from monitor.records import Alert
from monitor.rules import Evaluation, HoldState, RuleSet, changes
from monitor.store.links import KEPT_NOTES, LinkStore, MemoryLinkStore, Packed, bytes_of

KIND, VERSION = "campaigning", 2
LEADER = 0
"""The partition whose owner works the steps."""
RECENT_STEPS = 12
"""Steps whose blobs a member keeps, to hand over again where the store lost its data."""
SNAPSHOT_S = 3_600
"""Event time between two snapshots: what a restart works again, from blobs that the store still has."""


@dataclass(slots=True)
class Campaigns:
    """Collector, stage, rules over campaigns and their alerts. ``partitions``: those whose steps are waited for."""

    collector: LinkCollector
    stage: CampaignStage
    alerts: CampaignAlerts
    step_ms: int
    store: LinkStore = field(default_factory=MemoryLinkStore)
    enabled: bool = True
    leaves_out: bool = False
    """Whether members hear who is suspected, and leave them out of what models learn from."""
    hold: HoldState = field(init=False)
    next_step: int = -1
    taken: dict[int, int] = field(default_factory=dict)
    last: Evaluation | None = None
    judged: tuple[int, int] = (0, 0)
    """Candidates of the last step that judged any, and the groups that they were ranked among."""
    seen: Callable[[int, Candidates | None], None] | None = None
    """Told each step with its candidates, before the rules: whoever wants to keep them."""
    being_read: bool = False
    """Another thread makes a snapshot of what steps change."""
    archive: Callable[[Sequence[StepBlob]], None] | None = None
    """Given the blobs before the store has them."""
    _begin: Callable[[], Future[None]] | None = None
    _closing: Future[None] | None = None
    _unkept: list[StepBlob] = field(default_factory=list)
    """Blobs that the archive was not given yet."""
    _outbox: list[StepBlob | Packed] = field(default_factory=list)
    _marks: dict[int, int] = field(default_factory=dict)
    _told: dict[int, int] = field(default_factory=dict)
    _recent: list[Packed] = field(default_factory=list)
    _own: list[StepBlob] = field(default_factory=list)
    """Of the member that works the steps, its own blobs until they are worked: they need not be read again."""
    _resting: set[int] = field(default_factory=set)
    _said: list[Alert] = field(default_factory=list)
    _noted: frozenset[str] | None = frozenset()
    """Who was suspected when it was last noted; None: whatever was noted is lost."""
    _notes: list[tuple[int, frozenset[str]]] = field(default_factory=list)
    _heard: dict[int, frozenset[str]] = field(default_factory=dict)
    _asked: dict[int, int] = field(default_factory=dict)
    """By partition, of which time it last asked who was suspected."""
    _rules: RuleSet | None = None
    _snapshot: bytes = b""
    _snapped: int = -1

    def __post_init__(self) -> None:
        self.hold = HoldState(self.step_ms / 1000)

    def collect(self, events: pl.DataFrame) -> None:
        """Take closed ticks; :meth:`close` follows."""
        if not self.enabled:
            return
        self.collector.collect(events)
        self._resting -= {int(p) for p in events["partition"].unique()} if len(events) else set()

    def judge(self, read: Sequence[pl.DataFrame]) -> None:
        """Take rows of the ticks just collected of which the classifier has an opinion."""
        if self.enabled:
            for rows in read:
                self.collector.judge(rows)

    def close_later(self, begin: Callable[[], Future[None]]) -> None:
        """``begin`` has the thread of :meth:`collect` call :meth:`close`: whatever else here needs what it changes has
        it done first. Not so :meth:`publish_closed` and :meth:`freeze`, which make do with what has closed before:
        steps that have ended and not closed are part of the state, and close with the next batch."""
        self.settle()
        self._begin = begin

    def begin_close(self) -> None:
        """Have that call made beside what comes next."""
        begin, self._begin = self._begin, None
        if begin is not None:
            self._closing = begin()

    def settle(self) -> None:
        """Wait until what was read has closed its steps. Raises what that raised. For one thread alone."""
        self._wait()
        self.begin_close()
        self._wait()

    def _wait(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.result()

    def close(self, watermarks_ms: Mapping[int, int] | None) -> None:
        """Close the steps that end by each partition's watermark; ``watermarks_ms`` None: the input ended, all do."""
        if not self.enabled:
            return
        closed = self.collector.close(watermarks_ms)
        if self.archive is not None:
            self._unkept += closed
        self._recent = [b for b in self._recent if self._is_recent(b)]
        if self.store.local:
            self._outbox += closed
        else:
            packed = [Packed(b.step, b.partition, b.encode()) for b in closed]
            self._outbox += packed
            self._recent += packed
        self._own = [b for b in self._own if self._is_recent(b) and b.step > self.taken.get(b.partition, -1)]
        if LEADER in self._marks and not self.store.local:
            self._own += closed
        if watermarks_ms is None:
            ends = {blob.partition: blob.step + 1 for blob in closed}
            self._marks.update({p: max(ends.get(p, 0), mark) for p, mark in {**ends, **self._marks}.items()})
            top = max(self._marks.values(), default=0)
            self._marks = dict.fromkeys(self._marks, top)
        else:
            self._marks.update({p: ms // self.step_ms for p, ms in watermarks_ms.items()})

    def _is_recent(self, blob: StepBlob | Packed) -> bool:
        return blob.step >= self._marks.get(blob.partition, 0) - RECENT_STEPS

    def expect(self, partition: int) -> None:
        """A partition was taken over: its steps are waited for from now on, even before its first event."""
        self.settle()
        self._marks.setdefault(partition, 0)
        # it may be behind the others, who have let go of what they have asked for
        self._heard, self._asked = {}, {}

    def rest(self, partition: int) -> None:
        """Nothing more is to be read of a partition for now: no step waits for it until its next event."""
        self._resting.add(partition)

    def republish(self) -> None:
        """The store lost its data: hand over again what it may still need."""
        self.settle()
        self._outbox, self._told, self._noted = list(self._recent), {}, None

    @property
    def behind(self) -> int:
        """Steps that this member's partitions have closed and :meth:`work` has not worked."""
        self._wait()
        return min(self._marks.values(), default=0) - self.next_step if self.next_step >= 0 else 0

    def publish(self) -> None:
        """Hand blobs and marks to the store. May raise what the store raises; nothing is lost then. Beside
        :meth:`work` it does no harm, as other members publish whenever they do: marks say which steps are whole."""
        self.settle()
        self.publish_closed()

    def publish_closed(self) -> None:
        """The same of what has closed so far."""
        self._wait()
        marks = {p: mark for p, mark in self._marks.items() if p not in self._resting}
        if not self._outbox and marks == self._told:
            return
        if self.archive is not None and self._unkept:
            self.archive(self._unkept)
            self._unkept = []
        self.store.put([(b.step, b.partition, b) for b in self._outbox], marks)
        self._outbox.clear()
        for partition in self._told.keys() - marks.keys():
            self.store.idle(partition)
        self._told = marks
        if self.leaves_out:
            self.hear()

    def hear(self) -> None:
        """Read who is suspected of a campaign, as the member that works the steps noted it. May raise as the store."""
        self._heard |= self.store.notes(max(self._heard, default=-1))
        self._heard = {at: self._heard[at] for at in sorted(self._heard)[-KEPT_NOTES:]}

    def suspects(self, by_ms: int, partition: int | None = None) -> tuple[int, Collection[str]] | None:
        """The newest note not later than this event time: its time and the accounts; None where none was heard. The
        same for every partition that asks of this time, if the steps until then are worked.

        ``partition``: who asks, and will ask of no earlier time. What no partition will ask for is let go: a note of
        a campaign of 25,000 accounts takes 2 MB, and each step may make one.
        """
        at = max((at for at in self._heard if at <= by_ms), default=None)
        found = None if at is None else (at, self._heard[at])
        if partition is not None:
            self.settle()
            self._asked[partition] = max(by_ms, self._asked.get(partition, by_ms))
            slowest = min((self._asked.get(p, -1) for p in self._marks), default=-1)
            passed = [at for at in self._heard if at <= slowest]
            for old in sorted(passed)[:-1]:
                del self._heard[old]
        return found

    def work(
        self, rules: RuleSet, facts: Facts, versions: Mapping[str, str] | None = None,
        corpora: Mapping[int, KnownCorpus] | None = None,
    ) -> list[Alert]:  # fmt: skip
        """Every step that is complete, in order: the alerts. For the owner of partition 0. ``corpora``: by bit.

        May raise what the store raises; what was worked until then is returned by the next call.
        """
        if not self.enabled:
            return []
        if rules is not self._rules:
            if self._rules is not None and versions is not None:
                self.alerts.use(rules.policy, rules.rules, versions)
            self._rules = rules
        self.stage.corpora = corpora or {}
        self._tell()
        own = {(b.step, b.partition): b for b in self._own}
        marks = self.store.marks()
        ready = min(marks.values(), default=-1)
        while True:
            waiting = self.store.steps(self.taken, ready)
            if not waiting:
                break
            step = min((s for s in waiting if s >= self.next_step), default=self.next_step)
            if step >= ready:
                break  # blobs of steps that were worked already wait for the next one
            late = [at for s in sorted(waiting) if s <= step for at in waiting[s]]
            blobs = [own[at] for at in late if at in own]
            read = self.store.read([at for at in late if at not in own])
            blobs += [b if isinstance(b, StepBlob) else StepBlob.decode(bytes_of(b)) for b in read]
            self._said += self._one(step, blobs, rules, facts)
            for at_step, partition in late:
                self.taken[partition] = max(self.taken.get(partition, -1), at_step)
            self.next_step = step + 1
            if self.leaves_out:
                self._note((step + 1) * self.step_ms)
        self._tell()
        alerts, self._said = self._said, []
        return alerts

    def _note(self, at_ms: int) -> None:
        now = frozenset(self.alerts.suspects())
        if now != self._noted:
            self._noted = now
            self._notes.append((at_ms, now))

    def _tell(self) -> None:
        while self._notes:
            self.store.note(*self._notes[0])
            self._notes.pop(0)

    def _one(self, step: int, blobs: Sequence[StepBlob], rules: RuleSet, facts: Facts) -> list[Alert]:
        found = self.stage.step(step, sorted(blobs, key=lambda b: (b.step, b.partition)), facts)
        at_ms = (step + 1) * self.step_ms
        if self.seen is not None:
            self.seen(step, found)
        self.last = None
        if found is None:
            return self.alerts.decide((), (), at_ms)
        fired: dict[int, list[str]] = {}
        groups = found.rows["calibration_groups"].max() if len(found.rows) else None
        self.judged = len(found.rows), int(groups) if isinstance(groups, (int, float)) else 0
        if len(found.rows):
            self.last = rules.evaluate(found.rows, self.hold, "campaign", over="campaign")
            for row, rule in self.last.firings.iter_rows():
                fired.setdefault(row, []).append(rule)
        judged = [
            Judged(
                values["subject"], values, fired.get(i, ()), found.findings[values["subject"]],
                partial(changes, rules, values, fired.get(i, ())),
            )
            for i, values in enumerate(found.rows.iter_rows(named=True))
        ]  # fmt: skip
        return self.alerts.decide(judged, found.merged, at_ms, found.whole)

    # ------------------------------------------------------------------------------------- state by partition

    def dump(self, partition: int) -> bytes:
        """The partition's open step; with partition 0 the snapshot of the campaigns too."""
        return self.freeze(partition)()

    def freeze(self, partition: int) -> Frozen:
        """What :meth:`dump` writes, as it is now. Where a new snapshot is due nothing of it is copied: until the blob
        is made, :attr:`being_read` is true and no step may be worked."""
        self._wait()
        opened, mark = self.collector.freeze(partition), self._marks.get(partition, 0)
        due = partition == LEADER and self._snapshot_due()
        self.being_read |= due

        def packed() -> bytes:
            try:
                if due:
                    self._snapshot, self._snapped = self._dump(), self.next_step - 1
            finally:
                self.being_read &= not due
            snapshot = self._snapshot if partition == LEADER else b""
            return pack(KIND, VERSION, _as_arrays(open=opened(), campaigns=snapshot), {"mark": mark})

        return packed

    def load(self, partition: int, blob: bytes | Opened) -> None:
        """Take a partition over. Raises StateUnreadable."""
        self.settle()
        read = blob if isinstance(blob, Opened) else opened(blob)
        self.collector.load(partition, read.tallies)
        self._marks[partition] = read.mark
        if read.campaigns:
            self._load(read.campaigns)

    def drop(self, partition: int) -> None:
        """Forget a partition; its blobs that wait are its next owner's to make again."""
        self.settle()
        self.collector.drop(partition)
        self._unkept = [b for b in self._unkept if b.partition != partition]
        self._outbox = [b for b in self._outbox if b.partition != partition]
        self._recent = [b for b in self._recent if b.partition != partition]
        self._own = [b for b in self._own if b.partition != partition]
        self._resting.discard(partition)
        self._marks.pop(partition, None)
        self._asked.pop(partition, None)
        self._told.pop(partition, None)
        if partition == LEADER:
            self.stage = CampaignStage(self.stage.options)
            self.hold = HoldState(self.step_ms / 1000)
            self.alerts.forget()
            self.judged = (0, 0)
            self._noted, self._notes = None, []
            self.next_step, self.taken, self._snapshot, self._snapped, self._said = -1, {}, b"", -1, []

    def _snapshot_due(self) -> bool:
        """Whether the last is an hour of event time old; not while alerts wait for their sink."""
        old = self._snapped < 0 or (self.next_step - 1 - self._snapped) * self.step_ms >= SNAPSHOT_S * 1000
        return self.next_step >= 0 and old and not self._said

    def _dump(self) -> bytes:
        parts = _as_arrays(stage=self.stage.dump(), alerts=self.alerts.dump(), hold=self.hold.dump(0))
        taken = {str(p): s for p, s in self.taken.items()}
        return pack(KIND, VERSION, parts, {"next_step": self.next_step, "taken": taken})

    def _load(self, blob: bytes) -> None:
        parts, values = unpack(KIND, VERSION, blob)
        self.stage.load(parts.pop("stage").tobytes())
        self.alerts.load(parts["alerts"].tobytes())
        self.hold.load(0, parts["hold"].tobytes())
        self.next_step = values["next_step"]
        self.taken = {int(p): s for p, s in values["taken"].items()}
        self._snapshot, self._snapped = blob, self.next_step - 1


class Opened(NamedTuple):
    """A partition's blob, read: its open step, when the last one closed, the campaigns' snapshot or nothing."""

    tallies: dict[str, pl.DataFrame]
    mark: int
    campaigns: bytes


def opened(blob: bytes) -> Opened:
    """What of taking a blob over needs nothing but the blob. Raises StateUnreadable."""
    parts, values = unpack(KIND, VERSION, blob)
    return Opened(LinkCollector.opened(parts["open"].tobytes()), values["mark"], parts["campaigns"].tobytes())


def _as_arrays(**blobs: bytes) -> dict[str, npt.NDArray[np.uint8]]:
    """Blobs within a blob as arrays of bytes, which are packed as they lie: among the values each was copied twice."""
    return {name: np.frombuffer(blob or bytearray(), np.uint8) for name, blob in blobs.items()}
