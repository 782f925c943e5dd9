"""The features stage's state of one partition as a blob: all of it, or what changed since the last time.

Account rows and panes carry the subject's name by index, so that a replica with other slot numbers can take
them over. A later blob overrides an earlier one row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.arrays import pack, unpack
from monitor.features.kernel import Accounts
from monitor.features.panes import Level, LevelView, find_or_begin, unlink
from monitor.jit import njit

if TYPE_CHECKING:
    from monitor.features.engine import FeatureEngine

KIND, VERSION = "features", 3
_LEVELS = ("minute", "hour", "day")
_PANE_FIELDS = ("time", "narrow", "wide", "bits", "hours")
_SKIPPED = ("partition", "dirty")


def dump(engine: FeatureEngine, partition: int, *, full: bool) -> bytes:
    """See :meth:`FeatureEngine.dump`."""
    accounts = engine.accounts.arrays
    slots = engine.accounts.of_partition(partition)
    if not full:
        slots = slots[accounts.dirty[slots] == 1]
    arrays: dict[str, npt.NDArray[Any]] = {
        f"account.{name}": getattr(accounts, name)[slots] for name in Accounts._fields if name not in _SKIPPED
    }
    accounts.dirty[slots] = 0
    # -1 for slots outside, so that panes of accounts that are not written are not either
    index = np.full(engine.accounts.capacity, -1, np.int64)
    index[slots] = np.arange(len(slots))
    for name in _LEVELS:
        level: Level = getattr(engine, name)
        mine = level.slot[: level.size] >= 0
        mine[mine] = index[level.slot[: level.size][mine]] >= 0
        if not full:
            mine &= level.dirty[: level.size] == 1
        rows = np.flatnonzero(mine)
        arrays[f"{name}.account"] = index[level.slot[rows]]
        arrays.update({f"{name}.{f}": getattr(level, f)[rows] for f in _PANE_FIELDS})
        level.dirty[rows] = 0
    for name, table in (("owner", engine.blobs.owner), ("conversation", engine.blobs.conversation)):
        arrays.update({f"blob_{name}.{k}": v for k, v in table.dump(partition, full=full).items()})
    subjects = [engine.accounts.name(s) for s in slots.tolist()]
    return pack(KIND, VERSION, arrays, {"subjects": subjects, "models": engine.model_names()})


def load(engine: FeatureEngine, partition: int, blob: bytes) -> None:
    """See :meth:`FeatureEngine.load`."""
    arrays, values = unpack(KIND, VERSION, blob)
    subjects = pl.Series(values["subjects"], dtype=pl.String)
    if len(subjects):
        slots = engine.accounts.assign(subjects, pl.Series([partition] * len(subjects), dtype=pl.Int32))
        accounts = engine.accounts.arrays
        for name in Accounts._fields:
            if name not in _SKIPPED:
                getattr(accounts, name)[slots] = arrays[f"account.{name}"]
        numbers = np.array([engine.model_id(m) for m in values["models"]] + [-1], np.int16)
        accounts.models[slots] = numbers[arrays["account.models"]]
        accounts.dirty[slots] = 0
        engine.make_room(0)
        for name in _LEVELS:
            _load_level(getattr(engine, name), slots, {f: arrays[f"{name}.{f}"] for f in ("account", *_PANE_FIELDS)})
    for name, table in (("owner", engine.blobs.owner), ("conversation", engine.blobs.conversation)):
        table.load(partition, {k: arrays[f"blob_{name}.{k}"] for k in ("keys", "values", "times")})


def drop(engine: FeatureEngine, partition: int) -> None:
    """See :meth:`FeatureEngine.drop`."""
    slots = engine.accounts.of_partition(partition)
    for level in (engine.minute, engine.hour, engine.day):
        for s in slots.tolist():
            if s < len(level.head):
                unlink(s, level.view())
    engine.accounts.release(slots.tolist())
    engine.blobs.owner.drop(partition)
    engine.blobs.conversation.drop(partition)


def _load_level(level: Level, slots: npt.NDArray[np.int32], panes: dict[str, npt.NDArray[Any]]) -> None:
    """Append or override panes; they stand in the order in which they were begun, so time rises by account."""
    level.reserve(len(panes["time"]), np.full(len(level.head), np.iinfo(np.int64).min // 2))
    level.size = _merge(
        slots[panes["account"]], panes["time"], panes["narrow"], panes["wide"], panes["bits"], panes["hours"],
        level.size, level.view(),
    )  # fmt: skip


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
