"""What holds of each account of a group, and of the group: shared links by kind, own requests in shared templates.

Works on many groups at once, candidates and calibration groups alike, so that both are measured by the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.graph import LEAST_SHARED, Shared
from monitor.campaigns.kinds import CODE, GROUPS, KINDS, TEMPLATES

MOSTLY_INSIDE, CLOSING_INSIDE = 0.5, 0.9
"""A value speaks for a group where the group holds this share of the tenants that have it."""
OF_GROUP, APART_BITS = 0.8, 5.0
"""So does an attested one that this share of the group's tenants hold, if a stranger is that many bits less likely to
hold it: two campaigns that rent at one host share an address prefix, and neither has most of it."""
_GROUP_OF = {code: kind.group_code for code, kind in enumerate(KINDS)}
_ATTESTED = [code for code, kind in enumerate(KINDS) if kind.attested and kind.family != "replay"]
_EXACT = [code for code, kind in enumerate(KINDS) if kind.family == "replay"]
_CLOSING = CODE["template_closing"]
_MEDIA = [code for code, kind in enumerate(KINDS) if kind.group in ("network", "software")]


@dataclass(frozen=True, slots=True)
class Witnesses:
    """``values``: one row a group and value that speaks for it (group, key, kind, value, held, df, bits, count).

    ``members``: one row a group and account, with bits by group of kinds, ``link_bits`` (their sum),
    ``attested_bits``, ``templated_requests`` (in templates that the group shares), ``replays`` (blobs that another
    had before) and ``new_link`` (0 or 1: a network or client that the group shares is one the account took up after
    its first day).
    """

    values: pl.DataFrame
    members: pl.DataFrame


def witnesses(
    groups: pl.DataFrame, shared: Shared, seen_step: npt.NDArray[np.int64], day_steps: int
) -> Witnesses:  # fmt: skip
    """``groups`` has ``group`` and ``account`` (UInt32); ``seen_step`` [accounts] is the step in which an account was
    first seen; ``day_steps`` steps make a day."""
    frame = groups.join(shared.of(groups["account"].to_numpy()), on="account", how="inner")
    frame = frame.with_columns(seen=pl.Series(seen_step).gather(frame["account"]))
    sizes = frame.lazy().group_by("group").agg(tenants=pl.col("tenant").n_unique().cast(pl.Int64))
    enough = (pl.col("held") >= LEAST_SHARED) | (pl.col("kind").is_in(_EXACT) & (pl.col("held") >= 2))
    # "As a Markdown list" ends many prompts: a closing speaks for a group only where hardly anybody else has it.
    inside = pl.when(pl.col("kind") == _CLOSING).then(CLOSING_INSIDE).otherwise(MOSTLY_INSIDE)
    values = (
        frame.lazy().group_by("group", "key", "kind", "df")
        .agg(held=pl.col("tenant").n_unique().cast(pl.Int64), count=pl.col("count").sum())
        .join(sizes, on="group", how="inner")
        .filter(enough & ((pl.col("held") >= inside * pl.col("df")) | _apart(shared.tenants)))
        .drop("tenants")
        .with_columns(
            bits=(shared.tenants / pl.col("df")).log(2.0),
            value=pl.lit(pl.Series(shared.value)).gather(pl.col("key")),
        )
        .sort("group", "key").collect(engine="in-memory")
    )  # fmt: skip
    mine = frame.lazy().join(values.lazy().select("group", "key", "bits"), on=["group", "key"], how="inner")
    of_group = pl.col("kind").replace_strict(_GROUP_OF, return_dtype=pl.UInt8)
    # Values of one group of kinds depend on one another: the rarest counts, not their sum.
    bits = (
        mine.with_columns(g=of_group, attested=pl.col("kind").is_in(_ATTESTED))
        .group_by("group", "account", "g").agg(pl.col("bits").max(), pl.col("attested").any())
        .group_by("group", "account").agg(
            *(pl.col("bits").filter(pl.col("g") == i).sum().alias(name) for i, name in enumerate(GROUPS)),
            link_bits=pl.col("bits").sum(), attested_bits=pl.col("bits").filter(pl.col("attested")).sum(),
        )
    )  # fmt: skip
    # Whoever had a blob first may be its rightful owner, robbed of it: only those who sent it later replay.
    later = pl.col("first") > pl.col("first").min().over("group", "key")
    replayed = mine.filter(pl.col("kind").is_in(_EXACT) & later)
    replayed = replayed.group_by("group", "account").agg(replays=pl.len().cast(pl.Int64))
    # An opening and a closing belong to the same prompts: the larger of the two, not their sum.
    templated = (
        mine.filter(pl.col("kind").is_in(list(TEMPLATES)))
        .group_by("group", "account", "kind")
        .agg(pl.col("count").sum())
        .group_by("group", "account")
        .agg(templated_requests=pl.col("count").max())
    )
    media = (
        mine.filter(pl.col("kind").is_in(_MEDIA))
        .group_by("group", "account")
        .agg(new_link=(pl.col("first") >= pl.col("seen") + day_steps).any().cast(pl.Float64))
    )
    zero = ["link_bits", "attested_bits", *GROUPS]
    members = (
        groups.lazy()
        .join(bits, on=["group", "account"], how="left").join(templated, on=["group", "account"], how="left")
        .join(media, on=["group", "account"], how="left").join(replayed, on=["group", "account"], how="left")
        .with_columns(pl.col(zero).fill_null(0.0), pl.col("templated_requests", "replays").fill_null(0))
        .sort("group", "account").collect(engine="in-memory")
    )  # fmt: skip
    return Witnesses(values, members)


def _apart(everybody: int) -> pl.Expr:
    """Whether nearly all of a group hold an attested value that hardly anybody else does."""
    held, others = pl.col("held"), everybody - pl.col("tenants") + 1
    strangers = (pl.col("df") - held + 0.5) / others
    likelier = held / pl.col("tenants") >= 2.0**APART_BITS * strangers
    return pl.all_horizontal(pl.col("kind").is_in(_ATTESTED), held >= OF_GROUP * pl.col("tenants"), likelier)
