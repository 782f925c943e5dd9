"""Members of the monitor's group as processes, the log they read, and what they left in Redis.

Used by the tests that kill, starve and replace members. Nothing here imports the pipeline: a member is seen only as
an operator sees it, by its HTTP port, Kafka's group description, Redis, and a file with the steps it did.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis
import servers
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import RetriableError

from monitor.settings import KafkaSettings
from monitor.simulate.api import build
from monitor.source.embedded import free_ports
from monitor.source.kafka_sender import KafkaSender

PARTITIONS = 4
SCENARIOS = ("D1", "D2", "B1", "B3", "B8")
STEPS = ("processed", "delivered", "flushed", "saved", "committed")
SESSION_S = 6.0
PATIENCE_S = 240.0
"""Until what must come is taken not to come. Beside other work a machine was four times as slow, and how long a thing
takes decides no test."""
ROOT = Path(__file__).parents[1]
_names = itertools.count()

Record = tuple[bytes, bytes, int]
"""Key, value, event time in ms."""


@functools.cache
def log(accounts: int = 120, days: float = 1.0, seed: int = 7, heavy_cap: float = 100.0) -> tuple[Record, ...]:
    """A log of two scrapers and three look-alikes among ordinary accounts, in record order."""
    world = build(SCENARIOS, accounts, days, seed, heavy_cap=heavy_cap)
    return tuple(itertools.chain.from_iterable(chunk.messages() for chunk in world))


def produce(bootstrap: str, topic: str, records: Iterable[Record]) -> None:
    """Send records, keyed by account, with their event time."""
    with KafkaSender(KafkaSettings(brokers=tuple(bootstrap.split(",")), topic=topic), topic) as sender:
        for key, value, t_ms in records:
            sender.send(key, value, timestamp_ms=t_ms)
        sender.flush()


def wait_for(condition: Callable[[], object], timeout_s: float = PATIENCE_S, every_s: float = 0.05) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(every_s)
    return bool(condition())


@dataclass
class Member:
    """A member that runs. ``life`` is the folder of its files."""

    process: subprocess.Popen[bytes]
    life: Path
    port: int

    @property
    def steps(self) -> list[str]:
        """Steps done so far; the last is where it stands."""
        try:
            return (self.life / "steps").read_text().split()
        except FileNotFoundError:
            return []

    @property
    def at(self) -> str:
        """The last step."""
        return self.steps[-1] if self.steps else "start"

    @property
    def log(self) -> str:
        """What it wrote on stderr."""
        return (self.life / "log").read_text(errors="replace")

    @property
    def counts(self) -> dict[str, int]:
        """What it counted, once it has ended by itself."""
        return json.loads((self.life / "counts").read_text())

    def kill(self) -> str:
        """SIGKILL; the step in which it died."""
        self.process.kill()
        self.process.wait()
        return self.at

    def kill_in(self, step: str, timeout_s: float = 4.0) -> str:
        """SIGKILL as soon as it is seen in ``step`` (or after the time): the step in which it died."""
        tail = (self.life / "steps").open("rb")
        with tail:
            end = time.monotonic() + timeout_s
            wanted = step.encode() + b"\n"
            tail.seek(0, os.SEEK_END)
            while time.monotonic() < end and self.process.poll() is None:
                if tail.read().endswith(wanted):
                    break
                time.sleep(0.0005)
            return self.kill()

    def terminate(self, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM, and wait; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def end(self, timeout_s: float = 3 * PATIENCE_S) -> None:
        """Wait until it ends by itself, well."""
        assert self.process.wait(timeout_s) == 0, self.log[-3000:]

    def alive(self) -> bool:
        """Still running? A member that failed fails the test with its log."""
        if self.process.poll() is None:
            return True
        raise AssertionError(f"the member ended with {self.process.returncode}:\n{self.log[-3000:]}")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of its HTTP port; 0 where nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> bool:
        """What a load balancer sees."""
        return self.get("/readyz")[0] == 200

    def metric(self, name: str) -> float:
        """Sum of a metric's samples."""
        lines = self.get("/metrics")[1].splitlines()
        found = [line.rsplit(" ", 1) for line in lines if line.startswith((name + " ", name + "{"))]
        return sum(float(value) for _, value in found)


@dataclass
class Group:
    """A topic, a consumer group on it, a place for its checkpoints, its keys in Redis; and its members."""

    bootstrap: str
    redis_url: str
    folder: Path
    topic: str
    name: str = field(default_factory=lambda: f"group-{os.getpid()}-{next(_names)}")
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    checkpoint_s: float = 0.5
    max_poll_records: int = 2_000
    members: list[Member] = field(default_factory=list)

    @property
    def finish(self) -> Path:
        """Exists once nothing more will be produced."""
        return self.folder / f"{self.name}.finish"

    def start(self, *, defect: str = "", linger_s: float = 0.0, env: dict[str, str] | None = None) -> Member:
        """Start one more member."""
        life = self.folder / f"{self.name}-{len(self.members)}"
        life.mkdir(parents=True)
        port = free_ports(1)[0]
        options = {
            "settings": self._settings(port),
            "steps": str(life / "steps"),
            "finish": str(self.finish),
            "counts": str(life / "counts"),
            "linger_s": linger_s,
            "defect": defect,
        }
        (life / "options.json").write_text(json.dumps(options))
        command = [sys.executable, str(ROOT / "tests/integration/member.py"), str(life / "options.json")]
        with (life / "log").open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
            )
        self.members.append(Member(process, life, port))
        return self.members[-1]

    def _settings(self, port: int) -> dict[str, dict[str, object]]:
        made: dict[str, dict[str, object]] = {
            "kafka": {
                "brokers": self.bootstrap.split(","), "topic": self.topic, "group": self.name,
                "auto_offset_reset": "earliest",
                "session_timeout_ms": int(SESSION_S * 1000), "heartbeat_interval_ms": 1_000,
                "max_poll_interval_ms": 60_000, "max_poll_records": self.max_poll_records, "fetch_max_wait_ms": 100,
                "dlq_topic": f"{self.topic}.dlq",
            },
            "redis": {"url": self.redis_url, "key_prefix": self.name},
            "keys": {"ring": [{"id": "k1", "secret": "0123456789abcdef0123456789abcdef"}]},
            "checkpoint": {"path": str(self.folder / "state"), "every_s": self.checkpoint_s, "drain_s": 10},
            "http": {"port": port},
        }  # fmt: skip
        for section, values in self.settings.items():
            made[section] = {**made.get(section, {}), **values}
        return made

    def run_to_the_end(self, **options: object) -> Member:
        """One more member, alone, until everything is read and every tick is closed."""
        self.finish.touch()
        member = self.start(**options)
        member.end()
        return member

    def alerts(self) -> list[tuple[str, int, bytes]]:
        """``(alert_id, revision, content)`` of every entry of its streams, in the order of the streams."""
        return stream(self.redis_url, self.name)

    def owned(self) -> dict[str, int]:
        """Member id -> number of partitions, as the group's description says; nobody while it has no coordinator."""
        with servers.admin(self.bootstrap) as client, contextlib.suppress(RetriableError):
            described = client.describe_groups([self.name])[self.name]
            return {m["member_id"]: _partitions(m) for m in described["members"]}
        return {}

    def lag(self) -> int:
        """Records after its committed offsets.

        While its broker is away, or loads the offsets (a fresh one says of itself that it is not the coordinator,
        or that there is none), nothing is known to be read.
        """
        parts = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
        try:
            with servers.admin(self.bootstrap) as client:
                committed = client.list_group_offsets({self.name: None})[self.name]
                ends = client.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.LATEST))
        except RetriableError:
            return 1 << 30
        return sum(end.offset - max(0, committed[tp].offset if tp in committed else 0) for tp, end in ends.items())

    def close(self) -> None:
        """Kill whatever still runs."""
        for member in self.members:
            if member.process.poll() is None:
                member.kill()


def _partitions(member: dict[str, object]) -> int:
    assignment = member["member_assignment"]  # empty while it joins
    topics = assignment["assigned_partitions"] if isinstance(assignment, dict) else ()
    return sum(len(t["partitions"] if isinstance(t, dict) else t[1]) for t in topics)


def stream(url: str, prefix: str) -> list[tuple[str, int, bytes]]:
    """Every entry of the streams of alerts under a prefix."""
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        entries = [
            entry
            for name in (f"{prefix}:{{{prefix}}}:alerts", f"{prefix}:{{{prefix}}}:alerts:shadow")
            for _, entry in client.xrange(name)
        ]
    return [(e[b"alert_id"].decode(), int(e[b"revision"]), e[b"alert"]) for e in entries]


@contextlib.contextmanager
def groups(bootstrap: str, redis_url: str, folder: Path) -> Iterator[Callable[..., Group]]:
    """A function that makes groups (of one topic each unless told), all of whose members end with the block."""
    made: list[Group] = []

    def make(topic: str | None = None, partitions: int = PARTITIONS, **options: object) -> Group:
        if topic is None:
            topic = f"requests-{os.getpid()}-{next(_names)}"
            servers.create_topic(bootstrap, topic, partitions)
            servers.create_topic(bootstrap, f"{topic}.dlq", 1)
        made.append(Group(bootstrap, options.pop("redis_url", redis_url), folder, topic, **options))
        return made[-1]

    try:
        yield make
    finally:
        for group in made:
            group.close()


_expected: dict[str, tuple[list[tuple[str, int, bytes]], dict[str, int]]] = {}


def undisturbed(make: Callable[..., Group]) -> tuple[list[tuple[str, int, bytes]], dict[str, int]]:
    """Alerts and counts of one member that reads :func:`log` with nothing in its way; run once a process."""
    if not _expected:
        group = make()
        produce(group.bootstrap, group.topic, log())
        member = group.run_to_the_end()
        _expected["log"] = group.alerts(), member.counts
    return _expected["log"]
