"""Writing to a Kafka topic: idempotent, acknowledged by all in-sync replicas, at least once.

What has been handed over is safe only after :meth:`KafkaSender.flush` returned. Knows bytes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from monitor.errors import DependencyDown, SinkBusy
from monitor.settings import KafkaSettings
from monitor.source.kafka_client import REFUSED, connect, said_no

Headers = Sequence[tuple[str, bytes]]


class KafkaSender:
    """A producer for one topic. Connects at once; DependencyDown where no broker answers.

    ``send`` takes a record over; ``flush`` waits until all of them are acknowledged and raises SinkBusy when
    one was not: everything since the last good flush must then be sent again (duplicates are possible,
    losses are not). ``transactional_id`` turns on transactions, see :meth:`transaction`.
    """

    def __init__(self, settings: KafkaSettings, topic: str, *, transactional_id: str | None = None):
        self.topic = topic
        self.settings = settings
        self._failed: BaseException | None = None
        config: dict[str, Any] = {
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": "zstd",
            "linger_ms": 20,
            "batch_size": 1 << 18,
            "max_block_ms": 10_000,
            "delivery_timeout_ms": max(60_000, settings.request_timeout_ms + 1_000),
            "max_request_size": 1 << 24,
            "allow_auto_create_topics": False,
            "bootstrap_timeout_ms": 10_000,
        }
        if transactional_id is not None:
            config["transactional_id"] = transactional_id
        self._producer: Any = connect(settings, KafkaProducer, **config)
        if transactional_id is not None:
            self._producer.init_transactions()

    def send(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """Hand a record over; SinkBusy where the buffer stays full for 10 s or the topic does not exist."""
        try:
            future = self._producer.send(
                self.topic,
                value=value,
                key=key,
                headers=list(headers) or None,
                partition=partition,
                timestamp_ms=timestamp_ms,
            )
        except KafkaTimeoutError as error:
            raise SinkBusy(
                f"Kafka takes no more records for {self.topic}: is the topic there, and its leaders?"
            ) from error
        except REFUSED as error:
            raise said_no(error, self.settings) from error
        future.add_errback(self._note)

    def _note(self, error: BaseException) -> None:
        self._failed = error

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until everything is acknowledged; SinkBusy where that fails, with nothing known to be written."""
        try:
            self._producer.flush(timeout=timeout_s)
        except KafkaTimeoutError as error:
            raise SinkBusy(f"Kafka acknowledged not everything for {self.topic} in {timeout_s:.0f} s") from error
        failed, self._failed = self._failed, None
        if isinstance(failed, REFUSED):
            raise said_no(failed, self.settings) from failed
        if failed is not None:
            raise SinkBusy(f"records for {self.topic} were not written ({type(failed).__name__})") from failed

    def begin(self) -> None:
        """Start a transaction."""
        self._producer.begin_transaction()

    def commit(self, topic: str, offsets: dict[int, int], group_metadata: Any) -> None:
        """End it: what was sent and the consumer group's offsets become visible together.

        SinkBusy where it was aborted instead (a rebalance, a broker): read on from the committed offsets.
        """
        try:
            positions = {TopicPartition(topic, p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items()}
            self._producer.send_offsets_to_transaction(positions, group_metadata)
            self._producer.commit_transaction()
        except KafkaError as error:
            self.abort()
            raise SinkBusy(f"transaction aborted ({type(error).__name__})") from error

    def abort(self) -> None:
        """Drop what was sent since :meth:`begin`; DependencyDown where another process took our id."""
        try:
            self._producer.abort_transaction()
        except KafkaError as error:
            raise DependencyDown(f"transaction could not be aborted ({type(error).__name__}): start again") from error

    def close(self, timeout_s: float = 10.0) -> None:
        """Send what is left and stop."""
        self._producer.close(timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LazySender:
    """A sender that connects when it is first used; while no broker answers it is busy, which is no error.

    For what a long-lived service writes beside its work: a broker that is not there yet must not end it.
    """

    def __init__(self, settings: KafkaSettings, topic: str):
        self._settings = settings
        self._topic = topic
        self._sender: KafkaSender | None = None

    def send(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """See :meth:`KafkaSender.send`."""
        if self._sender is None:
            try:
                self._sender = KafkaSender(self._settings, self._topic)
            except DependencyDown as error:
                raise SinkBusy(f"records for {self._topic} wait: {error}") from error
        self._sender.send(key, value, headers, partition, timestamp_ms)

    def flush(self, timeout_s: float = 60.0) -> None:
        """See :meth:`KafkaSender.flush`."""
        if self._sender is not None:
            self._sender.flush(timeout_s)
