"""What every store of links promises: memory, Redis 7, Valkey 9."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monitor.errors import SinkBusy
from monitor.source.embedded import EmbeddedServer
from monitor.store.links import KEPT_NOTES, LinkStore, MemoryLinkStore, bytes_of
from monitor.store.redis_link import RedisOptions
from monitor.store.redis_links import KEPT_STEPS, RedisLinkStore


@pytest.fixture(params=["memory", "redis", "valkey"])
def store(request: pytest.FixtureRequest) -> LinkStore:
    if request.param == "memory":
        return MemoryLinkStore()
    return RedisLinkStore(RedisOptions(url=str(request.getfixturevalue(f"{request.param}_url"))), "t/g")


def test_empty(store: LinkStore) -> None:
    assert store.marks() == {}
    assert store.steps({}, 10) == {}


def test_blobs_come_back_by_step_and_partition(store: LinkStore) -> None:
    store.put([(4, 1, b"d"), (3, 0, b"a"), (3, 1, b"b")], {0: 5, 1: 5})
    assert store.steps({}, 5) == {3: [(3, 0), (3, 1)], 4: [(4, 1)]}
    assert store.read([(3, 1), (4, 1), (3, 0)]) == [b"b", b"d", b"a"]
    assert store.marks() == {0: 5, 1: 5}


def test_what_is_not_complete_or_was_taken_is_not_offered(store: LinkStore) -> None:
    store.put([(3, 0, b"a"), (4, 0, b"b"), (3, 1, b"c")], {0: 5, 1: 4})
    assert store.steps({0: 3}, 4) == {3: [(3, 1)]}
    assert store.steps({0: 3, 1: 3}, 5) == {4: [(4, 0)]}


def test_writing_again_changes_nothing(store: LinkStore) -> None:
    for _ in range(3):
        store.put([(3, 0, b"a")], {0: 4})
    assert store.steps({}, 4) == {3: [(3, 0)]}
    assert store.read([(3, 0)]) == [b"a"]


def test_an_idle_partition_holds_nobody_back_until_it_speaks(store: LinkStore) -> None:
    store.put([], {0: 7, 1: 2})
    store.idle(1)
    assert store.marks() == {0: 7}
    store.put([(2, 1, b"late")], {1: 8})
    assert store.marks() == {0: 7, 1: 8}
    assert store.steps({0: 6}, 7) == {2: [(2, 1)]}


def test_marks_alone_may_move(store: LinkStore) -> None:
    store.put([], {0: 1})
    store.put([], {0: 9})
    assert store.marks() == {0: 9}


@pytest.mark.redis7
def test_two_groups_do_not_meet_and_every_key_has_a_life(redis_url: str) -> None:
    options = RedisOptions(url=redis_url)
    one, other = RedisLinkStore(options, "t/a"), RedisLinkStore(options, "t/b")
    one.put([(1, 0, b"x")], {0: 2})
    assert other.marks() == {}
    assert other.steps({}, 5) == {}
    client = one._client
    keys = list(client.scan_iter("*"))
    assert len(keys) == 3
    assert all(client.ttl(key) > 0 for key in keys)


@pytest.mark.redis7
def test_old_blobs_are_let_go(redis_url: str) -> None:
    store = RedisLinkStore(RedisOptions(url=redis_url), "t/g")
    store.put([(1, 0, b"old")], {0: 2})
    store.put([(KEPT_STEPS + 5, 0, b"new")], {0: KEPT_STEPS + 6})
    assert store.steps({}, 10_000) == {KEPT_STEPS + 5: [(KEPT_STEPS + 5, 0)]}
    assert store.read([(1, 0)]) == []


@pytest.mark.redis7
def test_blobs_stay_until_the_slowest_partition_has_passed_them(store: LinkStore) -> None:
    """A backlog of days is read partition by partition: the steps of the first wait for the last."""
    store.put([(2, 1, b"slow")], {0: 0, 1: 3})
    store.put([(5, 0, b"old")], {0: 6})
    store.put([(KEPT_STEPS + 400, 0, b"new")], {0: KEPT_STEPS + 401})
    assert (5, 0) in store.steps({}, 10_000).get(5, [])
    store.put([(KEPT_STEPS + 400, 1, b"there")], {1: KEPT_STEPS + 401})
    (first, *_) = store.read([(5, 0), (2, 1)])
    assert bytes_of(first) == b"old"


def test_a_server_that_is_away_is_said_to_be(redis_server: Callable[[], EmbeddedServer]) -> None:
    server = redis_server()
    store = RedisLinkStore(RedisOptions(url=server.url, socket_timeout_s=1.0, connect_timeout_s=1.0), "t/g")
    store.put([(1, 0, b"x")], {0: 2})
    server.stop()
    with pytest.raises(SinkBusy, match="wait for Redis"):
        store.put([(2, 0, b"y")], {0: 3})
    with pytest.raises(SinkBusy):
        store.marks()


def test_notes_are_heard_once_each_and_the_newest_are_kept(store: LinkStore) -> None:
    assert store.notes(-1) == {}
    store.note(600_000, ["b", "a"])
    store.note(1_200_000, ())
    store.note(600_000, {"a", "b"})
    assert store.notes(-1) == {600_000: {"a", "b"}, 1_200_000: frozenset()}
    assert store.notes(600_000) == {1_200_000: frozenset()}
    for n in range(KEPT_NOTES):
        store.note(2_000_000 + n, ["c"])
    assert sorted(store.notes(-1)) == [2_000_000 + n for n in range(KEPT_NOTES)]
