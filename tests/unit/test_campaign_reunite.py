"""A campaign whose shared values are crowded out by rarer ones stays one; what merely looks alike stays apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from monitor.campaigns.adopt import values_of
from monitor.campaigns.graph import components, shared_values
from monitor.campaigns.kinds import CODE
from monitor.campaigns.pairs import A_GROUP
from monitor.campaigns.reunite import reunited

COHORT, TEMPLATE, PAYMENT = (CODE[name] for name in ("creation_cohort", "template_opening", "payment"))
CLOSING, SYSTEM = CODE["template_closing"], CODE["system_prompt"]
PREFIX, OPERATOR, SOFTWARE = (CODE[name] for name in ("egress_prefix", "egress_asn", "client_build"))
PEOPLE, MARGIN = 900, 8.0
RARER = int(A_GROUP.max()) + 1
"""Templates that hide a commoner one."""
Rows = list[tuple[int, int, int]]


def parts(rows: Rows) -> tuple[list[npt.NDArray[np.int64]], list[npt.NDArray[np.int64]]]:
    """Groups as the graph has them, and those that are left when parts of one are put together."""
    tenant = np.arange(PEOPLE, dtype=np.int32)
    links = pl.DataFrame(
        sorted({(a, k, v, 1, 0, 0) for a, k, v in rows}), orient="row",
        schema={"account": pl.UInt32, "kind": pl.UInt8, "value": pl.UInt64, "count": pl.UInt32, "first": pl.Int64,
                "last": pl.Int64},
    )  # fmt: skip
    shared = shared_values(links, tenant)
    found = components(shared, tenant, PEOPLE, MARGIN)
    groups = [np.flatnonzero(found.label == i) for i in range(found.count)]
    return groups, reunited(groups, values_of(groups, shared, tenant), shared, found, MARGIN)


def ring(begin: int, own: int, common: Rows) -> Rows:
    """Seven accounts with one card and rare templates; of ``common`` (kind, value, every) they hold each value."""
    mine: Rows = [(begin + i, PAYMENT, own) for i in range(7)]
    mine += [(begin + i, TEMPLATE, own * 100 + j) for i in range(7) for j in range(RARER)]
    return mine + [(begin + i, kind, value) for kind, value, every in common for i in range(0, 7, every)]


def crowd(kind: int, value: int, many: int) -> Rows:
    """So many strangers who hold a value."""
    return [(a, kind, value) for a in range(PEOPLE - many, PEOPLE)]


def few(many: int) -> Rows:
    """Templates that hide their common one, each of three of so many strangers."""
    return [(PEOPLE - many + i, TEMPLATE, 5_000 + (i * RARER + j) % (many * RARER // 3)) for i in range(many)
            for j in range(RARER)]  # fmt: skip


def three(common: Rows, strangers: Rows) -> Rows:
    """Three rings that hold the same things, and ordinary accounts of other days."""
    others = [(a, COHORT, 1_000 + a // 4) for a in range(40, PEOPLE)]
    return [row for i in range(3) for row in ring(10 * i, i + 1, common)] + others + strangers


def test_what_all_of_a_campaign_share_keeps_it_together_though_each_account_has_rarer_values() -> None:
    rows = three([(COHORT, 7, 1), (TEMPLATE, 8, 1)], [])
    groups, whole = parts(rows)
    assert [len(g) for g in groups] == [7, 7, 7], "the graph alone does not see it"
    assert [g.tolist() for g in whole] == [[10 * i + j for i in range(3) for j in range(7)]]


@pytest.mark.parametrize(
    ("common", "strangers", "why"),
    [
        ([(COHORT, 7, 1)], [], "one value is no pair"),
        ([(TEMPLATE, 8, 1), (SYSTEM, 9, 1)], [], "nothing of it is attested"),
        ([(COHORT, 7, 1), (CLOSING, 8, 1)], [], "a closing ends anybody's prompts"),
        ([(COHORT, 7, 1), (TEMPLATE, 8, 3)], [], "fewer than half of each hold it"),
        ([(COHORT, 7, 1), (TEMPLATE, 8, 1)], [*crowd(TEMPLATE, 8, 90), *crowd(COHORT, 7, 180)[:90]], "as by chance"),
        ([(COHORT, 7, 1), (TEMPLATE, 8, 1)], [*crowd(TEMPLATE, 8, 60), *crowd(COHORT, 7, 60), *few(60)], "of others"),
    ],
)
def test_groups_that_are_alike_stay_apart(common: Rows, strangers: Rows, why: str) -> None:
    groups, whole = parts(three(common, strangers))
    mine = [g for g in groups if g[0] < 40]
    assert [len(g) for g in mine] == [7, 7, 7], why
    assert [g.tolist() for g in whole] == [g.tolist() for g in groups], why


def test_two_of_three_may_be_one() -> None:
    rows = ring(0, 1, [(COHORT, 7, 1), (TEMPLATE, 8, 1)]) + ring(10, 2, [(COHORT, 7, 1), (TEMPLATE, 9, 1)])
    rows += ring(20, 3, [(COHORT, 7, 1), (TEMPLATE, 8, 1)])
    _, whole = parts(rows + [(a, COHORT, 1_000 + a // 4) for a in range(40, PEOPLE)])
    assert [g[0] for g in whole] == [0, 10]
    assert [len(g) for g in whole] == [14, 7]


@pytest.mark.parametrize(
    "common", [[(COHORT, 7, 1), (OPERATOR, 8, 1)], [(SYSTEM, 7, 1), (OPERATOR, 8, 1)]], ids=["half-day", "prompt"]
)
def test_the_operator_behind_which_two_rent_makes_them_no_one(common: Rows) -> None:
    """As two campaigns of seeds 81, 95 and 28 were. The graph itself never sees the pair, for rarer values."""
    rows = three(common, [])
    rows += [(10 * i + j, kind, 100 * i + k) for i in range(3) for j in range(7) for k in range(3)
             for kind in (PREFIX, SOFTWARE)]  # fmt: skip
    groups, whole = parts(rows)
    assert [len(g) for g in groups] == [7, 7, 7]
    assert [g.tolist() for g in whole] == [g.tolist() for g in groups]


def test_most_of_each_must_hold_the_pair_and_not_either_value() -> None:
    def rows(of_template: range) -> Rows:
        days = [(10 * i + j, COHORT, 7) for i in range(3) for j in range(5)]
        return three([], [*days, *((10 * i + j, TEMPLATE, 8) for i in range(3) for j in of_template)])

    assert len(parts(rows(range(5)))[1]) == 1
    assert len(parts(rows(range(1, 6)))[1]) == 3, "four of seven"


def two(kind: int, holders: tuple[int, int], strangers: int, size: int = 7) -> Rows:
    """Two groups of so many, each with a card and a half-day of its own, of whom so many hold one value besides."""
    mine = [(20 * i + j, k, v) for i in range(2) for j in range(size) for k, v in ((PAYMENT, i + 1), (COHORT, 7 + i))]
    mine += [(20 * i + j, kind, 50) for i, many in enumerate(holders) for j in range(many)]
    return [*mine, *crowd(kind, 50, strangers), *((a, COHORT, 1_000 + a // 4) for a in range(40, PEOPLE))]


@pytest.mark.parametrize("holders", [(7, 7), (3, 7), (3, 3)])
def test_an_address_that_nobody_else_has_makes_two_groups_one(holders: tuple[int, int]) -> None:
    groups, whole = parts(two(PREFIX, holders, 0))
    assert [len(g) for g in groups] == [7, 7], "two cards, two days: the graph alone does not see it"
    assert [g.tolist() for g in whole] == [[*range(7), *range(20, 27)]]


@pytest.mark.parametrize(
    ("kind", "holders", "strangers", "why"),
    [
        (PREFIX, (7, 7), 2, "fewer than nine in ten of its holders are theirs"),
        (PREFIX, (7, 2), 0, "two of seven say nothing of a group"),
        (COHORT, (7, 7), 0, "a half-day is anybody's"),
        (OPERATOR, (7, 7), 0, "an operator rents to anybody"),
        (SOFTWARE, (7, 7), 0, "the client chose it"),
    ],
)
def test_else_they_stay_two(kind: int, holders: tuple[int, int], strangers: int, why: str) -> None:
    groups, whole = parts(two(kind, holders, strangers))
    assert [g.tolist() for g in whole] == [g.tolist() for g in groups], why
    assert len(groups) == 2 or kind == COHORT, why


def test_two_in_five_of_each_hold_it() -> None:
    assert [len(parts(two(PREFIX, (4, 4), 0, size))[1]) for size in (8, 10)] == [1, 1]
    assert [len(parts(two(PREFIX, holders, 0, 12))[1]) for holders in ((4, 5), (5, 4))] == [2, 2]


@pytest.mark.parametrize("kind", [TEMPLATE, SOFTWARE])
def test_two_campaigns_at_one_host_with_their_own_prompts_or_clients_stay_two(kind: int) -> None:
    rows = two(PREFIX, (7, 7), 0) + [(20 * i + j, kind, 60 + i) for i in range(2) for j in range(5)]
    groups, whole = parts(rows)
    assert [g.tolist() for g in whole] == [g.tolist() for g in groups]
    assert len(groups) == 2


def test_nothing_is_left_of_nothing() -> None:
    assert parts([(0, COHORT, 1)]) == ([], [])
