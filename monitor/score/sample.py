"""Which rows of an epoch are kept to learn from: one row a subject, the subjects with the smallest keys. No models.

An account counts once an epoch however much it sends, so nobody gains weight in the population by volume. All
partitions are worked in one pass; what is kept is a function of the set of rows, not of the calls they came in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.score.blob import BadBlob
from monitor.score.keys import row_keys

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Sampled rows of one partition and epoch: model class, subject hash, tick and values [n, width]."""

    epoch: int
    group: U8
    subject: U64
    tick: I64
    values: F32

    def __len__(self) -> int:
        return len(self.group)

    def take(self, chosen: npt.NDArray[Any]) -> Rows:
        """The rows at ``chosen`` (a mask or indices)."""
        return Rows(self.epoch, self.group[chosen], self.subject[chosen], self.tick[chosen], self.values[chosen])

    def smallest(self, count: int) -> Rows:
        """The ``count`` rows whose subjects have the smallest keys of the epoch, in (tick, subject) order."""
        if len(self) > count:
            by_epoch, _ = row_keys(self.subject, self.tick, np.full(len(self), self.epoch))
            kept = self.take(np.argsort(by_epoch, kind="stable")[:count])
        else:
            kept = self
        return kept.take(np.lexsort((kept.subject, kept.tick)))

    def dump(self) -> dict[str, Any]:
        """Plain arrays for :func:`monitor.score.blob.pack`."""
        return {
            "epoch": self.epoch, "group": self.group, "subject": self.subject, "tick": self.tick,
            "values": self.values,
        }  # fmt: skip

    @classmethod
    def load(cls, body: Mapping[str, Any], width: int) -> Rows:
        """What :meth:`dump` gave. Raises BadBlob."""
        epoch, parts = body.get("epoch"), [body.get(k) for k in ("group", "subject", "tick", "values")]
        if not isinstance(epoch, int) or not all(isinstance(p, np.ndarray) for p in parts):
            raise BadBlob("sampled rows without their columns")
        group, subject, tick, values = (np.asarray(p) for p in parts)
        if values.shape != (len(group), width) or len(subject) != len(group) or len(tick) != len(group):
            raise BadBlob("sampled rows of another width")
        return cls(epoch, group, subject, tick, values)


class EpochSample:
    """The sample of the epochs in progress, over all partitions. ``width`` values a row."""

    def __init__(self, width: int):
        self.width = width
        self._partition = np.empty(0, np.int64)
        self._epoch = np.empty(0, np.int64)
        self._group = np.empty(0, np.uint8)
        self._subject = np.empty(0, np.uint64)
        self._tick = np.empty(0, np.int64)
        self._values = np.empty((0, width), np.float32)

    def offer(
        self,
        partition: I64,
        epoch: I64,
        group: U8,
        subject: U64,
        tick: I64,
        gather: Callable[[I64], F32],
        cap: Callable[[int, int], int],
    ) -> None:
        """Offer rows (a column each); ``gather(indices)`` gives the values of those kept, ``cap(partition, group)``
        how many subjects an epoch keeps of that group."""
        if not len(partition):
            return
        held = len(self._partition)
        partitions = np.concatenate((self._partition, partition))
        epochs = np.concatenate((self._epoch, epoch))
        groups = np.concatenate((self._group, group))
        subjects = np.concatenate((self._subject, subject))
        ticks = np.concatenate((self._tick, tick))
        by_epoch, by_tick = row_keys(subjects, ticks, epochs)
        # one integer for partition, epoch and group: epochs are event time in hours, so 2 ** 40 of them will do
        cell = (partitions << 44) + (epochs << 4) + groups
        order = np.lexsort((by_tick, by_epoch, cell))
        cell, key = cell[order], by_epoch[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = (cell[1:] != cell[:-1]) | (key[1:] != key[:-1])
        order, cell = order[first], cell[first]
        cells, start, count = np.unique(cell, return_index=True, return_counts=True)
        caps = np.array([cap(int(c >> 44), int(c & 15)) for c in cells])
        rank = np.arange(len(cell)) - np.repeat(start, count)
        order = order[rank < np.repeat(caps, count)]

        new = order >= held
        values = np.empty((len(order), self.width), np.float32)
        values[~new] = self._values[order[~new]]
        if new.any():
            values[new] = gather(order[new] - held)
        self._partition, self._epoch, self._group = partitions[order], epochs[order], groups[order]
        self._subject, self._tick, self._values = subjects[order], ticks[order], values

    def take(self, partition: int, before: int) -> list[Rows]:
        """Remove and return the rows of epochs under ``before``, one item an epoch, oldest first."""
        mine = (self._partition == partition) & (self._epoch < before)
        taken = self._chunks(mine)
        if taken:
            self._keep(~mine)
        return taken

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        self._keep(self._partition != partition)

    def of(self, partition: int) -> list[Rows]:
        """The rows of a partition, one item an epoch, oldest first."""
        return self._chunks(self._partition == partition)

    def restore(self, partition: int, chunks: list[Rows]) -> None:
        """Put back what :meth:`of` gave, in place of what is there."""
        self.drop(partition)
        for rows in chunks:
            self._partition = np.concatenate((self._partition, np.full(len(rows), partition)))
            self._epoch = np.concatenate((self._epoch, np.full(len(rows), rows.epoch)))
            self._group = np.concatenate((self._group, rows.group))
            self._subject = np.concatenate((self._subject, rows.subject))
            self._tick = np.concatenate((self._tick, rows.tick))
            self._values = np.concatenate((self._values, rows.values))

    def _chunks(self, mine: npt.NDArray[np.bool_]) -> list[Rows]:
        out = []
        for epoch in np.unique(self._epoch[mine]).tolist():
            at = mine & (self._epoch == epoch)
            out.append(Rows(epoch, self._group[at], self._subject[at], self._tick[at], self._values[at]))
        return out

    def _keep(self, mask: npt.NDArray[np.bool_]) -> None:
        self._partition, self._epoch, self._group = self._partition[mask], self._epoch[mask], self._group[mask]
        self._subject, self._tick, self._values = self._subject[mask], self._tick[mask], self._values[mask]
