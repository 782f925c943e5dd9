"""The compiled loops of the graph against plain Python: who holds what, which pairs there are, who joins later."""

from __future__ import annotations

import itertools
import random

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from monitor.campaigns import sums
from monitor.campaigns.adopt import adopted, values_of
from monitor.campaigns.graph import components, shared_pairs, shared_values, surprise
from monitor.campaigns.kinds import CODE, KINDS
from monitor.campaigns.links import merged, spliced
from monitor.campaigns.numbering import Numbers
from monitor.campaigns.pairs import A_GROUP

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
    shared = shared_values(frame(rows), tenant)
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


def by_pair(pair: npt.NDArray[np.uint64], who: npt.NDArray[np.int32]) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for made_of, account in zip(pair.tolist(), who.tolist(), strict=True):
        found.setdefault((made_of >> 32, made_of & 0xFFFFFFFF), []).append(account)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_an_account_brings_its_rarest_values_of_each_group_into_pairs(seed: int) -> None:
    rng = random.Random(seed)
    kinds = [CODE[k] for k in ("payment", "egress_prefix", "client_build", "template_opening", "template_closing")]
    ring = {(a, k, 100) for a in range(12) for k in kinds}
    crowd = {(a, k, min(int(rng.expovariate(0.1)), 40)) for a in range(200) for k in kinds for _ in range(12)}
    rows = sorted(ring | crowd)
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
    pair, who, different = shared_pairs(shared.account, shared.key, shared.df, shared.kind)
    assert by_pair(pair, who) == {p: held for p, held in holders.items() if len(held) > 1}
    assert different == len(holders)
    # those that are asked for by their surprise: at least what reaches it among all pairs, and nothing that three lack
    pair, who, different = shared_pairs(shared.account, shared.key, shared.df, shared.kind, (3, 200, 1.0))
    found = by_pair(pair, who)
    held = np.array([len(h) for h in holders.values()], np.float64)
    chance = np.array([shared.df[a] * shared.df[b] / 200 for a, b in holders], np.float64)
    bits = dict(zip(holders, surprise(held, chance).tolist(), strict=True))
    asked = {p for p, h in holders.items() if len(h) >= 3 and bits[p] >= np.log2(len(holders)) + 1.0}
    assert asked <= found.keys() < holders.keys()
    assert found.items() <= holders.items()
    assert all(len(h) >= 3 and bits[p] >= 0.9 for p, h in found.items())
    assert asked
    assert different == len(holders)


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


@pytest.mark.parametrize("seed", range(4))
def test_links_merge_as_in_a_dictionary(seed: int) -> None:
    """Into a table that is in order: rows in any order, several of a link, and those too old let go."""
    rng = random.Random(seed)
    oldest = 40

    def some(count: int) -> list[tuple[int, int, int, int, int, int]]:
        spread = rng.choice((2, 9, 200))
        values = (rng.choice((0, 1 << 63)) + rng.randrange(spread) for _ in range(count))
        begun = (((rng.randrange(6), rng.choice(USED), value), rng.randrange(60)) for value in values)
        return [(*key, rng.randrange(1, 1 << 40), first, first + rng.randrange(20)) for key, first in begun]

    def drawn(rows: list[tuple[int, int, int, int, int, int]]) -> dict[tuple[int, int, int], tuple[int, int, int]]:
        out: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        for a, k, v, count, first, last in rows:
            held = out.get((a, k, v), (0, first, last))
            out[a, k, v] = held[0] + count, min(held[1], first), max(held[2], last)
        return out

    table, rows = frame([]), []
    for size in (0, 300, 0, 40, 700):
        fresh = [some(size // 2), some(size - size // 2)]
        table = merged(table, [pl.DataFrame(part, schema=LINKS, orient="row") for part in fresh], oldest)
        kept = {key: held for key, held in drawn([*rows, *fresh[0], *fresh[1]]).items() if held[2] >= oldest}
        rows = [(*key, *held) for key, held in sorted(kept.items())]
        assert table.rows() == rows
        assert dict(table.schema) == LINKS


@pytest.mark.parametrize("oldest", [0, 40])
def test_numbers_that_are_kept_from_merge_to_merge_give_what_numbering_anew_gives(oldest: int) -> None:
    rng = random.Random(oldest)
    tenant = np.arange(80, dtype=np.int32)
    table = frame([])
    numbers, renumbered = Numbers.of(table), 0
    for _ in range(12):
        fresh = [
            (rng.randrange(80), rng.choice(USED), rng.choice((0, 1 << 63)) + rng.randrange(40), 1, at, at + 9)
            for at in (rng.randrange(60) for _ in range(rng.choice((0, 30, 300))))
        ]
        table, how = spliced(table, [pl.DataFrame(fresh, schema=LINKS, orient="row")], oldest)
        numbers = numbers.after(how, table)
        renumbered += numbers.gone == 0 and how.kept is not None
        assert numbers.kind[numbers.ids].tolist() == table["kind"].to_list()
        assert numbers.value[numbers.ids].tolist() == table["value"].to_list()
        assert numbers.rows.tolist() == np.bincount(numbers.ids, minlength=len(numbers.value)).tolist()
        assert len({*zip(numbers.kind.tolist(), numbers.value.tolist(), strict=True)}) == len(numbers.value)
        some = table["account"].to_numpy() % 7 != 0
        for kept, rows in ((table, numbers), (table.filter(some), numbers.where(some))):
            anew, with_kept = shared_values(kept, tenant), shared_values(kept, tenant, numbers=rows)
            for name in ("account", "key", "row", "kind", "value", "df"):
                assert getattr(anew, name).tolist() == getattr(with_kept, name).tolist(), name
    assert len(table)
    assert (renumbered > 0) == (oldest > 0), "once most of it is gone all is numbered anew"


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
    """ "Answer only from the material" stands in a framed customer's system prompt, which the framer copies."""
    asks = ("reasoning_elicitation", "rubric_grading", "preference_pair", "score_only", "dataset_generation")
    flags = (*asks, "wrapper")
    shared = {name: pl.lit(0) for name in (*sums.SHARED, "length", "upper", "newline", "code", "unique")}
    made = sums.expressions(shared, lambda name: pl.col(name), lambda name: pl.lit(0))
    each = pl.DataFrame([{name: name == flag for name in flags} for flag in flags]).with_columns(tool_schema=pl.lit(7))
    assert each.select(made["n_harvest"]).to_series().to_list() == [1, 1, 1, 1, 1, 0]
    assert each.select(made["n_tools"]).to_series().to_list() == [1] * 6, "a schema is an offer of tools"
