"""Which items of known corpora accounts asked: a bounded sample of each account that adds up exactly.

Of an account the :data:`MOST` items with the smallest keyed hash are kept (KMV, Bar-Yossef et al. 2002). What is kept
of a union is made of what was kept of its parts, counts and models too: neither batches nor steps nor days change it.
All accounts keep by one rule: below the smallest bound of some accounts everything that they asked is there, shared
items too. The items are hashes under the corpus key; who lacks it can try no prompt against them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt
import polars as pl

I64 = npt.NDArray[np.int64]

MOST = 32
"""Items kept of an account, in a step and over two days: an estimate of more is a sixth wrong."""
ITEMS: Mapping[str, pl.DataType] = {
    "row": pl.UInt32(), "item": pl.UInt64(), "corpus": pl.UInt32(), "models": pl.UInt64(), "count": pl.Int32(),
}  # fmt: skip
"""An account's row, the item, bits of its corpora, bits of the models it was put to (:func:`model_bit`), requests."""
LOOKED: Mapping[str, pl.DataType] = {"row": pl.UInt32(), "prompts": pl.Int32(), "hits": pl.Int32()}
"""An account's row, its prompts that were looked up in known corpora, and those that are items."""
_WAITING = 50_000
"""Rows that may wait unmerged; as many as the day has where that is more, so the work stays linear."""


def none_of(schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """An empty table."""
    return pl.DataFrame(schema=schema)


@cache
def model_bit(model: str) -> int:
    """The bit of a model's name, 0 to 63: two of five names share one in 15 of 100 cases."""
    return hashlib.blake2b(model.encode(), digest_size=1).digest()[0] & 63


def of_prompts(events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """``ITEMS`` and ``LOOKED`` of events (``corpus``, ``corpus_item``, ``model``), whose ``row`` is their own."""
    looked = events["corpus"].is_not_null().to_numpy()
    if not looked.any():
        return none_of(ITEMS), none_of(LOOKED)
    item = events["corpus_item"].fill_null(0).to_numpy()
    row = np.arange(len(events), dtype=np.uint32)
    hits = np.flatnonzero(item != 0)
    models = [np.uint64(1) << np.uint64(model_bit(name)) for name in events["model"].gather(hits).to_list()]
    found = {
        "row": row[hits], "item": item[hits], "corpus": events["corpus"].gather(hits).to_numpy(),
        "models": np.array(models, np.uint64), "count": np.ones(len(hits), np.int32),
    }  # fmt: skip
    read = {"row": row[looked], "prompts": np.ones(int(looked.sum()), np.int32), "hits": (item[looked] != 0)}
    return pl.DataFrame(found, schema=ITEMS), pl.DataFrame(read).cast(LOOKED)  # type: ignore[arg-type]


def merged(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Tables of ``ITEMS`` as one: each item of a row once, no more of a row than are kept, in order."""
    given = [part for part in parts if len(part)]
    if not given:
        return none_of(ITEMS)
    whole = pl.concat(given)
    row, item, corpus, models, count = (whole[name].to_numpy() for name in ITEMS)
    order = np.lexsort((item, row))
    row, item = row[order], item[order]
    first = np.flatnonzero(np.append(True, (row[1:] != row[:-1]) | (item[1:] != item[:-1])))
    made = {
        "row": row[first], "item": item[first], "corpus": np.bitwise_or.reduceat(corpus[order], first),
        "models": np.bitwise_or.reduceat(models[order], first), "count": np.add.reduceat(count[order], first),
    }  # fmt: skip
    begin = np.flatnonzero(np.append(True, made["row"][1:] != made["row"][:-1]))
    rank = np.arange(len(first)) - np.repeat(begin, np.diff(np.append(begin, len(first))))
    kept = rank < MOST
    return pl.DataFrame({name: column[kept] for name, column in made.items()}, schema=ITEMS)


def totalled(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Tables of ``LOOKED`` as one: each row once, in order."""
    given = [part for part in parts if len(part)]
    if not given:
        return none_of(LOOKED)
    whole = pl.concat(given)
    row, prompts, hits = (whole[name].to_numpy() for name in LOOKED)
    rows, number = np.unique(row, return_inverse=True)
    sums = {"row": rows, "prompts": np.bincount(number, prompts), "hits": np.bincount(number, hits)}
    return pl.DataFrame(sums).cast(LOOKED)  # type: ignore[arg-type]


def renumbered(table: pl.DataFrame, to: npt.NDArray[np.generic]) -> pl.DataFrame:
    """The table with each row ``r`` called ``to[r]``."""
    return table.with_columns(row=pl.Series(to[table["row"].to_numpy()].astype(np.uint32))) if len(table) else table


@dataclass(slots=True)
class Asked:
    """What everybody asked of known corpora today and yesterday; ``row`` is the account's in the population."""

    items: list[pl.DataFrame] = field(default_factory=lambda: [none_of(ITEMS), none_of(ITEMS)])
    looked: list[pl.DataFrame] = field(default_factory=lambda: [none_of(LOOKED), none_of(LOOKED)])
    _fresh: list[tuple[pl.DataFrame, pl.DataFrame]] = field(default_factory=list)
    _waiting: int = 0

    def add(self, items: pl.DataFrame, looked: pl.DataFrame) -> None:
        """Take what came in a step."""
        if not len(looked):
            return
        self._fresh.append((items, looked))
        self._waiting += len(items) + len(looked)
        if self._waiting > max(_WAITING, len(self.items[0]) + len(self.looked[0])):
            self.settle()

    def settle(self) -> None:
        """Merge what waits."""
        if self._fresh:
            self.items[0] = merged([self.items[0], *(i for i, _ in self._fresh)])
            self.looked[0] = totalled([self.looked[0], *(n for _, n in self._fresh)])
            self._fresh, self._waiting = [], 0

    def roll(self) -> None:
        """A day ended."""
        self.settle()
        self.items = [none_of(ITEMS), self.items[0]]
        self.looked = [none_of(LOOKED), self.looked[0]]

    def of(self, chosen: npt.NDArray[np.bool_]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """``ITEMS`` and ``LOOKED`` over one to two days of the accounts ``chosen`` [accounts]."""
        if len(self._fresh) > 1:
            # as one: polars asks 0.2 ms a table however short it is, and a day has hundreds
            items, looked = (pl.concat(tables, rechunk=True) for tables in zip(*self._fresh, strict=True))
            self._fresh = [(items, looked)]

        def mine(parts: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
            return [part.filter(pl.Series(chosen[part["row"].to_numpy()])) for part in parts if len(part)]

        return (
            merged(mine([*self.items, *(i for i, _ in self._fresh)])),
            totalled(mine([*self.looked, *(n for _, n in self._fresh)])),
        )
