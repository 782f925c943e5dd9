"""Batches taken apart by the kernel, against kafka-python's own reading of the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.codec import zstd_decode
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from monitor.source.kafka_unpack import QuickRecords, find_records, messages_of, unzipped, use_quick_records, varint

TP = TopicPartition("t", 3)
bytes_or_none = st.none() | st.binary(max_size=300)
record = st.tuples(
    st.integers(-(2**40), 2**40),
    bytes_or_none,
    bytes_or_none,
    st.lists(st.tuples(st.text(max_size=5), bytes_or_none), max_size=3),
)


def written(records, codec=0, magic=2, first=0):
    """One batch of ``records``: (timestamp, key, value, headers)."""
    builder = MemoryRecordsBuilder(magic, codec, 1 << 20, offset=0)
    for stamp, key, value, headers in records:
        builder.append(stamp if magic == 2 else abs(stamp), key, value, headers if magic == 2 else [])
    builder.close()
    made = bytearray(builder.buffer())
    if magic == 2:
        made[:8] = first.to_bytes(8, "big")
    return bytes(made)


def each(chunks):
    """Offset, timestamp and value of each record; the times of one chunk are of one kind."""
    for chunk in chunks:
        values = messages_of([chunk], chunk.spans)
        for (offset, stamp, _, _), value in zip(chunk.spans.tolist(), values, strict=True):
            yield offset, None if stamp == -1 else stamp, value


def taken(kind, data, sizes=(1000,), fetch_offset=0, **more):
    """What ``kind`` makes of the bytes, in pieces of ``sizes``: records and where it would go on, or the error."""
    reader = kind(fetch_offset, TP, MemoryRecords(data), **more)
    found = []
    try:
        for size in [*sizes, *[1000] * 5]:
            if not reader:
                break
            given = reader.take(size)
            # -1 is Kafka's word for no time, which the library leaves as it is in a record of its own
            found += (
                each(given)
                if kind is QuickRecords
                else [(r.offset, None if r.timestamp == -1 else r.timestamp, r.value) for r in given]
            )
            found.append(reader.next_fetch_offset)
    except CorruptRecordError as error:
        found.append("a header's name" if "UnicodeDecodeError" in str(error) else "corrupt")
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(record, min_size=1, max_size=12), min_size=1, max_size=3), st.integers(0, 4),
       st.lists(st.integers(1, 9), max_size=6), st.integers(0, 40))  # fmt: skip
def test_records_are_those_of_the_library(batches, codec, sizes, fetch_offset):
    data, first = b"", 0
    for records in batches:
        data += written(records, codec, first=first)
        first += len(records)
    expected = taken(Fetcher.PartitionRecords, data, sizes, fetch_offset)
    assert taken(QuickRecords, data, sizes, fetch_offset) == expected


@pytest.mark.parametrize("magic", [0, 1])
def test_old_formats_are_read(magic):
    data = written([(5, b"k", b"v", []), (6, None, None, []), (7, b"k", b"w", [])], magic=magic)
    expected = taken(Fetcher.PartitionRecords, data)
    assert len(expected) > 2
    assert taken(QuickRecords, data) == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(record, min_size=1, max_size=6), st.data())
def test_damaged_batches_are_what_the_library_says_they_are(records, data):
    """Without checksums, which would hide it: no crash, no other record than the library's. Names of headers, which
    nobody here reads, may be anything."""
    made = bytearray(written(records))
    for _ in range(data.draw(st.integers(1, 4))):
        made[data.draw(st.integers(61, len(made) - 1))] = data.draw(st.integers(0, 255))
    expected = taken(Fetcher.PartitionRecords, bytes(made), check_crcs=False)
    assume("a header's name" not in expected)
    assert taken(QuickRecords, bytes(made), check_crcs=False) == expected


def test_a_wrong_checksum_is_corrupt():
    made = bytearray(written([(5, b"k", b"value", [])]))
    made[-3] ^= 1
    assert taken(QuickRecords, bytes(made)) == ["corrupt"]


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_a_varint_is_read_as_it_was_written(number):
    from kafka.record.util import encode_varint

    made = bytearray()
    encode_varint(number, made.append)
    data = np.frombuffer(made, np.uint8)
    assert varint(data, 0) == (number, len(made))
    assert varint(data[:-1], 0)[1] == -1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 5))
def test_no_bytes_make_the_kernel_read_outside(data, count):
    spans = np.empty((count, 4), np.int64)
    if find_records(np.frombuffer(bytearray(data), np.uint8), 0, spans):
        starts, ends = spans[:, 2], spans[:, 3]
        assert ((starts >= 0) & (starts <= len(data)) & (ends <= len(data)) & ((ends == -1) | (ends >= starts))).all()


def test_another_make_of_the_library_is_left_as_it_is():
    class Other:
        class _fetcher:  # noqa: N801  # the library's name
            class PartitionRecords:
                def _unpack_records(self, batches):
                    """Takes something else."""

    before = Other._fetcher.PartitionRecords
    assert not use_quick_records(Other)
    assert Other._fetcher.PartitionRecords is before
    assert not use_quick_records(object())


@pytest.mark.parametrize("said", [True, False], ids=["its size is said", "it is not"])
def test_zstd_frames_of_every_size_are_what_the_library_makes_of_them(said):
    """Room is made by what a frame says of itself or by its length, and grows: also for what shrinks a thousandfold."""
    rng = np.random.default_rng(1)
    for made in (b"", b"a", bytes(3_000_000), rng.bytes(70_000), bytes(100) + rng.bytes(9) * 4_000):
        pack = zstandard.ZstdCompressor(write_content_size=said)
        frame = pack.compress(made)
        assert unzipped(memoryview(frame)).tobytes() == made
        two = memoryview(frame + zstandard.ZstdCompressor().compress(b"more"))
        assert unzipped(two).tobytes() == made + b"more" == zstd_decode(two.tobytes())
        if made:
            lying = bytearray(zstandard.ZstdCompressor().compress(made))
            lying[4] |= 0x80
            for broken in (frame[: len(frame) // 2], frame[:3], bytes(lying)):
                _same(broken)


def _same(broken):
    """What is no whole frame is left to the library, or read as far: records that are not all there are not taken."""
    try:
        made = unzipped(memoryview(broken)).tobytes()
    except zstandard.ZstdError:
        return
    read = zstd_decode(broken)
    least = min(len(made), len(read))
    assert made[:least] == read[:least]
