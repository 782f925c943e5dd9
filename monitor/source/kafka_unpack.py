"""Record batches of Kafka taken apart by a kernel, in the place of kafka-python's loop over bytes and records.

kafka-python 3.0.12 reads each record's eight numbers byte by byte and makes two objects of it: two thirds of what a
poll costs. Here a kernel finds where the records of a whole batch lie, and they stay together in a chunk. Everything
around it stays the library's: fetching, checksums, decompression, transactions, and the reading of whatever the
kernel does not take (the old formats, a damaged batch: its words for what is wrong are the ones that are raised).
Layout of a batch: Kafka's protocol guide, "Record Batch".
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zstandard
from kafka.consumer import fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch

from monitor.bytewise import copy
from monitor.jit import njit, warmup
from monitor.messages import PADDING, Messages

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_HEADER: Final = 18
"""Most bytes of a zstd frame's header."""
_USUAL: Final = 8
"""Times that JSON grows as zstd is taken off, mostly less: what is not written to is never really there."""
_DENSEST: Final = 1_000
"""Times that a frame may say of itself it grows and be believed."""


class Chunk:
    """Records that lie in one array of bytes: each of ``spans`` (int64 [n, 4]) is a record's offset, its timestamp in
    milliseconds (-1: none), start and end of its value in ``data`` (no value: the end is -1). ``kind`` is 1 where the
    broker set the times."""

    __slots__ = ("data", "kind", "spans")

    def __init__(self, data: U8, spans: I64, kind: int | None):
        self.data, self.spans, self.kind = data, spans, kind

    @classmethod
    def of(cls, records: Sequence[Any]) -> Chunk:
        """Of the library's records, at least one."""
        values = [r.value or b"" for r in records]
        spans = np.empty((len(records), 4), np.int64)
        spans[:, 0] = [r.offset for r in records]
        spans[:, 1] = [-1 if r.timestamp is None else r.timestamp for r in records]
        spans[:, 3] = np.cumsum([len(value) for value in values])
        spans[:, 2] = spans[:, 3] - [len(value) for value in values]
        spans[[r.value is None for r in records], 3] = -1
        return cls(np.frombuffer(bytearray().join(values), np.uint8), spans, records[0].timestamp_type)

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def first(self) -> int:
        """Offset of the first record."""
        return int(self.spans[0, 0])

    @property
    def last(self) -> int:
        """Offset of the last record."""
        return int(self.spans[-1, 0])

    def cut(self, at: int) -> tuple[Chunk, Chunk | None]:
        """The first ``at`` records and the others, None where there are none."""
        if at >= len(self):
            return self, None
        return Chunk(self.data, self.spans[:at], self.kind), Chunk(self.data, self.spans[at:], self.kind)


class Taken:
    """Chunks, with the number of their records as length: the library counts what it hands out."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._records = 0

    def add(self, chunk: Chunk) -> None:
        """One more."""
        self._chunks.append(chunk)
        self._records += len(chunk)

    def __len__(self) -> int:
        return self._records

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._chunks)


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


def spans_of(chunks: Sequence[Chunk]) -> I64:
    """The spans of all records."""
    return np.concatenate([np.empty((0, 4), np.int64), *(chunk.spans for chunk in chunks)])


def messages_of(chunks: Sequence[Chunk], spans: I64) -> Messages:
    """The values of all records, copied into one array when they are read. ``spans``: :func:`spans_of` the chunks."""
    missing = spans[:, 3] < 0
    at = np.zeros(len(spans) + 1, np.int64)
    np.cumsum(np.where(missing, 0, spans[:, 3] - spans[:, 2]), out=at[1:])

    def copied() -> U8:
        data = np.empty(int(at[-1]) + PADDING, np.uint8)
        data[at[-1] :] = 0
        done = 0
        for chunk in chunks:
            copy_values(chunk.data, chunk.spans, at[done : done + len(chunk)], data)
            done += len(chunk)
        return data

    return Messages(copied, at, missing)


@njit
def copy_values(data: U8, spans: I64, at: I64, out: U8) -> None:
    """Each value to its place in ``out``."""
    for i in range(len(spans)):
        start = spans[i, 2]
        copy(data, start, max(spans[i, 3], start), out, at[i])


def _bytes_of(batch: Any) -> tuple[U8, int]:
    """A batch's records as bytes, decompressed, and where they begin."""
    if batch.compression_type == batch.CODEC_ZSTD and not batch._decompressed:
        try:
            return unzipped(memoryview(batch._buffer)[batch._pos :]), 0
        except zstandard.ZstdError:
            pass  # the library's words for it are the ones that are raised
    batch._maybe_uncompress()
    return np.frombuffer(batch._buffer, np.uint8), batch._pos


def unzipped(data: memoryview) -> U8:
    """What zstd frames hold, in memory that is written once: the library puts pieces together and copies the whole,
    for a third of the pages that a backlog touches for the first time. Raises ZstdError."""
    told = zstandard.get_frame_parameters(data[:_HEADER]).content_size
    known = 0 < told < len(data) * _DENSEST  # else it is not said, or no room is made on its word
    room = np.empty(told + 1 if known else len(data) * _USUAL + _HEADER, np.uint8)
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    held = 0
    while more := reader.readinto(room.data[held:]):
        held += more
        if held == len(room):
            room = np.concatenate([room, np.empty_like(room)])
    return room[:held]


def chunks_of(batch: Any) -> Iterator[Chunk]:
    """The records of a batch of the library's, which is used up, in one chunk; none of an empty one.

    Raises CorruptRecordError as the library does, after the records before the bad one were given.
    """
    if batch.magic == 2:
        data, at = _bytes_of(batch)
        spans = np.empty((max(batch.records_count, 0), 4), np.int64)
        if find_records(data, at, spans):
            spans[:, 0] += batch.base_offset
            if batch.timestamp_type == batch.LOG_APPEND_TIME:
                spans[:, 1] = batch.max_timestamp
            else:
                spans[:, 1] += batch.first_timestamp
            if len(spans):
                yield Chunk(data, spans, batch.timestamp_type)
            return
    read: list[Any] = []
    wrong: Exception | None = None
    try:
        for record in batch:  # says what is wrong with it
            if batch.magic < 2 and not record.validate_crc():
                raise CorruptRecordError(f"record at offset {record.offset} failed its checksum")
            read.append(record)
    except Exception as error:  # whatever the library raises comes after what it gave before
        wrong = error
    if read:
        yield Chunk.of(read)
    if wrong is not None:
        raise wrong


_Made: Any = getattr(getattr(fetcher, "Fetcher", None), "PartitionRecords", object)
"""The library's class. A library made otherwise must not keep this module from being imported."""
_READ_COMMITTED: Final = 1
"""Of the protocol's two isolation levels."""


class QuickRecords(_Made):  # type: ignore[misc]  # the library has no types
    """What the library's fetcher makes of a fetched partition, with the chunks of :func:`chunks_of` for records."""

    _rest: Chunk | None = None

    def take(self, n: int | None = None) -> Taken:
        """At most ``n`` records (None: all there are)."""
        self._maybe_raise_next_inline_exception()
        taken = Taken()
        try:
            while n is None or len(taken) < n:
                chunk = self._rest or (next(self.record_iterator, None) if self else None)
                if chunk is None:
                    break
                chunk, self._rest = chunk.cut(len(chunk) if n is None else n - len(taken))
                self.records_read += len(chunk)
                self.next_fetch_offset = chunk.last + 1
                taken.add(chunk)
        except Exception as error:
            if not len(taken):
                raise
            self._next_inline_exception = error  # for the next call, as the library has it
        return taken

    def drain(self) -> None:
        """Nothing more of it is wanted, or there is nothing more."""
        self._rest = None
        super().drain()

    def _maybe_skip_record(self, chunk: Chunk) -> bool:
        return False  # done by _unpack_records, within a chunk

    def _unpack_records(self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any) -> Iterator[Chunk]:
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
            for chunk in chunks_of(batch):
                # a fetch from within a compressed batch brings the whole of it
                wanted = (
                    chunk.cut(int(np.argmax(chunk.spans[:, 0] >= self.fetch_offset)))[1]
                    if chunk.first < self.fetch_offset
                    else chunk
                )
                if wanted is not None and wanted.first >= self.fetch_offset:
                    yield wanted
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
_OF_A_BATCH: Final = ("_buffer", "_pos", "_decompressed", "_maybe_uncompress", "compression_type", "CODEC_ZSTD")


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
    data = np.frombuffer(bytearray((12, 0, 0, 0, 1, 1, 0)), np.uint8)
    spans = np.empty((1, 4), np.int64)
    assert find_records(data, 0, spans), "a record without anything is a record"
    assert list(messages_of([Chunk(data, spans, 0)], spans)) == [None]
