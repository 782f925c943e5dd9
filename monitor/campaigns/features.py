"""Statistics of groups of accounts, one row a group: what rules over campaigns read, before calibration.

Candidates and calibration groups go through the same code. Shares are means over tenants, not over requests: one
busy account must not speak for its neighbours, and an attacker's thousand quiet accounts must not hide behind one.
Null stands for "not known".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import polars.selectors as cs

from monitor.campaigns.evidence import Witnesses
from monitor.campaigns.kinds import GROUPS
from monitor.campaigns.population import MODELS, Population
from monitor.campaigns.sums import COLUMN, NAMES

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

DIGITS = 6
"""Decimals that are kept. A grouped mean adds up in an order of its own, so its last bits differ from run to run; what
is compared and written must not."""
LEAST_TEXTS, LEAST_REQUESTS = 12, 12
"""Requests of a group below which a share of them says nothing."""
RATES: dict[str, tuple[str, str]] = {
    "harvest": ("n_harvest", "n_text"), "elicitation": ("lex_reasoning", "n_text"), "rubric": ("lex_rubric", "n_text"),
    "dataset": ("lex_dataset", "n_text"), "benchmark": ("lex_benchmark", "n_text"), "human": ("n_human", "n_text"),
    "question": ("question", "n_text"), "follow_up": ("n_follow", "n_turn"), "at_cap": ("n_cap", "n_cap_known"),
    "stream": ("n_stream", "n_stream_known"), "tools": ("n_tools", "requests"), "structured": ("n_json", "requests"),
    "batch": ("n_batch", "n_delivery"), "error": ("n_error", "requests"), "short": ("n_short", "n_ok"),
}  # fmt: skip
"""Rate of an account: (numerator, denominator) among the sums."""
_UNIFORM = ("follow_up", "at_cap", "stream", "tools", "structured", "log_in", "log_out")
_LEAST_UNIFORM = 5
"""Requests of an account without which its own mean says nothing."""
_CHANGED = ("harvest", "human", "question", "follow_up", "at_cap", "stream", "tools", "error", "log_in", "log_out")
_LEAST_CHANGED = 8
_DAY_MS = 86_400_000
_SAMPLE = 50_000
"""Accounts from which the population's variances are taken."""


@dataclass(slots=True)
class Rates:
    """Rates of the accounts ``rows`` (sorted), made once for all groups. ``now`` and ``before`` are NaN where one has
    nothing to divide by; ``mix`` [accounts, MODELS] shares of models of today; ``spread`` the variance over the
    whole population, by statistic."""

    rows: I64
    now: dict[str, F64]
    today: dict[str, F64]
    before: dict[str, F64]
    requests: F64
    mix: F64
    spread: dict[str, float]

    def position(self, account: npt.NDArray[np.uint32]) -> I64:
        """Where accounts stand in the arrays; all of them must be among ``rows``."""
        return np.searchsorted(self.rows, account).astype(np.int64)


def rates(population: Population, rows: I64, spread: dict[str, float]) -> Rates:
    """Rates over one to two days (``now``), since the last day began (``today``), and of all before (``before``), of
    the accounts ``rows`` (sorted)."""
    today, yesterday = population.today[rows], population.yesterday[rows]
    recent = today + yesterday
    return Rates(
        rows, _rates(recent), _rates(today), _rates(yesterday + population.past[rows]),
        recent[:, 0].astype(np.float64), _mix(today), spread,
    )  # fmt: skip


def population_spread(population: Population) -> dict[str, float]:
    """Variance over all accounts with enough requests, by statistic; of a large population over an even sample."""
    rows = np.arange(0, len(population), 1 + len(population) // _SAMPLE)
    now = _rates(population.today[rows] + population.yesterday[rows])
    enough = now["requests"] >= _LEAST_UNIFORM
    out = {}
    for c in _UNIFORM:
        values = now[c][enough]
        values = values[~np.isnan(values)]
        out[c] = float(values.var()) if len(values) > 1 else 0.0
    return out


def _column(sums: npt.NDArray[np.int32], name: str) -> F64:
    return sums[:, 0 if name == "requests" else 1 + COLUMN[name]].astype(np.float64)


def _rates(sums: npt.NDArray[np.int32]) -> dict[str, F64]:
    out = {name: _ratio(_column(sums, top), _column(sums, bottom)) for name, (top, bottom) in RATES.items()}
    for name in ("log_in", "log_out"):
        out[name] = _ratio(_column(sums, name), _column(sums, "requests")) / 8.0
    out["requests"] = _column(sums, "requests")
    out["texts"] = _column(sums, "n_text")
    return out


def _ratio(top: F64, bottom: F64) -> F64:
    return np.asarray(np.where(bottom > 0, top / np.maximum(bottom, 1.0), np.nan))


def _mix(sums: npt.NDArray[np.int32]) -> F64:
    counts = sums[:, 1 + len(NAMES) :].astype(np.float64)
    assert counts.shape[1] == MODELS
    return _ratio(counts, counts.sum(axis=1, keepdims=True))


def statistics(
    witnesses: Witnesses, population: Population, own: Rates, at_ms: int, new_model: int | None
) -> pl.DataFrame:
    """One row a group of ``witnesses.members``, in order of ``group``. ``new_model`` is the column of the model
    released within the last three days, None for none."""
    members = witnesses.members
    account = members["account"].to_numpy()
    at = own.position(account)
    tenant = population.tenant[account]
    wide = members.with_columns(
        tenant=pl.Series(tenant),
        _n=pl.Series(own.requests[at]),
        _texts=pl.Series(own.now["texts"][at]),
        **{f"_{name}": pl.Series(own.now[name][at], nan_to_null=True) for name in RATES},
        _template=pl.Series(_templated(members, population), nan_to_null=True),
        _age=pl.Series(np.where(population.created_ms[account] >= 0,
                                (at_ms - population.created_ms[account]) / _DAY_MS, np.nan), nan_to_null=True),
        _free=pl.Series(np.isin(population.billing[account], _FREE).astype(np.float64)),
        _invoiced=pl.Series((population.billing[account] == _INVOICED).astype(np.float64)),
        _billed=pl.Series(population.billing[account] > 0),
        _new=_new_model_share(own, at, new_model),
        **_changes(own, at),
        **_uniform(own, at),
    )  # fmt: skip
    active = pl.col("_n") > 0
    by_tenant = wide.lazy().group_by("group", "tenant").agg(
        pl.len().alias("_accounts"), pl.col("_n", "_texts").sum(),
        *(pl.col(f"_{name}").filter(active).mean() for name in (*RATES, "template", "new")),
        pl.col("_age").mean(), pl.col("_free", "_invoiced").filter(pl.col("_billed")).mean(),
        *(pl.col(g).max() for g in GROUPS), *(pl.col(f"d_{c}").mean() for c in _CHANGED),
        pl.col("attested_bits").max(), pl.col("link_bits").max(), pl.col("new_link").mean(),
        *(pl.col(f"u_{c}").mean() for c in _UNIFORM),
    )  # fmt: skip
    spread = own.spread
    texts, requests = pl.col("_texts").sum() >= LEAST_TEXTS, pl.col("_n").sum() >= LEAST_REQUESTS
    shares = [
        pl.when(texts if bottom == "n_text" else requests).then(pl.col(f"_{name}").mean()).alias(f"{name}_share")
        for name, (_, bottom) in RATES.items()
    ]  # fmt: skip
    return by_tenant.group_by("group").agg(
        pl.len().cast(pl.Float64).alias("tenants"), pl.col("_accounts").sum().cast(pl.Float64).alias("members"),
        pl.col("_n").sum().alias("requests_recent"), *shares,
        harvest_breadth=pl.when(texts).then((pl.col("_harvest") >= 0.1).mean()),
        template_share=pl.when(texts).then(pl.col("_template").mean()),
        age_days_median=pl.col("_age").median(), free_share=pl.col("_free").mean(),
        invoiced_share=pl.col("_invoiced").mean(),
        link_bits=pl.col("link_bits").median(), attested_share=(pl.col("attested_bits") > 0).mean(),
        **{f"{g}_link_share": (pl.col(g) > 0).mean() for g in GROUPS},
        link_groups=pl.sum_horizontal(((pl.col(g) > 0).mean() >= 0.5).cast(pl.Float64) for g in GROUPS),
        new_link_share=pl.col("new_link").mean(),
        new_model_share=pl.when(requests).then(pl.col("_new").mean()),
        change_z=pl.max_horizontal(_paired_z(pl.col(f"d_{c}")) for c in _CHANGED),
        uniformity=pl.mean_horizontal(_alike(pl.col(f"u_{c}"), spread[c]) for c in _UNIFORM),
    ).sort("group").with_columns(cs.float().round(DIGITS)).collect(engine="in-memory")  # fmt: skip


NAMES_OF_STATISTICS = (
    "tenants", "members", "requests_recent", *(f"{name}_share" for name in RATES), "harvest_breadth",
    "template_share", "age_days_median", "free_share", "invoiced_share", "link_bits", "attested_share",
    *(f"{g}_link_share" for g in GROUPS), "link_groups", "new_link_share", "new_model_share", "change_z", "uniformity",
)  # fmt: skip
"""Columns of :func:`statistics` after ``group``, in order."""


def _templated(members: pl.DataFrame, population: Population) -> F64:
    """Share of an account's requests that came in a shared template, of those with text that its links counted."""
    account = members["account"].to_numpy()
    texts = population.texts[account].astype(np.float64)
    return np.minimum(_ratio(members["templated_requests"].to_numpy().astype(np.float64), texts), 1.0)


def _new_model_share(own: Rates, at: I64, new_model: int | None) -> pl.Series:
    if new_model is None:
        return pl.Series(np.full(len(at), np.nan), nan_to_null=True)
    return pl.Series(own.mix[at, new_model], nan_to_null=True)


def _changes(own: Rates, at: I64) -> dict[str, pl.Series]:
    """What each account does today less what it did before; null where either is too little to tell."""
    told = (own.today["requests"] >= _LEAST_CHANGED) & (own.before["requests"] >= _LEAST_CHANGED)
    return {
        f"d_{c}": pl.Series(np.where(told, own.today[c] - own.before[c], np.nan)[at], nan_to_null=True)
        for c in _CHANGED
    }


def _paired_z(difference: pl.Expr) -> pl.Expr:
    """Mean of paired differences over its standard error, members as the unit; null under five."""
    count = difference.drop_nulls().len()
    error = difference.std() / count.cast(pl.Float64).sqrt() + 0.01
    return pl.when(count >= 5).then((difference.mean() / error).abs())


def _uniform(own: Rates, at: I64) -> dict[str, pl.Series]:
    enough = own.now["requests"] >= _LEAST_UNIFORM
    return {f"u_{c}": pl.Series(np.where(enough, own.now[c], np.nan)[at], nan_to_null=True) for c in _UNIFORM}


def _alike(value: pl.Expr, variance: float) -> pl.Expr:
    """1 where all are the same, 0 where they differ as the population does; null under three members."""
    if variance <= 0:
        return pl.lit(None, pl.Float64)
    count = value.drop_nulls().len()
    return pl.when(count >= 3).then((1.0 - value.var() / variance).clip(0.0, 1.0))


_FREE = (1, 2, 3)
_INVOICED = 5
"""Codes of ``fields.BILLING_TYPES``: free, trial and credit; invoiced."""
