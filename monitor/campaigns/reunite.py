"""Parts of one campaign that the graph shows as several.

The graph pairs the rarest values of an account (``pairs.A_GROUP``). A campaign that copies rare values of others, or
whose prompts vary, gives its accounts so many that what all of them share is no longer among the rarest: as it grew,
one of 38 accounts fell into three by card, and what tells of its conduct, shared by all three, was mostly outside each.
So the values that most of a component holds are looked at whatever is rarer: two components most of each of which hold
the same pair of them, one attested and one that the client chose, are one where more tenants hold that pair than chance
explains, and most of these are theirs. Three in five of each must hold the pair, not either value; and two attested
values are no conduct. Without, two campaigns made in the same half-day behind the same operator were taken for one
(seed 81). Nor does an operator count: two campaigns with one system prompt behind one host were two (seeds 95 and 28).
Parts of one campaign had a pair that seven in ten of each hold.

Of groups most of which share nothing that the client chose, a card or an address prefix that nobody else has is enough
by itself: two in five of each hold it, by more than chance explains, and nine in ten of its holders are theirs. A batch
harvest without text was otherwise as many groups as it had days of sign-up, each too small to be judged (``S13``, seed
25). Two campaigns at one host, each with its own prompts or client, stay two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from monitor.campaigns.adopt import OWN_SHARE, holding, is_own, size_of
from monitor.campaigns.graph import LEAST_SHARED, Components, Shared, chance, surprise
from monitor.campaigns.kinds import ATTESTED, CODE

I64 = npt.NDArray[np.int64]
OF_EACH = 0.6
"""Share of each part's tenants that hold the pair."""
ALONE_OF_EACH, ALONE_SHARE = 0.4, 0.9
"""Share of each part's tenants that hold a value which is theirs alone, and of the value's holders that are theirs."""
_ALONE = [CODE["payment"], CODE["egress_prefix"]]
_PAIR = ["key", "other"]
_ANYBODYS = [CODE["egress_asn"], CODE["template_closing"]]
"""Kinds that say nothing of who it is: where one rents, and how anybody's prompts end."""
_CHOSEN = [code for code in np.flatnonzero(~ATTESTED).tolist() if code not in _ANYBODYS]


def reunited(
    groups: Sequence[I64], values: pl.DataFrame, shared: Shared, found: Components, margin_bits: float
) -> list[I64]:
    """``groups`` of accounts, those that are one put together, in the order of their first. ``values`` are what
    ``adopt.values_of`` says of them; a pair of values must surprise as ``found``'s had to, a value that is theirs alone
    by ``margin_bits`` and the logarithm of how many are looked at."""
    ties = [_by_pairs(groups, values, shared, found.threshold), _alone(values, shared, margin_bits)]
    campaign = np.concatenate([tie[0] for tie in ties])
    if not len(campaign):
        return list(groups)
    node = len(groups) + np.concatenate([ties[0][1], ties[1][1] + 1 + ties[0][1].max(initial=-1)])
    size = int(node.max()) + 1
    _, label = connected_components(coo_array((np.ones(len(node)), (campaign, node)), shape=(size, size)), False)
    together: dict[int, list[I64]] = {}
    for i, members in enumerate(groups):
        together.setdefault(int(label[i]), []).append(members)
    return [np.sort(np.concatenate(parts)) if len(parts) > 1 else parts[0] for parts in together.values()]


def _by_pairs(groups: Sequence[I64], values: pl.DataFrame, shared: Shared, threshold_bits: float) -> tuple[I64, I64]:
    """(group, pair) of the groups most of each of which hold a pair that is theirs; pairs numbered from 0."""
    pairs = _theirs(values, shared)
    if pairs.is_empty():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    number = np.full(len(shared.tenant), -1, np.int64)
    for i, members in enumerate(groups):
        number[members] = i
    rows = shared.rows_of(_asked(pairs, len(shared.df)))
    links = pl.DataFrame(
        {"account": shared.account[rows], "key": shared.key[rows].astype(np.int64),
         "tenant": shared.tenant[shared.account[rows]], "campaign": number[shared.account[rows]]}
    ).lazy()  # fmt: skip
    both = (
        pairs.lazy().select(_PAIR).unique().join(links, on="key", how="inner")
        .join(links.select("account", other="key"), on=["account", "other"], how="inner").collect(engine="in-memory")
    )  # fmt: skip
    whole = pairs.join(
        both.group_by(*_PAIR, "campaign").agg(mine=pl.col("tenant").n_unique()), on=[*_PAIR, "campaign"], how="inner"
    ).filter(pl.col("mine") >= OF_EACH * pl.col("size"))
    held = (
        both.join(whole.select(*_PAIR, "campaign", inside=True), on=[*_PAIR, "campaign"], how="left")
        .group_by(_PAIR).agg(
            held=pl.col("tenant").n_unique(), inside=pl.col("tenant").filter(pl.col("inside")).n_unique()
        ).sort(_PAIR)
    )  # fmt: skip
    key, other = (held[name].to_numpy().astype(np.uint64) for name in _PAIR)
    many = held["held"].to_numpy().astype(np.float64)
    bits = surprise(many, chance(key << np.uint64(32) | other, shared.df, shared.tenants))
    good = (bits >= threshold_bits) & (many >= LEAST_SHARED) & (held["inside"].to_numpy() >= OWN_SHARE * many)
    tied = whole.join(held.select(_PAIR).filter(pl.Series(good)).with_row_index("node"), on=_PAIR, how="inner")
    return tied["campaign"].to_numpy(), tied["node"].to_numpy().astype(np.int64)


def _alone(values: pl.DataFrame, shared: Shared, margin_bits: float) -> tuple[I64, I64]:
    """(group, value) of the groups without software and prompts of their own that share a card or an address prefix
    with another such group and with nobody else."""
    chosen = is_own(shared.tenants) & pl.col("kind").is_in(_CHOSEN)
    own = values.filter(pl.col("kind").is_in(_ALONE) & ~chosen.any().over("campaign")).with_columns(
        size=size_of(shared.tenants)
    )
    held, df = (own[name].to_numpy().astype(np.float64) for name in ("held", "df"))
    size, least_bits = own["size"].to_numpy(), margin_bits + np.log2(max(len(own), 1))
    good = (surprise(held, size * df / shared.tenants) >= least_bits) & (held >= ALONE_OF_EACH * size)
    tied = own.filter(pl.Series(good, dtype=pl.Boolean)).filter(
        pl.col("held").sum().over("kind", "value") >= ALONE_SHARE * pl.col("df")
    ).with_columns(node=pl.struct("kind", "value").rank("dense") - 1)  # fmt: skip
    return tied["campaign"].to_numpy(), tied["node"].to_numpy().astype(np.int64)


def _theirs(values: pl.DataFrame, shared: Shared) -> pl.DataFrame:
    """``campaign``, its ``size`` in tenants, ``key`` and ``other``: pairs of an attested value and one that the client
    chose, each of which most of each of two campaigns hold and a stranger is less likely to."""
    own = values.filter(is_own(shared.tenants) & ~pl.col("kind").is_in(_ANYBODYS))
    keyed, _ = holding(own.filter(pl.len().over("kind", "value") >= 2), shared)
    of = keyed.lazy().select(
        "campaign", pl.col("key").cast(pl.Int64), size=size_of(shared.tenants),
        attested=pl.Series(ATTESTED[keyed["kind"].to_numpy()]),
    )  # fmt: skip
    return (
        of.filter("attested").join(of.filter(~pl.col("attested")), on="campaign", how="inner", suffix="_other")
        .select("campaign", "key", "size", other="key_other").filter(pl.len().over(_PAIR) >= 2)
        .sort("campaign", *_PAIR).collect(engine="in-memory")
    )  # fmt: skip


def _asked(pairs: pl.DataFrame, keys: int) -> npt.NDArray[np.bool_]:
    asked = np.zeros(keys, np.bool_)
    for name in _PAIR:
        asked[pairs[name].to_numpy()] = True
    return asked
