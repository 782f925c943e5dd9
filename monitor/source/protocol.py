"""What the pipeline needs of a source, whichever it is. Imports no source and no library of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from monitor.records import RawBatch


class Listener(Protocol):
    """Told of every change of assignment while :meth:`Source.poll` or :meth:`Source.close` is on the stack.

    The calls never overlap with the pipeline's own work, but may come on another thread (a Kafka consumer
    keeps its heartbeats going meanwhile). ``commit`` and ``seek`` of the source may be called from them.
    Each names only the partitions that *change*: with cooperative rebalancing the others stay untouched.
    """

    def on_assign(self, partitions: frozenset[int], generation: int) -> None:
        """These partitions are ours from now on: restore their state and ``seek`` to its offset."""

    def on_revoke(self, partitions: frozenset[int]) -> None:
        """These are still ours until this returns: write the checkpoint, commit, drop the state."""

    def on_lost(self, partitions: frozenset[int]) -> None:
        """These belong to another member already: drop the state, write and commit nothing."""


class Source(Protocol):
    """Records in order within a partition, with offsets that are committed by hand.

    How records are cut into polls must make no difference to what follows.
    """

    def poll(self, max_records: int, timeout_s: float) -> RawBatch:
        """Up to ``max_records`` records; empty after ``timeout_s`` seconds without any, or while paused.

        Must be called every few seconds even when paused, because it is also what keeps group membership.
        """

    def pause(self, partitions: Iterable[int] | None = None) -> None:
        """Give no records of these partitions (None: of any, also of ones assigned later)."""

    def resume(self, partitions: Iterable[int] | None = None) -> None:
        """Undo :meth:`pause`; nothing was lost or skipped in between."""

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Record ``partition -> next offset to read``. Call it after the checkpoint is written, never before."""

    def seek(self, partition: int, offset: int) -> None:
        """Go on from this offset in this partition. ValueError where the partition is not ours."""

    @property
    def assigned(self) -> frozenset[int]:
        """Partitions that are ours now."""

    @property
    def generation(self) -> int:
        """Grows with each rebalance of the group; fences checkpoints. 0 before the first."""

    @property
    def partitions_total(self) -> int:
        """Partitions of the topic (or virtual ones); 0 while the broker has not been reached yet."""

    @property
    def finished(self) -> bool:
        """True once no record will ever follow (the files are read). A topic never finishes."""

    def lag(self) -> dict[int, int]:
        """Records not read yet of each of our partitions, as last seen."""

    def stalled(self) -> dict[int, float]:
        """Partitions that do not move though records wait -> for how many seconds."""

    def close(self) -> None:
        """Give the partitions up (``on_revoke`` is called) and leave."""
