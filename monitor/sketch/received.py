"""The sketch objects of a batch, made by gateways: read, checked, and chosen by key. Knows no text.

The bytes are hostile until checked. One Python step a sketch: every JSON object is read so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.siphash import U64Array

from . import wire
from .arrow import Bools
from .keyring import Keyring
from .vocabulary import WIRE_VERSION

Slots = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SketchStats:
    """What one batch held. Counts of requests."""

    rows: int = 0
    texts: int = 0
    sketches: int = 0
    malformed: int = 0
    unknown_key: int = 0
    other_key: int = 0
    """Sketches under a key of the ring that is not the one due at their time (a gateway ahead or behind)."""
    invalid_ip: int = 0

    def __add__(self, other: SketchStats) -> SketchStats:
        return SketchStats(*(getattr(self, f) + getattr(other, f) for f in self.__slots__))


class Section(msgspec.Struct, gc=False):
    """What one key made of a request, packed (:mod:`monitor.sketch.wire`)."""

    key_id: str
    text: str | None = None
    ids: str | None = None
    blobs: str | None = None


class Wire(msgspec.Struct, gc=False):
    """A sketch object as it comes; unknown members are ignored."""

    v: int
    key_id: str
    form: str | None = None
    text: str | None = None
    ids: str | None = None
    blobs: str | None = None
    corpus: str | None = None
    generator: str | None = None
    next: Section | None = None


_read_wire = msgspec.json.Decoder(Wire).decode


@dataclass
class Received:
    """The gateways' sketches of a batch by row, zeros where there is none; ``here`` says where there is one."""

    here: Bools
    form: npt.NDArray[np.void]
    text: npt.NDArray[np.void]
    ids: npt.NDArray[np.void]
    corpus: npt.NDArray[np.void]
    has_corpus: Bools
    generator: npt.NDArray[np.uint32]
    has_generator: Bools
    blobs: U64Array
    blob_counts: npt.NDArray[np.int64]
    has_blobs: Bools


def receive(
    frame: pl.DataFrame, keyring: Keyring, slots: Slots, *, strict: bool = False
) -> tuple[Received, SketchStats]:
    """The sketch objects of the batch, the section under the key in ``slots`` if there is one.

    Else, unless ``strict``, the section under any other key of the ring: its values are right, only older or newer
    names. With a slot of -1 nothing is taken.
    """
    rows = frame.height
    if "sketch" not in frame.columns or frame.get_column("sketch").null_count() == rows:
        return _nothing(rows), SketchStats()  # unpacking a batch of nulls takes 3 us a row
    form: list[str | None] = [None] * rows
    text, ids, blobs, corpus, generator = form.copy(), form.copy(), form.copy(), form.copy(), form.copy()
    here, malformed = np.zeros(rows, bool), np.zeros(rows, bool)
    unknown = other = 0
    values: list[Any] = frame.get_column("sketch").to_list()
    for i, value in enumerate(values):
        if value is None:
            continue
        try:
            found = _read_wire(value)
        except (ValueError, RecursionError):  # msgspec's errors and Unicode's are ValueErrors
            malformed[i] = True
            continue
        if found.v != WIRE_VERSION:
            malformed[i] = True
            continue
        section, exact = _pick(found, keyring, int(slots[i]))
        if section is None:
            unknown += 1
        elif (exact or not strict) and slots[i] >= 0:
            other += not exact
            here[i] = True
            form[i], text[i], ids[i], blobs[i] = found.form, section.text, section.ids, section.blobs
            corpus[i], generator[i] = found.corpus, found.generator
    records = {}
    members = (("form", form), ("text", text), ("ids", ids), ("corpus", corpus), ("generator", generator))
    for name, packed in members:
        records[name], good = wire.unpack(name, packed)
        malformed |= ~good
    blob_values, counts, good = wire.unpack_blobs(blobs)
    malformed |= ~good
    owner = np.repeat(np.arange(rows), counts)
    blob_values, counts = blob_values[~malformed[owner]], np.where(malformed, 0, counts)
    for record in records.values():
        record[malformed] = np.zeros(1, record.dtype)[0]
    has_corpus = np.array([c is not None for c in corpus], bool) & ~malformed
    has_generator = np.array([g is not None for g in generator], bool) & ~malformed
    families = records["generator"]["bits"].astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)
    has_blobs = np.array([b is not None for b in blobs], bool) & ~malformed
    stats = SketchStats(
        sketches=sum(v is not None for v in values), malformed=int(malformed.sum()), unknown_key=unknown,
        other_key=other,
    )  # fmt: skip
    received = Received(
        here & ~malformed, records["form"], records["text"], records["ids"], records["corpus"], has_corpus, families,
        has_generator, blob_values, counts, has_blobs,
    )  # fmt: skip
    return received, stats


def _nothing(rows: int) -> Received:
    none = np.zeros(rows, bool)
    parts = {name: np.zeros(rows, dtype) for name, dtype in wire.PARTS.items()}
    return Received(
        none, parts["form"], parts["text"], parts["ids"], parts["corpus"], none.copy(), np.zeros(rows, np.uint32),
        none.copy(), np.zeros(0, np.uint64), np.zeros(rows, np.int64), none.copy(),
    )  # fmt: skip


def _pick(found: Wire, keyring: Keyring, slot: int) -> tuple[Section | Wire | None, bool]:
    sections: list[Section | Wire] = [found] if found.next is None else [found, found.next]
    known = [(keyring.slot(s.key_id), s) for s in sections]
    for at, section in known:
        if at is not None and at == slot:
            return section, True
    for at, section in known:
        if at is not None:
            return section, False
    return None, False
