"""Invariants of the whole pipeline as functions: the property tests call them, the planted defects must fail them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from spine import PARTITIONS, Record, batch, numbered, pipeline, polls, run, stories, told
from tick_events import Event, play

from monitor.checkpointing import Checkpointer
from monitor.features.catalogue import STAND_INS
from monitor.features.vocabulary import CATALOGUE
from monitor.pipeline import Pipeline
from monitor.records import Alert
from monitor.store import MemoryStore


@dataclass
class Watched:
    """A stand-in for a pipeline's scorer that keeps the scored rows; everything else is the scorer's."""

    inner: Any
    frames: list[pl.DataFrame] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def score(self, rows: pl.DataFrame) -> pl.DataFrame:
        scored: pl.DataFrame = self.inner.score(rows)
        self.frames.append(scored)
        return scored

    def rows(self) -> pl.DataFrame:
        """All rows, in an order of their own."""
        return pl.concat(self.frames).drop("origin").sort("partition", "tick", "subject")


def watch(p: Pipeline) -> Watched:
    """Have the pipeline's scored rows kept."""
    watched = Watched(p.scorer)
    p.scorer = watched  # type: ignore[assignment]  # it answers as the scorer does
    return watched


def rows_of(records: Sequence[Record], cuts: Iterable[int] = (), p: Pipeline | None = None) -> pl.DataFrame:
    """Scored rows of a run."""
    p = p or pipeline()
    watched = watch(p)
    run(records, cuts, p)
    return watched.rows()


def check_polls(records: Sequence[Record], cuts: Iterable[int], want: list[Alert] | None = None) -> None:
    """Cut into polls anywhere: the same alerts, byte for byte, each with its revisions in order."""
    want = run(records) if want is None else want
    got = run(records, cuts)
    assert told(got) == told(want)
    assert stories(got) == stories(want)
    assert all(revisions == list(range(1, len(revisions) + 1)) for revisions in stories(got).values())


def check_reordered(records: Sequence[Record], seed: int, want: list[Alert] | None = None) -> None:
    """Records of one tick and partition in another order, each tick kept: the same alerts."""
    other = reordered(records, np.random.default_rng(seed))
    assert [r.value for r in other] != [r.value for r in records]
    assert told(run(other, (len(other) // 2,))) == told(run(records) if want is None else want)


def reordered(records: Sequence[Record], rng: np.random.Generator) -> list[Record]:
    """A shuffle of runs of records of one tick, left alone where it would give any record another tick."""
    runs: list[list[int]] = []
    last: dict[int, list[int]] = {}
    for i, r in enumerate(records):
        mine = last.get(r.partition)
        if mine and records[mine[0]].t_ms // 10_000 == r.t_ms // 10_000:
            mine.append(i)
        else:
            last[r.partition] = [i]
            runs.append(last[r.partition])
    order = np.arange(len(records))
    before = _ticks(records, order)
    for mine in runs:
        if len(mine) > 1:
            order[mine] = rng.permutation(mine)
    moved = _ticks(records, order) != before
    for mine in runs:
        if moved[mine].any():
            order[mine] = mine
    assert (_ticks(records, order) == before).all()
    return numbered(records[i] for i in order.tolist())


def _ticks(records: Sequence[Record], order: np.ndarray) -> np.ndarray:
    """Tick of each record (by its place in ``records``) when they come in ``order``."""
    events = [Event(records[i].partition, "a", records[i].t_ms, int(i)) for i in order.tolist()]
    ticks = np.zeros(len(records), np.int64)
    for _, _, tick, at in play(events, trusted=True).closed:
        ticks[order[at]] = tick
    return ticks


def check_interleaved(records: Sequence[Record], seed: int, want: list[Alert] | None = None) -> None:
    """Partitions dealt otherwise, each in its own order: the same alerts."""
    rng = np.random.default_rng(seed)
    queues = {p: [r for r in records if r.partition == p] for p in range(PARTITIONS)}
    other: list[Record] = []
    while queues:
        p = int(rng.choice(sorted(queues)))
        take = int(rng.integers(1, 400))
        other += queues[p][:take]
        queues[p] = queues[p][take:]
        if not queues[p]:
            del queues[p]
    cuts = rng.integers(0, len(other), 6).tolist()
    assert told(run(other, cuts)) == told(run(records) if want is None else want)


def check_restored(
    records: Sequence[Record], cuts: Iterable[int], moves: set[int], want: list[Alert] | None = None
) -> None:
    """Checkpointed after each poll, killed in some of them before that: the same alerts, once repetitions are dropped.

    Who takes over reads on from the offsets of the checkpoints, so what the last poll did is done again.
    """
    store = MemoryStore()
    p, generation = pipeline(), 1
    keeper = Checkpointer(p, store)
    for partition in range(PARTITIONS):
        keeper.restore(partition, generation)
    alerts: list[Alert] = []
    reached = dict.fromkeys(range(PARTITIONS), 0)
    for number, poll in enumerate(polls(records, cuts)):
        fresh = [r for r in poll if r.offset >= reached[r.partition]]
        alerts += p.process(batch(fresh)).alerts
        if number in moves:
            generation += 1
            p = pipeline()
            keeper = Checkpointer(p, store)
            for partition in range(PARTITIONS):
                saved = keeper.restore(partition, generation)
                reached[partition] = saved.next_offset if saved is not None else 0
            mine = {id(r) for r in poll}
            again = [r for r in records if r.offset >= reached[r.partition]]
            end = max((i for i, r in enumerate(again) if id(r) in mine), default=-1)
            fresh = again[: end + 1]
            alerts += p.process(batch(fresh)).alerts
        for partition, offset in batch(fresh).next_offsets.items():
            keeper.save(partition, offset, generation)
            reached[partition] = offset
    alerts += p.finish().alerts
    assert sorted(set(told(alerts))) == told(run(records) if want is None else want)


def check_rows(records: Sequence[Record], cuts: Iterable[int], seed: int | None = None) -> None:
    """Cut otherwise, or shuffled within ticks: the same rows and scores, bit for bit."""
    other = records if seed is None else reordered(records, np.random.default_rng(seed))
    assert rows_of(records).equals(rows_of(other, cuts))


def check_suspects(records: Sequence[Record], cuts: Iterable[int] = ()) -> None:
    """Whoever has an open alert of medium or more when an epoch begins is named to what learns then."""
    p = pipeline()
    told_to: list[tuple[int, int, set[str]]] = []
    inner = p.scorer.advance

    def advance(partition: int, epoch: int, suspects: Iterable[str] = ()) -> None:
        told_to.append((partition, epoch * p.epoch_ms, set(suspects)))
        inner(partition, epoch, set(suspects))

    watched = watch(p)
    watched.__dict__["advance"] = advance
    alerts = run(records, cuts, p)
    partition_of = dict(watched.rows().select("subject", "partition").unique().iter_rows())
    checked = 0
    for alert_id in stories(alerts):
        story = [a for a in alerts if a.alert_id == alert_id and a.mode == "alert"]
        strong = [a for a in story if a.severity in ("medium", "high", "critical")]
        if not strong:
            continue
        closed = [a.revised_at for a in story if a.state == "closed"]
        begin, end = strong[0].revised_at * 1000, (closed[0] if closed else strong[-1].window["end"]) * 1000
        for partition, at_ms, suspects in told_to:
            if partition == partition_of[strong[0].subject] and begin < at_ms < end:
                assert strong[0].subject in suspects
                checked += 1
    assert checked, "no epoch began while an alert was open"


def check_null(records: Sequence[Record]) -> None:
    """Before anything was learned no row has a score, and no rule reads one as zero."""
    rows = rows_of(records)
    first = rows.filter(pl.col("tick") < pl.col("tick").min() + 360)
    for name in ("anomaly_population", "anomaly_change"):
        assert first[name].null_count() == len(first), name
    few = rows.filter(pl.col("requests_7d") < 8)
    assert len(few)
    assert few["classifier_distillation"].null_count() == len(few), "an opinion of fewer than eight requests"


def without(records: Sequence[Record], name: str) -> list[Record]:
    """The records without a field."""
    return [replace(r, value=edited(r.value, {name: ...})) for r in records]


def edited(value: bytes, change: Mapping[str, Any]) -> bytes:
    """A record with fields set; Ellipsis drops one."""
    record = json.loads(value) | change
    return json.dumps({k: v for k, v in record.items() if v is not ...}).encode()


def check_missing(records: Sequence[Record], name: str, inactive: Iterable[str]) -> None:
    """Without an optional field nothing fails, and just the features that need it are null and said to be inactive.

    ``inactive`` are those of the records as they are.
    """
    p = pipeline()
    gone = {name, *STAND_INS.get(name, ())}
    less = records
    for field_name in sorted(gone):
        less = without(less, field_name)
    rows = rows_of(less, (len(less) // 2,), p)
    need = {f.name for f in CATALOGUE if gone.intersection(f.needs)}
    assert set(p.inactive().features) == set(inactive) | need
    for feature in need - {f.name for f in CATALOGUE if f.scope == "campaign"}:  # those are no columns of an account
        assert rows[feature].null_count() == len(rows), f"{feature} has a value without {name}"


def check_relabelled(records: Sequence[Record]) -> None:
    """Countries and networks' owners called otherwise, one to one: the same rows, scores and alerts."""
    countries = sorted({json.loads(r.value).get("country") or "" for r in records} - {""})
    renamed = dict(zip(countries, [*countries[1:], countries[0]], strict=True))
    other = []
    for r in records:
        record = json.loads(r.value)
        asn = record.get("asn")
        change = {"country": renamed.get(record.get("country")), "asn": asn * 3 + 7 if asn else None}
        other.append(replace(r, value=edited(r.value, change)))
    assert any(a.value != b.value for a, b in zip(records, other, strict=True))
    mine, theirs = pipeline(), pipeline()
    a, b = watch(mine), watch(theirs)
    assert told(run(records, (), mine)) == told(run(other, (), theirs))
    assert a.rows().equals(b.rows())
    assert a.rows()["anomaly_population"].null_count() < len(a.rows()), "no score to compare"
