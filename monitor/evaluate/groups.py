"""Whom alerts name among the honest, by where, when and how large they are: what one group alone bears shows here.

A detector that reads no country may still hit one country's customers, by what goes with it. So honest accounts are
counted by country, by the hours in which they work, by the size of their organisation and by their volume, with
those that an alert of each severity names. Knows the contract's fields, not the detector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from .inputs import Revision

LEVELS: Final = ("low", "medium", "high")
"""An account counts at a level if an alert of this severity or more named it."""
_RANK: Final = {"info": 0, "low": 1, "medium": 2, "high": 3, "critical": 4}
COUNTRIES: Final = 8
"""Countries told apart, those with most accounts."""
_FIELDS: Final = {
    "account_id": pl.String, "org_id": pl.String, "billing_account_id": pl.String, "country": pl.String,
    "ts": pl.Float64,
}  # fmt: skip
_SIZES: Final = ((1, "1 account"), (9, "2 to 9 accounts"), (10**9, "10 accounts or more"))
_BY: Final = {"country": "country", "hours (UTC)": "hours", "organisation": "size", "volume": "volume"}
_VOLUMES: Final = ("least", "second", "third", "most")


@dataclass(frozen=True, slots=True)
class GroupCount:
    """Honest accounts of one group of a kind (``by``), and how many of them alerts named at each of :data:`LEVELS`."""

    by: str
    group: str
    accounts: int
    named: tuple[int, ...]


def by_group(log: Path, alerts: Iterable[Revision], abusive: Collection[str]) -> tuple[GroupCount, ...]:
    """Counts by country, quarter of the day (UTC), size of the organisation and quarter of volume. ``log`` is NDJSON
    whose times are epoch seconds."""
    worst: dict[str, int] = {}
    for r in alerts:
        if r.mode == "alert" and r.state != "withdrawn":
            for account in r.accounts or ([r.subject] if r.kind == "account" else []):
                worst[account] = max(worst.get(account, 0), _RANK.get(r.severity, 0))
    people = _people(log).filter(~pl.col("account_id").is_in(sorted(abusive)))
    people = people.with_columns(
        volume=((pl.col("n").rank("ordinal") - 1) * len(_VOLUMES) // pl.len()).cast(pl.Int64)
        .replace_strict(dict(enumerate(_VOLUMES)), return_dtype=pl.String)
    )  # fmt: skip
    reached = [worst.get(account, 0) for account in people["account_id"].to_list()]
    out = []
    for by, column in _BY.items():
        for group in sorted(people[column].unique().to_list(), key=_order):
            mine = [r for r, g in zip(reached, people[column].to_list(), strict=True) if g == group]
            named = tuple(sum(r >= _RANK[level] for r in mine) for level in LEVELS)
            out.append(GroupCount(by, group, len(mine), named))
    return tuple(out)


def added(several: Sequence[Sequence[GroupCount]]) -> list[GroupCount]:
    """The same groups of several worlds, added up; in order of first sight."""
    accounts: Counter[tuple[str, str]] = Counter()
    named: dict[tuple[str, str], list[int]] = {}
    for world in several:
        for g in world:
            accounts[g.by, g.group] += g.accounts
            sums = named.setdefault((g.by, g.group), [0] * len(LEVELS))
            named[g.by, g.group] = [a + b for a, b in zip(sums, g.named, strict=True)]
    return [GroupCount(by, group, accounts[by, group], tuple(named[by, group])) for by, group in named]


def _order(group: str) -> tuple[int, str]:
    listed = [*(name for _, name in _SIZES), *_VOLUMES]
    return (listed.index(group) if group in listed else -1, group)


def _people(log: Path) -> pl.DataFrame:
    """One row an account: ``n`` requests, country, the quarter of the day with most of them, organisation's size."""
    quarter = (pl.col("ts") % 86_400 // 21_600).cast(pl.Int64)
    rows = pl.scan_ndjson(log, schema=_FIELDS).drop_nulls(["account_id", "ts"]).with_columns(quarter=quarter)
    people = rows.group_by("account_id").agg(
        pl.len().alias("n"), pl.col("country").drop_nulls().mode().sort().first(),
        pl.col("quarter").mode().sort().first(),
        org=pl.coalesce("org_id", "billing_account_id", "account_id").sort().first(),
    ).collect()  # fmt: skip
    ends = {q: f"{6 * q} to {6 * q + 6}" for q in range(4)}
    counted = people["country"].drop_nulls().value_counts().sort("count", "country", descending=[True, False])
    top = counted["country"].to_list()
    size = pl.col("org").count().over("org")
    named = pl.when(size <= _SIZES[0][0]).then(pl.lit(_SIZES[0][1])).when(size <= _SIZES[1][0]).then(
        pl.lit(_SIZES[1][1])).otherwise(pl.lit(_SIZES[2][1]))  # fmt: skip
    return people.sort("account_id").with_columns(
        hours=pl.col("quarter").replace_strict(ends, return_dtype=pl.String), size=named,
        country=pl.when(pl.col("country").is_in(top[:COUNTRIES])).then(pl.col("country"))
        .when(pl.col("country").is_null()).then(pl.lit("unknown")).otherwise(pl.lit("other")),
    )  # fmt: skip
