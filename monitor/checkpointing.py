"""Writes the state of a partition with the offset that it reflects, and reads it back. Knows no store's kind.

A checkpoint holds, for each step with state, one full blob and the changes since. Order of the work, and what a
failure there means:

1. sinks flushed     - fails: nothing is written, the alerts are raised again after a restart, with the same ids
2. checkpoint saved  - fails: the last one stays in force, the next is a full one
3. offsets committed - fails: a restart reads on from the checkpoint's own offset, which is what counts
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from monitor.errors import MonitorError
from monitor.pipeline import Pipeline
from monitor.records import Checkpoint
from monitor.store import CheckpointStore

FULL_EVERY = 20
"""Changes kept before all is written anew: a restart reads at most so many blobs."""
WITH_CHANGES = ("ticks", "features")
"""Steps whose state is large and can tell what changed."""


class _Changing(Protocol):
    def dump(self, partition: int, *, full: bool = True) -> bytes: ...


@dataclass(slots=True)
class Checkpointer:
    """Saves and restores partitions of one pipeline."""

    pipeline: Pipeline
    store: CheckpointStore
    bytes_written: int = 0
    _held: dict[int, dict[str, int]] = field(default_factory=dict)

    def restore(self, partition: int, generation: int) -> Checkpoint | None:
        """Shut out older members, take the partition's last state over; None where there is none.

        Raises Fenced where a newer member has it already.
        """
        self.store.claim(partition, generation)
        self.pipeline.drop(partition)
        self._held.pop(partition, None)
        saved = self.store.load(partition)
        if saved is None:
            return None
        for name, component in self.pipeline.components.items():
            for blob in saved.parts.get(name, ()):
                component.load(partition, blob)
        self.pipeline.enter_restored(partition, saved.meta)
        # What was read may be the one before a damaged one: write all of it next time.
        return saved

    def save(self, partition: int, next_offset: int, generation: int) -> None:
        """Write the partition's state as of ``next_offset``. Raises Fenced, or the store's error."""
        held = self._held.get(partition, {})
        full = not held or any(count >= FULL_EVERY for count in held.values())
        parts: dict[str, list[bytes]] = {}
        keep: dict[str, int] = {}
        for name, component in self.pipeline.components.items():
            if name in WITH_CHANGES:
                changing: _Changing = component  # type: ignore[assignment]  # these two tell what changed
                parts[name] = [changing.dump(partition, full=full)]
                keep[name] = 0 if full else held[name]
            else:
                parts[name] = [component.dump(partition)]
        # Until the store has it, what the steps think is written is not.
        self._held.pop(partition, None)
        self.store.save(
            Checkpoint(partition, next_offset, generation, parts, keep, self.pipeline.checkpoint_meta(partition))
        )
        self._held[partition] = {name: keep[name] + 1 for name in WITH_CHANGES}
        self.bytes_written += sum(len(blob) for blobs in parts.values() for blob in blobs)

    def forget(self, partition: int) -> None:
        """Drop a partition's state from memory."""
        self._held.pop(partition, None)
        self.pipeline.drop(partition)


def describe(meta: Mapping[str, Any]) -> str:
    """One line on what a checkpoint was made with."""
    try:
        return ", ".join(f"{k} {v}" for k, v in sorted(meta.get("versions", {}).items()))
    except AttributeError as error:
        raise MonitorError("the checkpoint's meta data are not ours") from error
