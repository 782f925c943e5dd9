"""State copied in slices, with batches in between, and written by a thread: it is of one moment all the same."""

from __future__ import annotations

import threading

import polars as pl
import pytest
from spine import PARTITIONS, batch, pipeline, polls, world
from spine_checks import rows_of, watch

import monitor.features.state
from monitor.checkpointing import Checkpointer
from monitor.errors import Fenced
from monitor.records import Checkpoint
from monitor.store import MemoryStore

KEYS = ["partition", "tick", "subject"]
RECORDS = world(accounts=60, days=1.0)
CUTS = [len(RECORDS) * i // 24 for i in range(1, 24)]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor.features.state, "SLICE", 4)


def test_a_checkpoint_that_took_many_turns_is_of_the_moment_of_its_offset() -> None:
    want = rows_of(RECORDS, CUTS)
    store, p = MemoryStore(), pipeline()
    keeper, waiting, reached, slices = Checkpointer(p, store), list(range(PARTITIONS)) * 3, dict[int, int](), 0
    for partition in waiting:
        keeper.restore(partition, 1)
    for number, poll in enumerate(polls(RECORDS, CUTS)):
        p.process(batch(poll))
        reached |= batch(poll).next_offsets
        if number < 4 or not waiting:
            continue
        if keeper.copy_some(waiting[0]):
            slices += 1  # and the next batch changes what it holds
        else:
            keeper.begin(waiting[0], reached[waiting[0]], 1)
            del waiting[0]
        assert all(written.error is None for written in keeper.written())
    assert all(written.error is None for written in keeper.written(wait_for_all=True))
    assert not keeper.writing
    assert slices >= 8, "the world is too small for what this is about"

    again = pipeline()
    watched, taking = watch(again), Checkpointer(again, store)
    offsets = {}
    for partition in range(PARTITIONS):
        saved = taking.restore(partition, 2)
        assert saved is not None
        offsets[partition] = saved.next_offset
    assert any(0 < offsets[p] < reached[p] for p in offsets)
    left = [r for r in RECORDS if r.offset >= offsets[r.partition]]
    again.process(batch(left))
    again.finish()
    got = watched.rows()
    first = got.group_by("partition").agg(first=pl.col("tick").min())
    same = want.join(first, on="partition").filter(pl.col("tick") >= pl.col("first")).drop("first")
    assert len(got) > 100
    assert got.sort(KEYS).equals(same.sort(KEYS))


class Held(MemoryStore):
    """A store whose writes wait until they are let go: a disk that is slow."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def save(self, checkpoint: Checkpoint) -> None:
        assert self.go.wait(60)
        super().save(checkpoint)


def test_nothing_is_told_before_it_is_written_and_what_failed_is_written_whole() -> None:
    store, p = Held(), pipeline()
    keeper = Checkpointer(p, store)
    keeper.restore(0, 1)
    first, second, third = list(polls(RECORDS, CUTS))[:3]
    p.process(batch(first))
    keeper.begin(0, 7, 1)
    p.process(batch(second))
    assert not list(keeper.written())
    assert not keeper.idle
    assert store.load(0) is None
    store.go.set()
    assert [(w.partition, w.next_offset, w.error) for w in keeper.written(wait_for_all=True)] == [(0, 7, None)]
    assert keeper.idle
    store.claim(0, 2)
    with pytest.raises(Fenced):
        keeper.save(0, 8, 1)
    assert store.load(0).next_offset == 7  # type: ignore[union-attr]  # it was there a moment ago
    p.process(batch(third))
    keeper.save(0, 9, 2)
    saved = store.load(0)
    assert saved is not None
    kept = pipeline()
    kept.features.load(0, saved.parts["features"][0])
    for blob in saved.parts["features"][1:]:
        kept.features.load(0, blob)
    names = [p.features.accounts.name(s) for s in p.features.accounts.of_partition(0).tolist()]
    assert len(kept.features.accounts) == len(names)


def test_what_is_being_written_of_a_partition_that_is_lost_is_not_told_of() -> None:
    store, p = MemoryStore(), pipeline()
    keeper = Checkpointer(p, store)
    for partition in (0, 1):
        keeper.restore(partition, 1)
    p.process(batch(RECORDS[:500]))
    for partition in (0, 1):
        keeper.begin(partition, 3, 1)
    keeper.copy_some(0)
    keeper.forget(0)
    assert [w.partition for w in keeper.written(wait_for_all=True)] == [1]
    assert not len(p.features.accounts.of_partition(0))
