"""A hash table of 64-bit keys that forgets: who had this key within the horizon, and with what value?

Serves duplicates, reused request ids and replayed reasoning blobs. An entry older than the horizon counts as absent
whether it has been swept or not: what a probe answers depends on event time and record order alone, the bound on
entries included. 28 bytes a slot (20 without values), at most seven tenths full; 9 million ids cost a sorted array
0.25 s for 150,000 probes, this 0.02 s.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.jit import njit, sealed

_U64 = npt.NDArray[np.uint64]
_I64 = npt.NDArray[np.int64]
_SMALLEST = 1 << 12
_MIX = np.uint64(0x9E3779B97F4A7C15)
_FULL, _ROOMY = 0.7, 0.55
"""Load at which a table is made anew, and what it then has: a probe looks at six slots at the worst of it. Of any
size, not a power of two, or it would have half of that: a million ids took 59 MB then."""


class _Table(NamedTuple):
    keys: _U64
    values: _U64
    times: _I64
    partitions: npt.NDArray[np.int32]

    @classmethod
    def of(cls, size: int, valued: bool) -> _Table:
        return cls(
            np.zeros(size, np.uint64), np.zeros(size if valued else 0, np.uint64), np.zeros(size, np.int64),
            np.zeros(size, np.int32),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """For each probe: was the key there (uint8), and the value it had (0 if not)."""

    seen: npt.NDArray[np.uint8]
    value: _U64


@dataclass(slots=True)
class _Ledger:
    """How many live entries of a partition were stored at which time: ``times``, ``counts`` [begin:end], rising."""

    times: _I64 = field(default_factory=lambda: np.zeros(64, np.int64))
    counts: _I64 = field(default_factory=lambda: np.zeros(64, np.int64))
    state: _I64 = field(default_factory=lambda: np.zeros(3, np.int64))  # begin, end, live entries

    def reserve(self, more: int) -> None:
        """Room for ``more`` different times."""
        begin, end = int(self.state[0]), int(self.state[1])
        if end + more > len(self.times):
            used = end - begin
            size = max(2 * used, used + more, 64)
            for name in ("times", "counts"):
                array = np.zeros(size, np.int64)
                array[:used] = getattr(self, name)[begin:end]
                setattr(self, name, array)
            self.state[:2] = 0, used


class KeyTable:
    """Keys of all partitions in one table; entries leave ``horizon_ms`` after they were first seen.

    Beyond ``most`` live entries in a partition new keys are not remembered (``overflow`` counts them). Without
    ``valued`` no values are kept: what a probe finds has 0.
    """

    def __init__(self, horizon_ms: int, most: int = 5_000_000, *, valued: bool = True):
        self.horizon_ms = horizon_ms
        self.valued = valued
        self.most = most
        self.overflow = 0
        self._table = _Table.of(_SMALLEST, valued)
        self._used = 0
        self._ledgers: dict[int, _Ledger] = {}
        self._fresh: dict[int, deque[tuple[_U64, _U64, _I64]]] = {}
        self._now: dict[int, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return sum(a.nbytes for a in self._table)

    def probe(self, partition: int, keys: _U64, values: _U64, times: _I64) -> Found:
        """Look up and remember ``keys`` in order. ``times`` (event ms) must not fall within a partition.

        A key seen within the horizon keeps its first value and time; else it is stored with this one. Key 0 is
        never stored and never found.
        """
        n = len(keys)
        if n == 0:
            return Found(np.zeros(0, np.uint8), np.zeros(0, np.uint64))
        # A sweep goes by the first of these times: what expires by the last may still answer the first.
        self._now[partition] = max(self._now.get(partition, 0), int(times[0]))
        if self._used + n > _FULL * len(self._table.keys):
            self._rebuild(n)
        self._now[partition] = max(self._now[partition], int(times[-1]))
        seen, old, new = np.zeros(n, np.uint8), np.zeros(n, np.uint64), np.zeros(n, np.uint8)
        ledger = self._ledgers.setdefault(partition, _Ledger())
        ledger.reserve(n)
        used, lost = _probe(
            sealed(keys), sealed(values), sealed(times), partition, self.horizon_ms, self.most, self._table,
            ledger.times, ledger.counts, ledger.state, seen, old, new,
        )  # fmt: skip
        self._used += used
        self.overflow += lost
        stored = new.astype(bool)
        fresh = self._fresh.setdefault(partition, deque())
        if stored.any():
            kept = keys[stored]
            fresh.append((kept, values[stored] if self.valued else kept, times[stored]))
        # A backtest never writes a checkpoint: what expired must not wait for one.
        while fresh and fresh[0][2][-1] < self._now[partition] - self.horizon_ms:
            fresh.popleft()
        return Found(seen, old)

    def dump(self, partition: int, *, full: bool) -> dict[str, npt.NDArray[np.generic]]:
        """Live entries of a partition, or those stored since the last dump of it."""
        fresh = self._fresh.pop(partition, ())
        if full:
            t = self._table
            mine = (t.keys != 0) & (t.partitions == partition)
            mine &= t.times >= self._now.get(partition, 0) - self.horizon_ms
            return {"keys": t.keys[mine], "values": (t.values if self.valued else t.keys)[mine], "times": t.times[mine]}
        empty = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))
        keys, values, times = zip(*fresh, strict=True) if fresh else ((empty[0],), (empty[1],), (empty[2],))
        return {"keys": np.concatenate(keys), "values": np.concatenate(values), "times": np.concatenate(times)}

    def load(self, partition: int, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
        """Add dumped entries."""
        times = arrays["times"].astype(np.int64)
        order = np.argsort(times, kind="stable")
        keys, values = arrays["keys"].astype(np.uint64), arrays["values"].astype(np.uint64)
        self.probe(partition, keys[order], values[order], times[order])
        self._fresh.pop(partition, None)

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        self._fresh.pop(partition, None)
        self._now.pop(partition, None)
        self._ledgers.pop(partition, None)
        self._table.partitions[self._table.partitions == partition] = -1
        self._rebuild(0)

    def _rebuild(self, extra: int) -> None:
        """Sweep what expired and make room for ``extra`` more."""
        last = max(self._now, default=-1)
        now = np.full(last + 2, np.iinfo(np.int64).max, np.int64)
        for p, ms in self._now.items():
            now[p] = ms
        # partition -1 (dropped) reads the last cell: always expired
        keep = (self._table.keys != 0) & (self._table.times >= now[self._table.partitions] - self.horizon_ms)
        old = self._table
        kept = _Table(old.keys[keep], old.values[keep] if self.valued else old.values, old.times[keep],
                      old.partitions[keep])  # fmt: skip
        del old
        # before the new one: both and what is kept would be three tables at once
        self._table = _Table.of(0, self.valued)
        self._table = _Table.of(max(int((len(kept.keys) + extra) / _ROOMY), _SMALLEST), self.valued)
        _insert(kept, self._table)
        self._used = len(kept.keys)


@njit(inline="always")
def _slot(key: np.uint64, size: np.uint64) -> np.uint64:
    """Where a key belongs in a table of any size below 2^32 (Lemire 2019): by its upper half, after a product, since a
    key that is short of its highest bits would find half of the table full."""
    return (((key * _MIX) >> np.uint64(32)) * size) >> np.uint64(32)


@njit
def _probe(
    keys: _U64,
    values: _U64,
    times: _I64,
    partition: int,
    horizon: int,
    most: int,
    table: _Table,
    ledger_times: _I64,
    ledger_counts: _I64,
    ledger: _I64,
    seen: npt.NDArray[np.uint8],
    old: _U64,
    new: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    """Returns (entries begun, keys not remembered for want of room).

    What counts against ``most`` is what is live at each key's own time: neither a sweep nor a split can move it.
    """
    t_keys, t_values, t_times, t_partitions = table.keys, table.values, table.times, table.partitions
    size = np.uint64(len(t_keys))
    valued = len(t_values) > 0
    begin, end, live = ledger[0], ledger[1], ledger[2]
    used = 0
    lost = 0
    for i in range(len(keys)):
        key = keys[i]
        if key == 0:
            continue
        while begin < end and ledger_times[begin] < times[i] - horizon:
            live -= ledger_counts[begin]
            begin += 1
        at = _slot(key, size)
        while t_keys[at] != 0 and not (t_keys[at] == key and t_partitions[at] == partition):
            at += np.uint64(1)
            if at == size:
                at = np.uint64(0)
        if t_keys[at] != 0 and t_times[at] >= times[i] - horizon:
            seen[i] = 1
            if valued:
                old[i] = t_values[at]
            continue
        if live >= most:
            lost += 1
            continue
        live += 1
        if begin < end and ledger_times[end - 1] == times[i]:
            ledger_counts[end - 1] += 1
        else:
            ledger_times[end] = times[i]
            ledger_counts[end] = 1
            end += 1
        used += t_keys[at] == 0
        t_keys[at] = key
        if valued:
            t_values[at] = values[i]
        t_times[at] = times[i]
        t_partitions[at] = partition
        new[i] = 1
    ledger[0], ledger[1], ledger[2] = begin, end, live
    return used, lost


@njit
def _insert(old: _Table, new: _Table) -> None:
    keys, values, times, partitions = old.keys, old.values, old.times, old.partitions
    t_keys, t_values, t_times, t_partitions = new.keys, new.values, new.times, new.partitions
    size = np.uint64(len(t_keys))
    valued = len(t_values) > 0
    for i in range(len(keys)):
        at = _slot(keys[i], size)
        while t_keys[at] != 0:
            at += np.uint64(1)
            if at == size:
                at = np.uint64(0)
        t_keys[at] = keys[i]
        if valued:
            t_values[at] = values[i]
        t_times[at] = times[i]
        t_partitions[at] = partitions[i]
