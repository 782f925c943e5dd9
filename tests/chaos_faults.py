"""The faults: what is done to a trial, in order, and what its member must say about it."""

from __future__ import annotations

import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import servers
from accounting import MALFORMED
from chaos import Trial, undisturbed
from chaos_stores import (
    checkpoint_cut,
    checkpoint_of_another_version,
    checkpoint_older,
    disk_full,
    disk_read_only,
    redis_failed_over,
    redis_flushed,
    redis_full,
    redis_killed,
    redis_slow,
)
from members import PARTITIONS, ROOT, SESSION_S, wait_for

Fault = Callable[[Trial], None]
PACKAGED_MODEL = ROOT / "monitor" / "score" / "models"


def broker_killed(t: Trial) -> None:
    """SIGKILL the only broker under load, start it again some seconds later."""
    t.begin()
    t.send(1)
    with t.fault("SIGKILL to the broker", falls=True):
        t.kafka.kill()
        time.sleep(SESSION_S + t.chance.uniform(6, 9))
        t.kafka.restart()
        since = time.monotonic()
    t.send(2)
    t.recovered(since)


def broker_of_three_killed(t: Trial) -> None:
    """Of three brokers (replication 3, min.insync.replicas 2) one is killed under load and stays away."""
    with servers.ApacheKafka(3) as cluster:
        servers.create_topic(cluster.bootstrap, topic := "chaos-three", PARTITIONS)
        servers.create_topic(cluster.bootstrap, f"{topic}.dlq", 1)
        t.begin(topic=topic, bootstrap=cluster.bootstrap)
        t.send(1)
        node = t.chance.randint(1, 3)
        with t.fault(f"SIGKILL to broker {node} of 3", falls=None):
            cluster.kill(node)
            since = time.monotonic()
            t.send(2)
        t.recovered(since)
        t.finish()


def topic_truncated(t: Trial) -> None:
    """Retention deletes records before a member that is behind has read them."""
    t.begin()
    size = len(t.part(0))
    t.member.kill()
    t.send(1)
    from kafka import TopicPartition
    from kafka.admin import OffsetSpec

    with servers.admin(t.group.bootstrap) as client:
        parts = [TopicPartition(t.group.topic, p) for p in range(PARTITIONS)]
        ends = client.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.LATEST))
        client.delete_records({tp: end.offset for tp, end in ends.items()})
    t.say(f"killed; {size} more records sent and deleted before they were read")
    since = time.monotonic()
    t.member = t.group.start()
    t.send(2)
    t.recovered(since)
    t.health = "ready again"
    t.expected = undisturbed((size, 2 * size))
    t.notes.append(f"the {size} deleted records are gone, and it says so")
    if "deleted by the topic's retention" not in t.member.log:
        t.wrong.append("it did not say that records were deleted unread")


def stopped_and_continued(t: Trial) -> None:
    """SIGSTOP for longer than the session: another takes over. SIGCONT: the first comes back to a fence."""
    t.begin()
    heir = t.group.start()
    t.require("both own two", lambda: sorted(t.group.owned().values()) == [2, 2])
    with t.fault("SIGSTOP", falls=None, silent=True):
        t.member.process.send_signal(signal.SIGSTOP)
        t.send(1)
        first, t.member = t.member, heir
        since = time.monotonic()
        t.require("the other owns all", lambda: heir.metric("abusemon_partitions_assigned") == PARTITIONS)
        t.notes.append(f"taken over in {time.monotonic() - since:.1f} s")
        first.process.send_signal(signal.SIGCONT)
        since = time.monotonic()
    t.send(2)
    t.require("both share again", lambda: sorted(t.group.owned().values()) == [2, 2])
    t.recovered(since)
    t.require("the first is ready", first.ready)
    if first.terminate() != 0:
        t.wrong.append("the one that was stopped did not end well")
    # told to finish before it has the others', it would close and leave with its own two alone
    t.require("the other owns all again", lambda: t.member.metric("abusemon_partitions_assigned") == PARTITIONS)
    t.partly = True


def terminated(t: Trial) -> None:
    """SIGTERM under load, then a new one."""
    t.begin()
    t.send(1)
    status = t.member.terminate()
    t.say(f"SIGTERM: status {status}")
    if status:
        t.wrong.append(f"SIGTERM ended with {status}")
    since = time.monotonic()
    t.member = t.group.start()
    t.send(2)
    t.recovered(since)
    t.health = "ready again"


def bad_rules(t: Trial) -> None:
    """A broken rule file is pushed while it runs, and removed again."""
    rules = t.folder / "rules"
    shutil.copytree(ROOT / "rules", rules)
    t.begin(settings={"rules": {"dirs": [str(rules)], "reload_s": 0.5}})
    with t.fault("a rule file that is none", falls=False):
        (rules / "volume" / "broken.yaml").write_text("id: broken\nwhen: nonsense >\n")
        t.require("refused", lambda: t.member.metric("abusemon_rules_last_reload_successful") == 0)
        t.send(1)
        t.require("it is read", lambda: t.group.lag() == 0)
        (rules / "volume" / "broken.yaml").unlink()
        since = time.monotonic()
    t.send(2)
    t.require("taken again", lambda: t.member.metric("abusemon_rules_last_reload_successful") == 1)
    t.recovered(since)


def bad_models(t: Trial) -> None:
    """A model whose file is none is put in service while it runs: the one before it goes on."""
    models = t.folder / "models"
    shutil.copytree(PACKAGED_MODEL, models / "good")
    (models / "CURRENT").write_text("good")
    t.begin(settings={"score": {"classifier": {"model_dir": str(models)}}})

    def serves() -> list[str]:
        lines = t.member.get("/metrics")[1].splitlines()
        return [line for line in lines if line.startswith("abusemon_model_info{") and 'role="active"' in line]

    before = serves()
    with t.fault("a model that is none", falls=False):
        shutil.copytree(models / "good", models / "broken")
        (models / "broken" / "model.onnx").write_bytes(t.chance.randbytes(4_096))
        (models / "CURRENT").write_text("broken")
        t.send(1)
        t.require("it is read", lambda: t.group.lag() == 0)
        since = time.monotonic()
    t.send(2)
    t.recovered(since)
    if not before or serves() != before:
        t.wrong.append(f"another model serves: {before} {serves()}")
    if str(models / "broken") not in t.member.log:
        t.wrong.append("it did not say that the model is unfit")


def memory_limit(t: Trial) -> None:
    """No more memory is to be had under load: it ends rather than go on without what it was denied; started anew."""
    t.begin()
    pid = t.member.process.pid
    held = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (held // 2, held // 2))
    t.say(f"it has {held >> 20:,} MB of addresses and gets none beyond half of these: no page more")
    t.send(1)
    if wait_for(lambda: t.member.process.poll() is not None or t.group.lag() == 0, every_s=0.2):
        status = t.member.process.poll()
        t.notes.append("it had enough" if status is None else f"it ended with status {status}")
        if status == 0:
            t.wrong.append("it ended as if all were well")
    else:
        t.wrong.append("it neither ended nor went on")
    if t.member.process.poll() is None:
        t.member.kill()
    since = time.monotonic()
    t.member = t.group.start()
    t.send(2)
    t.recovered(since)
    t.health = "ready again"


def poisoned(t: Trial) -> None:
    """A producer fills one partition with what is no request: that one stops, the others go on."""
    t.begin()
    poison = [(b"", t.chance.choice(MALFORMED), 0) for _ in range(5_200)]
    from kafka import KafkaProducer

    target = t.chance.randrange(PARTITIONS)
    with t.fault(f"{len(poison)} bad records into partition {target}", falls=True):
        producer = KafkaProducer(bootstrap_servers=t.group.bootstrap, linger_ms=5)
        for _, value, _ in poison:
            producer.send(t.group.topic, value, partition=target, timestamp_ms=t.part(0)[-1][2])
        producer.flush()
        producer.close()
        t.require("it stops", lambda: t.member.metric("abusemon_partition_stopped") == 1)
        t.send(1)
        t.require("only that one is behind", lambda: t.behind() == [target])
    if t.member.terminate() != 0:
        t.wrong.append("SIGTERM did not end it well")
    t.say("restarted with a higher source.reject_limit")
    t.group.settings = {"source": {"reject_limit": {"ratio": 1.0, "consecutive": 100_000}}}
    since = time.monotonic()
    t.member = t.group.start()
    t.send(2)
    t.recovered(since)


def clock_jumps(t: Trial) -> None:
    """The wall clock jumps by up to two days each second, both ways: event time does not care."""
    shim = t.folder / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(
        f"import random, time\n_time, _jump = time.time, random.Random({t.chance.randrange(1 << 30)})\n"
        "_state = [0, 0.0]\n"
        "def jumping():\n"
        "    now = _time()\n"
        "    if int(now) != _state[0]:\n"
        "        _state[:] = [int(now), _jump.uniform(-172800, 172800)]\n"
        "    return now + _state[1]\n"
        "time.time = jumping\n"
    )
    t.begin(env={"PYTHONPATH": f"{shim}:{ROOT}"})
    with t.fault("its clock jumps by up to two days each second", falls=False):
        t.send(1)
        t.send(2)
        since = time.monotonic()
    t.recovered(since)


FAULTS: tuple[Fault, ...] = (
    broker_killed, broker_of_three_killed, topic_truncated, redis_killed, redis_full, redis_slow, redis_failed_over,
    redis_flushed, disk_full, disk_read_only, checkpoint_cut, checkpoint_older, checkpoint_of_another_version,
    stopped_and_continued, terminated, bad_rules, bad_models, memory_limit, poisoned, clock_jumps,
)  # fmt: skip
