"""Follows links from seeds, round by round, and says of everybody found what they share and whether they do the same.

Somebody joins who shares a *pair* of links with a member, of two different groups and one of them attested, that more
tenants hold than chance explains: the test of the campaign stage, with two differences that a tip allows. Only pairs
that members hold are looked at, so less surprise is asked for (log2 of their number or of the tenants who could join,
whichever is more, and the margin); and two tenants may share a pair, since one of them is suspected already.

Whether they do the same is another question, answered beside it: templates that members share and few others have,
the shape of their requests against everybody's, and the classifier's highest opinion of them on any day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.archive import SCORES
from monitor.campaigns.features import RATES
from monitor.campaigns.graph import chance, shared_pairs, surprise
from monitor.campaigns.kinds import GROUPS, KINDS
from monitor.errors import BadInput, Problem

from .load import I64, Links, People

F64 = npt.NDArray[np.float64]
_GROUP = np.array([k.group_code for k in KINDS], np.int64)
_ATTESTED = np.array([k.attested for k in KINDS], np.bool_)
_TEMPLATE = GROUPS.index("template")
_BLOB = GROUPS.index("blob")
LEAST_REQUESTS = 5
"""Requests without which an account's own rates say nothing."""


@dataclass(frozen=True, slots=True)
class HuntOptions:
    """``margin_bits``: of surprise beyond what is looked at; 5 bits are one tie by chance in 32 hunts, and a person
    looks at each. ``most``: a link of more than this share of tenants leads
    nowhere. ``own``: share of a template's tenants that are members, from which it is the members' own. ``rounds``
    from the seeds outward. ``alike``: share of everybody who may be nearer to the seeds' shape than one who counts as
    doing the same."""

    margin_bits: float = 5.0
    most: float = 0.5
    own: float = 0.5
    rounds: int = 4
    alike: float = 0.1


@dataclass(frozen=True, slots=True)
class Found:
    """One account. ``round`` 0: a seed. ``bits``: rarity of what it shares with the others found, the rarest link of
    each group. ``links``: kind -> tenants that hold the rarest such link. ``distance``: share of everybody nearer to
    the seeds' shape, None where it did too little to tell. ``does``: what of conduct is the same (``template``,
    ``shape``, ``blob``, ``classifier``); ``tier`` is ``core`` with an attested link and conduct, else ``linked``."""

    account: str
    tenant: str
    round: int
    tier: str
    bits: float
    links: dict[str, int]
    does: tuple[str, ...]
    distance: float | None
    classifier: float | None
    requests: int
    output_tokens: int
    first: float
    last: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"does": list(self.does)}


@dataclass(frozen=True, slots=True)
class Hunt:
    """What was found from ``seeds`` (strongest first) among ``accounts`` of ``tenants`` over ``days`` days. ``pairs``
    were looked at in the last round, of which ``significant`` tie; ``threshold`` bits were asked of each."""

    seeds: tuple[str, ...]
    found: list[Found]
    accounts: int
    tenants: int
    days: int
    pairs: int
    significant: int
    threshold: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"seeds": list(self.seeds), "found": [f.as_dict() for f in self.found], "accounts": self.accounts,
                "tenants": self.tenants, "days": self.days, "pairs": self.pairs, "significant": self.significant,
                "threshold": self.threshold}  # fmt: skip


def hunt(people: People, seeds: Sequence[str], options: HuntOptions | None = None) -> Hunt:
    """The accounts that belong with ``seeds``. Raises BadInput for seeds that the archive does not know."""
    options = options or HuntOptions()
    start = people.rows.with_row_index("at").filter(pl.col("account").is_in(list(seeds)))
    unknown = sorted(set(seeds) - set(start["account"]))
    if unknown:
        why = f"the archive has no row of {', '.join(unknown)} in these days"
        raise BadInput([Problem("--seed", 0, why)])
    rounds = np.full(len(people), -1, np.int64)
    rounds[start["at"].to_numpy()] = 0
    pairs, good, threshold = 0, 0, 0.0
    links = people.links_of(rounds >= 0)
    for step in range(1, options.rounds + 1):
        joined, pairs, good, threshold = _join(people, links, rounds >= 0, options)
        new = joined[rounds[joined] < 0]
        if not len(new):
            break
        rounds[new] = step
        links = people.links_of(rounds >= 0)
    members = np.flatnonzero(rounds >= 0)
    found = _described(people, links, members, rounds, options)
    return Hunt(tuple(seeds), found, len(people), people.tenants, people.days, pairs, good, threshold)


def _join(
    people: People, links: Links, member: npt.NDArray[np.bool_], options: HuntOptions
) -> tuple[I64, int, int, float]:
    """Accounts that share a significant pair, or an exact link, with a member; pairs looked at, significant; bits.

    ``links`` are those of the members.
    """
    near = (links.df <= max(options.most * people.tenants, 2))[links.key]
    account, key = links.account[near], links.key[near]
    exact = _GROUP[links.kind[key]] == _BLOB
    joined = [np.unique(account[exact])]
    pair, who, _ = shared_pairs(account, key, links.df, links.kind)
    if not len(pair):
        return np.concatenate(joined), 0, 0, options.margin_bits
    frame = pl.DataFrame({
        "pair": pair, "who": who, "expected": chance(pair, links.df, people.tenants),
        "tenant": people.tenant[who], "member": member[who],
    })  # fmt: skip
    held = (
        frame.lazy().group_by("pair")
        .agg(pl.col("tenant").n_unique().cast(pl.Float64).alias("held"), pl.col("expected").first(),
             pl.col("member").any())
        .filter("member", pl.col("held") >= 2).sort("pair").collect(engine="in-memory")
    )  # fmt: skip
    threshold = float(np.log2(max(len(held), people.tenants))) + options.margin_bits
    bits = surprise(held["held"].to_numpy(), held["expected"].to_numpy())
    ties = held.select("pair").filter(pl.Series(bits >= threshold))
    joined.append(frame.join(ties, on="pair", how="semi")["who"].unique().to_numpy())
    return np.unique(np.concatenate(joined)).astype(np.int64), len(held), len(ties), threshold


def _described(people: People, held: Links, members: I64, rounds: I64, options: HuntOptions) -> list[Found]:
    inside = np.zeros(len(people), np.bool_)
    inside[members] = True
    mine = inside[held.account]
    links = pl.DataFrame({
        "who": held.account[mine], "key": held.key[mine], "tenant": people.tenant[held.account[mine]],
        "kind": held.kind[held.key[mine]], "df": held.df[held.key[mine]],
    })  # fmt: skip
    # what only one of them has ties it to nobody here
    shared = links.with_columns(held=pl.col("tenant").n_unique().over("key")).filter(pl.col("held") >= 2)
    rarity = np.log2(people.tenants / np.maximum(shared["df"].to_numpy(), 1))
    shared = shared.with_columns(bits=pl.Series(rarity), group=pl.Series(_GROUP[shared["kind"].to_numpy()]))
    best = shared.sort("bits", descending=True).group_by("who", "group", maintain_order=True).first()
    near = _distances(people, members, rounds)
    theirs = shared.filter(pl.col("held") >= options.own * pl.col("df"))
    doing = {g: set(theirs.filter(pl.col("group") == g)["who"]) for g in (_TEMPLATE, _BLOB)}
    out = []
    for who in members.tolist():
        row, own = people.rows.row(who, named=True), best.filter(pl.col("who") == who)
        attested = bool(_ATTESTED[own["kind"].to_numpy()].any()) if len(own) else False
        scores = [row[s] / 255 for s in SCORES if row[s] is not None and s != "classifier_evaluation"]
        score = max(scores) if scores else None
        does = [
            word for word, holds in (
                ("template", who in doing[_TEMPLATE]), ("blob", who in doing[_BLOB]),
                ("shape", near[who] <= options.alike), ("classifier", score is not None and score >= 0.9),
            ) if holds
        ]  # fmt: skip
        out.append(Found(
            row["account"], row["tenant"], int(rounds[who]), "core" if attested and does else "linked",
            round(float(own["bits"].sum()), 2), {KINDS[k].name: d for k, d in zip(own["kind"], own["df"], strict=True)},
            tuple(does), None if np.isnan(near[who]) else round(float(near[who]), 4), score, row["requests"],
            row["output_tokens"], row["first_ms"] / 1000, row["last_ms"] / 1000,
        ))  # fmt: skip
    return sorted(out, key=lambda f: (f.round > 0, f.tier != "core", -f.bits, f.account))


def _distances(people: People, members: I64, rounds: I64) -> F64:
    """Of each account the share of everybody whose shape is nearer to the seeds'; NaN where it cannot be told."""
    rows = people.rows
    shape = np.stack([
        *(_ratio(rows, top, bottom) for top, bottom in RATES.values()),
        _ratio(rows, "log_in", "requests") / 8.0, _ratio(rows, "log_out", "requests") / 8.0,
    ], axis=1)  # fmt: skip
    enough = rows["requests"].to_numpy() >= LEAST_REQUESTS
    scaled = shape / np.array([_spread(column) for column in shape[enough].T])
    seeds = members[(rounds[members] == 0) & enough[members]]
    if not len(seeds):
        return np.full(len(rows), np.nan)
    centre = np.array([_mean(column) for column in scaled[seeds].T])
    apart = scaled - centre
    known = np.isfinite(apart)
    far = np.where(known, np.abs(np.where(known, apart, 0.0)), 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    far = np.where(enough & known.any(axis=1), far, np.nan)
    order = np.sort(far[~np.isnan(far)])
    return np.where(np.isnan(far), np.nan, np.searchsorted(order, far) / max(len(order), 1))


def _spread(column: F64) -> float:
    """Standard deviation of what is known; 1 where all are alike or nobody is known: the column then decides little."""
    known = column[np.isfinite(column)]
    spread = float(known.std()) if len(known) > 1 else 0.0
    return spread if spread > 1e-6 else 1.0


def _mean(column: F64) -> float:
    known = column[np.isfinite(column)]
    return float(known.mean()) if len(known) else float("nan")


def _ratio(rows: pl.DataFrame, top: str, bottom: str) -> F64:
    over, under = rows[top].to_numpy().astype(np.float64), rows[bottom].to_numpy().astype(np.float64)
    return np.asarray(np.where(under > 0, over / np.maximum(under, 1.0), np.nan))
