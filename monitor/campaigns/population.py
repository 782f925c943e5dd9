"""Everybody, as the campaign stage knows them: sums of recent and earlier requests, and the table of links.

Accounts stand in the order in which they were first seen (step, partition, id), so a row number is a function of
the blobs alone. All state is integers. Days are counted from the first step, never from midnight: no score may
depend on where on Earth it is morning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns import opinions, shapes
from monitor.campaigns.blob import StepBlob
from monitor.campaigns.items import Asked, renumbered
from monitor.campaigns.kinds import CODE, COHORT_MS
from monitor.campaigns.links import SCHEMA, merged, spliced
from monitor.campaigns.numbering import Numbers
from monitor.campaigns.sums import PLACE
from monitor.campaigns.tally import TOTALS

_T = TypeVar("_T", bound=np.generic)
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]

MODELS = 16
"""Models told apart; those that appear after fifteen others share the last column."""
PAST_SHIFT = 3
"""Each day an eighth of the past is let go: a half-life of five days."""

_AT_ONCE = 1 << 16
"""Accounts whose shapes are added up together: 30 MB of room."""
_EVER = 2**31 - 1
"""``last`` of a link that does not age: when an account was made."""

_WIDTH = len(PLACE)
_PAYMENT = CODE["payment"]


@dataclass(slots=True)
class Population:
    """See the module. ``step_ms``: length of a step; links live ``link_days`` of event time.

    ``today``, ``yesterday`` and ``past`` are int32 [accounts, PLACE], ``shape_today`` and ``shape_yesterday`` rows of
    :mod:`~monitor.campaigns.shapes`, ``opinion_today`` and ``opinion_yesterday`` rows of
    :mod:`~monitor.campaigns.opinions`, ``by_model`` today's requests [accounts, MODELS];
    bit i of ``asked`` says that an account ever asked for the i-th model.
    """

    step_ms: int
    link_days: float = 30.0
    names: list[str] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    exemplars: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    first_step: int = -1
    day: int = 0
    tenant: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    created_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    billing: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    first_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    last_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    totals: I64 = field(default_factory=lambda: np.zeros((0, len(TOTALS) + 1), np.int64))
    today: I32 = field(default_factory=lambda: np.zeros((0, _WIDTH), np.int32))
    yesterday: I32 = field(default_factory=lambda: np.zeros((0, _WIDTH), np.int32))
    past: I32 = field(default_factory=lambda: np.zeros((0, _WIDTH), np.int32))
    shape_today: U8 = field(default_factory=lambda: np.zeros((0, shapes.WIDTH), np.uint8))
    shape_yesterday: U8 = field(default_factory=lambda: np.zeros((0, shapes.WIDTH), np.uint8))
    opinion_today: U8 = field(default_factory=lambda: np.zeros((0, opinions.WIDTH), np.uint8))
    opinion_yesterday: U8 = field(default_factory=lambda: np.zeros((0, opinions.WIDTH), np.uint8))
    by_model: I32 = field(default_factory=lambda: np.zeros((0, MODELS), np.int32))
    asked: U16 = field(default_factory=lambda: np.zeros(0, np.uint16))
    links: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCHEMA))
    fresh_links: list[pl.DataFrame] = field(default_factory=list)
    fresh_rows: int = 0
    newest: int = -1
    corpora: Asked = field(default_factory=Asked)
    numbers: Numbers | None = None
    """Of the values of ``links`` since the last :meth:`compact`; made anew after a restart."""
    _paid: npt.NDArray[np.bool_] | None = None
    """Made when it is asked for; None after links came or went."""
    _index: dict[str, int] = field(default_factory=dict)
    _tenant_index: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def texts(self) -> I64:
        """Requests with text of each account since it was first seen."""
        return self.totals[: len(self), len(TOTALS)]

    def shape_of(self, rows: I64) -> I64:
        """Sums of ``SHAPE`` of accounts over one to two days: [rows, SHAPE]."""
        # of whole rows `take` copies twice as many in the same time
        today, yesterday = (np.take(rows_of, rows, axis=0) for rows_of in (self.shape_today, self.shape_yesterday))
        return shapes.read(today) + shapes.read(yesterday)

    def opinion_of(self, rows: I64) -> npt.NDArray[np.float64]:
        """The classifier's mean opinion of accounts over one to two days: [rows, HYPOTHESES], NaN for none."""
        return opinions.mean([np.take(said, rows, axis=0) for said in (self.opinion_today, self.opinion_yesterday)])

    def paid(self, rows: I64) -> npt.NDArray[np.bool_]:
        """Whether accounts brought a means of payment, as long as links live."""
        if self._paid is None:
            self._paid = np.zeros(len(self), np.bool_)
            for part in (self.links, *self.fresh_links):
                of_payment = part["kind"].to_numpy() == _PAYMENT
                self._paid[part["account"].to_numpy()[of_payment]] = True
        return self._paid[rows]

    def add(self, step: int, blobs: Iterable[StepBlob]) -> list[I64]:
        """Take a step's blobs, in order of partition; returns the rows of the accounts in each."""
        self._roll(step)
        self.newest, self._paid = step, None
        out: list[I64] = []
        for of_step, group in groupby(blobs, lambda blob: blob.step):
            out += self._add_all(of_step, list(group))
        return out

    def model_column(self, model: str) -> int:
        """Which of the MODELS columns counts a model."""
        return min(self.models.index(model), MODELS - 1)

    def models_of(self, rows: I64) -> list[str]:
        """Models that some of these accounts asked for, by name; of those beyond the fifteenth none is named."""
        asked = int(np.bitwise_or.reduce(self.asked[rows]))
        return sorted(m for i, m in enumerate(self.models[: MODELS - 1]) if asked >> i & 1)

    def reindex(self) -> None:
        """Make the look-up tables anew from the names."""
        self._index = {name: i for i, name in enumerate(self.names)}
        self._tenant_index = {name: i for i, name in enumerate(self.tenants)}

    def compact(self, step: int) -> None:
        """Bring the table of links up to date and drop what is older than a link's life."""
        oldest = step - int(self.link_days * 86_400_000 / self.step_ms)
        before, self.numbers, self._paid = self.numbers, None, None
        # handed over, and held on to by nobody here: a third of the peak
        self.links, how = spliced(self._links_let_go(), self._fresh_let_go(), oldest)
        self.numbers = before.after(how, self.links) if before is not None else Numbers.of(self.links)

    def _links_let_go(self) -> pl.DataFrame:
        links, self.links = self.links, self.links.clear()
        return links

    def _fresh_let_go(self) -> list[pl.DataFrame]:
        fresh, self.fresh_links, self.fresh_rows = self.fresh_links, [], 0
        return fresh

    def row_of(self, account: str) -> int:
        """Row of an account that is known."""
        return self._index[account]

    def holding(self, rows: I64, values: pl.Series) -> I64:
        """Those of ``rows`` that brought one of ``values`` in the newest step."""
        newest = [part for part in self.fresh_links if part["first"][0] == self.newest]
        if not newest:
            return rows[:0]
        links = pl.concat(newest)
        account = links["account"].to_numpy()[links["value"].is_in(values.implode()).to_numpy()]
        return np.intersect1d(rows, account)

    def links_of(self, rows: I64) -> pl.DataFrame:
        """All links of some accounts, those since the last :meth:`compact` among them."""
        chosen = np.zeros(len(self.names), np.bool_)
        chosen[rows] = True
        table, *fresh = (
            part[np.flatnonzero(chosen[part["account"].to_numpy()])] for part in (self.links, *self.fresh_links)
        )
        return merged(table, fresh)

    def _add_all(self, step: int, blobs: Sequence[StepBlob]) -> list[I64]:
        """Blobs of one step, all at once: polars asks half a millisecond for each small query."""
        rows = self._rows(_strings(blobs, "account"), _strings(blobs, "tenant"))
        parts = np.split(rows, np.cumsum([len(blob.accounts) for blob in blobs])[:-1])
        if len(blobs) > 1 and len({*rows.tolist()}) < len(rows):
            # an account in two partitions: the topic was keyed by something else once
            return [self._add_all(step, [blob])[0] for blob in blobs]
        totals, held = _joined([blob.totals() for blob in blobs]), _joined([blob.held() for blob in blobs])
        self.today[rows, 0] += totals[:, 0].astype(np.int32)
        self.today[rows, 1:] += held
        self.totals[rows, :-1] += totals
        self.totals[rows, -1] += held[:, PLACE["n_text"] - 1]
        del totals, held
        shape = _joined([blob.shape() for blob in blobs])
        some = np.flatnonzero(shape[:, 0])
        for begin in range(0, len(some), _AT_ONCE):
            part = some[begin : begin + _AT_ONCE]
            self.shape_today[rows[part]] = shapes.added(self.shape_today[rows[part]], shape[part])
        del shape
        codes = _joined([blob.opinions() for blob in blobs])
        some = np.flatnonzero(codes.any(axis=1))
        self.opinion_today[rows[some]] = opinions.added(self.opinion_today[rows[some]], codes[some])
        self._models(blobs, parts)
        created = _known(blobs, "created_ms", -1)
        told = np.flatnonzero((created >= 0) & (self.created_ms[rows] < 0))
        self.created_ms[rows[told]] = created[told]
        if len(told):
            self._cohorts(rows[told], step)
        self.billing[rows] = np.maximum(self.billing[rows], _known(blobs, "billing", 0))
        first = _known(blobs, "first_ms", 0)
        self.first_ms[rows] = np.where(self.first_ms[rows] < 0, first, np.minimum(self.first_ms[rows], first))
        self.last_ms[rows] = np.maximum(self.last_ms[rows], _known(blobs, "last_ms", 0))
        for row, exemplar in zip(rows.tolist(), _strings(blobs, "exemplar"), strict=True):
            self.exemplars[row] = exemplar
        for blob, part in zip(blobs, parts, strict=True):
            if len(blob.looked):
                self.corpora.add(*(renumbered(t.rename({"account": "row"}), part) for t in (blob.items, blob.looked)))
        self._freshen(step, [(blob.links, part) for blob, part in zip(blobs, parts, strict=True) if len(blob.links)])
        return parts

    def _models(self, blobs: Sequence[StepBlob], rows: Sequence[I64]) -> None:
        """Requests by model; ``rows`` are the accounts of each blob."""
        names = [blob.models.get_column("model").to_list() for blob in blobs]
        code = {name: self._model(name) for name in sorted(set().union(*names))}
        for blob, mine, asked in zip(blobs, rows, names, strict=True):
            column = np.array([code[name] for name in asked], np.int64)
            at = mine[blob.models.get_column("account").to_numpy()]
            np.add.at(self.by_model, (at, column), blob.models.get_column("count").to_numpy())
            np.bitwise_or.at(self.asked, at, (1 << column).astype(np.uint16))

    def _freshen(self, step: int, links: Sequence[tuple[pl.DataFrame, I64]]) -> None:
        """Links of this step (account, kind, value, count), each with the rows of its accounts."""
        if not links:
            return
        account = np.concatenate([rows[table.get_column("account").to_numpy()] for table, rows in links])
        kind, value, count = (
            np.concatenate([table.get_column(c).to_numpy() for table, _ in links]) for c in ("kind", "value", "count")
        )
        at = np.full(len(account), step, np.int32)
        self.fresh_links.append(
            pl.DataFrame(
                {"account": account.astype(np.uint32), "kind": kind, "value": value, "count": count.astype(np.int64),
                 "first": at, "last": at},
                schema=SCHEMA,
            )
        )  # fmt: skip
        self.fresh_rows += len(account)

    def _cohorts(self, rows: I64, step: int) -> None:
        """Links of creation, on two grids that begin with the first step."""
        since = self.created_ms[rows] - self.first_step * self.step_ms
        cohort = np.concatenate([(since + g * COHORT_MS // 2) // COHORT_MS * 2 + g for g in (0, 1)])
        # arrays throughout: polars makes a scalar a column by a query of its own, 0.5 ms each
        columns = {"kind": CODE["creation_cohort"], "count": 0, "first": step, "last": _EVER}
        made = {"account": np.tile(rows, 2).astype(np.uint32), "value": cohort.view(np.uint64)}
        made |= {name: np.full(len(cohort), value, np.int64) for name, value in columns.items()}
        self.fresh_links.append(pl.DataFrame({name: made[name] for name in SCHEMA}, schema=SCHEMA))
        self.fresh_rows += len(rows)  # one fact each, though on two grids

    def cohort_ms(self, value: int) -> int:
        """When a cohort begins, epoch milliseconds; ``value`` is that of its link. It lasts :data:`COHORT_MS`."""
        number, grid = divmod(value - (1 << 64) if value >> 63 else value, 2)
        return number * COHORT_MS - grid * COHORT_MS // 2 + self.first_step * self.step_ms

    def _rows(self, names: Sequence[str], tenants: Sequence[str]) -> I64:
        """Rows of accounts, new ones at the end; each now belongs to the tenant beside it."""
        known = len(self._index)
        rows = _numbers(self._index, self.names, names)
        # most are a tenant by themselves: one string, not two
        tenants = [name if name == tenant else tenant for name, tenant in zip(names, tenants, strict=True)]
        self.exemplars += [""] * (len(self.names) - known)
        if len(self.names) > len(self.tenant):
            self._grow(known)
        self.created_ms[known : len(self.names)] = self.first_ms[known : len(self.names)] = -1
        self.tenant[rows] = _numbers(self._tenant_index, self.tenants, tenants)
        return rows

    def _model(self, name: str) -> int:
        if name not in self.models:
            self.models.append(name)
        return min(self.models.index(name), MODELS - 1)

    def _grow(self, known: int) -> None:
        """Room for all names, ``known`` of which have rows: a power of two."""
        size = 1024
        while size < len(self.names):
            size *= 2
        for name in ARRAYS:
            array = getattr(self, name)
            # pages of zeros that nobody wrote take no memory: only what is known is copied
            grown = np.zeros((size, *array.shape[1:]), array.dtype)
            grown[:known] = array[:known]
            setattr(self, name, grown)

    def _roll(self, step: int) -> None:
        """Days that ended: yesterday becomes the past, today yesterday."""
        if self.first_step < 0:
            self.first_step = step
        day = (step - self.first_step) * self.step_ms // 86_400_000
        for _ in range(min(day - self.day, 64)):
            self.past -= self.past >> PAST_SHIFT
            self.past += self.yesterday
            self.yesterday = self.today
            self.corpora.roll()
            self.shape_yesterday, self.shape_today = self.shape_today, np.zeros(self.shape_today.shape, np.uint8)
            self.opinion_yesterday = self.opinion_today
            self.opinion_today = np.zeros(self.opinion_today.shape, np.uint8)
            self.today, self.by_model = np.zeros(self.today.shape, np.int32), np.zeros(self.by_model.shape, np.int32)
        self.day = max(self.day, day)


def _numbers(index: dict[str, int], known: list[str], names: Sequence[str]) -> I64:
    """Number of each name; new ones are put into ``index`` and ``known``, in the order in which they come."""
    before = len(known)
    numbers = [index.setdefault(name, len(index)) for name in names]
    if len(index) > before:
        known += dict.fromkeys(name for name, number in zip(names, numbers, strict=True) if number >= before)
    return np.array(numbers, np.int64)


def _joined(parts: Sequence[npt.NDArray[_T]]) -> npt.NDArray[_T]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _strings(blobs: Sequence[StepBlob], name: str) -> list[str]:
    return [value for blob in blobs for value in blob.accounts.get_column(name).to_list()]


def _known(blobs: Sequence[StepBlob], name: str, unknown: int) -> I64:
    """Whole numbers under 2**53 of all blobs' accounts, ``unknown`` where there is none."""
    parts = []
    for blob in blobs:
        column = blob.accounts.get_column(name)
        values = column.to_numpy()
        parts.append(np.where(np.isnan(values), unknown, values) if column.null_count() else values)
    return np.concatenate(parts).astype(np.int64)


ARRAYS = (
    "tenant", "created_ms", "billing", "first_ms", "last_ms", "totals", "today", "yesterday", "past", "by_model",
    "asked", "shape_today", "shape_yesterday", "opinion_today", "opinion_yesterday",
)  # fmt: skip
