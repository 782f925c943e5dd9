"""What a partition contributes to the campaign stage: one immutable blob for each step of event time.

A blob depends neither on how the stream was cut into polls nor on the order within a tick: see ``tally``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.arrays import Frozen, pack
from monitor.campaigns import opinions
from monitor.campaigns.blob import TABLES, VERSION, StepBlob, frames_of_bytes, frames_to_bytes, present
from monitor.campaigns.tally import Tally, added, expressions, of_events

KIND = "tally"
I64 = npt.NDArray[np.int64]

TICK_BITS = 60
"""Bits of the activity map: a step of ten minutes holds sixty ticks of ten seconds."""

_ROWS = 50_000
"""Rows that may wait unmerged, of 300 bytes; twice the last merge where that is more, so the work stays linear."""


class LinkCollector:
    """Sums closed ticks into the open step of each partition. ``sums`` gives, by name, what an event adds (Int32)."""

    def __init__(self, tick_ms: int, step_ms: int, sums: Mapping[str, pl.Expr]):
        self._step_ms = step_ms
        ticks_a_step = max(1, step_ms // tick_ms)
        self._ticks_a_step = ticks_a_step
        self._read = expressions(sums, ticks_a_step, -(-ticks_a_step // TICK_BITS))
        self._waiting: list[Tally] = []
        self._opinions: list[pl.DataFrame] = []

    def collect(self, events: pl.DataFrame) -> None:
        """Take the events of ticks that closed (EVENT_SCHEMA and ``tick``)."""
        if not len(events):
            return
        self._waiting.append(of_events(events, self._read))
        rows = sum(len(tally) for tally in self._waiting)
        if rows > max(_ROWS, 2 * len(self._waiting[0])):
            self._waiting = [added(self._waiting)]

    def judge(self, rows: pl.DataFrame) -> None:
        """Take what the classifier said (``subject``, ``partition``, ``tick``, ``opinions.READ``) of accounts whose
        events were collected and whose step is open."""
        if len(rows):
            self._opinions.append(opinions.of_rows(rows, self._ticks_a_step))

    def close(self, watermarks_ms: Mapping[int, int] | None = None) -> list[StepBlob]:
        """Blobs of the steps that end by each partition's watermark (None: of all), in order of step and partition."""
        done: list[Tally] = []
        rest: list[Tally] = []
        for tally in self._waiting:
            ended = self._ended(tally.where, watermarks_ms)
            if ended.any():
                done.append(tally if ended.all() else tally.take(ended))
            if not ended.all():
                rest.append(tally.take(~ended) if ended.any() else tally)
        if not done:
            return []
        self._waiting = rest
        closed = added(done).ordered()
        said = self._said()
        if len(said):
            self._opinions = [said.filter(pl.Series(~self._ended(said, watermarks_ms)))]
        return _blobs(closed, opinions.beside(closed.where, said))

    def dump(self, partition: int) -> bytes:
        """The open steps of a partition."""
        return self.freeze(partition)()

    def freeze(self, partition: int) -> Frozen:
        """What :meth:`dump` writes, as it is now: nobody changes a tally or a frame once it is made."""
        return partial(_packed, partition, tuple(self._waiting), self._said())

    @staticmethod
    def opened(blob: bytes) -> dict[str, pl.DataFrame]:
        """A dump, read: tables by name. Raises StateUnreadable."""
        return frames_of_bytes(blob, KIND)[0]

    def load(self, partition: int, dump: bytes | dict[str, pl.DataFrame]) -> None:
        """Take a dump over. Raises StateUnreadable."""
        self.drop(partition)
        if frames := self.opened(dump) if isinstance(dump, bytes) else dict(dump):
            self._opinions.append(frames.pop("opinions"))
            self._waiting.append(Tally.of_accounts(**frames))

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        left: list[Tally] = []
        for tally in self._waiting:
            others = tally.where["partition"].to_numpy() != partition
            # one that has nothing of it stays as it is: a restart drops each partition before it loads it
            left.append(tally if others.all() else tally.take(others))
        self._waiting = [tally for tally in left if len(tally)]
        self._opinions = [rows.filter(pl.col("partition") != partition) for rows in self._opinions]

    def _said(self) -> pl.DataFrame:
        """Opinions of the open steps, each account's last of a step."""
        if len(self._opinions) != 1:
            self._opinions = [opinions.latest(self._opinions)]
        return self._opinions[0]

    def _ended(self, where: pl.DataFrame, watermarks_ms: Mapping[int, int] | None) -> npt.NDArray[np.bool_]:
        if watermarks_ms is None:
            return np.ones(len(where), np.bool_)
        partition, ends = where["partition"].to_numpy(), (where["step"].to_numpy() + 1) * self._step_ms
        passed = np.full(int(partition.max()) + 1, -1, np.int64)
        for p, ms in watermarks_ms.items():
            if p < len(passed):
                passed[p] = ms
        return np.asarray(ends <= passed[partition])


def _packed(partition: int, waiting: Sequence[Tally], said: pl.DataFrame) -> bytes:
    mine = [t.take(t.where["partition"].to_numpy() == partition) for t in waiting]
    mine = [t for t in mine if len(t)]
    if not mine:
        return pack(KIND, VERSION, {}, None)
    whole = added(mine).ordered()
    frames = {"accounts": whole.accounts(), **{name: getattr(whole, name) for name in TABLES[1:]}}
    frames = {**present(frames), "opinions": said.filter(pl.col("partition") == partition)}
    return frames_to_bytes(frames, None, KIND)


def _blobs(tally: Tally, codes: pl.DataFrame) -> list[StepBlob]:
    """A blob for each step and partition of an ordered tally.

    All of them at once, then slices: eight small queries a blob were a fifth of a backtest of 2,000 quiet accounts.
    """
    step, partition = tally.where["step"].to_numpy(), tally.where["partition"].to_numpy()
    begins = np.flatnonzero(np.append(True, (step[1:] != step[:-1]) | (partition[1:] != partition[:-1])))
    edges = np.append(begins, len(tally))
    accounts = tally.accounts().drop("partition", "step", "key").hstack(codes)

    def by_row(table: pl.DataFrame) -> Iterator[pl.DataFrame]:
        row = table["row"].to_numpy()
        if not len(row):
            nothing = table.rename({"row": "account"})
            return iter([nothing] * len(begins))
        at = np.searchsorted(row, edges)
        within = row - np.repeat(edges[:-1], np.diff(at)).astype(np.uint32)
        renamed = table.with_columns(row=pl.Series(within)).rename({"row": "account"})
        return _slices(renamed, at)

    parts = zip(_slices(accounts, edges), *(by_row(getattr(tally, name)) for name in TABLES[1:]), strict=True)
    return [
        StepBlob(
            int(step[b]), int(partition[b]), *tables, made=(tally.totals[b:end], tally.sums[b:end]),
        )
        for b, end, tables in zip(begins, edges[1:], parts, strict=True)
    ]  # fmt: skip


def _slices(table: pl.DataFrame, edges: I64) -> Iterator[pl.DataFrame]:
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield table.slice(begin, end - begin)
