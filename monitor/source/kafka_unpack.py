"""Record batches of Kafka taken apart by a kernel, in the place of kafka-python's loop over bytes and records.

kafka-python 3.0.12 reads each record's eight numbers byte by byte and makes two objects of it: two thirds of what a
poll costs. Here a kernel finds where the records of a whole batch lie, and each becomes one small tuple. Everything
around it stays the library's: fetching, checksums, decompression, transactions, and the reading of whatever the
kernel does not take (the old formats, a damaged batch: its words for what is wrong are the ones that are raised).
Layout of a batch: Kafka's protocol guide, "Record Batch".
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from kafka.consumer import fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch

from monitor.jit import njit, warmup

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


class Record(NamedTuple):
    """What :func:`monitor.source.kafka_records.to_batch` reads of a record."""

    offset: int
    timestamp: int | None
    """Milliseconds; None in the oldest format."""
    timestamp_type: int | None
    """1 where the broker set it, 0 where the producer did."""
    value: bytes | None


@njit
def varint(data: U8, at: int) -> tuple[int, int]:
    """A zigzag number at ``data[at]`` and the place after it; the place is -1 where it runs out or over 64 bits."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < len(data) and shift < np.uint64(64):
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            half = np.int64(value >> np.uint64(1))
            return int(~half if value & np.uint64(1) else half), at
        shift += np.uint64(7)
    return 0, -1


@njit
def find_records(data: U8, at: int, spans: I64) -> bool:
    """Where the records of a batch lie: ``data[at:]`` holds ``len(spans)`` of them and nothing else, or it is False.

    A row of ``spans`` (n, 4): difference of the offset, difference of the timestamp, start and end of the value (no
    value: the end is -1).
    """
    for i in range(len(spans)):
        length, at = varint(data, at)
        if at < 0 or length < 0 or length > len(data) - at:
            return False
        end = at + length
        if at == end or data[at] > 127:  # attributes: none are in use
            return False
        at += 1
        for j in (1, 0):
            spans[i, j], at = varint(data, at)
            if at < 0:
                return False
        size, at = varint(data, at)  # the key
        if at < 0 or size > end - at:
            return False
        size, at = varint(data, at + max(size, 0))
        if at < 0 or size > end - at:
            return False
        spans[i, 2], spans[i, 3] = at, -1 if size < 0 else at + size
        headers, at = varint(data, at + max(size, 0))
        if at < 0 or headers < 0:
            return False
        for _ in range(headers):
            size, at = varint(data, at)  # its name
            if at < 0 or size < 0 or size > end - at:
                return False
            size, at = varint(data, at + size)
            if at < 0 or size > end - at:
                return False
            at += max(size, 0)
        if at != end:
            return False
    return at == len(data)


def records_of(batch: Any) -> Iterator[Record]:
    """The records of a batch of the library's, which is used up. Raises CorruptRecordError as the library does."""
    if batch.magic < 2:
        for old in batch:
            if not old.validate_crc():
                raise CorruptRecordError(f"record at offset {old.offset} failed its checksum")
            yield Record(old.offset, old.timestamp, old.timestamp_type, old.value)
        return
    batch._maybe_uncompress()
    data, count = bytes(batch._buffer), batch.records_count
    spans = np.empty((max(count, 0), 4), np.int64)
    if not find_records(np.frombuffer(data, np.uint8), batch._pos, spans):
        for record in batch:  # says what is wrong with it
            yield Record(record.offset, record.timestamp, record.timestamp_type, record.value)
        return
    kind = batch.timestamp_type
    spans[:, 0] += batch.base_offset
    if kind == batch.LOG_APPEND_TIME:
        spans[:, 1] = batch.max_timestamp
    else:
        spans[:, 1] += batch.first_timestamp
    for offset, stamp, start, stop in spans.tolist():
        yield Record(offset, stamp, kind, data[start:stop] if stop >= 0 else None)


_Made: Any = getattr(getattr(fetcher, "Fetcher", None), "PartitionRecords", object)
"""The library's class. A library made otherwise must not keep this module from being imported."""
_READ_COMMITTED: Final = 1
"""Of the protocol's two isolation levels."""


class QuickRecords(_Made):  # type: ignore[misc]  # the library has no types
    """What the library's fetcher makes of a fetched partition, with the records of :func:`records_of`."""

    def _unpack_records(
        self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any
    ) -> Iterator[Record]:
        batch = last = None
        while (batch := records.next_batch()) is not None:
            last = batch
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(f"record batch of {tp} at offset {batch.base_offset} failed its checksum")
            if batch.magic == 2:
                self.leader_epoch = batch.leader_epoch
                if self._not_for_us(batch):
                    self.next_fetch_offset = batch.next_offset
                    continue
            self.bytes_read += batch.size_in_bytes
            for record in records_of(batch):
                self.records_read += 1
                self.next_fetch_offset = record.offset + 1
                yield record
        if last is not None and last.magic == 2:  # compaction may have taken the batch's last records
            self.next_fetch_offset = last.next_offset
        self.drain()

    def _not_for_us(self, batch: Any) -> bool:
        """Markers of transactions, and what was aborted where only committed records are wanted."""
        if self.isolation_level == _READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


_ARGUMENTS: Final = ("self", "tp", "records", "key_deserializer", "value_deserializer")
_OF_A_BATCH: Final = ("_buffer", "_pos", "_maybe_uncompress")


def use_quick_records(consumer: Any) -> bool:
    """Let ``consumer`` read by the kernel; False, and nothing changed, where the library is made otherwise."""
    made = getattr(getattr(consumer, "_fetcher", None), "PartitionRecords", None)
    unpack = getattr(made, "_unpack_records", None)
    if unpack is None or tuple(inspect.signature(unpack).parameters) != _ARGUMENTS:
        return False
    if not all(hasattr(DefaultRecordBatch, name) for name in _OF_A_BATCH):
        return False
    consumer._fetcher.PartitionRecords = QuickRecords
    return True


@warmup
def warm_unpack() -> None:
    """Compile the kernels by one record without key, value and headers."""
    data = np.frombuffer(bytes((10, 0, 0, 0, 1, 1, 0)), np.uint8)
    assert not find_records(data, 0, np.empty((1, 4), np.int64))
