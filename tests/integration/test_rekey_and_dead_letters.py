"""Rekeying a topic and reading dead letters again, against a real broker."""

from __future__ import annotations

import hashlib
import itertools
import json

import pytest
import servers

from monitor.errors import BadInput, DependencyDown, SinkBusy
from monitor.records import Reject
from monitor.settings import KafkaSettings
from monitor.source.dead_letters import DeadLetters, dlq_show
from monitor.source.kafka_sender import KafkaSender
from monitor.source.kafka_source import KafkaSource
from monitor.source.partitioner import partition_of
from monitor.source.rekey import rekey

pytestmark = pytest.mark.kafka
_names = itertools.count()
CANARY = "the-canary-sings"


def digest(value):
    return hashlib.blake2b(value, key=b"test", digest_size=16).hexdigest()


@pytest.fixture
def world(kafka_broker):
    """An unkeyed topic of 600 records, 30 of them broken, and settings for it."""
    from kafka import KafkaProducer

    name = f"rekey-{next(_names)}"
    servers.create_topic(kafka_broker, name, 3)
    servers.create_topic(kafka_broker, f"{name}.dlq", 1)
    servers.create_topic(kafka_broker, f"{name}.out", 5)
    sent = []
    producer = KafkaProducer(bootstrap_servers=kafka_broker, linger_ms=5)
    for n in range(600):
        record = {"ts": 1_700_000_000 + n, "account_id": f"acc-{n % 40}", "org_id": f"org-{n % 7}", "prompt": CANARY}
        value = json.dumps(record).encode()
        if n % 20 == 7:
            value = value[:-5] + b"!"
        sent.append(value)
        producer.send(name, value, key=b"req-%d" % n)
    producer.flush()
    producer.close()
    settings = KafkaSettings(
        brokers=(kafka_broker,), topic=f"{name}.out", dlq_topic=f"{name}.dlq", group=name, session_timeout_ms=6000,
        heartbeat_interval_ms=500, max_poll_interval_ms=10_000, fetch_max_wait_ms=100,
    )  # fmt: skip
    return name, settings, sent


def everything(settings, topic):
    source = KafkaSource(settings, topic=topic, group=f"check-{next(_names)}")
    rows = []
    while not (source.assigned and source.caught_up()):
        batch = source.poll(1000, 0.5)
        rows.extend(zip(batch.values, batch.partition.tolist(), batch.timestamp_ms.tolist(), strict=True))
    source.close()
    return rows


@pytest.mark.parametrize("field", ["account_id", "org_id"])
def test_each_record_lands_in_the_partition_of_its_key_at_its_event_time(world, field):
    name, settings, sent = world
    result = rekey(settings, name, f"{name}.out", field=field, once=True)
    assert (result.read, result.written, result.unkeyed, result.rejected) == (600, 600, 30, 0)
    rows = everything(settings, f"{name}.out")
    assert sorted(v for v, _, _ in rows) == sorted(sent), "byte for byte, broken ones too"
    for value, partition, stamp in rows:
        if not value.endswith(b"!"):
            record = json.loads(value)
            assert partition == partition_of(record[field].encode(), 5)
            assert stamp == record["ts"] * 1000
    again = rekey(settings, name, f"{name}.out", field=field, once=True)
    assert again.read == 0, "the group's offsets were committed"


def test_with_a_sketch_no_text_leaves_and_what_has_no_sketch_is_a_dead_letter(world):
    name, settings, sent = world

    def sketch_one(value):
        try:
            record = json.loads(value)
        except ValueError:
            return None
        return json.dumps({**record, "prompt": None, "sketch": {"v": 1, "n": len(record["prompt"])}}).encode()

    def sketch(values):
        return [sketch_one(v) for v in values]

    result = rekey(settings, name, f"{name}.out", sketch=sketch, digest=digest, once=True)
    assert (result.read, result.written, result.rejected) == (600, 570, 30)
    rows = everything(settings, f"{name}.out")
    assert len(rows) == 570
    assert not any(CANARY.encode() in v for v, _, _ in rows)
    letters = everything(settings, f"{name}.dlq")
    assert len(letters) == 30
    assert not any(CANARY.encode() in v for v, _, _ in letters)

    shown = list(dlq_show(settings, limit=1000, with_origin=True))
    assert len(shown) == 30
    assert sorted(s.origin for s in shown) == sorted(v for v in sent if v.endswith(b"!")), "read again at its origin"
    assert all(s.letter.digest == digest(s.origin) and s.letter.length == len(s.origin) for s in shown)
    assert {s.letter.reason for s in shown} == {"not_json"}
    assert all(s.origin is None for s in dlq_show(settings))


@pytest.mark.apache_kafka
def test_in_transactions_each_record_is_written_once_and_aborted_ones_are_not_seen(world, apache_kafka):
    name, settings, sent = world
    batches = []

    def sketch(values):
        batches.append(len(values))
        out = list(values)
        if len(batches) == 3:
            out[len(out) // 2] = None  # in the middle: others of this batch are sent by then
        return out

    def crash(value):
        raise MemoryError("between sending and committing")

    options = {"sketch": sketch, "once": True, "transactional_id": f"{name}-tx", "batch_records": 100}
    with pytest.raises(MemoryError):
        rekey(settings, name, f"{name}.out", digest=crash, **options)
    rekey(settings, name, f"{name}.out", digest=digest, **options)
    assert sorted(v for v, _, _ in everything(settings, f"{name}.out")) == sorted(sent)


def test_it_stops_when_told(world):
    name, settings, _ = world
    result = rekey(settings, name, f"{name}.out", stop=lambda: True)
    assert result.read == 0


def test_the_target_must_be_another_topic_and_a_sketch_needs_a_digest(world):
    name, settings, _ = world
    with pytest.raises(BadInput, match="another topic"):
        rekey(settings, name, name)
    with pytest.raises(ValueError, match="digest"):
        rekey(settings, name, "x", sketch=bytes)


def test_dead_letters_are_filtered_newest_first_and_say_when_the_origin_is_gone(world):
    name, settings, _ = world
    with KafkaSender(settings, settings.dead_letters) as sender:
        sender.send(b"k", b"not ours")
        letters = DeadLetters(sender, name)
        letters.put([Reject(1, n, "bad_time" if n % 2 else "oversize", 10, f"{n:032x}", "ts") for n in range(10)])
        letters.put([Reject(0, 10**9, "not_json", 3, "0" * 32)])
        letters.flush()
        assert letters.written == 11
    assert len(list(dlq_show(settings))) == 11, "a stranger's record is left out"
    assert [s.letter.offset for s in dlq_show(settings, reason="bad_time", limit=2)] == [9, 7]
    assert {s.letter.partition for s in dlq_show(settings, partition=1)} == {1}
    (gone,) = dlq_show(settings, partition=0, with_origin=True)
    assert gone.origin_gone
    assert gone.origin is None


@pytest.mark.apache_kafka
@pytest.mark.slow
def test_a_sender_to_a_topic_that_is_not_there_says_so(apache_kafka):
    settings = KafkaSettings(brokers=(apache_kafka.bootstrap,))
    with KafkaSender(settings, "nowhere") as sender, pytest.raises(SinkBusy, match="nowhere"):
        sender.send(b"k", b"v")


def test_a_sender_without_a_broker_says_so():
    (port,) = servers.free_ports(1)
    with pytest.raises(DependencyDown, match="no Kafka broker accepts connections"):
        KafkaSender(KafkaSettings(brokers=(f"127.0.0.1:{port}",)), "t")
