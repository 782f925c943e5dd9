"""The spool as a :class:`monitor.source.protocol.Source`: what gateways posted, with offsets that are committed.

One reader holds all partitions. A commit is written down durably, then segments that lie wholly before it are removed:
the state that was checkpointed is all that is left of them.
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from monitor.errors import SinkBusy
from monitor.records import RawBatch, Reject
from monitor.source.dead_letters import DeadLetter
from monitor.source.protocol import Listener
from monitor.source.spool import ENDS, FRAME, Layout, frames, sync_folder, write_whole

_CHUNK = 4 << 20
_WAIT_S = 0.02


class _Cursor:
    """Where reading stands in one partition: the segment, the byte, and the offset that lies there."""

    def __init__(self, layout: Layout, partition: int, offset: int):
        self.layout, self.partition = layout, partition
        self.seek(offset)

    def seek(self, offset: int) -> None:
        """Go on from ``offset``, or from the oldest row there is, if that is later."""
        bases = self.layout.segments(self.partition)
        self.offset = max(offset, bases[0]) if bases else offset
        self.base = bases[max(0, bisect_right(bases, self.offset) - 1)] if bases else None
        self.at = 0
        self._ahead = self.offset - self.base if self.base is not None else 0
        """Frames before ``offset`` in the segment, still to be passed over."""
        self._rows: list[tuple[int, bytes]] = []
        self._row = 0

    def take(self, count: int, end: int) -> list[tuple[int, int, bytes]]:
        """Up to ``count`` (offset, stamp, value) before the durable ``end``."""
        out: list[tuple[int, int, bytes]] = []
        while len(out) < count and self.offset < end:
            if self._row >= len(self._rows) and not self._read(end):
                break
            stop = min(len(self._rows), self._row + count - len(out), self._row + end - self.offset)
            for stamp, value in self._rows[self._row : stop]:
                out.append((self.offset, stamp, value))
                self.offset += 1
            self._row = stop
        return out

    def _read(self, end: int) -> bool:
        """Fetch frames; whether there are some. At the end of a segment the next one is opened."""
        last_look = False
        while True:
            if self.base is None:
                self.seek(self.offset)
                if self.base is None:
                    return False
            try:
                with self.layout.segment(self.partition, self.base).open("rb") as handle:
                    handle.seek(self.at)
                    data = handle.read(_CHUNK)
                    whole, used = frames(data)
                    if not whole and len(data) >= FRAME.size:  # one value longer than a chunk
                        data += handle.read(FRAME.unpack_from(data)[0])
                        whole, used = frames(data)
            except FileNotFoundError:
                whole, used = [], 0
            if whole:
                self.at += used
                skipped = min(self._ahead, len(whole))
                self._ahead -= skipped
                self._rows, self._row = whole, skipped
                last_look = False
                if skipped < len(whole):
                    return True
                continue
            following = [b for b in self.layout.segments(self.partition) if b > self.base]
            if not following:
                return False
            if not last_look:
                last_look = True  # the writer may have filled this one up between our look and the list
                continue
            last_look = False
            # Offsets jump where the end of the segment before was lost.
            self.base, self.at = following[0], 0
            self._ahead = max(0, self.offset - self.base)
            self.offset = max(self.offset, self.base)
            self._rows, self._row = [], 0
            if self.offset >= end:
                return False


class SpoolSource:
    """Reads what :class:`monitor.source.spool.SpoolWriter` wrote, from the committed offsets on. Never finishes."""

    finished = False

    def __init__(self, root: Path, partitions: int, listener: Listener | None = None):
        self._layout = Layout(root, partitions)
        self._lock_file = self._layout.lock("reader.lock", "reads")
        self.partitions_total = partitions
        self._listener = listener
        self._committed = self._layout.committed()
        self.generation = self._next_generation()
        self._cursors = {p: _Cursor(self._layout, p, self._committed.get(p, 0)) for p in range(partitions)}
        self._paused: set[int] = set()
        self._all_paused = self._announced = self._closed = False
        self._turn = 0

    def poll(self, max_records: int, timeout_s: float = 0.0) -> RawBatch:
        """Up to ``max_records`` rows, fairly over the partitions; empty after ``timeout_s`` without any."""
        if not self._announced:
            self._announced = True
            if self._listener is not None:
                self._listener.on_assign(self.assigned, self.generation)
        deadline = time.monotonic() + timeout_s
        while True:
            batch = self._batch(max_records)
            if len(batch) or time.monotonic() >= deadline:
                return batch
            time.sleep(min(_WAIT_S, max(0.0, deadline - time.monotonic())))

    def _batch(self, max_records: int) -> RawBatch:
        values: list[bytes] = []
        places: list[int] = []
        offsets: list[int] = []
        stamps: list[int] = []
        following: dict[int, int] = {}
        open_ = [] if self._all_paused or self._closed else sorted(set(self._cursors) - self._paused)
        self._turn += 1
        turned = open_[self._turn % len(open_) :] + open_[: self._turn % len(open_)] if open_ else []
        ends = self._ends()
        for i, partition in enumerate(turned):
            share = -(-(max_records - len(values)) // (len(turned) - i))
            for offset, stamp, value in self._cursors[partition].take(share, ends[partition]):
                values.append(value)
                places.append(partition)
                offsets.append(offset)
                stamps.append(stamp)
                following[partition] = offset + 1
        return RawBatch(
            values, np.array(places, np.int32), np.array(offsets, np.int64), np.array(stamps, np.int64), following,
        )  # fmt: skip

    def _ends(self) -> Sequence[int]:
        try:
            data = (self._layout.root / "ends").read_bytes()
        except FileNotFoundError:
            data = b""
        data = data.ljust(self.partitions_total * ENDS.size, b"\0")
        return [ENDS.unpack_from(data, p * ENDS.size)[0] for p in range(self.partitions_total)]

    def pause(self, partitions: Iterable[int] | None = None) -> None:
        """Give no rows of these partitions (None: of any)."""
        if partitions is None:
            self._all_paused = True
        else:
            self._paused.update(partitions)

    def resume(self, partitions: Iterable[int] | None = None) -> None:
        """Undo :meth:`pause`."""
        if partitions is None:
            self._all_paused = False
            self._paused.clear()
        else:
            self._paused -= set(partitions)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Write the offsets down durably, then remove segments that nobody will read again."""
        self._committed.update(offsets)
        self._write_down()
        for partition in offsets:
            bases = self._layout.segments(partition)
            for base, following in pairwise(bases):
                if following <= self._committed[partition]:
                    self._layout.segment(partition, base).unlink(missing_ok=True)
            sync_folder(self._layout.folder(partition))

    def seek(self, partition: int, offset: int) -> None:
        """Go on from this offset; ValueError where there is no such partition."""
        if partition not in self._cursors or offset < 0:
            raise ValueError(f"no offset {offset} in partition {partition} of {self.partitions_total}")
        self._cursors[partition].seek(offset)

    @property
    def assigned(self) -> frozenset[int]:
        """All partitions, until closed."""
        return frozenset() if self._closed else frozenset(self._cursors)

    def lag(self) -> dict[int, int]:
        """Rows that are durable and not read yet."""
        ends = self._ends()
        return {p: max(0, ends[p] - cursor.offset) for p, cursor in self._cursors.items()}

    def stalled(self) -> dict[int, float]:
        """Empty: a disk answers or breaks."""
        return {}

    def close(self) -> None:
        """Give the partitions up and let the spool go."""
        if not self._closed:
            if self._listener is not None and self._announced:
                self._listener.on_revoke(self.assigned)
            self._closed = True
            self._lock_file.close()

    def _next_generation(self) -> int:
        path = self._layout.root / "committed.json"
        try:
            before = int(json.loads(path.read_bytes())["generation"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            before = 0
        self.generation = before + 1
        self._write_down()
        return self.generation

    def _write_down(self) -> None:
        offsets = {str(p): o for p, o in sorted(self._committed.items())}
        data = json.dumps({"generation": self.generation, "offsets": offsets}).encode()
        write_whole(self._layout.root / "committed.json", data)


class FileDeadLetters:
    """Dead letters of a spool: lines of a file beside it, for a service that has no Kafka."""

    def __init__(self, path: Path):
        self._path = path
        self._waiting: list[bytes] = []

    def put(self, rejects: Sequence[Reject]) -> None:
        """Hand rejects over; :meth:`flush` before committing their offsets."""
        for r in rejects:
            letter = DeadLetter(
                reason=r.reason, topic=self._path.parent.name, partition=r.partition, offset=r.offset, length=r.length,
                digest=r.digest, field=r.field, index=r.index,
            )  # fmt: skip
            self._waiting.append(msgspec.json.encode(letter) + b"\n")

    def flush(self) -> None:
        """Return when they are durable; SinkBusy where the disk refuses them."""
        if not self._waiting:
            return
        try:
            with self._path.open("ab") as handle:
                handle.write(b"".join(self._waiting))
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            raise SinkBusy(f"dead letters cannot be written ({error.strerror or error})") from error
        self._waiting.clear()
