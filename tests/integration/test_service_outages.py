"""The service while Redis, the broker, its rules or its checkpoints fail it: it waits, says so, and loses nothing."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading

import accounting
import pytest
import redis
import servers
from kills import difference
from members import ROOT, groups, log, produce, undisturbed, wait_for

from monitor.source.embedded import HOST, free_ports

pytestmark = [pytest.mark.apache_kafka, pytest.mark.redis7, pytest.mark.slow]

NOTHING = {"lost": 0, "unexpected": 0, "twice": 0}


@pytest.fixture
def make(apache_kafka, redis_url, tmp_path):
    with groups(apache_kafka.bootstrap, redis_url, tmp_path) as made:
        yield made


class DurableRedis(servers.RedisServer):
    """Redis that has on disk what it answered for."""

    def _command(self):
        return [*super()._command(), "--appendonly", "yes", "--appendfsync", "always"]


def read_all(group, member, records):
    """Produce records, and wait until a checkpoint reflects them."""
    produce(group.bootstrap, group.topic, records)
    assert wait_for(lambda: member.alive() and group.lag() == 0, every_s=0.2)


def test_redis_dies_and_comes_back(make):
    expected, _ = undisturbed(make)
    with DurableRedis() as server:
        group, half = make(redis_url=server.url, max_poll_records=500), len(log()) // 2
        member = group.start()
        read_all(group, member, log()[:half])
        assert wait_for(member.ready)
        server.process.kill()
        produce(group.bootstrap, group.topic, log()[half:])
        assert wait_for(lambda: not member.ready())
        assert "it can't be reached" in member.get("/readyz")[1]
        assert member.metric("abusemon_paused") == 1
        before = member.steps
        assert not wait_for(lambda: len(member.steps) > len(before), 2), "consumption pauses"
        server.process.start()
        assert wait_for(member.ready)
        group.finish.touch()
        member.end()
        assert difference(expected, group.alerts()) == NOTHING


def test_a_member_told_to_stop_while_redis_is_away_loses_no_alert(make):
    expected, _ = undisturbed(make)
    with DurableRedis() as server:
        group, half = make(redis_url=server.url, settings={"checkpoint": {"drain_s": 1}}), len(log()) // 2
        member = group.start()
        read_all(group, member, log()[:half])
        server.process.kill()
        produce(group.bootstrap, group.topic, log()[half:])
        assert wait_for(lambda: not member.ready())
        assert member.terminate() != 0, "it says that it left work behind"
        server.process.start()
        assert wait_for(lambda: server._ready())
        group.run_to_the_end()
        assert difference(expected, group.alerts()) == NOTHING


def test_a_redis_that_was_emptied_gets_the_open_alerts_again(make):
    group = make()
    member = group.start()
    read_all(group, member, log()[: len(log()) // 2])
    last = {alert_id: body for alert_id, _, body in group.alerts()}
    still_open = {alert_id for alert_id, body in last.items() if json.loads(body)["state"] == "open"}
    assert still_open
    with contextlib.closing(redis.Redis.from_url(group.redis_url)) as client:
        client.flushall()
    assert wait_for(lambda: still_open <= {alert_id for alert_id, _, _ in group.alerts()})
    again = group.alerts()
    assert {alert_id: body for alert_id, _, body in again} == {i: last[i] for i, _, _ in again}
    assert len({alert_id for alert_id, _, _ in again}) == len(again)


def test_a_broker_that_is_not_there_yet_is_waited_for(make):
    real = make()
    port = free_ports(1)[0]
    group = make(real.topic, settings={"kafka": {"brokers": [f"{HOST}:{port}"]}})
    produce(real.bootstrap, real.topic, [*log()[:2000], (b"a", b"{", log()[0][2])])
    member = group.start()
    assert wait_for(lambda: member.get("/readyz")[0] == 503)
    assert not wait_for(lambda: not member.alive(), 4)
    assert member.get("/healthz")[0] == 200
    assert "partitions" in member.get("/readyz")[1]
    assert member.log.count("no Kafka broker accepts connections") == 1, "said once"
    with forwarded(port, real.bootstrap):
        assert wait_for(member.ready)
        assert wait_for(lambda: member.alive() and member.metric("abusemon_requests_decoded_total") == 2000)


@contextlib.contextmanager
def forwarded(port, bootstrap):
    """A port that leads to the broker: the first connection a client makes."""
    host, to = bootstrap.rsplit(":", 1)

    def pump(a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    open_sockets = []

    def serve():
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection((host, int(to)))
            open_sockets.extend((here, there))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server((HOST, port)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for s in open_sockets:
                s.close()


def test_a_broken_rule_leaves_the_old_set_in_force(make, tmp_path):
    rules = tmp_path / "rules"
    shutil.copytree(ROOT / "rules", rules)
    group = make(settings={"rules": {"dirs": [str(rules)], "reload_s": 0.5}})
    member = group.start()
    read_all(group, member, log()[:2000])
    loaded = member.metric("abusemon_rules_loaded")
    assert member.metric("abusemon_rules_last_reload_successful") == 1
    bad = rules / "volume" / "broken.yaml"
    bad.parent.mkdir(exist_ok=True)
    bad.write_text("id: broken\nwhen: nonsense >\n")
    assert wait_for(lambda: member.metric("abusemon_rules_last_reload_successful") == 0)
    assert "rules refused" in member.log
    assert "broken.yaml" in member.log
    read_all(group, member, log()[2000:4000])
    assert member.metric("abusemon_rules_loaded") == loaded
    bad.unlink()
    assert wait_for(lambda: member.metric("abusemon_rules_last_reload_successful") == 1)
    assert member.ready()


def test_offsets_without_a_checkpoint_raise_no_alert_twice(make, tmp_path):
    expected, _ = undisturbed(make)
    group, half = make(), len(log()) // 2
    member = group.start()
    read_all(group, member, log()[:half])
    assert member.terminate() == 0
    before = group.alerts()
    assert before
    shutil.rmtree(tmp_path / "state")

    produce(group.bootstrap, group.topic, log()[half:])
    last = group.run_to_the_end()
    assert last.log.count('"rewound"') == 4
    assert last.counts["in_rows"] == len(log()), "a window back: here all of it"
    after = group.alerts()
    assert {*before} <= {*after}
    assert difference(expected, after) == NOTHING, "the whole log is within the window, so even the contents agree"


def test_every_record_is_accounted_for(make):
    spoiled = accounting.Spoiled(log(), seed=3)
    group = make(max_poll_records=5_000)
    produce(group.bootstrap, group.topic, spoiled)
    member = group.run_to_the_end()
    assert spoiled.planted["duplicates"] > 100
    assert spoiled.planted["malformed"] > 100
    accounting.check(group, member, spoiled.planted)
