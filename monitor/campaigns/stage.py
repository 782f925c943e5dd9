"""The campaign stage: blobs of all partitions in, one row for each candidate campaign out.

Each step takes the blobs in order of partition, brings the graph up to date when enough has changed, finds the
candidates, measures them and their calibration groups, and says who belongs to them. Everything is a function of
the blobs and of what the provider said; no clock is read. Severity and thresholds are the rules'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns import state
from monitor.campaigns.adopt import TABLE, adopted, held_by_all, latecomers, shared_of, values_of
from monitor.campaigns.blob import StepBlob
from monitor.campaigns.calibrate import RANKED, calibration_groups, ranks, with_shipped
from monitor.campaigns.evidence import Witnesses, witnesses
from monitor.campaigns.features import NAMES_OF_STATISTICS, Rates, population_spread, rates, statistics
from monitor.campaigns.graph import Shared, components, shared_values
from monitor.campaigns.kinds import CODE
from monitor.campaigns.members import Findings, code_of, findings
from monitor.campaigns.options import CampaignOptions, Facts, KnownCorpus, NoFacts
from monitor.campaigns.population import Population
from monitor.campaigns.registry import Campaign, Registry
from monitor.campaigns.reunite import reunited
from monitor.campaigns.sharding import STATISTICS, columns_of, reading, sweeps
from monitor.campaigns.sync import Activity, activity, observed_and_expected

I64 = npt.NDArray[np.int64]
_DAY_MS = 86_400_000
_BLOB = CODE["reasoning_blob"]
NEW_MODEL_MS = 3 * _DAY_MS
"""How long a model counts as new."""
_SMALL = 100_000
"""Links up to which a rebuild (20 microseconds a link) is cheap whenever it comes."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """``rows``: one for each candidate, ``subject`` its campaign id, ``tick`` the step, ``t_ms`` its end, and the
    statistics. ``findings``: by id, members and evidence. ``merged``: (id that ended, id that goes on). ``whole``: all
    candidates are there, not just those with news."""

    rows: pl.DataFrame
    findings: dict[str, Findings]
    merged: list[tuple[str, str]]
    whole: bool = True


@dataclass(slots=True)
class CampaignStage:
    """State: everybody's sums and links, the campaigns that live, and when the graph was last rebuilt."""

    options: CampaignOptions = field(default_factory=CampaignOptions)
    population: Population = field(init=False)
    registry: Registry = field(init=False)
    rebuilt: int = -1
    links_then: int = 0
    model_seen: dict[str, int] = field(default_factory=dict)
    reference: pl.DataFrame | None = None
    calibrated: int = -1
    values: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TABLE))
    """What the campaigns' values were worth at the last rebuild; ``campaign`` is their place in the registry."""
    honest: bool = False
    """Everybody is known to be honest, candidates too: so a calibration that ships is measured."""
    on_reference: Callable[[int, pl.DataFrame], None] | None = None
    """Told of each new set of calibration groups, with its step."""
    corpora: Mapping[int, KnownCorpus] = field(default_factory=dict)
    """Those whose names and sizes are known, by bit."""
    tenants: int = 0
    spread: dict[str, float] = field(default_factory=dict)
    """Of the last rebuild: how many tenants there were, and the population's variances."""

    def __post_init__(self) -> None:
        self.population = Population(self.options.step_s * 1000, self.options.link_days)
        self.registry = Registry()

    def step(self, step: int, blobs: Sequence[StepBlob], facts: Facts | None = None) -> Candidates | None:
        """Take a step's blobs (in order of partition); None where nothing is worth judging."""
        facts = facts or NoFacts()
        people = self.population
        acting = activity(blobs, people.add(step, blobs))
        self._release(step)
        if acting is not None:
            self._coincide(acting)
        if not self._due(step):
            return None if acting is None else self._between(step, np.unique(acting.rows), facts)
        people.compact(step)
        self.rebuilt, self.links_then = step, len(people.links)
        return self._rebuild(step, facts)

    def dump(self) -> bytes:
        """All state."""
        return state.dump(self)

    def load(self, blob: bytes) -> None:
        """Replace the state. Raises StateUnreadable."""
        state.load(self, blob)

    # ------------------------------------------------------------------------------------------------- inside

    def _coincide(self, step: Activity) -> None:
        """Count who of each campaign met in this step's ticks."""
        label = np.full(len(self.population), -1, np.int64)
        campaigns = list(self.registry.campaigns.values())
        for number, campaign in enumerate(campaigns):
            label[campaign.accounts] = number
        of_row = label[step.rows]
        for number in np.unique(of_row[of_row >= 0]).tolist():
            campaign = campaigns[number]
            seen, expected, met = observed_and_expected(step, of_row == number)
            campaign.sync = [campaign.sync[0] + seen, campaign.sync[1] + expected]
            if met:
                campaign.together = sorted({*campaign.together, *met} & set(campaign.accounts))

    def _due(self, step: int) -> bool:
        fresh = self.population.fresh_rows
        if not fresh:
            return False
        waited = (step - self.rebuilt) * self.options.step_s >= self.options.rebuild_s
        # While a large population is first seen every step brings more than 5 % of new links: 64 rebuilds in 90 steps
        # of 40,000 accounts, half of the whole pipeline's time. Latecomers are adopted in between.
        patience = min(max(self.links_then / _SMALL, 1.0), 5.0)
        return self.rebuilt < 0 or waited or fresh >= max(64, patience * self.options.growth * self.links_then)

    def _release(self, step: int) -> None:
        for model in self.population.models:
            # a model that was there in the first hour of the stream is not new
            early = step - self.population.first_step < 3_600 // self.options.step_s
            self.model_seen.setdefault(model, -1 if early else step)

    def _new_model(self, step: int) -> int | None:
        """Column of the newest model that appeared within three days."""
        span = NEW_MODEL_MS // (self.options.step_s * 1000)
        recent = [(s, m) for m, s in self.model_seen.items() if s >= 0 and step - s <= span]
        return self.population.model_column(max(recent)[1]) if recent else None

    def _rebuild(self, step: int, facts: Facts) -> Candidates | None:
        """The graph anew: who belongs together, what their values are worth, and everybody judged."""
        people, options = self.population, self.options
        at_ms = (step + 1) * options.step_s * 1000
        n = len(people)
        tenant = people.tenant[:n]
        agreed = self._agreed(facts, at_ms)
        links, numbers = people.links, people.numbers
        if len(agreed):
            free = ~np.isin(links["account"].to_numpy(), agreed)
            links, numbers = links.filter(free), numbers and numbers.where(free)
        shared = shared_values(links, tenant, numbers=numbers)
        found = components(shared, tenant, n, options.margin_bits)
        groups = [
            g for g in _members(found.label, found.count) if len(np.unique(tenant[g])) >= options.least_tenants
            or bool((shared.of(g)["kind"] == _BLOB).any())
        ]  # fmt: skip
        values = values_of(groups, shared, tenant)
        whole = reunited(groups, values, shared, found, options.margin_bits)
        if len(whole) < len(groups):
            groups, values = whole, values_of(whole, shared, tenant)
        before = np.array([a for c in self.registry.campaigns.values() for a in c.accounts], np.int64)
        joined = latecomers(values, groups, shared, found, options.margin_bits, before)
        label = found.label.copy()
        for number, account in joined.select("campaign", "account").iter_rows():
            groups[number] = np.append(groups[number], account)
            label[account] = found.count
        groups = [np.sort(g) for g in groups]
        number_of = {int(a): i for i, g in enumerate(groups) for a in g[:1]}
        merged = self.registry.update(groups, people.names, step)
        order = {number_of[c.accounts[0]]: i for i, c in enumerate(self.registry.campaigns.values())}
        self.values = values.with_columns(
            pl.col("campaign").replace_strict(order, return_dtype=pl.Int64)
        ).sort("campaign", "kind", "value") if order else values  # fmt: skip
        self.tenants = shared.tenants
        self.spread = population_spread(people)
        # Taken anew once an hour of event time: the ranks of an hour ago are as good, and cost half of the work.
        if self.reference is None or (step - self.calibrated) * options.step_s >= options.rebuild_s:
            suspected = np.full(n, -1, np.int64) if self.honest else label
            frame = calibration_groups(shared, suspected, options.calibration_groups)
            _, self.reference = self._measured(frame, shared, rates(people, self.spread), step, suspects=self.honest)
            self.calibrated = step
            if self.on_reference is not None:
                self.on_reference(step, self.reference)
        if not self.registry.campaigns:
            return Candidates(pl.DataFrame(), {}, merged) if merged else None
        campaigns = list(self.registry.campaigns.values())
        return self._judge(campaigns, shared, rates(people, self.spread), merged, step, facts)

    def _between(self, step: int, active: I64, facts: Facts) -> Candidates | None:
        """Between two rebuilds: who joins a known campaign by values it had then, and members whose tier may change."""
        people, campaigns = self.population, list(self.registry.campaigns.values())
        if not campaigns or not len(active):
            return None
        label = np.full(len(people), -1, np.int64)
        settled = np.zeros(len(people), np.bool_)
        for number, campaign in enumerate(campaigns):
            label[campaign.accounts] = number
            settled[campaign.core] = True
        at_ms = (step + 1) * self.options.step_s * 1000
        stranger = active[label[active] < 0]
        touched = set(label[active[(label[active] >= 0) & ~settled[active]]].tolist())
        hit = people.holding(stranger, self.values["value"]) if len(stranger) else stranger
        hit = hit[~np.isin(hit, self._agreed(facts, at_ms))]
        if len(hit):
            for account, number in adopted(self.values, people.links_of(hit), self.options.margin_bits).iter_rows():
                campaigns[number].accounts = sorted([*campaigns[number].accounts, account])
                touched.add(number)
        if not touched:
            return None
        chosen = [campaigns[number] for number in sorted(touched)]
        rows = np.unique(np.concatenate([np.array(c.accounts, np.int64) for c in chosen]))
        known = self.values.filter(pl.col("campaign").is_in(sorted(touched)))
        shared = shared_of(known, people.links_of(rows), people.tenant[: len(people)], self.tenants)
        return self._judge(chosen, shared, rates(people, self.spread), [], step, facts, whole=False)

    def _measured(
        self, frame: pl.DataFrame, shared: Shared, own: Rates, step: int, suspects: bool
    ) -> tuple[Witnesses, pl.DataFrame]:
        people, step_ms = self.population, self.options.step_s * 1000
        first, suspect = people.first_ms[: len(people)] // step_ms, held_by_all(self.values, shared)
        w = witnesses(frame, shared, first, _DAY_MS // step_ms, suspect, suspects)
        return w, statistics(w, people, own, (step + 1) * step_ms, self._new_model(step))

    def _judge(
        self, chosen: Sequence[Campaign], shared: Shared, own: Rates, merged: list[tuple[str, str]], step: int,
        facts: Facts, whole: bool = True,
    ) -> Candidates:  # fmt: skip
        people, options = self.population, self.options
        at_ms = (step + 1) * options.step_s * 1000
        ids = [c.id for c in chosen]
        members = [np.array(c.accounts, np.int64) for c in chosen]
        witness, rows = self._measured(_frame(members), shared, own, step, suspects=True)
        assert self.reference is not None
        reference, shipped = with_shipped(self.reference, options.shipped_calibration)
        rows = rows.with_columns(ranks(rows, reference, options.least_calibration).values())
        rows = rows.with_columns(*self._standing(chosen, facts, at_ms))
        asked = sweeps(members, people.tenant[: len(people)], people.corpora, self.corpora)
        rows = rows.with_columns(columns_of(asked))
        held = findings(
            ids, members, witness, rows, people, own, [set(c.together) for c in chosen], [a.members for a in asked],
            [reading(a, self.corpora) for a in asked], [c.cores() for c in chosen],
        )  # fmt: skip
        for campaign in chosen:
            core = {people.row_of(m.account): m.families for m in held[campaign.id].members if m.tier == "core"}
            campaign.core = sorted(core)
            campaign.core_families = [code_of(core[row]) for row in campaign.core]
            self.registry.note(campaign.id, step, len(core))
            held[campaign.id] = replace(held[campaign.id], history=tuple(campaign.history))
        rows = rows.with_columns(
            pl.Series("subject", ids), pl.lit(0, pl.Int32).alias("partition"), pl.lit(step, pl.Int64).alias("tick"),
            pl.lit(at_ms, pl.Int64).alias("t_ms"), pl.lit(None, pl.UInt8).alias("client_class"),
            pl.lit(float(len(reference))).alias("calibration_groups"),
            pl.lit(float(shipped)).alias("calibration_shipped"),
        ).drop("group")  # fmt: skip
        return Candidates(rows, held, merged, whole)

    def _agreed(self, facts: Facts, at_ms: int) -> npt.NDArray[np.uint32]:
        """Rows of accounts whose use is agreed: they join nobody."""
        agreed = facts.agreed(at_ms)
        people = self.population
        if not agreed:
            return np.zeros(0, np.uint32)
        out = [i for i, name in enumerate(people.names) if name in agreed or people.tenants[people.tenant[i]] in agreed]
        return np.array(out, np.uint32)

    def _standing(self, chosen: Sequence[Campaign], facts: Facts, at_ms: int) -> list[pl.Series]:
        """What only the context and the step-wise counts tell: telemetry, replaced bans, coincidence in time."""
        people = self.population
        columns: dict[str, list[float | None]] = {
            c: [] for c in ("product_absent_share", "replacements", "sync_ratio", "sync_pairs")
        }
        for campaign in chosen:
            group = np.array(campaign.accounts, np.int64)
            names = [people.names[a] for a in group.tolist()]
            absent = None
            if facts.knows("product_seen"):
                absent = float(np.mean([facts.product_seen_ms(name, at_ms) is None for name in names]))
            columns["product_absent_share"].append(absent)
            columns["replacements"].append(self._replacements(group, names, facts, at_ms))
            seen, expected = campaign.sync
            columns["sync_pairs"].append(seen)
            columns["sync_ratio"].append(seen / expected if expected >= 0.5 else None)
        return [pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items()]

    def _replacements(self, group: I64, names: Sequence[str], facts: Facts, at_ms: int) -> float | None:
        """Bans of members after which another member was made within six hours."""
        if not facts.knows("account_banned"):
            return None
        made = np.sort(self.population.created_ms[group])
        bans = [ms for name in names if (ms := facts.banned_ms(name, at_ms)) is not None]
        return float(sum(bool(((made > b) & (made <= b + 6 * 3_600_000)).any()) for b in bans))


def _members(label: I64, count: int) -> list[I64]:
    order = np.argsort(label, kind="stable")
    edges = np.searchsorted(label[order], np.arange(count + 1))
    return [order[a:b] for a, b in pairwise(edges)]


def _frame(groups: Sequence[I64]) -> pl.DataFrame:
    numbers = np.repeat(np.arange(len(groups), dtype=np.uint32), [len(g) for g in groups])
    return pl.DataFrame({"group": numbers, "account": np.concatenate(groups).astype(np.uint32)})


COLUMNS = (
    *NAMES_OF_STATISTICS, *RANKED, "product_absent_share", "replacements", "sync_ratio", "sync_pairs",
    *STATISTICS, "calibration_groups", "calibration_shipped",
)  # fmt: skip
"""Statistics of a candidate, in order: the catalogue of campaigns lists the same."""
