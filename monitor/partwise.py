"""A backtest cut by partitions: tasks that need nothing of each other, then the campaign stage over what they leave.

A partition's state is its own, so each task reads the logs, keeps the records of its partitions, and takes them
through the same steps as one process does. What a campaign step needs of a partition is its blob; the caller works the
steps from the blobs of all tasks, in order. Ids, revisions and evidence are those of one process; only the order in
which alerts are written differs: by the event time at which each was revised.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import zstandard

from monitor import wiring
from monitor.alerts import Sink
from monitor.backtest import Summary, Tally, mute_before, peak_rss_mb, summary, through, translator
from monitor.campaigning import LEADER
from monitor.context import ContextEvent
from monitor.engines import Engine
from monitor.errors import BadInput, Problem
from monitor.observe import Counts
from monitor.pipeline import Pipeline
from monitor.records import Alert
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.source.files import FileSource
from monitor.store.links import Body, MemoryLinkStore, bytes_of

TASKS_A_SLOT = 2
"""Partitions are not equally busy: with more tasks than slots a slow one is waited for less."""
STEPS_AT_ONCE = 144
"""Campaign steps whose blobs are unpacked together: a day of them."""


@dataclass(frozen=True, slots=True)
class Work:
    """A task: these partitions of these logs. Can be pickled; the settings' keys travel in it."""

    settings: Settings
    logs: tuple[Path, ...]
    warmup: tuple[Path, ...]
    context: tuple[ContextEvent, ...]
    rules: tuple[Path, ...]
    format: str | None
    seed: int
    partitions: int
    mine: frozenset[int]


@dataclass(frozen=True, slots=True)
class Part:
    """What a task leaves. ``blobs``: (step, partition, compressed blob). ``scores``: score columns that are null
    everywhere, with the reason. ``end``: the first campaign step that it left incomplete, 0 without any event."""

    alerts: tuple[Alert, ...]
    blobs: tuple[tuple[int, int, bytes], ...]
    end: int
    counts: Counts
    accounts: int
    scores: Mapping[str, str]
    messages: int
    ignored: int
    problems: tuple[Problem, ...]
    peak_mb: float


class _Packed(MemoryLinkStore):
    """Keeps blobs as they will travel."""

    def __init__(self) -> None:
        super().__init__()
        self._pack = zstandard.ZstdCompressor(level=1)

    def put(self, blobs: Sequence[tuple[int, int, Body]], marks: Mapping[int, int]) -> None:
        """See :class:`monitor.store.links.LinkStore`."""
        super().put([(step, partition, self._pack.compress(bytes_of(body))) for step, partition, body in blobs], marks)

    def all(self) -> tuple[int, tuple[tuple[int, int, bytes], ...]]:
        """The first step that is not complete, 0 without any event, and every blob."""
        end = max(self.marks().values(), default=0)
        places = [at for found in self.steps({}, end).values() for at in found]
        bodies = zip(places, self.read(places), strict=True)
        return end, tuple((step, partition, bytes_of(body)) for (step, partition), body in bodies)


def make_pipeline(work: Work) -> Pipeline:
    """The steps by the settings, with the context known. Raises BadInput."""
    s = work.settings
    made = wiring.pipeline(
        s, keys=wiring.keyring(s, generated=lambda: Keyring.from_seed(work.seed)), rules=wiring.load(s, work.rules)
    )
    made.known.take(list(work.context))
    return made


def run(work: Work) -> Part | tuple[Problem, ...]:
    """Do one task; its problems where the input cannot be used, since an exception of ours would not travel whole."""
    try:
        return _run(work)
    except BadInput as error:
        return error.problems


def _run(work: Work) -> Part:
    pipeline, s = make_pipeline(work), work.settings
    max_bytes = s.decode.max_bytes
    reader = wiring.reader(s, work.format)
    source = FileSource(
        [*work.warmup, *work.logs], work.partitions, max_bytes=max_bytes, translate=translator(reader, max_bytes),
        only=work.mine,
    )  # fmt: skip
    mute_before(pipeline, source, work.logs, work.warmup)
    alerts: list[Alert] = []
    pipeline.campaigns.store = links = _Packed()
    through(pipeline, source, alerts.extend, leads=False)
    end, blobs = links.all()
    return Part(
        tuple(alerts), blobs, end, pipeline.observe.counts, len(pipeline.features.accounts),
        dict(pipeline.scorer.status().inactive), sum(source.messages.values()), sum(source.ignored.values()),
        tuple(source.problems), peak_rss_mb(),
    )  # fmt: skip


def cut(engine: Engine, partitions: int) -> list[frozenset[int]]:
    """Partitions by task: each task reads all of the logs, so there are no more than the engine can use."""
    tasks = min(partitions, TASKS_A_SLOT * engine.slots())
    return [frozenset(range(first, partitions, tasks)) for first in range(tasks)]


def backtest(
    engine: Engine, work: Work, sink: Sink, progress: Callable[[int, int], None] = lambda events, alerts: None
) -> Summary:
    """Run ``work`` (all of its partitions) on ``engine``, then the campaign stage here, into ``sink``.

    Raises NothingReadable where no record of the logs is a request, BadInput for what cannot be used, and what the
    engine raises.
    """
    began = time.perf_counter()
    if work.settings.archive.path is not None:
        why = "an archive is written in the order of time, which tasks do not keep: leave it out, or --engine local"
        raise BadInput([Problem("settings", 0, why, "archive.path")])
    pipeline = make_pipeline(work)
    max_bytes, reader = work.settings.decode.max_bytes, wiring.reader(work.settings, work.format)
    # nothing is read of it here but where the logs begin; it also refuses paths before any task is sent
    source = FileSource([*work.warmup, *work.logs], work.partitions, translate=translator(reader, max_bytes))
    mute_before(pipeline, source, work.logs, work.warmup)
    parts: list[Part] = []
    for part in engine.run(run, [replace(work, mine=mine) for mine in cut(engine, work.partitions)]):
        if not isinstance(part, Part):
            raise BadInput(part)
        parts.append(part)
        progress(sum(p.counts.events for p in parts), sum(a.revision == 1 for p in parts for a in p.alerts))
    alerts = [alert for part in parts for alert in part.alerts]
    for found in _campaigns(pipeline, parts):
        alerts += found
    alerts.sort(key=lambda alert: alert.revised_at)  # stable: revisions of one alert stay in order
    tally = Tally()
    tally.add(alerts)
    sink.send(alerts)
    sink.flush()
    counts = pipeline.observe.counts = _added([part.counts for part in parts])
    # a column is null everywhere if it is in every part that has rows
    told = [part.scores for part in parts if part.counts.rows] or [part.scores for part in parts]
    return summary(
        pipeline, counts, tally, began, accounts=sum(p.accounts for p in parts),
        peak_mb=max([peak_rss_mb(), *(p.peak_mb for p in parts)]), messages=max(p.messages for p in parts),
        ignored=max(p.ignored for p in parts), problems=parts[0].problems,
        scores={name: why for name, why in told[0].items() if all(name in other for other in told)},
    )  # fmt: skip


def _campaigns(pipeline: Pipeline, parts: Sequence[Part]) -> Iterator[list[Alert]]:
    """The alerts of every campaign step, in order, some steps at a time: unpacked blobs are many times as large."""
    blobs = sorted((blob for part in parts for blob in part.blobs), key=lambda blob: blob[:2])
    end, at, unpack = max(part.end for part in parts), 0, zstandard.ZstdDecompressor()
    while at < len(blobs):
        stop = min(blobs[at][0] + STEPS_AT_ONCE, end)
        first = at
        while at < len(blobs) and blobs[at][0] < stop:
            at += 1
        ready = [(step, partition, unpack.decompress(body)) for step, partition, body in blobs[first:at]]
        pipeline.campaigns.store.put(ready, {LEADER: stop})
        yield pipeline.work_campaigns()


def _added(counts: Sequence[Counts]) -> Counts:
    """The counts of all."""
    made = Counts()
    for one in counts:
        for field in fields(Counts):
            held, more = getattr(made, field.name), getattr(one, field.name)
            if isinstance(held, dict):
                more = dict(Counter(held) + Counter(more))
            elif isinstance(held, set):
                more = held | more
            else:
                more = held + more
            setattr(made, field.name, more)
    return made
