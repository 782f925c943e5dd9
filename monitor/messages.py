"""Messages of a batch as one array of bytes: what a source hands to decode where an object each would cost too much.

A ``bytes`` object a message, made in the source and joined again in decode, held the interpreter's lock for 6 us of
the 76 us of processor time that a request takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, overload

import numpy as np
import numpy.typing as npt

PADDING: Final = 64
"""Readable bytes after the last message: kernels load eight bytes at a time, and compare a name at a time."""

_NOTHING: Final = np.zeros(0, np.uint8)


class Messages(Sequence[bytes | None]):
    """``data`` (uint8) holds the messages end to end and :data:`PADDING` bytes; ``at`` (int64, n + 1) where each begins
    and the last one ends; where ``missing`` (bool, n; None: nowhere) there is none. As a sequence: ``bytes`` or None.
    """

    __slots__ = ("_data", "_make", "at", "missing")

    def __init__(
        self, data: npt.NDArray[np.uint8] | Callable[[], npt.NDArray[np.uint8]], at: npt.NDArray[np.int64],
        missing: npt.NDArray[np.bool_] | None = None,
    ):  # fmt: skip
        """``data`` may be what makes it, once, for whoever reads the first message: in a thread that has the time."""
        self._make = data if callable(data) else None
        self._data = _NOTHING if callable(data) else data
        self.at, self.missing = at, missing

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """The bytes; none once they were given back."""
        if self._make is not None:
            self._data, self._make = self._make(), None
        return self._data

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> Messages:
        """The same messages; as they are where they lie so already."""
        if isinstance(values, cls):
            return values
        held = [b"" if value is None else value for value in values]
        at = np.zeros(len(held) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, held), np.int64, len(held)), out=at[1:])
        data = np.frombuffer(bytearray().join([*held, bytes(PADDING)]), np.uint8)
        return cls(data, at, np.fromiter((value is None for value in values), np.bool_, len(held)))

    def forget(self) -> None:
        """Give the bytes back; how many there were stays known. Reading a message raises ValueError from then on."""
        self._data, self._make = _NOTHING, None

    def take(self, rows: npt.NDArray[np.int64]) -> Sequence[bytes | None]:
        """The messages at ``rows``; of ones whose bytes were given back, their lengths."""
        if self.data is not _NOTHING:
            return [self[i] for i in rows.tolist()]
        at = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.diff(self.at)[rows], out=at[1:])
        return Messages(_NOTHING, at)

    @property
    def nbytes(self) -> int:
        """Bytes of all messages."""
        return int(self.at[-1])

    def __len__(self) -> int:
        return len(self.at) - 1

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        data = self._held()
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(index)
        if self.missing is not None and self.missing[i]:
            return None
        return data[self.at[i] : self.at[i + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        whole, at = self._held().data, self.at.tolist()
        missing = None if self.missing is None or not self.missing.any() else self.missing.tolist()
        for i in range(len(at) - 1):
            yield None if missing is not None and missing[i] else bytes(whole[at[i] : at[i + 1]])

    def _held(self) -> npt.NDArray[np.uint8]:
        if self.data is _NOTHING:
            raise ValueError("the bytes of these messages were given back when they had been decoded")
        return self.data
