"""The compiled loops of evidence against plain Python: what groups hold, by how many tenants, in which requests."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.campaigns.features import Rates, Ratios
from monitor.campaigns.holdings import holdings, placed
from monitor.campaigns.kernels import repeats

KEYS = 9


@pytest.mark.parametrize("seed", range(4))
def test_holdings_of_groups_are_those_of_plain_counting(seed: int) -> None:
    draw = np.random.default_rng(seed)
    group = np.sort(draw.integers(0, 6, 40)) * 3  # numbers that nobody has, and groups of one
    tenant = draw.integers(0, 12, 40).astype(np.int32)
    per_account = draw.integers(0, 5, 40)
    mine = [np.sort(draw.choice(KEYS, n, replace=False)) for n in per_account]
    # another order in memory than that of the groups, with rows of nobody between
    begin, key = np.zeros(40, np.int64), [np.array([KEYS - 1])]
    for account in draw.permutation(40):
        begin[account] = sum(map(len, key))
        key += [mine[account], np.array([0])]
    keys = np.concatenate(key).astype(np.int32)
    row = draw.permutation(len(keys)).astype(np.int32)
    count = draw.integers(1, 50, len(keys))
    found = holdings(group, begin, per_account, tenant, keys, row, count, KEYS)

    held: dict[tuple[int, int], set[int]] = {}
    requests: dict[tuple[int, int], int] = {}
    tenants: dict[int, set[int]] = {}
    places = []
    for account in range(40):
        for at in range(begin[account], begin[account] + per_account[account]):
            pair = int(group[account]), int(keys[at])
            places.append((account, at, pair))
            held.setdefault(pair, set()).add(int(tenant[account]))
            requests[pair] = requests.get(pair, 0) + int(count[row[at]])
            tenants.setdefault(pair[0], set()).add(int(tenant[account]))
    pairs = list(zip(found.group.tolist(), found.key.tolist(), strict=True))
    assert sorted(pairs) == sorted(held)
    assert found.group.tolist() == sorted(found.group.tolist())
    assert [pairs[i] for i in found.ids] == [pair for _, _, pair in places]
    assert found.held.tolist() == [len(held[pair]) for pair in pairs]
    assert found.tenants.tolist() == [len(tenants[of]) for of, _ in pairs]
    assert found.requests.tolist() == [requests[pair] for pair in pairs]

    place = np.where(found.held >= 2, np.arange(len(pairs)), -1)
    whose, rows, at_place = placed(found.ids, place, begin, per_account)
    wanted = [(account, at, pairs.index(pair)) for account, at, pair in places if len(held[pair]) >= 2]
    assert list(zip(whose.tolist(), rows.tolist(), at_place.tolist(), strict=True)) == wanted


def test_of_no_account_nothing_is_held() -> None:
    none, nothing = np.zeros(0, np.int64), np.zeros(0, np.int32)
    found = holdings(none, none, none, nothing, nothing, nothing, none, 0)
    assert [len(column) for column in found] == [0] * 6
    assert [len(column) for column in placed(found.ids, none, none, none)] == [0] * 3


@pytest.mark.parametrize("accounts_a_tenant", [1, 2, 5])
def test_rows_beyond_the_first_of_a_tenant_are_counted(accounts_a_tenant: int) -> None:
    draw = np.random.default_rng(accounts_a_tenant)
    tenant = draw.permutation(np.arange(30) // accounts_a_tenant).astype(np.int32)
    account, ids = draw.integers(0, 30, 200).astype(np.int32), draw.integers(0, 7, 200).astype(np.int32)
    once = np.unique(np.column_stack([ids, account]), axis=0).astype(np.int32)  # an account has a value once
    ids, account = draw.permutation(once).T
    held = [len({*tenant[account[ids == number]].tolist()}) for number in range(7)]
    assert (np.bincount(ids, minlength=7) - repeats(ids, account, tenant, 7)).tolist() == held
    assert repeats(ids[:0], account[:0], tenant[:0], 2).tolist() == [0, 0]


def test_rates_that_are_drawn_are_the_same() -> None:
    draw = np.random.default_rng(1)
    today, yesterday, past = (draw.integers(0, 4, (50, 24)).astype(np.int32) for _ in range(3))
    own = Rates(Ratios([today, yesterday]), Ratios([today]), Ratios([yesterday, past]), {}, lambda rows: rows)
    rows = draw.integers(0, 50, 80)
    drawn = own.drawn(rows)
    for name in ("harvest", "at_cap", "log_in", "requests", "texts"):
        for one, other in ((own.now, drawn.now), (own.today, drawn.today), (own.before, drawn.before)):
            np.testing.assert_array_equal(one.of(name, rows), other.of(name, slice(None)))
