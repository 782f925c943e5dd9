"""A topic of another log format: rekeyed event by event, or decoded as it is, with every item accounted for."""

from __future__ import annotations

import hashlib
import itertools
import json

import foreign
import pytest
import servers
from otlp_protobuf import as_protobuf
from processes import Process, wait

from monitor import wiring
from monitor.decode import DecodeOptions, expander
from monitor.errors import SinkBusy
from monitor.ingest import Intake, KafkaTarget
from monitor.settings import KafkaSettings, Settings
from monitor.sketch import Keyring, Sketcher
from monitor.sketch.lines import sketch_json_lines
from monitor.source.dead_letters import DeadLetters, dlq_show
from monitor.source.kafka_sender import KafkaSender, LazySender
from monitor.source.kafka_source import KafkaSource
from monitor.source.partitioner import partition_of
from monitor.source.rekey import rekey

pytestmark = pytest.mark.kafka
_names = itertools.count()


def digest(value: bytes) -> str:
    return hashlib.blake2b(value, key=b"test", digest_size=16).hexdigest()


def incomplete() -> bytes:
    """A trace whose second span has no account."""
    trace = json.loads(foreign.lines("otlp")[0])
    span = trace["resourceSpans"][0]["scopeSpans"][0]["spans"][1]
    span["attributes"] = [a for a in span["attributes"] if a["key"] != "user.id"]
    return as_protobuf(json.dumps(trace).encode())


@pytest.fixture
def topic(kafka_broker):
    """Collector's protobuf on one partition: three good messages, one with a bad span, garbage."""
    from kafka import KafkaProducer

    name = f"otlp-{next(_names)}"
    for suffix, partitions in (("", 1), (".dlq", 1), (".out", 4)):
        servers.create_topic(kafka_broker, name + suffix, partitions)
    sent = [*(as_protobuf(line) for line in foreign.lines("otlp")), incomplete(), b"\x0a\xff\xff"]
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for value in sent:
        producer.send(name, value)
    producer.flush()
    producer.close()
    settings = KafkaSettings(
        brokers=(kafka_broker,), topic=name, dlq_topic=f"{name}.dlq", group=name, session_timeout_ms=6000,
        heartbeat_interval_ms=500, max_poll_interval_ms=10_000, fetch_max_wait_ms=100,
    )  # fmt: skip
    return name, settings, sent


def records(settings, name):
    source = KafkaSource(settings, topic=name, group=f"check-{next(_names)}")
    rows = []
    while not (source.assigned and source.caught_up()):
        batch = source.poll(1000, 0.5)
        rows += zip(batch.values, batch.partition.tolist(), batch.timestamp_ms.tolist(), strict=True)
    source.close()
    return rows


def test_rekeyed_each_event_lies_by_its_account_without_text(topic):
    name, settings, sent = topic
    sketcher = Sketcher(Keyring.from_seed(1))
    result = rekey(
        settings, name, f"{name}.out", once=True, digest=digest,
        expand=expander(foreign.reader("otlp"), name, 1 << 20),
        sketch=lambda values: sketch_json_lines(values, sketcher),
    )  # fmt: skip
    assert (result.read, result.written, result.unkeyed, result.rejected, result.ignored) == (5, 11, 1, 1, 3)
    rows = records(settings, f"{name}.out")
    assert len(rows) == 11
    for value, partition, stamp in rows:
        event = json.loads(value)
        assert not {"prompt", "system", "response", "ip"} & event.keys()
        assert event["sketch"]["key_id"] == "seed-1"
        assert stamp == round((event.get("completed_at") or event["ts"]) * 1000)
        if "account_id" in event:
            assert partition == partition_of(event["account_id"].encode(), 4)
    ((letter,),) = [[shown.letter for shown in dlq_show(settings, limit=10)]]
    assert (letter.topic, letter.partition, letter.offset, letter.index) == (name, 0, 4, 0)
    assert (letter.length, letter.digest) == (len(sent[4]), digest(sent[4]))
    good = [v for v, _, _ in rows if b'"account_id"' in v]
    by_id = {json.loads(v)["request_id"]: v for v in good}
    assert len(by_id) == 8, "two spans of the incomplete trace came before, with the same ids"
    events = foreign.events_of(foreign.decoded("native", [by_id[i] for i in sorted(by_id)]).frame)
    wanted = foreign.events_of(foreign.decoded("otlp", foreign.lines("otlp")).frame)
    assert foreign.same(events, wanted) == []


def test_read_as_it_is_every_item_is_decoded_rejected_or_ignored(topic):
    name, settings, sent = topic
    every = Settings.model_validate({"kafka": settings.model_dump(), "decode": {"format": "auto"}})
    expand = wiring.expansion(every)
    pipeline = wiring.pipeline(every, keys=Keyring.from_seed(1), rules=wiring.load(every), expand=expand)
    source = KafkaSource(settings, topic=name, group=f"read-{next(_names)}")
    letters = DeadLetters(KafkaSender(settings, settings.dead_letters), name)
    read, partly = 0, set()
    while not (source.assigned and source.caught_up()):
        batch = source.poll(2, 0.5)
        read += len(batch)
        outcome = pipeline.process(batch)
        letters.put(outcome.rejects)
        partly |= outcome.partly
    letters.flush()
    pipeline.finish()
    source.close()
    counts = pipeline.observe.counts
    items = 4 + 5 + 1 + 4 + 1
    assert read == 5
    assert counts.events == counts.decoded + sum(counts.rejects.values())
    assert counts.events + counts.ignored == items
    assert counts.decoded == 10
    assert partly == {(0, 3)}, "the incomplete trace is not one of a row of bad records"
    assert counts.duplicates == 2, "the two good spans of the incomplete trace"
    told = [s.letter for s in dlq_show(settings, limit=9)]
    shown = sorted((letter.offset, letter.index, letter.reason, letter.field) for letter in told)
    assert shown == [(3, 1, "missing_field", "account_id"), (4, 0, "not_utf8", None)]
    assert len(sent) == read


def test_what_is_posted_lies_on_the_topic_by_its_account(kafka_broker):
    name = f"posted-{next(_names)}"
    settings = KafkaSettings(brokers=(kafka_broker,), topic=name, group=name, fetch_max_wait_ms=100)
    sender = LazySender(settings, name)
    options = DecodeOptions(digest_key=b"k")
    intake = Intake(foreign.formats(), Sketcher(Keyring.from_seed(1)), options, KafkaTarget(sender))
    body = b"\n".join(foreign.lines("litellm"))
    with pytest.raises(SinkBusy):
        intake.take("litellm", body, 1_767_262_000_000)  # the topic is not there yet: nothing is acknowledged
    servers.create_topic(kafka_broker, name, 4)
    assert intake.take("litellm", body, 1_767_262_000_000).accepted == 8
    rows = records(settings, name)
    assert len(rows) >= 8
    for value, partition, stamp in rows:
        event = json.loads(value)
        assert partition == partition_of(event["account_id"].encode(), 4)
        assert stamp == round(event["completed_at"] * 1000)
        assert b"haiku" not in value
        assert "sketch" in event


@pytest.mark.slow
def test_run_reads_a_keyed_topic_of_another_format(kafka_broker, tmp_path):
    from kafka import KafkaProducer

    name = f"envoy-{next(_names)}"
    for suffix in ("", ".dlq"):
        servers.create_topic(kafka_broker, name + suffix, 2)
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for line in [*foreign.lines("envoy_aigw"), b"not json"]:
        account = json.loads(line).get("x-account-id", "") if line != b"not json" else "x"
        producer.send(name, line, key=account.encode())
    producer.flush()
    producer.close()
    member = Process(
        tmp_path, ["-m", "monitor", "run", "--config", "SETTINGS"], ingest={"enabled": False},
        source={"read": "kafka"}, decode={"format": "envoy_aigw"},
        kafka={"brokers": [kafka_broker], "topic": name, "group": name, "fetch_max_wait_ms": 100},
    )  # fmt: skip
    wait(lambda: member.metric("abusemon_requests_decoded_total") == 8, member)
    wait(lambda: member.metric("abusemon_dead_letters_total") == 1, member)
    assert member.metric("abusemon_items_ignored_total") == 1
    assert member.metric("abusemon_records_consumed_total") == 10
    assert member.end() == 0
