"""Alerts on a real Kafka topic, through the project's own producer."""

from __future__ import annotations

import msgspec
import pytest
import servers
from alert_rows import an_alert
from kafka import KafkaConsumer

from monitor.alerts import KafkaSink, key_of
from monitor.records import Alert
from monitor.settings import Settings
from monitor.source.kafka_sender import KafkaSender


@pytest.mark.kafka
def test_alerts_arrive_keyed_by_subject_with_their_idempotency_key(kafka_broker: str) -> None:
    topic = servers.create_topic(kafka_broker, "alerts-out", 2)
    sender = KafkaSender(Settings(kafka={"brokers": [kafka_broker]}).kafka, topic)
    sink = KafkaSink(sender.send, sender.flush)
    alerts = [an_alert(n, revision) for revision in (1, 2) for n in range(20)]
    sink.send(alerts)
    sink.flush()
    sink.send(alerts[-1:])  # a repetition is allowed, and recognisable
    sink.close()
    sender.close()
    consumer = KafkaConsumer(topic, bootstrap_servers=kafka_broker, auto_offset_reset="earliest",
                             consumer_timeout_ms=4_000, group_id=None)  # fmt: skip
    got = []
    for record in consumer:
        got.append(record)
        if len(got) == len(alerts) + 1:
            break
    consumer.close()
    by_key: dict[str, Alert] = {}
    for record in got:
        alert = msgspec.json.decode(record.value, type=Alert)
        assert record.key == alert.subject.encode()
        assert dict(record.headers)["idempotency-key"] == key_of(alert).encode()
        by_key[key_of(alert)] = alert
    assert len(got) == 41
    assert by_key == {key_of(alert): alert for alert in alerts}
    for n in range(20):
        mine = [msgspec.json.decode(r.value, type=Alert).revision for r in got if r.key == f"a-{n}".encode()]
        assert mine == sorted(mine)
