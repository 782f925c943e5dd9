"""The compiled loops of the graph against plain Python: who holds what, which pairs there are, who joins later."""

from __future__ import annotations

import itertools
import random

import numpy as np
import polars as pl
import pytest

from monitor.campaigns import sums
from monitor.campaigns.adopt import adopted, values_of
from monitor.campaigns.graph import components, shared_pairs, shared_values
from monitor.campaigns.kernels import A_GROUP
from monitor.campaigns.kinds import CODE, KINDS
from monitor.campaigns.population import _once

LINKS = {"account": pl.UInt32(), "kind": pl.UInt8(), "value": pl.UInt64(), "count": pl.Int64(), "first": pl.Int32(),
         "last": pl.Int32()}  # fmt: skip
USED = [CODE[k] for k in ("payment", "egress_prefix", "client_build", "template_opening")]


def made(seed: int, accounts: int = 60, values: int = 8) -> list[tuple[int, int, int]]:
    rng = random.Random(seed)
    links = ((a, k, rng.randrange(values)) for a in range(accounts) for k in USED for _ in range(rng.randrange(3)))
    return sorted(set(links))


def frame(rows: list[tuple[int, int, int]]) -> pl.DataFrame:
    return pl.DataFrame([(a, k, v, 1, 5, 9) for a, k, v in rows], schema=LINKS, orient="row")


@pytest.mark.parametrize("each", [1, 3])
def test_values_and_their_holders_are_those_of_plain_counting(each: int) -> None:
    rows = made(each)
    tenant = (np.arange(60) // each).astype(np.int32)
    holders: dict[tuple[int, int], set[int]] = {}
    for a, k, v in rows:
        holders.setdefault((k, v), set()).add(int(tenant[a]))
    most = max(0.5 * len(set(tenant.tolist())), 3)
    kept = sorted(key for key, held in holders.items() if 3 <= len(held) <= most)
    shuffled = random.Random(9).sample(rows, len(rows))
    shared = shared_values(frame(shuffled), tenant)
    assert list(zip(shared.kind.tolist(), shared.value.tolist(), strict=True)) == kept
    assert shared.df.tolist() == [len(holders[key]) for key in kept]
    assert list(zip(shared.account.tolist(), shared.key.tolist(), strict=True)) == sorted(
        (a, kept.index((k, v))) for a, k, v in rows if (k, v) in kept
    )


def test_pairs_looked_at_are_all_pairs_of_two_groups_with_one_attested() -> None:
    rows = made(4, values=3)
    shared = shared_values(frame(rows), np.arange(60, dtype=np.int32))
    pairs = set()
    for _, mine in itertools.groupby(zip(shared.account.tolist(), shared.key.tolist(), strict=True), lambda r: r[0]):
        for (_, one), (_, other) in itertools.combinations(mine, 2):
            kinds = KINDS[shared.kind[one]], KINDS[shared.kind[other]]
            if kinds[0].group != kinds[1].group and any(k.attested for k in kinds):
                pairs.add((one, other))
    found = components(shared, np.arange(60, dtype=np.int32), 60, 8.0)
    assert found.looked_at == len(pairs)
    assert found.threshold == pytest.approx(np.log2(len(pairs)) + 8.0)


@pytest.mark.parametrize("seed", range(3))
def test_an_account_brings_its_rarest_values_of_each_group_into_pairs(seed: int) -> None:
    rng = random.Random(seed)
    kinds = [CODE[k] for k in ("payment", "egress_prefix", "client_build", "template_opening", "template_closing")]
    rows = sorted({(a, k, min(int(rng.expovariate(0.1)), 40)) for a in range(200) for k in kinds for _ in range(12)})
    shared = shared_values(frame(rows), np.arange(200, dtype=np.int32))
    holders: dict[tuple[int, int], list[int]] = {}
    links = zip(shared.account.tolist(), shared.key.tolist(), strict=True)
    for account, mine in itertools.groupby(links, lambda r: r[0]):
        groups: dict[int, list[int]] = {}
        for _, key in mine:
            groups.setdefault(KINDS[shared.kind[key]].group_code, []).append(key)
        brought = {g: sorted(keys, key=lambda k: (shared.df[k], k))[: A_GROUP[g]] for g, keys in groups.items()}
        assert any(len(keys) > A_GROUP[g] for g, keys in groups.items()), "something is left out"
        for g, h in itertools.combinations(sorted(brought), 2):
            for one, other in itertools.product(brought[g], brought[h]):
                if KINDS[shared.kind[one]].attested or KINDS[shared.kind[other]].attested:
                    holders.setdefault((one, other), []).append(account)
    pair, who, single = shared_pairs(shared.account, shared.key, shared.df, shared.kind)
    found: dict[tuple[int, int], list[int]] = {}
    for made_of, account in zip(pair.tolist(), who.tolist(), strict=True):
        found.setdefault((made_of >> 32, made_of & 0xFFFFFFFF), []).append(account)
    assert {p: held for p, held in holders.items() if len(held) > 1}.items() <= found.items()
    assert found.items() <= holders.items()
    assert single + len(found) == len(holders)


def test_a_campaigns_common_template_is_not_hidden_by_its_rarer_ones() -> None:
    """Twenty accounts of one day send one template each, and four more that a few of them send."""
    cohort, template = CODE["creation_cohort"], CODE["template_opening"]
    ring = [(a, k, 1) for a in range(20) for k in (cohort, template)]
    few = [(a, template, 10 + 7 * i + a % 5) for a in range(20) for i in range(4)]
    others = [(a, k, 100 + a // 3) for a in range(20, 800) for k in (cohort, template)]
    tenant = np.arange(800, dtype=np.int32)
    found = components(shared_values(frame(ring + few + others), tenant), tenant, 800, 8.0)
    assert len(set(found.label[:20].tolist())) == 1
    assert found.label[0] >= 0


def test_a_link_seen_twice_is_one_with_both_counts() -> None:
    rows = made(5)
    again = frame(rows).with_columns(first=pl.lit(2, pl.Int32), last=pl.lit(11, pl.Int32))
    once = _once(pl.concat([frame(rows), again])).sort("account", "kind", "value")
    assert once.select("account", "kind", "value").rows() == rows
    assert once.select("count", "first", "last").unique().rows() == [(2, 2, 11)]


def test_a_newcomer_needs_two_groups_an_attested_one_and_the_margin() -> None:
    payment, prefix, build, template = USED
    ring = [(a, k, 1) for a in range(10) for k in USED]
    others = [(a, k, 100 + a) for a in range(10, 2000) for k in USED]
    crowd = [(a, build, 2) for a in range(100, 160)]
    tenant = np.arange(2000, dtype=np.int32)
    shared = shared_values(frame(ring + others + crowd), tenant)
    values = values_of([np.arange(10)], shared, tenant)

    def joins(*links: tuple[int, int], before: bool = False) -> bool:
        new = frame([(1500, k, v) for k, v in links]).select("account", "kind", "value")
        return len(adopted(values, new, 8.0, np.array([1500]) if before else None)) == 1

    assert joins((payment, 1), (build, 1))
    assert not joins((payment, 1)), "one group"
    assert not joins((build, 1), (template, 1)), "nothing attested"
    assert not joins((payment, 1), (build, 2)), "a client that the crowd has"
    assert not joins((prefix, 7), (build, 7)), "nothing of the campaign's"


def test_a_wrapper_alone_is_no_harvest() -> None:
    """"Answer only from the material" stands in a framed customer's system prompt, which the framer copies."""
    asks = ("reasoning_elicitation", "rubric_grading", "preference_pair", "score_only", "dataset_generation")
    flags = (*asks, "wrapper")
    made = sums.expressions(
        {name: pl.lit(0) for name in sums.SHARED}, lambda name: pl.col(name), lambda name: pl.lit(0)
    )
    each = pl.DataFrame([{name: name == flag for name in flags} for flag in flags]).with_columns(tool_schema=pl.lit(7))
    assert each.select(made["n_harvest"]).to_series().to_list() == [1, 1, 1, 1, 1, 0]
    assert each.select(made["n_tools"]).to_series().to_list() == [1] * 6, "a schema is an offer of tools"
