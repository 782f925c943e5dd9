"""Values out of one file: NDJSON (plain, gzip, Zstandard) or Parquet, in bounded memory.

A file is told by its first bytes, not by its name. Whatever a file is (a bomb, cut short, one endless
line), memory stays near :data:`CHUNK` plus ``max_bytes``, and what could be read before the fault counts.
Knows bytes and lines; the meaning of a value is decode's.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import zstandard

from monitor.errors import BadInput, MonitorError, Problem

CHUNK = 1 << 20
"""Bytes that are decompressed or read at a time."""
BLOCK_RECORDS = 2048
BLOCK_BYTES = 4 << 20
"""A block ends at whichever comes first."""
_ZSTD_INPUT = 1 << 10
"""zstd's streaming object has no limit on its output; its worst ratio (4 bytes of input make a block of
128 KiB) turns 1 KiB into 32 MiB, which is the most that a bomb can hold in memory at a time."""
_BOM = b"\xef\xbb\xbf"


class DamagedFile(MonitorError):
    """A file ended or broke in the middle; everything before that was handed on."""

    def __init__(self, problem: Problem):
        self.problem = problem
        super().__init__(str(problem))


class _Broken(Exception):
    """Decompression failed; the text says how."""


def kind_of(path: Path) -> str:
    """``gzip``, ``zstd``, ``parquet`` or ``plain`` by the first bytes; BadInput where it cannot be opened."""
    try:
        if path.is_dir():
            raise BadInput([Problem(str(path), 0, "is a directory: give the files in it, for example DIR/*.ndjson")])
        with path.open("rb") as f:
            head = f.read(4)
    except OSError as error:
        raise BadInput([Problem(str(path), 0, f"cannot be read: {error.strerror or error}")]) from error
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head == b"\x28\xb5\x2f\xfd":
        return "zstd"
    return "parquet" if head == b"PAR1" else "plain"


def read_blocks(path: Path, max_bytes: int) -> Iterator[list[bytes]]:
    """Lists of values in file order, none empty.

    A line over ``max_bytes`` is cut to ``max_bytes + 1`` bytes, which decode rejects as oversize. Blank
    lines are no records. Raises DamagedFile after the last good value.
    """
    if kind_of(path) == "parquet":
        yield from _parquet(path)
        return
    yield from _ndjson(path, max_bytes)


def _ndjson(path: Path, max_bytes: int) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    size = 0
    lines = _Lines(max_bytes)
    fault: str | None = None
    chunks = _chunks(path)
    while True:
        try:
            chunk = next(chunks, None)
        except (_Broken, OSError) as error:
            fault = str(error)
            break
        if chunk is None:
            break
        fed = lines.feed(chunk)
        block += fed
        size += sum(map(len, fed))
        if len(block) >= BLOCK_RECORDS or size >= BLOCK_BYTES:
            for begin in range(0, len(block), BLOCK_RECORDS):
                yield block[begin : begin + BLOCK_RECORDS]
            block, size = [], 0
    if fault is None:
        block.extend(lines.rest())  # a last line without its newline; in a broken file it would be half a record
    if block:
        yield block
    if fault is not None:
        message = (
            f"{fault} after byte {lines.bytes} of its text; the {lines.count} lines before were read: fetch it anew"
        )
        raise DamagedFile(Problem(str(path), lines.count + 1, message))


class _Lines:
    """Cuts chunks into lines, holding at most ``max_bytes + 1`` bytes of an unfinished one."""

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.count = 0
        self.bytes = 0
        self._held = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without blank ones."""
        if not self.bytes and chunk.startswith(_BOM):
            chunk = chunk[3:]
        self.bytes += len(chunk)
        pieces = chunk.split(b"\n")
        if self._held:
            pieces[0] = self._held + pieces[0][: self.max_bytes + 1 - len(self._held)]
        self._held = pieces.pop()[: self.max_bytes + 1]
        self.count += len(pieces)
        if max(map(len, pieces), default=0) > self.max_bytes:
            pieces = [piece[: self.max_bytes + 1] for piece in pieces]
        return [line for line in pieces if line and not line.isspace()]

    def rest(self) -> list[bytes]:
        if self._held and not self._held.isspace():
            self.count += 1
            return [self._held]
        return []


def _chunks(path: Path) -> Iterator[bytes]:
    kind = kind_of(path)
    with path.open("rb") as f:
        if kind == "gzip":
            yield from _gzip(f)
        elif kind == "zstd":
            yield from _zstd(f)
        else:
            while chunk := f.read(CHUNK):
                yield chunk


def _gzip(f: IO[bytes]) -> Iterator[bytes]:
    """All members of a gzip file; ``max_length`` bounds what one read makes."""
    member = zlib.decompressobj(31)
    data = b""
    while data or (data := f.read(1 << 16)):
        try:
            out = member.decompress(data, CHUNK)
        except zlib.error as error:
            raise _Broken(f"gzip data is corrupt ({error})") from error
        if out:
            yield out
        data = member.unconsumed_tail
        if member.eof:
            data = member.unused_data.lstrip(b"\0") or f.read(1 << 16).lstrip(b"\0")  # zero padding is allowed
            if not data:
                return
            member = zlib.decompressobj(31)
    if not member.eof:
        raise _Broken("gzip data ends early")


def _zstd(f: IO[bytes]) -> Iterator[bytes]:
    """All frames of a Zstandard file; a window over 128 MiB is refused by the library."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    data = f.read(_ZSTD_INPUT)
    while data:
        try:
            out = frame.decompress(data)
        except zstandard.ZstdError as error:
            raise _Broken(f"zstd data is corrupt ({error})") from error
        for start in range(0, len(out), CHUNK):
            yield out[start : start + CHUNK]
        if frame.eof:
            data = frame.unused_data or f.read(_ZSTD_INPUT)
            if not data:
                return
            frame = zstandard.ZstdDecompressor().decompressobj()
        else:
            data = f.read(_ZSTD_INPUT)
    raise _Broken("zstd data ends early")


def _parquet(path: Path) -> Iterator[list[bytes]]:
    """Rows as JSON objects without their nulls (absent and null mean the same). Memory: one row group."""
    import pyarrow as pa  # 0.2 s that NDJSON need not pay
    import pyarrow.parquet as pq

    rows = 0
    encode = msgspec.json.Encoder(decimal_format="number").encode
    try:
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=BLOCK_RECORDS):
                table = _with_zones(pa, batch)
                block = [encode({k: v for k, v in row.items() if v is not None}) for row in table.to_pylist()]
                rows += len(block)
                if block:
                    yield block
    except (pa.ArrowException, OSError, ValueError) as error:
        what = type(error).__name__  # pyarrow's text may quote values
        message = f"is no whole Parquet file ({what}); the {rows} rows before were read: fetch it anew"
        raise DamagedFile(Problem(str(path), rows + 1, message)) from error


def _with_zones(pa: Any, batch: Any) -> Any:
    """Timestamps without a zone are UTC: JSON needs the zone, and microseconds are its finest unit."""
    for i, column in enumerate(batch.schema):
        if pa.types.is_timestamp(column.type) and (column.type.tz is None or column.type.unit == "ns"):
            target = pa.timestamp("us", tz=column.type.tz or "UTC")
            batch = batch.set_column(i, column.name, batch.column(i).cast(target, safe=False))
    return batch
