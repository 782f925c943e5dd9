"""The features stage's state of one partition as blobs: all of it, or what changed since the last time.

Account rows and panes carry the subject's name by index, so that a replica with other slot numbers can take
them over. A later blob overrides an earlier one row by row. So what is large is copied some accounts at a time, with
batches in between; the blob of what changed since makes all of them one state.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.arrays import Frozen, Opened, StateUnreadable, pack, unpack
from monitor.features.frozen import gather, sound, thaw
from monitor.features.panes import NONE, Level, LevelView, find_or_begin, unlink
from monitor.features.shapes import Accounts, Sums
from monitor.features.windows import clear
from monitor.jit import njit

if TYPE_CHECKING:
    from monitor.features.engine import FeatureEngine

KIND, VERSION = "features", 5
_LEVELS = ("minute", "hour", "day")
_PANE_FIELDS = ("time", "narrow", "wide", "bits", "hours")
_FROZEN_FIELDS = ("account", "time", "length", "data")
_RINGS = ("recent", "minhash")
_ENTRY_FIELDS = ("keys", "values", "times")
_SKIPPED = ("partition", "dirty")
SLICE = 8_192
"""Accounts that are copied at once: 20 MB, some 20 ms."""


def dump(engine: FeatureEngine, partition: int, *, full: bool) -> bytes:
    """See :meth:`FeatureEngine.dump`."""
    if full:
        _mark(engine, engine.accounts.of_partition(partition))
    return freeze(engine, partition, full=full)()


def slices(engine: FeatureEngine, partition: int, *, full: bool) -> Iterator[Frozen]:
    """See :meth:`FeatureEngine.slices`."""
    passed = -1
    while True:
        # looked up anew: accounts come and go while batches are processed, and those that come have changed
        slots = engine.accounts.of_partition(partition) if full else _changed(engine, partition)
        slots = slots[slots > passed]
        some = slots[:SLICE]
        if full:
            _mark(engine, some)
        if len(slots) <= SLICE:
            return
        passed = int(some[-1])
        yield _copied(engine, some, {})


def freeze(engine: FeatureEngine, partition: int, *, full: bool) -> Frozen:
    """See :meth:`FeatureEngine.freeze`."""
    tables = {
        f"blob_{name}.{k}": v
        for name, table in (("owner", engine.blobs.owner), ("conversation", engine.blobs.conversation))
        for k, v in table.dump(partition, full=full).items()
    }
    return _copied(engine, _changed(engine, partition), tables)


def _changed(engine: FeatureEngine, partition: int) -> npt.NDArray[np.int32]:
    slots = engine.accounts.of_partition(partition)
    changed: npt.NDArray[np.int32] = slots[engine.accounts.arrays.dirty[slots] == 1]
    return changed


def _mark(engine: FeatureEngine, slots: npt.NDArray[np.int32]) -> None:
    """All of these accounts is to be written."""
    engine.accounts.arrays.dirty[slots] = 1
    for name in _LEVELS:
        _mark_panes(slots, getattr(engine, name).arrays)


def _copied(engine: FeatureEngine, slots: npt.NDArray[np.int32], tables: dict[str, npt.NDArray[Any]]) -> Frozen:
    """A copy of what changed of these accounts; they are marked as written."""
    accounts = engine.accounts.arrays
    arrays: dict[str, npt.NDArray[Any]] = {
        f"account.{name}": getattr(accounts, name).take(slots, axis=0)
        for name in Accounts._fields
        if name not in _SKIPPED
    }
    accounts.dirty[slots] = 0
    for name in _RINGS:
        arrays.update({f"{name}.{f}": a for f, a in getattr(engine.accounts, name).dump(slots).items()})
    for name in _LEVELS:
        level: Level = getattr(engine, name)
        panes = level.arrays
        account, rows, frozen_account, frozen = _changed_panes(slots, panes)
        arrays[f"{name}.account"] = account
        arrays.update({f"{name}.{f}": getattr(panes, f).take(rows, axis=0) for f in _PANE_FIELDS})
        lengths = panes.frozen_start[frozen + 1] - panes.frozen_start[frozen]
        arrays |= {
            f"{name}.frozen.account": frozen_account, f"{name}.frozen.time": panes.frozen_time[frozen],
            f"{name}.frozen.length": lengths.astype(np.int32),
            f"{name}.frozen.data": gather(frozen, panes.frozen_start, panes.frozen),
        }  # fmt: skip
    none = {f"blob_{t}.{k}": np.zeros(0, np.uint64) for t in ("owner", "conversation") for k in _ENTRY_FIELDS}
    values = {"subjects": [engine.accounts.name(s) for s in slots.tolist()], "models": engine.model_names()}
    return partial(pack, KIND, VERSION, arrays | none | tables, values)


def load(engine: FeatureEngine, partition: int, blob: bytes | Opened) -> None:
    """See :meth:`FeatureEngine.load`."""
    arrays, values = unpack(KIND, VERSION, blob)
    subjects = pl.Series(values["subjects"], dtype=pl.String)
    if len(subjects):
        engine.accounts.reserve(int((engine.accounts.known(subjects, partition) < 0).sum()))
        slots = engine.accounts.assign(subjects, pl.Series([partition] * len(subjects), dtype=pl.Int32))
        accounts = engine.accounts.arrays
        for name in Accounts._fields:
            if name not in _SKIPPED:
                getattr(accounts, name)[slots] = arrays[f"account.{name}"]
        numbers = np.array([engine.model_id(m) for m in values["models"]] + [-1], np.int16)
        accounts.models[slots] = numbers[arrays["account.models"]]
        accounts.dirty[slots] = 0
        for name in _RINGS:
            getattr(engine.accounts, name).load(slots, {f: arrays[f"{name}.{f}"] for f in ("has", "data")})
        engine.make_room(0)
        for name in _LEVELS:
            level = getattr(engine, name)
            _load_frozen(level, slots, {f: arrays[f"{name}.frozen.{f}"] for f in _FROZEN_FIELDS})
            _load_level(level, slots, {f: arrays[f"{name}.{f}"] for f in ("account", *_PANE_FIELDS)})
    for name, table in (("owner", engine.blobs.owner), ("conversation", engine.blobs.conversation)):
        table.load(partition, {k: arrays[f"blob_{name}.{k}"] for k in _ENTRY_FIELDS})


def drop(engine: FeatureEngine, partition: int) -> None:
    """See :meth:`FeatureEngine.drop`."""
    slots = engine.accounts.of_partition(partition)
    for level in (engine.minute, engine.hour, engine.day):
        for s in slots.tolist():
            if s < len(level.arrays.head):
                unlink(s, level.arrays)
    engine.accounts.release(slots.tolist())
    engine.blobs.owner.drop(partition)
    engine.blobs.conversation.drop(partition)


def _nothing_is_over(level: Level) -> npt.NDArray[np.int64]:
    """A horizon for :meth:`Level.reserve` by which no pane is dropped or frozen."""
    return np.full(len(level.arrays.head), np.iinfo(np.int64).min // 2)


def _load_frozen(level: Level, slots: npt.NDArray[np.int32], panes: dict[str, npt.NDArray[Any]]) -> None:
    """Take frozen panes over: earlier than any pane of the same blob that is not. One that an earlier blob had as it
    was written is overwritten; behind such a one no frozen one can stand, so it then stands as one that is not.

    Raises StateUnreadable where the bytes are no panes.
    """
    if not sound(panes["length"], panes["data"], *level.columns):
        raise StateUnreadable(f"the state of {KIND!r} is damaged: bytes that are no panes")
    level.reserve(len(panes["time"]), _nothing_is_over(level))
    level.reserve_frozen(len(panes["time"]), len(panes["data"]), _nothing_is_over(level))
    level.size, level.cold = _merge_frozen(
        slots[panes["account"]], panes["time"], panes["length"], panes["data"], level.size, level.cold, level.arrays,
        Sums.empty(*level.columns),
    )  # fmt: skip


def _load_level(level: Level, slots: npt.NDArray[np.int32], panes: dict[str, npt.NDArray[Any]]) -> None:
    """Append or override panes; they stand in the order in which they were begun, so time rises by account."""
    level.reserve(len(panes["time"]), _nothing_is_over(level))
    level.size = _merge(
        slots[panes["account"]], panes["time"], panes["narrow"], panes["wide"], panes["bits"], panes["hours"],
        level.size, level.arrays,
    )  # fmt: skip


@njit
def _mark_panes(slots: npt.NDArray[np.int32], level: LevelView) -> None:
    for s in slots:
        p = level.head[s] if s < len(level.head) else NONE
        while p >= 0:
            level.dirty[p] = 1
            p = level.prev[p]
        while p <= -2:
            level.frozen_dirty[-2 - p] = 1
            p = level.frozen_prev[-2 - p]


@njit(makes_arrays=True)
def _changed_panes(
    slots: npt.NDArray[np.int32], level: LevelView
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Panes of these accounts that are to be written, which then they are: the number of the account among these and
    the pane, time rising by account; the same of frozen ones."""
    n, f = 0, 0
    for s in slots:
        p = level.head[s] if s < len(level.head) else NONE
        while p >= 0:
            n += level.dirty[p]
            p = level.prev[p]
        while p <= -2:
            f += level.frozen_dirty[-2 - p]
            p = level.frozen_prev[-2 - p]
    account, rows = np.empty(n, np.int64), np.empty(n, np.int64)
    frozen_account, frozen = np.empty(f, np.int64), np.empty(f, np.int64)
    # from the end, as a chain leads from the last pane to the first
    for a in range(len(slots) - 1, -1, -1):
        s = slots[a]
        p = level.head[s] if s < len(level.head) else NONE
        while p >= 0:
            if level.dirty[p]:
                level.dirty[p] = 0
                n -= 1
                account[n], rows[n] = a, p
            p = level.prev[p]
        while p <= -2:
            if level.frozen_dirty[-2 - p]:
                level.frozen_dirty[-2 - p] = 0
                f -= 1
                frozen_account[f], frozen[f] = a, -2 - p
            p = level.frozen_prev[-2 - p]
    return account, rows, frozen_account, frozen


@njit
def _merge(
    at: npt.NDArray[np.int32],
    times: npt.NDArray[np.int32],
    narrow: npt.NDArray[np.int32],
    wide: npt.NDArray[np.int64],
    bits: npt.NDArray[np.uint64],
    hours: npt.NDArray[np.int32],
    size: int,
    level: LevelView,
) -> int:
    """Write each pane over the one of its account and time, or begin it; returns the new size."""
    for i in range(len(times)):
        s = at[i]
        p = level.head[s]
        while p >= 0 and level.time[p] > times[i]:
            p = level.prev[p]
        if p < 0 or level.time[p] != times[i]:
            p, size = find_or_begin(s, times[i], size, level)
        for c in range(narrow.shape[1]):
            level.narrow[p, c] = narrow[i, c]
        for c in range(wide.shape[1]):
            level.wide[p, c] = wide[i, c]
        for c in range(bits.shape[1]):
            level.bits[p, c] = bits[i, c]
        for c in range(hours.shape[1]):
            level.hours[p, c] = hours[i, c]
        level.dirty[p] = 0
    return size


@njit
def _merge_frozen(
    at: npt.NDArray[np.int32],
    times: npt.NDArray[np.int32],
    lengths: npt.NDArray[np.int32],
    data: npt.NDArray[np.uint8],
    size: int,
    cold: int,
    level: LevelView,
    room: Sums,
) -> tuple[int, int]:
    """Each pane behind those of its account, or over the one of its time; ``room``: for one pane. Returns both new
    sizes."""
    start = int(np.int64(0))
    for i in range(len(times)):
        s = at[i]
        first = start
        start += lengths[i]
        p = level.head[s]
        while p >= 0 and level.time[p] > times[i]:
            p = level.prev[p]
        if p <= -2 and level.frozen_time[-2 - p] >= times[i]:
            continue  # what is frozen does not change
        if level.head[s] < 0:
            for b in range(lengths[i]):
                level.frozen[level.frozen_start[cold] + b] = data[first + b]
            level.frozen_start[cold + 1] = level.frozen_start[cold] + lengths[i]
            level.frozen_slot[cold] = s
            level.frozen_time[cold] = times[i]
            level.frozen_prev[cold] = level.head[s]
            level.frozen_dirty[cold] = 0
            level.head[s] = -2 - cold
            cold += 1
            continue
        if p < 0 or level.time[p] != times[i]:
            p, size = find_or_begin(s, times[i], size, level)
        clear(room)
        thaw(first, data, room.narrow, room.wide, room.bits, room.hours)
        for c in range(len(room.narrow)):
            level.narrow[p, c] = np.int32(room.narrow[c])
        for c in range(len(room.wide)):
            level.wide[p, c] = room.wide[c]
        for c in range(len(room.bits)):
            level.bits[p, c] = room.bits[c]
        for c in range(len(room.hours)):
            level.hours[p, c] = np.int32(room.hours[c])
        level.dirty[p] = 0
    return size, cold
