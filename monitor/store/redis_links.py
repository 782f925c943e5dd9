"""Blobs of campaign steps in Redis or Valkey. Knows nothing of what is in one.

==============================================  ============================================================
``abm:{links:<scope>}:blob:<partition>:<step>``  string: one blob, written once or again with the same bytes
``abm:{links:<scope>}:index:<partition>``        hash: steps that have a blob
``abm:{links:<scope>}:marks``                    hash: partition -> first step that is not complete yet
``abm:{links:<scope>}:suspects:<time>``          string: account ids suspected from this event time (ms) on, as JSON
``abm:{links:<scope>}:noted``                    hash: times that have one
==============================================  ============================================================

Blobs go before the mark that says they are there. Every key lives ``ttl_s``, which only collects garbage: expiry of
links is by event time, in the campaign stage. A blob is 16 to 100 bytes a link (38 million links a second were
written so; a set with a time to live for each link costs 13.5 microseconds apiece).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import redis
from redis.exceptions import RedisError

from monitor.errors import SinkBusy
from monitor.store.links import KEPT_NOTES, Body, Place, bytes_of
from monitor.store.manifest import digest
from monitor.store.redis_link import RedisOptions, Reply, connect, remedy

KEPT_STEPS = 300
"""Steps that stay behind the slowest partition's mark: two days of ten minutes, far more than a restart reads. Behind a
partition's own mark they would go before they were worked, where one is read days ahead of another."""


class RedisLinkStore:
    """See :class:`~monitor.store.links.LinkStore`; ``scope`` names topic and consumer group."""

    local = False

    def __init__(self, options: RedisOptions, scope: str = "default", *, prefix: str = "abm", ttl_s: int = 3 * 86_400):
        self._client: redis.Redis = connect(options)
        self._place = options.place
        self._prefix = f"{prefix}:{{links:{digest(scope.encode())[:16]}}}"
        self._ttl_s = ttl_s

    def put(self, blobs: Sequence[tuple[int, int, Body]], marks: Mapping[int, int]) -> None:
        """See :class:`~monitor.store.links.LinkStore`."""
        with self._explained():
            pipe = self._client.pipeline(transaction=False)
            for step, partition, body in blobs:
                pipe.set(self._key("blob", partition, step), bytes_of(body), ex=self._ttl_s)
                pipe.hset(self._key("index", partition), str(step), "1")
                pipe.expire(self._key("index", partition), self._ttl_s)
            pipe.execute()
            if marks:
                self._client.hset(self._key("marks"), mapping={str(p): str(mark) for p, mark in marks.items()})
                self._client.expire(self._key("marks"), self._ttl_s)
            worked = min(self.marks().values(), default=0)
            for partition in {p for _, p, _ in blobs}:
                old = [s for s in self._steps_of(partition) if s < worked - KEPT_STEPS]
                if old:
                    self._client.delete(*(self._key("blob", partition, s) for s in old))
                    self._client.hdel(self._key("index", partition), *map(str, old))

    def marks(self) -> dict[int, int]:
        """See :class:`~monitor.store.links.LinkStore`."""
        with self._explained():
            held: Reply = self._client.hgetall(self._key("marks"))
        return {int(partition): int(mark) for partition, mark in held.items()}

    def steps(self, taken: Mapping[int, int], before: int) -> dict[int, list[Place]]:
        """See :class:`~monitor.store.links.LinkStore`."""
        out: dict[int, list[Place]] = {}
        for partition in sorted(self.marks().keys() | taken.keys()):
            with self._explained():
                steps = self._steps_of(partition)
            for step in steps:
                if taken.get(partition, -1) < step < before:
                    out.setdefault(step, []).append((step, partition))
        return out

    def read(self, places: Sequence[Place]) -> list[bytes]:
        """See :class:`~monitor.store.links.LinkStore`. A blob that was lost to a flush is left out."""
        with self._explained():
            found: list[Reply] = [self._client.get(self._key("blob", p, step)) for step, p in places]
        return [body for body in found if body is not None]

    def idle(self, partition: int) -> None:
        """See :class:`~monitor.store.links.LinkStore`."""
        with self._explained():
            self._client.hdel(self._key("marks"), str(partition))

    def note(self, at_ms: int, accounts: Collection[str]) -> None:
        """See :class:`~monitor.store.links.LinkStore`."""
        with self._explained():
            self._client.set(self._key("suspects", at_ms), msgspec.json.encode(sorted(accounts)), ex=self._ttl_s)
            self._client.hset(self._key("noted"), str(at_ms), "1")
            self._client.expire(self._key("noted"), self._ttl_s)
            old = self._noted()[:-KEPT_NOTES]
            if old:
                self._client.delete(*(self._key("suspects", at) for at in old))
                self._client.hdel(self._key("noted"), *map(str, old))

    def notes(self, after_ms: int) -> dict[int, frozenset[str]]:
        """See :class:`~monitor.store.links.LinkStore`."""
        with self._explained():
            wanted = [at for at in self._noted() if at > after_ms]
            found: list[Reply] = [self._client.get(self._key("suspects", at)) for at in wanted]
        # one may have expired before its index
        pairs = ((at, body) for at, body in zip(wanted, found, strict=True) if body is not None)
        return {at: frozenset(msgspec.json.decode(body, type=list[str])) for at, body in pairs}

    def _noted(self) -> list[int]:
        held: Reply = self._client.hgetall(self._key("noted"))
        return sorted(int(at) for at in held)

    def _steps_of(self, partition: int) -> list[int]:
        held: Reply = self._client.hgetall(self._key("index", partition))
        return sorted(int(step) for step in held)

    def _key(self, *parts: object) -> str:
        return ":".join((self._prefix, *map(str, parts)))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            if (why := remedy(error)) is None:
                raise
            busy = SinkBusy(f"links of campaigns wait for Redis at {self._place}: {why}", 1.0)
            busy.redis_use = "links"
            raise busy from error
