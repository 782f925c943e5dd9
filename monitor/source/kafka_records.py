"""From kafka-python's records to columns, and from times to offsets. Knows coordinates, not content."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from kafka import TopicPartition

from monitor.records import RawBatch
from monitor.settings import KafkaSettings
from monitor.source.kafka_client import reader
from monitor.source.kafka_unpack import Chunk, messages_of, spans_of

_MS = 10_000


def to_batch(polled: Mapping[int, Sequence[Chunk]], moved: Mapping[int, int]) -> RawBatch:
    """Columns from chunks of records: nothing is done record by record but by a kernel."""
    chunks = [chunk for of_partition in polled.values() for chunk in of_partition]
    sizes = [sum(map(len, of_partition)) for of_partition in polled.values()]
    spans = spans_of(chunks)
    return RawBatch(
        values=messages_of(chunks, spans),
        partition=np.repeat(np.array(list(polled), np.int32), sizes),
        offset=np.ascontiguousarray(spans[:, 0]),
        timestamp_ms=np.ascontiguousarray(spans[:, 1]),
        next_offsets=dict(moved),
        trusted_clock=bool(polled) and all(of_partition[0].kind == 1 for of_partition in polled.values()),
    )


def chunked(polled: Mapping[Any, list[Any]]) -> dict[int, list[Chunk]]:
    """What a consumer polled, by partition, in chunks: a library made otherwise has records of its own."""
    return {
        tp.partition: records if isinstance(records[0], Chunk) else [Chunk.of(records)]
        for tp, records in polled.items() if records
    }  # fmt: skip


class EndOffsets:
    """End offsets that can be believed.

    The embedded broker answers with the first offset of the last batch plus one. Once an answer lies before
    what was read already, the high water mark of the last fetch is believed instead; not before, because with
    ``read_committed`` the records of an open transaction lie below it and cannot be read yet.
    """

    def __init__(self) -> None:
        self._wrong = False

    def corrected(self, consumer: Any, found: Mapping[Any, int], positions: Mapping[int, int]) -> dict[int, int]:
        """Partition -> end offset, from the broker's answer and the positions reached."""
        self._wrong = self._wrong or any(positions.get(tp.partition, 0) > end for tp, end in found.items())
        marks = {tp: consumer.highwater(tp) or 0 for tp in found} if self._wrong else {}
        return {tp.partition: max(end, marks.get(tp, 0)) for tp, end in found.items()}


def drop_parked(consumer: Any, partitions: Iterable[Any]) -> None:
    """Forget what the library fetched for these partitions before they were paused; it fetches it again.

    kafka-python 3.0.12 keeps such records aside and takes them back only while it has no other partition in
    hand; but one that it has read to its end stays in its hand. A partition paused alone, while others go on,
    is then neither taken back nor fetched again: it stands still for good, and seeking does not free it.
    """
    parked = getattr(consumer._fetcher, "_paused_partition_records", {})
    for tp in partitions:
        parked.pop(tp, None)


def finish_join(consumer: Any) -> None:
    """Let the next poll complete a rejoin that the one before it began and had no time to wait for.

    kafka-python 3.0.12 leaves such a join running, and takes its answer in only while it still sees a reason to
    rejoin. Was the reason a change of metadata, the join itself removes it (the leader notes the metadata that it
    assigned by): the answer is never taken in, heartbeats stay off and every commit is refused, for good. Of twelve
    members that polled without waiting, five were caught in it.
    """
    coordinator = consumer._coordinator
    if getattr(coordinator, "rejoining", False):
        coordinator.request_rejoin()


def window_starts(
    settings: KafkaSettings, committed: Mapping[int, int], topic: str, window_ms: int
) -> dict[int, tuple[int, int]]:
    """For each partition: the offset ``window_ms`` before the record at its committed offset, and that offset.

    Time is the records' own timestamps; where the committed offset is the end, the record before it counts,
    and where there is none, now does. DependencyDown where no broker answers.
    """
    if not committed:
        return {}
    found: dict[int, tuple[int, int]] = {}
    with reader(settings) as consumer:
        for partition, offset in committed.items():
            tp = TopicPartition(topic, partition)
            begin = consumer.beginning_offsets([tp], timeout_ms=_MS)[tp]
            since = _timestamp_near(consumer, tp, max(begin, offset - 1)) - window_ms
            answer = consumer.offsets_for_times({tp: max(0, since)}, timeout_ms=_MS)[tp]
            found[partition] = (min(offset, answer.offset) if answer is not None else offset, offset)
    return found


def _timestamp_near(helper: Any, tp: Any, offset: int) -> int:
    """Timestamp in ms of the first record at or after ``offset``; now where there is none."""
    helper.assign([tp])
    helper.seek(tp, offset)
    for _ in range(10):
        for records in helper.poll(timeout_ms=500, max_records=1).values():
            return int(records[0].timestamp)
        if helper.position(tp, timeout_ms=500) >= helper.end_offsets([tp], timeout_ms=_MS)[tp]:
            break
    return int(time.time() * 1000)
