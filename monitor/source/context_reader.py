"""The context topic (contract 5), read from its beginning by every replica: it is small, and all of it counts."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from monitor.errors import DependencyDown
from monitor.settings import KafkaSettings
from monitor.source.kafka_client import reader

_MS = 5_000


class ContextReader:
    """A consumer outside any group, all partitions from the beginning. Opened by the first :meth:`read`."""

    def __init__(self, settings: KafkaSettings, topic: str):
        self._settings = settings
        self._topic = topic
        self._stack = ExitStack()
        self._consumer: Any = None

    def read(self, wait_ms: int = 0) -> list[bytes]:
        """Values that came since the last call; with ``wait_ms`` > 0 until the topic's end as of now.

        Raises DependencyDown where no broker answers.
        """
        try:
            if self._consumer is None:
                self._consumer = self._stack.enter_context(reader(self._settings))
                parts = [TopicPartition(self._topic, p) for p in self._consumer.partitions_for_topic(self._topic) or ()]
                self._consumer.assign(parts)
                self._consumer.seek_to_beginning(*parts)
            values = self._poll(wait_ms)
            if wait_ms and self._consumer.assignment():
                ends = self._consumer.end_offsets(list(self._consumer.assignment()), timeout_ms=_MS)
                while any((self._consumer.position(tp, timeout_ms=_MS) or 0) < end for tp, end in ends.items()):
                    values += self._poll(wait_ms)
        except KafkaError as error:
            raise DependencyDown(f"the context topic {self._topic} cannot be read ({type(error).__name__})") from error
        return values

    def close(self) -> None:
        """Let the connection go."""
        self._stack.close()
        self._consumer = None

    def _poll(self, wait_ms: int) -> list[bytes]:
        polled = self._consumer.poll(timeout_ms=wait_ms)
        return [r.value for records in polled.values() for r in records if r.value is not None]
