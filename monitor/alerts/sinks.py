"""Where alerts go. A sink knows no stage and no checkpoint; what it can't take now it refuses with SinkBusy.

The caller pauses on :class:`~monitor.errors.SinkBusy` and sends the same alerts again, in the same order, until
they are accepted; then ``flush`` before its checkpoint. After a crash it sends again what came after the
checkpoint. Delivery is therefore at least once everywhere, and exactly once where a sink remembers what it has:
Redis by a ledger, a file by its own lines. ``alert_id:revision`` is the key for everybody else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from monitor.errors import SinkBusy
from monitor.records import Alert, trimmed

_LOG = logging.getLogger(__name__)
_ENCODER = msgspec.json.Encoder()

Send = Callable[[bytes, bytes, Sequence[tuple[str, bytes]]], None]
"""(key, value, headers) of one message."""


class Sink(Protocol):
    """The edge between the pipeline and whoever is told."""

    def send(self, alerts: Sequence[Alert]) -> None:
        """Accept all of them, in order, or raise SinkBusy; then the same ones may be sent again."""

    def flush(self) -> None:
        """Return when what was accepted is where it belongs; SinkBusy where that takes too long."""

    def close(self) -> None:
        """Flush if possible and let go."""


def key_of(alert: Alert) -> str:
    """``alert_id:revision``: what a reader drops repetitions by."""
    return f"{alert.alert_id}:{alert.revision}"


class MemorySink:
    """Keeps alerts in a list: backtests and tests. A repeated one is dropped."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self._seen: set[str] = set()

    def send(self, alerts: Sequence[Alert]) -> None:
        """See :class:`Sink`."""
        for alert in alerts:
            if key_of(alert) not in self._seen:
                self._seen.add(key_of(alert))
                self.alerts.append(alert)

    def flush(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        """Nothing to let go."""


class FileSink:
    """NDJSON, one alert a line, with every member. One writer a file.

    Lines are appended by one ``write`` a call; a call that fails half-way (disk full) is taken back, and the
    rest of a line that a crash left is cut off when the file is opened. Opening reads the keys already there,
    so that a restart repeats nothing.
    """

    def __init__(self, path: Path | str, *, append: bool = True):
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | (0 if append else os.O_TRUNC), 0o640)
        self._seen: set[str] = set()
        self._size = self._recover()

    def send(self, alerts: Sequence[Alert]) -> None:
        """See :class:`Sink`. SinkBusy on a full disk."""
        new = {key_of(alert): alert for alert in alerts if key_of(alert) not in self._seen}
        data = b"".join(_ENCODER.encode(alert) + b"\n" for alert in new.values())
        try:
            done = 0
            while done < len(data):
                done += os.write(self._handle, data[done:])
        except OSError as error:
            os.ftruncate(self._handle, self._size)
            raise self._busy(error) from error
        self._size += len(data)
        self._seen.update(new)

    def flush(self) -> None:
        """See :class:`Sink`: the disk has it."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise self._busy(error) from error

    def close(self) -> None:
        """See :class:`Sink`."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _recover(self) -> int:
        whole = 0
        with open(self._path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    _LOG.warning("%s ended in half a line, which a crash left: cut off", self._path)
                    break
                whole += len(line)
                try:
                    self._seen.add(key_of(msgspec.json.decode(line, type=Alert)))
                except msgspec.DecodeError:
                    _LOG.warning("%s has a line that is not an alert: left alone", self._path)
        os.ftruncate(self._handle, whole)
        return whole

    def _busy(self, error: OSError) -> SinkBusy:
        return SinkBusy(
            f"alerts can't be written to {self._path} ({os.strerror(error.errno or 0)}): free space there", 5.0
        )


class KafkaSink:
    """Alerts to a topic, by injected callables: this package imports no Kafka. At least once.

    ``send(key, value, headers)`` may only queue; ``flush`` returns when the broker has everything, or raises
    SinkBusy and may have lost what was queued: all since the last good flush is then kept here and sent again.
    The key is the subject, so a subject's revisions stay in order.
    """

    def __init__(self, send: Send, flush: Callable[[], None], *, max_accounts: int = 1_000):
        self._send = send
        self._flush = flush
        self._max_accounts = max_accounts
        self._pending: list[tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]] = []
        self._lost = False

    def send(self, alerts: Sequence[Alert]) -> None:
        """See :class:`Sink`."""
        self._repeat()
        for alert in alerts:
            value = _ENCODER.encode(trimmed(alert, self._max_accounts))
            message = (alert.subject.encode(), value, (("idempotency-key", key_of(alert).encode()),))
            self._send(*message)
            self._pending.append(message)

    def flush(self) -> None:
        """See :class:`Sink`."""
        self._repeat()
        try:
            self._flush()
        except SinkBusy:
            self._lost = True
            raise
        self._pending.clear()

    def close(self) -> None:
        """Flush; the producer belongs to whoever made it."""
        if self._pending:
            self.flush()

    def _repeat(self) -> None:
        if self._lost:
            for message in self._pending:
                self._send(*message)
            self._lost = False


class LiveOnly:
    """Lets only alerts of mode ``alert`` through: a person's pager must not ring for a rule on trial."""

    def __init__(self, sink: Sink):
        self._sink = sink

    def send(self, alerts: Sequence[Alert]) -> None:
        """See :class:`Sink`."""
        live = [alert for alert in alerts if alert.mode == "alert"]
        if live:
            self._sink.send(live)

    def flush(self) -> None:
        """See :class:`Sink`."""
        self._sink.flush()

    def close(self) -> None:
        """See :class:`Sink`."""
        self._sink.close()


class FanOut:
    """Several sinks as one. Where one is busy the others get theirs, and are not asked again for the same alerts."""

    def __init__(self, sinks: Sequence[Sink]):
        self._sinks = tuple(sinks)
        self._taken: list[set[str]] = [set() for _ in sinks]

    def send(self, alerts: Sequence[Alert]) -> None:
        """See :class:`Sink`; the error is the busy sink's that wants the longest wait."""
        busy: SinkBusy | None = None
        for sink, taken in zip(self._sinks, self._taken, strict=True):
            rest = [alert for alert in alerts if key_of(alert) not in taken]
            if not rest:
                continue
            try:
                sink.send(rest)
            except SinkBusy as error:
                busy = error if busy is None or error.retry_after_s > busy.retry_after_s else busy
            else:
                taken.update(map(key_of, rest))
        if busy is not None:
            raise busy
        for taken in self._taken:
            taken.clear()

    def flush(self) -> None:
        """See :class:`Sink`; every sink is flushed before the first complaint is raised."""
        busy: SinkBusy | None = None
        for sink in self._sinks:
            try:
                sink.flush()
            except SinkBusy as error:
                busy = busy or error
        if busy is not None:
            raise busy

    def close(self) -> None:
        """See :class:`Sink`."""
        for sink in self._sinks:
            sink.close()
