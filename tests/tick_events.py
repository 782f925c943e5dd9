"""Event streams for the tick stage, a slow stage that keeps its promises record by record, and checks that share both.

The checks are functions so that a test can also plant a defect and see them fail.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl

from monitor.records import EVENT_SCHEMA
from monitor.ticks import TickOptions, TickStage

T0 = 1_750_000_000_000
HOUR, DAY = 3_600_000, 86_400_000
OPTIONS = TickOptions()
Stream = Sequence["Event"]
Make = Callable[[], TickStage]


@dataclass(frozen=True)
class Event:
    """One record: ``request`` and ``content`` make its keys."""

    partition: int
    account: str
    t_ms: int
    request: int = 0
    content: int = 0


def fast() -> TickStage:
    """The stage under test."""
    return TickStage(OPTIONS)


def _key(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") or 1


def frame(events: Stream, first: int = 0) -> pl.DataFrame:
    """Events in record order; ``offset`` is the record's number in the stream."""
    known = {
        "partition": [e.partition for e in events], "offset": list(range(first, first + len(events))),
        "t_ms": [e.t_ms for e in events], "account_id": [e.account for e in events],
        "request_key": [_key(e.account, e.request) for e in events],
        "dedup_key": [_key(e.account, e.request, e.content) for e in events],
    }  # fmt: skip
    made = pl.DataFrame(known, schema={n: EVENT_SCHEMA[n] for n in known})
    return made.with_columns(pl.lit(None, d).alias(n) for n, d in EVENT_SCHEMA.items() if n not in known).select(
        list(EVENT_SCHEMA)
    )


@dataclass
class Result:
    """What a stage made of a stream: (offset, tick) of closed events by account and partition, counts, clocks."""

    closed: list[tuple[int, str, int, int]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    watermarks: dict[int, int] = field(default_factory=dict)
    waiting: int = 0

    def by_account(self) -> dict[tuple[int, str], list[tuple[int, int]]]:
        """(tick, offset) of each account in the order in which they were closed."""
        found: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for partition, account, tick, offset in self.closed:
            found.setdefault((partition, account), []).append((tick, offset))
        # Within a tick the stages after this one sort for themselves.
        return {key: sorted(rows) for key, rows in found.items()}

    def ticks_in_order(self) -> dict[int, list[int]]:
        """Ticks in the order in which each partition closed them, each once."""
        found: dict[int, list[int]] = {}
        for partition, _, tick, _ in self.closed:
            ticks = found.setdefault(partition, [])
            if not ticks or ticks[-1] != tick:
                ticks.append(tick)
        return found


def play(
    events: Stream, cuts: Iterable[int] = (), make: Make = fast, moves: Iterable[int] = (), trusted: bool = False
) -> Result:
    """Push the stream in polls; at the polls numbered in ``moves`` a new stage takes over from dumps."""
    stage, result = make(), Result()
    partitions = sorted({e.partition for e in events})
    blobs: dict[int, list[bytes]] = {p: [] for p in partitions}
    ends = [*sorted({c for c in cuts if 0 < c < len(events)}), len(events)]
    begin = 0
    moving = set(moves)
    for number, end in enumerate(ends):
        closed, stats = stage.push(frame(events[begin:end], begin), trusted)
        _take(result, closed)
        for name in ("duplicates", "id_reuse", "late", "dropped"):
            result.counts[name] += getattr(stats, name)
        begin = end
        if number in moving:
            again = make()
            for p in partitions:
                blobs[p].append(stage.dump(p, full=not blobs[p]))
                for blob in blobs[p]:
                    again.load(p, blob)
            assert again.watermarks_ms == stage.watermarks_ms
            stage = again
    result.watermarks = stage.watermarks_ms
    result.waiting = stage.waiting
    _take(result, stage.flush())
    return result


def _take(result: Result, closed: pl.DataFrame) -> None:
    rows = closed.select("partition", "account_id", "tick", "offset").sort("partition", "tick", maintain_order=True)
    result.closed += [(p, str(a), k, o) for p, a, k, o in rows.iter_rows()]


@dataclass
class _SlowClock:
    newest: int | None = None
    unbelieved: list[tuple[str, int, int | None]] = field(default_factory=list)
    run: int = 0
    begun: bool = False
    requests: dict[object, int] = field(default_factory=dict)
    ids: dict[object, tuple[object, int]] = field(default_factory=dict)


def slowly(events: Stream, options: TickOptions = OPTIONS) -> Result:
    """The promise of the module's text, one record at a time."""
    clocks: dict[int, _SlowClock] = {}
    result = Result()
    held: list[tuple[int, str, int, int]] = []
    for offset, e in enumerate(events):
        c = clocks.setdefault(e.partition, _SlowClock())
        _tell(c, e, options)
        tick, oldest = e.t_ms // options.tick_ms, None
        if c.newest is not None:
            mark = c.newest - options.lateness_ms
            oldest = mark // options.tick_ms
            if not c.begun:  # what came before there was a time is as old as the first there is
                c.begun, now = True, max(oldest * options.tick_ms, 0)
                c.requests = dict.fromkeys(c.requests, now)
                c.ids = {k: (whole, now) for k, (whole, _) in c.ids.items()}
            if e.t_ms < mark - 7 * DAY:
                result.counts["dropped"] += 1
                continue
        now = 0 if oldest is None else max(oldest * options.tick_ms, 0)
        c.requests = {k: t for k, t in c.requests.items() if t >= now - options.dedup_ms}
        c.ids = {k: v for k, v in c.ids.items() if v[1] >= now - options.dedup_ms}
        whole = (e.account, e.request, e.content)
        first, _ = c.ids.setdefault((e.account, e.request), (whole, now))
        if whole in c.requests:
            result.counts["duplicates"] += 1
            continue
        c.requests[whole] = now
        if first != whole:
            result.counts["id_reuse"] += 1
        if oldest is not None and tick < oldest:
            tick = oldest
            result.counts["late"] += 1
        held.append((e.partition, e.account, tick, offset))
    for p, c in clocks.items():
        if c.newest is not None:
            result.watermarks[p] = c.newest - options.lateness_ms
    still = [h for h in held if h[0] not in result.watermarks or h[2] >= result.watermarks[h[0]] // options.tick_ms]
    result.waiting = len(still)
    result.closed = sorted(held, key=lambda h: (h[0], h[2]))
    return result


def _tell(c: _SlowClock, e: Event, options: TickOptions) -> None:
    jump = options.max_jump_ms
    if c.newest is not None and e.t_ms <= c.newest + jump:
        c.newest = max(c.newest, e.t_ms)
        c.run = 0
        floor = c.newest - jump
        c.unbelieved = [u for u in c.unbelieved if u[1] > c.newest + jump and u[2] is not None and u[2] >= floor]
        return
    c.unbelieved = [*c.unbelieved, (e.account, e.t_ms, c.newest)][-64:]
    c.run += 1
    near = [u for u in c.unbelieved if abs(u[1] - e.t_ms) <= jump]
    if len({account for account, _, _ in near}) < 3:
        if c.run < 8:
            return
        near = c.unbelieved
    earliest = max(min(t for _, t, _ in near), c.newest or 0)
    c.newest = max([earliest, *(t for _, t, _ in c.unbelieved if t <= earliest + jump)])
    c.unbelieved = [u for u in c.unbelieved if u[1] > earliest + jump]


# ------------------------------------------------------------------------------------------------- checks


def check_splits(events: Stream, cuts: Iterable[int], make: Make = fast) -> None:
    """How the stream is cut into polls changes nothing."""
    whole, cut = play(events, (), make), play(events, cuts, make)
    assert cut.by_account() == whole.by_account()
    assert cut.counts == whole.counts
    assert cut.watermarks == whole.watermarks
    assert cut.waiting == whole.waiting
    for ticks in cut.ticks_in_order().values():
        assert ticks == sorted(ticks), "a tick was closed twice"


def check_oracle(events: Stream, cuts: Iterable[int] = (), make: Make = fast) -> None:
    """Ticks, duplicates, drops and watermarks are those of the slow stage."""
    want, got = slowly(events), play(events, cuts, make)
    assert got.watermarks == want.watermarks
    assert got.counts == want.counts
    assert got.by_account() == want.by_account()
    assert got.waiting == want.waiting


def check_accounting(events: Stream, cuts: Iterable[int] = (), make: Make = fast) -> None:
    """Every record is a duplicate, dropped, or in exactly one closed tick."""
    got = play(events, cuts, make)
    offsets = [offset for _, _, _, offset in got.closed]
    assert len(offsets) == len(set(offsets))
    assert len(events) == got.counts["duplicates"] + got.counts["dropped"] + len(offsets)


def check_moves(events: Stream, cuts: Iterable[int], moves: Iterable[int], make: Make = fast) -> None:
    """A stage that takes over from dumps, full or changes, goes on as the one before would have."""
    stay, moved = play(events, cuts, make), play(events, cuts, make, moves)
    assert moved.by_account() == stay.by_account()
    assert (moved.counts, moved.watermarks, moved.waiting) == (stay.counts, stay.watermarks, stay.waiting)


def check_late(make: Make = fast) -> None:
    """An hour late folds into the open tick; only what is over a week late is dropped."""
    on_time = [Event(0, f"a{i % 4}", T0 + i * 1_000, i) for i in range(100)]
    newest = on_time[-1].t_ms
    mark = newest - OPTIONS.lateness_ms
    late = [Event(0, "b", t, 500 + i) for i, t in enumerate((newest - HOUR, mark - 7 * DAY, mark - 7 * DAY - 1))]
    got = play([*on_time, *late], [100], make)
    assert got.counts["dropped"] == 1
    assert got.counts["late"] == 2
    assert [tick for tick, _ in got.by_account()[0, "b"]] == [mark // OPTIONS.tick_ms] * 2
