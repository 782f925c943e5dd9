"""Conformal ranks: where a candidate's statistic lies among groups that nobody suspects, found by the same links.

A calibration group is everybody who shares one value (an address, a card, a day of creation, a contact domain) and
is in no candidate: firms, households, carriers, courses. Nothing was fitted on them, so under exchangeability the
share of them that reaches a statistic bounds its false-positive rate (Vovk et al. 2005). Candidates are left out of
their own reference, hence a campaign that was there from the first day does not become normal. Groups are ranked
within their size, since small groups vary more.
"""

from __future__ import annotations

import io
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns import opinions
from monitor.campaigns.graph import LEAST_SHARED, Shared
from monitor.campaigns.kinds import CODE
from monitor.pooled.conformal import Calibration, stratum

F64 = npt.NDArray[np.float64]

SIZES = (3, 5, 10)
"""Smallest number of tenants of each stratum."""
RANKED: dict[str, tuple[str, bool]] = {
    "harvest_quantile": ("harvest_share", True), "template_quantile": ("template_share", True),
    "impersonal_quantile": ("question_share", False), "uniformity_quantile": ("uniformity", True),
    "new_link_quantile": ("new_link_share", True), "pivot_quantile": ("new_model_share", True),
    "change_quantile": ("change_z", True), "at_cap_quantile": ("at_cap_share", True),
    "one_shot_quantile": ("follow_up_share", False), "tools_quantile": ("tools_share", True),
    "shape_quantile": ("shape_score", True),
    **{f"{name}_quantile": (name, True) for name in opinions.CODES[:-1]},
}  # fmt: skip
"""Rank: (statistic, whether high is suspicious)."""
BESIDE = ("residual_share", "shape_prompts")
"""What parts the strata of a shape: never ranked, and it ships beside the statistics that are."""
_FROM = [CODE[k] for k in ("payment", "egress_prefix", "egress_asn", "creation_cohort", "contact_domain", "referral")]
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def calibration_groups(shared: Shared, label: npt.NDArray[np.int64], most: int, largest: int = 200) -> pl.DataFrame:
    """Groups by one shared value, of accounts in no candidate: ``group`` (0 ...) and ``account``, at most ``most``."""
    usable = np.flatnonzero(np.isin(shared.kind, _FROM) & (shared.df <= largest))
    # a keyed order: which groups are kept must depend on neither size nor time
    place = shared.value[usable] * _SPREAD
    rank = np.full(len(shared.df), -1, np.int64)
    asked = most + most // 4
    while True:  # ever more of them, until enough have members: most links are of values that are not asked for
        kept = usable[_least(place, asked)]
        rank[kept] = np.arange(len(kept))
        rows = shared.rows_of(rank >= 0)
        rows = rows[label[shared.account[rows]] < 0]
        group = rank[shared.key[rows]]
        enough = np.flatnonzero(np.bincount(group, minlength=len(kept)) >= LEAST_SHARED)[:most]
        if len(enough) == most or asked >= len(usable):
            break
        asked *= 4
    number = np.full(len(kept), -1, np.int64)
    number[enough] = np.arange(len(enough))
    rows, group = rows[number[group] >= 0], number[group]
    frame = pl.DataFrame(
        {"group": group[group >= 0], "account": shared.account[rows]},
        schema={"group": pl.UInt32(), "account": pl.UInt32()},
    )
    return frame.sort("group", "account")


def _least(place: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.int64]:
    """Where the ``count`` smallest are, in order, the first of equals first. Most are never asked for: to sort all of
    them took a third of the time here."""
    if count >= len(place):
        return np.argsort(place, kind="stable")
    near = np.flatnonzero(place <= np.partition(place, count)[count])
    return near[np.argsort(place[near], kind="stable")][:count]


ENOUGH = 300
"""Live groups from which those that ship are not asked any more; until then they fill up to it."""
SHIPPED = "calibration.v1.csv"
_SHIPPED_COLUMNS = ["tenants", *(statistic for statistic, _ in RANKED.values()), *BESIDE]
_MODEL_DAY = ("new_model_share",)
"""Statistics of which only the same day's traffic says what is usual: what ships knows nothing of them."""


@cache
def shipped() -> pl.DataFrame:
    """Groups of honest simulated traffic: size and statistics, in the order in which they are asked."""
    body = resources.files("monitor.campaigns").joinpath(SHIPPED).read_bytes()
    columns = dict.fromkeys(_SHIPPED_COLUMNS, pl.Float64())
    return pl.read_csv(io.BytesIO(body), schema_overrides=columns)


def to_ship(reference: pl.DataFrame) -> bytes:
    """Groups as the file that ships."""
    kept = reference.select(_SHIPPED_COLUMNS)
    unknown = [pl.lit(None, pl.Float64()).alias(name) for name in _MODEL_DAY]
    return kept.with_columns(unknown).write_csv(float_precision=4).encode()


def with_shipped(reference: pl.DataFrame, allowed: bool) -> tuple[pl.DataFrame, int]:
    """The live groups, where allowed filled up to :data:`ENOUGH` by those that ship; how many of the latter."""
    wanted = max(0, ENOUGH - len(reference)) if allowed else 0
    if not wanted:
        return reference, 0
    others = shipped().head(wanted)
    return pl.concat([reference.select(others.columns), others]), len(others)


def ranks(candidates: pl.DataFrame, reference: pl.DataFrame, least: int) -> dict[str, pl.Series]:
    """Each rank of :data:`RANKED` for the candidates: the share of the reference that is less suspicious, 0 to 1.

    ``(below) / (n + 1)``: ties count against it. Null where the statistic is not known, or fewer than ``least``
    groups of its size (of any size, where those are too few) have one. A shape is ranked among groups of as many
    prompts (of any number, where those are too few) whose share without templates is alike, never among others: the
    slots of a pipeline's template and what people write have nothing in common.
    """
    own = _stratum(candidates["tenants"])
    theirs = _stratum(reference["tenants"])
    out = {}
    for name, (statistic, high) in RANKED.items():
        if statistic == "shape_score":
            out[name] = pl.Series(name, _shape_ranks(candidates, reference, least), nan_to_null=True)
            continue
        values, null = _numbers(candidates[statistic]), _numbers(reference[statistic])
        found = np.full(len(values), np.nan)
        everyone = np.sort(null[~np.isnan(null)])
        for s in range(len(SIZES)):
            pool = np.sort(null[(theirs == s) & ~np.isnan(null)])
            pool = pool if len(pool) >= least else everyone
            rows = np.flatnonzero((own == s) & ~np.isnan(values))
            if len(pool) >= least and len(rows):
                below = (
                    np.searchsorted(pool, values[rows], side="left")
                    if high else len(pool) - np.searchsorted(pool, values[rows], side="right")
                )  # fmt: skip
                found[rows] = below / (len(pool) + 1)
        out[name] = pl.Series(name, found, nan_to_null=True)
    return out


def _shape_ranks(candidates: pl.DataFrame, reference: pl.DataFrame, least: int) -> F64:
    # whose client is of which class is not known here: all are one
    strata = [stratum(np.zeros(len(f), np.int64), *(np.nan_to_num(_numbers(f[c])) for c in BESIDE))
              for f in (candidates, reference)]  # fmt: skip
    harmless = Calibration(_numbers(reference["shape_score"]), strata[1], least)
    return np.asarray(1.0 - harmless.p_values(_numbers(candidates["shape_score"]), strata[0]))


def _stratum(tenants: pl.Series) -> npt.NDArray[np.int64]:
    return np.searchsorted(np.array(SIZES), tenants.to_numpy(), side="right").astype(np.int64) - 1


def _numbers(values: pl.Series) -> F64:
    return np.asarray(values.to_numpy(), np.float64)  # null: NaN
