"""``monitor drill --live``: a campaign that we made runs beside the traffic, and somebody is told when it is not found.

A process of its own reads the topic in a group of its own, lays a tagged campaign over what it reads, and runs the
pipeline of ``monitor run`` on both, in memory. Nothing is written to the topic, to Redis or to a sink, so the drill can
enter nobody's learning, alerts or verdicts. What it tries is everything that changes under a detector that is left
alone: the fields that still arrive, rules, model and settings, and the traffic in which a campaign has to stand out.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from monitor import live, wiring
from monitor.alerts import MemorySink
from monitor.dead_letters import NoDeadLetters
from monitor.errors import BadInput, Problem
from monitor.evaluate.drill import TAG, Profile, event_time
from monitor.evaluate.live_overlay import dressed
from monitor.records import Alert, RawBatch
from monitor.runner import Runner
from monitor.service import HttpService, Signals, fields, process_registry
from monitor.settings import Settings
from monitor.simulate import find
from monitor.sketch import Keyring, Sketcher
from monitor.source.kafka_source import KafkaSource
from monitor.source.partitioner import Partitioner
from monitor.source.protocol import Source
from monitor.store import MemoryStore
from monitor.store.links import MemoryLinkStore
from monitor.telemetry import DrillTelemetry

_LOG = logging.getLogger(__name__)
_SAMPLE = 64
"""Records of a poll whose event times say where the traffic stands."""
_GROUP = ".drill"


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in seconds of event time. A round begins every ``every_s``; its campaign must be HIGH ``within_s`` of its
    first request. ``study`` requests are looked at before the first. ``rounds`` None: for ever."""

    scenario: str = "S1"
    within_s: float = 6 * 3_600.0
    every_s: float = 24 * 3_600.0
    study: int = 20_000
    seed: int = 1
    rounds: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A round that is over. ``after_s`` from the campaign's first request to HIGH, None: not found in its time."""

    began: float
    accounts: int
    after_s: float | None


@dataclass(slots=True)
class _Round:
    began: float
    due: float
    accounts: frozenset[str]
    waiting: list[tuple[float, int, str, bytes]]


@dataclass(slots=True)
class Drill:
    """Lays rounds over batches and judges alerts. ``grace_s``: how much later than its evidence an alert may come.
    ``native`` gives the log's requests as contract 1 has them."""

    plan: Plan
    sketcher: Sketcher
    telemetry: DrillTelemetry
    grace_s: float
    native: Callable[[RawBatch], RawBatch] = lambda batch: batch
    told: Callable[[Result], None] = lambda result: None
    profile: Profile = field(default_factory=Profile)
    results: list[Result] = field(default_factory=list)
    now: float = -np.inf
    judged: Callable[[], float] = lambda: np.inf
    """Event time up to which campaigns were looked for."""
    _times: dict[int, float] = field(default_factory=dict)
    _round: _Round | None = None
    _next: float = -np.inf
    _place: Partitioner | None = None
    _offsets: dict[int, int] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether all rounds that were asked for are."""
        return self.plan.rounds is not None and len(self.results) >= self.plan.rounds

    def lay(self, batch: RawBatch, source: Source) -> RawBatch:
        """The batch, and what the campaign has sent by the time where the traffic stands."""
        for partition, offset in zip(batch.partition.tolist(), batch.offset.tolist(), strict=True):
            self._offsets[partition] = offset
        if len(batch):
            self._observe(batch, source)
        # also while nothing comes: what was read last is judged only now
        if self._round is not None:
            late = self._round.due + self.grace_s
            # A stage that does not get there is no better than one that finds nothing: it gets as long again.
            if min(self.now, self.judged()) > late or self.now > late + self.plan.within_s:
                self._close(None)
        if not len(batch):
            return batch
        if self._round is None and not self.over and self.profile.requests >= self.plan.study:
            if not self.now > self._next:
                return batch
            self._begin()
        if self._round is None:
            return batch
        if self._place is None or self._place.partitions != source.partitions_total:
            self._place = Partitioner(source.partitions_total)
        due: list[tuple[int, float, bytes]] = []
        while self._round.waiting and self._round.waiting[0][0] <= self.now:
            at, _, account, value = heapq.heappop(self._round.waiting)
            if (partition := self._place(account)) in source.assigned:
                due.append((partition, at, value))
        return _joined(batch, due, self._offsets)

    def judge(self, alerts: Iterable[Alert]) -> None:
        """Whether one of these is the campaign of this round: of HIGH, most of its core, in its time."""
        for alert in alerts:
            now = self._round
            if now is None or alert.kind != "campaign" or alert.mode != "alert" or not alert.accounts:
                continue
            mine = sum(account in now.accounts for account in alert.accounts)
            strong = alert.severity in ("high", "critical") and alert.state == "open"
            if strong and 2 * mine > len(alert.accounts) and alert.revised_at <= now.due:
                self._close(alert.revised_at - now.began)

    def _observe(self, batch: RawBatch, source: Source) -> None:
        native = self.native(batch)
        if self.profile.requests < self.plan.study:
            for value in native.values:
                if (request := _request(value)) is not None and not str(request.get("account_id")).startswith(TAG):
                    self.profile.add(event_time(request), request)
        for partition in np.unique(native.partition).tolist():
            last = np.flatnonzero(native.partition == partition)[-_SAMPLE:]
            known = [event_time(r) for i in last.tolist() if (r := _request(native.values[i])) is not None]
            if known:  # the middle one: a clock that runs ahead must not carry the campaign along
                self._times[partition] = max(self._times.get(partition, -np.inf), float(np.median(known)))
        here = {p: self._times.get(p, -np.inf) for p in source.assigned}
        behind = [here[p] for p, waiting in source.lag().items() if waiting and p in here]
        # A partition that is read to its end has nothing more to say for now; the slowest of the others says the time.
        self.now = max(self.now, min(behind) if behind else max(here.values(), default=-np.inf))

    def _begin(self) -> None:
        plan, seed = self.plan, self.plan.seed + len(self.results)
        made = dressed(self.profile, plan.scenario, seed, self.now, plan.within_s, self.sketcher.sketch_one)
        waiting = [(at, i, str(r["account_id"]), msgspec.json.encode(r)) for i, (at, r) in enumerate(made)]
        heapq.heapify(waiting)
        accounts = frozenset(account for _, _, account, _ in waiting)
        self._round = _Round(self.now, self.now + plan.within_s, accounts, waiting)
        self._next = self.now + plan.every_s
        self.telemetry.running.set(1)
        _LOG.info("drill began", extra=fields(scenario=plan.scenario, accounts=len(accounts), requests=len(waiting)))

    def _close(self, after_s: float | None) -> None:
        assert self._round is not None
        result = Result(self._round.began, len(self._round.accounts), after_s)
        self.results.append(result)
        self._round = None
        self.telemetry.rounds.labels("missed" if after_s is None else "found").inc()
        self.telemetry.missed.set(after_s is None)
        if after_s is None:
            _LOG.error("drill: a campaign was not found in its time", extra=fields(scenario=self.plan.scenario))
        else:
            self.telemetry.found_after.set(after_s)
            _LOG.info("drill: found", extra=fields(scenario=self.plan.scenario, after_s=round(after_s)))
        self.told(result)


def _request(value: bytes | None) -> dict[str, object] | None:
    try:
        found = msgspec.json.decode(value or b"")
        event_time(found)
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return found if isinstance(found, dict) else None


def _joined(batch: RawBatch, due: Sequence[tuple[int, float, bytes]], offsets: Mapping[int, int]) -> RawBatch:
    """The batch with the campaign's records at its end, at the offset that their partition stands at."""
    if not due:
        return batch
    return replace(
        batch, values=[*batch.values, *(value for _, _, value in due)],
        partition=np.concatenate([batch.partition, np.array([p for p, _, _ in due], np.int32)]),
        offset=np.concatenate([batch.offset, np.array([offsets.get(p, 0) for p, _, _ in due], np.int64)]),
        timestamp_ms=np.concatenate([batch.timestamp_ms, np.array([int(at * 1000) for _, at, _ in due], np.int64)]),
    )  # fmt: skip


class DrilledSource:
    """The topic with the campaign laid over it. Commits nothing: each start begins at the end of the topic."""

    def __init__(self, inner: Source, drill: Drill):
        self._inner, self._drill = inner, drill

    def poll(self, max_records: int, timeout_s: float) -> RawBatch:
        """See :class:`~monitor.source.protocol.Source`, as all of these."""
        batch = self._inner.poll(max_records, timeout_s)
        return self._drill.lay(batch, self._inner)

    def pause(self, partitions: Iterable[int] | None = None) -> None:  # noqa: D102
        self._inner.pause(partitions)

    def resume(self, partitions: Iterable[int] | None = None) -> None:  # noqa: D102
        self._inner.resume(partitions)

    def commit(self, offsets: Mapping[int, int]) -> None:  # noqa: D102
        pass

    def seek(self, partition: int, offset: int) -> None:  # noqa: D102
        self._inner.seek(partition, offset)

    @property
    def assigned(self) -> frozenset[int]:  # noqa: D102
        return self._inner.assigned

    @property
    def generation(self) -> int:  # noqa: D102
        return self._inner.generation

    @property
    def partitions_total(self) -> int:  # noqa: D102
        return self._inner.partitions_total

    @property
    def finished(self) -> bool:  # noqa: D102
        return self._inner.finished

    def lag(self) -> dict[int, int]:  # noqa: D102
        return self._inner.lag()

    def stalled(self) -> dict[int, float]:  # noqa: D102
        return self._inner.stalled()

    def close(self) -> None:  # noqa: D102
        self._inner.close()


class _Judge(MemorySink):
    """Keeps no alert: it shows each to the drill."""

    def __init__(self, drill: Drill):
        super().__init__()
        self._drill = drill

    def send(self, alerts: Sequence[Alert]) -> None:
        self._drill.judge(alerts)


def run_drill(
    settings: Settings, keys: Keyring, plan: Plan, signals: Signals, *, port: int, told: Callable[[Result], None],
    earliest: bool = False, log: Callable[[Runner], Source] | None = None,
) -> Drill:  # fmt: skip
    """Drill until a signal or the last round. ``port`` serves ``/metrics`` and health (0: a free one); ``earliest``
    begins at the start of the topic; ``log`` stands in for the topic.

    Raises BadInput for settings or a scenario that can't be used.
    """
    if settings.source.read != "kafka":
        why = "must be kafka for a live drill: a spool has one reader"
        raise BadInput([Problem("settings", 0, why, "source.read")])
    find([plan.scenario])
    own = _own(settings, earliest)
    registry = process_registry()
    expand = wiring.expansion(own)
    drill = Drill(
        plan, wiring.sketcher(own, keys), DrillTelemetry(registry), grace_s=2.0 * own.campaigns.step_s, told=told,
        native=(lambda batch: batch) if expand is None else (lambda batch: expand(batch).batch),
    )  # fmt: skip

    def source(runner: Runner) -> Source:
        return DrilledSource(log(runner) if log is not None else KafkaSource(own.kafka, runner), drill)

    service = live.service(
        own, keys=keys, rules=wiring.load(own), rule_paths=wiring.rule_paths(own), signals=signals, source=source,
        store=MemoryStore(), links=MemoryLinkStore(), sink=_Judge(drill), dead_letters=NoDeadLetters(),
        done=lambda source: drill.over or source.finished,
    )  # fmt: skip
    campaigns, ticks = service.runner.pipeline.campaigns, service.runner.pipeline.ticks
    drill.judged = lambda: (
        (campaigns.next_step * campaigns.step_ms if campaigns.enabled else max(ticks.watermarks_ms.values(), default=0))
        / 1000
    )
    drill.telemetry.running.set(1)
    # Only what the drill says of itself is served: what its pipeline counts is not of the monitor that people watch.
    with HttpService(own.http.model_copy(update={"enabled": True, "port": port}), service.runner.health, registry):
        service.run()
    return drill


def _own(settings: Settings, earliest: bool) -> Settings:
    """The settings of the monitor that is tried, less whatever it writes."""
    kafka = settings.kafka.model_copy(
        update={
            "group": settings.kafka.group + _GROUP, "group_instance_id": None,
            "auto_offset_reset": "earliest" if earliest else "latest",
        }
    )  # fmt: skip
    decode = settings.decode
    if decode.format != "native":  # the campaign is native, whatever the log is
        decode = decode.model_copy(update={"format": "auto"})
    return settings.model_copy(
        update={
            "kafka": kafka, "decode": decode,
            "http": settings.http.model_copy(update={"enabled": False}),
            "ingest": settings.ingest.model_copy(update={"enabled": False}),
            "archive": settings.archive.model_copy(update={"path": None}),
        }
    )  # fmt: skip
