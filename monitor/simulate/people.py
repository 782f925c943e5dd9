"""Everybody in a run: ordinary accounts, the scenarios' beside them, who is banned and who takes his place.

The log of requests (:mod:`world`) and the daily rows (:mod:`daily`) are drawn from the same people. Knows nothing
of requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .arrivals import DAY, least_attendance
from .draws import I64, mix, salt, stream
from .population import Accounts, Crowd, copy_links, make_group, size_of
from .scenario import Group, Scenario

_MOST_ABSENT = 50
"""Accounts made for one that must come, at most."""


@dataclass(frozen=True, slots=True)
class Cast:
    """One scenario's part in the run: its accounts' rows in the table, and the count beside the population."""

    scenario: Scenario
    name: str
    rows: I64
    population: int

    @property
    def ratio(self) -> str:
        """campaign : population, as it is printed beside every figure."""
        return f"{len(self.rows)} : {self.population}"


class People:
    """Accounts of ``everyone`` (the background first, then scenarios) over ``days`` days from ``first_s``.

    ``accounts`` is the table, ``groups`` what each ``accounts.group`` means, ``casts`` the scenarios' rows,
    ``bans`` (row, second) of each ban, ``own_asn`` the autonomous system of egress prefixes that a scenario's
    pool fixes. ``heavy_cap`` bounds the requests a day of accounts whose rate is given by quantiles. Table order
    says nothing: ids are hashes. ``absent_count``: accounts that stay away all the while count toward a scenario's
    ``min_accounts`` too.
    """

    def __init__(
        self,
        everyone: Sequence[Scenario],
        accounts: int,
        days: float,
        seed: int,
        first_s: float,
        heavy_cap: float | None = None,
        absent_count: bool = False,
    ):
        self.seed, self.days, self.population, self.first_s = seed, days, accounts, first_s
        self._absent_count = absent_count
        self.end_s = first_s + days * DAY
        groups = [g for s in everyone for g in s.groups]
        if heavy_cap is not None:
            groups = [_capped(g, heavy_cap) if g.rate.quantiles else g for g in groups]
        self.groups = groups
        # a framed customer is honest in a scenario that attacks
        self.hostile = [
            s.kind in ("attack", "grey", "poison") and (g.actor or s.actor) != "benign"
            for s in everyone for g in s.groups
        ]  # fmt: skip
        links = [g.links for g in groups]
        self.channels = _names(c for x in links for c in x.channels)
        self.plans = _names(c for x in links for c in x.plans)
        self.billings = _names(c for x in links for c in x.billing)
        self.bans: list[tuple[int, float]] = []
        self.own_asn: dict[int, int] = {}
        self.casts: list[Cast] = []
        self.accounts = self._people(everyone)
        _give_shares(self.accounts, groups)

    def _people(self, everyone: Sequence[Scenario]) -> Accounts:
        crowd = Crowd(self.seed, self.days, self.first_s, self.population, self.channels, self.plans,
                      self.billings)  # fmt: skip
        blocks: list[Accounts] = []
        number, total = 0, 0
        ordinary: Accounts | None = None
        for position, scenario in enumerate(everyone):
            size = self.population if position == 0 else size_of(scenario, self.population)
            made: dict[str, Accounts] = {}
            for group in scenario.groups:
                group = self.groups[number]
                n = max(1, round(size * group.share))
                if position > 0 and not self._absent_count:
                    n = self._enough(scenario, group, n, total)
                block = make_group(scenario, group, number, n, crowd, f"{position}/{scenario.id}/{group.name}")
                source = ordinary if group.links.copy_from == "background" else made.get(group.links.copy_from or "")
                if source is not None:
                    copy_links(block, np.arange(n), source, self.seed)
                if group.hijack and ordinary is not None:
                    _hijack(block, ordinary, self.seed)
                if group.evasion.bans_per_day > 0:
                    block = self._replace(block, group, total)
                if group.links.asns is not None:
                    self._asns_of(block, group, scenario)
                made[group.name] = block
                blocks.append(block)
                total += len(block)
                number += 1
            if position == 0:
                # one table from here on: a million accounts twice would be half a gigabyte
                ordinary = Accounts.join(blocks)
                blocks = [ordinary]
            else:
                rows = np.arange(total - sum(len(b) for b in made.values()), total)
                self.casts.append(Cast(scenario, f"{scenario.id.lower()}-{position - 1}", rows, self.population))
        return Accounts.join(blocks) if len(blocks) > 1 else blocks[0]

    def _enough(self, scenario: Scenario, group: Group, n: int, offset: int) -> int:
        """At least ``n`` accounts, from row ``offset`` on, so many that the group's part of ``min_accounts`` come on a
        whole day of the scenario. A month cut to two days would leave four accounts of a third of the days one or none.
        """
        begin, end = scenario.span(self.first_s, self.days)
        days = range(int(-(-begin // DAY)), int(end // DAY))
        least, active = max(1, round(scenario.min_accounts * group.share)), group.arrivals.active_days
        if active == 1.0 or not days:
            return n
        most = max(n, int(_MOST_ABSENT * least))
        comes = np.cumsum(least_attendance(self.seed, days, offset + most)[offset:] < active)
        return min(most, max(n, int(np.searchsorted(comes, least)) + 1))

    def _asns_of(self, block: Accounts, group: Group, scenario: Scenario) -> None:
        """A pool of egress networks lies in few autonomous systems, ones that ordinary customers use too."""
        key = salt(self.seed, "asns", scenario.id, group.name)
        for prefix in np.unique(block.network >> 8).tolist():
            self.own_asn[prefix] = int(mix(prefix, key) % np.uint64(group.links.asns or 1)) * 7 % 160

    def _replace(self, block: Accounts, group: Group, offset: int) -> Accounts:
        """Banned accounts and the ones that take their place soon after, with the same habits and links."""
        rng = stream(self.seed, "bans", group.name, offset)
        generations, last = [block], block
        while True:
            banned = last.start_s + rng.exponential(DAY / group.evasion.bans_per_day, len(last))
            hit = np.flatnonzero(banned < np.minimum(last.end_s, self.end_s) - 3600)
            base = offset + sum(len(g) for g in generations[:-1])
            self.bans += [(base + int(i), float(banned[i])) for i in hit]
            if not len(hit):
                return Accounts.join(generations)
            fresh = _take(last, hit)
            last.end_s[hit] = banned[hit]
            pause = group.evasion.replace_minutes * 60 * (0.3 + 1.4 * rng.random(len(hit)))
            fresh.account = mix(fresh.account, salt(self.seed, "successor")).astype(np.int64)
            fresh.org = mix(fresh.org, salt(self.seed, "successor")).astype(np.int64)
            fresh.start_s = banned[hit] + pause
            fresh.created_s = fresh.start_s - rng.exponential(600.0, len(hit))
            generations.append(fresh)
            last = fresh

    def actor_of(self, cast: Cast, row: int) -> str:
        """The true actor of an account of a cast: its group's, else the scenario's."""
        return self.groups[int(self.accounts.group[row])].actor or cast.scenario.actor


def _names(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found))


def _give_shares(accounts: Accounts, groups: list[Group]) -> None:
    """Rates of groups that are a share of all traffic, once everyone else's are known."""
    shares = np.array([g.rate.traffic_share or 0.0 for g in groups])
    others = float(accounts.rate[shares[accounts.group] == 0].sum())
    for i in np.flatnonzero(shares).tolist():
        mine = accounts.group == i
        accounts.rate[mine] = others * shares[i] / (1.0 - float(shares.sum())) / int(mine.sum())


def _capped(group: Group, cap: float) -> Group:
    return group.model_copy(update={"rate": group.rate.model_copy(update={"cap": cap})})


def _take(a: Accounts, rows: I64) -> Accounts:
    return Accounts(*(getattr(a, name)[rows].copy() for name in Accounts.__slots__))


def _hijack(block: Accounts, ordinary: Accounts, seed: int) -> None:
    """The block's requests come in the name of ordinary accounts, from its own networks and clients."""
    rng = stream(seed, "hijack", int(block.group[0]))
    quiet = np.flatnonzero(ordinary.rate < np.quantile(ordinary.rate, 0.9))
    victims = quiet[rng.permutation(len(quiet))[: len(block)]]
    for name in ("account", "org", "payment", "contact", "referral", "created_s", "plan", "billing", "key_count"):
        getattr(block, name)[: len(victims)] = getattr(ordinary, name)[victims]
