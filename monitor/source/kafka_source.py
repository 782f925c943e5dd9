"""A Kafka topic as a source: one member of a consumer group, offsets committed by hand.

Connects when it is polled, and keeps trying with back-off: a broker that is not there yet is a state to
report, not an error. It knows bytes and coordinates, nothing of what is in a record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    FencedInstanceIdError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RebalanceInProgressError,
    RetriableError,
)

from monitor.errors import DependencyDown, MonitorError
from monitor.records import RawBatch
from monitor.settings import KafkaSettings
from monitor.source.kafka_client import REFUSED, connect, consumer_config, missing_codecs, said_no
from monitor.source.kafka_records import EndOffsets, chunked, drop_parked, finish_join, to_batch, window_starts
from monitor.source.kafka_unpack import use_quick_records
from monitor.source.protocol import Listener
from monitor.source.rebalance import Bridge
from monitor.source.stall import StallWatch

LOOK_EVERY_S = 5.0
"""How often end offsets are asked for (one request a broker): lag, stalls, progress without records."""
BACKOFF_S = (0.5, 15.0)
_COMMIT_MS = 10_000
_ANSWER_MS = 2_000


class KafkaSource:
    """See :class:`monitor.source.protocol.Source`. Not thread-safe, except from the listener's callbacks.

    ``on_state`` is told in words when the connection changes (once a change, not once a try). ``topic`` and
    ``group`` stand in for those of the settings. ``skipped`` counts, by partition, offsets that the topic's
    retention deleted before they were read; ``commits_failed`` those that a rebalance put off; ``away`` says in words,
    since the last look, that a broker which we were connected to does not answer.
    """

    finished = False

    def __init__(
        self,
        settings: KafkaSettings,
        listener: Listener | None = None,
        *,
        topic: str | None = None,
        group: str | None = None,
        on_state: Callable[[str], None] = lambda state: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.settings = settings
        self.topic = topic or settings.topic
        self.group = group or settings.group
        self.skipped: dict[int, int] = {}
        self.commits_failed = 0
        self.away = ""
        self._listener = listener
        self._on_state = on_state
        self._state = ""
        self._clock = clock
        self._consumer: Any = None
        self._bridge = Bridge(self._take, self._give_up, self._lose)
        self._try_at = 0.0
        self._backoff = BACKOFF_S[0]
        self._assigned: set[int] = set()
        self._generation = 0
        self._total = 0
        self._all_paused = self._fenced = False
        self._paused: set[int] = set()
        self._pending: dict[int, int] = {}  # offsets whose commit a rebalance put off
        self._expected: dict[int, int] = {}  # the next offset of each partition, as far as we know
        self._lag: dict[int, int] = {}
        self._look_at = 0.0
        self._watch = StallWatch(settings.stall_s)
        self._ends = EndOffsets()
        for message in missing_codecs():
            on_state(message)

    # ---- reading

    def poll(self, max_records: int, timeout_s: float) -> RawBatch:
        """Up to ``max_records`` records; empty after ``timeout_s``, while paused, and while no broker answers.

        Raises what the listener raised; BadInput where the broker refuses us; MonitorError where another
        process took our ``group_instance_id``.
        """
        end = self._clock() + timeout_s
        if self._consumer is None and not self._connect(end):
            return to_batch({}, {})
        wait_ms = max(0, int((end - self._clock()) * 1000))
        finish_join(self._consumer)
        polled = self._guarded(lambda: self._consumer.poll(timeout_ms=wait_ms, max_records=max_records)) or {}
        if self._pending:
            self._commit_pending()
        by_partition = chunked(polled)
        following = {partition: chunks[-1].last + 1 for partition, chunks in by_partition.items()}
        if self._clock() >= self._look_at:
            following |= self._look()
        first = following | {partition: chunks[0].first for partition, chunks in by_partition.items()}
        for partition, offset in first.items():
            self._notice_gap(partition, offset)
        known = self._expected.keys() | by_partition.keys()  # the rest only learn where they begin
        moved = {p: o for p, o in following.items() if p in known and o != self._expected.get(p)}
        self._expected |= following
        return to_batch(by_partition, moved)

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Call the library; its errors become ours, those that pass by themselves become None."""
        try:
            return call()
        except FencedInstanceIdError as error:
            raise self._fence() from error
        except REFUSED as error:
            raise said_no(error, self.settings) from error
        except KafkaError as error:
            raised, self._bridge.error = self._bridge.error, None
            if raised is not None:
                raise raised from None
            self._say(f"Kafka: {type(error).__name__}; trying again")
            return None

    def _fence(self) -> MonitorError:
        """Another process has our static name, and our partitions with it: nothing of them is ours to write."""
        self._fenced = True
        self._pending.clear()
        return MonitorError(
            f"another process runs with group_instance_id {self.settings.group_instance_id!r}:"
            " give each replica a name of its own (kafka.group_instance_id)"
        )

    def _connect(self, end: float) -> bool:
        if self._clock() < self._try_at:
            time.sleep(max(0.0, min(self._try_at, end) - self._clock()))
            return False
        try:
            consumer = connect(self.settings, KafkaConsumer, **consumer_config(self.settings, self.group))
        except DependencyDown as error:
            self._later(f"{error}; trying again")
            return False
        total = len(consumer.partitions_for_topic(self.topic))
        if not total:
            consumer.close(autocommit=False, timeout_ms=1000)
            self._later(f"topic {self.topic} does not exist: create it (keyed by account_id); looking again")
            return False
        self._bridge.network = consumer._net  # the one private name used: there is no public way to wake its loop
        if not use_quick_records(consumer):
            self._on_state("this kafka-python is made otherwise than 3.0.12: its own loop reads, at half the speed")
        self._consumer, self._total, self._backoff = consumer, total, BACKOFF_S[0]
        consumer.subscribe([self.topic], listener=self._bridge)
        self._say(f"connected; topic {self.topic} has {total} partitions")
        return True

    def _later(self, state: str) -> None:
        self._say(state)
        self._try_at = self._clock() + self._backoff
        self._backoff = min(2 * self._backoff, BACKOFF_S[1])

    def _say(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._on_state(state)

    # ---- looking after ourselves

    def _look(self) -> dict[int, int]:
        """Lag, stalls, and partitions that moved without a record (transaction markers, compaction)."""
        consumer = self._consumer
        self._look_at = self._clock() + LOOK_EVERY_S
        self._total = len(consumer.partitions_for_topic(self.topic)) or self._total
        positions = {p: self._position(p) for p in self._assigned}
        known = {p: o for p, o in positions.items() if o is not None}
        if not known:
            return {}
        try:
            found = consumer.end_offsets([self._tp(p) for p in known], timeout_ms=_ANSWER_MS)
        except KafkaError as error:
            self._gone(error)
            self._say(f"no end offsets from Kafka ({type(error).__name__}): a broker is away; reading goes on")
            return {}
        self.away = ""
        if not self._state.startswith("connected"):
            self._say(f"connected again; topic {self.topic}")
        ends = self._ends.corrected(consumer, found, known)
        self._lag = {p: max(0, ends[p] - o) for p, o in known.items()}
        idle = self._assigned if self._all_paused else self._paused
        for partition in self._watch.observe(self._clock(), known, ends, idle):
            drop_parked(consumer, [self._tp(partition)])
            consumer.seek(self._tp(partition), known[partition])  # drops whatever fetch it waits for
            self._on_state(
                f"partition {partition} stands at offset {known[partition]} of {ends[partition]}: sought anew"
            )
        return known

    def _gone(self, error: KafkaError) -> None:
        self.away = f"a broker of {self.topic} does not answer ({type(error).__name__}): it is tried again"

    def _position(self, partition: int) -> int | None:
        try:
            offset: int | None = self._consumer.position(self._tp(partition), timeout_ms=0)
        except KafkaError:
            return None
        return offset

    def _notice_gap(self, partition: int, first: int) -> None:
        """Offsets that were deleted before they were read. A gap alone says little: compaction makes them too."""
        expected = self._expected.get(partition)
        if expected is None or first <= expected + 1:
            return
        tp = self._tp(partition)
        try:
            begin = self._consumer.beginning_offsets([tp], timeout_ms=_ANSWER_MS)[tp]
        except KafkaError:
            return
        if begin > expected:
            self.skipped[partition] = self.skipped.get(partition, 0) + begin - expected
            self._on_state(
                f"partition {partition}: offsets {expected} to {begin - 1} were deleted by the topic's retention"
                " before they were read: raise retention.ms (it goes by the records' own timestamps) or add replicas"
            )

    # ---- assignment; called on the bridge's thread while poll or close waits

    def _take(self, partitions: frozenset[int]) -> None:
        self._assigned |= partitions
        self._look_at = 0.0
        if self._all_paused:
            self._consumer.pause(*map(self._tp, partitions))
        if self._listener is not None:
            self._listener.on_assign(partitions, self.generation)

    def _give_up(self, partitions: frozenset[int]) -> None:
        if self._fenced:
            self._lose(partitions)
            return
        if self._listener is not None:
            self._listener.on_revoke(partitions)
        if self._pending:
            self._commit_pending()
        self._forget(partitions)

    def _lose(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            self._pending.pop(partition, None)
        if self._listener is not None:
            self._listener.on_lost(partitions)
        self._forget(partitions)

    def _forget(self, partitions: frozenset[int]) -> None:
        self._assigned -= partitions
        self._paused -= partitions
        for partition in partitions:
            for memory in (self._pending, self._expected, self._lag):
                memory.pop(partition, None)
            self._watch.forget(partition)

    # ---- control

    def pause(self, partitions: Iterable[int] | None = None) -> None:
        """Give no records of these partitions (None: of any, also of ones assigned later)."""
        if partitions is None:
            self._all_paused = True
            chosen = set(self._assigned)
        else:
            chosen = set(partitions) & self._assigned
            self._paused |= chosen
        if self._consumer is not None and chosen:
            self._consumer.pause(*map(self._tp, chosen))

    def resume(self, partitions: Iterable[int] | None = None) -> None:
        """Undo :meth:`pause`; ``resume()`` leaves those paused one by one as they are."""
        if partitions is None:
            self._all_paused = False
        else:
            self._paused -= set(partitions)
        chosen = set() if self._all_paused else self._assigned - self._paused
        if self._consumer is not None and chosen:
            drop_parked(self._consumer, map(self._tp, chosen))
            self._consumer.resume(*map(self._tp, chosen))

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit; where a rebalance is in the way the offsets are kept and committed after it.

        Offsets of partitions that are not ours are left out.
        """
        self._pending |= {p: o for p, o in offsets.items() if p in self._assigned}
        if self._consumer is not None and self._pending:
            self._commit_pending()

    def _commit_pending(self) -> None:
        offsets = {self._tp(p): OffsetAndMetadata(o, "", -1) for p, o in self._pending.items()}
        try:
            self._consumer.commit(offsets, timeout_ms=_ANSWER_MS if self.away else _COMMIT_MS)
        except (RebalanceInProgressError, CommitFailedError, KafkaTimeoutError, RetriableError) as error:
            self.commits_failed += 1
            # A commit waits as long as two looks: one that died stayed unknown for half a minute until a look came.
            if isinstance(error, (KafkaTimeoutError, KafkaConnectionError, NodeNotReadyError)):
                self._gone(error)
            return
        except FencedInstanceIdError as error:
            raise self._fence() from error
        except REFUSED as error:
            raise said_no(error, self.settings) from error
        self._pending = {p: o for p, o in self._pending.items() if offsets[self._tp(p)].offset != o}

    def seek(self, partition: int, offset: int) -> None:
        """Go on from this offset. ValueError where the partition is not ours."""
        if partition not in self._assigned:
            raise ValueError(f"partition {partition} of {self.topic} is not assigned to this member")
        drop_parked(self._consumer, [self._tp(partition)])
        self._consumer.seek(self._tp(partition), int(offset))
        self._expected[partition] = int(offset)

    def committed(self, partition: int) -> int | None:
        """The group's committed offset, asked for now; None where it has none."""
        offset = self._consumer.committed(self._tp(partition), timeout_ms=_COMMIT_MS)
        return None if offset is None else int(offset)

    def seek_back(self, partitions: Iterable[int], window_ms: int) -> dict[int, tuple[int, int]]:
        """For offsets without state: seek each partition to ``window_ms`` before its committed offset's record.

        Returns partition -> (where reading begins, the committed offset: mute until there). Partitions
        without a committed offset are left out. The clock is the records' own timestamps.
        """
        known = {p: offset for p in partitions if (offset := self.committed(p)) is not None}
        found = window_starts(self.settings, known, self.topic, window_ms)
        for partition, (start, _) in found.items():
            self.seek(partition, start)
        return found

    def close(self) -> None:
        """Give the partitions up (``on_revoke`` is called, commits are sent) and leave the group."""
        if self._consumer is not None:
            consumer = self._consumer
            self._guarded(lambda: consumer.close(autocommit=False, timeout_ms=_COMMIT_MS))
            self._consumer = None
        self._bridge.close()

    # ---- what we know

    @property
    def connected(self) -> bool:
        """Whether a broker has been reached and the topic exists."""
        return self._consumer is not None

    @property
    def state(self) -> str:
        """The last thing told to ``on_state`` about the connection."""
        return self._state

    @property
    def assigned(self) -> frozenset[int]:
        """Partitions that are ours now."""
        return frozenset(self._assigned)

    @property
    def generation(self) -> int:
        """Kafka's generation of the group plus one (some brokers count from 0); 0 before the first join."""
        if self._consumer is not None:
            self._generation = max(self._generation, self._consumer.group_metadata().generation_id + 1)
        return self._generation

    @property
    def partitions_total(self) -> int:
        """Partitions of the topic, 0 until it has been seen; changes when somebody adds partitions."""
        return self._total

    def caught_up(self) -> bool:
        """Asks the brokers now: whether each of our partitions has been read to its end. False without any."""
        if self._consumer is None or not self._assigned:
            return False
        try:
            ends = self._consumer.end_offsets([self._tp(p) for p in self._assigned], timeout_ms=_ANSWER_MS)
        except KafkaError:
            return False
        positions = {p: o for p in self._assigned if (o := self._position(p)) is not None}
        true = self._ends.corrected(self._consumer, ends, positions)
        return set(positions) == self._assigned and all(positions[p] >= true[p] for p in positions)

    def group_metadata(self) -> Any:
        """kafka-python's group metadata, for offsets inside a transaction."""
        return self._consumer.group_metadata()

    def lag(self) -> dict[int, int]:
        """Records not read yet, as of the last look (every 5 s)."""
        return dict(self._lag)

    def stalled(self) -> dict[int, float]:
        """Partitions that stand still though records wait -> seconds."""
        return self._watch.stalled()

    def _tp(self, partition: int) -> Any:
        return TopicPartition(self.topic, partition)
