"""Plain records in bulk: bytes to columns without a Python object for each value, for whatever the kernel accepts.

The typed struct takes 4.9 us a record to read and as much again to turn into columns, all of it under the
interpreter's lock; this takes 2.6 us for both and releases the lock. What it does not accept (``Plain.rows`` says
what it did) goes the other way, and gets the same answer as everything got before. Knows no batch and no policy.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from monitor.decode import scan
from monitor.decode.columns import SCALE, moderated, seconds_to_ms, spellings
from monitor.decode.records import Cells, Layout, copy_lists, copy_strings, read_records
from monitor.decode.wire import read_field
from monitor.fields import CONTENT_POLICIES, FIELDS, ID_LENGTH, TABLES, TIME_MAX_S, TIME_MIN_S, Field, Kind, code
from monitor.jit import warmup
from monitor.messages import PADDING, Messages
from monitor.records import EVENT_SCHEMA, Int64Array

NAMES: Final = tuple(FIELDS)
_AT: Final[Mapping[str, int]] = {name: i for i, name in enumerate(NAMES)}
_CONTENT: Final = ("system", "prompt", "response", "sketch")
_MOST_BYTES: Final = (1 << 31) - PADDING - 1
"""Spans are 32-bit numbers: what lies beyond in a batch goes the other way."""
_KINDS: Final[Mapping[Kind, int]] = {
    Kind.TIME: scan.TIME, Kind.ID: scan.ID, Kind.STRING: scan.TEXT, Kind.TEXT: scan.TEXT, Kind.CODE: scan.CODE,
    Kind.INTEGER: scan.INTEGER, Kind.NUMBER: scan.NUMBER, Kind.BOOLEAN: scan.BOOLEAN, Kind.STRINGS: scan.STRINGS,
    Kind.OBJECT: scan.OBJECT,
}  # fmt: skip


def _kind(field: Field) -> int:
    return scan.ANY_INTEGER if field.name == "seed" else _KINDS[field.kind]


def _bound(field: Field, high: bool) -> float:
    if field.kind is Kind.TIME:
        return float(TIME_MAX_S if high else TIME_MIN_S)
    return float(field.high if high else field.low)


def _joined(words: Sequence[str]) -> tuple[npt.NDArray[np.uint8], Int64Array]:
    encoded = [word.encode() for word in words]
    return np.frombuffer(bytearray().join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


def _layout() -> Layout:
    names, name_at = _joined(NAMES)
    slots = np.full(256, -1, np.int32)
    for f in range(len(NAMES)):
        place = int(scan.name_slot(names, int(name_at[f]), int(name_at[f + 1] - name_at[f]), len(slots)))
        while slots[place] >= 0:
            place = (place + 1) % len(slots)
        slots[place] = f
    quoted = [f'{name}"'.encode() for name in NAMES]
    width = -(-max(map(len, quoted)) // 8) * 8
    masks = [b"\xff" * len(q) for q in quoted]
    name_words, name_masks = (
        np.frombuffer(bytearray().join(part.ljust(width, b"\0") for part in parts), np.uint64).reshape(-1, width // 8)
        for parts in (quoted, masks)
    )
    words: list[str] = []
    codes: list[int] = []
    first = [0]
    for name in NAMES:
        for word, number in spellings(name).items() if name in TABLES else ():
            words.append(word)
            codes.append(number)
        first.append(len(words))
    joined, word_at = _joined(words)
    fields = FIELDS.values()
    return Layout(
        name_words=name_words, name_masks=name_masks, name_size=np.diff(name_at), slots=slots,
        kind=np.array([_kind(f) for f in fields], np.uint8),
        required=np.array([f.required for f in fields], np.uint8),
        low=np.array([_bound(f, False) for f in fields]), high=np.array([_bound(f, True) for f in fields]),
        words=joined, word_at=word_at, word_first=np.array(first, np.int64), word_code=np.array(codes, np.int64),
        contents=np.array([f in _CONTENT for f in NAMES], np.uint8), policy=_AT["content_policy"],
        full=code(CONTENT_POLICIES, "full") or 0, id_length=ID_LENGTH,
    )  # fmt: skip


_LAYOUT: Final = _layout()


class Plain:
    """The plain records of a batch. ``rows``: their places in it, int64, rising; ``ts_ms``, ``t_ms``: their times."""

    def __init__(self, data: npt.NDArray[np.uint8], cells: Cells, rows: Int64Array):
        self._data, self._cells = data, cells
        self._take(rows)

    def _take(self, rows: Int64Array) -> None:
        self.rows = rows
        self._state = np.ascontiguousarray(self._cells.state[rows].T)
        self.ts_ms = seconds_to_ms(self._cells.number[rows, _AT["ts"]])
        known = self._state[_AT["completed_at"]] != scan.ABSENT
        self.t_ms = self.ts_ms.copy()
        self.t_ms[known] = seconds_to_ms(self._cells.number[rows[known], _AT["completed_at"]])

    def keep(self, good: npt.NDArray[np.bool_]) -> None:
        """Leave only the rows where ``good``."""
        self._take(self.rows[good])

    def series(self) -> list[pl.Series]:
        """The series of every field that occurs, as ``columns.contract_series`` makes them of rows."""
        series: list[pl.Series] = []
        for field in FIELDS.values():
            if field.name not in ("ts", "completed_at"):
                known = self._state[_AT[field.name]] != scan.ABSENT
                if field.required or known.any():
                    series += self._series(field, known)
        return series

    def _series(self, field: Field, known: npt.NDArray[np.bool_]) -> list[pl.Series]:
        f, name = _AT[field.name], field.columns[0]
        if field.kind in (Kind.TIME, Kind.NUMBER):
            scale = 1000.0 if field.kind is Kind.TIME else SCALE[field.name]
            scaled = np.rint(np.where(known, self._cells.number[self.rows, f], 0.0) * scale).astype(np.int64)
            return [_masked(name, scaled, known).cast(pl.Int64 if field.kind is Kind.TIME else EVENT_SCHEMA[name])]
        if field.name == "seed":
            return [pl.Series(name, pa.array(known, mask=~known))]
        if field.kind is Kind.STRINGS:
            return self._lists(field, known)
        if field.kind in (Kind.ID, Kind.STRING, Kind.TEXT, Kind.OBJECT):
            return [self._strings(f, name, known, pa.large_binary() if field.kind is Kind.OBJECT else None)]
        integers = self._cells.integer[self.rows, f]
        if field.kind is Kind.BOOLEAN:
            return [pl.Series(name, pa.array(integers == 1, mask=~known))]
        if field.kind is Kind.CODE:
            return [_masked(name, integers.astype(np.uint8), known)]
        return [_masked(name, integers, known).cast(pl.Int64() if field.client_chosen else EVENT_SCHEMA[name])]

    def _spans(self, f: int) -> int:
        return int((self._cells.stop[self.rows, f] - self._cells.start[self.rows, f])[self._state[f] > 0].sum())

    def _strings(self, f: int, name: str, known: npt.NDArray[np.bool_], binary: pa.DataType | None) -> pl.Series:
        n = len(self.rows)
        offsets, out = np.zeros(n + 1, np.int64), np.empty(self._spans(f), np.uint8)
        cells = self._cells
        used = copy_strings(self._data, self.rows, self._state[f], cells.start, cells.stop, f, offsets, out)
        buffers = [_bitmap(known), pa.py_buffer(offsets), pa.py_buffer(out[:used])]
        kind = pa.large_string() if binary is None else binary
        return pl.Series(name, pa.Array.from_buffers(kind, n, buffers))

    def _lists(self, field: Field, known: npt.NDArray[np.bool_]) -> list[pl.Series]:
        f, n = _AT[field.name], len(self.rows)
        room = self._spans(f)
        offsets, ends, out = np.zeros(n + 1, np.int64), np.zeros(room // 2 + 1, np.int64), np.empty(room, np.uint8)
        cells = self._cells
        strings = copy_lists(self._data, self.rows, self._state[f], cells.start, cells.stop, f, offsets, ends, out)
        if field.name == "moderation":
            return [pl.Series("moderated", self._moderated(f, known), dtype=pl.Boolean)]
        buffers = [None, pa.py_buffer(ends[: strings + 1]), pa.py_buffer(out)]
        flat = pa.Array.from_buffers(pa.large_string(), strings, buffers)
        made = pa.LargeListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(~known))
        lists = pl.Series(field.columns[0], made)
        if "n_tools" not in field.columns:
            return [lists]
        return [lists, lists.list.len().cast(EVENT_SCHEMA["n_tools"]).alias("n_tools")]

    def _moderated(self, f: int, known: npt.NDArray[np.bool_]) -> list[bool | None]:
        """By distinct bytes: few categories and actions occur."""
        found: dict[bytes, bool | None] = {}
        answers: list[bool | None] = [None] * len(self.rows)
        for k in np.flatnonzero(known).tolist():
            r = self.rows[k]
            text = self._data[self._cells.start[r, f] : self._cells.stop[r, f]].tobytes()
            if text not in found:
                found[text] = moderated(read_field["moderation"](text))
            answers[k] = found[text]
        return answers


class _Room(threading.local):
    """A thread's cells, used again for each batch: 12 MB for 10,000 records, which the system would make anew."""

    held: Cells | None = None

    def cells(self, n: int, fields: int) -> Cells:
        """Room for ``n`` records, nothing found in any."""
        if self.held is None or len(self.held.state) < n:
            kept = Cells(
                state=np.zeros((n, fields), np.uint8), start=np.empty((n, fields), np.int32),
                stop=np.empty((n, fields), np.int32), integer=np.empty((n, fields), np.int64),
                number=np.empty((n, fields), np.float64),
            )  # fmt: skip
            if n > _MOST_HELD:
                return kept
            self.held = kept
        found = Cells._make(array[:n] for array in self.held)
        found.state[:] = scan.ABSENT
        return found


_ROOM: Final = _Room()
_MOST_HELD: Final = 20_000
"""Records of a batch up to which its cells are kept: 23 MB."""


def read_plain(values: Sequence[bytes | None], max_bytes: int) -> Plain:
    """What of ``values`` is plain: a strict subset of what the typed struct accepts."""
    messages = Messages.of(values)
    data, at = messages.data, messages.at
    n, fields = len(messages), len(NAMES)
    wanted = ((np.diff(at) <= max_bytes) & (at[1:] <= _MOST_BYTES)).astype(np.uint8)
    cells = _ROOM.cells(n, fields)
    read_records(data, at, wanted, np.full(fields + 1, -1, np.int64), *_LAYOUT, *cells)
    _finish_numbers(data, cells, wanted)
    return Plain(data, cells, np.flatnonzero(wanted))


def _finish_numbers(data: npt.NDArray[np.uint8], cells: Cells, good: npt.NDArray[np.uint8]) -> None:
    """The numbers that need more digits than the kernel keeps (``time.time()`` writes 17), rounded as float() does.

    By column: at 4 us each in a loop, the two times of a record cost more than all the rest of its reading.
    """
    later = (cells.state == scan.LATER) & (good == 1)[:, None]
    for f in np.flatnonzero(later.any(axis=0)).tolist():
        rows = np.flatnonzero(later[:, f])
        offsets = np.zeros(len(rows) + 1, np.int64)
        out = np.empty(int((cells.stop[rows, f] - cells.start[rows, f]).sum()), np.uint8)
        copy_strings(data, rows, cells.state[rows, f], cells.start, cells.stop, f, offsets, out)
        text = pa.Array.from_buffers(pa.large_string(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(out)])
        numbers = pl.Series(text, dtype=pl.String).cast(pl.Float64).to_numpy()
        cells.number[rows, f] = numbers
        good[rows] &= (numbers >= _LAYOUT.low[f]) & (numbers <= _LAYOUT.high[f])  # another column may have said no


def _bitmap(known: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    return None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))


def _masked(name: str, values: npt.NDArray[np.generic], known: npt.NDArray[np.bool_]) -> pl.Series:
    return pl.Series(name, pa.array(values, mask=None if known.all() else ~known))


@warmup
def warm_plain() -> None:
    """Compile the kernels by one record."""
    made = read_plain(
        [b'{"ts":1750000000.25,"request_id":"r","account_id":"a","model":"m","input_tokens":1,"output_tokens":1,'
         b'"status":200,"tools":["a"],"prompt":"a\\n"}'], 1 << 20,
    )  # fmt: skip
    assert len(made.rows) == 1, "the record is not plain: its kernels would compile amid the first batch"
    made.series()
