"""What every checkpoint store promises: memory, directory, Redis 7, Valkey 9, S3 (moto), obstore's own memory."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from monitor.errors import Fenced, Reshaped
from monitor.records import Checkpoint
from monitor.store import CheckpointStore, Damaged, DirectoryStore, Incomplete, MemoryStore, require_shape
from monitor.store.object_checkpoints import ObjectCheckpointStore, open_url
from monitor.store.redis_checkpoints import RedisCheckpointStore
from monitor.store.redis_link import RedisOptions

KINDS = ["memory", "directory", "redis", "valkey", "s3", "objects"]
SHARED = ["directory", "redis", "valkey", "s3"]
"""Those that another process sees."""
_names = itertools.count()


def make_bench(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if kind in {"redis", "valkey"}:
        return Bench(kind, request.getfixturevalue(f"{kind}_url"), [])
    if kind == "s3":
        server = request.getfixturevalue("s3")
        where = f"{server.bucket(f'contract-{next(_names)}')} {server.url}"
        return Bench(kind, where, [], objects=open_url(*where.split()))
    if kind == "objects":
        return Bench(kind, "", [], objects=obstore.store.MemoryStore())
    return Bench(kind, str(tmp_path), [])


@dataclass
class Bench:
    """One kind of store: how to open it as another process would, and how to break what it holds."""

    kind: str
    where: str
    reports: list[str]
    memory: MemoryStore | None = None
    objects: Any = None

    def open(self, scope: str = "t/g") -> CheckpointStore:
        if self.kind == "memory":
            if self.memory is None:
                self.memory = MemoryStore(report=self.reports.append)
            return self.memory
        if self.kind == "directory":
            return DirectoryStore(self.where, scope, report=self.reports.append)
        if self.objects is not None:
            return ObjectCheckpointStore(self.objects, scope, report=self.reports.append)
        return RedisCheckpointStore(RedisOptions(url=self.where), scope, report=self.reports.append)

    def damage(self, what: str, change: Callable[[bytes], bytes | None]) -> int:
        """Apply ``change`` to everything named ``manifest``, ``previous`` or ``blob``; how many there were."""
        count = 0
        if self.kind == "memory":
            assert self.memory is not None
            held: dict[Any, bytes] = {
                "manifest": self.memory._current, "previous": self.memory._previous, "blob": self.memory._blobs
            }[what]  # fmt: skip
            for key, value in list(held.items()):
                new = change(value)
                count += 1
                if new is None:
                    del held[key]
                else:
                    held[key] = new
        elif self.kind == "directory":
            for path in Path(self.where).rglob("*"):
                if path.is_file() and (path.name == what or (what == "blob" and path.parent.name == "blobs")):
                    new = change(path.read_bytes())
                    count += 1
                    if new is None:
                        path.unlink()
                    else:
                        path.write_bytes(new)
        elif self.objects is not None:
            names = [item["path"] for chunk in obstore.list(self.objects) for item in chunk]
            heads = [json.loads(self._read(name).split(b"\n")[1]) for name in names if name.endswith("/head")]
            chosen = {"manifest": [h["last"] for h in heads], "previous": [h["previous"] for h in heads]}
            for name in chosen.get(what, [name for name in names if "/blobs/" in name]):
                new = change(self._read(name))
                count += 1
                if new is None:
                    obstore.delete(self.objects, name)
                else:
                    obstore.put(self.objects, name, new)
        else:
            with redis.Redis.from_url(self.where) as client:
                for key in client.scan_iter("*"):
                    if f":{what}".encode() in key:
                        new = change(client.get(key))
                        count += 1
                        if new is None:
                            client.delete(key)
                        else:
                            client.set(key, new)
        return count

    def _read(self, name: str) -> bytes:
        return bytes(obstore.get(self.objects, name).bytes())

    def blobs(self) -> int:
        return self.damage("blob", lambda data: data)


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return make_bench(request.param, request, tmp_path)


def cp(
    offset: int,
    parts: dict[str, list[bytes]],
    *,
    keep: dict[str, int] | None = None,
    generation: int = 1,
    partition: int = 3,
    **meta: Any,
) -> Checkpoint:
    return Checkpoint(partition, offset, generation, parts, keep or {}, meta)


def test_nothing_saved_is_none(bench: Bench) -> None:
    store = bench.open()
    assert store.load(3) is None
    assert store.partitions() == []
    assert store.get_meta() is None


def test_what_was_saved_comes_back_in_another_process(bench: Bench) -> None:
    big = os.urandom(1 << 20)
    bench.open().save(cp(41, {"features": [big, b"delta"], "alerts": [b""], "none": []}, epoch=7, hash="abc"))
    back = bench.open().load(3)
    assert back is not None
    assert (back.partition, back.next_offset, back.generation) == (3, 41, 1)
    assert back.parts == {"features": [big, b"delta"], "alerts": [b""], "none": []}
    assert back.meta == {"epoch": 7, "hash": "abc"}
    assert bench.open().partitions() == [3]


def test_partitions_are_apart(bench: Bench) -> None:
    store = bench.open()
    for partition in (11, 2, 100_000):
        store.save(cp(partition, {"a": [b"%d" % partition]}, partition=partition))
    assert store.partitions() == [2, 11, 100_000]
    back = bench.open().load(11)
    assert back is not None
    assert back.parts == {"a": [b"11"]}


def test_topics_and_groups_are_apart(bench: Bench) -> None:
    if bench.kind == "memory":
        return
    bench.open("requests/monitor").save(cp(1, {"a": [b"x"]}))
    for other in ("requests/monitor2", "requests-monitor", "requests"):
        assert bench.open(other).load(3) is None
        assert bench.open(other).partitions() == []


def test_a_delta_appends_to_what_is_kept(bench: Bench) -> None:
    store = bench.open()
    store.save(cp(1, {"features": [b"full"], "ticks": [b"t1"], "gone": [b"x"]}))
    store.save(cp(2, {"features": [b"d1"], "ticks": [b"t2"]}, keep={"features": 1}))
    store.save(cp(3, {"features": [b"d2"], "ticks": [b"t3"]}, keep={"features": 2}))
    back = bench.open().load(3)
    assert back is not None
    assert back.next_offset == 3
    assert back.parts == {"features": [b"full", b"d1", b"d2"], "ticks": [b"t3"]}


def test_a_delta_may_drop_later_blobs_and_add_none(bench: Bench) -> None:
    store = bench.open()
    store.save(cp(1, {"features": [b"full", b"d1", b"d2"]}))
    store.save(cp(2, {}, keep={"features": 2}))
    back = bench.open().load(3)
    assert back is not None
    assert back.parts == {"features": [b"full", b"d1"]}


def test_a_delta_works_in_a_process_that_only_loaded(bench: Bench) -> None:
    bench.open().save(cp(1, {"features": [b"full"]}))
    other = bench.open()
    assert other.load(3) is not None
    other.save(cp(2, {"features": [b"d1"]}, keep={"features": 1}, generation=2))
    back = bench.open().load(3)
    assert back is not None
    assert back.parts == {"features": [b"full", b"d1"]}


def test_a_delta_on_more_than_is_held_is_refused_and_changes_nothing(bench: Bench) -> None:
    store = bench.open()
    with pytest.raises(Incomplete, match="write a full checkpoint"):
        store.save(cp(1, {"features": [b"d"]}, keep={"features": 1}))
    store.save(cp(2, {"features": [b"full"]}))
    with pytest.raises(Incomplete):
        store.save(cp(3, {"features": [b"d"]}, keep={"features": 2}))
    back = bench.open().load(3)
    assert back is not None
    assert back.next_offset == 2


def test_a_delta_whose_kept_blob_vanished_is_refused(bench: Bench) -> None:
    store = bench.open()
    store.save(cp(1, {"features": [b"full"]}))
    assert bench.damage("blob", lambda _: None) == 1
    with pytest.raises(Incomplete, match="gone"):
        store.save(cp(2, {"features": [b"d"]}, keep={"features": 1}))


def test_an_older_generation_is_shut_out_by_a_claim(bench: Bench) -> None:
    zombie, owner = bench.open(), bench.open()
    zombie.claim(3, 5)
    zombie.save(cp(1, {"a": [b"old"]}, generation=5))
    owner.claim(3, 6)
    before = bench.blobs()
    with pytest.raises(Fenced, match="generation 5 is older than 6"):
        zombie.save(cp(2, {"a": [b"zombie"]}, generation=5))
    with pytest.raises(Fenced):
        zombie.claim(3, 5)
    assert bench.blobs() == before, "a member that is out leaves no blob behind"
    back = owner.load(3)
    assert back is not None
    assert back.parts == {"a": [b"old"]}
    owner.save(cp(3, {"a": [b"new"]}, generation=6))


def test_a_save_of_a_newer_generation_shuts_out_the_older(bench: Bench) -> None:
    bench.open().save(cp(1, {"a": [b"6"]}, generation=6))
    with pytest.raises(Fenced):
        bench.open().save(cp(2, {"a": [b"5"]}, generation=5))
    with pytest.raises(Fenced):
        bench.open().claim(3, 5)


def test_the_same_generation_may_claim_and_save_again(bench: Bench) -> None:
    for _ in range(2):
        store = bench.open()
        store.claim(3, 4)
        store.save(cp(1, {"a": [b"x"]}, generation=4))


def test_the_fence_is_of_one_partition(bench: Bench) -> None:
    store = bench.open()
    store.claim(3, 9)
    store.claim(4, 1)
    store.save(cp(1, {"a": [b"x"]}, partition=4, generation=1))


def test_unfence_lets_a_forgotten_group_start_again_with_its_state(bench: Bench) -> None:
    store = bench.open()
    store.claim(3, 90)
    store.save(cp(7, {"a": [b"x"]}, generation=90))
    store.unfence(3)
    again = bench.open()
    again.claim(3, 1)
    back = again.load(3)
    assert back is not None
    assert back.next_offset == 7
    again.save(cp(8, {"a": [b"y"]}, generation=1))


@pytest.mark.parametrize(
    "change",
    [lambda data: data[: len(data) // 2], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b""],
    ids=["half", "flipped", "empty"],
)
@pytest.mark.parametrize("what", ["manifest", "blob"])
def test_damage_is_seen_and_the_checkpoint_before_it_serves(
    bench: Bench, what: str, change: Callable[[bytes], bytes]
) -> None:
    store = bench.open()
    store.save(cp(1, {"a": [b"first" * 100]}))
    store.save(cp(2, {"a": [b"second" * 100]}))

    def only_second(data: bytes) -> bytes:
        return change(data) if what == "manifest" or b"second" in data else data

    assert bench.damage(what, only_second) >= 1
    fresh = bench.open()
    back = fresh.load(3)
    assert back is not None
    assert (back.next_offset, back.parts) == (1, {"a": [b"first" * 100]})
    assert len(bench.reports) == 1
    assert "partition 3" in bench.reports[0]
    # What is kept from here on is what was loaded, not what the damaged manifest says.
    fresh.save(cp(3, {"a": [b"third"]}, keep={"a": 1}))
    last = bench.open().load(3)
    assert last is not None
    assert (last.next_offset, last.parts) == (3, {"a": [b"first" * 100, b"third"]})


def test_a_damaged_blob_of_the_same_content_is_healed(bench: Bench) -> None:
    if bench.kind == "memory":
        return
    bench.open().save(cp(1, {"a": [b"state" * 50]}))
    bench.damage("blob", lambda data: data[:-3])
    bench.open().save(cp(2, {"a": [b"state" * 50]}))
    back = bench.open().load(3)
    assert back is not None
    assert (back.next_offset, back.parts) == (2, {"a": [b"state" * 50]})


def test_nothing_whole_is_an_error_that_says_what_to_do(bench: Bench) -> None:
    store = bench.open()
    store.save(cp(1, {"a": [b"first"]}))
    store.save(cp(2, {"a": [b"second"]}))
    bench.damage("blob", lambda data: data[:1])
    with pytest.raises(Damaged, match="remove this partition's checkpoint"):
        bench.open().load(3)
    assert len(bench.reports) == 2


def test_blobs_that_no_checkpoint_names_are_collected(bench: Bench) -> None:
    store = bench.open()
    store.save(cp(0, {"base": [b"base"], "a": [b"0"]}))
    for offset in range(1, 30):
        store.save(cp(offset, {"a": [b"%d" % offset]}, keep={"base": 1}))
    assert bench.blobs() == 3, "base, the last one and the one before"


def test_meta_is_replaced_whole_and_a_new_number_of_partitions_is_refused(bench: Bench) -> None:
    require_shape(bench.open(), 8, {"monitor": "0.1"})
    require_shape(bench.open(), 8, {"monitor": "0.2"})
    assert bench.open().get_meta() == {"partitions": 8, "versions": {"monitor": "0.2"}}
    with pytest.raises(Reshaped, match=r"16 partitions .* made for 8"):
        require_shape(bench.open(), 16, {"monitor": "0.2"})
    assert bench.open().get_meta() == {"partitions": 8, "versions": {"monitor": "0.2"}}
    assert bench.open().partitions() == []


# ------------------------------------------------------------------------------------------ two processes

WRITER = """
import os, sys
from monitor.errors import Fenced
from monitor.records import Checkpoint
from monitor.store import DirectoryStore
from monitor.store.redis_checkpoints import RedisCheckpointStore
from monitor.store.redis_link import RedisOptions
kind, where, generation, start = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if kind == "directory":
    store = DirectoryStore(where, "t/g")
elif kind == "s3":
    from monitor.store.object_checkpoints import ObjectCheckpointStore, open_url
    store = ObjectCheckpointStore(open_url(*where.split()), "t/g")
else:
    store = RedisCheckpointStore(RedisOptions(url=where), "t/g")
store.claim(0, generation)
back = store.load(0)
keep = len(back.parts["log"]) if back else 0
offset = max(start, back.next_offset if back else 0)
print("ready", flush=True)
while True:
    offset += 1
    mark = b"%d:%d;" % (generation, offset)
    try:
        if keep >= 20:
            store.save(Checkpoint(0, offset, generation, {"log": [mark], "state": [mark * 5000]}))
            keep = 1
        else:
            store.save(Checkpoint(0, offset, generation, {"log": [mark], "state": [mark * 5000]}, {"log": keep}))
            keep += 1
    except Fenced:
        print("fenced", flush=True)
        break
    print(offset, flush=True)
"""


def _writer(bench: Bench, generation: int, start: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, bench.kind, bench.where, str(generation), str(start)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _whole(back: Checkpoint | None) -> int:
    """The checkpoint's state belongs to its offset and its log ends with it; the offset."""
    assert back is not None
    mark = b"%d:%d;" % (back.generation, back.next_offset)
    assert back.parts["state"] == [mark * 5000]
    assert back.parts["log"][-1] == mark
    return back.next_offset


@pytest.mark.parametrize("kind", SHARED)
def test_two_processes_at_once_and_only_the_newer_generation_writes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bench = make_bench(kind, request, tmp_path)
    old = _writer(bench, 1, 0)
    time.sleep(0.2)
    new = _writer(bench, 2, 1_000_000)
    assert old.stdout is not None
    lines = old.stdout.read().splitlines()  # to its end: it stops by itself
    assert lines[-1] == "fenced"
    assert old.wait(240) == 0
    assert len(lines) > 2, "the old one was really writing"
    for _ in range(2 if kind == "s3" else 20):  # moto serves one request at a time, 4 ms each
        back = bench.open().load(0)
        assert back is None or back.generation == 1 or _whole(back) > 1_000_000
    new.kill()
    assert new.stdout is not None
    acknowledged = [int(line) for line in new.stdout.read().split()]
    new.wait()
    assert _whole(bench.open().load(0)) >= acknowledged[-1]
    assert bench.reports == []


@pytest.mark.parametrize("kind", SHARED)
def test_a_writer_killed_at_any_moment_leaves_its_last_checkpoint_whole(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bench = make_bench(kind, request, tmp_path)
    last = 0
    for generation in range(1, 5):
        writer = _writer(bench, generation, 0)
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline())]
        time.sleep(0.05 + 0.037 * generation)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().split()]
        writer.wait()
        offset = _whole(bench.open().load(0))
        assert offset >= max([last, *acknowledged])
        assert offset <= max([last, *acknowledged]) + 1
        last = offset
    assert bench.reports == []


# ------------------------------------------------------------------------------------------ state machine

NAMES = st.sampled_from(["a", "b"])
BLOBS = st.lists(st.binary(max_size=6), max_size=3)


class StoreMachine(RuleBasedStateMachine):
    """Two members and a plain-Python model of what the store must say."""

    bench: Bench
    runs = 0

    @initialize()
    def begin(self) -> None:
        type(self).runs += 1
        self.bench.memory = None
        scope = f"run/{self.runs}"
        self.scope = scope
        self.members = [self.bench.open(scope), self.bench.open(scope)]
        self.fence = -1
        self.offset = 0
        self.held: dict[str, list[bytes]] | None = None
        self.loaded = [False, False]

    def _fenced(self, generation: int) -> bool:
        return generation < self.fence

    @rule(who=st.integers(0, 1), generation=st.integers(0, 5))
    def claim(self, who: int, generation: int) -> None:
        if self._fenced(generation):
            with pytest.raises(Fenced):
                self.members[who].claim(0, generation)
        else:
            self.members[who].claim(0, generation)
            self.fence = generation

    @rule(who=st.integers(0, 1))
    def load(self, who: int) -> None:
        back = self.members[who].load(0)
        assert (dict(back.parts) if back else None) == self.held

    @rule(who=st.integers(0, 1), generation=st.integers(0, 5), parts=st.dictionaries(NAMES, BLOBS),
          keep=st.dictionaries(NAMES, st.integers(0, 3)))  # fmt: skip
    def save(self, who: int, generation: int, parts: dict[str, list[bytes]], keep: dict[str, int]) -> None:
        self.offset += 1
        checkpoint = Checkpoint(0, self.offset, generation, parts, keep)
        self.members[who].claim(0, generation) if not self._fenced(generation) else None
        if self._fenced(generation):
            with pytest.raises(Fenced):
                self.members[who].save(checkpoint)
            return
        self.fence = generation
        held = self.held or {}
        if any(count > len(held.get(name, [])) for name, count in keep.items()):
            with pytest.raises(Incomplete):
                self.members[who].save(checkpoint)
            return
        self.members[who].save(checkpoint)
        self.held = {name: held.get(name, [])[: keep.get(name, 0)] + parts.get(name, []) for name in {*parts, *keep}}

    @invariant()
    def another_process_reads_the_same(self) -> None:
        if not hasattr(self, "scope"):
            return
        back = self.bench.open(self.scope).load(0)
        assert (dict(back.parts) if back else None) == self.held
        if back is not None:
            assert back.next_offset <= self.offset


@pytest.mark.parametrize("kind", KINDS)
def test_any_sequence_of_calls_equals_the_model(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    StoreMachine.bench = make_bench(kind, request, tmp_path)
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=3 if kind == "s3" else 12,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert StoreMachine.bench.reports == []
