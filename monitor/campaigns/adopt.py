"""Who joins a campaign that is known already: an account's values weighed against the campaign's, one by one.

A component needs a *pair* of values that three tenants hold. A latecomer often has no such pair: he brings one card of
the campaign's and one address of hers, which nobody held together before. Against a known campaign of ``n`` tenants
each of its values ``v`` says how much likelier its holder is one of hers: ``log2(P(v | member) / P(v | other))``, with
half a tenant added to what is not seen. The rarest value of each group of kinds counts, software and templates being
one (a vendor's prompt brings its templates along); with the prior ``log2(n / N)`` the sum is the log odds, and it must
reach the margin, over two groups of which one is attested. Who belongs to a campaign already stays for less.

The graph looks at the rarest values of each account only (``A_GROUP``), and a victim of key theft brings rarer ones of
his own than the thief's. So at a rebuild the pairs of a campaign's *own* values are looked at in everybody.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.graph import LEAST_SHARED, Components, Shared, surprise
from monitor.campaigns.kinds import CODE, GROUPS, KINDS

I64 = npt.NDArray[np.int64]

MORE_BITS = 2.0
"""Beyond the margin of an edge. In two simulated worlds strangers came to 8.1 bits, latecomers to 9.2 and more."""
LESS_BITS = 2.0
"""Under the margin of an edge, for those who stay: a victim of key theft brings new networks of his own every day."""
OWN_SHARE, OWN_BITS = 0.5, 3.0
"""A value is a campaign's own if this share of its tenants hold it, and a stranger is that many bits less likely to;
what the client chooses only if also this share of its holders are hers, or a vendor's prompt brings in its users."""
_SOFTWARE = GROUPS.index("software")
_GROUP_OF = {code: _SOFTWARE if kind.group == "template" else kind.group_code for code, kind in enumerate(KINDS)}
_ATTESTED = [code for code, kind in enumerate(KINDS) if kind.attested]
_CLOSING = CODE["template_closing"]
_EXACT = [code for code, kind in enumerate(KINDS) if kind.family == "replay"]
TABLE = {
    "campaign": pl.Int64(), "kind": pl.UInt8(), "value": pl.UInt64(), "df": pl.Int64(), "held": pl.Int64(),
    "bits": pl.Float64(), "prior": pl.Float64(),
}  # fmt: skip
"""What is known of each campaign's values since the last rebuild: tenants that hold one, in all and in the campaign."""


def values_of(groups: Sequence[I64], shared: Shared, tenant: npt.NDArray[np.int32]) -> pl.DataFrame:
    """Values that three tenants of a group hold and what each says of its holder; ``campaign``: the group's number."""
    if not groups:
        return pl.DataFrame(schema=TABLE)
    numbers = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    size = np.array([len(np.unique(tenant[g])) for g in groups], np.float64)
    accounts = pl.DataFrame({"campaign": numbers, "account": np.concatenate(groups).astype(np.uint32)})
    held = (
        shared.of(np.concatenate(groups)).lazy().join(accounts.lazy(), on="account", how="inner")
        .group_by("campaign", "key")
        .agg(held=pl.col("tenant").n_unique().cast(pl.Int64), kind=pl.col("kind").first())
        .filter((pl.col("held") >= LEAST_SHARED) | (pl.col("kind").is_in(_EXACT) & (pl.col("held") >= 2)))
        .sort("campaign", "key").collect(engine="in-memory")
    )  # fmt: skip
    key, mine = held["key"].to_numpy(), held["held"].to_numpy().astype(np.float64)
    n = size[held["campaign"].to_numpy()]
    outside = (shared.df[key] - mine + 0.5) / np.maximum(shared.tenants - n + 1.0, 1.0)
    prior = np.log2(n / shared.tenants)
    return held.select(
        pl.col("campaign").cast(pl.Int64), kind=pl.Series(shared.kind[key], dtype=pl.UInt8),
        value=pl.Series(shared.value[key]),
        df=pl.Series(shared.df[key]), held=pl.col("held"),
        bits=pl.Series(np.round(np.log2(mine / n / outside), 6)), prior=pl.Series(np.round(prior, 6)),
    )  # fmt: skip


def adopted(
    values: pl.DataFrame, links: pl.DataFrame, margin_bits: float, before: npt.NDArray[np.int64] | None = None
) -> pl.DataFrame:
    """``account`` and ``campaign`` of those among ``links`` (account, kind, value) whose log odds reach the margin: of
    the campaign that they fit best. ``before``: accounts that belonged to one at the last rebuild."""
    stays = pl.col("account").is_in(pl.Series(np.zeros(0) if before is None else before, dtype=pl.UInt32).implode())
    least = pl.when(stays).then(margin_bits - LESS_BITS).otherwise(margin_bits + MORE_BITS)
    of_group = pl.col("kind").replace_strict(_GROUP_OF, return_dtype=pl.UInt8)
    return (
        links.lazy().select("account", "kind", "value")
        .join(values.lazy().filter(pl.col("bits") > 0), on=["kind", "value"], how="inner")
        .with_columns(group=of_group, attested=pl.col("kind").is_in(_ATTESTED))
        .group_by("account", "campaign", "group")
        .agg(pl.col("bits").max(), pl.col("attested").any(), pl.col("prior").first())
        .group_by("account", "campaign")
        # a grouped sum adds up in an order of its own: rounded before anything is compared
        .agg((pl.col("bits").sum() + pl.col("prior").first()).round(6), pl.col("attested").any(), groups=pl.len())
        .filter((pl.col("groups") >= 2) & pl.col("attested") & (pl.col("bits") >= least))
        .sort("account", "bits", "campaign", descending=[False, True, False])
        .unique("account", keep="first", maintain_order=True)
        .select("account", "campaign").collect(engine="in-memory")
    )  # fmt: skip


def latecomers(
    values: pl.DataFrame, groups: Sequence[I64], shared: Shared, found: Components, margin_bits: float,
    before: npt.NDArray[np.int64],
) -> pl.DataFrame:  # fmt: skip
    """``account`` and ``campaign`` of everybody in no component who joins one of ``groups``: by odds, then by pairs.

    ``before``: accounts that belonged to a campaign at the last rebuild.
    """
    keyed, held = holding(values.filter(pl.col("bits") > 0), shared)
    rows = held[found.label[shared.account[held]] < 0]
    rows = _near(rows, keyed, shared, margin_bits - LESS_BITS)
    key = shared.key[rows]
    free = pl.DataFrame(
        {"account": shared.account[rows].astype(np.uint32), "kind": shared.kind[key], "value": shared.value[key]},
        schema={"account": pl.UInt32(), "kind": pl.UInt8(), "value": pl.UInt64()},
    )
    joined = adopted(values, free, margin_bits, before)
    group = np.where(found.label >= 0, _NOBODYS, _FREE)
    for number, members in enumerate(groups):
        group[members] = number
    group[joined["account"].to_numpy()] = joined["campaign"].to_numpy()
    return pl.concat([joined, paired(values, shared, held, group, found.threshold)])


def _near(rows: I64, keyed: pl.DataFrame, shared: Shared, least_bits: float) -> I64:
    """Those of ``rows`` whose account might reach ``least_bits``, were all its values of one campaign and of groups of
    their own. Of a million strangers who share an operator with somebody this leaves the few that are worth a join."""
    if not len(rows):
        return rows
    best = np.zeros(len(shared.kind))
    np.maximum.at(best, keyed["key"].to_numpy(), keyed["bits"].to_numpy())
    account = shared.account[rows]
    most = np.bincount(account, best[shared.key[rows]])[account] + keyed["prior"].to_numpy().max()
    return np.asarray(rows[most >= least_bits - _ROUNDED])


_ROUNDED = 1e-3
"""More than what bits may gain by being rounded."""
_FREE, _NOBODYS = -1, -2


def paired(values: pl.DataFrame, shared: Shared, within: I64, group: I64, threshold_bits: float) -> pl.DataFrame:
    """``account`` and ``campaign`` of those of no ``group`` (-1) that hold two of a campaign's own values, one attested
    and one that the client chose, which more tenants hold together than chance explains, most of them hers. ``within``:
    rows of the links to all values that say anything for a campaign."""
    hers = (pl.col("held") >= OWN_SHARE * pl.col("df")) & (pl.col("kind") != _CLOSING)
    own = values.filter(is_own(shared.tenants) & (pl.col("kind").is_in(_ATTESTED) | hers))
    keyed, rows = holding(own, shared, within)
    account = shared.account[rows]
    links = (
        pl.DataFrame({"account": account.astype(np.uint32), "tenant": shared.tenant[account],
                      "key": shared.key[rows].astype(np.uint32), "group": group[account]})
        .lazy().join(keyed.lazy().select("campaign", "key", "kind", "df"), on="key", how="inner")
        .with_columns(attested=pl.col("kind").is_in(_ATTESTED))
    )  # fmt: skip
    both = (
        links.join(links, on=["account", "campaign"], how="inner", suffix="_other")
        .filter(pl.col("attested") & ~pl.col("attested_other")).collect(engine="in-memory")
    )  # fmt: skip
    pair = ["campaign", "key", "key_other"]
    pairs = both.group_by(*pair, "df", "df_other").agg(
        held=pl.col("tenant").n_unique(), hers=pl.col("tenant").filter(pl.col("group") == pl.col("campaign")).n_unique()
    )
    held = pairs["held"].to_numpy().astype(np.float64)
    chance = pairs["df"].to_numpy().astype(np.float64) * pairs["df_other"].to_numpy() / shared.tenants
    good = pairs.filter(
        pl.Series(surprise(held, chance) >= threshold_bits, dtype=pl.Boolean)
        & (pl.col("hers") >= OWN_SHARE * pl.col("held"))
    )
    return (
        both.filter(pl.col("group") == _FREE).join(good, on=pair, how="semi").group_by("account", "campaign").len()
        .sort("account", "len", "campaign", descending=[False, True, False])
        .unique("account", keep="first", maintain_order=True).select("account", "campaign")
    )  # fmt: skip


def is_own(tenants: int) -> pl.Expr:
    """Of ``values_of``'s rows those that most of a campaign hold and a stranger, of ``tenants`` in all, is less likely
    to."""
    return (pl.col("bits") >= OWN_BITS) & (pl.col("held") >= OWN_SHARE * size_of(tenants))


def size_of(tenants: int) -> pl.Expr:
    """How many tenants the campaign of each of ``values_of``'s rows has, of ``tenants`` in all."""
    return (tenants * 2.0 ** pl.col("prior")).round()  # of a prior that is rounded: half of them is half of them


def holding(values: pl.DataFrame, shared: Shared, within: I64 | None = None) -> tuple[pl.DataFrame, I64]:
    """``values`` that are among those shared now, with their ``key``; and the rows of the links to one of them, which
    are all ``within`` these."""
    kind, value = values["kind"].to_numpy().astype(np.int64), values["value"].to_numpy()
    begin = np.searchsorted(shared.kind, np.arange(len(KINDS) + 1))
    key = np.full(len(values), -1, np.int64)
    for k in np.unique(kind):  # keys are in order of kind and value
        among, mine = shared.value[begin[k] : begin[k + 1]], np.flatnonzero(kind == k)
        at = np.searchsorted(among, value[mine])
        there = at < len(among)
        there[there] = among[at[there]] == value[mine[there]]
        key[mine[there]] = begin[k] + at[there]
    keyed = values.with_columns(key=pl.Series(key, dtype=pl.Int64)).filter(pl.col("key") >= 0)
    asked = np.zeros(len(shared.kind), np.bool_)
    asked[keyed["key"].to_numpy()] = True
    rows = shared.rows_of(asked) if within is None else within[asked[shared.key[within]]]
    return keyed.with_columns(pl.col("key").cast(pl.UInt32)), rows


def held_by_all(values: pl.DataFrame, shared: Shared) -> I64:
    """Tenants of all campaigns that hold each of the values shared now: [keys], as of the last rebuild."""
    keyed, _ = holding(values, shared)
    return np.bincount(keyed["key"].to_numpy(), keyed["held"].to_numpy(), len(shared.df)).astype(np.int64)


def shared_of(values: pl.DataFrame, links: pl.DataFrame, tenant: npt.NDArray[np.int32], tenants: int) -> Shared:
    """``links`` of some accounts in ``values``, in the form that the whole graph has them in."""
    table = values.select("kind", "value", "df").unique().sort("kind", "value").with_row_index("key")
    links = links.join(table, on=["kind", "value"], how="inner").sort("account", "key")
    return Shared(
        links["account"].to_numpy().astype(np.int32), links["key"].to_numpy().astype(np.int32),
        np.arange(len(links), dtype=np.int32),
        table["kind"].to_numpy().astype(np.int64), table["value"].to_numpy(), table["df"].to_numpy().astype(np.int64),
        tenant, tenants, links,
    )  # fmt: skip
