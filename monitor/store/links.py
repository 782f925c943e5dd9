"""Where the members of a group leave their blobs of each campaign step for whoever works the step.

:class:`LinkStore` is the edge; :class:`MemoryLinkStore` and ``redis_links`` implement it and pass one contract
suite. A blob is immutable: the same step and partition always has the same bytes, so writing it again changes
nothing; in memory it stays an object and is never encoded. A store knows nothing of what is in one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

Place = tuple[int, int]
"""(step, partition)."""
KEPT_NOTES = 64
"""Notes that are kept, the newest: ten hours where each step of ten minutes changes who is suspected. A partition that
is further behind goes by what its checkpoint says."""


class Encodes(Protocol):
    """A blob that is not bytes yet: a store that keeps it in this process never asks for them."""

    def encode(self) -> bytes:
        """The same bytes each time."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A blob as bytes, with its place: a fifth of the memory or less."""

    step: int
    partition: int
    body: bytes

    def encode(self) -> bytes:
        """As it is."""
        return self.body


Body = bytes | Encodes


def bytes_of(body: Body) -> bytes:
    """The blob as it travels."""
    return body if isinstance(body, bytes) else body.encode()


class LinkStore(Protocol):
    """Blobs by step and partition, and how far each partition has come. ``local``: blobs stay objects of this process
    and last as long as it does, so nobody need keep them beside it."""

    local: bool

    def put(self, blobs: Sequence[tuple[int, int, Body]], marks: Mapping[int, int]) -> None:
        """Write blobs (step, partition, body), then say that every step before ``marks[partition]`` is complete.

        Raises SinkBusy where the store does not answer; whatever was written then may be written again.
        """

    def marks(self) -> dict[int, int]:
        """First step that is not complete yet, of each live partition. Raises SinkBusy."""

    def steps(self, taken: Mapping[int, int], before: int) -> dict[int, list[Place]]:
        """Places of the blobs of steps under ``before`` and over ``taken`` of their partition, by step."""

    def read(self, places: Sequence[Place]) -> Sequence[Body]:
        """The blobs at these places, in the order given: as they were put, or their bytes."""

    def idle(self, partition: int) -> None:
        """A partition has nothing more to come for now: steps do not wait for it until its mark is put again."""

    def note(self, at_ms: int, accounts: Collection[str]) -> None:
        """Say to all members who is suspected of a campaign from this event time on. Raises SinkBusy."""

    def notes(self, after_ms: int) -> dict[int, frozenset[str]]:
        """What was noted of later times than this: accounts by time, the newest :data:`KEPT_NOTES`. Raises
        SinkBusy."""


class MemoryLinkStore:
    """A store that ends with the process: backtests, and the model that the contract suite compares with."""

    local = True

    def __init__(self) -> None:
        self._lock = Lock()
        """Held where blobs change: steps are worked beside the loop that publishes."""
        self._blobs: dict[Place, Body] = {}
        self._marks: dict[int, int] = {}
        self._notes: dict[int, frozenset[str]] = {}

    def put(self, blobs: Sequence[tuple[int, int, Body]], marks: Mapping[int, int]) -> None:
        """See :class:`LinkStore`."""
        with self._lock:
            self._blobs.update({(step, partition): body for step, partition, body in blobs})
            self._marks.update(marks)

    def marks(self) -> dict[int, int]:
        """See :class:`LinkStore`."""
        with self._lock:
            return dict(self._marks)

    def steps(self, taken: Mapping[int, int], before: int) -> dict[int, list[Place]]:
        """See :class:`LinkStore`. What was taken is let go: nothing restarts from memory."""
        with self._lock:
            self._blobs = {at: body for at, body in self._blobs.items() if at[0] > taken.get(at[1], -1)}
            places = sorted(self._blobs)
        out: dict[int, list[Place]] = {}
        for step, partition in places:
            if step < before:
                out.setdefault(step, []).append((step, partition))
        return out

    def read(self, places: Sequence[Place]) -> list[Body]:
        """See :class:`LinkStore`."""
        return [self._blobs[at] for at in places]

    def idle(self, partition: int) -> None:
        """See :class:`LinkStore`."""
        self._marks.pop(partition, None)

    def note(self, at_ms: int, accounts: Collection[str]) -> None:
        """See :class:`LinkStore`."""
        kept = {**self._notes, at_ms: frozenset(accounts)}
        self._notes = {at: kept[at] for at in sorted(kept)[-KEPT_NOTES:]}

    def notes(self, after_ms: int) -> dict[int, frozenset[str]]:
        """See :class:`LinkStore`."""
        return {at: accounts for at, accounts in self._notes.items() if at > after_ms}
