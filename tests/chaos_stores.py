"""Faults of what the monitor keeps things in: Redis, the disk, its checkpoints."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time

import msgspec
import redis
import servers
from chaos import Trial, streamed
from chaos_means import DurableRedis, fill, mounted, slowed
from members import PARTITIONS

from monitor.source.embedded import HOST
from monitor.store.manifest import seal, unseal


def redis_killed(t: Trial) -> None:
    """Redis (AOF, fsync always) is killed and comes back with its data."""
    with DurableRedis() as server:
        t.begin(redis_url=server.url)
        with t.fault("SIGKILL to Redis", falls=True):
            server.process.kill()
            t.send(1)
            time.sleep(t.chance.uniform(6, 9))
            server.process.start()
            since = time.monotonic()
        t.send(2)
        t.recovered(since)
        t.finish()


def redis_full(t: Trial) -> None:
    """Redis refuses writes for want of memory (OOM) until somebody gives it more."""
    with servers.RedisServer() as server, contextlib.closing(redis.Redis.from_url(server.url)) as client:
        t.begin(redis_url=server.url)
        with t.fault("maxmemory 1 MB: OOM", falls=True):
            client.config_set("maxmemory", "1mb")
            t.send(1)
            time.sleep(t.chance.uniform(6, 9))
            client.config_set("maxmemory", "0")
            since = time.monotonic()
        t.send(2)
        t.recovered(since)
        t.finish()


def redis_slow(t: Trial) -> None:
    """Every answer of Redis takes 100 ms longer, then the server stands still for longer than the time-out."""
    with (
        servers.RedisServer() as server,
        slowed(server.port) as (port, delay),
        contextlib.closing(redis.Redis.from_url(server.url)) as client,
    ):
        t.begin(redis_url=f"redis://{HOST}:{port}/0")
        with t.fault("100 ms for each answer, then none for 8 s", falls=True):
            delay[0] = 0.1
            t.send(1)
            time.sleep(3)
            client.execute_command("CLIENT", "PAUSE", "8000", "ALL")
            time.sleep(8.5)
            delay[0] = 0.0
            since = time.monotonic()
        t.send(2)
        t.recovered(since)
        t.finish()


def redis_failed_over(t: Trial) -> None:
    """The primary is killed under load; its replica is promoted some seconds later and has the address then."""
    with servers.RedisServer() as primary, servers.RedisServer() as replica:
        leads = [primary.port]
        with slowed(leads) as (port, _), contextlib.closing(redis.Redis.from_url(replica.url)) as heir:
            heir.replicaof(HOST, primary.port)
            t.begin(redis_url=f"redis://{HOST}:{port}/0")
            t.require("it is replicated", lambda: heir.info("replication")["master_link_status"] == "up")
            with t.fault("SIGKILL to the primary of two", falls=True):
                t.send(1)
                primary.process.kill()
                time.sleep(t.chance.uniform(6, 9))
                heir.replicaof("NO", "ONE")
                leads[0] = replica.port
                since = time.monotonic()
            t.send(2)
            t.recovered(since)
            t.finish()


def redis_flushed(t: Trial) -> None:
    """FLUSHALL: what was in the stream is gone, open alerts are written again from the state."""
    with servers.RedisServer() as server, contextlib.closing(redis.Redis.from_url(server.url)) as client:
        t.begin(redis_url=server.url)
        t.send(1)
        t.require("it is read", lambda: t.group.lag() == 0)
        t.earlier = streamed(t.group)
        with t.fault("FLUSHALL", falls=None):
            client.flushall()
            since = time.monotonic()
            t.send(2)
            t.require("it is read", lambda: t.group.lag() == 0)
        t.recovered(since)
        t.notes.append(f"{len(t.earlier)} entries were in the stream before")
        t.finish()


def disk_full(t: Trial) -> None:
    """The file system of the checkpoints fills up, and is emptied again."""
    with mounted(t.folder / "small", "size=24m") as disk:
        t.begin(settings={"checkpoint": {"path": str(disk / "state")}})
        with t.fault("the disk is full", falls=True):
            fill(disk / "ballast")
            t.send(1)
            time.sleep(t.chance.uniform(4, 7))
            (disk / "ballast").unlink()
            since = time.monotonic()
        t.send(2)
        t.recovered(since)
        t.member.kill()  # what it wrote since then is what counts
        t.finish(again=True)


def disk_read_only(t: Trial) -> None:
    """The file system of the checkpoints turns read-only, and back."""
    with mounted(t.folder / "readonly", "size=64m") as disk:
        t.begin(settings={"checkpoint": {"path": str(disk / "state")}})
        with t.fault("the disk is read-only", falls=True):
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            t.send(1)
            time.sleep(t.chance.uniform(4, 7))
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            since = time.monotonic()
        t.send(2)
        t.recovered(since)
        t.member.kill()
        t.finish(again=True)


def checkpoint_cut(t: Trial) -> None:
    """Killed, and the last manifest of each partition cut in half: the one before it serves."""
    t.begin()
    state = t.folder / "state"
    t.send(1)
    t.require("it is at work", lambda: "committed" in t.member.steps[-20:])
    # A loaded machine reads the first part within one round of checkpoints: a partition's only manifest has none
    # before it to serve.
    t.require("each partition was saved twice", lambda: len([*state.rglob("previous")]) == PARTITIONS)
    t.member.kill()
    cut = [*state.rglob("manifest")]
    for path in cut:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    t.say(f"SIGKILL; {len(cut)} manifests cut in half")
    since = time.monotonic()
    t.member = t.group.start()
    t.send(2)
    t.recovered(since)
    t.health = "ready again"
    if t.member.log.count("manifest is damaged") != len(cut):
        t.wrong.append("it did not report each damaged manifest")


def checkpoint_older(t: Trial) -> None:
    """Killed, and its checkpoints replaced by those of a while ago: it reads on from their own offsets."""
    t.begin()
    t.member.kill()
    shutil.copytree(t.folder / "state", t.folder / "backup")
    t.member = t.group.start()
    t.send(1)
    t.require("it is read", lambda: t.member.alive() and t.group.lag() == 0)
    t.member.kill()
    shutil.rmtree(t.folder / "state")
    (t.folder / "backup").rename(t.folder / "state")
    t.say("SIGKILL; checkpoints replaced by those before the second part")
    since = time.monotonic()
    t.member = t.group.start()
    t.send(2)
    t.recovered(since)
    t.health = "ready again"


def checkpoint_of_another_version(t: Trial) -> None:
    """Checkpoints in a format that this version does not know are refused in words; its own come back, it goes on."""
    t.begin()
    t.member.kill()
    held = {path: path.read_bytes() for path in (t.folder / "state").rglob("manifest")}
    for path, data in held.items():
        body = unseal(data)
        assert body is not None
        path.write_bytes(seal({**msgspec.json.decode(body), "format": 0}))
    refused = t.group.start()
    status = refused.process.wait(240)
    t.say(f"checkpoints of format 0: refused with status {status}")
    if status == 0 or "has format 0 and this version reads 1" not in refused.log:
        t.wrong.append("a checkpoint of an unknown format was not refused in words")
    for path, data in held.items():
        path.write_bytes(data)
    t.send(1)
    since = time.monotonic()
    t.member = t.group.start()
    t.send(2)
    t.recovered(since)
    t.health = "refused, then ready"
