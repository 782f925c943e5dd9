"""The campaign stage: blobs of all partitions in, one row for each candidate campaign out.

Each step takes the blobs in order of partition, brings the graph up to date when enough has changed, finds the
candidates, measures them and their calibration groups, and says who belongs to them. Everything is a function of
the blobs and of what the provider said; no clock is read. Severity and thresholds are the rules'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns import state
from monitor.campaigns.blob import StepBlob
from monitor.campaigns.calibrate import RANKED, calibration_groups, ranks
from monitor.campaigns.evidence import Witnesses, witnesses
from monitor.campaigns.features import NAMES_OF_STATISTICS, rates, statistics
from monitor.campaigns.graph import components, shared_values
from monitor.campaigns.kinds import CODE
from monitor.campaigns.members import Findings, findings
from monitor.campaigns.options import CampaignOptions, Facts, NoFacts
from monitor.campaigns.population import Population
from monitor.campaigns.registry import Registry
from monitor.campaigns.sync import observed_and_expected

I64 = npt.NDArray[np.int64]
_DAY_MS = 86_400_000
_BLOB = CODE["reasoning_blob"]
NEW_MODEL_MS = 3 * _DAY_MS
"""How long a model counts as new."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """``rows``: one for each candidate, ``subject`` its campaign id, ``tick`` the step, ``t_ms`` its end, and the
    statistics. ``findings``: by id, members and evidence. ``merged``: (id that ended, id that goes on)."""

    rows: pl.DataFrame
    findings: dict[str, Findings]
    merged: list[tuple[str, str]]


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

    def __post_init__(self) -> None:
        self.population = Population(self.options.step_s * 1000, self.options.link_days)
        self.registry = Registry()

    def step(self, step: int, blobs: Sequence[StepBlob], facts: Facts | None = None) -> Candidates | None:
        """Take a step's blobs (in order of partition); None where nothing is worth judging."""
        facts = facts or NoFacts()
        people = self.population
        people.add(step, blobs)
        self._release(step)
        for campaign in self.registry.campaigns.values():
            seen, expected, met = observed_and_expected(blobs, people.rows_of, set(campaign.accounts))
            campaign.sync = [campaign.sync[0] + seen, campaign.sync[1] + expected]
            if met:
                campaign.together = sorted({*campaign.together, *met} & set(campaign.accounts))
        if not self._due(step):
            return None
        people.compact(step)
        self.rebuilt, self.links_then = step, len(people.links)
        return self._judge(step, facts)

    def dump(self) -> bytes:
        """All state."""
        return state.dump(self)

    def load(self, blob: bytes) -> None:
        """Replace the state. Raises StateUnreadable."""
        state.load(self, blob)

    # ------------------------------------------------------------------------------------------------- inside

    def _due(self, step: int) -> bool:
        fresh = self.population.fresh_rows
        if not fresh:
            return False
        waited = (step - self.rebuilt) * self.options.step_s >= self.options.rebuild_s
        return self.rebuilt < 0 or waited or fresh >= max(64, self.options.growth * self.links_then)

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

    def _judge(self, step: int, facts: Facts) -> Candidates | None:
        people, options = self.population, self.options
        at_ms = (step + 1) * options.step_s * 1000
        n = len(people)
        tenant = people.tenant[:n]
        links = self._unsanctioned(facts, at_ms)
        shared = shared_values(links, tenant)
        found = components(shared, tenant, n, options.margin_bits)
        groups = [
            g for g in _members(found.label, found.count) if len(np.unique(tenant[g])) >= options.least_tenants
            or bool((shared.kind[shared.key[np.isin(shared.account, g)]] == _BLOB).any())
        ]  # fmt: skip
        merged = self.registry.update(groups, people.names, step)
        if not self.registry.campaigns:
            return Candidates(pl.DataFrame(), {}, merged) if merged else None
        ids = list(self.registry.campaigns)
        members = [np.array(c.accounts, np.int64) for c in self.registry.campaigns.values()]
        seen = people.first_ms[:n] // (options.step_s * 1000)
        day = _DAY_MS // (options.step_s * 1000)
        own = rates(people)
        new_model = self._new_model(step)

        def measured(frame: pl.DataFrame) -> tuple[Witnesses, pl.DataFrame]:
            w = witnesses(frame, shared, seen, day)
            return w, statistics(w, people, own, at_ms, new_model)

        witness, rows = measured(_frame(members))
        # Taken anew once an hour of event time: the ranks of an hour ago are as good, and cost half of the work.
        if self.reference is None or (step - self.calibrated) * options.step_s >= options.rebuild_s:
            _, self.reference = measured(calibration_groups(shared, found.label, options.calibration_groups))
            self.calibrated = step
        reference = self.reference
        rows = rows.with_columns(ranks(rows, reference, options.least_calibration).values())
        rows = rows.with_columns(*self._standing(members, facts, at_ms))
        together = [set(c.together) for c in self.registry.campaigns.values()]
        held = findings(ids, members, witness, rows, people, own, together)
        for campaign in ids:
            core = sum(m.tier == "core" for m in held[campaign].members)
            self.registry.note(campaign, step, core)
            held[campaign] = replace(held[campaign], history=tuple(self.registry.campaigns[campaign].history))
        rows = rows.with_columns(
            pl.Series("subject", ids), pl.lit(0, pl.Int32).alias("partition"), pl.lit(step, pl.Int64).alias("tick"),
            pl.lit(at_ms, pl.Int64).alias("t_ms"), pl.lit(None, pl.UInt8).alias("client_class"),
            pl.lit(float(len(reference))).alias("calibration_groups"),
        ).drop("group")  # fmt: skip
        return Candidates(rows, held, merged)

    def _unsanctioned(self, facts: Facts, at_ms: int) -> pl.DataFrame:
        """Links of everybody but those whose use is agreed: they join nobody."""
        agreed = facts.agreed(at_ms)
        if not agreed:
            return self.population.links
        people = self.population
        out = [i for i, name in enumerate(people.names) if name in agreed or people.tenants[people.tenant[i]] in agreed]
        return people.links.filter(~pl.col("account").is_in(np.array(out, np.uint32)))

    def _standing(self, members: Sequence[I64], facts: Facts, at_ms: int) -> list[pl.Series]:
        """What only the context and the step-wise counts tell: telemetry, replaced bans, coincidence in time."""
        people = self.population
        columns: dict[str, list[float | None]] = {
            c: [] for c in ("product_absent_share", "replacements", "sync_ratio", "sync_pairs")
        }
        for campaign, group in zip(self.registry.campaigns.values(), members, strict=True):
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
    "calibration_groups",
)  # fmt: skip
"""Statistics of a candidate, in order: the catalogue of campaigns lists the same."""
