"""Accounts by step, with what they did and their links: added up from events, and from one another.

Everything is a set, a sum of integers, a minimum, a maximum or a union of bits, so any grouping of the same events
comes to the same. Accounts are rows of arrays and links name the row: grouping links by the account's name took ten
times as long (28 of 105 microseconds of processor time a request).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.items import ITEMS, LOOKED, merged, none_of, of_prompts, renumbered, totalled
from monitor.campaigns.kernels import counted, folded, number, table_bits
from monitor.campaigns.kinds import KINDS, TEMPLATES
from monitor.campaigns.links import in_order
from monitor.campaigns.sums import NAMES

_T = TypeVar("_T", bound=np.generic)
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

TOTALS = ("requests", "input_tokens", "output_tokens", "reasoning_tokens", "cost_microusd")
TEMPLATES_A_STEP, VALUES_A_STEP = 24, 16
"""Values of a kind kept of an account and step, those with the smallest keyed hash: an account that rotates through
addresses must not fill the blob. All accounts keep by one rule, so a value that two share is kept in both or in
neither (coordinated sampling, Cohen and Kaplan 2007)."""
_LIMIT = np.array([TEMPLATES_A_STEP if code in TEMPLATES else VALUES_A_STEP for code in range(len(KINDS))], np.int64)
_NEVER = np.iinfo(np.int64).max

LINKS = {"row": pl.UInt32(), "kind": pl.UInt8(), "value": pl.UInt64(), "count": pl.Int32()}
MODELS = {"row": pl.UInt32(), "model": pl.String(), "count": pl.Int32()}
_LINK = ("row", "kind", "value")
_INTS = ("partition", "step")
_STRINGS = ("account", "tenant", "exemplar")
_LOW = ("created_ms", "first_ms")
_HIGH = ("billing", "last_ms")


@dataclass(frozen=True, slots=True)
class Tally:
    """One row of ``where`` (partition, step, account, tenant, exemplar) an account and step, and the arrays of the
    same rows: ``low`` int64 [rows, 2] (created_ms, first_ms; the largest integer: unknown), ``high`` (billing, -1:
    unknown; last_ms), ``bits`` the ticks with a request, ``key`` of the exemplar, ``totals`` int64 [rows, TOTALS],
    ``sums`` int32 [rows, NAMES]. The ``row`` of ``links``, ``models``, ``items`` and ``looked`` is of ``where``; the
    last two are empty where no corpus is known."""

    where: pl.DataFrame
    low: I64
    high: I64
    bits: U64
    key: U64
    totals: I64
    sums: I32
    links: pl.DataFrame
    models: pl.DataFrame
    items: pl.DataFrame = field(default_factory=lambda: none_of(ITEMS))
    looked: pl.DataFrame = field(default_factory=lambda: none_of(LOOKED))

    def __len__(self) -> int:
        return len(self.where)

    def accounts(self) -> pl.DataFrame:
        """The rows as one frame: what a blob says of each account, and partition, step and ``key``."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "created_ms": self.low[:, 0], "billing": self.high[:, 0], "first_ms": self.low[:, 1],
            "last_ms": self.high[:, 1], "ticks": self.bits, "key": self.key,
            **{name: self.totals[:, i] for i, name in enumerate(TOTALS)},
            **{name: self.sums[:, i] for i, name in enumerate(NAMES)},
        }  # fmt: skip
        made = pl.DataFrame(arrays).with_columns(
            created_ms=pl.when(pl.col("created_ms") != _NEVER).then("created_ms"),
            billing=pl.when(pl.col("billing") >= 0).then("billing").cast(pl.UInt8),
        )
        where = self.where
        ends = made.width - len(TOTALS) - len(NAMES)
        columns = made.get_columns()
        named = where.select(*_INTS, "account", "tenant").get_columns()
        return pl.DataFrame([*named, *columns[: ends - 1], where["exemplar"], *columns[ends - 1 :]])

    @staticmethod
    def of_accounts(accounts: pl.DataFrame, **tables: pl.DataFrame) -> Tally:
        """The reverse of :meth:`accounts`; ``tables`` are ``links``, ``models``, ``items`` and ``looked``."""
        filled = accounts.with_columns(
            pl.col("created_ms").fill_null(_NEVER), pl.col("billing").cast(pl.Int64).fill_null(-1)
        )
        return _tally(filled, **tables)

    def take(self, kept: npt.NDArray[np.bool_]) -> Tally:
        """Some of the rows, with their links and models."""
        new = np.cumsum(kept) - 1

        def follow(table: pl.DataFrame) -> pl.DataFrame:
            if not len(table):
                return table
            return renumbered(table.filter(pl.Series(kept[table["row"].to_numpy()])), new)

        return Tally(
            self.where.filter(pl.Series(kept)), self.low[kept], self.high[kept], self.bits[kept], self.key[kept],
            self.totals[kept], self.sums[kept], follow(self.links), follow(self.models), follow(self.items),
            follow(self.looked),
        )  # fmt: skip

    def ordered(self) -> Tally:
        """Rows by step, partition and account; links and models by row."""
        order = self.where.with_row_index("old").sort("step", "partition", "account")["old"].to_numpy()
        new = np.empty(len(order), np.uint32)
        new[order] = np.arange(len(order), dtype=np.uint32)

        def follow(table: pl.DataFrame, *by: str) -> pl.DataFrame:
            return renumbered(table, new).sort("row", *by) if len(table) else table

        links = renumbered(self.links, new)
        return Tally(
            self.where[order], self.low[order], self.high[order], self.bits[order], self.key[order],
            self.totals[order], self.sums[order], links[in_order(*(links[c].to_numpy() for c in _LINK))],
            follow(self.models, "model"), follow(self.items, "item"), follow(self.looked),
        )  # fmt: skip


def _tally(accounts: pl.DataFrame, **tables: pl.DataFrame) -> Tally:
    return Tally(
        accounts.select(*_INTS, *_STRINGS), rows_of(accounts, _LOW, np.int64), rows_of(accounts, _HIGH, np.int64),
        accounts["ticks"].to_numpy(), accounts["key"].to_numpy(), rows_of(accounts, TOTALS, np.int64),
        rows_of(accounts, NAMES, np.int32), **tables,
    )  # fmt: skip


def expressions(sums: Mapping[str, pl.Expr], ticks_a_step: int, ticks_a_bit: int) -> dict[str, pl.Expr]:
    """What :func:`of_events` reads of an event, by name, links as ``_<code of their kind>``; ``sums`` gives what each
    adds (Int32). Made once: putting it together took a third of the time of a short batch."""
    bit = (pl.col("tick") % ticks_a_step // ticks_a_bit).cast(pl.UInt64)
    columns = {code: kind.column for code, kind in enumerate(KINDS) if kind.column and kind.column != "blobs"}
    made = {
        "partition": pl.col("partition"), "step": pl.col("tick") // ticks_a_step, "account": pl.col("account_id"),
        "tenant": pl.coalesce("org_id", "billing_account_id", "account_id"), "exemplar": pl.col("request_id"),
        "created_ms": pl.col("account_created_ms").fill_null(_NEVER), "first_ms": pl.col("t_ms"),
        "billing": pl.col("billing_type").cast(pl.Int64).fill_null(-1), "last_ms": pl.col("t_ms"),
        "ticks": pl.lit(2, pl.UInt64).pow(bit).cast(pl.UInt64), "key": pl.col("request_key").fill_null(0),
        "model": pl.col("model"), "requests": pl.lit(1, pl.Int64),
        **{name: pl.col(name).fill_null(0) for name in TOTALS[1:]},
        **{name: what.fill_null(0) for name, what in sums.items()},
        **{f"_{code}": pl.col(column).fill_null(0) for code, column in columns.items()},
    }  # fmt: skip
    return {name: what.alias(name) for name, what in made.items()}


def of_events(events: pl.DataFrame, read: Mapping[str, pl.Expr]) -> Tally:
    """What closed events (EVENT_SCHEMA and ``tick``) add, by :func:`expressions`."""
    columns = {code: kind.column for code, kind in enumerate(KINDS) if kind.column and kind.column != "blobs"}
    known = {code: column for code, column in columns.items() if events[column].null_count() < len(events)}
    unread = {f"_{code}" for code in columns.keys() - known.keys()}
    made = events.select(what for name, what in read.items() if name not in unread)
    row = np.arange(len(events), dtype=np.uint32)
    links = [(row, np.full(len(row), code, np.uint8), made[f"_{code}"].to_numpy()) for code in known]
    for code, kind in enumerate(KINDS):
        if kind.column == "blobs" and events["blobs"].null_count() < len(events):
            blobs = pl.DataFrame({"row": row, "value": events["blobs"]}).explode("value").drop_nulls("value")
            links.append((blobs["row"].to_numpy(), np.full(len(blobs), code, np.uint8), blobs["value"].to_numpy()))
    of, kinds, values = (np.concatenate(parts) for parts in zip(*links, strict=True)) if links else _NOTHING
    told = values != 0
    items, looked = of_prompts(events)
    each = _tally(
        made,
        links=pl.DataFrame({"row": of[told], "kind": kinds[told], "value": values[told], "count": 1}, schema=LINKS),
        models=pl.DataFrame({"row": row, "model": made["model"], "count": 1}, schema=MODELS),
        items=items, looked=looked,
    )  # fmt: skip
    return added([each])


def added(parts: Sequence[Tally]) -> Tally:
    """Several tallies as one: each account and step once."""
    where = pl.concat([p.where for p in parts])
    low, high = np.concatenate([p.low for p in parts]), np.concatenate([p.high for p in parts])
    bits, key = np.concatenate([p.bits for p in parts]), np.concatenate([p.key for p in parts])
    totals, sums = np.concatenate([p.totals for p in parts]), np.concatenate([p.sums for p in parts])
    place = (where["step"].to_numpy() << 20 | where["partition"].to_numpy()).astype(np.uint64)
    ids, first = number(place, _codes(where["account"]), table_bits(len(where)))
    low, high, bits, best, totals, sums = folded(ids, len(first), low, high, bits, key, totals, sums)
    begins = np.cumsum([0, *(len(p) for p in parts[:-1])])
    at = [ids[b : b + len(p)] for p, b in zip(parts, begins, strict=True)]
    return Tally(
        _strings(where, ids, first, best, key), low, high, bits, key[best], totals, sums,
        _links(ids, [(p.links, b) for p, b in zip(parts, begins, strict=True)]),
        _models(ids, [(p.models, b) for p, b in zip(parts, begins, strict=True)]),
        merged(renumbered(p.items, a) for p, a in zip(parts, at, strict=True)),
        totalled(renumbered(p.looked, a) for p, a in zip(parts, at, strict=True)),
    )  # fmt: skip


def _strings(where: pl.DataFrame, ids: I32, first: I64, best: I64, key: U64) -> pl.DataFrame:
    """Place, name, smallest tenant and exemplar of each group."""
    out = where.select("partition", "step", "account", "tenant")[first]
    tenants = _codes(where["tenant"])
    mixed = np.unique(ids[tenants != tenants[first][ids]])
    exemplars = where["exemplar"][best]
    # by far most accounts have one tenant and no two requests of one key
    tied = np.unique(ids[(key == key[best][ids]) & (np.arange(len(ids)) != best[ids])])
    if len(mixed) or len(tied):
        rows = where.with_columns(id=pl.Series(ids), smallest=pl.Series(key == key[best][ids]))
        chosen = rows.filter(pl.col("id").is_in(pl.Series(np.union1d(mixed, tied)).implode()))
        least = chosen.group_by("id").agg(pl.col("tenant").min(), pl.col("exemplar").filter("smallest").min())
        at = least["id"].to_numpy()
        out = out.with_columns(tenant=out["tenant"].scatter(at, least["tenant"]))
        exemplars = exemplars.scatter(at, least["exemplar"])
    return out.with_columns(exemplar=exemplars)


def _links(ids: I32, parts: Sequence[tuple[pl.DataFrame, int]]) -> pl.DataFrame:
    """Links by the new rows, each once, no more of a kind and account than are kept."""
    row = np.concatenate([ids[table["row"].to_numpy() + begin] for table, begin in parts]).astype(np.uint64)
    kind, value, count = (np.concatenate([t[c].to_numpy() for t, _ in parts]) for c in ("kind", "value", "count"))
    who = row << np.uint64(8) | kind
    same, first = number(who, value, table_bits(len(value)))
    who, value, count = who[first], value[first], counted(same, len(first), count)
    code = (who & np.uint64(255)).astype(np.int64)
    place = (who >> np.uint64(8)).astype(np.int64) * len(KINDS) + code
    # of the few that have too many: to sort all by value was two thirds of the time here
    over = np.flatnonzero(np.bincount(place)[place] > _LIMIT[code]) if len(place) else place
    if len(over):
        over = over[np.lexsort((value[over], place[over]))]
        begin = np.flatnonzero(np.append(True, place[over[1:]] != place[over[:-1]]))
        rank = np.arange(len(over)) - np.repeat(begin, np.diff(np.append(begin, len(over))))
        kept = np.ones(len(who), np.bool_)
        kept[over] = rank < _LIMIT[code[over]]
        who, value, count = who[kept], value[kept], count[kept]
    return pl.DataFrame(
        {"row": (who >> np.uint64(8)).astype(np.uint32), "kind": (who & np.uint64(255)).astype(np.uint8),
         "value": value, "count": count}, schema=LINKS,
    )  # fmt: skip


def _models(ids: I32, parts: Sequence[tuple[pl.DataFrame, int]]) -> pl.DataFrame:
    row = np.concatenate([ids[table["row"].to_numpy() + begin] for table, begin in parts]).astype(np.uint64)
    model = pl.concat([table["model"] for table, _ in parts])
    count = np.concatenate([table["count"].to_numpy() for table, _ in parts])
    same, first = number(row, _codes(model), table_bits(len(row)))
    return pl.DataFrame(
        {"row": row[first].astype(np.uint32), "model": model[first], "count": counted(same, len(first), count)},
        schema=MODELS,
    )


def _codes(names: pl.Series) -> U64:
    """A number for each different string (null is one of them)."""
    hashes = names.hash().to_numpy()
    codes, first = number(hashes, np.zeros_like(hashes), table_bits(len(hashes)))
    if (names[first][codes].eq_missing(names)).all():
        return codes.astype(np.uint64)
    index: dict[str | None, int] = {}  # two strings of one hash
    return np.array([index.setdefault(name, len(index)) for name in names.to_list()], np.uint64)


def rows_of(frame: pl.DataFrame, names: Sequence[str], dtype: type[_T]) -> npt.NDArray[_T]:
    """Columns as [rows, names], by row in memory."""
    out = np.empty((len(frame), len(names)), dtype)
    for i, name in enumerate(names):
        out[:, i] = frame.get_column(name).to_numpy()
    return out


_NOTHING = (np.zeros(0, np.uint32), np.zeros(0, np.uint8), np.zeros(0, np.uint64))
