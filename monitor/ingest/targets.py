"""Where rows of posted bodies go: the keyed topic, or the spool. Both return when the rows are safe."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from monitor.source.kafka_sender import LazySender
from monitor.source.spool import Row, SpoolWriter


class Stripped(NamedTuple):
    """A request without text: whose it is, when it arrived and happened (epoch ms), its JSON."""

    account: str
    arrived_ms: int
    t_ms: int
    value: bytes


class Target(Protocol):
    """Takes rows over for good."""

    def put(self, rows: Sequence[Stripped]) -> None:
        """Return when they are safe; SinkBusy where they cannot be, and then all of them are to be sent again."""

    def close(self) -> None:
        """Let go."""


class KafkaTarget:
    """The request topic, keyed by account as `monitor rekey` keys it; record times are event times."""

    def __init__(self, sender: LazySender):
        self._sender = sender
        self._one = threading.Lock()  # a flush says whether all before it were written: one body at a time

    def put(self, rows: Sequence[Stripped]) -> None:
        """Send and wait for every in-sync replica."""
        with self._one:
            for row in rows:
                key = row.account.encode("utf-8", "replace")
                self._sender.send(key, row.value, timestamp_ms=max(0, row.t_ms))
            self._sender.flush()

    def close(self) -> None:
        """Nothing to let go: the producer ends with the process."""


class SpoolTarget:
    """The spool on this host's disk."""

    def __init__(self, writer: SpoolWriter):
        self._writer = writer

    def put(self, rows: Sequence[Stripped]) -> None:
        """Append and fsync."""
        self._writer.append([Row(row.account, row.arrived_ms, row.value) for row in rows])

    def close(self) -> None:
        """Let the spool go."""
        self._writer.close()
