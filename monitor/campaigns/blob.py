"""One partition's part in a campaign step, as it travels: tables of integers, keyed hashes and provider ids."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from monitor.arrays import pack, unpack
from monitor.campaigns import opinions
from monitor.campaigns.items import ITEMS, LOOKED, none_of
from monitor.campaigns.sums import HELD, HELD_AT, NAMES, SHAPE, SHAPE_AT
from monitor.campaigns.tally import I32, I64, TOTALS, rows_of

KIND, VERSION = "links", 3
_MANY = "links of several"
TABLES = ("accounts", "links", "models", "items", "looked")
_SPARE = {n: none_of(t).rename({"row": "account"}) for n, t in (("items", ITEMS), ("looked", LOOKED))}
"""Tables that are left out where they are empty: an empty one takes 500 bytes, and without corpora all are."""


def _all(frames: Mapping[str, pl.DataFrame]) -> list[pl.DataFrame]:
    return [{**_SPARE, **frames}[name] for name in TABLES]


def present(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The frames less those that may be left out."""
    return {name: frame for name, frame in frames.items() if len(frame) or name not in _SPARE}


def frames_to_bytes(frames: dict[str, pl.DataFrame], values: object, kind: str = KIND) -> bytes:
    """Named frames as one blob; equal frames give equal bytes."""
    arrays = {}
    for name, frame in frames.items():
        body = io.BytesIO()
        frame.rechunk().write_ipc(body, compression="uncompressed")
        arrays[name] = np.frombuffer(body.getvalue(), np.uint8)
    return pack(kind, VERSION, arrays, values)


def frames_of_bytes(blob: bytes, kind: str = KIND) -> tuple[dict[str, pl.DataFrame], object]:
    """Raises StateUnreadable for bytes of another kind or version."""
    arrays, values = unpack(kind, VERSION, blob)
    return {name: pl.read_ipc(io.BytesIO(body.tobytes())) for name, body in arrays.items()}, values


@dataclass(frozen=True, slots=True)
class StepBlob:
    """What one partition's accounts did in one step, sorted, so that equal content gives equal bytes.

    ``accounts``, one row each: ``account, tenant`` (organisation or billing account, else the account itself),
    ``created_ms, billing, first_ms, last_ms, ticks`` (bit i: a request in tick i of the step), ``exemplar`` (the
    request id of the smallest keyed hash), totals, sums and ``opinions.CODES``. ``links``: ``account, kind, value,
    count``. ``models``: ``account, model, count``. ``items`` and ``looked``: those of :mod:`~monitor.campaigns.items`,
    empty where no corpus is known. ``account`` is the row in ``accounts``. ``made`` are the columns of ``TOTALS`` and
    ``NAMES`` as the arrays that they were made from, where it was made in this process.
    """

    step: int
    partition: int
    accounts: pl.DataFrame
    links: pl.DataFrame
    models: pl.DataFrame
    items: pl.DataFrame = field(default_factory=lambda: _SPARE["items"])
    looked: pl.DataFrame = field(default_factory=lambda: _SPARE["looked"])
    made: tuple[I64, I32] | None = field(default=None, repr=False, compare=False, kw_only=True)

    def totals(self) -> I64:
        """``TOTALS`` of each account: int64 [accounts, TOTALS]."""
        return self.made[0] if self.made is not None else rows_of(self.accounts, TOTALS, np.int64)

    def sums(self) -> I32:
        """``NAMES`` of each account: int32 [accounts, NAMES]."""
        return self.made[1] if self.made is not None else rows_of(self.accounts, NAMES, np.int32)

    def held(self) -> I32:
        """``HELD`` of each account: int32 [accounts, HELD]."""
        return self.made[1][:, HELD_AT] if self.made is not None else rows_of(self.accounts, HELD, np.int32)

    def shape(self) -> I32:
        """``SHAPE`` of each account: int32 [accounts, SHAPE]."""
        return self.made[1][:, SHAPE_AT] if self.made is not None else rows_of(self.accounts, SHAPE, np.int32)

    def opinions(self) -> opinions.U8:
        """``opinions.CODES`` of each account: uint8 [accounts, HYPOTHESES]."""
        return rows_of(self.accounts, opinions.CODES, np.uint8)

    def encode(self) -> bytes:
        """Bytes for a store."""
        frames = {name: getattr(self, name) for name in TABLES}
        return frames_to_bytes(present(frames), {"step": self.step, "partition": self.partition})

    @staticmethod
    def decode(blob: bytes) -> StepBlob:
        """Raises StateUnreadable."""
        frames, values = frames_of_bytes(blob)
        assert isinstance(values, dict)
        return StepBlob(values["step"], values["partition"], *_all(frames))


def many_to_bytes(blobs: Sequence[StepBlob]) -> bytes:
    """Several blobs, one at least, as one: reading a table costs 0.2 ms however small it is."""
    frames = {name: pl.concat([getattr(blob, name) for blob in blobs]) for name in TABLES}
    places = [[blob.step, blob.partition, *(len(getattr(blob, name)) for name in TABLES)] for blob in blobs]
    return frames_to_bytes(present(frames), places, _MANY)


def many_of_bytes(packed: bytes) -> list[StepBlob]:
    """The reverse. Raises StateUnreadable."""
    read, places = frames_of_bytes(packed, _MANY)
    assert isinstance(places, list)
    frames = dict(zip(TABLES, _all(read), strict=True))
    totals, sums = rows_of(frames["accounts"], TOTALS, np.int64), rows_of(frames["accounts"], NAMES, np.int32)
    begins = [0] * len(TABLES)
    out = []
    for step, partition, *lengths in places:
        tables = [frames[name].slice(b, n) for name, b, n in zip(TABLES, begins, lengths, strict=True)]
        mine = slice(begins[0], begins[0] + lengths[0])
        out.append(StepBlob(step, partition, *tables, made=(totals[mine], sums[mine])))
        begins = [b + n for b, n in zip(begins, lengths, strict=True)]
    return out
