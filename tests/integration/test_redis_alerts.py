"""Alerts in a real Redis 7 and Valkey 9: once each, every key with a life, through crashes, flushes, a full server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import servers
from alert_rows import POLICY, RULES, an_alert, frames, part

from monitor.alerts import AlertOptions, AlertStage, key_of
from monitor.errors import DependencyDown, SinkBusy
from monitor.records import Checkpoint, Member
from monitor.source.embedded import EmbeddedServer, EmbeddedValkey, redis_command, resp
from monitor.store import StoreDown, readers
from monitor.store.alert_keys import AlertKeys, Verdict
from monitor.store.redis_checkpoints import RedisCheckpointStore
from monitor.store.redis_link import RIGHTS, RedisOptions, connect
from monitor.store.redis_sink import RedisSink

KEYS = AlertKeys()


@pytest.fixture(params=[2, 3])
def options(request: pytest.FixtureRequest, any_redis_url: str) -> RedisOptions:
    """Both servers, by both protocols."""
    return RedisOptions(url=any_redis_url, protocol=request.param)


@pytest.fixture
def client(options: RedisOptions) -> Iterator[redis.Redis]:
    with connect(options) as client:
        yield client


@pytest.fixture
def sink(options: RedisOptions) -> Iterator[RedisSink]:
    sink = RedisSink(options)
    yield sink
    sink.close()


def stream(client: redis.Redis, mode: str = "alert") -> list[str]:
    return [key_of(alert) for _, alert in readers.tail(client, KEYS, "0", count=100_000, wait_s=0.01, mode=mode)]


def large(n: int, count: int) -> list[str]:
    return [f"m-{n}-{i:05d}" for i in range(count)]


# ------------------------------------------------------------------------------------ what is in the keys


def test_every_key_has_a_life(options: RedisOptions, client: redis.Redis, sink: RedisSink) -> None:
    accounts = large(0, 1_200)
    sink.was_flushed()
    sink.send(
        [
            an_alert(0), an_alert(0, 2, state="closed"), an_alert(1, severity="high"), an_alert(2, mode="shadow"),
            an_alert(3, kind="campaign", accounts=accounts, members=dict.fromkeys(accounts, Member("core", 1.0, []))),
        ]
    )  # fmt: skip
    readers.consume(client, KEYS, "pager", "p-1", wait_s=0.01)
    readers.consume(client, AlertKeys(stream="other"), "pager", "p-1", wait_s=0.01)
    store = RedisCheckpointStore(options)
    store.claim(0, 1)
    for offset in range(3):
        store.save(Checkpoint(0, offset, 1, {"a": [b"%d" % offset], "b": [b"same"]}, meta={"x": 1}))
    store.put_meta({"partitions": 1})
    store.get_meta()
    names = sorted(client.scan_iter("*"))
    assert len(names) > 1_000
    assert [name for name in names if client.ttl(name) <= 0] == []
    kinds = {name.split(b"}:")[1].split(b":")[0] for name in names}
    assert kinds == {
        b"alerts", b"other", b"ledger", b"alert", b"members", b"account", b"top", b"verdict", b"alive",
        b"fence", b"manifest", b"previous", b"blob", b"meta",
    }  # fmt: skip


def test_a_gateway_reads_one_small_key(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([an_alert(7, severity="high")])
    raw = client.get("abm:{abm}:verdict:a-7")
    assert json.loads(raw) == {
        "account": "a-7", "verdict": "restrict", "severity": "high", "alert_id": f"{7:032x}",
        "until": 1_008.0 + 6 * 3_600,
    }  # fmt: skip
    assert 0 < client.ttl("abm:{abm}:verdict:a-7") <= 6 * 3_600
    assert readers.verdict(client, KEYS, "a-8") is None


def test_a_verdict_ends_with_its_alert_and_not_with_another(client: redis.Redis, sink: RedisSink) -> None:
    def now() -> Verdict | None:
        return readers.verdict(client, KEYS, "a-1")

    campaign = {"kind": "campaign", "subject": "c-9", "accounts": ["a-1"], "severity": "high"}
    sink.send([an_alert(1, severity="medium")])
    sink.send([an_alert(9, **campaign)])
    held = now()
    assert held is not None
    assert (held.verdict, held.alert_id) == ("restrict", f"{9:032x}")
    sink.send([an_alert(1, 2, severity="low")])  # weaker: the stronger one stays
    assert now() == held
    sink.send([an_alert(1, 3, severity="low", state="closed")])  # not its own
    assert now() == held
    sink.send([an_alert(9, 2, state="closed", **campaign)])
    assert now() is None


def test_shadow_is_in_its_own_stream_and_touches_nothing_else(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([an_alert(5, mode="shadow", severity="critical")])
    assert stream(client) == []
    assert stream(client, "shadow") == [key_of(an_alert(5))]
    assert readers.verdict(client, KEYS, "a-5") is None
    assert readers.account(client, KEYS, "a-5") is None
    assert readers.top(client, KEYS) == []
    assert readers.show(client, KEYS, f"{5:032x}") == an_alert(5, mode="shadow", severity="critical")


def test_state_and_risk_follow_the_alert(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([an_alert(1, severity="low"), an_alert(2, severity="high"), an_alert(3, severity="medium")])
    assert [(s.account, s.severity, s.state) for s in readers.top(client, KEYS)] == [
        ("a-2", "high", "open"), ("a-3", "medium", "open"), ("a-1", "low", "open"),
    ]  # fmt: skip
    assert [s.account for s in readers.top(client, KEYS, 1)] == ["a-2"]
    sink.send([an_alert(2, 2, severity="high", state="closed")])
    assert [s.account for s in readers.top(client, KEYS)] == ["a-3", "a-1"]
    state = readers.account(client, KEYS, "a-2")
    assert state is not None
    assert (state.state, state.revision, state.risk) == ("closed", 2, None)


def test_a_late_older_revision_never_turns_the_state_back(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([an_alert(1, 3, severity="high", state="closed")])
    sink.send([an_alert(1, 2, severity="medium")])
    assert stream(client) == [f"{1:032x}:3", f"{1:032x}:2"], "it was never written, so it is"
    assert readers.show(client, KEYS, f"{1:032x}") == an_alert(1, 3, severity="high", state="closed")
    assert readers.verdict(client, KEYS, "a-1") is None
    assert readers.top(client, KEYS) == []


def test_an_older_episode_that_comes_late_does_not_hide_the_newer(client: redis.Redis, sink: RedisSink) -> None:
    newer = an_alert(11, subject="a-1", accounts=["a-1"], revised_at=9_000.0, severity="high")
    sink.send([newer, an_alert(10, subject="a-1", accounts=["a-1"], revised_at=5_000.0, state="closed")])
    state = readers.account(client, KEYS, "a-1")
    assert state is not None
    assert (state.alert_id, state.state) == (newer.alert_id, "open")
    assert [s.account for s in readers.top(client, KEYS)] == ["a-1"]


def test_other_content_of_the_same_revision_is_written_and_the_same_is_not(
    client: redis.Redis, sink: RedisSink
) -> None:
    sink.send([an_alert(1), an_alert(1, severity="high"), an_alert(1, severity="high")])
    assert stream(client) == [f"{1:032x}:1"] * 2
    assert sink.repeated == 1


def test_members_of_a_large_alert_are_all_there(client: redis.Redis, sink: RedisSink) -> None:
    accounts = large(4, 2_500)
    sink.send([an_alert(4, accounts=accounts, members={a: Member("core", 1.0, ["identity"]) for a in accounts})])
    short = readers.show(client, KEYS, f"{4:032x}")
    assert short is not None
    assert (len(short.accounts), short.accounts_total) == (1_000, 2_500)
    whole = readers.members(client, KEYS, f"{4:032x}")
    assert whole is not None
    assert (whole.accounts, len(whole.members)) == (accounts, 2_500)
    assert readers.members(client, KEYS, f"{5:032x}") is None


def test_the_stream_is_bounded(options: RedisOptions, client: redis.Redis) -> None:
    sink = RedisSink(options, maxlen=1_000)
    sink.send([an_alert(n) for n in range(1_500)])
    sink.close()
    assert 1_000 <= client.xlen(KEYS.stream_of("alert")) < 1_200


# --------------------------------------------------------------------------------------------- readers


def test_list_gives_the_newest_revision_of_each_newest_first(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([an_alert(n, revision) for revision in (1, 2) for n in range(600)])
    found = readers.list_alerts(client, KEYS, limit=5)
    assert [key_of(a) for a in found] == [f"{n:032x}:2" for n in (599, 598, 597, 596, 595)]
    odd = readers.list_alerts(client, KEYS, limit=1_000, wanted=lambda a: int(a.alert_id, 16) % 2 == 1)
    assert [key_of(a) for a in odd] == [f"{n:032x}:2" for n in range(599, 0, -2)]


def test_tail_goes_on_from_where_it_was(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([an_alert(n) for n in range(5)])
    first = readers.tail(client, KEYS, "0", count=3, wait_s=0.01)
    rest = readers.tail(client, KEYS, first[-1][0], wait_s=0.01)
    assert [a for _, a in first + rest] == [an_alert(n) for n in range(5)]
    assert readers.tail(client, KEYS, rest[-1][0], wait_s=0.01) == []
    waited: list[readers.Entry] = []
    thread = threading.Thread(target=lambda: waited.extend(readers.tail(client, KEYS, "$", wait_s=3)))
    thread.start()
    while not client.info("clients")["blocked_clients"]:
        pass
    sink.send([an_alert(9)])
    thread.join()
    assert [a for _, a in waited] == [an_alert(9)]


def test_a_consumer_group_shares_the_work_and_takes_over_what_a_dead_member_left(
    client: redis.Redis, sink: RedisSink
) -> None:
    sink.send([an_alert(n) for n in range(6)])
    mine = readers.consume(client, KEYS, "siem", "one", count=2, wait_s=0.01)
    other = readers.consume(client, KEYS, "siem", "two", count=10, wait_s=0.01)
    assert [a for _, a in mine + other] == [an_alert(n) for n in range(6)]
    assert readers.ack(client, KEYS, "siem", [i for i, _ in other]) == 4
    taken = readers.consume(client, KEYS, "siem", "two", wait_s=0.01, stuck_s=0)  # "one" never acknowledged
    assert taken == mine
    assert readers.ack(client, KEYS, "siem", [i for i, _ in taken]) == 2
    assert readers.consume(client, KEYS, "siem", "two", wait_s=0.01, stuck_s=0) == []
    assert len(readers.consume(client, KEYS, "archive", "x", wait_s=0.01)) == 6, "another group has its own place"


# ------------------------------------------------------------------------------ crashes, flushes, faults

SENDER = """
import sys
sys.path.insert(0, sys.argv[2])
from alert_rows import an_alert
from monitor.store.redis_link import RedisOptions
from monitor.store.redis_sink import RedisSink
sink = RedisSink(RedisOptions(url=sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[3]), 1500, 10):
    sink.send([an_alert(i) for i in range(n, n + 10)])
print(sink.repeated, flush=True)
"""


def test_two_processes_that_send_the_same_write_each_alert_once(any_redis_url: str) -> None:
    here = str(Path(__file__).parents[1])
    both = [
        subprocess.Popen([sys.executable, "-c", SENDER, any_redis_url, here, str(start)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for start in (0, 500)
    ]  # fmt: skip
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    repeated = [int(process.communicate()[0]) for process in both]
    with connect(RedisOptions(url=any_redis_url)) as client:
        keys = stream(client)
    assert sorted(keys) == [f"{n:032x}:1" for n in range(1_500)]
    assert sum(repeated) == 1_000


def _server(stack: ExitStack, kind: str) -> EmbeddedServer:
    return stack.enter_context(servers.RedisServer() if kind == "redis" else EmbeddedValkey())


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_a_server_killed_in_the_middle_and_started_empty_gets_everything_back(kind: str) -> None:
    with ExitStack() as stack:
        server = _server(stack, kind)
        assert server.process is not None
        options = RedisOptions(url=server.url, socket_timeout_s=1.0, connect_timeout_s=1.0)
        sink = RedisSink(options)
        stage = AlertStage(POLICY, RULES, AlertOptions())
        subjects = [f"a-{n}" for n in range(20)]
        partitions = sorted({part(s) for s in subjects})
        sink.send(stage.decide(*frames([(s, 1, ["timing.metronome"]) for s in subjects])))
        assert sink.was_flushed(), "the first question: it can't know"
        assert not sink.was_flushed()
        server.process.kill()
        more = stage.decide(*frames([(s, 2, ["volume.flood"]) for s in subjects[:5]]))
        with pytest.raises(SinkBusy, match="can't be reached") as busy:
            sink.send(more)
        assert busy.value.retry_after_s > 0
        with pytest.raises(SinkBusy):
            sink.was_flushed()
        with pytest.raises(DependencyDown, match=r"start it or correct redis\.url"):
            sink.check()
        server.process.start()
        server.process.wait_until(server._ready, 60)
        sink.send(more)
        assert sink.was_flushed()
        for partition in partitions:
            sink.republish(stage.ledger(partition))
            sink.republish(stage.ledger(partition))
        assert not sink.was_flushed()
        with connect(options) as client:
            keys = stream(client)
            expected = [key_of(a) for p in partitions for a in stage.ledger(p)]
            assert sorted(keys) == sorted(expected)
            assert len(keys) == len(set(keys)) == 20
            assert len(readers.top(client, KEYS, 100)) == 20
        sink.close()


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_a_frozen_server_is_busy_and_what_it_did_meanwhile_is_not_repeated(kind: str) -> None:
    with ExitStack() as stack:
        server = _server(stack, kind)
        assert server.process is not None
        sink = RedisSink(RedisOptions(url=server.url, socket_timeout_s=0.2))
        sink.send([an_alert(0)])
        server.process.signal(signal.SIGSTOP)
        for _ in range(3):  # the server will run each of these once it wakes up
            with pytest.raises(SinkBusy, match="did not answer"):
                sink.send([an_alert(1), an_alert(2)])
        server.process.signal(signal.SIGCONT)
        sink.send([an_alert(1), an_alert(2), an_alert(3)])
        sink.close()
        with connect(RedisOptions(url=server.url)) as client:
            assert stream(client) == [key_of(an_alert(n)) for n in range(4)]


def test_a_full_server_is_busy_and_nothing_is_half_written(options: RedisOptions, client: redis.Redis) -> None:
    sink = RedisSink(options)
    store = RedisCheckpointStore(options)
    sink.send([an_alert(0)])
    store.save(Checkpoint(0, 1, 1, {"a": [b"old"]}))
    before = sorted(client.scan_iter("*"))
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(SinkBusy, match="raise maxmemory"):
            sink.send([an_alert(1)])
        with pytest.raises(StoreDown, match=r"raise maxmemory.*intact"):
            store.save(Checkpoint(0, 2, 1, {"a": [b"new"]}))
        with pytest.raises(StoreDown):
            store.put_meta({"partitions": 1})
    finally:
        client.config_set("maxmemory", "0")
    assert sorted(client.scan_iter("*")) == before
    back = store.load(0)
    assert back is not None
    assert back.next_offset == 1
    sink.send([an_alert(1)])
    assert stream(client) == [key_of(an_alert(0)), key_of(an_alert(1))]


def test_a_replica_is_busy_and_says_why(redis_server: Callable[[], EmbeddedServer]) -> None:
    primary, replica = redis_server(), redis_server()
    with connect(RedisOptions(url=replica.url)) as client:
        client.replicaof("127.0.0.1", primary.port)
        sink = RedisSink(RedisOptions(url=replica.url))
        with pytest.raises(SinkBusy, match="read-only replica"):
            sink.send([an_alert(0)])
        client.replicaof("NO", "ONE")
        sink.send([an_alert(0)])
        sink.close()


def test_scripts_that_the_server_forgot_are_loaded_again(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([an_alert(0)])
    client.script_flush()
    sink.send([an_alert(1), an_alert(2)])
    assert stream(client) == [key_of(an_alert(n)) for n in range(3)]


def test_a_fault_of_ours_is_not_called_busy(client: redis.Redis, sink: RedisSink) -> None:
    client.set(KEYS.stream_of("alert"), "not a stream")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        sink.send([an_alert(0)])


# ------------------------------------------------------------------------------- cluster, TLS, ACL


class ClusterNode(servers.RedisServer):
    """A cluster of one: it refuses a script whose keys are not in one slot, and keys that were not announced."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--cluster-enabled", "yes", "--cluster-port", "0"]


def test_every_script_stays_in_one_slot_of_a_real_cluster() -> None:
    with ClusterNode() as server, connect(RedisOptions(url=server.url)) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        assert server.process is not None
        server.process.wait_until(lambda: "cluster_state:ok" in resp(server.port, "CLUSTER", "INFO"), 60)
        with pytest.raises(redis.RedisError, match="same slot"):
            client.eval("return 1", 2, "a", "b")
        options = RedisOptions(url=server.url)
        sink = RedisSink(options)
        accounts = large(1, 1_100)
        sink.send([an_alert(0), an_alert(1, accounts=accounts, members=dict.fromkeys(accounts, Member("core", 1, [])))])
        assert len(stream(client)) == 2
        store = RedisCheckpointStore(options)
        for partition in (0, 7):
            store.claim(partition, 1)
            store.save(Checkpoint(partition, 1, 1, {"a": [b"x", b"y"]}))
            store.save(Checkpoint(partition, 2, 1, {"a": [b"z"]}, {"a": 1}))
            back = store.load(partition)
            assert back is not None
            assert back.parts == {"a": [b"x", b"z"]}
        sink.close()
        store.close()


class TlsServer(servers.RedisServer):
    """TLS only, with a client certificate demanded."""

    def _command(self) -> list[str]:
        cert, key = self.directory / "cert.pem", self.directory / "key.pem"
        if not cert.exists():
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                 "-keyout", str(key), "-out", str(cert)],
                check=True, capture_output=True,
            )  # fmt: skip
        command = redis_command("redis-server", 0, self.directory)
        return [*command, "--tls-port", str(self.port), "--tls-cert-file", str(cert), "--tls-key-file", str(key),
                "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "yes"]  # fmt: skip

    def _ready(self) -> bool:
        options = RedisOptions(
            url=f"rediss://localhost:{self.port}", ssl_cafile=self.directory / "cert.pem",
            ssl_certfile=self.directory / "cert.pem", ssl_keyfile=self.directory / "key.pem",
        )  # fmt: skip
        with connect(options) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def _version(self) -> str:
        return "Redis over TLS"


@pytest.mark.parametrize("protocol", [2, 3])
def test_tls_and_an_acl_user_with_no_more_rights_than_the_docs_give(protocol: int) -> None:
    with TlsServer() as server:
        files = server.directory
        tls = {"ssl_cafile": files / "cert.pem", "ssl_certfile": files / "cert.pem", "ssl_keyfile": files / "key.pem"}
        url = f"rediss://localhost:{server.port}/0"
        with connect(RedisOptions(url=url, **tls)) as admin:
            admin.execute_command("ACL", "SETUSER", "monitor", "on", ">pass-1", "resetkeys", "~abm:*", "-@all", *RIGHTS)
        options = RedisOptions(url=url, username="monitor", password=lambda: "pass-1", protocol=protocol, **tls)
        sink = RedisSink(options)
        sink.check()
        sink.was_flushed()
        sink.send([an_alert(0, accounts=large(0, 1_001), members={}), an_alert(0, 2, state="closed")])
        with connect(options) as client:
            assert len(stream(client)) == 2
            assert readers.top(client, KEYS) == []
            readers.consume(client, KEYS, "g", "c", wait_s=0.01)
            assert len(readers.list_alerts(client, KEYS)) == 1
        store = RedisCheckpointStore(options)
        store.claim(0, 1)
        for offset in range(3):
            store.save(Checkpoint(0, offset, 1, {"a": [b"%d" % offset]}))
        store.put_meta({"partitions": 1})
        assert store.get_meta() == {"partitions": 1}
        assert store.partitions() == [0]
        store.unfence(0)
        sink.close()
        store.close()
        for bad, why in (
            (RedisOptions(url=url, username="monitor", password="wrong-1", **tls), "refuses our user"),
            (RedisOptions(url=url, username="monitor", password="pass-1"), "can't be reached"),  # unknown authority
        ):
            other = RedisSink(bad)
            with pytest.raises(DependencyDown, match=why) as error:
                other.check()
            assert "pass-1" not in str(error.value)
            assert "wrong-1" not in str(error.value)
            with pytest.raises(SinkBusy, match=why):
                other.send([an_alert(1)])
            other.close()
        stranger = RedisSink(options, prefix="somebody")
        with pytest.raises(SinkBusy, match="refuses our user"):
            stranger.send([an_alert(1)])
        stranger.close()
