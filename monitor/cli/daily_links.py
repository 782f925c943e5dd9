"""The monitor's own linker over daily account rows, for the nightly suite: candidates, before any test of conduct.

Links of the days so far go to the same functions as in a running monitor, with the same margin. What comes out is
scored as if each candidate were an alert of HIGH, so its false ones bound those of a week from above: rules ask a
candidate for a second root of evidence, which daily rows do not hold.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ..campaigns.graph import components, shared_values
from ..campaigns.kinds import CODE, COHORT_MS
from ..campaigns.options import CampaignOptions
from ..evaluate.inputs import Revision
from ..simulate.daily import LINKS, DayRows

NAME = "linker, every candidate an alert"
_DAY_S = 86_400
KINDS = {
    "payment": "payment", "prefix": "egress_prefix", "asn": "egress_asn", "ja4": "ja4", "client": "client_build",
    "user_agent": "user_agent", "system": "system_prompt", "template": "template_opening",
    "tool_schema": "tool_schema", "referral": "referral", "contact": "contact_domain",
}  # fmt: skip
"""Kind of a daily row to kind of the linker; an account's organisation is its tenant, its creation a cohort."""
_SCHEMA = {"account": pl.UInt32, "kind": pl.UInt8, "value": pl.UInt64}


def linked(days: Iterator[DayRows], start_ts: float, options: CampaignOptions | None = None) -> Iterator[Revision]:
    """At the end of each day one alert a candidate that is new or has grown; ids are by its smallest account."""
    options = options or CampaignOptions()
    table = pl.DataFrame(schema=_SCHEMA)
    org = pl.DataFrame(schema={"account": pl.UInt64, "org": pl.UInt64})
    said: dict[int, tuple[int, int]] = {}
    for number, day in enumerate(days, 1):
        org = pl.concat([org, _values(day, "org").rename({"value": "org"})]).unique("account", keep="first")
        table = pl.concat([table, _mapped(day), _cohorts(day, start_ts)]).unique()
        # those who never called stand nowhere: counted as tenants they would make every coincidence a surprise
        org = org.sort("account")
        seen = org["account"].to_numpy()
        _, number_of = np.unique(org["org"].to_numpy(), return_inverse=True)
        tenant = number_of.astype(np.int32)
        place = pl.Series("account", np.searchsorted(seen, table["account"].to_numpy()).astype(np.uint32))
        links = table.with_columns(place, count=pl.lit(1, pl.Int64), first=pl.lit(0, pl.Int32))
        links = links.sort("account", "kind", "value")
        found = components(shared_values(links, tenant), tenant, len(seen), options.margin_bits)
        linked_rows = np.flatnonzero(found.label >= 0)
        members = pl.DataFrame(
            {"account": seen[linked_rows], "label": found.label[linked_rows], "tenant": tenant[linked_rows]}
        )
        groups = members.group_by("label").agg(pl.col("account").sort(), pl.col("tenant").n_unique())
        for _, who, tenants in groups.sort("label").iter_rows():
            revision, size = said.get(who[0], (0, 0))
            if tenants < options.least_tenants or len(who) <= size:
                continue
            said[who[0]] = (revision + 1, len(who))
            yield Revision(
                alert_id=f"linked/{who[0]}", kind="campaign", severity="high", revision=revision + 1,
                revised_at=start_ts + number * _DAY_S, accounts=[str(a) for a in who],
            )  # fmt: skip


def _values(day: DayRows, kind: str) -> pl.DataFrame:
    return day.links.filter(pl.col("kind") == LINKS.index(kind)).select("account", "value")


def _mapped(day: DayRows) -> pl.DataFrame:
    codes = {LINKS.index(ours): CODE[theirs] for ours, theirs in KINDS.items()}
    rows = day.links.filter(pl.col("kind").is_in([*codes]))
    kind = pl.col("kind").replace_strict(codes, return_dtype=pl.UInt8)
    return rows.select(pl.col("account").cast(pl.UInt32), kind, "value")


def _cohorts(day: DayRows, start_ts: float) -> pl.DataFrame:
    """Creation on the linker's two grids, counted from the first day."""
    since = ((day.accounts["created_s"].to_numpy() - start_ts) * 1000).astype(np.int64)
    grids = [(since + g * COHORT_MS // 2) // COHORT_MS * 2 + g for g in (0, 1)]
    account = np.tile(day.accounts["account"].to_numpy().astype(np.uint32), 2)
    value = np.concatenate(grids).view(np.uint64)
    return pl.DataFrame({"account": account, "kind": CODE["creation_cohort"], "value": value}, schema=_SCHEMA)
