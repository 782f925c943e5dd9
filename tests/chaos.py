"""One fault at a time, done to a member of the monitor on real servers, and what came of it.

A trial sends a log in three parts: the first is read in peace, the fault falls on the second, the third follows when it
is over. What counts at the end is the stream of alerts against an undisturbed backtest of the same log; and, meanwhile,
whether ``/healthz`` and ``/readyz`` told the truth, and how long it took until everything sent was read and committed.
"""

from __future__ import annotations

import functools
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import servers
from kills import difference
from members import PARTITIONS, PATIENCE_S, Group, Member, Record, log, produce, wait_for

from monitor.offline import backtest_files
from monitor.settings import Settings

KEY = {"keys": {"ring": [{"id": "k1", "secret": "0123456789abcdef0123456789abcdef"}]}}
Entry = tuple[str, int, bytes]


@functools.cache
def the_log() -> tuple[Record, ...]:
    """About 25,000 requests of 60 accounts in 1.5 days: 19 alerts in some 360 revisions."""
    return log(60, 1.5, 7, 60.0)


@functools.cache
def undisturbed(without: tuple[int, int] = (0, 0)) -> tuple[Entry, ...]:
    """What a backtest raises on the log, less the records of that range."""
    records = the_log()[: without[0]] + the_log()[without[1] :]
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "log.ndjson", Path(folder) / "alerts.ndjson"
        source.write_bytes(b"\n".join(value for _, value, _ in records) + b"\n")
        backtest_files([source], out, settings=Settings.model_validate(KEY), partitions=PARTITIONS)
        return tuple(entries(json.loads(line) for line in out.read_bytes().splitlines()))


def entries(alerts: Iterator[dict[str, Any]]) -> Iterator[Entry]:
    """Alerts as id, revision and content, comparable whatever wrote them."""
    for alert in alerts:
        yield alert["alert_id"], alert["revision"], json.dumps(alert, sort_keys=True).encode()


def streamed(group: Group) -> list[Entry]:
    """What lies in the group's streams."""
    return list(entries(json.loads(body) for _, _, body in group.alerts()))


class Watch(threading.Thread):
    """Asks a member for its health five times a second: ``(seconds, /healthz, /readyz, reason)``."""

    def __init__(self, member: Member):
        super().__init__(daemon=True)
        self.member = member
        self.seen: list[tuple[float, int, int, str]] = []
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.2):
            at = time.monotonic()
            alive, ready = self.member.get("/healthz")[0], self.member.get("/readyz")
            self.seen.append((at, alive, ready[0], ready[1]))

    def stop(self) -> None:
        self._over.set()
        self.join(15)


@dataclass
class Result:
    """One line of the table."""

    name: str
    lost: int
    twice: int
    unexpected: int
    revisions: int
    recovery_s: float
    health: str
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return not (self.lost or self.twice or self.unexpected or self.wrong)


@dataclass
class Trial:
    """A group of its own on the shared servers. ``say`` prints what is done to it, with the seconds since its start."""

    name: str
    kafka: servers.ApacheKafka
    redis: servers.RedisServer
    make: Callable[..., Group]
    folder: Path
    chance: random.Random
    say: Callable[[str], None]
    group: Group = field(init=False)
    member: Member = field(init=False)
    watch: Watch | None = None
    recovery_s: float = 0.0
    health: str = "no process to ask"
    expected: Sequence[Entry] = ()
    earlier: list[Entry] = field(default_factory=list)
    found: list[Entry] | None = None
    partly: bool = False
    """The last member has only some of the partitions' history in its own counts."""
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def part(self, number: int) -> Sequence[Record]:
        """The first, second or third part of the log."""
        size = -(-len(the_log()) // 3)
        return the_log()[number * size : (number + 1) * size]

    def send(self, number: int) -> None:
        produce(self.group.bootstrap, self.group.topic, self.part(number))

    def begin(self, env: dict[str, str] | None = None, bootstrap: str = "", **options: Any) -> None:
        """A member that has read the first part in peace."""
        self.group = self.make(max_poll_records=500, **options)
        self.group.bootstrap = bootstrap or self.group.bootstrap
        self.member = self.group.start(env=env)
        self.send(0)
        self.require("it reads", lambda: self.member.alive() and self.group.lag() == 0)
        self.require("it is ready", self.member.ready)
        self.say(f"read {len(self.part(0))} records in peace")

    def require(self, what: str, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        if not wait_for(condition, timeout_s, 0.2):
            self.wrong.append(f"never came true: {what}")
            raise AssertionError(f"{self.name}: never came true: {what}\n{self.member.log[-2000:]}")

    @contextmanager
    def fault(self, does: str, *, falls: bool | None, silent: bool = False) -> Iterator[None]:
        """The fault holds within; ``falls``: whether readiness must (None: may); ``silent``: it can't answer then."""
        self.watch = Watch(self.member)
        self.watch.start()
        time.sleep(0.5)
        self.say(does)
        began = time.monotonic()
        yield
        ended = time.monotonic()
        time.sleep(0.3)
        seen = [s for s in self.watch.seen if began <= s[0] <= ended]
        dead = sum(alive != 200 for _, alive, _, _ in seen)
        unready = [(at, reason) for at, _, ready, reason in seen if ready == 503]
        self.health = f"ready {len(seen) - len(unready)}, not ready {len(unready)}"
        if dead and not silent:
            self.wrong.append(f"/healthz failed {dead} of {len(seen)} times")
        if falls and not unready:
            self.wrong.append("/readyz stayed 200 all the while")
        if falls is False and unready:
            self.wrong.append(f"/readyz fell without need: {unready[0][1]}")
        if unready:
            self.say(f"not ready after {unready[0][0] - began:.1f} s: {_failing(unready[0][1])}")

    def recovered(self, since: float | None = None) -> None:
        """Measure until everything that was sent is read and committed, and readiness is back."""
        since = time.monotonic() if since is None else since
        self.require("everything is read", lambda: self.member.alive() and self.group.lag() == 0)
        self.require("it is ready again", self.member.ready)
        self.recovery_s = time.monotonic() - since
        self.say(f"recovered in {self.recovery_s:.1f} s")

    def behind(self) -> list[int]:
        """Partitions of which the member says that records wait."""
        name = 'abusemon_consumer_lag_records{partition="'
        lines = [line for line in self.member.get("/metrics")[1].splitlines() if line.startswith(name)]
        return sorted(int(line[len(name) :].split('"')[0]) for line in lines if not line.endswith(" 0.0"))

    def finish(self, again: bool = False) -> None:
        """Let a member (``again``: a new one) read to the end; done by itself unless a fault's servers end before."""
        if self.watch is not None:
            self.watch.stop()
        self.group.finish.touch()
        if again:
            self.member = self.group.start()
        self.member.end()
        self.found = streamed(self.group)

    def result(self) -> Result:
        """What the streams hold against what a backtest raised."""
        if self.found is None:
            self.finish()
        assert self.found is not None
        expected = self.expected or undisturbed()
        told = difference(expected, [*{*self.earlier} - {*self.found}, *self.found])
        counted = self.member.counts["in_rows"]
        if not self.expected and counted != len(the_log()) and not self.partly:
            self.wrong.append(f"{counted} of {len(the_log())} requests in the state")
        return Result(self.name, told["lost"], told["twice"], told["unexpected"], len(expected), self.recovery_s,
                      self.health, self.notes, self.wrong)  # fmt: skip


def _failing(body: str) -> str:
    checks = json.loads(body)["checks"]
    return "; ".join(f"{name}: {check['reason']}" for name, check in checks.items() if not check["ok"])[:160]
