"""Numpy arrays and plain values as one compressed, versioned blob: how state is written. No code is ever stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from monitor.errors import MonitorError

MAX_BLOB = 8 << 30
"""Largest state that is read back, uncompressed, in bytes."""

Frozen = Callable[[], bytes]
"""State as it was at one moment, not packed yet: its blob, once, in whatever thread. What it was taken from may go on
changing."""


class StateUnreadable(MonitorError):
    """A state blob is of another version or not ours: start from the offsets of an older checkpoint, or afresh."""


class _Array(msgspec.Struct, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: memoryview


class _Blob(msgspec.Struct):
    kind: str
    version: int
    arrays: dict[str, _Array]
    values: Any


def pack(kind: str, version: int, arrays: Mapping[str, npt.NDArray[Any]], values: Any = None) -> bytes:
    """A blob of named arrays (any shape, numeric) and msgpack-able ``values``."""
    parts = list(_encoded(kind, version, arrays, values))
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=sum(len(part) for part in parts))
    return b"".join([*(compressor.compress(part) for part in parts), compressor.flush()])


def _encoded(
    kind: str, version: int, arrays: Mapping[str, npt.NDArray[Any]], values: Any
) -> Iterator[bytes | memoryview]:
    """The msgpack of a :class:`_Blob` in parts, arrays as they lie in memory: state is hundreds of megabytes, and one
    buffer of it all was a copy more than the process had room for."""
    encode = msgspec.msgpack.encode
    yield b"\x84" + encode("kind") + encode(kind) + encode("version") + encode(version) + encode("arrays")
    yield b"\xdf" + len(arrays).to_bytes(4, "big")
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        shape = [int(n) for n in array.shape]
        yield encode(name) + b"\x93" + encode(array.dtype.str) + encode(shape) + b"\xc6" + len(flat).to_bytes(4, "big")
        yield flat.data
    yield encode("values")
    yield encode(values)


class Opened(NamedTuple):
    """A blob, decompressed and read: what takes time to make and needs nothing but the blob."""

    kind: str
    version: int
    arrays: dict[str, npt.NDArray[Any]]
    values: Any


def opened(blob: bytes) -> Opened:
    """Arrays and values of a blob, whosever they are. Raises StateUnreadable where it is damaged."""
    try:
        raw = zstandard.ZstdDecompressor().decompress(blob, max_output_size=MAX_BLOB)
        read = msgspec.msgpack.decode(raw, type=_Blob)
    except (zstandard.ZstdError, msgspec.DecodeError, MemoryError) as error:
        raise StateUnreadable(f"a state is damaged ({type(error).__name__})") from error
    arrays = {n: np.frombuffer(a.data, a.dtype).reshape(a.shape).copy() for n, a in read.arrays.items()}
    return Opened(read.kind, read.version, arrays, read.values)


def unpack(kind: str, version: int, blob: bytes | Opened) -> tuple[dict[str, npt.NDArray[Any]], Any]:
    """Arrays and values of a blob.

    Raises:
        StateUnreadable: damaged, of another kind or another version.
    """
    try:
        read = blob if isinstance(blob, Opened) else opened(blob)
    except StateUnreadable as error:
        raise StateUnreadable(f"{kind!r}: {error}") from error
    if (read.kind, read.version) != (kind, version):
        raise StateUnreadable(
            f"expected the state of {kind!r} version {version}, found {read.kind!r} version {read.version}: "
            "it was written by another release; delete the checkpoint to start from the committed offsets"
        )
    return read.arrays, read.values
