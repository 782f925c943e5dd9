"""Partitions read one ahead of another: the same states, each failure told with its own partition, claims first."""

from __future__ import annotations

import threading

import pytest
from spine import PARTITIONS, batch, pipeline, world

from monitor.arrays import StateUnreadable
from monitor.checkpointing import Checkpointer
from monitor.errors import DependencyDown, Fenced
from monitor.reading import Reader
from monitor.records import Checkpoint
from monitor.store import MemoryStore

RECORDS = world(accounts=30, days=0.5)
ALL = range(PARTITIONS)


class Told(MemoryStore):
    """Tells what it was asked, in which thread; fails once for some."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int]] = []
        self.threads: set[int] = set()
        self.fails: dict[int, Exception] = {}

    def claim(self, partition: int, generation: int) -> None:
        self.asked.append(("claim", partition))
        super().claim(partition, generation)

    def load(self, partition: int) -> Checkpoint | None:
        self.asked.append(("load", partition))
        self.threads.add(threading.get_ident())
        if (error := self.fails.pop(partition, None)) is not None:
            raise error
        return super().load(partition)


@pytest.fixture
def store() -> Told:
    made, p = Told(), pipeline()
    keeper = Checkpointer(p, made)
    for partition in ALL:
        keeper.restore(partition, 1)
    p.process(batch(RECORDS))
    for partition in ALL:
        keeper.save(partition, 7 + partition, 1)
    keeper.close()
    made.asked.clear()
    made.threads.clear()
    return made


def dumps(keeper: Checkpointer, ahead: bool) -> list[bytes]:
    """State of every partition after a restart."""
    if ahead:
        keeper.expect(ALL, 2)
    for partition in ALL:
        saved = keeper.restore(partition, 2)
        assert saved is not None
        assert saved.next_offset == 7 + partition
    parts = keeper.pipeline.components.items()
    return [c.dump(partition) for partition in ALL for name, c in parts if name != "score"]


def test_read_ahead_or_not_the_state_is_the_same(store: Told) -> None:
    plain = dumps(Checkpointer(pipeline(), store), ahead=False)
    assert store.threads == {threading.get_ident()}
    store.threads.clear()
    assert dumps(Checkpointer(pipeline(), store), ahead=True) == plain
    assert threading.get_ident() not in store.threads
    asked = [(what, partition) for partition in ALL for what in ("claim", "load")]
    assert store.asked == asked * 2, "each is claimed before it is read"


def test_what_fails_ahead_is_told_when_it_is_asked_for_and_tried_again_then(store: Told) -> None:
    keeper = Checkpointer(pipeline(), store)
    store.fails = {1: DependencyDown("away"), 2: StateUnreadable("damaged")}
    keeper.expect(ALL, 2)
    assert keeper.restore(0, 2) is not None
    for partition, error in ((1, DependencyDown), (2, StateUnreadable)):
        with pytest.raises(error):
            keeper.restore(partition, 2)
        assert keeper.restore(partition, 2) is not None


def test_what_was_not_expected_is_read_at_once(store: Told) -> None:
    reader = Reader(store)
    reader.expect([0, 1], 2)
    for partition, generation in ((2, 2), (0, 2), (1, 3)):
        assert reader.read(partition, generation) is not None
    assert threading.get_ident() in store.threads
    with pytest.raises(Fenced):
        reader.read(1, 2)
    reader.close()
