"""A component with a waist is two campaigns; one without, however wide and thinly woven, is one."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from campaign_world import FIRST, blob, campaign, people
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.campaigns import CampaignStage
from monitor.campaigns.waist import LEAST, MOST, parted

I64 = npt.NDArray[np.int64]
Links = list[tuple[int, int]]
"""(account, pair)"""


def woven(accounts: range, pairs: range, each: int, seed: int) -> Links:
    """Accounts that hold so many of the pairs each, drawn evenly."""
    rng = np.random.default_rng(seed)
    return [(a, pairs[p]) for a in accounts for p in rng.choice(len(pairs), each, replace=False).tolist()]


def cut(links: Links, accounts: int, tenant: list[int] | None = None) -> tuple[I64, int]:
    """What becomes of one component of all accounts."""
    who, node = (np.array(x) for x in zip(*links, strict=True))
    label = np.full(accounts, -1, np.int64)
    label[who] = 0
    whose = np.arange(accounts) if tenant is None else np.array(tenant)
    return parted(label, 1, who.astype(np.int32), node.astype(np.int64), whose.astype(np.int32))


def conductance(links: Links, side: set[int]) -> float:
    """By its definition, from the walk's own steps."""
    holders: dict[int, list[int]] = {}
    for a, p in links:
        holders.setdefault(p, []).append(a)
    crossing = sum(sum(b not in side for b in holders[p]) / len(holders[p]) for a, p in links if a in side)
    inside = sum(a in side for a, _ in links)
    return crossing / min(inside, len(links) - inside)


def groups(label: I64) -> list[set[int]]:
    return [set(np.flatnonzero(label == i).tolist()) for i in range(int(label.max()) + 1)]


ONE, OTHER = woven(range(40), range(20), 6, 1), woven(range(40, 80), range(20, 40), 6, 2)
A_PAIR_OF_BOTH = [*((a, 40) for a in range(36, 40)), *((a, 40) for a in range(60, 74))]
"""Four accounts of the one hold a pair of the other's, as in the world of seed 81."""


def test_a_few_accounts_that_hold_a_pair_of_another_campaign_do_not_make_them_one() -> None:
    links = ONE + OTHER + A_PAIR_OF_BOTH
    assert conductance(links, set(range(40))) < MOST
    label, count = cut(links, 80)
    assert count == 2
    assert sorted(map(sorted, groups(label))) == [list(range(40)), list(range(40, 80))]


def test_campaigns_in_a_row_are_cut_into_all_of_them() -> None:
    third = woven(range(80, 120), range(60, 80), 6, 3)
    bridge = [(a, 90) for a in (70, 71, 72, *range(80, 90))]
    label, count = cut(ONE + OTHER + third + A_PAIR_OF_BOTH + bridge, 120)
    assert count == 3
    assert sorted(map(min, groups(label))) == [0, 40, 80]
    assert [len(g) for g in groups(label)] == [40, 40, 40]


def test_a_wide_campaign_that_shares_pairs_at_random_is_one() -> None:
    """25,000 accounts over 14 operators, 30 days and 40 prompts, as the widest that was disclosed: a twelfth of it."""
    rng = np.random.default_rng(4)
    operator, day, prompt = (rng.integers(0, n, 2_000) for n in (14, 30, 40))
    links = [(a, int(operator[a] * 30 + day[a])) for a in range(2_000)]
    links += [(a, int(1_000 + operator[a] * 40 + prompt[a])) for a in range(2_000)]
    links += [(a, int(5_000 + day[a] * 40 + prompt[a])) for a in range(2_000)]
    assert cut(links, 2_000)[1] == 1


def test_cells_that_a_third_of_each_tie_are_one() -> None:
    links = [(a, 0) for a in range(12)] + [(a, 1) for a in range(12, 24)] + [(a, 2) for a in range(8, 16)]
    assert MOST < conductance(links, set(range(12))) < 0.3
    assert cut(links, 24)[1] == 1


@pytest.mark.parametrize("tenants", [2, 3])
def test_either_side_takes_three_tenants(tenants: int) -> None:
    small = [(a, p) for a in range(40, 46) for p in range(100, 110)]
    links = [*ONE, *small, (0, 100)]
    whose = [*range(40), *(40 + i % tenants for i in range(6))]
    assert cut(links, 46, whose)[1] == (2 if tenants == 3 else 1)


def test_accounts_of_no_component_stay_in_none() -> None:
    label, count = cut(ONE + OTHER + A_PAIR_OF_BOTH, 90)
    assert count == 2
    assert (label[80:] == -1).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 3))
def test_parts_are_of_one_component_each_and_what_is_cut_was_narrow(seed: int, blocks: int, bridges: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 30, blocks)
    edges = np.append(0, np.cumsum(sizes))
    links: Links = []
    for b in range(blocks):
        mine = range(int(edges[b]), int(edges[b + 1]))
        links += woven(mine, range(100 * b, 100 * b + 12), int(rng.integers(2, 6)), seed + b)
    for i, (a, b) in enumerate(itertools.islice(itertools.combinations(range(blocks), 2), bridges)):
        links += [(int(rng.integers(edges[c], edges[c + 1])), 1_000 + i) for c in (a, b)]
    links = sorted(set(links))
    total = int(edges[-1])
    who, node = (np.array(x) for x in zip(*links, strict=True))
    before = rng.integers(0, 2) + np.zeros(total, np.int64)  # one component, the first or the second of two
    after, count = parted(before, 2, who.astype(np.int32), node.astype(np.int64), np.arange(total, dtype=np.int32))
    parts = groups(after)
    assert count == 2 + len([p for p in parts if p]) - 1
    assert set.union(*parts) == set(range(total))
    for part in parts:
        if len([p for p in parts if p]) > 1 and part:
            assert len(part) >= LEAST
    if len([p for p in parts if p]) == 2:
        assert conductance(links, next(p for p in parts if p)) <= MOST + 1e-9
    mixed = rng.permutation(len(who))
    again, _ = parted(before, 2, who[mixed].astype(np.int32), node[mixed].astype(np.int64),
                      np.arange(total, dtype=np.int32))  # fmt: skip
    assert (again == after).all()


def test_two_campaigns_with_two_accounts_in_common_ways_are_two_candidates() -> None:
    """From blobs to candidates: two of the one also hold the card and the client of the other."""
    one, other = campaign(12), campaign(12, name="d", base=910_000, created_days=30.0)
    for act in one[:2]:
        act.links = {kind: [*values, *other[0].links[kind]] if kind in ("payment", "client_build") else values
                     for kind, values in act.links.items()}  # fmt: skip
    found = CampaignStage().step(FIRST, [blob(0, people(400) + one + other)])
    assert found is not None
    assert sorted(sorted({m.account[0] for m in f.members}) for f in found.findings.values()) == [["c"], ["d"]]
    assert [len(f.members) for f in found.findings.values()] == [12, 12]
