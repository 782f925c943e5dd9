"""How a group asks a known corpus: which one, how much of it, whether split among its tenants or each all of it.

Who collects answers to a public set puts each item once, of one model, and splits the set among accounts. An
evaluation is one account, or a few that do the same, which puts all of the items, often to several models. Where a
corpus' size is known, so is how often two tenants that chose at random would meet on an item: a group that splits it
by plan meets less often. Small samples are compared below one bound that holds for all members: see ``items``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.items import MOST, Asked
from monitor.campaigns.options import KnownCorpus

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Values = Mapping[str, float | None]

LEAST_PROMPTS, LEAST_PAIRS = 12, 10
"""Prompts, and pairs of a tenant and an item, under which a share of them says nothing."""
SPLIT, ALL = 0.5, 0.8
"""Share of the group's items up to which the busiest tenant has asked a part, and from which all of them."""
MOSTLY = 0.3
"""Share of the prompts that are items from which asking a corpus is what a group does."""
ALIKE = 0.25
"""Share of the group's rate from which a tenant does the same."""
ONCE, SEVERAL = 0.1, 1.5
"""Overlap up to which each item is one tenant's; models an item from which models are compared."""
PLANNED = 3.0
"""Standard deviations under what chance gives from which tenants keep apart by plan."""
_ROOM = 1 << 64


@dataclass(frozen=True, slots=True)
class Sweep:
    """A group: ``values`` by the names of ``STATISTICS``; the bit of the corpus that most of its items are of (-1:
    none); how many of its ``accounts`` asked one; its ``members``, as rows of the population, whose tenant asks the
    corpus as the group does, where the group splits it."""

    values: dict[str, float | None]
    corpus: int = -1
    accounts: int = 0
    members: frozenset[int] = frozenset()


def sweeps(
    groups: Sequence[I64], tenant: npt.NDArray[np.int32], asked: Asked, known: Mapping[int, KnownCorpus]
) -> list[Sweep]:
    """Of ``groups`` (rows of accounts); ``tenant`` [accounts] is the tenant of each, ``known`` the corpora by bit. All
    null where nothing was looked up."""
    chosen = np.zeros(len(tenant), np.bool_)
    for group in groups:
        chosen[group] = True
    items, looked = asked.of(chosen)
    return [_one(group, tenant, items, looked, known) for group in groups]


def columns_of(found: Sequence[Sweep]) -> list[pl.Series]:
    """Their statistics as columns, a row a group."""
    return [pl.Series(name, [sweep.values[name] for sweep in found], dtype=pl.Float64) for name in STATISTICS]


def _one(
    group: I64, tenant: npt.NDArray[np.int32], items: pl.DataFrame, looked: pl.DataFrame,
    known: Mapping[int, KnownCorpus],
) -> Sweep:  # fmt: skip
    out: dict[str, float | None] = dict.fromkeys(STATISTICS)
    mine = _within(looked, group)
    if not len(mine) or int(mine["prompts"].sum()) < LEAST_PROMPTS:
        return Sweep(out)
    whose, number = np.unique(tenant[mine["row"].to_numpy()], return_inverse=True)
    prompts, hits = (np.bincount(number, mine[c].to_numpy()) for c in ("prompts", "hits"))
    out |= {"corpus_share": _rounded(float((hits / prompts).mean())), "corpus_items": 0.0, "corpus_tenants": 0.0}
    told = _within(items, group)
    if not len(told):
        return Sweep(out)
    bound = _bound(told)
    under = told.filter(pl.col("item") < bound) if bound < _ROOM else told
    corpus = _chief(_columns(under if len(under) else told, tenant))
    accounts = told.filter(pl.col("corpus") & (1 << corpus) != 0)["row"].unique().to_numpy()
    out["corpus_tenants"] = float(len(np.unique(tenant[accounts])))
    _spread(out, _columns(under, tenant).of(corpus), _ROOM / bound, known.get(corpus))
    most = out["corpus_largest_share"]
    if (out["corpus_share"] or 0.0) < MOSTLY or most is None or most > SPLIT:
        return Sweep(out, corpus, len(accounts))
    alike = whose[(hits >= 2) & (hits / prompts >= ALIKE * (out["corpus_share"] or 0.0))]
    return Sweep(out, corpus, len(accounts), frozenset(group[np.isin(tenant[group], alike)].tolist()))


@dataclass(frozen=True, slots=True)
class _Seen:
    """Rows of ``ITEMS`` with the tenant in the account's place."""

    tenant: I64
    item: npt.NDArray[np.uint64]
    corpus: npt.NDArray[np.uint32]
    models: npt.NDArray[np.uint64]
    count: I64

    def of(self, corpus: int) -> _Seen:
        """Those of one corpus."""
        kept = (self.corpus >> np.uint32(corpus) & np.uint32(1)).astype(np.bool_)
        return _Seen(self.tenant[kept], self.item[kept], self.corpus[kept], self.models[kept], self.count[kept])


def _columns(table: pl.DataFrame, tenant: npt.NDArray[np.int32]) -> _Seen:
    row, item, corpus, models, count = (table[c].to_numpy() for c in ("row", "item", "corpus", "models", "count"))
    return _Seen(tenant[row].astype(np.int64), item, corpus, models, count.astype(np.int64))


def _within(table: pl.DataFrame, group: I64) -> pl.DataFrame:
    """Rows of a table in order of ``row`` that are of a group's accounts."""
    row = table["row"].to_numpy()
    begin, end = (np.searchsorted(row, group.astype(row.dtype), side=side) for side in ("left", "right"))
    held = end - begin
    rows = np.arange(held.sum()) - np.repeat(np.cumsum(held) - held, held) + np.repeat(begin, held)
    return table.select(pl.all().gather(rows))


def _bound(items: pl.DataFrame) -> int:
    """Under it every item of every account is there: the smallest of the largest hashes of accounts that are full."""
    row = items["row"].to_numpy()
    begin = np.flatnonzero(np.append(True, row[1:] != row[:-1]))
    full = np.flatnonzero(np.diff(np.append(begin, len(row))) >= MOST)
    return int(items["item"].to_numpy()[begin[full] + MOST - 1].min()) if len(full) else _ROOM


def _chief(seen: _Seen) -> int:
    """The corpus with most different items."""
    _, first = np.unique(seen.item, return_index=True)
    bits = seen.corpus[first][:, None] >> np.arange(32, dtype=np.uint32) & np.uint32(1)
    return int(bits.sum(axis=0).argmax())


def _spread(out: dict[str, float | None], seen: _Seen, scale: float, corpus: KnownCorpus | None) -> None:
    """What the pairs of a tenant and an item say: all that any of the group asked of one corpus under a bound."""
    item, number = np.unique(seen.item, return_inverse=True)
    pairs = np.unique(np.stack([seen.tenant, number.astype(np.int64)]), axis=1)
    out["corpus_items"] = _rounded(len(item) * scale)
    if corpus is not None:
        out["corpus_coverage"] = _rounded(min(1.0, len(item) * scale / corpus.items))
    if pairs.shape[1] < LEAST_PAIRS:
        return
    models = np.zeros(len(item), np.uint64)
    np.bitwise_or.at(models, number, seen.models)
    _, of_tenant = np.unique(pairs[0], return_counts=True)
    out["corpus_overlap"] = _rounded(1.0 - len(item) / pairs.shape[1])
    out["corpus_repeats"] = _rounded(seen.count.sum() / len(item))
    out["corpus_models_per_item"] = _rounded(float(np.bitwise_count(models).mean()))
    out["corpus_largest_share"] = _rounded(of_tenant.max() / len(item))
    if corpus is not None:
        # tenants that drew as many items each at random
        each = np.minimum(of_tenant * scale / corpus.items, 1.0)
        chance = 1.0 - float((1.0 - np.prod(1.0 - each)) / each.sum())
        out["corpus_overlap_chance"] = _rounded(chance)
        expected = chance * pairs.shape[1]
        out["corpus_apart_z"] = _rounded((expected - (pairs.shape[1] - len(item))) / max(expected, 1.0) ** 0.5)


def _rounded(value: float) -> float:
    return round(float(value), 6)


def reading(sweep: Sweep, known: Mapping[int, KnownCorpus]) -> dict[str, object] | None:
    """What a group's statistics say in words; None where it asks no corpus, or too little of one to tell."""
    share, items, tenants, _, overlap, chance, z, repeats, models, largest = (sweep.values[c] for c in STATISTICS)
    if share is None or items is None or tenants is None or repeats is None:
        return None
    if sweep.corpus < 0 or largest is None or overlap is None or models is None:
        return None
    corpus = known.get(sweep.corpus)
    name = corpus.name if corpus is not None else f"of bit {sweep.corpus}"
    asked = f"{round(items):,}{f' of its {corpus.items:,}' if corpus is not None else ''} items"
    who = f"{sweep.accounts:,} accounts of {round(tenants):,} tenants asked {asked}"
    apart = z is not None and z >= PLANNED
    if largest >= ALL:
        says, text = "evaluation", f"asks corpus {name} as an evaluation does: {who}, one tenant {largest:.0%} of them"
        text += f", each put to {models:.1f} models" if models >= SEVERAL else ""
    elif largest <= SPLIT and models < SEVERAL:
        says = "shards" if overlap <= ONCE or apart else "collects"
        once = "each once" if overlap <= ONCE and repeats <= 1.0 + ONCE else f"{overlap:.0%} of them more than once"
        text = f"{says} corpus {name}: {who}, {once}"
        if chance is not None:
            drawn = f"; tenants that drew at random would share {chance:.0%}"
            text += f"{drawn}, so they keep apart by plan" if apart else f"{drawn}, so this proves no plan"
        text += ". A laboratory that splits an evaluation over accounts of its own looks the same"
    else:
        says, text = "asks", f"asks corpus {name}: {who}"
    return {"name": name, "reading": says, "accounts": sweep.accounts, "text": f"{text}."}


STATISTICS = (
    "corpus_share", "corpus_items", "corpus_tenants", "corpus_coverage", "corpus_overlap", "corpus_overlap_chance",
    "corpus_apart_z", "corpus_repeats", "corpus_models_per_item", "corpus_largest_share",
)  # fmt: skip
"""What is known of a group, in order."""
