"""Statistics of groups of accounts, one row a group: what rules over campaigns read, before calibration.

Candidates and calibration groups go through the same code. Shares are means over tenants, not over requests: one
busy account must not speak for its neighbours, and an attacker's thousand quiet accounts must not hide behind one.
Null stands for "not known".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns import opinions, shapes
from monitor.campaigns.cut import Cut
from monitor.campaigns.evidence import Witnesses
from monitor.campaigns.kinds import GROUPS
from monitor.campaigns.population import Population
from monitor.campaigns.sums import PLACE

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


@dataclass(frozen=True, slots=True)
class Ratios:
    """Rates by name (:data:`RATES`, ``log_in``, ``log_out``, ``requests``, ``texts``) from sums [accounts, PLACE] that
    are added up, of those accounts that are asked for: made for all at once they took 150 of 1,600 MB with 103,000
    accounts. NaN where there is nothing to divide by."""

    parts: Sequence[npt.NDArray[np.int32]]

    def of(self, name: str, account: I64 | slice) -> F64:
        """One rate of these accounts: [accounts]."""
        if name in RATES:
            top, bottom = RATES[name]
            return _ratio(self._sum(top, account), self._sum(bottom, account))
        if name in ("log_in", "log_out"):
            return _ratio(self._sum(name, account), self._sum("requests", account)) / 8.0
        return self._sum("n_text" if name == "texts" else name, account)

    def _sum(self, name: str, account: I64 | slice) -> F64:
        place = PLACE[name]
        first, *others = (part[account, place] for part in self.parts)
        return np.asarray(sum(others, first), np.float64)


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates over one to two days (``now``), since the last day began (``today``), and of all before (``before``);
    ``spread``: the variance over the whole population, by statistic; ``shape(accounts)``: see
    :meth:`Population.shape_of`."""

    now: Ratios
    today: Ratios
    before: Ratios
    spread: dict[str, float]
    shape: Callable[[I64], I64]

    def drawn(self, account: I64) -> Rates:
        """Those of a few accounts alone, in this order, column by column in memory: each column is read many times, and
        to look for it in everybody's rows took a tenth of a rebuild."""
        rates = self.now, self.today, self.before
        table = {id(part): np.asfortranarray(np.take(part, account, axis=0)) for each in rates for part in each.parts}
        now, today, before = (Ratios([table[id(part)] for part in each.parts]) for each in rates)
        return replace(self, now=now, today=today, before=before)


def rates(population: Population, spread: dict[str, float]) -> Rates:
    """Rates of the population's accounts, as it stands."""
    today, yesterday = population.today, population.yesterday
    return Rates(Ratios([today, yesterday]), Ratios([today]), Ratios([yesterday, population.past]), spread,
                 population.shape_of)  # fmt: skip


def population_spread(population: Population) -> dict[str, float]:
    """Variance over all accounts with enough requests, by statistic; of a large population over an even sample."""
    rows = np.arange(0, len(population), 1 + len(population) // _SAMPLE)
    now = Ratios([population.today, population.yesterday])
    rows = rows[now.of("requests", rows) >= _LEAST_UNIFORM]
    out = {}
    for c in _UNIFORM:
        values = now.of(c, rows)
        values = values[~np.isnan(values)]
        out[c] = float(values.var()) if len(values) > 1 else 0.0
    return out


def _ratio(top: F64, bottom: F64) -> F64:
    return np.asarray(np.where(bottom > 0, top / np.maximum(bottom, 1.0), np.nan))


def statistics(
    witnesses: Witnesses, population: Population, own: Rates, at_ms: int, new_model: int | None
) -> pl.DataFrame:
    """One row a group of ``witnesses.members``, in order of ``group``. ``new_model`` is the column of the model
    released within the last three days, None for none."""
    members = witnesses.members
    account, group = (members[name].to_numpy().astype(np.int64) for name in ("account", "group"))
    tenant = population.tenant[account]
    order = np.lexsort((tenant, group))
    account, group, tenant = account[order], group[order], tenant[order]
    # A tenant's accounts first, then a group's tenants.
    by_tenant = Cut.where((group[1:] != group[:-1]) | (tenant[1:] != tenant[:-1]), len(group))
    firsts = group[by_tenant.begin]
    by_group = Cut.where(firsts[1:] != firsts[:-1], len(firsts))
    column = _by_tenant(by_tenant, members[order], population, own, at_ms, new_model)
    mean = {name: by_group.mean(each) for name, each in column.items()}
    linked = by_tenant.largest(members.select(*GROUPS, "attested_bits", "link_bits").to_numpy()[order])
    share = by_group.mean(np.asarray(linked > 0, np.float64))
    # who shares no card because cards are not logged does not have one of his own
    share[:, _PAYMENT] = np.where(mean["paid"] >= 0.5, share[:, _PAYMENT], np.nan)
    sent = [own.now.of(name, account) for name in ("texts", "requests")]
    counts = by_tenant.total(np.column_stack([*sent, np.ones(len(account))]))
    texts, requests, people = by_group.total(counts).T
    texts_tell, requests_tell = texts >= LEAST_TEXTS, requests >= LEAST_REQUESTS
    harvest = column["harvest"]
    shape = shapes.statistics(by_group, by_tenant.total_of(own.shape, account))
    said = opinions.statistics(by_tenant, by_group, population.opinion_of(account))
    # a mean of tenths may lie a bit below a tenth
    broad = by_group.mean(np.where(np.isnan(harvest), np.nan, harvest > _HARVESTS - 1e-9))
    columns = {
        "tenants": by_group.size.astype(np.float64), "members": people, "requests_recent": requests,
        **{f"{n}_share": np.where(texts_tell if bottom == "n_text" else requests_tell, mean[n], np.nan)
           for n, (_, bottom) in RATES.items()},
        "harvest_breadth": np.where(texts_tell, broad, np.nan),
        "template_share": np.where(texts_tell, mean["template"], np.nan),
        "age_days_median": by_group.median(column["age"]), "free_share": mean["free"],
        "invoiced_share": mean["invoiced"], "link_bits": by_group.median(linked[:, -1]),
        "attested_share": share[:, -2], **{f"{g}_link_share": share[:, i] for i, g in enumerate(GROUPS)},
        "link_groups": (share[:, : len(GROUPS)] >= 0.5).sum(axis=1).astype(np.float64),
        "new_link_share": mean["new_link"], "new_model_share": np.where(requests_tell, mean["new"], np.nan),
        "change_z": _change(by_group, np.column_stack([column[f"d_{c}"] for c in _CHANGED])),
        "uniformity": _uniformity(by_group, {c: column[f"u_{c}"] for c in _UNIFORM}, own.spread),
        **{name: shape[:, i] for i, name in enumerate(shapes.STATISTICS)},
        **{name: said[:, i] for i, name in enumerate(opinions.STATISTICS)},
    }  # fmt: skip
    made = np.round(np.column_stack(list(columns.values())), DIGITS)
    frame = pl.from_numpy(made, schema=list(columns)).with_columns(pl.all().fill_nan(None))
    return frame.insert_column(0, pl.Series("group", firsts[by_group.begin], dtype=members.schema["group"]))


NAMES_OF_STATISTICS = (
    "tenants", "members", "requests_recent", *(f"{name}_share" for name in RATES), "harvest_breadth",
    "template_share", "age_days_median", "free_share", "invoiced_share", "link_bits", "attested_share",
    *(f"{g}_link_share" for g in GROUPS), "link_groups", "new_link_share", "new_model_share", "change_z", "uniformity",
    *shapes.STATISTICS, *opinions.STATISTICS,
)  # fmt: skip
"""Columns of :func:`statistics` after ``group``, in order."""


def _by_tenant(
    by_tenant: Cut, members: pl.DataFrame, population: Population, own: Rates, at_ms: int, new_model: int | None
) -> dict[str, F64]:  # fmt: skip
    """Means of :func:`_own` over each tenant, some tenants at a time and column by column: of all at once there were
    five copies, 250 of 1,680 MB with 103,000 accounts."""
    parts = [
        {name: part.mean(each) for name, each in _own(members[rows], population, own, at_ms, new_model)}
        for part, rows in by_tenant.parts()
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _own(
    members: pl.DataFrame, population: Population, own: Rates, at_ms: int, new_model: int | None
) -> Iterator[tuple[str, F64]]:
    """What each member's own requests and account say, name by name; NaN where it is not known."""
    account = members["account"].to_numpy().astype(np.int64)
    billing, created = population.billing[account], population.created_ms[account]
    mine, every = own.drawn(account), slice(None)
    requests = mine.now.of("requests", every)
    idle = requests <= 0
    for name in RATES:
        yield name, np.where(idle, np.nan, mine.now.of(name, every))
    templated = members["templated_requests"].to_numpy().astype(np.float64)
    # of the requests with text that an account's links counted
    shared = np.minimum(_ratio(templated, population.texts[account].astype(np.float64)), 1.0)
    yield "template", np.where(idle, np.nan, shared)
    share = np.full(len(account), np.nan)
    if new_model is not None:
        served = population.by_model[account].astype(np.float64)
        share = np.where(idle, np.nan, _ratio(served[:, new_model], served.sum(axis=1)))
    yield "new", share
    yield "age", np.where(created >= 0, (at_ms - created) / _DAY_MS, np.nan)
    yield "free", np.where(billing > 0, np.isin(billing, _FREE), np.nan)
    yield "invoiced", np.where(billing > 0, billing == _INVOICED, np.nan)
    yield "paid", population.paid(account).astype(np.float64)
    yield "new_link", members["new_link"].to_numpy().astype(np.float64)
    told = np.all([each.of("requests", every) >= _LEAST_CHANGED for each in (mine.today, mine.before)], axis=0)
    for name in _CHANGED:
        yield f"d_{name}", np.where(told, mine.today.of(name, every) - mine.before.of(name, every), np.nan)
    for name in _UNIFORM:
        yield f"u_{name}", np.where(requests >= _LEAST_UNIFORM, mine.now.of(name, every), np.nan)


def _change(by_group: Cut, difference: F64) -> F64:
    """The largest z of what tenants do today less what they did before [tenants, columns], by paired differences: the
    mean over its standard error. Unknown under five."""
    known = by_group.known(difference)
    error = np.sqrt(by_group.variance(difference)) / np.sqrt(np.maximum(known, 1.0)) + 0.01
    z = np.where(known >= 5, np.abs(by_group.mean(difference) / error), np.nan)
    return np.asarray(np.fmax.reduce(z, axis=1))


def _uniformity(by_group: Cut, own: Mapping[str, F64], spread: Mapping[str, float]) -> F64:
    """1 where all tenants are the same, 0 where they differ as the population does, over what three of them tell."""
    names = [c for c in own if spread[c] > 0]
    if not names:
        return np.full(len(by_group.begin), np.nan)
    values = np.column_stack([own[c] for c in names])
    alike = np.clip(1.0 - by_group.variance(values) / np.array([spread[c] for c in names]), 0.0, 1.0)
    tells = by_group.known(values) >= 3
    return _ratio(np.where(tells, alike, 0.0).sum(axis=1), tells.sum(axis=1).astype(np.float64))


_HARVESTS = 0.1
"""Share of a tenant's requests with text that harvest, from which it counts toward the breadth of a group."""
_PAYMENT = GROUPS.index("payment")
_FREE = (1, 2, 3)
_INVOICED = 5
"""Codes of ``fields.BILLING_TYPES``: free, trial and credit; invoiced."""
