"""Writes the state of a partition with the offset that it reflects, and reads it back. Knows no store's kind.

A checkpoint holds, for each step with state, one full blob and the changes since. Order of the work, and what a
failure there means:

1. sinks flushed     - fails: nothing is written, the alerts are raised again after a restart, with the same ids
2. state copied      - with the offset it reflects, in one go: from here on the loop may take further batches
3. checkpoint saved  - fails: the last one stays in force, the next is a full one
4. offsets committed - fails: a restart reads on from the checkpoint's own offset, which is what counts

Only copies are made on the loop's thread. One other thread compresses and writes them, partition after partition, and
what came of it is asked for by the loop, which then commits: no commit comes before its write. What is too large for
one go is copied in slices while batches go on, and what these change after they were copied is copied again with the
last of it: a checkpoint is of one moment, that of its offset, however long it took.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from monitor.arrays import Frozen
from monitor.errors import MonitorError
from monitor.pipeline import Pipeline
from monitor.reading import Reader
from monitor.records import Checkpoint
from monitor.store import CheckpointStore

FULL_EVERY = 20
"""Checkpoints of changes before all is written anew: a restart reads at most so many."""
WITH_CHANGES = ("ticks", "features")
"""Steps whose state is large and can tell what changed."""
FROZEN = (*WITH_CHANGES, "campaigns")
"""Steps whose state is copied first and packed elsewhere. That of the others is small."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What the store has of a partition: checkpoints since the last full one, blobs of each step."""

    checkpoints: int
    blobs: Mapping[str, int]


@dataclass(slots=True)
class _Begun:
    """A partition of which something was copied: what the store has, and what was copied."""

    partition: int
    held: _Held | None
    slices: Iterator[Frozen]
    copied: list[Future[bytes]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether all of it is written."""
        return self.held is None or self.held.checkpoints >= FULL_EVERY


@dataclass(frozen=True, slots=True)
class Written:
    """What came of writing a partition: ``error`` None where it was saved with this offset."""

    partition: int
    next_offset: int
    error: MonitorError | None


@dataclass(slots=True)
class Checkpointer:
    """Saves and restores partitions of one pipeline. All calls come from one thread."""

    pipeline: Pipeline
    store: CheckpointStore
    bytes_written: int = 0
    _held: dict[int, _Held] = field(default_factory=dict)
    _begun: _Begun | None = None
    _writing: list[tuple[int, int, Future[_Held]]] = field(default_factory=list)
    _thread: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "checkpoints"))
    _reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = Reader(self.store)

    def restore(self, partition: int, generation: int) -> Checkpoint | None:
        """Shut out older members, take the partition's last state over; None where there is none.

        Raises Fenced where a newer member has it already.
        """
        self.forget(partition)
        read = self._reader.read(partition, generation)
        if read is None:
            return None
        saved, p = read.saved, self.pipeline
        large = {
            "ticks": [partial(p.ticks.load, partition, part) for part in read.ticks],
            "features": [partial(p.features.load, partition, part) for part in read.features],
            "campaigns": [partial(p.campaigns.load, partition, part) for part in read.campaigns],
        }
        for name, component in p.components.items():
            small = [partial(component.load, partition, blob) for blob in saved.parts.get(name, ())]
            for load in large.get(name, small):
                load()
        p.enter_restored(partition, saved.meta)
        # What was read may be the one before a damaged one: write all of it next time.
        return saved

    def expect(self, partitions: Sequence[int], generation: int) -> None:
        """These are to be restored, in this order: each is claimed and read while the one before it is taken over."""
        self._reader.expect(partitions, generation)

    @property
    def idle(self) -> bool:
        """Whether everything that was copied is packed and written: only then may more be copied, or it piles up."""
        copied = self._begun.copied if self._begun is not None else ()
        return all(work.done() for work in (*copied, *(work for _, _, work in self._writing)))

    def wait(self) -> None:
        """Until :attr:`idle`. What came of it is for :meth:`written` to tell."""
        copied = self._begun.copied if self._begun is not None else ()
        wait((*copied, *(work for _, _, work in self._writing)))

    @property
    def writing(self) -> bool:
        """Whether :meth:`written` has something to tell yet."""
        return bool(self._writing)

    def copy_some(self, partition: int) -> bool:
        """Copy a part of the partition's state, if it is too large for one go; False: :meth:`begin` takes the rest."""
        begun = self._begin(partition)
        some = next(begun.slices, None)
        if some is not None:
            begun.copied.append(self._thread.submit(some))
        return some is not None

    def begin(self, partition: int, next_offset: int, generation: int) -> None:
        """Copy the partition's state as of ``next_offset`` and have it written; :meth:`written` tells the outcome."""
        begun, self._begun = self._begin(partition), None
        begun.copied += [self._thread.submit(some) for some in begun.slices]
        pipeline, full = self.pipeline, begun.full
        frozen: dict[str, Sequence[Frozen]] = {
            "ticks": [pipeline.ticks.freeze(partition, full=full)],
            "features": [*(work.result for work in begun.copied), pipeline.features.freeze(partition, full=full)],
            "campaigns": [pipeline.campaigns.freeze(partition)],
        }  # fmt: skip
        small = {name: [c.dump(partition)] for name, c in pipeline.components.items() if name not in FROZEN}
        keep = {name: 0 if begun.held is None or full else begun.held.blobs[name] for name in WITH_CHANGES}
        checkpoint = Checkpoint(partition, next_offset, generation, small, keep, pipeline.checkpoint_meta(partition))
        count = 0 if begun.held is None or full else begun.held.checkpoints
        work = self._thread.submit(self._write, checkpoint, frozen, count + 1)
        self._writing.append((partition, next_offset, work))

    def written(self, *, wait_for_all: bool = False) -> Iterator[Written]:
        """What is written, or failed to be, in the order in which it was begun.

        ``wait_for_all``: also what is under way. Raises what was no MonitorError.
        """
        while self._writing and (wait_for_all or self._writing[0][2].done()):
            partition, next_offset, work = self._writing.pop(0)
            try:
                self._held[partition] = work.result()
            except MonitorError as error:
                yield Written(partition, next_offset, error)
            else:
                yield Written(partition, next_offset, None)

    def save(self, partition: int, next_offset: int, generation: int) -> None:
        """Write the partition's state as of ``next_offset``, and wait. Raises Fenced, or the store's error."""
        while self.copy_some(partition):
            self.wait()
        self.begin(partition, next_offset, generation)
        for written in self.written(wait_for_all=True):
            if written.error is not None:
                raise written.error

    def forget(self, partition: int) -> None:
        """Drop a partition's state from memory. What of it is being written is waited for and not told of."""
        wait([work for _, _, work in self._writing])
        self._writing = [w for w in self._writing if w[0] != partition]
        if self._begun is not None and self._begun.partition == partition:
            self._begun = None
        self._held.pop(partition, None)
        self.pipeline.drop(partition)

    def close(self) -> None:
        """Let what is being written be written, and end the thread."""
        self._thread.shutdown(wait=True)
        self._reader.close()

    def _begin(self, partition: int) -> _Begun:
        begun = self._begun
        if begun is None or begun.partition != partition:
            # Until the store has it, what the steps think is written is not.
            begun = _Begun(partition, self._held.pop(partition, None), iter(()))
            begun.slices = self.pipeline.features.slices(partition, full=begun.full)
            self._begun = begun
        return begun

    def _write(self, checkpoint: Checkpoint, frozen: Mapping[str, Sequence[Frozen]], count: int) -> _Held:
        """In the thread: pack what was copied, save all of it, say what the store then has."""
        packed = {name: [blob() for blob in blobs] for name, blobs in frozen.items()}
        parts = {**checkpoint.parts, **packed}
        self.store.save(replace(checkpoint, parts=parts))
        self.bytes_written += sum(len(blob) for blobs in parts.values() for blob in blobs)
        return _Held(count, {name: checkpoint.keep[name] + len(packed[name]) for name in WITH_CHANGES})


def describe(meta: Mapping[str, Any]) -> str:
    """One line on what a checkpoint was made with."""
    try:
        return ", ".join(f"{k} {v}" for k, v in sorted(meta.get("versions", {}).items()))
    except AttributeError as error:
        raise MonitorError("the checkpoint's meta data are not ours") from error
