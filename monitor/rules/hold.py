"""Remembers since when each rule has been true of each account, for rules with ``for``. Knows no conditions.

A rule holds from the first of a run of rows on which it was true, and fires on every row of that run that lies
``for`` or more after the first, in event time. A row on which it is false or unknown ends the run, and so does
a silence of over a week (the longest window, after which nothing known about the account is current).
Time is the tick, because late events fold into an open tick with an older time of their own, while ticks of
an account only ever grow: that makes the result the same however the rows are cut into frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from ..errors import MonitorError

SILENCE_MS = 7 * 86_400_000
"""A run does not span a longer gap than this; entries that old are dropped, which changes nothing."""

_VERSION = 1
_KEY = ["partition", "subject"]
_RUNS = {"rule": pl.String(), "partition": pl.Int32(), "subject": pl.String(), "since": pl.Int64(), "last": pl.Int64()}
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class _Runs(msgspec.Struct, array_like=True):
    subjects: list[str]
    since: list[int]
    last: list[int]


class _Blob(msgspec.Struct):
    version: int
    tick_ms: int
    runs: dict[str, _Runs]


@dataclass(frozen=True, slots=True)
class Held:
    """What one rule with ``for`` gives: ``condition`` bool [rows] (unknown: false) and the duration in ms."""

    condition: Bools
    for_ms: int


class HoldState:
    """Open runs by rule and account, of every partition that this process holds. ``tick_s`` is a tick's length."""

    def __init__(self, tick_s: float = 10.0):
        self._tick_ms = round(tick_s * 1000)
        self._runs = pl.DataFrame(schema=_RUNS)
        self._clock: dict[int, int] = {}

    def __len__(self) -> int:
        return self._runs.height

    def advance(self, rows: pl.DataFrame, rules: Mapping[str, Held]) -> dict[str, Ints]:
        """Take in ``rows`` (partition, subject, tick; any order) and give the indexes on which each rule fires.

        Rows of a frame must be later than those of the frames before, account by account. Runs of rules that
        are not in ``rules`` are forgotten: their text changed.
        """
        if self._runs.height:
            self._runs = self._runs.filter(pl.col("rule").is_in(list(rules)))
        if rows.is_empty() or not (self._runs.height or any(h.condition.any() for h in rules.values())):
            self._tell_time(rows)
            return {key: np.empty(0, np.int64) for key in rules}
        # Whoever has no run and meets no condition changes nothing: most rows of most ticks.
        met = np.logical_or.reduce([held.condition for held in rules.values()])
        some = pl.concat([rows.select(_KEY).filter(pl.Series(met)), self._runs.select(_KEY)])
        accounts = some.unique(maintain_order=True).with_row_index("account")
        number = rows.select(_KEY).join(accounts, on=_KEY, how="left", maintain_order="left")["account"]
        concerned = number.is_not_null().arg_true().to_numpy()
        if not len(concerned):
            self._tell_time(rows)
            return {key: np.empty(0, np.int64) for key in rules}
        account = number.drop_nulls().to_numpy()
        tick = rows["tick"].to_numpy()[concerned].astype(np.int64)
        order = np.lexsort((tick, account))
        account, tick = account[order].astype(np.int64), tick[order]
        order = concerned[order]
        first = np.append(True, account[1:] != account[:-1])
        last = np.append(first[1:], True)
        seen = np.zeros(accounts.height, np.bool_)
        seen[account] = True
        prior = self._runs.join(accounts, on=_KEY, how="left", maintain_order="left")
        here = seen[prior["account"].to_numpy()]
        code = {key: index for index, key in enumerate(rules)}
        codes = prior["rule"].replace_strict(code, return_dtype=pl.Int64).to_numpy()
        at, since_then, last_then = (prior[c].to_numpy() for c in ("account", "since", "last"))
        fired: dict[str, Ints] = {}
        opened: list[tuple[Ints, Ints, Ints, Ints]] = []
        for key, held in rules.items():
            condition = held.condition[order]
            known = np.flatnonzero(here & (codes == code[key]))
            if not condition.any():
                fired[key] = np.empty(0, np.int64)
                continue
            runs = np.zeros((2, accounts.height), np.int64), np.zeros(accounts.height, np.bool_)
            runs[0][:, at[known]], runs[1][at[known]] = (since_then[known], last_then[known]), True
            since = self._since(account, tick, condition, first, *runs)
            long_enough = condition & ((tick - since) * self._tick_ms >= held.for_ms)
            fired[key] = np.sort(order[long_enough]).astype(np.int64)
            open_at = np.flatnonzero(condition & last)
            opened.append((np.full(len(open_at), code[key]), account[open_at], since[open_at], tick[open_at]))
        self._runs = pl.concat([prior.filter(pl.Series(~here)).select([*_RUNS]),
                                _runs_of(opened, accounts, list(rules))])  # fmt: skip
        self._tell_time(rows)
        return fired

    def _since(self, account: Ints, tick: Ints, condition: Bools, first: Bools, prior: Ints, had: Bools) -> Ints:
        """First tick of the run that each row belongs to; meaningless where ``condition`` is false.

        ``prior`` holds first and last tick of the run that each account came with, where it ``had`` one.
        """
        was_true = np.where(first, had[account], np.append(False, condition[:-1]))
        was_at = np.where(first, prior[1, account], np.append(0, tick[:-1]))
        goes_on = was_true & ((tick - was_at) * self._tick_ms <= SILENCE_MS)
        mark = condition & (first | ~goes_on)
        begin = np.where(first & goes_on, prior[0, account], tick)
        latest = np.maximum.accumulate(np.where(mark, np.arange(len(tick)), 0))
        result: Ints = begin[latest]
        return result

    def _tell_time(self, rows: pl.DataFrame) -> None:
        of, ticks = rows["partition"].to_numpy(), rows["tick"].to_numpy()
        for partition in np.unique(of).tolist():
            tick = int(ticks[of == partition].max())
            self._clock[partition] = max(tick, self._clock.get(partition, tick))
        if self._runs.height:
            clock = pl.col("partition").replace_strict(self._clock, default=None, return_dtype=pl.Int64)
            age = (clock - pl.col("last")) * self._tick_ms
            self._runs = self._runs.filter((age <= SILENCE_MS).fill_null(True))

    def dump(self, partition: int) -> bytes:
        """The partition's runs, in an order of their own: equal state gives equal bytes."""
        mine = self._runs.filter(pl.col("partition") == partition).sort("rule", "subject")
        runs = {
            str(rule): _Runs(part["subject"].to_list(), part["since"].to_list(), part["last"].to_list())
            for (rule,), part in mine.group_by("rule", maintain_order=True)
        }
        return msgspec.msgpack.encode(_Blob(_VERSION, self._tick_ms, runs))

    def load(self, partition: int, blob: bytes) -> None:
        """Put the partition's runs back. Raises :class:`MonitorError` where the blob is of another version or tick."""
        try:
            read = msgspec.msgpack.decode(blob, type=_Blob)
        except msgspec.MsgspecError:
            raise MonitorError(f"rule state of partition {partition} is damaged: restore its checkpoint") from None
        if read.version != _VERSION or read.tick_ms != self._tick_ms:
            raise MonitorError(
                f"rule state of partition {partition} is version {read.version} with ticks of {read.tick_ms} ms, this "
                f"is version {_VERSION} with {self._tick_ms} ms: set features.tick_s back, or start from an empty state"
            )
        self.drop(partition)
        frames = [
            pl.DataFrame(
                {"rule": [rule] * len(r.subjects), "partition": [partition] * len(r.subjects),
                 "subject": r.subjects, "since": r.since, "last": r.last}, schema=_RUNS,
            )
            for rule, r in read.runs.items()
        ]  # fmt: skip
        self._runs = pl.concat([self._runs, *frames])

    def drop(self, partition: int) -> None:
        """Forget a partition that another process owns now."""
        self._runs = self._runs.filter(pl.col("partition") != partition)
        self._clock.pop(partition, None)


def _runs_of(opened: list[tuple[Ints, Ints, Ints, Ints]], accounts: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Rows of the state for the runs that are open on the last row of an account."""
    if not opened:
        return pl.DataFrame(schema=_RUNS)
    code, account, since, last = (np.concatenate(column) for column in zip(*opened, strict=True))
    whose = accounts[account]
    return pl.DataFrame(
        {"rule": pl.Series(keys, dtype=pl.String).gather(code), "partition": whose["partition"],
         "subject": whose["subject"], "since": since, "last": last}, schema=_RUNS,
    )  # fmt: skip
