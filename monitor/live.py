"""The live service put together from settings: sources, stores and sinks that need a server."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from monitor import __version__, memory, wiring
from monitor.alerts import FanOut, FileSink, KafkaSink, LiveOnly, Sink, WebhookSink
from monitor.campaigning import LEADER
from monitor.checkpointing import Checkpointer
from monitor.context import ContextEvent, parse_context
from monitor.dead_letters import DeadLetterBox
from monitor.errors import BadInput, DependencyDown, Problem, SinkBusy
from monitor.features.catalogue import CLIENT_CLASSES
from monitor.features.vocabulary import CATALOGUE
from monitor.observe import CountedSink
from monitor.precompile import precompile
from monitor.receive import Receiver
from monitor.records import Expanded, RawBatch
from monitor.rules import Reloader, RuleSet
from monitor.runner import CHECKS, Runner, RunOptions
from monitor.service import Health, HttpService, Signals, Systemd, fields, process_registry
from monitor.settings import KafkaSettings, Settings
from monitor.simulate import Scenario
from monitor.simulate.api import Clock, Written, build, produce, write_lines
from monitor.simulate.world import Progress
from monitor.sketch import CorporaWatch, Keyring
from monitor.source.context_reader import ContextReader
from monitor.source.dead_letters import DeadLetters
from monitor.source.kafka_sender import KafkaSender, LazySender
from monitor.source.kafka_source import KafkaSource
from monitor.source.partitioner import keyed_by_account, not_keyed_remedy
from monitor.source.protocol import Source
from monitor.source.reject_limit import RejectLimit
from monitor.source.spool_source import FileDeadLetters, SpoolSource
from monitor.store import CheckpointStore, DirectoryStore, object_store, require_shape
from monitor.store.links import LinkStore, MemoryLinkStore
from monitor.store.redis_checkpoints import RedisCheckpointStore
from monitor.store.redis_link import RedisOptions
from monitor.store.redis_links import RedisLinkStore
from monitor.store.redis_sink import RedisSink
from monitor.telemetry import Telemetry

_LOG = logging.getLogger(__name__)
_WINDOW_MS = 7 * 86_400_000


@dataclass(slots=True)
class Service:
    """A monitor that is ready to run: the loop, and what is around it."""

    runner: Runner
    http: HttpService | None
    registry: CollectorRegistry
    open_source: Callable[[Runner], Source]
    receiver: Receiver | None = None

    def run(self) -> None:
        """Until a signal, or the end of a source that has one."""
        if self.http is not None:
            self.http.start()
        try:
            # before the group is joined: a member that compiles amid its first batches holds its partitions up
            if not precompile(__name__, self._compiling):
                return
            memory.set_aside()
            if self.receiver is not None:
                self.receiver.start()
            self.runner.run(self.open_source)
        finally:
            if self.receiver is not None:
                self.receiver.stop()
            if self.http is not None:
                self.http.stop()

    def _compiling(self) -> bool:
        """Tell whoever watches that this is no stall; whether to go on."""
        self.runner.health.beat()
        self.runner.systemd.watchdog()
        return not self.runner.signals.stopping


def service(
    settings: Settings,
    *,
    keys: Keyring,
    rules: RuleSet,
    rule_paths: Sequence[Path],
    signals: Signals,
    source: Callable[[Runner], Source] | None = None,
    store: CheckpointStore | None = None,
    links: LinkStore | None = None,
    sink: Sink | None = None,
    dead_letters: DeadLetterBox | None = None,
    step: Callable[[str], None] = lambda name: None,
    done: Callable[[Source], bool] = lambda source: source.finished,
) -> Service:
    """Everything by ``settings``; ``source``, ``store``, ``links``, ``sink``, ``dead_letters`` stand in for theirs."""
    registry = process_registry()
    expand = wiring.expansion(settings)
    spooled = settings.source.read == "spool"
    pipeline = wiring.pipeline(settings, keys=keys, rules=rules, registry=registry, live=True, expand=expand)
    archiving = ("archive",) if settings.archive.path is not None else ()
    ready = pipeline.observe.telemetry.ready
    health = Health((*CHECKS, "broker", *archiving), on_change=ready.set)
    health.set("broker", True)  # until it is reached the partitions are what is missing
    for check in archiving:  # ready whatever becomes of it, with the reason: detection goes on without an archive
        pipeline.observe.on_archive = partial(health.set, check, True)
        health.set(check, True)
    health.set("partitions", False, "no partition is assigned yet")
    telemetry = pipeline.observe.telemetry
    telemetry.rules_reloaded(True)
    telemetry.set_build(__version__, platform.python_version(), settings.hash, rules.hash)
    pipeline.observe.models(pipeline.scorer.status())
    store = store or checkpoint_store(settings)
    pipeline.campaigns.store = links or link_store(settings)
    redis = redis_sink(settings) if sink is None and "redis" in settings.alerts.sinks else None
    context = ContextReader(settings.kafka, settings.kafka.context_topic) if settings.kafka.context_topic else None
    topic_check = TopicCheck(settings, store, expand)
    runner = Runner(
        pipeline=pipeline,
        checkpoints=Checkpointer(pipeline, store),
        sink=sink or sinks(settings, redis, telemetry),
        dead_letters=dead_letters
        or (FileDeadLetters(settings.ingest.spool / "dead-letters.ndjson") if spooled else None)
        or DeadLetters(LazySender(settings.kafka, settings.kafka.dead_letters), settings.kafka.topic),
        limit=RejectLimit(
            settings.source.reject_limit.ratio,
            settings.source.reject_limit.window_records,
            settings.source.reject_limit.consecutive,
        ),
        health=health,
        signals=signals,
        systemd=Systemd(),
        options=RunOptions(
            max_records=settings.kafka.max_poll_records,
            checkpoint_s=settings.checkpoint.every_s,
            drain_s=settings.checkpoint.drain_s,
            reload_s=settings.rules.reload_s,
            idle_s=settings.campaigns.idle_s,
        ),
        reloader=Reloader([*rule_paths], CATALOGUE, CLIENT_CLASSES, settings.rules.policy, rules),
        step=step,
        rewind=_rewind,
        said=redis.last_said if redis is not None else lambda alerts: {},
        forgotten=lambda source, partition: isinstance(source, KafkaSource) and source.committed(partition) is None,
        check_topic=topic_check,
        look_around=LookAround(
            redis,
            context,
            settings.kafka.context_topic or "",
            CorporaWatch(settings.corpora.dir, wiring.corpus_key(settings, keys)),
        ),
        done=done,
    )
    http = HttpService(settings.http, health, registry) if settings.http.enabled else None

    def say(state: str) -> None:
        _LOG.info(state, extra=fields(topic=settings.kafka.topic))

    def open_kafka(runner: Runner) -> Source:
        return KafkaSource(settings.kafka, runner, on_state=say)

    def open_spool(runner: Runner) -> Source:
        return SpoolSource(settings.ingest.spool, settings.ingest.partitions, runner)

    receiver = Receiver(settings, keys, telemetry) if settings.ingest.enabled else None
    return Service(runner, http, registry, source or (open_spool if spooled else open_kafka), receiver)


def _rewind(source: Source, partition: int) -> int | None:
    """Offsets without state: begin one window earlier, mute until the committed offset."""
    if not isinstance(source, KafkaSource):
        return None
    found = source.seek_back([partition], _WINDOW_MS).get(partition)
    return None if found is None or found[0] >= found[1] else found[1]


class LookAround:
    """What changes beside the log: context that arrives, corpora, and a Redis that lost its data and gets it again."""

    def __init__(self, redis: RedisSink | None, context: ContextReader | None, topic: str, corpora: CorporaWatch):
        self._redis = redis
        self._corpora = corpora
        self._context = context
        self._topic = topic
        self._read_before = False
        self._published: set[int] = set()

    def __call__(self, runner: Runner) -> None:
        """SinkBusy where Redis does not answer."""
        source = runner.source
        if isinstance(source, KafkaSource):
            runner.health.set("broker", not source.away, source.away)
        self._new_corpora(runner)
        if self._context is not None:
            # The first time all of it, before anything is judged; then whatever has come.
            try:
                values = self._context.read(0 if self._read_before else 500)
            except DependencyDown as error:
                raise SinkBusy(f"nothing is judged without its context: {error}", 5.0) from error
            self._read_before = True
            runner.pipeline.known.take(context_of(values, self._topic))
        if self._redis is not None:
            if self._redis.was_flushed():
                self._published.clear()
                runner.pipeline.campaigns.republish()
            self._published &= runner.source.assigned
            for partition in sorted(runner.source.assigned - self._published):
                self._redis.republish(runner.pipeline.alerts.ledger(partition))
                if partition == LEADER:
                    self._redis.republish(runner.pipeline.campaigns.alerts.ledger())
                self._published.add(partition)

    def _new_corpora(self, runner: Runner) -> None:
        try:
            found = self._corpora.poll()
        except BadInput as error:
            for problem in error.problems:
                _LOG.error("corpora refused, the old ones go on", extra=fields(problem=str(problem)))
            return
        if found is not None:
            runner.pipeline.next_corpora = found
            _LOG.info("corpora take effect with the next epoch", extra=fields(corpora=found.hash))


class TopicCheck:
    """Refuses a topic whose number of partitions changed, or that is not keyed by the account, with the remedy."""

    def __init__(
        self, settings: Settings, store: CheckpointStore, expand: Callable[[RawBatch], Expanded] | None = None
    ):
        self._settings = settings
        self._store = store
        self._expand = expand
        self._shaped = self._keyed = False
        self._partitions: list[int] = []
        self._accounts: list[str | None] = []

    def __call__(self, source: Source, batch: RawBatch) -> None:
        """Look at a batch until both are settled."""
        if not self._shaped and source.partitions_total:
            require_shape(self._store, source.partitions_total, {})
            self._shaped = True
        if self._keyed or not isinstance(source, KafkaSource):
            return
        import numpy as np

        from monitor.source.envelope import read_envelope

        if self._expand is not None:
            batch = self._expand(batch).batch
        self._partitions += batch.partition[:500].tolist()
        self._accounts += [read_envelope(value).account for value in batch.values[:500]]

        placed = np.array(self._partitions, np.int32)
        keyed = keyed_by_account(placed, self._accounts, source.partitions_total)
        if keyed is False:
            raise BadInput([Problem("kafka", 0, not_keyed_remedy(source.topic, source.group), "topic")])
        self._keyed = keyed is True


def checkpoint_store(settings: Settings) -> CheckpointStore:
    """The store of the settings, for this topic and group."""
    scope = f"{settings.kafka.topic}/{settings.kafka.group}"
    if settings.checkpoint.store == "redis":
        return RedisCheckpointStore(RedisOptions.of(settings.redis), scope, prefix=settings.redis.key_prefix)
    if settings.checkpoint.store == "object":
        return object_store(settings.checkpoint, scope)
    return DirectoryStore(settings.checkpoint.path, scope)


def link_store(settings: Settings) -> LinkStore:
    """Where members meet for campaigns: Redis where it is used at all, else this process, which then must be alone."""
    if "redis" in settings.alerts.sinks or settings.checkpoint.store == "redis":
        scope = f"{settings.kafka.topic}/{settings.kafka.group}"
        return RedisLinkStore(RedisOptions.of(settings.redis), scope, prefix=settings.redis.key_prefix)
    return MemoryLinkStore()


def redis_sink(settings: Settings) -> RedisSink:
    """The sink that is exactly once."""
    r = settings.redis
    return RedisSink(
        RedisOptions.of(settings.redis), prefix=r.key_prefix, stream=r.stream, maxlen=r.maxlen, ttl_s=r.ttl_s,
        verdict_ttl_s=r.verdict_ttl_s, max_accounts=settings.alerts.max_accounts,
    )  # fmt: skip


def sinks(settings: Settings, redis: RedisSink | None, telemetry: Telemetry) -> Sink:
    """All sinks of the settings as one; what each takes and refuses is counted."""
    made: list[CountedSink] = []

    def add(sink: Sink) -> None:
        made.append(CountedSink(name, sink, telemetry))

    a = settings.alerts
    for name in a.sinks:
        if name == "redis" and redis is not None:
            add(redis)
        elif name == "file" and a.file is not None:
            add(FileSink(a.file))
        elif name == "kafka" and settings.kafka.alerts_topic is not None:
            sender = LazySender(settings.kafka, settings.kafka.alerts_topic)
            add(LiveOnly(KafkaSink(sender.send, sender.flush, max_accounts=a.max_accounts)))
        elif name == "webhook" and a.webhook.url is not None:
            secret = a.webhook.secret.get_secret_value() if a.webhook.secret is not None else ""
            hook = WebhookSink(
                a.webhook.url.get_secret_value(), secret.encode(), time.time, timeout_s=a.webhook.timeout_s,
                attempts=a.webhook.retries + 1, backoff_max_s=a.webhook.backoff_max_s, max_accounts=a.max_accounts,
            )  # fmt: skip
            add(LiveOnly(hook))
    return FanOut(made)


def context_of(values: Iterable[bytes], topic: str) -> list[ContextEvent]:
    """Context events of a topic's records; what is none is logged and left."""
    events = []
    for value in values:
        found = parse_context(value, topic)
        if isinstance(found, Problem):
            _LOG.warning("a context event is unusable", extra=fields(problem=str(found)))
        else:
            events.append(found)
    return events


def produce_simulation(
    scenarios: Sequence[str | Scenario],
    url: str,
    *,
    accounts: int,
    days: float,
    seed: int,
    speed: float | None,
    heavy_cap: float | None = None,
    prompts: Sequence[Path] = (),
    trace: Sequence[Path] = (),
    context: Path | None = None,
    truth: Path | None = None,
    progress: Progress | None = None,
) -> Written:
    """Simulated traffic into ``kafka://BROKER/TOPIC``, paced by ``speed``, record times being event times.

    ``context`` is written before the first request is sent, ``truth`` after the last. Raises BadInput for a URL or a
    scenario that cannot be used, DependencyDown where the broker does not answer.
    """
    parts = urlsplit(url)
    topic = parts.path.strip("/")
    if not parts.netloc or not topic:
        raise BadInput([Problem("arguments", 0, "--out kafka://BROKER:PORT/TOPIC names a broker and a topic")])
    world = build(scenarios, accounts, days, seed, heavy_cap=heavy_cap, prompts=prompts, trace=trace)
    if context is not None:
        write_lines(context, world.context())
    settings = KafkaSettings(brokers=(parts.netloc,), topic=topic)
    with KafkaSender(settings, topic) as sender:
        done = produce(
            world,
            lambda key, value, timestamp_ms: sender.send(key, value, timestamp_ms=timestamp_ms),
            Clock(time.monotonic, time.sleep),
            speed,
            progress,
        )
        sender.flush()
    if truth is not None:
        write_lines(truth, world.truth())
    return done
