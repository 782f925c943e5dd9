"""Reads the states of partitions back: one is read and opened by a thread while the one before it is taken over.

With a million accounts half of a restart was reading, checking and decompressing, which needs nothing of the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from monitor import arrays, campaigning
from monitor.records import Checkpoint
from monitor.store import CheckpointStore


@dataclass(frozen=True, slots=True)
class Read:
    """A checkpoint, and its large parts opened."""

    saved: Checkpoint
    ticks: Sequence[arrays.Opened]
    features: Sequence[arrays.Opened]
    campaigns: Sequence[campaigning.Opened]


class Reader:
    """Not thread-safe. Whoever reads claims first: nobody writes what was read, then."""

    def __init__(self, store: CheckpointStore):
        self._store = store
        self._thread = ThreadPoolExecutor(1, "restore")
        self._coming: list[tuple[int, int]] = []
        self._begun: tuple[tuple[int, int], Future[Read | None]] | None = None

    def expect(self, partitions: Sequence[int], generation: int) -> None:
        """Begin with the first of these; the next begins when it is asked for."""
        self._coming = [(partition, generation) for partition in partitions]
        self._begun = None
        self._begin()

    def read(self, partition: int, generation: int) -> Read | None:
        """The partition's last state, None where there is none. Raises what the store raised, StateUnreadable where
        it is damaged; asked again it tries again."""
        if self._begun is None or self._begun[0] != (partition, generation):
            return self._read(partition, generation)
        begun, self._begun = self._begun[1], None
        try:
            return begun.result()
        finally:
            self._begin()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)

    def _begin(self) -> None:
        if self._coming:
            first = self._coming.pop(0)
            self._begun = first, self._thread.submit(self._read, *first)

    def _read(self, partition: int, generation: int) -> Read | None:
        self._store.claim(partition, generation)
        saved = self._store.load(partition)
        if saved is None:
            return None
        ticks, features, campaigns = (saved.parts.get(name, ()) for name in ("ticks", "features", "campaigns"))
        return Read(
            saved, [arrays.opened(blob) for blob in ticks], [arrays.opened(blob) for blob in features],
            [campaigning.opened(blob) for blob in campaigns],
        )  # fmt: skip
