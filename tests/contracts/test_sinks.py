"""What every sink promises: memory, file, webhook, Kafka messages, Redis 7, Valkey 9."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import servers
from alert_rows import an_alert
from http_receiver import Receiver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.alerts import FanOut, FileSink, KafkaSink, LiveOnly, MemorySink, Sink, WebhookSink, key_of
from monitor.errors import SinkBusy
from monitor.records import Alert, Member
from monitor.source.embedded import EmbeddedServer, EmbeddedValkey
from monitor.store.alert_keys import AlertKeys
from monitor.store.readers import tail
from monitor.store.redis_link import RedisOptions, connect
from monitor.store.redis_sink import RedisSink

KINDS = ["memory", "file", "webhook", "kafka", "redis", "valkey"]
EXACTLY_ONCE = {"memory", "file", "redis", "valkey"}
WIRE = {"webhook", "kafka", "redis", "valkey"}


class Log:
    """A producer as Kafka's is: ``send`` only queues, a ``flush`` that fails has dropped the queue, once."""

    def __init__(self) -> None:
        self.down = False
        self.messages: list[tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]] = []
        self._queue: list[tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]] = []

    def send(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
        self._queue.append((key, value, tuple(headers)))

    def flush(self) -> None:
        queue, self._queue = self._queue, []
        if self.down:
            raise SinkBusy("records were not written")
        self.messages += queue


@dataclass
class Bench:
    """One kind of sink: how to open it, read what arrived, take its other end away and give it back."""

    kind: str
    open: Callable[[], Sink]
    received: Callable[[], list[Alert]]
    down: Callable[[], None]
    up: Callable[[], None]
    opened: list[Sink] = field(default_factory=list)

    def sink(self) -> Sink:
        self.opened.append(self.open())
        return self.opened[-1]

    def distinct(self) -> list[Alert]:
        """First arrivals; for a sink that promises exactly once there must be no others."""
        first: dict[str, Alert] = {}
        for alert in self.received():
            assert key_of(alert) not in first or self.kind not in EXACTLY_ONCE, "written twice"
            first.setdefault(key_of(alert), alert)
        return list(first.values())


def decoded(lines: Sequence[bytes]) -> list[Alert]:
    return [msgspec.json.decode(line, type=Alert) for line in lines]


def _redis_bench(kind: str, server: EmbeddedServer) -> Bench:
    options = RedisOptions(url=server.url, socket_timeout_s=0.3, connect_timeout_s=0.3)
    keys = AlertKeys()

    def received() -> list[Alert]:
        with connect(RedisOptions(url=server.url)) as client:
            return [alert for _, alert in tail(client, keys, "0", count=10_000, wait_s=0.01)]

    def send_signal(number: signal.Signals) -> Callable[[], None]:
        assert server.process is not None
        process = server.process
        return lambda: process.signal(number)

    return Bench(kind, lambda: RedisSink(options), received, send_signal(signal.SIGSTOP), send_signal(signal.SIGCONT))


def _file_bench(path: Path) -> Bench:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full() -> None:  # a disk that has no room for one more line
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))

    return Bench(
        "file",
        lambda: FileSink(path),
        lambda: decoded(path.read_bytes().splitlines()) if path.exists() else [],
        full,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before),
    )


def _webhook_bench(stack: ExitStack) -> Bench:
    receiver = Receiver()
    stack.callback(receiver.stop)

    def open_sink() -> WebhookSink:
        return WebhookSink(receiver.url, b"k", lambda: 1.7e9, backoff_s=0.01, backoff_max_s=0.05, flush_timeout_s=0.5,
                           queue_max=20)  # fmt: skip

    def answer(status: int) -> Callable[[], None]:
        def change() -> None:
            receiver.answer = lambda n: (status, {})

        return change

    return Bench("webhook", open_sink, lambda: decoded(receiver.bodies()), answer(503), answer(200))


def _kafka_bench() -> Bench:
    log = Log()
    return Bench(
        "kafka",
        lambda: KafkaSink(log.send, log.flush),
        lambda: decoded([value for _, value, _ in log.messages]),
        lambda: setattr(log, "down", True),
        lambda: setattr(log, "down", False),
    )


@pytest.fixture(scope="module")
def own_servers() -> Iterator[dict[str, EmbeddedServer]]:
    """Servers that this module may freeze."""
    with ExitStack() as stack:
        yield {"redis": stack.enter_context(servers.RedisServer()), "valkey": stack.enter_context(EmbeddedValkey())}


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path, own_servers: dict[str, EmbeddedServer]) -> Iterator[Bench]:
    kind: str = request.param
    with ExitStack() as stack:
        if kind in own_servers:
            with connect(RedisOptions(url=own_servers[kind].url)) as client:
                client.flushall()
            made = _redis_bench(kind, own_servers[kind])
        elif kind == "file":
            made = _file_bench(tmp_path / "out" / "alerts.ndjson")
        elif kind == "webhook":
            made = _webhook_bench(stack)
        elif kind == "kafka":
            made = _kafka_bench()
        else:
            memory = MemorySink()
            made = Bench(kind, lambda: memory, lambda: memory.alerts, lambda: None, lambda: None)
        yield made
        made.up()
        for sink in made.opened:
            sink.close()


def deliver(sink: Sink, alerts: Sequence[Alert]) -> None:
    """What the pipeline does: send until it is taken, then flush until it is through."""
    for act in (lambda: sink.send(alerts), sink.flush):
        for _ in range(200):
            try:
                act()
                break
            except SinkBusy:
                continue
        else:
            raise AssertionError("busy for ever")


def test_what_is_sent_arrives_whole_and_in_order(bench: Bench) -> None:
    alerts = [an_alert(n, revision, state=state) for n in range(12) for revision, state in ((1, "open"), (2, "closed"))]
    sink = bench.sink()
    deliver(sink, alerts[:5])
    deliver(sink, alerts[5:])
    assert bench.received() == alerts


def test_nothing_is_nothing(bench: Bench) -> None:
    sink = bench.sink()
    sink.send([])
    sink.flush()
    assert bench.received() == []


def test_a_repetition_is_dropped_where_exactly_once_is_promised_and_keyed_elsewhere(bench: Bench) -> None:
    alerts = [an_alert(n) for n in range(3)]
    deliver(bench.sink(), alerts)
    deliver(bench.sink(), [*alerts, an_alert(3)])  # another process, after a crash
    assert bench.distinct() == [*alerts, an_alert(3)]


def test_a_new_revision_of_the_same_alert_arrives(bench: Bench) -> None:
    sink = bench.sink()
    for revision in (1, 2, 3):
        deliver(sink, [an_alert(0, revision)])
    assert [a.revision for a in bench.received()] == [1, 2, 3]


def test_a_large_alert_is_trimmed_on_the_wire_and_whole_in_a_file(bench: Bench) -> None:
    accounts = [f"a-{n:05d}" for n in range(1_500)]
    large = an_alert(
        0, kind="campaign", subject="c-1", accounts=accounts,
        members={a: Member("core" if n >= 600 else "likely", 0.5, ["identity"]) for n, a in enumerate(accounts)},
    )  # fmt: skip
    deliver(bench.sink(), [large])
    (back,) = bench.received()
    if bench.kind in WIRE:
        assert (len(back.accounts), len(back.members), back.accounts_total) == (1_000, 1_000, 1_500)
        assert back.members_ref == f"members:{large.alert_id}"
        assert sum(m.tier == "core" for m in back.members.values()) == 900, "core members first"
    else:
        assert back == large


def test_shadow_never_reaches_a_live_only_sink(bench: Bench) -> None:
    sink = LiveOnly(bench.sink())
    deliver(sink, [an_alert(0, mode="shadow"), an_alert(1), an_alert(2, mode="shadow")])
    assert bench.received() == [an_alert(1)]


def _accepts_while_down(sink: Sink, alerts: Sequence[Alert]) -> bool:
    try:
        sink.send(alerts)
        sink.flush()
    except SinkBusy:
        return False
    return True


def test_a_sink_whose_other_end_is_gone_says_busy_and_loses_nothing(bench: Bench) -> None:
    sink = bench.sink()
    first, second, third = ([an_alert(10 * n + i) for i in range(4)] for n in range(3))
    deliver(sink, first)
    bench.down()
    try:
        for _ in range(2):
            assert _accepts_while_down(sink, second) == (bench.kind == "memory")
    finally:
        bench.up()
    if bench.kind in {"webhook", "kafka"}:  # `send` took them: only the flush is repeated
        deliver(sink, [])
    else:
        deliver(sink, second)
    deliver(sink, third)
    assert bench.distinct() == [*first, *second, *third]


def test_a_fan_out_asks_again_only_whom_it_must(bench: Bench) -> None:
    memory = MemorySink()
    calls: list[int] = []

    class Counting(MemorySink):
        def send(self, alerts: Sequence[Alert]) -> None:
            calls.append(len(alerts))
            super().send(alerts)

    counting = Counting()
    fan = FanOut([counting, bench.sink(), memory])
    deliver(fan, [an_alert(0)])
    bench.down()
    if bench.kind in {"webhook", "kafka"}:  # they queue: busy only when flushed
        fan.send([an_alert(1)])
        with pytest.raises(SinkBusy):
            fan.flush()
    elif bench.kind != "memory":
        for _ in range(3):
            with pytest.raises(SinkBusy):
                fan.send([an_alert(1)])
    bench.up()
    deliver(fan, [an_alert(1)])
    assert memory.alerts == [an_alert(0), an_alert(1)]
    assert bench.distinct() == [an_alert(0), an_alert(1)]
    if bench.kind not in {"memory", "webhook", "kafka"}:
        assert calls == [1, 1], "the sink that had it was not asked again"


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3), st.booleans()), max_size=25))
def test_any_repetition_in_any_order_of_batches_is_one_of_each(
    bench: Bench,
    script: list[tuple[int, int, bool]],
) -> None:
    if bench.kind not in EXACTLY_ONCE:
        return
    base = len(bench.received())
    sink = bench.sink()
    sent: dict[str, Alert] = {}
    for n, revision, reopen in script:
        alert = an_alert(n + 100 * (base + 1), revision)
        if reopen and bench.kind != "memory":
            sink.close()
            sink = bench.sink()
        sink.send([alert])
        sent.setdefault(key_of(alert), alert)
    assert bench.received()[base:] == list(sent.values())
