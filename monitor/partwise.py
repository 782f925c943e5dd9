"""A backtest cut by partitions: tasks that need nothing of each other, then the campaign stage over what they leave.

A partition's state is its own, so each task reads the logs, keeps the records of its partitions, and takes them
through the same steps as one process does. What a campaign step needs of a partition is its blob; the caller works the
steps from the blobs of all tasks, in order, each when all partitions have passed it: beside the tasks where these hand
blobs over as they go. Ids, revisions and evidence are those of one process; only the order in which alerts are written
differs: by the event time at which each was revised.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

import zstandard

from monitor import wiring
from monitor.alerts import Sink
from monitor.backtest import Summary, Tally, mute_before, peak_rss_mb, summary, through, translator
from monitor.beside import Beside
from monitor.campaigning import LEADER
from monitor.campaigns import StepBlob, many_of_bytes, many_to_bytes
from monitor.context import ContextEvent
from monitor.engines import Engine
from monitor.errors import BadInput, Problem
from monitor.observe import Counts
from monitor.pipeline import Pipeline
from monitor.records import Alert
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.source.files import FileSource
from monitor.store.links import Body, MemoryLinkStore

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


Packed = tuple[int, bytes]
"""Blobs of one batch, compressed, and the first step among them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a task gives as it goes. ``marks``: the first campaign step that each partition has not passed, of those
    that had an event. ``events``: records read until now."""

    alerts: tuple[Alert, ...]
    blobs: tuple[Packed, ...]
    marks: Mapping[int, int]
    events: int


@dataclass(frozen=True, slots=True)
class Part:
    """What a task says of itself at its end. ``scores``: score columns that are null everywhere, with the reason.
    ``process``: where it ran."""

    counts: Counts
    accounts: int
    scores: Mapping[str, str]
    messages: int
    ignored: int
    problems: tuple[Problem, ...]
    peak_mb: float
    process: str


class _Outbox(MemoryLinkStore):
    """Keeps blobs as they will travel, until then."""

    def __init__(self) -> None:
        super().__init__()
        self._pack = zstandard.ZstdCompressor(level=1)
        self._out: list[Packed] = []

    def put(self, blobs: Sequence[tuple[int, int, Body]], marks: Mapping[int, int]) -> None:
        """See :class:`monitor.store.links.LinkStore`."""
        made = [body for *_, body in blobs if isinstance(body, StepBlob)]
        assert len(made) == len(blobs), "a pipeline in this process hands over what it made"
        if made:
            self._out.append((min(blob.step for blob in made), self._pack.compress(many_to_bytes(made))))
        super().put((), marks)

    def take(self) -> tuple[Packed, ...]:
        """What was put since the last call."""
        taken, self._out = tuple(self._out), []
        return taken


def make_pipeline(work: Work) -> Pipeline:
    """The steps by the settings, with the context known. Raises BadInput."""
    s = work.settings
    made = wiring.pipeline(
        s, keys=wiring.keyring(s, generated=lambda: Keyring.from_seed(work.seed)), rules=wiring.load(s, work.rules)
    )
    made.known.take(list(work.context))
    return made


def run(work: Work) -> Iterator[Piece | Part | tuple[Problem, ...]]:
    """Do one task: a piece for each batch, its part at the end; or its problems where the input cannot be used, since
    an exception may come back wrapped in one of the engine's."""
    try:
        yield from _run(work)
    except BadInput as error:
        yield error.problems


def _run(work: Work) -> Iterator[Piece | Part]:
    pipeline, s = make_pipeline(work), work.settings
    max_bytes = s.decode.max_bytes
    reader = wiring.reader(s, work.format)
    source = FileSource(
        [*work.warmup, *work.logs], work.partitions, max_bytes=max_bytes, translate=translator(reader, max_bytes),
        only=work.mine,
    )  # fmt: skip
    mute_before(pipeline, source, work.logs, work.warmup)
    pipeline.campaigns.store = links = _Outbox()
    counts = pipeline.observe.counts
    for raised in through(pipeline, source, leads=False):
        yield Piece(tuple(raised), links.take(), links.marks(), counts.events)
    yield Part(
        counts, len(pipeline.features.accounts), dict(pipeline.scorer.status().inactive),
        sum(source.messages.values()), sum(source.ignored.values()), tuple(source.problems), peak_rss_mb(), _process(),
    )  # fmt: skip


def _process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def cut(engine: Engine, partitions: int) -> list[frozenset[int]]:
    """Partitions by task: each task reads all of the logs, so there are no more than the engine can use."""
    tasks = min(partitions, engine.jobs_a_slot * engine.slots())
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
    tasks = [replace(work, mine=mine) for mine in cut(engine, work.partitions)]
    raised: list[list[Alert]] = [[] for _ in tasks]
    read, made, found, opened = [0] * len(tasks), dict[int, Part](), list[Alert](), 0
    with Beside() as beside, closing(engine.stream(run, tasks)) as given:
        steps = _Steps(pipeline, work.partitions, beside)
        for number, item in given:
            if isinstance(item, Part):
                made[number] = item
                steps.passed(dict.fromkeys(tasks[number].mine, sys.maxsize))
            elif isinstance(item, Piece):
                raised[number] += item.alerts
                read[number] = item.events
                steps.passed(item.marks, item.blobs)
            else:
                raise BadInput(item)
            worked = steps.go_on()
            found += worked
            opened += _opened(worked) + (_opened(item.alerts) if isinstance(item, Piece) else 0)
            progress(sum(read), opened)
        while steps:
            found += steps.go_on(wait=True)
    parts = [made[number] for number in range(len(tasks))]
    alerts = [alert for task in (*raised, found) for alert in task]
    alerts.sort(key=lambda alert: alert.revised_at)  # stable: revisions of one alert stay in order
    tally = Tally()
    tally.add(alerts)
    sink.send(alerts)
    sink.flush()
    counts = pipeline.observe.counts = _added([part.counts for part in parts])
    # a column is null everywhere if it is in every part that has rows
    told = [part.scores for part in parts if part.counts.rows] or [part.scores for part in parts]
    peaks = {_process(): peak_rss_mb()}
    for part in parts:
        peaks[part.process] = max(part.peak_mb, peaks.get(part.process, 0.0))
    return summary(
        pipeline, counts, tally, began, accounts=sum(p.accounts for p in parts),
        peaks_mb=list(peaks.values()), messages=max(p.messages for p in parts),
        ignored=max(p.ignored for p in parts), problems=parts[0].problems,
        scores={name: why for name, why in told[0].items() if all(name in other for other in told)},
    )  # fmt: skip


def _opened(alerts: Sequence[Alert]) -> int:
    return sum(alert.revision == 1 for alert in alerts)


class _Steps:
    """The campaign steps, some at a time: unpacked blobs are many times as large. Not thread-safe."""

    def __init__(self, pipeline: Pipeline, partitions: int, beside: Beside):
        self._pipeline, self._beside = pipeline, beside
        self._packed: list[Packed] = []
        self._open: dict[int, list[StepBlob]] = {}
        # whoever was not heard of has passed none: what is worked must not depend on which task is faster
        self._marks = dict.fromkeys(range(partitions), 0)
        self._unpack = zstandard.ZstdDecompressor()
        self._begun = False

    def __bool__(self) -> bool:
        """Whether a step is being worked, or waits."""
        return self._begun or bool(self._packed or self._open)

    def passed(self, marks: Mapping[int, int], blobs: Sequence[Packed] = ()) -> None:
        """Blobs came, and these partitions have passed these steps."""
        self._packed += blobs
        self._marks.update(marks)

    def go_on(self, *, wait: bool = False) -> list[Alert]:
        """Begin with the steps that all have passed, once those before are done: what these raised. Does nothing while
        they are not, or waits."""
        if not wait and not self._beside.idle:
            return []
        found = self._pipeline.campaigns_raised(self._beside.result())
        begin = min([*self._open, *(first for first, _ in self._packed)], default=0)
        stop = min(begin + STEPS_AT_ONCE, *self._marks.values())
        for _, body in (packed for packed in self._packed if packed[0] < stop):
            for blob in many_of_bytes(self._unpack.decompress(body)):
                self._open.setdefault(blob.step, []).append(blob)
        self._packed = [packed for packed in self._packed if packed[0] >= stop]
        ready = [blob for step in sorted(self._open) if step < stop for blob in self._open.pop(step)]
        self._begun = bool(ready)
        if ready:
            self._pipeline.campaigns.store.put([(b.step, b.partition, b) for b in ready], {LEADER: stop})
            self._beside.begin(self._pipeline.campaign_pass())
        return found


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
