"""Who there is: one column set for all accounts of the world, ordinary ones and scenarios' alike.

Every group, background or attack, goes through the same code, so what tells an attack from a customer is
what its scenario file says and nothing else. Numbers of link values are keyed hashes (:func:`draws.mix`);
their order says nothing. Knows nothing of single requests.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .arrivals import DAY, DUTIES, SHAPES
from .draws import F64, I64, Bools, choose, choose_rows, from_quantiles, mix, salt, stream, unit
from .scenario import LANGUAGES, POPULATION, TASKS, Group, Rate, Scenario

WORLD_OFFSETS = ((-8.0, 0.14), (-5.0, 0.2), (-3.0, 0.06), (0.0, 0.12), (1.0, 0.18), (3.0, 0.05), (5.5, 0.1),
                 (8.0, 0.08), (9.0, 0.07))  # fmt: skip
BUILDS = 120
"""Client builds in the world, used by a Zipf law: the common ones link everybody to everybody."""
ASNS = 160
IPS = 3
"""Networks an account uses: home, work, road."""
NAT_SHARE, ROAD_SHARE = 0.22, 0.3
"""Shares of ordinary accounts that also come through an office's NAT, and through a carrier's shared egress."""


@dataclass(slots=True)
class Accounts:
    """Columns of length n. Ids are 64-bit numbers that become strings when a log is written; -1: none."""

    group: I64
    account: I64
    org: I64
    payment: I64
    referral: I64
    contact: I64
    key_count: I64
    created_s: F64
    start_s: F64
    end_s: F64
    rate: F64
    cv: F64
    shape: I64
    offset_s: F64
    language: I64
    domain: I64
    family: I64
    family_span: I64
    system: I64
    casual: Bools
    network: I64  # (n, IPS): egress addresses
    build: I64
    ja4: I64
    channel: I64
    plan: I64
    billing: I64
    tool_schema: I64
    end_users: I64
    adopts: F64
    temperature: F64

    def __len__(self) -> int:
        return len(self.account)

    @staticmethod
    def join(blocks: list[Accounts]) -> Accounts:
        """One table of several, in order."""
        return Accounts(*(np.concatenate([getattr(b, f.name) for b in blocks]) for f in fields(Accounts)))


@dataclass(frozen=True, slots=True)
class Crowd:
    """What a group's accounts are drawn in: the run, the world's pools and the group's place in it."""

    seed: int
    days: float
    first_s: float
    population: int
    channels: tuple[str, ...]
    plans: tuple[str, ...]
    billings: tuple[str, ...]


def scaled(count: int, accounts: int, full: int) -> int:
    """Values of a pool of ``count`` at ``full`` accounts when there are ``accounts``; at least one."""
    return max(1, round(count * accounts / full))


def size_of(scenario: Scenario, population: int) -> int:
    """Accounts of a scenario beside ``population`` ordinary ones."""
    return max(scenario.min_accounts, round(scenario.accounts * population / POPULATION))


def _rates(rate: Rate, u: F64, rng: np.random.Generator) -> F64:
    if rate.quantiles is not None:
        out = from_quantiles(u, rate.quantiles)
    elif rate.median is not None:
        out = rate.median * np.exp(rate.sigma * rng.standard_normal(len(u)))
    elif rate.cv > 0:
        out = rng.gamma(1 / rate.cv**2, (rate.mean or 1.0) * rate.cv**2, len(u))
    else:
        out = np.full(len(u), rate.mean or 1.0)
    return np.minimum(out, rate.cap) if rate.cap is not None else out


def _pooled(rng: np.random.Generator, n: int, pool: int | None, reuse: float, own: I64, key: int, full: int) -> I64:
    """Values from a shared pool for a share of accounts, own ones for the rest."""
    if pool is None:
        return own
    values = mix(np.arange(scaled(pool, n, full)), key).astype(np.int64)
    return np.where(rng.random(n) < reuse, values[rng.integers(len(values), size=n)], own)


def _spread(choices: dict[str, float], names: tuple[str, ...], rng: np.random.Generator, n: int) -> I64:
    index = np.array([names.index(k) for k in choices])
    return index[choose(rng.random(n), np.array(list(choices.values())))]


def make_group(scenario: Scenario, group: Group, number: int, n: int, crowd: Crowd, part: str) -> Accounts:
    """``n`` accounts of ``group``; ``part`` keys its draws, ``number`` is its row in the profiles."""
    rng = stream(crowd.seed, "accounts", part)
    key = salt(crowd.seed, "links", part)
    full = max(1, round(scenario.accounts * group.share))
    links, evasion, text, when = group.links, group.evasion, group.text, group.arrivals
    ids = mix(np.arange(n), key).astype(np.int64)
    u = rng.random(n)
    rate = _rates(group.rate, u, rng)
    cv = from_quantiles(rng.random(n), when.cv) if isinstance(when.cv, dict) else np.full(n, when.cv)
    names = list(when.shape)
    shape = np.array([SHAPES.index(s) if s != "duty" else -1 for s in names])[
        choose(rng.random(n), np.array(list(when.shape.values())))
    ]
    duty = _duty(rng, n, when.duty)
    on_duty = shape < 0
    shape = np.where(on_duty, len(SHAPES) + duty, shape)
    offsets = np.array(when.offsets or [o for o, _ in WORLD_OFFSETS])
    weights = np.ones(len(offsets)) if when.offsets else np.array([w for _, w in WORLD_OFFSETS])
    offset_s = offsets[choose(rng.random(n), weights)] * 3600.0
    offset_s = np.where(on_duty, np.floor(rng.random(n) * 288) * 300.0, offset_s) + 7 * DAY
    start, end, created = _life(scenario, group, rng, n, crowd)
    channel = _spread(links.channels, crowd.channels, rng, n)
    language = np.array([LANGUAGES.index(c) for c in text.languages])[
        choose(rng.random(n), np.array(list(text.languages.values())))
    ]
    payment_reuse = 0.0 if evasion.unique_payment else links.payment_reuse
    own_org = mix(ids, salt(crowd.seed, "org")).astype(np.int64)
    org = _pooled(rng, n, links.orgs, 1.0, own_org, key ^ 2, full)
    schema = mix(rng.integers(0, 40, n), salt(crowd.seed, "common schema")).astype(np.int64)
    none = np.full(n, -1, np.int64)
    family, span = _families(group, rng, n, full)
    build, ja4 = _clients(group, rng, n, key, full, crowd.seed)
    return Accounts(
        group=np.full(n, number, np.int64), account=mix(ids, salt(crowd.seed, "account")).astype(np.int64), org=org,
        payment=_pooled(rng, n, links.payments, payment_reuse, mix(org, 77).astype(np.int64), key ^ 3, full),
        referral=_pooled(rng, n, links.referrals, 1.0, none, key ^ 4, full),
        contact=_pooled(rng, n, links.contact_domains, 1.0,
                        mix(rng.zipf(1.35, n) % 4000, salt(crowd.seed, "contact")).astype(np.int64), key ^ 5, full),
        key_count=np.full(n, links.keys, np.int64), created_s=created, start_s=start, end_s=end, rate=rate, cv=cv,
        shape=shape, offset_s=offset_s, language=language, domain=rng.integers(0, 16, n), family=family,
        family_span=span, system=_systems(group, rng, n, crowd, part, full), casual=rng.random(n) < 0.35,
        network=_networks(group, rng, n, crowd, key, full), build=build, ja4=ja4, channel=channel,
        plan=_spread(links.plans, crowd.plans, rng, n), billing=_spread(links.billing, crowd.billings, rng, n),
        tool_schema=_pooled(rng, n, links.tool_schemas, 1.0, schema, key ^ 6, full),
        end_users=np.full(n, links.end_users, np.int64), adopts=rng.random(n),
        temperature=_temperatures(group, rng, n),
    )  # fmt: skip


def _duty(rng: np.random.Generator, n: int, duty: dict[float, float] | None) -> I64:
    if not duty:
        return np.full(n, DUTIES.index(0.08), np.int64)
    share = from_quantiles(rng.random(n), duty)
    distance = np.abs(np.log(np.array(DUTIES))[None, :] - np.log(share)[:, None])
    return np.asarray(distance.argmin(axis=1), dtype=np.int64)


def _life(s: Scenario, g: Group, rng: np.random.Generator, n: int, crowd: Crowd) -> tuple[F64, F64, F64]:
    """Start and end of activity and the creation of each account, in seconds from the world's Monday."""
    begin, last = s.span(crowd.first_s, crowd.days)
    end = np.full(n, last)
    room = max(0.0, float(end[0]) - begin) if n else 0.0
    start = begin + rng.random(n) * min(g.stagger_days * DAY, 0.7 * room)
    low, high = g.links.created_days_before
    age = (low + (high - low) * rng.random(n)) * DAY + g.evasion.age_days * DAY
    if g.links.cohorts is not None:
        full = max(1, round(s.accounts * g.share))
        pool = (low + (high - low) * rng.random(scaled(g.links.cohorts, n, full))) * DAY + g.evasion.age_days * DAY
        age = pool[rng.integers(len(pool), size=n)] + rng.random(n) * g.links.cohort_hours * 3600.0
    created = start - age
    if g.new_per_day > 0:
        # the share of all accounts that only join during the run
        fresh = rng.random(n) < min(0.9, g.new_per_day * crowd.days)
        start = np.where(fresh, begin + rng.random(n) * room, start)
        created = np.where(fresh, start - rng.exponential(1800.0, n), created)
    return start, end, created


def _families(g: Group, rng: np.random.Generator, n: int, full: int) -> tuple[I64, I64]:
    if g.text.families is None:
        return rng.integers(0, 1 << 40, n), np.full(n, g.text.per_account, np.int64)
    pool = rng.integers(0, 1 << 40, scaled(g.text.families, n, full))
    return pool[rng.integers(len(pool), size=n)], np.ones(n, np.int64)


def _systems(g: Group, rng: np.random.Generator, n: int, crowd: Crowd, part: str, full: int) -> I64:
    if g.text.shared_system is not None:
        return np.full(n, salt(crowd.seed, "shared system", g.text.shared_system) % (1 << 31), np.int64)
    if g.text.systems == 0:
        return np.full(n, -1, np.int64)
    if g.text.systems is None:
        return rng.integers(0, 1 << 31, n)
    pool = stream(crowd.seed, "systems", part).integers(0, 1 << 31, scaled(g.text.systems, n, full))
    return np.asarray(pool[rng.integers(len(pool), size=n)])


def _clients(g: Group, rng: np.random.Generator, n: int, key: int, full: int, seed: int) -> tuple[I64, I64]:
    rank = (rng.zipf(1.5, n) - 1) % BUILDS
    if g.links.builds is not None:
        # a campaign's own builds stand outside the common ones
        rank = BUILDS + (mix(rng.integers(0, scaled(g.links.builds, n, full), n), key ^ 7) % np.uint64(1 << 40)).astype(
            np.int64
        )
    common = mix(rank, salt(seed, "ja4")).astype(np.int64)
    return rank, _pooled(rng, n, g.links.ja4, 1.0, common, key ^ 8, full)


def consumer_prefixes(population: int) -> int:
    """Home /24s that ordinary customers use: a provider's customers are thinly spread, two prefixes to each."""
    return max(64, 2 * population)


def asn_of(prefixes: I64, seed: int, own_asn: dict[int, int]) -> I64:
    """Number in [0, ASNS) of the autonomous system that each egress prefix lies in: few hold most (a Zipf law).

    ``own_asn`` fixes those of prefixes that a scenario's pool puts into systems of its choice.
    """
    u = unit(mix(prefixes, salt(seed, "asn")))
    asn = np.minimum((ASNS**u - 1) * ASNS / (ASNS - 1), ASNS - 1).astype(np.int64)
    if own_asn:
        keys = np.array(sorted(own_asn), np.int64)
        place = np.minimum(np.searchsorted(keys, prefixes), len(keys) - 1)
        asn = np.where(keys[place] == prefixes, np.array([own_asn[int(k)] for k in keys])[place], asn)
    return asn


def _networks(g: Group, rng: np.random.Generator, n: int, crowd: Crowd, key: int, full: int) -> I64:
    """Addresses as prefix << 8 | host. An ordinary account has a home, perhaps an office NAT, and the road.

    Homes are thin, offices hold a few accounts each, carriers' shared egress many (a Zipf law), as addresses do.
    """
    pool = consumer_prefixes(crowd.population)
    own = np.repeat((rng.integers(0, pool, n) << 8 | rng.integers(1, 255, n))[:, None], IPS, axis=1)
    offices = pool + rng.integers(0, max(4, crowd.population // 12), n)
    own[:, 1] = np.where(rng.random(n) < NAT_SHARE, offices << 8 | 7, own[:, 1])
    carriers = pool + pool // 2 + rng.zipf(1.4, n) % max(8, crowd.population // 40)
    own[:, 2] = np.where(rng.random(n) < ROAD_SHARE, carriers << 8 | rng.integers(1, 255, n), own[:, 2])
    links = g.links
    if links.prefixes is None or g.evasion.unique_egress or links.copy_from:
        return own
    count = scaled(links.prefixes, n, full)
    if links.residential:
        pool_values = rng.integers(0, pool, count)
    else:
        pool_values = 2 * pool + (mix(np.arange(count), key ^ 9) % np.uint64(4 * pool + 64)).astype(np.int64)
    used = pool_values[rng.integers(count, size=(n, IPS))] << 8 | rng.integers(1, 255, (n, IPS))
    return np.where((rng.random(n) < links.prefix_reuse)[:, None], used, own)


def _temperatures(g: Group, rng: np.random.Generator, n: int) -> F64:
    mix_ = g.parameters.temperature
    if mix_ is None:
        mix_ = {0.0: 0.2, 0.2: 0.15, 0.7: 0.3, 1.0: 0.35}
    return np.array(list(mix_))[choose(rng.random(n), np.array(list(mix_.values())))]


def task_table(groups: list[Group]) -> F64:
    """Cumulative task weights, (groups, tasks), cover traffic of evading groups mixed in."""
    table = np.zeros((len(groups), len(TASKS)))
    for i, g in enumerate(groups):
        for task, weight in g.text.tasks.items():
            table[i, TASKS.index(task)] += weight
        table[i] /= table[i].sum()
        if g.evasion.cover > 0:
            table[i] *= 1 - g.evasion.cover
            for task, weight in (("chat", 0.5), ("question", 0.2), ("coding", 0.3)):
                table[i, TASKS.index(task)] += weight * g.evasion.cover
    return np.cumsum(table, axis=1)


def pick_tasks(table: F64, group: I64, u: F64) -> I64:
    """A task for each request, by its group's weights."""
    return choose_rows(u, table[group])


_COPIED = (("build", "ja4"), ("contact",), ("system", "tool_schema"))
"""Links that a client can choose, in sets that come from one donor: a build brings its TLS print."""


def copy_links(target: Accounts, rows: I64, source: Accounts, seed: int) -> None:
    """Give ``rows`` of ``target`` the client-visible links of accounts of ``source`` (glue, frame-up).

    Each network and each other set of links is another donor's, so that an account glues six of them together.
    """

    def donors(part: int) -> I64:
        drawn: I64 = (unit(mix(target.account[rows], salt(seed, "glue", part))) * len(source)).astype(np.int64)
        return drawn

    for k in range(IPS):
        target.network[rows, k] = source.network[donors(k), k]
    for part, names in enumerate(_COPIED, IPS):
        chosen = donors(part)
        for name in names:
            getattr(target, name)[rows] = getattr(source, name)[chosen]
