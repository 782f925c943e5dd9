"""Dead letters: why a record was rejected and where it lies, never what it said.

The record itself stays in its topic; :func:`dlq_show` reads it there again for a person who may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

from monitor.errors import DependencyDown
from monitor.records import Reject
from monitor.settings import KafkaSettings
from monitor.source.kafka_client import reader
from monitor.source.kafka_sender import Headers

_MS = 5_000


class _Send(Protocol):
    def send(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None: ...

    def flush(self, timeout_s: float = 60.0) -> None: ...


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a dead letter. ``digest`` is keyed, so equal bad records are recognised and none is guessed."""

    schema: str = "dead-letter/v1"
    reason: str
    topic: str
    partition: int
    offset: int
    length: int
    digest: str
    field: str | None = None
    index: int | None = None
    """The item within a message of several events."""


def key_of(topic: str, reject: Reject) -> str:
    """Coordinates of a dead letter: the same reject has the same key, two items of one message have two."""
    place = f"{topic}:{reject.partition}:{reject.offset}"
    return place if reject.index is None else f"{place}:{reject.index}"


class DeadLetters:
    """Writes rejects to a topic of their own, keyed by their coordinates (so a compacted one holds each once)."""

    def __init__(self, sender: _Send, origin_topic: str):
        self.sender = sender
        self.origin_topic = origin_topic
        self.written = 0
        self._unsure: list[tuple[bytes, bytes, list[tuple[str, bytes]]]] = []
        self._lost = False

    def put(self, rejects: Iterable[Reject]) -> None:
        """Hand rejects over; :meth:`flush` before committing their offsets."""
        for r in rejects:
            letter = DeadLetter(
                reason=r.reason,
                topic=self.origin_topic,
                partition=r.partition,
                offset=r.offset,
                length=r.length,
                digest=r.digest,
                field=r.field,
                index=r.index,
            )
            headers = [
                ("dlq.reason", r.reason.encode()),
                ("dlq.topic", self.origin_topic.encode()),
                ("dlq.partition", str(r.partition).encode()),
                ("dlq.offset", str(r.offset).encode()),
                ("dlq.length", str(r.length).encode()),
                ("dlq.digest", r.digest.encode()),
            ]
            key = key_of(self.origin_topic, r).encode()
            message = (key, msgspec.json.encode(letter), headers)
            self.sender.send(*message)
            self._unsure.append(message)
            self.written += 1

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until all are acknowledged; after a SinkBusy the next call sends what may be lost once more."""
        if self._lost:
            for message in self._unsure:
                self.sender.send(*message)
        self._lost = True
        self.sender.flush(timeout_s)
        self._lost = False
        self._unsure.clear()


@dataclass(frozen=True, slots=True)
class Shown:
    """A dead letter with its own coordinates, and the origin's value where it was asked for and is still there."""

    letter: DeadLetter
    at: tuple[int, int]
    timestamp_ms: int
    origin: bytes | None = None
    origin_gone: bool = False


def dlq_show(
    settings: KafkaSettings,
    *,
    limit: int = 50,
    reason: str | None = None,
    partition: int | None = None,
    with_origin: bool = False,
) -> Iterator[Shown]:
    """The newest ``limit`` dead letters (of one reason, of one origin partition), newest first.

    ``with_origin`` reads each record in its topic again: its text, for the eyes of whoever may see the log.
    It is ``origin_gone`` where retention removed it. Raises DependencyDown where no broker answers.
    """
    with reader(settings) as consumer:
        found: list[Shown] = []
        for part in sorted(consumer.partitions_for_topic(settings.dead_letters)):
            for record in _tail(consumer, TopicPartition(settings.dead_letters, part)):
                letter = _letter(record.value)
                if letter is None or (reason and letter.reason != reason):
                    continue
                if partition is None or letter.partition == partition:
                    found.append(Shown(letter, (part, record.offset), record.timestamp))
        found.sort(key=lambda s: (s.timestamp_ms, s.at), reverse=True)
        for shown in found[:limit]:
            yield _with_origin(consumer, shown) if with_origin else shown


def _letter(value: bytes | None) -> DeadLetter | None:
    try:
        return msgspec.json.decode(value or b"", type=DeadLetter)
    except msgspec.MsgspecError:
        return None  # somebody else's record in our topic


def _tail(consumer: Any, tp: Any) -> Iterator[Any]:
    """All records of one partition as of now."""
    try:
        begin = consumer.beginning_offsets([tp], timeout_ms=_MS)[tp]
        end = consumer.end_offsets([tp], timeout_ms=_MS)[tp]
        consumer.assign([tp])
        consumer.seek(tp, begin)
        while (consumer.position(tp, timeout_ms=_MS) or 0) < end:
            polled = consumer.poll(timeout_ms=_MS)
            end = max(end, consumer.highwater(tp) or 0)  # the embedded broker's end offsets are too low
            for records in polled.values():
                yield from records
            if not polled and (consumer.position(tp, timeout_ms=_MS) or 0) < end:
                raise DependencyDown(f"{tp.topic} partition {tp.partition} stopped answering")
    except KafkaError as error:
        raise DependencyDown(f"{tp.topic} cannot be read ({type(error).__name__})") from error


def _with_origin(consumer: Any, shown: Shown) -> Shown:
    letter = shown.letter
    tp = TopicPartition(letter.topic, letter.partition)
    try:
        begin = consumer.beginning_offsets([tp], timeout_ms=_MS)[tp]
        if begin <= letter.offset:
            consumer.assign([tp])
            consumer.seek(tp, letter.offset)
            for records in consumer.poll(timeout_ms=_MS, max_records=1).values():
                if records[0].offset == letter.offset:
                    return Shown(letter, shown.at, shown.timestamp_ms, origin=records[0].value or b"")
    except KafkaError:
        pass  # the origin topic itself may be gone
    return Shown(letter, shown.at, shown.timestamp_ms, origin_gone=True)
