"""What every source promises, run against files, a spool and a Kafka topic that hold the same records."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import servers

from monitor.records import RawBatch
from monitor.source.files import FileSource
from monitor.source.partitioner import partition_of

PARTITIONS = 4
RECORDS = [
    json.dumps({"ts": 1_700_000_000 + n, "account_id": f"acc-{n % 37}", "request_id": f"r{n}"}).encode()
    for n in range(1500)
]
_names = itertools.count()


class Recorder:
    """Keeps the calls, and checks that the source may be used from within them."""

    def __init__(self):
        self.calls = []
        self.source = None

    def on_assign(self, partitions, generation):
        self.calls.append(("assign", partitions, generation))
        assert partitions <= self.source.assigned
        assert generation == self.source.generation >= 1

    def on_revoke(self, partitions):
        self.calls.append(("revoke", partitions))
        self.source.commit(dict.fromkeys(partitions, 0))

    def on_lost(self, partitions):
        self.calls.append(("lost", partitions))


class FilesUnderTest:
    def __init__(self, tmp_path):
        self.path = tmp_path / "log.ndjson"
        self.path.write_bytes(b"\n".join(RECORDS))

    def open(self, listener=None):
        return FileSource([self.path], PARTITIONS, listener=listener)


class SpoolUnderTest:
    """Segments of 2 KB, so that reading goes over many."""

    def __init__(self, tmp_path):
        from monitor.source.spool import Row, SpoolWriter

        self.path = tmp_path / "spool"
        writer = SpoolWriter(self.path, PARTITIONS, 1 << 20, segment_bytes=2_048)
        for start in range(0, len(RECORDS), 50):
            part = RECORDS[start : start + 50]
            writer.append([Row(json.loads(value)["account_id"], 1_700_000_000_000, value) for value in part])
        writer.close()

    def open(self, listener=None):
        from monitor.source.spool_source import SpoolSource

        return SpoolSource(self.path, PARTITIONS, listener)


class KafkaUnderTest:
    def __init__(self, bootstrap):
        from kafka import KafkaProducer

        self.bootstrap = bootstrap
        self.topic = servers.create_topic(bootstrap, f"contract-{next(_names)}", PARTITIONS)
        producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
        for value in RECORDS:
            producer.send(self.topic, value, key=json.loads(value)["account_id"].encode())
        producer.flush()
        producer.close()

    def open(self, listener=None):
        from monitor.settings import KafkaSettings
        from monitor.source.kafka_source import KafkaSource

        settings = KafkaSettings(
            brokers=(self.bootstrap,),
            topic=self.topic,
            group=f"{self.topic}-{next(_names)}",
            session_timeout_ms=30_000,  # nobody dies here, and with 6 s one that a busy machine held up joined anew
            heartbeat_interval_ms=500,
            max_poll_interval_ms=60_000,
            fetch_max_wait_ms=100,
        )
        return KafkaSource(settings, listener)


@pytest.fixture(params=["files", "spool", pytest.param("kafka", marks=pytest.mark.kafka)])
def under_test(request, tmp_path):
    if request.param == "files":
        return FilesUnderTest(tmp_path)
    if request.param == "spool":
        return SpoolUnderTest(tmp_path)
    return KafkaUnderTest(request.getfixturevalue("kafka_broker"))


@pytest.fixture
def opened(under_test):
    listener = Recorder()
    source = under_test.open(listener)
    listener.source = source
    yield source, listener
    source.close()


def read(source, count, size=400):
    """Polls until ``count`` records have come; the rows, and where each partition goes on."""
    rows, following = [], {}
    for _ in range(100):
        batch = source.poll(size, 1.0)
        assert isinstance(batch, RawBatch)
        assert len(batch) <= size
        assert len(batch.partition) == len(batch.offset) == len(batch.timestamp_ms) == len(batch)
        assert batch.partition.dtype == np.int32
        assert batch.offset.dtype == batch.timestamp_ms.dtype == np.int64
        rows.extend(zip(batch.partition.tolist(), batch.offset.tolist(), batch.values, strict=True))
        following.update(batch.next_offsets)
        if len(rows) >= count:
            break
    return rows, following


def test_each_record_once_in_order_in_its_accounts_partition(opened):
    source, _ = opened
    rows, following = read(source, len(RECORDS))
    assert sorted(v for _, _, v in rows) == sorted(RECORDS)
    for p in range(PARTITIONS):
        assert [o for q, o, _ in rows if q == p] == list(range(following[p]))
    assert all(partition_of(json.loads(v)["account_id"].encode(), PARTITIONS) == p for p, _, v in rows)
    assert sum(following.values()) == len(RECORDS)


def test_both_sources_give_the_same_partitions_and_offsets(opened, tmp_path):
    rows, _ = read(opened[0], len(RECORDS))
    reference, _ = read(FilesUnderTest(tmp_path).open(), len(RECORDS))
    assert sorted(rows) == sorted(reference)


def test_the_listener_learns_of_assignment_before_the_first_record_and_of_the_end(opened):
    source, listener = opened
    rows, _ = read(source, 1)
    assert rows
    assert listener.calls[0][0] == "assign"
    assert listener.calls[0][1] == frozenset(range(PARTITIONS)) == source.assigned
    # A group may form anew at any time, with nobody's partitions changed: the source then knows of a later generation.
    assert 1 <= listener.calls[0][2] <= source.generation
    assert source.partitions_total == PARTITIONS
    source.close()
    assert listener.calls[-1] == ("revoke", frozenset(range(PARTITIONS)))
    assert not source.assigned


def test_paused_it_gives_nothing_and_loses_nothing(opened):
    source, _ = opened
    rows, _ = read(source, 100, size=100)
    source.pause()
    assert [len(source.poll(500, 0.3)) for _ in range(3)] == [0, 0, 0]
    source.resume()
    more, _ = read(source, len(RECORDS) - len(rows))
    assert sorted(v for _, _, v in rows + more) == sorted(RECORDS)


def test_one_partition_paused_the_others_go_on_and_it_catches_up(opened):
    source, _ = opened
    first, _ = read(source, 1, size=1)
    stopped = first[0][0]
    source.pause([stopped])
    expected = sum(partition_of(json.loads(v)["account_id"].encode(), PARTITIONS) != stopped for v in RECORDS)
    others, _ = read(source, expected)
    assert {p for p, _, _ in others} == set(range(PARTITIONS)) - {stopped}
    assert len(others) == expected
    assert not len(source.poll(100, 0.3))
    source.resume([stopped])
    rest, _ = read(source, len(RECORDS) - len(others) - 1)
    assert sorted(v for _, _, v in first + others + rest) == sorted(RECORDS)


def test_seek_back_and_forth(opened):
    source, _ = opened
    rows, following = read(source, len(RECORDS))
    source.seek(1, 5)
    again, _ = read(source, following[1] - 5)
    assert again == [row for row in rows if row[0] == 1][5:]
    source.seek(2, following[2] - 1)
    assert read(source, 1)[0] == [row for row in rows if row[0] == 2][-1:]
    with pytest.raises(ValueError, match="partition"):
        source.seek(PARTITIONS, 0)


def test_seeking_in_on_assign_decides_where_reading_begins(under_test):
    class Restoring(Recorder):
        def on_assign(self, partitions, generation):
            super().on_assign(partitions, generation)
            for p in partitions:
                self.source.seek(p, 10)

    listener = Restoring()
    listener.source = source = under_test.open(listener)
    try:
        rows, _ = read(source, len(RECORDS) - 10 * PARTITIONS)
        assert min(o for _, o, _ in rows) == 10
        assert len(rows) == len(RECORDS) - 10 * PARTITIONS
    finally:
        source.close()


def test_what_the_listener_raises_comes_out_of_poll(under_test):
    class Failing(Recorder):
        def on_assign(self, partitions, generation):
            raise LookupError("no checkpoint store")

    listener = Failing()
    listener.source = source = under_test.open(listener)
    try:
        with pytest.raises(LookupError, match="no checkpoint store"):
            read(source, 1)
    finally:
        source.close()


def test_close_twice_and_poll_sizes_of_one(opened):
    source, _ = opened
    assert len(read(source, 3, size=1)[0]) == 3
    assert source.stalled() == {}
    source.close()
    source.close()
