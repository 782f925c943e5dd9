"""One batch in, one frame and its rejects out, in record order.

The loop calls the typed struct for each record; what that refuses is read again tolerantly; then times
are settled, policies applied and columns built. Every record is a row or a reject, and nothing that one
record says changes what becomes of another: splitting a batch changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.decode.columns import columns_of, contract_series, seconds_to_ms
from monitor.decode.tolerant import Refusal, read_tolerantly
from monitor.decode.wire import NO_SKETCH, Row, read_members, read_row
from monitor.fields import ENTITIES, FIELDS, TIME_MAX_S, TIME_MIN_S, spelling
from monitor.records import Decoded, Expanded, Int64Array, RawBatch, Refused, Reject

Columns = dict[str, list[Any]]
"""Field -> its values in row order; times are epoch seconds once settled."""

EXACT_OFFSETS = 1024
"""Unknown fields are counted in each of a partition's first records, then in one of SAMPLE by a hash of the offset."""
SAMPLE = 64
MADE_BYTES = 1 << 30
"""Longest record that a mapping may make of a message that was short enough."""

_SUBJECTS = {"account": "account_id", "org": "org_id", "project": "project_id", "key": "api_key_id"}


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Limits and keys of the stage.

    ``digest_key`` keys the digest of a reject (1 to 64 bytes). ``max_bytes`` is the longest value accepted.
    ``future_s`` is how far event time may lie after the record's Kafka timestamp. ``entity`` is what is
    scored, one of ``fields.ENTITIES``. ``expand`` reads another log format (``formats.expander``); None: contract 1.
    """

    digest_key: bytes
    max_bytes: int = 1 << 20
    future_s: float = 300.0
    entity: str = "account"
    expand: Callable[[RawBatch], Expanded] | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.digest_key) <= 64:
            raise ValueError("digest_key: give 1 to 64 bytes")
        if self.max_bytes < 1:
            raise ValueError("max_bytes: give at least 1")
        if not self.future_s >= 0:
            raise ValueError("future_s: give 0 or more seconds")
        if self.entity not in ENTITIES:
            raise ValueError(f"entity: give one of {', '.join(ENTITIES)}")


def decode(batch: RawBatch, options: DecodeOptions) -> Decoded:
    """Decodes ``batch``: ``frame.height + len(rejects) == len(batch)``, both in record order. Never raises on input.

    With ``options.expand`` a record may hold several requests or none: then ``frame.height + len(rejects) + ignored``
    is the number of items in all records (:class:`Expanded`), and a reject has the item's index.
    The frame has ``partition, offset, record_ms`` (null: none), ``t_ms`` (event time), ``ts_ms``, ``subject``
    (null for ``account+end_user``: the sketch step makes it, and where the entity's id is not known) and the
    columns of each contract field that occurs (``fields.Field.columns``; coded fields as UInt8, ``sketch`` as the
    JSON object's bytes). ``unknown_fields`` is exact over a partition's first 1,024 offsets, a 1-in-64 estimate after.
    """
    if options.expand is None:
        return _decode(batch, options, None, batch)
    made = options.expand(batch)
    return _decode(made.batch, options, made, batch)


def _decode(batch: RawBatch, options: DecodeOptions, made: Expanded | None, read: RawBatch) -> Decoded:
    # What a mapping wrote may be longer than what it read (escapes): its length was judged before.
    max_bytes = options.max_bytes if made is None else MADE_BYTES
    rows, hard = _read(batch.values, max_bytes)
    refused: dict[int, Refusal] = {}
    wrong: dict[int, list[str]] = {}
    mended: set[int] = set()
    for i in hard:
        given = batch.values[i]
        if isinstance(given, Refused):
            refused[i] = Refusal(given.reason, given.field)
            continue
        value = given or b""
        answer = Refusal("oversize") if len(value) > max_bytes else read_tolerantly(value)
        if isinstance(answer, Refusal):
            refused[i] = answer
            continue
        rows[i] = answer.row
        if answer.wrong:
            wrong[i] = list(answer.wrong)
        if answer.mended:
            mended.add(i)

    kept = np.arange(len(rows), dtype=np.int64)
    if refused:
        kept = np.setdiff1d(kept, np.fromiter(refused, np.int64))
        rows = [row for row in rows if row is not None]
    columns = columns_of(rows)
    for j, name in [*_settle_times(columns), *_settle_sketches(columns)]:
        if name == "ts":
            refused[int(kept[j])] = Refusal("out_of_range", name)
        else:
            wrong.setdefault(int(kept[j]), []).append(name)
    ts_ms, t_ms = _event_times(columns)
    stamps = np.asarray(batch.timestamp_ms, np.int64)[kept]
    for j in np.flatnonzero((stamps >= 0) & (t_ms > stamps + round(options.future_s * 1000))).tolist():
        late_name = "ts" if columns["completed_at"][j] is None else "completed_at"
        refused.setdefault(int(kept[j]), Refusal("future", late_name))
    if len(kept) + len(refused) > len(batch):
        good = np.isin(kept, np.fromiter(refused, np.int64), invert=True)
        columns = {name: list(compress(values, good.tolist())) for name, values in columns.items()}
        kept, ts_ms, t_ms, stamps = kept[good], ts_ms[good], t_ms[good], stamps[good]
    _apply_policies(columns)

    counts = Counter(name for i, names in wrong.items() if i not in refused for name in names)
    partition, offset = np.asarray(batch.partition, np.int32)[kept], np.asarray(batch.offset, np.int64)[kept]
    return Decoded(
        frame=_frame(columns, partition, offset, stamps, t_ms, ts_ms, options.entity),
        rejects=tuple(_reject(batch, i, refused[i], options.digest_key, made, read) for i in sorted(refused)),
        wrong_types={name: counts[name] for name in FIELDS if counts[name]},
        unknown_fields=_unknown_fields(batch.values, kept, offset) if made is None else 0,
        mended=len(mended - refused.keys()),
        ignored=0 if made is None else made.ignored,
        partly=frozenset() if made is None else _partly(made, partition, offset, refused),
    )


def _read(values: Sequence[bytes | None], max_bytes: int) -> tuple[list[Row], list[int]]:
    """The rows that the typed struct accepts (None elsewhere) and the indices of the others."""
    rows: list[Row] = []
    hard: list[int] = []
    keep, fast = rows.append, read_row
    for value in values:
        try:
            if value is None or len(value) > max_bytes:
                hard.append(len(rows))
                keep(None)
            else:
                keep(fast(value))
        except (ValueError, RecursionError):
            hard.append(len(rows))
            keep(None)
    return rows, hard


def _settle_times(columns: Columns) -> Iterator[tuple[int, str]]:
    """Makes every time a float; gives (row, field) for each time that was a string and is out of range.

    The optional ones become null; ``ts`` stays as it is, for its row is refused.
    """
    for name in ("ts", "completed_at", "account_created_at"):
        times = columns[name]
        try:
            np.array(times, np.float64)  # a tenth of the cost of asking each value for its type
            continue
        except TypeError:
            pass
        for j, when in enumerate(times):
            if isinstance(when, datetime):
                seconds = when.timestamp()
                times[j] = seconds
                if not TIME_MIN_S <= seconds <= TIME_MAX_S:
                    times[j] = seconds if name == "ts" else None
                    yield j, name


def _event_times(columns: Columns) -> tuple[Int64Array, Int64Array]:
    """``ts`` and event time in milliseconds."""
    ts_ms = seconds_to_ms(np.array(columns["ts"], np.float64))
    done = np.array(columns["completed_at"], np.float64)
    known = ~np.isnan(done)
    t_ms = ts_ms.copy()
    t_ms[known] = seconds_to_ms(done[known])
    return ts_ms, t_ms


def _settle_sketches(columns: Columns) -> Iterator[tuple[int, str]]:
    """Nulls each ``sketch`` that is not an object; gives (row, field) for those that are not null either."""
    sketches = columns["sketch"]
    for j, sketch in enumerate(sketches):
        if sketch is not NO_SKETCH:
            text = bytes(sketch)
            if text[:1] != b"{":
                sketches[j] = NO_SKETCH
                if text != b"null":
                    yield j, "sketch"


def _apply_policies(columns: Columns) -> None:
    """Drops what ``content_policy`` does not allow to be looked at.

    ``none``, and whatever is not a policy, loses text and sketch. ``sketch`` loses text that comes beside a
    sketch; text alone stays for the sketch step, which makes the sketch of it and drops it.
    """
    policies = columns["content_policy"]
    if set(policies) <= {None, "full"}:
        return
    sketches = columns["sketch"]
    for j, policy in enumerate(policies):
        word = "full" if policy is None else spelling("content_policy", policy)
        if word == "full" or (word == "sketch" and sketches[j] is NO_SKETCH):
            continue
        for name in ("system", "prompt", "response"):
            columns[name][j] = None
        if word != "sketch":
            sketches[j] = NO_SKETCH


def _unknown_fields(values: Sequence[bytes | None], kept: Int64Array, offsets: Int64Array) -> int:
    # Fibonacci hashing of the offset: a producer that alternates two kinds of record must not hide one from a stride.
    hashed = offsets.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(58)
    exact = offsets < EXACT_OFFSETS
    first = sum(_count_unknown(values[i]) for i in kept[exact].tolist())
    return first + SAMPLE * sum(_count_unknown(values[i]) for i in kept[~exact & (hashed == 0)].tolist())


def _count_unknown(value: bytes | None) -> int:
    try:
        return len(read_members(value or b"{}").keys() - FIELDS.keys())
    except (ValueError, RecursionError):
        return 0


def _frame(
    columns: Columns,
    partition: npt.NDArray[np.int32],
    offset: Int64Array,
    stamps: Int64Array,
    t_ms: Int64Array,
    ts_ms: Int64Array,
    entity: str,
) -> pl.DataFrame:
    record_ms = pl.Series("record_ms", stamps)
    series = {s.name: s for s in contract_series(columns)}
    subject = series.get(_SUBJECTS.get(entity, ""), pl.Series(values=[None] * len(offset), dtype=pl.String))
    base = [
        pl.Series("partition", partition),
        pl.Series("offset", offset),
        record_ms.set(record_ms < 0, None),
        pl.Series("t_ms", t_ms),
        pl.Series("ts_ms", ts_ms),
        subject.alias("subject"),
    ]
    return pl.DataFrame([*base, *series.values()])


def _partly(
    made: Expanded, partition: npt.NDArray[np.int32], offset: Int64Array, refused: dict[int, Refusal]
) -> frozenset[tuple[int, int]]:
    """Coordinates that both a row and a reject have."""
    if not refused:
        return frozenset()
    rows = np.fromiter(refused, np.int64)
    bad = set(zip(made.batch.partition[rows].tolist(), made.batch.offset[rows].tolist(), strict=True))
    return frozenset(bad.intersection(zip(partition.tolist(), offset.tolist(), strict=True)))


def _reject(batch: RawBatch, i: int, why: Refusal, key: bytes, made: Expanded | None, read: RawBatch) -> Reject:
    value = (batch.values[i] if made is None else read.values[made.origin[i]]) or b""
    return Reject(
        partition=int(batch.partition[i]),
        offset=int(batch.offset[i]),
        reason=why.reason,
        length=len(value),
        digest=hashlib.blake2b(value, digest_size=16, key=key).hexdigest(),
        field=why.field,
        index=None if made is None else int(made.index[i]),
    )
