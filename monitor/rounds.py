"""Checkpoints in rounds: a turn of the loop copies some of the state, a thread writes it, a later turn commits it.

Knows in which order that is done; what a checkpoint holds is the checkpointer's, when partitions come and go the
runner's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from monitor.checkpointing import Checkpointer
from monitor.errors import Fenced
from monitor.pipeline import Pipeline
from monitor.service import Health, fields
from monitor.source.protocol import Source

_LOG = logging.getLogger(__name__)
COPY_S = 0.05
"""For how long a turn copies what a checkpoint is to write; one copy more may be under way then."""


@dataclass(slots=True)
class _Round:
    """A checkpoint of several partitions that is under way: those to be copied yet, and what came of the others."""

    waiting: list[int]
    began: float
    bytes_before: int
    saved: list[int] = field(default_factory=list)
    failed: bool = False


@dataclass(slots=True)
class Rounds:
    """``flush()`` delivers all that the state reflects, before any of it is copied; ``leave(partition)`` is called
    where a newer member has it, ``step(name)`` after each step."""

    checkpoints: Checkpointer
    pipeline: Pipeline
    health: Health
    flush: Callable[[], None]
    leave: Callable[[int], None]
    step: Callable[[str], None]
    ended: float = 0.0
    """When the last one did, by the monotonic clock."""
    _round: _Round | None = None

    def all_now(self, offsets: Mapping[int, int], source: Source) -> None:
        """Save these partitions with these offsets and commit, before anything else is done."""
        self.take_written(source, wait=True)
        others = [p for p in (self._round.waiting if self._round is not None else ()) if p not in offsets]
        self._round = self._begun(offsets)
        self._copy(offsets, source)
        self.take_written(source, wait=True)
        if others:
            self._round = self._begun(others)

    def turn(self, offsets: Mapping[int, int], source: Source, every_s: float, *, copies: bool = True) -> None:
        """What this turn does for a checkpoint that is due or under way: commit what is written, copy what is to be
        unless ``copies`` is false: flushing would hold the loop now."""
        began = time.monotonic()
        worked = self.take_written(source)
        if self._round is None and offsets and began - self.ended >= every_s:
            self._round = self._begun(offsets)
        if copies and self._round is not None and self._round.waiting and self.checkpoints.idle:
            self._copy(offsets, source, COPY_S)
            worked = True
        if worked:
            self.pipeline.observe.telemetry.checkpoint_pause_seconds.observe(time.monotonic() - began)

    def take_written(self, source: Source, *, wait: bool = False) -> bool:
        """Commit what was saved, leave what another member has; whether there was anything."""
        telemetry = self.pipeline.observe.telemetry
        saved: dict[int, int] = {}
        failed = False
        for written in self.checkpoints.written(wait_for_all=wait):
            partition, error = written.partition, written.error
            if error is None:
                saved[partition] = written.next_offset
                self.step("saved")
                continue
            failed = True
            if isinstance(error, Fenced):
                telemetry.fenced.inc()
                _LOG.warning("partition given up", extra=fields(partition=partition, error=str(error)))
                self.leave(partition)
            else:
                self.pipeline.observe.failed(error)
                self.health.set("checkpoints", False, str(error))
                _LOG.error("checkpoint not written", extra=fields(partition=partition, error=str(error)))
        if saved:
            source.commit(saved)
            self.step("committed")
        self._end(saved, failed)
        return bool(saved) or failed

    def drop(self) -> None:
        """What is under way is not gone on with."""
        self._round = None

    def _begun(self, partitions: Iterable[int]) -> _Round:
        return _Round(sorted(partitions), time.monotonic(), self.checkpoints.bytes_written)

    def _copy(self, offsets: Mapping[int, int], source: Source, seconds: float = math.inf) -> None:
        """Copy what is to be written, for so long, partition after partition, each with its offset."""
        assert self._round is not None
        waiting = self._round.waiting
        self.flush()
        self.step("flushed")
        # All at once, copies would pile up: 200 MB with 66,000 accounts.
        wait = self.checkpoints.wait if seconds == math.inf else lambda: None
        began = time.monotonic()
        while waiting and time.monotonic() - began < seconds:
            if waiting[0] in offsets:
                if self.checkpoints.copy_some(waiting[0]):
                    wait()
                    continue
                self.checkpoints.begin(waiting[0], offsets[waiting[0]], source.generation)
                wait()
            del waiting[0]

    def _end(self, saved: Iterable[int], failed: bool) -> None:
        """Note what was saved; the end of a checkpoint where nothing of it is left to do."""
        this = self._round
        if this is None:
            return
        this.saved += saved
        this.failed |= failed
        if this.waiting or self.checkpoints.writing:
            return
        if not this.failed:
            self.health.set("checkpoints", True)
        seconds, size = time.monotonic() - this.began, self.checkpoints.bytes_written - this.bytes_before
        self.pipeline.observe.telemetry.checkpointed(seconds, size, this.saved)
        self._round, self.ended = None, time.monotonic()
