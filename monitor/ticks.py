"""Event time: which tick an event belongs to, when a tick is closed, and what came twice.

Everything here is a function of record order within a partition: the watermark is the *running* maximum of the
event time less the lateness, never a poll's maximum, so how the stream is cut into polls cannot matter. A late
event joins the partition's oldest open tick with its own time; only what is older than the longest window is
dropped, and counted.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.arrays import Frozen, Opened, pack, unpack
from monitor.keytable import KeyTable
from monitor.pieces import few
from monitor.records import EVENT_SCHEMA

KIND, VERSION = "ticks", 2
OLDEST_MS = 7 * 86_400_000
"""What is further behind the watermark than the longest window tells no window anything."""
ACCOUNTS_TO_AGREE = 3
RECORDS_TO_AGREE = 8
"""A jump of the watermark over ``max_jump_ms`` needs this many different accounts within ``max_jump_ms`` of one
another, or, where a partition has fewer, this many records in a row beyond the jump. One absurd record then moves
nothing, and three absurd ones of different years do not add up."""
_AHEAD_MOST = 64
"""Records beyond the jump that are remembered, newest first: a hostile stream must not make it long."""

_STRETCH = 1_024
"""Records that are looked at together, at first, where none of them jumps; twice as many each time. Where many do, the
work stays linear."""

_U64 = npt.NDArray[np.uint64]
_I64 = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]
_U64_SALT = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class TickOptions:
    """Milliseconds of event time; ``dedup_max`` is request keys a partition."""

    tick_ms: int = 10_000
    lateness_ms: int = 2_000
    max_jump_ms: int = 3_600_000
    dedup_ms: int = 3_600_000
    dedup_max: int = 5_000_000


@dataclass(slots=True)
class TickStats:
    """What happened to a batch's events."""

    duplicates: int = 0
    id_reuse: int = 0
    late: int = 0
    dropped: int = 0
    held: int = 0
    """Requests too far ahead to move the watermark alone, those that others agreed with later included."""


@dataclass(slots=True)
class _Clock:
    """One partition's watermark: ``newest_ms`` is -1 until an event is believed; ``ahead`` are those not yet.

    Each has its account, its time, and where the watermark stood: what nobody joined while that went on by a whole
    jump is forgotten. ``run`` counts records beyond the jump since the last one within it.
    """

    newest_ms: int = -1
    ahead: list[tuple[str, int, int]] = field(default_factory=list)
    run: int = 0
    early: list[tuple[int, int]] = field(default_factory=list)
    """Request and id keys of records that came before the first believed one: a handful."""


class TickStage:
    """Assigns ticks, drops duplicates, holds the open ticks of every partition."""

    def __init__(self, options: TickOptions):
        self.options = options
        self._clocks: dict[int, _Clock] = {}
        self._requests = KeyTable(options.dedup_ms, options.dedup_max, valued=False)
        self._ids = KeyTable(options.dedup_ms, options.dedup_max)
        self._open = pl.DataFrame(schema={**EVENT_SCHEMA, "tick": pl.Int64()})

    def push(self, events: pl.DataFrame, trusted_clock: bool = False) -> tuple[pl.DataFrame, TickStats]:
        """Take a batch in record order; return the events of the ticks that it closed, with ``tick`` (Int64).

        ``trusted_clock``: the broker set the record times, so a jump needs no agreement.
        """
        stats = TickStats()
        tick, kept = np.empty(len(events), np.int64), np.empty(len(events), np.bool_)
        times, keys, ids = (events[name].to_numpy() for name in ("t_ms", "dedup_key", "request_key"))
        partitions, accounts = events["partition"].to_numpy(), events["account_id"]
        for partition in np.unique(partitions).tolist():
            at = np.flatnonzero(partitions == partition)  # rows: a frame for each would copy all columns thrice
            newest = self._newest(partition, times[at], accounts, at, trusted_clock)
            tick[at], kept[at] = self._assign(partition, times[at], newest, keys[at], ids[at], stats)
        new = events.with_columns(tick=pl.Series(tick))
        waiting = pl.concat([self._open, new if kept.all() else new.filter(kept)])
        closed = self._closed_ticks(waiting["partition"])
        done = waiting["tick"].to_numpy() < closed
        self._open = few(waiting.filter(~done))
        return waiting.filter(done), stats

    def flush(self, partitions: Sequence[int] | None = None) -> pl.DataFrame:
        """Close every tick (of some partitions): the end of a file."""
        mine = pl.lit(True) if partitions is None else pl.col("partition").is_in(list(partitions))
        done, self._open = self._open.filter(mine), self._open.filter(~mine)
        return done

    def watermark_ms(self, partition: int) -> int | None:
        """Event time before which no tick is open; None before the first believed event."""
        clock = self._clocks.get(partition)
        return None if clock is None or clock.newest_ms < 0 else clock.newest_ms - self.options.lateness_ms

    @property
    def watermarks_ms(self) -> dict[int, int]:
        """Watermark of each partition that has one."""
        marks = ((p, self.watermark_ms(p)) for p in self._clocks)
        return {p: ms for p, ms in marks if ms is not None}

    @property
    def waiting(self) -> int:
        """Events in open ticks."""
        return len(self._open)

    @property
    def nbytes(self) -> int:
        """Bytes of open ticks and request keys."""
        return int(self._open.estimated_size()) + self._requests.nbytes + self._ids.nbytes

    def dump(self, partition: int, *, full: bool = True) -> bytes:
        """The partition's clock, its open ticks, and the request keys (all, or those since the last dump)."""
        return self.freeze(partition, full=full)()

    def freeze(self, partition: int, *, full: bool) -> Frozen:
        """A copy of what :meth:`dump` writes."""
        clock = self._clocks.get(partition, _Clock())
        values = {
            "newest_ms": clock.newest_ms, "ahead": [*clock.ahead], "run": clock.run, "early": [*clock.early],
        }  # fmt: skip
        waiting = self._open
        arrays: dict[str, npt.NDArray[Any]] = {
            f"{name}.{k}": v
            for name, table in (("requests", self._requests), ("ids", self._ids))
            for k, v in table.dump(partition, full=full).items()
        }

        def packed() -> bytes:
            rows = waiting.filter(pl.col("partition") == partition)
            present = [c for c in rows.columns if rows[c].null_count() < len(rows)]
            body = io.BytesIO()
            rows.select(present).write_ipc(body, compression="uncompressed")
            return pack(KIND, VERSION, {"open": np.frombuffer(body.getvalue(), np.uint8), **arrays}, values)

        return packed

    def load(self, partition: int, blob: bytes | Opened) -> None:
        """Take a dump over; the clock and the open ticks are those of the last one loaded."""
        arrays, values = unpack(KIND, VERSION, blob)
        ahead = [(str(account), int(ms), int(at)) for account, ms, at in values["ahead"]]
        early = [(int(key), int(name)) for key, name in values["early"]]
        self._clocks[partition] = _Clock(int(values["newest_ms"]), ahead, int(values["run"]), early)
        rows = pl.read_ipc(io.BytesIO(arrays["open"].tobytes()))
        absent = {n: d for n, d in self._open.schema.items() if n not in rows.columns}
        if rows.width:  # else a literal would make a row of its own
            rows = rows.with_columns(pl.lit(None, d).alias(n) for n, d in absent.items()).select(self._open.columns)
        else:
            rows = self._open.clear()
        self._open = pl.concat([self._open.filter(pl.col("partition") != partition), rows])
        for name, table in (("requests", self._requests), ("ids", self._ids)):
            table.load(partition, {k: arrays[f"{name}.{k}"] for k in ("keys", "values", "times")})

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        self._clocks.pop(partition, None)
        self._open = self._open.filter(pl.col("partition") != partition)
        self._requests.drop(partition)
        self._ids.drop(partition)

    def _assign(
        self, partition: int, t: _I64, newest: _I64, keys: _U64, ids: _U64, stats: TickStats
    ) -> tuple[_I64, _Bools]:
        """Tick of each event of a partition, and which to keep."""
        mark = newest - self.options.lateness_ms
        own, oldest_open = t // self.options.tick_ms, mark // self.options.tick_ms
        tick = np.where(newest >= 0, np.maximum(own, oldest_open), own)
        now = np.where(newest >= 0, np.maximum(oldest_open * self.options.tick_ms, 0), 0)
        too_old = (newest >= 0) & (t < mark - OLDEST_MS)
        keys = np.where(too_old, np.uint64(0), keys)
        ids = np.where(keys == 0, keys, ids ^ _U64_SALT)
        again, known = self._probe(partition, keys, ids, now, int(np.searchsorted(newest, 0)))
        stats.duplicates += int(again.sum())
        stats.id_reuse += int(((known != 0) & (known != keys) & ~again).sum())
        stats.dropped += int(too_old.sum())
        stats.held += int(((newest >= 0) & (t > newest + self.options.max_jump_ms)).sum())
        keep = ~again & ~too_old
        stats.late += int((keep & (tick > own)).sum())
        return tick, keep

    def _probe(self, partition: int, keys: _U64, ids: _U64, now: _I64, begun: int) -> tuple[_Bools, _U64]:
        """Which requests came before, and which request (its key, 0: none) had their id.

        Before the first believed event, at ``begun``, there is no time: what comes then is stored at 0, and again
        at the first time there is, by which it would have expired.
        """
        early = self._clocks[partition].early
        parts = []
        if begun:
            parts.append(self._seen(partition, keys[:begun], ids[:begun], now[:begun]))
            early += zip(keys[:begun].tolist(), ids[:begun].tolist(), strict=True)
        if begun < len(keys):
            if early:
                again = np.array(early, np.uint64)
                self._seen(partition, again[:, 0], again[:, 1], np.full(len(again), now[begun]))
                early.clear()
            parts.append(self._seen(partition, keys[begun:], ids[begun:], now[begun:]))
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _seen(self, partition: int, keys: _U64, ids: _U64, now: _I64) -> tuple[_Bools, _U64]:
        keys, ids = np.ascontiguousarray(keys), np.ascontiguousarray(ids)
        again = self._requests.probe(partition, keys, keys, now).seen == 1
        return again, self._ids.probe(partition, ids, keys, now).value

    def _newest(self, partition: int, t: _I64, accounts: pl.Series, rows: _I64, trusted: bool) -> _I64:
        """The partition's running newest believed time at each record, that record included; -1 before the first.

        ``rows`` are its records' places among the batch's ``accounts``."""
        clock = self._clocks.setdefault(partition, _Clock())
        out = np.empty(len(t), np.int64)
        if trusted:
            np.maximum.accumulate(np.maximum(t, clock.newest_ms), out=out)
            clock.newest_ms = int(out[-1])
            clock.ahead.clear()
            clock.run = 0
            return out
        at, reach = 0, _STRETCH
        while at < len(t):
            if clock.newest_ms >= 0 and not clock.ahead:
                some = t[at : at + reach]
                running = np.maximum.accumulate(np.concatenate(([clock.newest_ms], some)))
                beyond = some > running[:-1] + self.options.max_jump_ms
                told = int(beyond.argmax()) if beyond.any() else len(some)
                out[at : at + told] = running[1 : told + 1]
                if told:
                    clock.newest_ms, clock.run = int(running[told]), 0
                at += told
                if told == len(some):
                    reach *= 2
                    continue
                reach = _STRETCH
            self._believe(clock, accounts[int(rows[at])], int(t[at]))
            out[at] = clock.newest_ms
            at += 1
        return out

    def _believe(self, clock: _Clock, account: str, ms: int) -> None:
        jump = self.options.max_jump_ms
        if clock.newest_ms >= 0 and ms <= clock.newest_ms + jump:
            clock.newest_ms = max(clock.newest_ms, ms)
            clock.run = 0
            if clock.ahead:
                now = clock.newest_ms
                floor = max(now - jump, 0)  # in 1970 too: what came before there was a watermark (-1) is forgotten
                clock.ahead = [a for a in clock.ahead if a[1] > now + jump and a[2] >= floor]
            return
        clock.ahead = [*clock.ahead[-_AHEAD_MOST + 1 :], (account, ms, clock.newest_ms)]
        clock.run += 1
        agreed = [a for a in clock.ahead if abs(a[1] - ms) <= jump]
        if len({a[0] for a in agreed}) < ACCOUNTS_TO_AGREE:
            if clock.run < RECORDS_TO_AGREE:
                return
            agreed = clock.ahead
        # The earliest of them: an absurd one that agreed by chance is then left waiting, and alone.
        clock.newest_ms = max(clock.newest_ms, min(a[1] for a in agreed))
        reach = clock.newest_ms + jump
        clock.newest_ms = max([clock.newest_ms, *(a[1] for a in clock.ahead if a[1] <= reach)])
        clock.ahead = [a for a in clock.ahead if a[1] > reach]

    def _closed_ticks(self, partitions: pl.Series) -> npt.NDArray[np.int64]:
        """For each row the first tick of its partition that is still open."""
        top = max(self._clocks, default=0)
        opened = np.full(top + 1, np.iinfo(np.int64).min, np.int64)
        for p, ms in self.watermarks_ms.items():
            opened[p] = ms // self.options.tick_ms
        closed: npt.NDArray[np.int64] = opened[partitions.to_numpy()]
        return closed
