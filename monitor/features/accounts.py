"""Which slot of the state arrays belongs to which subject of a partition, and those arrays.

A subject's slot is an implementation detail: nothing that leaves the features stage depends on it. Arrays grow
by doubling; slots of subjects that left come back.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.features.pages import PAGE, Pages
from monitor.features.recent import OPINIONS
from monitor.features.shapes import EXEMPLAR_BYTES, EXEMPLARS, MINHASH_BYTES, MODELS, RING, TOTALS, Accounts, Rings
from monitor.features.subjects import Subjects
from monitor.vectors import SET_SIZE

_FIRST = 1024
_GROWTH = 1.1


class AccountTable:
    """Slots and per-account arrays; ``ticks_a_minute`` sets the length of the one-minute ring, ``width`` the bytes of
    a request's vector."""

    def __init__(self, ticks_a_minute: int, width: int):
        self._subjects = Subjects()
        self._names: list[str | None] = []
        self._free: list[int] = []
        n = _FIRST
        self.arrays = Accounts(
            partition=np.full(n, -1, np.int32),
            first_ms=np.full(n, -1, np.int64),
            last_ms=np.full(n, -1, np.int64),
            created_ms=np.full(n, -1, np.int64),
            dirty=np.zeros(n, np.uint8),
            totals=np.zeros((n, TOTALS), np.int64),
            tick_at=np.full(n, -1, np.int64),
            tick_n=np.zeros((n, ticks_a_minute), np.int32),
            ring_at=np.zeros(n, np.uint8),
            ring_exact=np.zeros((n, RING), np.uint64),
            exemplar_day=np.full((n, EXEMPLARS), -1, np.int32),
            exemplar_key=np.zeros((n, EXEMPLARS), np.uint64),
            exemplar_id=np.zeros((n, EXEMPLARS, EXEMPLAR_BYTES), np.uint8),
            models=np.full((n, MODELS), -1, np.int16),
            recent_n=np.zeros(n, np.int64),
            judged_n=np.full(n, -1, np.int64),
            judged_ms=np.full(n, -1, np.int64),
            opinion=np.full((n, OPINIONS), np.nan, np.float32),
        )
        self.recent, self.minhash = Pages(SET_SIZE, width, n), Pages(RING, MINHASH_BYTES, n)

    def __len__(self) -> int:
        return len(self._subjects)

    @property
    def capacity(self) -> int:
        """Slots that the arrays have room for."""
        return len(self.arrays.partition)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(a.nbytes for a in self.arrays) + self.recent.nbytes + self.minhash.nbytes

    def rings(self, slots: npt.NDArray[np.int32]) -> Rings:
        """The pages as kernels take them, with room for one more entry of each of these slots."""
        # an account's new entries begin at most one page that they do not fill
        more = len(slots) // PAGE + len(np.unique(slots))
        for pages in (self.recent, self.minhash):
            pages.reserve(more)
        return Rings(self.recent.arrays, self.minhash.arrays)

    def find(self, partition: int, subject: str) -> int | None:
        """The slot of a subject, if it has one."""
        slot = int(self.known(pl.Series([subject], dtype=pl.String), partition)[0])
        return None if slot < 0 else slot

    def known(self, subjects: pl.Series, partition: int) -> npt.NDArray[np.int32]:
        """Slots of many subjects of a partition, -1 where one has none: int32 [subjects]."""
        return self._subjects.find(self._subjects.prints(subjects, np.full(len(subjects), partition, np.int32)))

    def name(self, slot: int) -> str:
        """The subject of a slot in use."""
        name = self._names[slot]
        if name is None:
            raise KeyError(slot)
        return name

    def assign(self, subjects: pl.Series, partitions: pl.Series) -> npt.NDArray[np.int32]:
        """Slots of many subjects (new ones are given one): int32 [subjects].

        A subject that is not the topic's key may lie on several partitions: it then has a slot, and state, on each.
        """
        places = partitions.cast(pl.Int32).to_numpy()
        prints = self._subjects.prints(subjects, places)
        given = self._free[: -len(subjects) - 1 : -1]
        end = len(self._names)
        free = np.array([*given, *range(end, end + len(subjects) - len(given))], np.int32)
        slots, first = self._subjects.assign(prints, free)
        if len(first):
            taken = free[: len(first)]
            names = subjects.gather(first).to_list()
            again = min(len(first), len(given))
            del self._free[len(self._free) - again :]
            for slot, name in zip(given[:again], names[:again], strict=True):
                self._names[slot] = name
            self._names += names[again:]
            if len(self._names) > self.capacity:
                self._grow(len(self._names))
            self.arrays.partition[taken] = places[first]
        return slots

    def of_partition(self, partition: int) -> npt.NDArray[np.int32]:
        """Slots in use of a partition."""
        return np.flatnonzero(self.arrays.partition == partition).astype(np.int32)

    def release(self, slots: Iterable[int]) -> None:
        """Give slots back. The caller has unlinked their panes."""
        gone = np.array([slot for slot in slots if self._names[slot] is not None], np.int32)
        for pages in (self.recent, self.minhash):
            pages.release(gone)
        names = pl.Series([self._names[slot] for slot in gone.tolist()], dtype=pl.String)
        self._subjects.remove(self._subjects.prints(names, self.arrays.partition[gone]))
        for slot in gone.tolist():
            self._names[slot] = None
        self._free += gone.tolist()
        for array in (self.arrays.partition, self.arrays.last_ms, self.arrays.created_ms):
            array[gone] = -1

    def reserve(self, more: int) -> None:
        """Make room for so many new subjects at once: a restart would else grow by a tenth a few dozen times."""
        needed = len(self._names) + more - len(self._free)
        if needed > self.capacity:
            self._grow(needed)

    def _grow(self, least: int = 0) -> None:
        old = self.capacity
        # numpy touches what it adds, so room to spare is memory: doubling held 200 MB of it at 66,000 accounts.
        # realloc moves a large array without a copy, so growing often costs little.
        new = max(int(old * _GROWTH), old + _FIRST, least)
        for field in Accounts._fields:
            array: npt.NDArray[np.generic] = getattr(self.arrays, field)
            array.resize((new, *array.shape[1:]), refcheck=False)
            if field in _UNKNOWN:
                array[old:] = -1
        self.arrays.opinion[old:] = np.nan
        for pages in (self.recent, self.minhash):
            pages.fit(new)


_UNKNOWN = frozenset(
    {"partition", "first_ms", "last_ms", "created_ms", "tick_at", "exemplar_day", "models", "judged_n", "judged_ms"}
)
"""Arrays whose empty value is -1."""
