"""The features stage: closed ticks in, one row per subject and tick out, state kept by partition.

One pass over any number of ticks, partitions and accounts: Polars makes each event's contributions, one
compiled loop folds them into panes and reads the windows, Polars derives the catalogue's columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.arrays import Frozen, Opened
from monitor.features import aggregates as agg
from monitor.features import expressions, state
from monitor.features.accounts import AccountTable
from monitor.features.blobs import BlobTable
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.features.kernel import fold
from monitor.features.panes import Level, days_begin_ms, minute_hour_day, unlink
from monitor.features.readings import readings
from monitor.features.recent import carried, set_column
from monitor.features.shapes import (
    EXEMPLAR_BYTES,
    EXEMPLARS,
    MINHASH_BYTES,
    MODELS,
    TOTALS,
    Columns,
    Events,
    Room,
    Sums,
    Windows,
)
from monitor.features.strings import coded, fixed_bytes, hashed, stable_hash
from monitor.jit import warmup
from monitor.records import EVENT_SCHEMA, REQUEST_SET, ROW_KEYS
from monitor.vectors import FLAGS_READ, GAP, NOVELTY, SET_SIZE, VectorLayout

TOTAL_COLUMNS = (
    "total_requests", "total_input_tokens", "total_output_tokens", "total_reasoning_tokens", "total_cost_microusd",
)  # fmt: skip
"""Exposure since the subject was first seen in this state (it leaves after ``idle_days`` of silence)."""

_MAX_MODELS = 32_000


@dataclass(frozen=True, slots=True)
class FeatureOptions:
    """``tick_s`` divides a minute; an account silent for ``idle_days`` (at least the longest window) starts afresh."""

    tick_s: int = 10
    idle_days: float = 7.0

    def __post_init__(self) -> None:
        if self.tick_s < 1 or 60 % self.tick_s:
            raise ValueError(f"features.tick_s is {self.tick_s}: it must divide 60")
        if self.idle_days < 7:
            raise ValueError(f"features.idle_days is {self.idle_days}: windows are as long as 7 days")


class _Last(NamedTuple):
    """What may be asked of the rows of the last update [rows, ...]: copies, for the windows are 3 KB a row."""

    slot: npt.NDArray[np.int32]
    due: npt.NDArray[np.uint8]
    exemplar_key: npt.NDArray[np.uint64]
    exemplar_id: npt.NDArray[np.uint8]
    models: npt.NDArray[np.int16]

    @classmethod
    def of(cls, out: Windows, rows: int) -> _Last:
        return cls(*(getattr(out, name)[:rows].copy() for name in cls._fields))


class FeatureEngine:
    """See the module. ``text`` says where the sketch keeps its scalars, ``codes`` the vocabulary's codes needed."""

    def __init__(self, options: FeatureOptions, text: agg.TextLayout, codes: dict[str, int]):
        self.options = options
        self._tick_ms = options.tick_s * 1000
        self._idle_ms = int(options.idle_days * 86_400_000)
        self._vectors, self._codes = VectorLayout(tuple(text.shape), tuple(text.lexicon)), codes
        self.accounts = AccountTable(60 // options.tick_s, self._vectors.width)
        self.minute, self.hour, self.day = minute_hour_day()
        self.blobs = BlobTable(self._tick_ms)
        self._models: dict[str, int] = {}
        self._last = _Last.of(self._windows(0), 0)
        self._narrow = self._ordered(agg.NARROW_HOUR, agg.narrow_expressions(text, codes), agg.KERNEL_NARROW)
        self._wide = self._ordered(agg.WIDE_HOUR, agg.wide_expressions(), agg.KERNEL_WIDE)
        self._bits = self._ordered(agg.BITS_HOUR, agg.bits_expressions(), ())
        self._derive = expressions.feature_expressions()
        self._class = expressions.client_class().alias("client_class")
        self._reads = {name for e in (*self._derive, self._class) for name in e.meta.root_names()}
        narrow, wide = agg.NARROW_HOUR.index, agg.WIDE_HOUR.index
        self._columns = Columns(
            n=narrow("n"), batch=narrow("n_batch"), template=narrow("opening_0"), model=narrow("model_0"),
            gap_n=narrow("n_gap"), gap=narrow("gap"), first=narrow("n_first"), exact=narrow("n_exact"),
            near=narrow("n_near"), gap2=wide("gap2"), bits_models=agg.BITS_HOUR.index("models"),
            day_narrow=len(agg.NARROW_DAY),
            day_wide=len(agg.WIDE_DAY), day_bits=len(agg.BITS_DAY), minute_narrow=len(agg.NARROW_MINUTE),
            minute_wide=len(agg.WIDE_MINUTE), novelty=self._vectors.index(NOVELTY),
            vector_gap=self._vectors.index(GAP),
        )  # fmt: skip

    @staticmethod
    def _ordered(names: tuple[str, ...], made: Mapping[str, pl.Expr], kernel: tuple[str, ...]) -> list[pl.Expr]:
        """Expressions in pane order, with a zero where the kernel fills in."""
        return [(made[n] if n not in kernel else pl.lit(0, pl.Int32)).alias(n) for n in names]

    def update(
        self, events: pl.DataFrame, horizon_ms: Mapping[int, int], product_seen: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Rows for the closed ticks of ``events`` (EVENT_SCHEMA and ``tick``), sorted by partition, tick, subject.

        ``horizon_ms``: each partition's watermark, before which no event can come; it only decides what may be
        forgotten. ``product_seen`` (subject, product_seen_ms, sorted by time) joins first-party telemetry as
        of the row's last event. Columns: ROW_KEYS,
        the catalogue's features, TOTAL_COLUMNS, ``origin`` (for :meth:`exemplars` and :meth:`models`), REQUEST_SET.
        """
        if events.is_empty():
            return self.empty()
        horizon_ms = self._oldest_ms(events, horizon_ms)
        self._evict(horizon_ms, len(events))
        slots = self.accounts.assign(events["subject"], events["partition"])
        events = self.blobs.flag(events.hstack([pl.Series("slot", slots)]))
        events = events.sort("slot", "tick", "t_ms", "request_key", "dedup_key")
        columns = self._event_arrays(events)
        self.make_room(len(events), horizon_ms)
        out = self._windows(len(events))
        sizes = np.array([self.minute.size, self.hour.size, self.day.size], np.int64)
        rows = fold(
            columns, self.accounts.arrays, self.accounts.rings(slots),
            self.minute.arrays, self.hour.arrays, self.day.arrays, sizes, self._columns,
            self._tick_ms, self._idle_ms, self._room(), out,
        )  # fmt: skip
        self.minute.size, self.hour.size, self.day.size = sizes.tolist()
        self._last = _Last.of(out, rows)
        named = events["subject"].gather(np.searchsorted(columns.slot, out.slot[:rows]))
        return self._rows(out, rows, named, product_seen)

    def empty(self) -> pl.DataFrame:
        """A frame of rows without a row."""
        schema = {**ROW_KEYS, **{n: pl.Float64() for n in ACCOUNT_FEATURES.names}}
        whole = {n: pl.Int64() for n in (*TOTAL_COLUMNS, "origin")}
        return pl.DataFrame(schema={**schema, **whole, REQUEST_SET: pl.Binary()})

    def carry(self, scored: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """``scored`` (rows of the last update, all of an account's in order of time) with the ``columns`` (at most 8)
        of rows that were not due filled by what the account's last due row got; remembered for the rows to come."""
        if scored.is_empty():
            return scored
        origin = scored["origin"].to_numpy()
        slots = self._last.slot[origin]
        values = scored.select(pl.col(c).fill_null(float("nan")) for c in columns).to_numpy()
        filled = carried(slots, self._last.due[origin], values, self.accounts.arrays.opinion)
        self.accounts.arrays.dirty[slots] = 1
        return scored.with_columns(pl.Series(c, filled[:, i], nan_to_null=True) for i, c in enumerate(columns))

    def exemplars(self, origin: int) -> list[str]:
        """Up to 8 request ids of the last two days as of a row of the last update (its ``origin``), by keyed hash."""
        ids, keys = self._last.exemplar_id[origin], self._last.exemplar_key[origin]
        named = [bytes(ids[j]).rstrip(b"\0").decode() for j in np.argsort(keys, kind="stable").tolist()]
        return [name for name in named if name]

    def models(self, origin: int) -> list[str]:
        """Models that had answered the subject with success by a row of the last update, at most 8, by name."""
        names = list(self._models)
        return sorted(names[m] for m in self._last.models[origin].tolist() if m >= 0)

    def recent(self, partition: int, subject: str) -> npt.NDArray[np.uint8]:
        """The subject's last requests as vectors, oldest first: uint8 [0 to 32, width]; none for one without state."""
        slot = self.accounts.find(partition, subject)
        if slot is None:
            return np.zeros((0, self._vectors.width), np.uint8)
        n = int(self.accounts.arrays.recent_n[slot])
        return self.accounts.recent.entries(slot, np.arange(max(n - SET_SIZE, 0), n) % SET_SIZE)

    @property
    def nbytes(self) -> int:
        """Bytes of state."""
        return self.accounts.nbytes + self.minute.nbytes + self.hour.nbytes + self.day.nbytes

    def dump(self, partition: int, *, full: bool = True) -> bytes:
        """The partition's state; with ``full=False`` only what changed since the last dump of it."""
        return state.dump(self, partition, full=full)

    def slices(self, partition: int, *, full: bool) -> Iterator[Frozen]:
        """Copies of what is to be written, some accounts at a time, until about that many are left: of all the state
        with ``full``, else of what changed. Batches may be processed in between; :meth:`freeze` ends it, once there
        are no more."""
        return state.slices(self, partition, full=full)

    def freeze(self, partition: int, *, full: bool) -> Frozen:
        """A copy of what changed since the last dump or copy of it. ``full`` as :meth:`slices` was given it."""
        return state.freeze(self, partition, full=full)

    def load(self, partition: int, blob: bytes | Opened) -> None:
        """Take a dump over; deltas are loaded in the order in which they were made, after a full one."""
        state.load(self, partition, blob)

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        state.drop(self, partition)

    def model_id(self, name: str) -> int:
        """A small number for a model's name, -1 beyond 32,000 names."""
        if name not in self._models and len(self._models) >= _MAX_MODELS:
            return -1
        return self._models.setdefault(name, len(self._models))

    def model_names(self) -> list[str]:
        """Names by their number."""
        return list(self._models)

    def _event_arrays(self, events: pl.DataFrame) -> Events:
        first = (pl.col("turn_index").fill_null(0) == 0) & (pl.col("n_messages").fill_null(1) <= 2)
        ok = (pl.col("status") >= 200) & (pl.col("status") < 300)
        model, names = coded(events["model"])
        model_hash, key_hash = hashed(model, names), stable_hash(events["api_key_id"])
        events = events.hstack([model_hash.alias("model_hash"), key_hash.alias("key_hash")])
        flags = events.select(
            first=(first & pl.col("prompt_exact").is_not_null()).cast(pl.UInt8),
            exact=pl.col("prompt_exact").fill_null(0),
            created=pl.col("account_created_ms").fill_null(-1),
            opening=pl.col("prompt_prefix").fill_null(0),
            closing=pl.col("prompt_tail").fill_null(0),
            key=pl.col("request_key").fill_null(0),
            ok=ok.fill_null(False),
        )
        told = events["minhash"].is_not_null().to_numpy()
        minhash = np.zeros((len(events), MINHASH_BYTES), np.uint8)
        if told.any():
            minhash[told] = events["minhash"].drop_nulls().to_numpy()[:, :MINHASH_BYTES]
        answered = np.where(flags["ok"].to_numpy(), model, -1)
        ids = np.full(len(names) + 1, -1, np.int16)
        for code in sorted(np.unique(answered[answered >= 0]).tolist(), key=lambda code: names[code]):
            ids[code] = self.model_id(names[code])
        return Events(
            slot=events["slot"].to_numpy(),
            tick=events["tick"].to_numpy(),
            t_ms=events["t_ms"].to_numpy(),
            created_ms=flags["created"].to_numpy(),
            narrow=np.ascontiguousarray(events.select(self._narrow).to_numpy(order="c")),
            wide=np.ascontiguousarray(events.select(e.cast(pl.Int64) for e in self._wide).to_numpy(order="c")),
            bits=np.ascontiguousarray(events.select(self._bits).to_numpy(order="c")),
            first=flags["first"].to_numpy(),
            exact=flags["exact"].to_numpy(),
            minhash=minhash,
            opening=flags["opening"].to_numpy(),
            closing=flags["closing"].to_numpy(),
            key=flags["key"].to_numpy(),
            request_id=fixed_bytes(events["request_id"], EXEMPLAR_BYTES),
            model=ids[answered],
            vector=self._vectors.pack(events, self._codes),
        )

    def make_room(self, rows: int, horizon_ms: Mapping[int, int] = MappingProxyType({})) -> None:
        """Make the levels fit the accounts and ``rows`` more panes; without a horizon nothing is forgotten."""
        levels = (self.minute, self.hour, self.day)
        for level in levels:
            head = level.arrays.head
            if len(head) < self.accounts.capacity:
                old = len(head)
                head.resize(self.accounts.capacity, refcheck=False)
                head[old:] = -1
        for level in levels:
            if not level.has_room(rows):
                level.reserve(rows, self.horizon_of(level, horizon_ms))

    def horizon_of(self, level: Level, horizon_ms: Mapping[int, int]) -> npt.NDArray[np.int64]:
        """The horizon of each slot's partition in the time of that level's panes, 0 where there is none: int64
        [capacity]. Days are told from where each account's own begin."""
        horizon = self._horizon_of_each(horizon_ms)
        return horizon - days_begin_ms(self.accounts.arrays.first_ms) if level is self.day else horizon

    def _horizon_of_each(self, horizon_ms: Mapping[int, int]) -> npt.NDArray[np.int64]:
        """The horizon of each slot's partition, 0 where there is none: int64 [capacity]."""
        partition = self.accounts.arrays.partition
        horizon = np.zeros(max([*horizon_ms, int(partition.max(initial=0))]) + 2, np.int64)
        for p, ms in horizon_ms.items():
            horizon[p] = ms
        return horizon[partition]  # -1, nobody's, reads the last

    def _oldest_ms(self, events: pl.DataFrame, horizon_ms: Mapping[int, int]) -> dict[int, int]:
        """Start of the oldest tick of which a row may be made now or later, by partition.

        A batch of days has rows far behind the watermark at its end: what they look at is not over for them.
        """
        partitions, tick = events["partition"].to_numpy(), events["tick"].to_numpy()
        first = {p: int(tick[partitions == p].min()) for p in np.unique(partitions).tolist()}
        ticks = {p: min(ms // self._tick_ms, first.get(p, ms)) for p, ms in horizon_ms.items()}
        return {p: tick * self._tick_ms for p, tick in ticks.items()}

    def _evict(self, horizon_ms: Mapping[int, int], more: int) -> None:
        """Give the slots of silent accounts back before the arrays would grow. They would start afresh anyway."""
        if len(self.accounts) + more <= self.accounts.capacity:
            return
        a = self.accounts.arrays
        silent = (a.partition >= 0) & (a.last_ms < self._horizon_of_each(horizon_ms) - self._idle_ms)
        gone = np.flatnonzero(silent).tolist()
        for level in (self.minute, self.hour, self.day):
            for s in gone:
                unlink(s, level.arrays)
        self.accounts.release(gone)

    def _room(self) -> Room:
        hour, day = self.hour.columns, self.day.columns
        tick, of_day, of_week, cold_day, cold_week = (Sums.empty(*columns) for columns in (hour, hour, day, hour, day))
        return Room(tick, of_day, of_week, cold_day, cold_week, np.full(10, -1, np.int64))

    def _windows(self, rows: int) -> Windows:
        def ints(*shape: int) -> npt.NDArray[np.int64]:
            return np.zeros(shape, np.int64)

        hour, day = len(agg.NARROW_HOUR), len(agg.NARROW_DAY)
        return Windows(
            slot=np.zeros(rows, np.int32), tick=ints(rows), t_ms=ints(rows), minute=ints(rows),
            hour_narrow=ints(len(agg.NARROW_MINUTE), rows), hour_wide=ints(len(agg.WIDE_MINUTE), rows),
            hour_peak=ints(rows), day_narrow=ints(hour, rows), day_wide=ints(len(agg.WIDE_HOUR), rows),
            day_bits=np.zeros((len(agg.BITS_HOUR), rows), np.uint64), day_hours=ints(rows),
            past_narrow=ints(day, rows), past_wide=ints(len(agg.WIDE_DAY), rows), past_days=ints(rows),
            week_n=ints(rows), week_output=ints(rows), week_bits=np.zeros((len(agg.BITS_DAY), rows), np.uint64),
            week_hours=ints(24, rows), totals=ints(TOTALS, rows),
            exemplar_key=np.zeros((rows, EXEMPLARS), np.uint64),
            exemplar_id=np.zeros((rows, EXEMPLARS, EXEMPLAR_BYTES), np.uint8),
            models=np.zeros((rows, MODELS), np.int16),
            set_end=ints(rows), due=np.zeros(rows, np.uint8),
            # room for a set in every row; of what is not written the system makes no memory
            sets=np.empty(rows * SET_SIZE * self._vectors.width, np.uint8),
        )  # fmt: skip

    def _rows(self, out: Windows, rows: int, named: pl.Series, product_seen: pl.DataFrame | None) -> pl.DataFrame:
        def block(prefix: str, names: tuple[str, ...], values: npt.NDArray[np.generic]) -> dict[str, pl.Series]:
            return {prefix + n: pl.Series(values[i, :rows]) for i, n in enumerate(names) if prefix + n in self._reads}

        slot = out.slot[:rows]
        accounts = self.accounts.arrays
        frame = pl.DataFrame(
            {
                "origin": pl.Series(np.arange(rows, dtype=np.int64)),
                "subject": named,
                "partition": accounts.partition[slot],
                "tick": out.tick[:rows],
                "t_ms": out.t_ms[:rows],
                "created_ms": accounts.created_ms[slot],
                "minute_n": out.minute[:rows],
                "h_peak": out.hour_peak[:rows],
                "active_hours": out.day_hours[:rows],
                "past_days": out.past_days[:rows],
                "w_n": out.week_n[:rows],
                "w_output_tokens": out.week_output[:rows],
                **block("h_", agg.NARROW_MINUTE, out.hour_narrow),
                **block("h_", agg.WIDE_MINUTE, out.hour_wide),
                **block("d_", agg.NARROW_HOUR, out.day_narrow),
                **block("d_", agg.WIDE_HOUR, out.day_wide),
                **block("d_", agg.BITS_HOUR, out.day_bits),
                **block("p_", agg.NARROW_DAY, out.past_narrow),
                **block("p_", agg.WIDE_DAY, out.past_wide),
                **block("w_", agg.BITS_DAY, out.week_bits),
                **dict(zip(TOTAL_COLUMNS, out.totals[:, :rows], strict=True)),
                **readings(out, rows),
                REQUEST_SET: set_column(REQUEST_SET, out.set_end[:rows], out.due[:rows], out.sets),
            }
        )
        if product_seen is None or product_seen.is_empty():
            frame = frame.with_columns(product_seen_ms=pl.lit(None, pl.Int64))
        else:
            seen = product_seen.with_columns(_at=pl.col("product_seen_ms"))
            frame = frame.sort("t_ms").join_asof(
                seen, left_on="t_ms", right_on="_at", by="subject", check_sortedness=False
            )
        return frame.select(
            "subject", "partition", "tick", "t_ms", self._class, *self._derive, *TOTAL_COLUMNS, "origin", REQUEST_SET
        ).sort("partition", "tick", "subject")


@warmup
def _warm() -> None:
    """Compile the stage's kernels by one event."""

    class _Any(agg.TextLayout):
        def scalar(self, name: str) -> pl.Expr:
            return pl.lit(0, pl.UInt8)

        def flag(self, name: str) -> pl.Expr:
            return pl.lit(False)

    codes = dict.fromkeys(("batch", "length", "json", "json_schema", "high"), 1)
    engine = FeatureEngine(FeatureOptions(), _Any([], FLAGS_READ), codes)
    row = {
        "partition": 0, "t_ms": 0, "tick": 0, "subject": "a", "request_id": "r", "model": "m", "status": 200,
        "input_tokens": 1, "output_tokens": 1, "blobs": [1], "conversation": 1,
    }  # fmt: skip
    schema = {**EVENT_SCHEMA, "tick": pl.Int64()}
    engine.update(pl.DataFrame([{name: row.get(name) for name in schema}], schema=schema), {0: 0})
    engine.make_room(len(engine.minute.arrays.slot) + 1)  # what expired is dropped first
    blob = engine.dump(0)
    engine.drop(0)
    engine.load(0, blob)
