"""The Kafka source where things go wrong: no broker, gaps, markers, retention, a stuck partition, a broker killed."""

from __future__ import annotations

import itertools
import json
import threading
import time

import pytest
import servers

from monitor.errors import MonitorError
from monitor.settings import KafkaSettings
from monitor.source.kafka_source import KafkaSource
from monitor.source.partitioner import keyed_by_account

pytestmark = pytest.mark.apache_kafka
_names = itertools.count()


@pytest.fixture
def topic(apache_kafka):
    def make(partitions=1, **configs):
        options = {k.replace("_", "."): str(v) for k, v in configs.items()}
        return servers.create_topic(apache_kafka.bootstrap, f"source-{next(_names)}", partitions, options)

    return make


@pytest.fixture
def open_source(apache_kafka):
    opened = []

    def make(topic, listener=None, states=None, **more):
        more = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500, "fetch_max_wait_ms": 100, **more}
        settings = KafkaSettings(
            **{"brokers": (apache_kafka.bootstrap,), "topic": topic, "group": f"{topic}-{next(_names)}", **more}
        )
        opened.append(KafkaSource(settings, listener, on_state=(states if states is not None else []).append))
        return opened[-1]

    yield make
    for source in opened:
        source.close()


@pytest.fixture
def producer(apache_kafka):
    from kafka import KafkaProducer

    made = KafkaProducer(bootstrap_servers=apache_kafka.bootstrap)
    yield made
    made.close()


def read(source, until, timeout_s=120.0):
    values, following, end = [], {}, time.monotonic() + timeout_s
    while not until(values, following) and time.monotonic() < end:
        batch = source.poll(1000, 0.2)
        values.extend(batch.values)
        following.update(batch.next_offsets)
    return values, following


def end_of(source, partition=0):
    return source._consumer.end_offsets([source._tp(partition)])[source._tp(partition)]


def test_transaction_markers_move_the_next_offset_without_a_record(topic, open_source, apache_kafka):
    from kafka import KafkaProducer

    name = topic()
    producer = KafkaProducer(bootstrap_servers=apache_kafka.bootstrap, transactional_id=name)
    producer.init_transactions()
    for n in range(6):
        producer.begin_transaction()
        producer.send(name, b"%d" % n, partition=0)
        producer.flush()
        producer.abort_transaction() if n % 2 else producer.commit_transaction()
    producer.close()
    source = open_source(name)
    values, following = read(source, lambda v, f: f.get(0) == 12)
    assert values == [b"0", b"2", b"4"], "aborted ones are not given"
    assert following == {0: 12}, "six records and six markers"
    assert source.caught_up()
    source.commit(following)
    assert source._consumer.committed(source._tp(0)) == 12


@pytest.mark.slow
def test_compaction_gaps_are_no_loss(topic, open_source, producer):
    name = topic(cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01, min_compaction_lag_ms=0)
    for n in range(300):
        producer.send(name, b"%d" % n, key=b"%d" % (n % 3), partition=0)
        if n % 100 == 99:
            producer.flush()
            time.sleep(0.3)
    producer.flush()
    end = time.monotonic() + 240
    while time.monotonic() < end:
        producer.send(name, b"last", key=b"last", partition=0).get(10)  # rolls the segment that the others are in
        source = open_source(name)
        values, following = read(source, lambda v, f: b"last" in v)
        if len(values) < 250:
            break
        time.sleep(1)
    assert len(values) < 250, "compaction has removed something"
    assert following[0] == end_of(source)
    assert source.skipped == {}, "a compacted gap is not loss"


def test_what_retention_deleted_before_it_was_read_is_counted_and_said(topic, open_source, producer, apache_kafka):
    from kafka import TopicPartition

    name, states = topic(), []
    for n in range(100):
        producer.send(name, b"%d" % n, partition=0)
    producer.flush()
    source = open_source(name, states=states)
    read(source, lambda v, f: v)
    source.seek(0, 10)
    with servers.admin(apache_kafka.bootstrap) as client:
        client.delete_records({TopicPartition(name, 0): 60})
    values, _ = read(source, lambda v, f: len(v) >= 40)
    assert values[0] == b"60"
    assert source.skipped == {0: 50}
    assert any("offsets 10 to 59 were deleted" in s for s in states)


def test_a_partition_that_stands_still_is_reported_and_freed(topic, open_source, producer):
    name, states = topic(2), []
    source = open_source(name, states=states, stall_s=1.0)
    read(source, lambda v, f: source.assigned)
    source._consumer.pause(source._tp(1))  # behind the source's back: the library forgets to fetch it
    for p in (0, 1):
        producer.send(name, b"x", partition=p)
    producer.flush()
    end = time.monotonic() + 240
    while not source.stalled() and time.monotonic() < end:
        source.poll(100, 0.1)
        source._look_at = 0.0
    assert list(source.stalled()) == [1]
    assert any("partition 1 stands at offset 0 of 1" in s for s in states)
    assert source.lag() == {0: 0, 1: 1}
    source.resume([1])
    assert read(source, lambda v, f: v)[0] == [b"x"]


def test_a_stuck_fetch_buffer_is_freed_by_the_watchdog(topic, open_source, producer):
    """kafka-python 3.0.12 loses a partition that was paused alone while others were read to their end."""
    name, states = topic(2), []
    for p in (0, 1):
        for n in range(500):
            producer.send(name, b"%d" % n, partition=p)
    producer.flush()
    source = open_source(name, states=states, stall_s=1.0)
    first = source.poll(1, 20.0)
    assert len(first) == 1
    (stuck,) = first.next_offsets
    source._consumer.pause(source._tp(stuck))
    others, _ = read(source, lambda v, f: len(v) == 500)
    assert len(others) == 500
    source._consumer.resume(source._tp(stuck))  # the library's own resume, which does not bring it back

    def freed(values, following):
        source._look_at = 0.0
        return len(values) == 499

    values, _ = read(source, freed)
    assert len(values) == 499
    assert any(f"partition {stuck} stands at offset 1 of 500" in s for s in states)


def test_a_rejoin_that_a_short_poll_left_running_is_completed(topic, open_source, producer):
    """kafka-python 3.0.12 forgets it where metadata was the reason: no heartbeat, no commit, until a restart."""
    name = topic(1)
    source = open_source(name)
    read(source, lambda v, f: source.assigned)
    coordinator = source._consumer._coordinator
    read(source, lambda v, f: coordinator._metadata_snapshot)
    before, coordinator._assignment_snapshot = source.generation, {}  # as if the metadata had changed since the join
    source.poll(100, 0.0)
    end = time.monotonic() + 240
    while coordinator._generation.generation_id == before and time.monotonic() < end:
        time.sleep(0.02)
    assert coordinator.rejoining, "the join was answered, and nobody has taken the answer in"
    producer.send(name, b"x", partition=0)
    producer.flush()
    assert read(source, lambda v, f: v)[0] == [b"x"]
    source.commit({0: 1})
    assert source.committed(0) == 1
    assert source.commits_failed == 0


def test_no_broker_at_start_is_said_once_and_then_it_connects():
    (port,) = servers.free_ports(1)
    states = []
    settings = KafkaSettings(brokers=(f"127.0.0.1:{port}",), topic="late", group="late", fetch_max_wait_ms=100)
    source = KafkaSource(settings, on_state=states.append)
    threads = threading.active_count()
    for _ in range(8):
        assert not len(source.poll(10, 0.3))
    assert not source.connected
    assert source.partitions_total == 0
    assert len(states) == 1
    assert "no Kafka broker accepts connections" in states[0]
    assert threading.active_count() <= threads, "no I/O thread is left behind by a failed try"
    source.close()


def test_a_missing_topic_is_said_once_and_found_when_it_appears(open_source, apache_kafka):
    name, states = f"later-{next(_names)}", []
    source = open_source(name, states=states)
    for _ in range(3):
        source.poll(10, 0.5)
    assert [s for s in states if "does not exist" in s] == states
    assert len(states) == 1
    servers.create_topic(apache_kafka.bootstrap, name, 3)
    read(source, lambda v, f: source.assigned)
    assert source.partitions_total == 3
    assert "connected" in states[-1]


def test_added_partitions_are_seen(topic, open_source, apache_kafka):
    name = topic(2)
    source = open_source(name)
    read(source, lambda v, f: source.assigned)
    with servers.admin(apache_kafka.bootstrap) as client:
        client.create_partitions({name: 5})
    source._consumer._cluster.request_update()
    end = time.monotonic() + 240
    while source.partitions_total != 5 and time.monotonic() < end:
        source.poll(10, 0.2)
        source._look_at = 0.0
    assert source.partitions_total == 5


def test_two_processes_with_one_static_name_are_told_so(topic, open_source):
    name = topic(2)

    class Calls:
        def __init__(self):
            self.calls = []

        def on_assign(self, partitions, generation):
            self.calls.append("assign")

        def on_revoke(self, partitions):
            self.calls.append("revoke")

        def on_lost(self, partitions):
            self.calls.append("lost")

    listener = Calls()
    first = open_source(name, listener, group="same", group_instance_id="replica-1")
    read(first, lambda v, f: first.assigned)
    second = open_source(name, group="same", group_instance_id="replica-1")
    read(second, lambda v, f: second.assigned)  # the newcomer wins, as Kafka has it
    with pytest.raises(MonitorError, match="another process"):
        first.commit(dict.fromkeys(range(2), 0))
    second.commit(dict.fromkeys(range(2), 0))
    first.close()
    assert listener.calls == ["assign", "lost"], "what another process owns is not checkpointed on the way out"


def test_offsets_without_state_go_back_one_window_by_the_records_own_clock(topic, open_source, producer):
    name = topic(2)
    for n in range(200):
        producer.send(name, b"%d" % n, partition=0, timestamp_ms=1_600_000_000_000 + n * 1000)
    producer.flush()
    group = f"{name}-cold"
    source = open_source(name, group=group)
    read(source, lambda v, f: len(v) == 200)
    source.commit({0: 150, 1: 0})
    source.close()

    class Cold:
        def on_assign(self, partitions, generation):
            self.found = again.seek_back(partitions, 30_000)

        def on_revoke(self, partitions): ...

        def on_lost(self, partitions): ...

    listener = Cold()
    again = open_source(name, listener, group=group)
    values, _ = read(again, lambda v, f: len(v) >= 81)
    assert listener.found[0] == (119, 150)
    assert values[0] == b"119"


def test_a_topic_keyed_by_something_else_is_recognised(topic, open_source, producer):
    for key in ("account_id", "request_id"):
        name = topic(6)
        for n in range(2000):
            record = {"account_id": f"acc-{n % 300}", "request_id": f"req-{n}"}
            producer.send(name, json.dumps(record).encode(), key=record[key].encode())
        producer.flush()
        source, answers = open_source(name), []
        while not answers or answers[-1] is None:
            batch = source.poll(2000, 1.0)
            ids = [json.loads(v)["account_id"] for v in batch.values]
            answers.append(keyed_by_account(batch.partition, ids, source.partitions_total))
        assert answers[-1] is (key == "account_id")


@pytest.mark.slow
def test_three_brokers_one_killed_nothing_lost(apache_kafka):
    from kafka import KafkaProducer

    with servers.ApacheKafka(brokers=3) as cluster:
        name = servers.create_topic(cluster.bootstrap, "three", 6)
        settings = KafkaSettings(
            brokers=tuple(cluster.bootstrap.split(",")), topic=name, group="three", fetch_max_wait_ms=100,
            session_timeout_ms=6000, heartbeat_interval_ms=500,
        )  # fmt: skip
        states = []
        source = KafkaSource(settings, on_state=states.append)
        producer = KafkaProducer(bootstrap_servers=cluster.bootstrap.split(","), acks="all", linger_ms=5)
        values = []
        for n in range(6000):
            producer.send(name, b"%d" % n, partition=n % 6)
            if n == 3000:
                cluster.kill(2)
            if n % 200 == 0:
                values += source.poll(1000, 0.05).values
        producer.flush()
        values += read(source, lambda v, f: len(values) + len(v) >= 6000)[0]
        assert sorted(map(int, values)) == list(range(6000))
        source.commit(dict.fromkeys(range(6), 1000))
        producer.close()
        read(source, lambda v, f: not source.away)
        for node in (1, 3):
            cluster.kill(node)
        read(source, lambda v, f: source.away)
        assert "does not answer" in source.away, "readiness falls where no broker is left"
        source.close()
