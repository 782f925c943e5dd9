"""Files as a source: merged by event time, spread over virtual partitions as Kafka would spread them.

The same files in any order give the same stream; how it is cut into polls changes nothing. Offsets are the
running index within a virtual partition. Knows of a record only what ``envelope`` reads.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from monitor.errors import BadInput, Problem
from monitor.records import RawBatch
from monitor.source.envelope import read_envelopes
from monitor.source.partitioner import Partitioner
from monitor.source.protocol import Listener
from monitor.source.readers import DamagedFile, kind_of, read_blocks


class Read(Protocol):
    """What a line of another format held."""

    @property
    def events(self) -> list[bytes]:
        """Records of contract 1, or ``Refused``."""

    @property
    def ignored(self) -> int:
        """Items in it that are no requests."""


Translate = Callable[[bytes, str], Read]
"""A line and what its events' ids begin with -> its events. Made from a mapping by who opens the source."""

I64 = npt.NDArray[np.int64]
_LOOK_AHEAD = 64
_ABSURD_S = 3600.0


class _Lines(NamedTuple):
    """Values of one file as read, with their accounts and times (epoch seconds, infinite: none)."""

    values: list[bytes]
    accounts: list[str | None]
    times: npt.NDArray[np.float64]


class _Block(NamedTuple):
    """Values of one file with their accounts and a merge key that never falls (epoch seconds)."""

    values: list[bytes]
    accounts: list[str | None]
    keys: npt.NDArray[np.float64]


class FileSource:
    """NDJSON and Parquet files as one :class:`monitor.source.protocol.Source`, with one member and no group.

    Files are merged by event time. Within a file the order stays: a record counts as being no later than
    the 64 after it, so one absurd future time holds nothing up. ``problems`` lists files that broke in the
    middle; what was read before counts. A record without an account goes to partition 0, for decode to reject.
    ``translate`` reads another log format: a line may then hold many events, or none; ``messages`` and ``ignored``
    count lines, and items that are no requests, of each file as far as it was read.
    ``only`` gives the records of these partitions alone: what others give in another process.
    Raises BadInput with every path that cannot be opened or is given twice.
    """

    partitions_total: int
    generation = 1

    def __init__(
        self,
        paths: Sequence[str | PathLike[str]],
        partitions: int = 8,
        *,
        max_bytes: int = 1 << 20,
        translate: Translate | None = None,
        listener: Listener | None = None,
        only: Collection[int] | None = None,
    ):
        self.paths = [Path(p) for p in paths]
        _check(self.paths)
        self.partitions_total = partitions
        self.problems: list[Problem] = []
        self.committed: dict[int, int] = {}
        self.messages: dict[Path, int] = {}
        self.ignored: dict[Path, int] = {}
        self._place = Partitioner(partitions)
        self._max_bytes = max_bytes
        self._translate = translate
        self._listener = listener
        self._announced = self._closed = self._all_paused = self._drained = False
        self._paused: set[int] = set()
        self._only = frozenset(range(partitions) if only is None else only)
        self._others = frozenset(range(partitions)) - self._only
        self._next = dict.fromkeys(range(partitions), 0)  # the next offset to give
        self._scanned = [0] * partitions  # the offset that the next record read from the files has
        self._runs: Iterator[tuple[list[bytes], list[str | None]]] = iter(())
        self._run: tuple[list[bytes], list[str | None]] = ([], [])
        self._at = 0
        self._ordered = sorted(self.paths, key=str)
        self._firsts = [self._first_key(path) for path in self._ordered]
        self._rewind()

    @property
    def starts(self) -> dict[Path, float | None]:
        """The first event time of each file, epoch seconds; None where none of its records has one."""
        found = zip(self._ordered, self._firsts, strict=True)
        return {path: first if np.isfinite(first) else None for path, first in found}

    def poll(self, max_records: int, timeout_s: float = 0.0) -> RawBatch:
        """Up to ``max_records`` records in merged order; empty when paused or finished."""
        if not self._announced:
            self._announced = True
            if self._listener is not None:
                self._listener.on_assign(self.assigned, self.generation)
        values: list[bytes] = []
        places: list[I64] = []
        offsets: list[I64] = []
        if not (self._all_paused or self._closed):
            while len(values) < max_records and self._fill():
                self._take(max_records - len(values), values, places, offsets)
        partition = np.concatenate([np.empty(0, np.int64), *places]).astype(np.int32)
        return RawBatch(
            values=values,
            partition=partition,
            offset=np.concatenate([np.empty(0, np.int64), *offsets]),
            timestamp_ms=np.full(len(values), -1, np.int64),
            next_offsets={p: self._next[p] for p in np.unique(partition).tolist()},
        )

    def _fill(self) -> bool:
        """Whether the current run has a record left, fetching the next run if not."""
        while self._at >= len(self._run[0]):
            run = next(self._runs, None)
            if run is None:
                self._drained = True
                return False
            self._run, self._at = run, 0
        return True

    def _take(self, count: int, values: list[bytes], places: list[I64], offsets: list[I64]) -> None:
        stop = min(self._at + count, len(self._run[0]))
        given, accounts = self._run[0][self._at : stop], self._run[1][self._at : stop]
        self._at = stop
        place = np.array(self._place.all(accounts), np.int64)
        offset = np.empty(len(place), np.int64)
        wanted = np.zeros(len(place), np.bool_)
        for p in np.flatnonzero(np.bincount(place)).tolist():
            mine = np.flatnonzero(place == p)
            offset[mine] = self._scanned[p] + np.arange(len(mine))
            self._scanned[p] += len(mine)
            if p not in self._paused and p not in self._others:
                wanted[mine] = offset[mine] >= self._next[p]
                self._next[p] = max(self._next[p], self._scanned[p])
        values += given if wanted.all() else compress(given, wanted.tolist())
        places.append(place[wanted])
        offsets.append(offset[wanted])

    def pause(self, partitions: Iterable[int] | None = None) -> None:
        """Give no records of these partitions (None: of any)."""
        if partitions is None:
            self._all_paused = True
        else:
            self._paused.update(partitions)

    def resume(self, partitions: Iterable[int] | None = None) -> None:
        """Undo :meth:`pause`. What others overtook is read from the files again: nothing was held in memory."""
        back = set(self._paused) if partitions is None else set(partitions) & self._paused
        if partitions is None:
            self._all_paused = False
        self._paused -= back
        if any(self._scanned[p] > self._next[p] for p in back):
            self._rewind()

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Remember the offsets in ``committed``; files have nowhere to keep them."""
        self.committed.update(offsets)

    def seek(self, partition: int, offset: int) -> None:
        """Go on from this offset; backwards reads the files again from the start."""
        if partition not in self._next or offset < 0:
            raise ValueError(f"no offset {offset} in partition {partition} of {self.partitions_total}")
        self._next[partition] = offset
        if self._scanned[partition] > offset:
            self._rewind()

    @property
    def assigned(self) -> frozenset[int]:
        """All virtual partitions, or ``only`` these, until closed."""
        return frozenset() if self._closed else self._only

    @property
    def finished(self) -> bool:
        """Whether every record was given."""
        return self._drained and not self._paused

    def lag(self) -> dict[int, int]:
        """Empty: how many records a file holds is known at its end."""
        return {}

    def stalled(self) -> dict[int, float]:
        """Empty: a file answers or breaks."""
        return {}

    def close(self) -> None:
        """Give the partitions up."""
        if not self._closed:
            if self._listener is not None and self._announced:
                self._listener.on_revoke(self.assigned)
            self._closed = True
            self._runs = iter(())

    def _rewind(self) -> None:
        self._scanned = [0] * self.partitions_total
        self._run, self._at, self._drained = ([], []), 0, False
        self._runs = self._merged()

    def _merged(self) -> Iterator[tuple[list[bytes], list[str | None]]]:
        """Runs of records of one file, in the order of (merge key, path); only files that overlap are open."""
        waiting = [(first, i) for i, first in enumerate(self._firsts)]
        heapq.heapify(waiting)
        open_files: dict[int, tuple[Iterator[_Block], _Block, int]] = {}
        while waiting:
            _, i = heapq.heappop(waiting)
            if i not in open_files:
                blocks = self._blocks(self._ordered[i])
                block = next(blocks, None)
                if block is None:
                    continue
                open_files[i] = (blocks, block, 0)
            source, current, at = open_files[i]
            stop = len(current.values)
            if waiting:
                limit, other = waiting[0]
                before = np.searchsorted(current.keys, limit, side="right" if i < other else "left")
                stop = max(at + 1, int(before))
            yield current.values[at:stop], current.accounts[at:stop]
            if stop == len(current.values):
                following = next(source, None)
                if following is None:
                    del open_files[i]
                    continue
                current, stop = following, 0
            open_files[i] = (source, current, stop)
            heapq.heappush(waiting, (float(current.keys[stop]), i))

    def _first_key(self, path: Path) -> float:
        first = next(self._blocks(path, note=False), None)
        return float(first.keys[0]) if first is not None else -np.inf

    def _blocks(self, path: Path, note: bool = True) -> Iterator[_Block]:
        """Blocks of one file; each waits for the next one, because a merge key looks ahead."""
        held: _Lines | None = None
        last = -np.inf
        for read in self._reads(path, note):
            if held is not None:
                block = _block(held, read.times, last)
                last = float(block.keys[-1])
                yield block
            held = read
        if held is not None:
            yield _block(held, np.empty(0), last)

    def _reads(self, path: Path, note: bool) -> Iterator[_Lines]:
        try:
            lines = ignored = 0
            for values in read_blocks(path, self._max_bytes):
                lines += len(values)
                if self._translate is not None:
                    first = lines - len(values)
                    read = [self._translate(v, f"{path.name}/{first + i}") for i, v in enumerate(values)]
                    ignored += sum(r.ignored for r in read)
                    values = [event for r in read for event in r.events]
                if note:
                    self.messages[path] = max(lines, self.messages.get(path, 0))
                    self.ignored[path] = max(ignored, self.ignored.get(path, 0))
                if not values:
                    continue
                yield _Lines(values, *read_envelopes(values))
        except DamagedFile as error:
            if note and error.problem not in self.problems:
                self.problems.append(error.problem)


def _block(read: _Lines, following: npt.NDArray[np.float64], last: float) -> _Block:
    """Merge keys: the running maximum of the least time among each record and the 64 after it.

    What lies over an hour before their median is left out of that (one record of 1970 would pull 64 others
    forward), and a record without a time (infinite) stays with its neighbours.
    """
    ahead = np.concatenate([read.times, following[:_LOOK_AHEAD]])
    if np.isfinite(ahead).all() and (np.diff(ahead) >= 0).all():
        least = read.times  # in order already, as most logs are: nothing to compute
    else:
        ahead = np.concatenate([np.where(np.isfinite(ahead), ahead, np.inf), np.full(_LOOK_AHEAD, np.inf)])
        windows = np.lib.stride_tricks.sliding_window_view(ahead, _LOOK_AHEAD + 1)[: len(read.times)]
        known = np.isfinite(windows).sum(axis=1)
        middle = np.take_along_axis(np.sort(windows, axis=1), (np.maximum(known, 1)[:, None] - 1) // 2, axis=1)
        least = np.where(windows < middle - _ABSURD_S, np.inf, windows).min(axis=1)
        least[np.isinf(least)] = -np.inf
    return _Block(read.values, read.accounts, np.maximum(np.maximum.accumulate(least), last))


def _check(paths: Sequence[Path]) -> None:
    problems: list[Problem] = []
    if not paths:
        problems.append(Problem("LOG", 0, "no file given"))
    seen: set[Path] = set()
    for path in paths:
        try:
            kind_of(path)
        except BadInput as error:
            problems.extend(error.problems)
        if path.resolve() in seen:
            problems.append(Problem(str(path), 0, "is given twice: its requests would count twice"))
        seen.add(path.resolve())
    if problems:
        raise BadInput(problems)
