"""What a suite holds: its sizes, its cast, and worlds made for one question each (a mix, a size, an attack's cost)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monitor.simulate import Scenario, find
from monitor.simulate.population import scaled
from monitor.simulate.scenario import Links, Text

from . import ablation

ATTACKS = (*(f"S{i}" for i in range(1, 12)), "S13", "S14", "G1", "P1", "P2", "P3", "S0")
CONFOUNDERS = tuple(f"B{i}" for i in range(1, 16))
MIXES = (0.01, 0.05, 0.10, 0.25, 1.0)
SIZES = (10, 58, 100, 1000)
BATCHES = (12,)
"""Accounts of the batch harvest (S13) that come within two days, each with thousands of requests; composed worlds have
as many as the first. At the full size 116 of 200 come. A world of a thousand has four by its own scale, the third of
them on the second day: that measures how few accounts are a campaign, and not how soon this one is found."""

LIVES = "lives"
LIVES_ACCOUNTS, LIVES_DAYS = 400, 18.0
"""A world so long that who lasts over a week does so in it: the accounts of S9 live 14 days and are made over four.
In three days 22 % of their requests leak, 20 of which go before their first sessions end: what a campaign leaks over
its life can't be read off a world that is shorter. 400 accounts beside it, since only time is asked about."""

SIDES = ("without", "with")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two worlds that differ in an attack on the detector itself; its cost is the recall lost on ``measured``."""

    name: str
    cast: tuple[str, ...]
    measured: tuple[str, ...]
    days: float


PAIRS = (
    # the poisoner drifts from day 3 to day 23, so a shorter world would hold nothing of him
    Pair("P1 poisons", ("S1", "S4", "S5", "P1"), ("S1", "S4", "S5"), 10.0),
    Pair("P2 glues", ("S1", "S4", "P2"), ("S1", "S4", "P2"), 4.0),
)
PAIR_ACCOUNTS = 400


@dataclass(frozen=True, slots=True)
class Size:
    """A suite: ordinary accounts, days, scenarios of the composed world, and what else is run."""

    accounts: int
    days: float
    scenarios: tuple[str, ...]
    heavy_cap: float
    mixes: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    ablations: tuple[str, ...] = ()
    fairness: bool = False
    pairs: bool = False
    lives: bool = False


SUITES: Mapping[str, Size] = {
    "smoke": Size(600, 2.0, ("S1", "S4", "S5", "S10", "D1", "B1", "B3", "B4", "B5", "B6"), 300,
                  ablations=("metadata only",)),
    "standard": Size(1000, 3.0, (*ATTACKS, *CONFOUNDERS), 300, MIXES, SIZES, BATCHES, ablation.COARSE, True, True,
                     lives=True),
    "full": Size(6000, 18.0, (*ATTACKS, *CONFOUNDERS), 1500, MIXES, SIZES, BATCHES, tuple(ablation.GROUPS), True, True),
}  # fmt: skip
"""``standard`` makes one world of 480,000 requests a seed, which the detector reads 14 times (ablations, parts off,
fairness), and 14 others (mixes, sizes, pairs, a long one): 11 million requests in all. ``full`` reads 20 times one of
about 10 million, for a night; it alone takes each kind of link away by itself. In its 18 days every account of S9 lives
its 14 (they are made over four); cut to 14, 5.9 % of their requests leaked, 5.5 of which nobody could have helped."""


def mix_variant(share: float) -> Scenario:
    """The reseller with ``share`` of its traffic distillation."""
    base = find(["S6"])[0]
    group = base.groups[0]
    changed = group.model_copy(update={"evasion": group.evasion.model_copy(update={"cover": 1.0 - share})})
    return base.model_copy(update={"groups": [changed]})


_LINK_POOLS = (
    "orgs", "payments", "referrals", "contact_domains", "tool_schemas", "ja4", "builds", "prefixes", "cohorts",
)  # fmt: skip
_TEXT_POOLS = ("families", "systems")


def size_variant(accounts: int, scenario: str = "S4") -> Scenario:
    """A campaign, the wide and slow one if no other is named, with exactly ``accounts`` accounts that come on a whole
    day of it, whatever the population, and pools to match.

    58 accounts behind the 900 address prefixes of 25,000 would share nothing.
    """
    full = find([scenario])[0]

    def fitting(part: Links | Text, names: tuple[str, ...]) -> dict[str, int]:
        sizes = {name: getattr(part, name) for name in names}
        return {name: scaled(size, accounts, full.accounts) for name, size in sizes.items() if size is not None}

    groups = [
        g.model_copy(update={"links": g.links.model_copy(update=fitting(g.links, _LINK_POOLS)),
                             "text": g.text.model_copy(update=fitting(g.text, _TEXT_POOLS))})
        for g in full.groups
    ]  # fmt: skip
    return full.model_copy(update={"accounts": accounts, "min_accounts": accounts, "groups": groups})


def composed_cast(size: Size) -> list[str | Scenario]:
    """Everybody in the suite's one world that holds all scenarios."""
    return [size_variant(BATCHES[0], s) if s == "S13" else s for s in size.scenarios]


def batch_cast(accounts: int) -> list[str | Scenario]:
    """The batch harvest with so many accounts, and its honest twin, whose jobs are as large."""
    return ["B14", size_variant(accounts, "S13")]


def pair_cast(pair: Pair, side: str) -> list[str | Scenario]:
    """The cast of a side. Without P1 he is not there; without P2's glue her accounts have links of their own.

    The attack stands last, so that everybody else is the same in both worlds.
    """
    *others, attack = pair.cast
    if side == "with":
        return [*others, attack]
    if attack not in pair.measured:
        return list(others)
    plain = find([attack])[0]
    groups = [g.model_copy(update={"links": g.links.model_copy(update={"copy_from": None})}) for g in plain.groups]
    return [*others, plain.model_copy(update={"groups": groups})]
