"""What becomes of one posted body: messages, events, accepted ones without their text, handed to the target.

The text lives as long as this call. What is accepted is exactly what decode accepts later, because decode says so here.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from monitor.decode import DecodeOptions, Formats, Reader, decode, read_message
from monitor.ingest.targets import Stripped, Target
from monitor.records import RawBatch
from monitor.sketch import Sketcher
from monitor.sketch.lines import sketch_json_lines
from monitor.source.envelope import read_envelope

_UNREADABLE = frozenset({"empty", "not_json", "not_utf8", "too_deep", "not_object"})
_whole = msgspec.json.Decoder(msgspec.Raw).decode


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was in a body. ``rejects`` counts by reason, ``ignored`` items that are no requests."""

    accepted: int
    ignored: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Events that are no request by the contract."""
        return sum(self.rejects.values())

    @property
    def unreadable(self) -> bool:
        """Nothing in it could be read at all: the sender speaks another format, or none."""
        return not self.accepted and bool(self.rejects) and self.rejects.keys() <= _UNREADABLE


class Intake:
    """Several threads may call :meth:`take`. ``options`` are decode's, without ``expand``; the key is the digest's."""

    def __init__(self, formats: Formats, sketcher: Sketcher, options: DecodeOptions, target: Target):
        self._formats = formats
        self._readers: dict[str, Reader] = {}
        self._sketcher = sketcher
        self._options = options
        self._target = target
        self._sketching, self._compiling = threading.Lock(), threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Formats that may be posted."""
        return self._formats.names

    def take(self, format: str, body: bytes, arrived_ms: int) -> Receipt:
        """Everything of a body, safe when this returns. KeyError for no such format; SinkBusy where it is not safe.

        A request without an id gets one of the body's keyed digest, so that a body that is posted again is a duplicate.
        """
        reader = self._reader(format)
        values, ignored = self._events(reader, body)
        accepted, rejects = self._judged(values, arrived_ms)
        if accepted:
            with self._sketching:
                stripped = sketch_json_lines([values[i] for i in accepted], self._sketcher)
            rows = []
            for row in stripped:
                account, when = read_envelope(row)
                if row is not None and account is not None:
                    t_ms = arrived_ms if when is None else round(when * 1000)
                    rows.append(Stripped(account, arrived_ms, t_ms, row))
            self._target.put(rows)
        return Receipt(len(accepted), ignored, rejects)

    def _reader(self, format: str) -> Reader:
        with self._compiling:
            if format not in self._readers:
                if format not in self._formats.names:
                    raise KeyError(format)
                self._readers[format] = self._formats.reader(format)
            return self._readers[format]

    def _events(self, reader: Reader, body: bytes) -> tuple[list[bytes], int]:
        digest = hashlib.blake2b(body, digest_size=16, key=self._options.digest_key).hexdigest()
        values: list[bytes] = []
        ignored = 0
        for i, message in enumerate(messages_of(body)):
            found = read_message(reader, message, f"http/{digest}/{i}", self._options.max_bytes)
            values += found.events
            ignored += found.ignored
        return values, ignored

    def _judged(self, values: Sequence[bytes], arrived_ms: int) -> tuple[list[int], dict[str, int]]:
        """Indices of what decode accepts, and the reasons of the rest."""
        n = len(values)
        batch = RawBatch(
            values, np.zeros(n, np.int32), np.arange(n, dtype=np.int64), np.full(n, arrived_ms, np.int64), {0: n}
        )
        decoded = decode(batch, self._options)
        return decoded.frame["offset"].to_list(), dict(Counter(reject.reason for reject in decoded.rejects))


def messages_of(body: bytes) -> list[bytes]:
    """A body as messages: one where it is one JSON value or no text, its lines where the first line is a value."""
    stripped = body.strip()
    head, newline, _ = stripped.partition(b"\n")
    if not newline or stripped[:1] not in (b"{", b"["):
        return [body]
    try:
        _whole(head)
    except (ValueError, RecursionError):
        return [body]
    return [line for line in stripped.split(b"\n") if line.strip()]
