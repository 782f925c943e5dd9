"""A spool on disk: rows that arrived by HTTP, safe before they are acknowledged, in order within a partition.

A directory with one folder a partition and segments in it, named by their first offset. A frame is length, CRC-32 and
arrival time (16 bytes), then the value. ``ends`` holds each partition's durable end, 8 bytes each, written after the
segment's fsync: a reader never sees what a power cut could take back. One process writes, one reads, each under a
lock. Knows bytes, accounts and offsets; the rows it is given hold no text.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from monitor.errors import BadInput, DependencyDown, Problem, SinkBusy
from monitor.source.partitioner import Partitioner

FRAME = struct.Struct("<IIq")
ENDS = struct.Struct("<q")
SEGMENT_BYTES = 64 << 20
MAX_VALUE = 1 << 30
_SIZE_S = 1.0


class Row(NamedTuple):
    """One row to spool: whose it is, when it arrived (epoch ms), its bytes."""

    account: str
    stamp_ms: int
    value: bytes


class Layout:
    """Where a spool's files lie. Makes the directory, readable by its owner alone, where there is none."""

    def __init__(self, root: Path, partitions: int):
        self.root = root
        meta = root / "spool.json"
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not meta.exists():
                write_whole(meta, json.dumps({"version": 1, "partitions": partitions}).encode())
            found = json.loads(meta.read_bytes())
            self.partitions = int(found["partitions"])
            if found["version"] != 1:
                raise ValueError
            for partition in range(self.partitions):
                self.folder(partition).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise BadInput([Problem("settings", 0, f"{root} can't be used ({reason})", "ingest.spool")]) from None
        except (ValueError, KeyError, TypeError):
            raise BadInput([Problem(str(meta), 0, "is no spool's description: name another directory")]) from None
        if self.partitions != partitions:
            message = f"is {partitions}, but {root} was made with {self.partitions}: keep it, or name a new directory"
            raise BadInput([Problem("settings", 0, message, "ingest.partitions")])

    def folder(self, partition: int) -> Path:
        """The folder of a partition."""
        return self.root / f"p{partition:04d}"

    def segments(self, partition: int) -> list[int]:
        """First offsets of the partition's segments, rising."""
        return sorted(int(p.stem) for p in self.folder(partition).glob("*.seg") if p.stem.isdecimal())

    def segment(self, partition: int, base: int) -> Path:
        """The file of a segment."""
        return self.folder(partition) / f"{base:020d}.seg"

    def size(self) -> int:
        """Bytes of all segments."""
        total = 0
        for partition in range(self.partitions):
            with os.scandir(self.folder(partition)) as entries:
                for entry in entries:
                    try:
                        total += entry.stat().st_size
                    except FileNotFoundError:
                        continue  # the reader is done with it
        return total

    def committed(self) -> dict[int, int]:
        """Partition -> the offset from which the reader will go on."""
        try:
            found = json.loads((self.root / "committed.json").read_bytes())
            return {int(p): int(o) for p, o in found["offsets"].items()}
        except (FileNotFoundError, ValueError, KeyError, AttributeError):
            return {}

    def lock(self, name: str, whose: str) -> IO[bytes]:
        """Hold a lock file until it is closed; DependencyDown while another process holds it."""
        handle = (self.root / name).open("ab")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            raise DependencyDown(f"another process {whose} {self.root}: a spool has one") from None
        return handle


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` in the place of a file, durably: the old content or the new one, nothing between."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def frames(data: bytes, at: int = 0) -> tuple[list[tuple[int, bytes]], int]:
    """(stamp, value) of every whole frame from ``at``, and where the first that is not whole begins."""
    found: list[tuple[int, bytes]] = []
    while at + FRAME.size <= len(data):
        length, crc, stamp = FRAME.unpack_from(data, at)
        end = at + FRAME.size + length
        if length > MAX_VALUE or end > len(data) or zlib.crc32(data[at + 8 : end]) != crc:
            break
        found.append((stamp, data[at + FRAME.size : end]))
        at = end
    return found, at


def frame(stamp_ms: int, value: bytes) -> bytes:
    """One frame."""
    body = struct.pack("<q", stamp_ms) + value
    return struct.pack("<II", len(value), zlib.crc32(body)) + body


class _Tail:
    """The open segment of one partition."""

    def __init__(self, layout: Layout, partition: int, floor: int):
        self.partition = partition
        bases = layout.segments(partition)
        self.next = floor
        self.base = floor
        if bases:
            path = layout.segment(partition, bases[-1])
            data = path.read_bytes()
            whole, end = frames(data)
            if end < len(data):
                os.truncate(path, end)  # a frame that a crash cut off: nobody was told that it is safe
            self.next = max(floor, bases[-1] + len(whole))
            # Where the reader was further than what is left, offsets go on from there, in a segment of its own.
            self.base = bases[-1] if self.next == bases[-1] + len(whole) else self.next
        self.handle = layout.segment(partition, self.base).open("ab")
        self.size = self.handle.tell()


class SpoolWriter:
    """Appends rows; :meth:`append` returns when they would outlive a power cut.

    ``max_bytes`` bounds all segments: a full spool is busy until its reader has committed. Several threads may append;
    those that wait at the same time share one fsync.
    """

    def __init__(self, root: Path, partitions: int, max_bytes: int, segment_bytes: int = SEGMENT_BYTES):
        self._layout = Layout(root, partitions)
        self._lock_file = self._layout.lock("writer.lock", "writes to")
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._place = Partitioner(partitions)
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        committed = self._layout.committed()
        self._tails = [_Tail(self._layout, p, committed.get(p, 0)) for p in range(partitions)]
        for tail in self._tails:
            os.fsync(tail.handle.fileno())
            sync_folder(self._layout.folder(tail.partition))
        self._ends = os.open(self._layout.root / "ends", os.O_RDWR | os.O_CREAT, 0o600)
        self._publish({tail.partition: tail.next for tail in self._tails})
        self._dirty: set[int] = set()
        self._written = self._synced = 0
        self._size, self._sized_at = self._layout.size(), time.monotonic()

    def append(self, rows: Sequence[Row]) -> None:
        """Spool rows, all or none. SinkBusy where the spool is full or the disk refuses them."""
        parts: dict[int, list[bytes]] = {}
        for row in rows:
            parts.setdefault(self._place(row.account), []).append(frame(row.stamp_ms, row.value))
        with self._writing:
            self._check_room(sum(len(f) for fs in parts.values() for f in fs))
            before = {p: self._tails[p].size for p in parts}
            try:
                for partition, made in parts.items():
                    self._write(self._tails[partition], made)
            except OSError as error:
                for partition, size in before.items():
                    self._undo(self._tails[partition], size)
                raise SinkBusy(f"the spool cannot be written ({error.strerror or error})", 5.0) from error
            for partition, made in parts.items():
                tail = self._tails[partition]
                tail.next += len(made)
                self._dirty.add(partition)
            self._written += 1
            mine = self._written
        self._sync(mine)

    def close(self) -> None:
        """Let the spool go."""
        with self._writing:
            for tail in self._tails:
                tail.handle.close()
            os.close(self._ends)
            self._lock_file.close()

    def _check_room(self, more: int) -> None:
        if time.monotonic() - self._sized_at > _SIZE_S:
            self._size, self._sized_at = self._layout.size(), time.monotonic()
        if self._size + more > self._max_bytes:
            raise SinkBusy("the spool is full: its reader is behind, see ingest.max_spool_bytes", 5.0)
        self._size += more

    def _write(self, tail: _Tail, made: Sequence[bytes]) -> None:
        tail.handle.write(b"".join(made))
        tail.handle.flush()
        tail.size = tail.handle.tell()

    def _undo(self, tail: _Tail, size: int) -> None:
        """Take back what was half written; a file object that failed is opened again, its buffer gone."""
        path = self._layout.segment(tail.partition, tail.base)
        with suppress(OSError):
            tail.handle.close()
        os.truncate(path, size)
        tail.handle, tail.size = path.open("ab"), size

    def _sync(self, mine: int) -> None:
        with self._syncing:
            if self._synced >= mine:
                return  # whoever was before us took ours along
            with self._writing:
                upto, dirty, self._dirty = self._written, self._dirty, set()
                ends = {p: self._tails[p].next for p in dirty}
                handles = [os.dup(self._tails[p].handle.fileno()) for p in sorted(dirty)]
            try:
                for handle in handles:
                    os.fsync(handle)
            except OSError as error:
                with self._writing:
                    self._dirty |= dirty
                raise SinkBusy(f"the spool cannot be made durable ({error.strerror or error})", 5.0) from error
            finally:
                for handle in handles:
                    os.close(handle)
            self._publish(ends)
            self._synced = upto
            with self._writing:
                for partition in ends:
                    self._roll(self._tails[partition])

    def _publish(self, ends: dict[int, int]) -> None:
        for partition, end in ends.items():
            os.pwrite(self._ends, ENDS.pack(end), partition * ENDS.size)

    def _roll(self, tail: _Tail) -> None:
        """Begin a new segment where this one is full and durable, so that the reader can remove it."""
        if tail.size < self._segment_bytes or tail.partition in self._dirty:
            return
        fresh = self._layout.segment(tail.partition, tail.next).open("ab")
        sync_folder(self._layout.folder(tail.partition))
        tail.handle.close()
        tail.handle, tail.base, tail.size = fresh, tail.next, 0
