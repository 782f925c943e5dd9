"""Topics made for the demo and for tests of one's own; the service itself never creates one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from monitor.settings import KafkaSettings
from monitor.source.kafka_client import connect, said_no


def create_topics(settings: KafkaSettings, topics: Mapping[str, int], replication: int = 1) -> None:
    """Make topics with so many partitions, where they do not exist; nothing in them is deleted by age.

    Retention goes by the records' own times, which for simulated traffic are event times of another year.
    Raises DependencyDown where no broker answers.
    """
    client: Any = connect(settings, KafkaAdminClient)
    try:
        for name, partitions in topics.items():
            options = {
                "num_partitions": partitions, "replication_factor": replication, "configs": {"retention.ms": "-1"},
            }  # fmt: skip
            with suppress(TopicAlreadyExistsError):
                client.create_topics({name: options})
        with suppress(KafkaError):  # the embedded broker knows no such wait: its topics are there at once
            client.wait_for_topics(list(topics), timeout_ms=15_000)
    except KafkaError as error:
        raise said_no(error, settings) from error
    finally:
        client.close()
