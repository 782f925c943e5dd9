"""Members of a group as processes: they share the partitions, one is killed, the other takes over its state.

Nothing here calls a listener: what is seen is what Apache Kafka's coordinator made happen.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import servers
from members import wait_for

pytestmark = [pytest.mark.apache_kafka, pytest.mark.slow]

PARTITIONS = 8
SESSION_MS = 6000
_names = itertools.count()


class Process:
    """A member, and the events it printed."""

    def __init__(self, settings, folder):
        arguments = json.dumps({"settings": settings, "folder": str(folder)})
        script = Path(__file__).with_name("kafka_member.py")
        root = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(
            [sys.executable, str(script), arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
        )
        self.events = []
        self.thread = threading.Thread(target=self._collect, daemon=True)
        self.thread.start()

    def _collect(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def of(self, kind, since=0):
        return [e for e in self.events[since:] if e["event"] == kind]

    @property
    def owned(self):
        owned = set()
        for e in list(self.events):
            if e["event"] == "assign":
                owned |= set(e["partitions"])
            elif e["event"] in ("revoke", "lost"):
                owned -= set(e["partitions"])
        return owned

    def kill(self):
        self.process.kill()
        self.end()

    def end(self):
        self.process.wait(120)
        self.thread.join(5)
        self.process.stdout.close()


class Group:
    def __init__(self, bootstrap, folder, **options):
        self.name = f"rebalance-{next(_names)}"
        self.bootstrap = bootstrap
        self.folder = folder
        self.topic = servers.create_topic(bootstrap, self.name, PARTITIONS)
        self.options = options
        self.members = []
        self.sent = {p: [] for p in range(PARTITIONS)}

    def start(self, **more):
        settings = {
            "brokers": [self.bootstrap],
            "topic": self.topic,
            "group": self.name,
            "session_timeout_ms": SESSION_MS,
            "heartbeat_interval_ms": 1000,
            "max_poll_interval_ms": 30_000,
            "fetch_max_wait_ms": 100,
            **self.options,
            **more,
        }
        self.members.append(Process(settings, self.folder))
        return self.members[-1]

    def produce(self, count):
        from kafka import KafkaProducer

        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5)
        for n in range(count):
            p = n % PARTITIONS
            value = f"{p}-{len(self.sent[p])}".encode()
            self.sent[p].append(value)
            producer.send(self.topic, value, partition=p)
        producer.flush()
        producer.close()

    def described(self):
        with servers.admin(self.bootstrap) as client:
            return client.describe_groups([self.name])[self.name]

    def caught_up(self):
        return all(self.state(p)["next"] == len(self.sent[p]) for p in range(PARTITIONS))

    def state(self, partition):
        path = self.folder / f"{partition}.json"
        return json.loads(path.read_text()) if path.exists() else {"next": 0}

    def close(self):
        for member in self.members:
            if member.process.poll() is None:
                member.kill()


@pytest.fixture
def group(request, apache_kafka, tmp_path):
    made = Group(apache_kafka.bootstrap, tmp_path, **request.param)
    yield made
    made.close()


def check_nothing_lost_nothing_twice(group):
    for p, values in group.sent.items():
        digest = ""
        for value in values:
            digest = hashlib.sha256(digest.encode() + value).hexdigest()
        assert group.state(p) == {"next": len(values), "seen": len(values), "digest": digest}


@pytest.mark.parametrize("group", [{"assignor": "cooperative"}, {"assignor": "eager"}], indirect=True)
def test_two_members_share_one_is_killed_the_other_takes_over(group):
    group.produce(800)
    first = group.start()
    assert wait_for(lambda: len(first.owned) == PARTITIONS)
    assert wait_for(group.caught_up)

    before = len(first.events)
    second = group.start()
    assert wait_for(lambda: len(first.owned) == len(second.owned) == PARTITIONS // 2), (first.owned, second.owned)
    assert first.owned | second.owned == set(range(PARTITIONS))
    described = group.described()
    assert len(described["members"]) == 2
    revoked = set().union(*(e["partitions"] for e in first.of("revoke", before)))
    if group.options["assignor"] == "cooperative":
        assert revoked == second.owned, "only what moves is revoked"
        assert not first.of("assign", before)
    else:
        assert revoked == set(range(PARTITIONS)), "eager: everything is revoked"

    group.produce(1600)
    assert wait_for(group.caught_up)
    assert first.of("read", before)
    assert second.of("read")
    moved, before = set(second.owned), len(first.events)
    second.kill()
    group.produce(800)
    assert wait_for(lambda: len(first.owned) == PARTITIONS)
    taken = set().union(*(e["partitions"] for e in first.of("assign", before)))
    assert moved <= taken
    assert wait_for(group.caught_up)
    generations = [e["generation"] for e in first.of("assign")]
    assert generations == sorted(generations)
    assert generations[-1] > generations[0]

    first.process.send_signal(signal.SIGTERM)
    first.end()
    assert first.process.returncode == 0
    assert not first.owned
    assert first.events[-1]["event"] == "left"
    check_nothing_lost_nothing_twice(group)


@pytest.mark.parametrize("group", [{"assignor": "cooperative"}], indirect=True)
def test_a_static_member_that_restarts_keeps_its_partitions_and_moves_nobody(group):
    group.produce(400)
    first = group.start(group_instance_id="replica-1")
    assert wait_for(lambda: len(first.owned) == PARTITIONS)
    second = group.start(group_instance_id="replica-2")
    assert wait_for(lambda: len(first.owned) == len(second.owned) == PARTITIONS // 2)
    assert {m["group_instance_id"] for m in group.described()["members"]} == {"replica-1", "replica-2"}

    owned, before = set(second.owned), len(first.events)
    second.kill()
    again = group.start(group_instance_id="replica-2")
    assert wait_for(lambda: again.owned == owned)
    group.produce(800)
    assert wait_for(group.caught_up)
    assert not first.of("revoke", before)
    assert not first.of("assign", before), "a restart within the session time-out is no rebalance"

    again.kill()
    assert wait_for(lambda: len(first.owned) == PARTITIONS)
    group.produce(400)
    assert wait_for(group.caught_up)
    check_nothing_lost_nothing_twice(group)
