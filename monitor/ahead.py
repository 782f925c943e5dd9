"""One batch ahead: decode and sketch in a thread of their own, beside the steps that keep state.

The kernels and Polars release the interpreter's lock, so a second core does this while the first polls and judges.
Results come back in the order in which batches were given, one at a time: nothing else of the order of work changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from monitor.pipeline import Pipeline, Prepared
from monitor.records import RawBatch


class Ahead:
    """At most one batch in preparation. Not thread-safe: whoever calls waits for what it began."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        self._work: Future[Prepared] | None = None
        self._gone: set[int] = set()

    @property
    def busy(self) -> bool:
        """Whether a batch is in preparation, or ready and not asked for yet."""
        return self._work is not None

    def swap(self, pipeline: Pipeline, batch: RawBatch) -> Prepared | None:
        """Begin with ``batch``, and wait for the one before it. Raises what that one's preparation raised."""
        before, gone = self._work, self._gone
        self._work, self._gone = self._thread.submit(pipeline.prepare, batch), set()
        return None if before is None else before.result().without(gone)

    def result(self) -> Prepared | None:
        """Wait for the batch in preparation; None where there is none."""
        before, gone = self._work, self._gone
        self._work, self._gone = None, set()
        return None if before is None else before.result().without(gone)

    def leave_out(self, partitions: Collection[int]) -> None:
        """What is in preparation comes without these: another member reads them."""
        if self._work is not None:
            self._gone.update(partitions)

    def forget(self) -> None:
        """Drop what is in preparation: its records will be read again."""
        self._work = None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def split_batch(batch: RawBatch, ends: Mapping[int, int]) -> Iterator[RawBatch]:
    """The batch; where it passes the offset at which a partition's silence ends, what comes before, then the rest."""
    passed = {p: end for p, end in ends.items() if batch.next_offsets.get(p, end) > end}
    before = np.zeros(len(batch), np.bool_)
    for partition, end in passed.items():
        before |= (batch.partition == partition) & (batch.offset < end)
    if not before.any():
        yield batch
        return
    yield batch.take(np.flatnonzero(before), passed)
    yield batch.take(np.flatnonzero(~before), batch.next_offsets)
