"""Where a partition's state and the offset it reflects are kept, together or not at all.

:class:`CheckpointStore` is the edge; ``directory``, ``redis_checkpoints`` and :class:`MemoryStore` implement
it and pass one contract suite. A store knows nothing of what is in a blob.

Fencing. Kafka's group generation grows with each rebalance. ``claim`` raises the partition's fence; a member
that was paused and wakes up with an older generation gets :class:`~monitor.errors.Fenced` from then on, also
when both are different processes. Equal generations pass: they are the same member. A group that Kafka has
forgotten (offsets expired) starts again at generation 1: ``unfence`` is for that, and for nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from monitor.errors import Fenced, Reshaped
from monitor.records import Checkpoint
from monitor.store.manifest import BlobRef, Incomplete, Manifest, plan, read_manifest, restore, seal

Report = Callable[[str], None]
"""Gets one line on damage that was found and survived."""

_LOG = logging.getLogger(__name__)


class CheckpointStore(Protocol):
    """Checkpoints of one topic and consumer group."""

    def claim(self, partition: int, generation: int) -> None:
        """Shut out every member of an older generation. Raises Fenced where a newer one has claimed."""

    def load(self, partition: int) -> Checkpoint | None:
        """The last checkpoint that is whole, None where there is none.

        A damaged one is reported and the one before it is returned: its ``next_offset`` is where to read on
        from. Raises Damaged where neither is whole.
        """

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the partition's checkpoint atomically.

        Raises Fenced for an older generation than claimed or saved, Incomplete where ``keep`` refers to blobs
        that are not held (write a full checkpoint then), StoreDown where it can't be written; after either
        the last checkpoint is as it was.
        """

    def partitions(self) -> list[int]:
        """Partitions that have a checkpoint, ascending."""

    def unfence(self, partition: int) -> None:
        """Forget the generation, keep the state: after Kafka has forgotten the group."""

    def put_meta(self, meta: Mapping[str, Any]) -> None:
        """Replace what is known of topic and group as a whole (JSON values): partitions, versions."""

    def get_meta(self) -> dict[str, Any] | None:
        """What ``put_meta`` wrote, or None."""


def log_report(message: str) -> None:
    """Default :data:`Report`: a warning in the log."""
    _LOG.warning(message)


def fenced(partition: int, generation: int, fence: int) -> Fenced:
    """The error of a member whose time is over."""
    return Fenced(
        f"partition {partition}: generation {generation} is older than {fence}, another member owns it now: "
        "drop its state and commit nothing"
    )


def require_shape(store: CheckpointStore, partitions_total: int, versions: Mapping[str, str]) -> None:
    """Write down the topic's number of partitions, or refuse one that differs from what the state was made for.

    Accounts are spread by hash over partitions, so another number puts them elsewhere than their state is.
    Raises Reshaped.
    """
    meta = store.get_meta()
    if meta is not None and meta.get("partitions") != partitions_total:
        raise Reshaped(
            f"the topic has {partitions_total} partitions and the state was made for {meta.get('partitions')}: "
            "accounts hash to other partitions now. Go back to the old number, or start a new consumer group "
            "(kafka.group), which reads one window again to fill its state"
        )
    wanted = {"partitions": partitions_total, "versions": dict(versions)}
    if meta != wanted:
        store.put_meta(wanted)


class MemoryStore:
    """A store that ends with the process: backtests, and the model that the contract suite compares with."""

    def __init__(self, report: Report = log_report):
        self._report = report
        self._fence: dict[int, int] = {}
        self._current: dict[int, bytes] = {}
        self._previous: dict[int, bytes] = {}
        self._blobs: dict[tuple[int, str], bytes] = {}
        self._base: dict[int, Manifest] = {}
        self._meta: bytes | None = None

    def claim(self, partition: int, generation: int) -> None:
        """See :class:`CheckpointStore`."""
        self._check(partition, generation)
        self._fence[partition] = generation
        self._base.pop(partition, None)

    def load(self, partition: int) -> Checkpoint | None:
        """See :class:`CheckpointStore`."""
        found = restore(
            partition,
            lambda: [
                (name, held[partition])
                for name, held in (("last", self._current), ("previous", self._previous))
                if partition in held
            ],
            lambda ref: self._blobs.get((partition, ref.digest)),
            self._report,
        )
        if found is None:
            return None
        self._base[partition] = found[1]
        return found[0]

    def save(self, checkpoint: Checkpoint) -> None:
        """See :class:`CheckpointStore`."""
        partition = checkpoint.partition
        self._check(partition, checkpoint.generation)
        base = self._base.get(partition) or read_manifest(self._current.get(partition))
        manifest, blobs = plan(checkpoint, base)
        if any(ref.digest not in blobs and (partition, ref.digest) not in self._blobs for ref in manifest.refs()):
            raise Incomplete(f"partition {partition}: a kept blob is gone: write a full checkpoint")
        self._blobs.update({(partition, name): blob for name, blob in blobs.items()})
        if base is not None:
            self._previous[partition] = seal(base)
        self._current[partition] = seal(manifest)
        self._base[partition] = manifest
        self._fence[partition] = checkpoint.generation
        live = manifest.refs() | (base.refs() if base is not None else set[BlobRef]())
        names = {(partition, ref.digest) for ref in live}
        for key in [k for k in self._blobs if k[0] == partition and k not in names]:
            del self._blobs[key]

    def partitions(self) -> list[int]:
        """See :class:`CheckpointStore`."""
        return sorted(self._current)

    def unfence(self, partition: int) -> None:
        """See :class:`CheckpointStore`."""
        self._fence.pop(partition, None)

    def put_meta(self, meta: Mapping[str, Any]) -> None:
        """See :class:`CheckpointStore`."""
        self._meta = msgspec.json.encode(dict(meta))

    def get_meta(self) -> dict[str, Any] | None:
        """See :class:`CheckpointStore`."""
        return msgspec.json.decode(self._meta, type=dict[str, Any]) if self._meta is not None else None

    def _check(self, partition: int, generation: int) -> None:
        fence = self._fence.get(partition, -1)
        if generation < fence:
            raise fenced(partition, generation, fence)
