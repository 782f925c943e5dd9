"""When bad records stop a partition, so that a bad deploy does not drain the log into the dead letters.

Pure. A trip is found at a record, not at a poll: cutting the stream otherwise gives the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from monitor.records import RawBatch, Reject


class RejectLimit:
    """Two limits by partition: ``ratio`` of rejects among the last ``window_records``, and ``consecutive`` in a row.

    The ratio counts once the window is full; ``consecutive`` catches a bad start. ``tripped`` maps a stopped
    partition to the first offset not to process; :meth:`clear` forgets it (a person looked, or it moved on).
    """

    def __init__(self, ratio: float, window_records: int, consecutive: int):
        self.ratio = ratio
        self.window_records = window_records
        self.consecutive = consecutive
        self.tripped: dict[int, int] = {}
        self._recent: dict[int, npt.NDArray[np.bool_]] = {}
        self._row: dict[int, int] = {}

    def observe(self, batch: RawBatch, rejects: Sequence[Reject]) -> Mapping[int, int]:
        """Count a batch; partitions that trip in it -> first offset not to process, which is in or after the batch.

        Rejects of records after that offset are as if not read: they come again once the partition goes on.
        """
        if not len(batch):
            return {}
        new: dict[int, int] = {}
        for partition in np.unique(batch.partition).tolist():
            if partition in self.tripped:
                continue
            offsets = batch.offset[batch.partition == partition]
            bad = np.isin(offsets, [r.offset for r in rejects if r.partition == partition])
            at = self._count(partition, bad)
            if at is not None:
                new[partition] = int(offsets[at]) + 1
        self.tripped.update(new)
        return new

    def _count(self, partition: int, bad: npt.NDArray[np.bool_]) -> int | None:
        """Index of the record at which a limit is crossed, None where none is."""
        before = self._row.get(partition, 0)
        good = np.flatnonzero(~bad)
        index = np.arange(len(bad))
        last_good = np.full(len(bad), -1)
        last_good[good] = good
        last_good = np.maximum.accumulate(last_good)
        rows = np.where(last_good < 0, index + 1 + before, index - last_good)
        self._row[partition] = int(rows[-1])

        past = self._recent.get(partition, np.empty(0, np.bool_))
        together = np.concatenate([past, bad])
        sums = np.concatenate([[0], np.cumsum(together)])
        ends = np.arange(len(past) + 1, len(together) + 1)
        full = ends >= self.window_records
        counts = sums[ends] - sums[np.maximum(ends - self.window_records, 0)]
        self._recent[partition] = together[-self.window_records :]

        over = (rows >= self.consecutive) | (full & (counts > self.ratio * self.window_records))
        return int(np.argmax(over)) if over.any() else None

    def clear(self, partition: int) -> None:
        """Forget what was seen of a partition."""
        self.tripped.pop(partition, None)
        self._recent.pop(partition, None)
        self._row.pop(partition, None)
