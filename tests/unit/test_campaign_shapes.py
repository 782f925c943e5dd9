"""What an account holds of its prompts' shape, and the score of a group: who speaks in it and how loudly."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.campaigns import opinions, shapes
from monitor.campaigns.blob import StepBlob
from monitor.campaigns.calibrate import ranks
from monitor.campaigns.cut import Cut
from monitor.campaigns.population import Population
from monitor.campaigns.sums import SHAPE, expressions
from monitor.features.aggregates import narrow_expressions
from monitor.pooled import ShapeModel, pool, sums_of
from monitor.pooled.shape import COLUMN
from monitor.records import EVENT_SCHEMA
from monitor.wiring import CODES, TEXT
from tests.campaign_world import FIRST, STEP_MS, Act, blob

I64 = np.ndarray


def prompts(n: int, seed: int, *, asks: bool) -> np.ndarray:
    """Sketches [n, 24] of prompts as people write them, or of instructions that a machine sends."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 24), np.uint8)
    if asks:
        x[:, :13] = rng.integers(0, 200, (n, 13))
        for name in ("has_question", "first_person", "second_person", "politeness", "question_first"):
            x[:, COLUMN[name]] = 255 * (rng.random(n) < 0.5)
    else:
        x[:, :13] = 80 + rng.integers(0, 8, (n, 13))
        x[:, COLUMN["imperative_first"]] = 255
    return x


def row_of(x: np.ndarray, whole: np.ndarray | None = None) -> np.ndarray:
    """The sums [SHAPE] that an account's prompts make, by the definition: six-bit scalars of the whole ones."""
    coarse = x.copy()
    coarse[:, :13] //= 4
    share = np.full(len(x), 255, np.uint8) if whole is None else np.where(whole, 255, 100).astype(np.uint8)
    made = sums_of(coarse, np.zeros(len(x), bool), coarse, share)
    return np.concatenate([made.n, made.kept, made.counts[0], made.sums[0], made.squares[0]])


def groups(*members: list[np.ndarray]) -> np.ndarray:
    """Statistics of groups, each of tenants with one account of these sums."""
    each = [row for group in members for row in group]
    group = np.repeat(np.arange(len(members)), [len(g) for g in members])
    tenant = Cut.where(np.ones(len(each) - 1, np.bool_), len(each))
    return shapes.statistics(Cut.where(group[1:] != group[:-1], len(each)), tenant.total(np.array(each)))


def test_events_add_what_the_definition_says() -> None:
    x = prompts(40, 1, asks=True)
    share = [255, 100, None, 255] * 10
    known = {
        "shape": pl.Series(x, dtype=EVENT_SCHEMA["shape"]), "residual_share": pl.Series(share, dtype=pl.UInt8),
        "n_messages": pl.Series([1, 5] * 20, dtype=EVENT_SCHEMA["n_messages"]),
    }  # fmt: skip
    rest = [pl.lit(None, dtype).alias(n) for n, dtype in EVENT_SCHEMA.items() if n not in known]
    events = pl.DataFrame(known).with_columns(rest).with_columns(status=200, input_tokens=1, output_tokens=1)
    added = expressions(narrow_expressions(TEXT, CODES), TEXT.flag, TEXT.scalar)
    got = events.select(added[name].fill_null(0).sum().cast(pl.Int64).alias(name) for name in SHAPE).row(0)
    told = np.array([s is not None for s in share])
    follow = np.array([0, 1] * 20) * np.array([s == 255 for s in share])
    expected = row_of(x[told], np.array([s == 255 for s in share])[told])
    expected[SHAPE.index("whole_follow")] = follow.sum()
    assert got == tuple(expected.tolist())


@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.integers(0, 1000))
def test_a_row_holds_what_is_added_until_it_is_full(parts: list[int], seed: int) -> None:
    one, rows, exact = row_of(prompts(1, seed, asks=True)), np.zeros((1, shapes.WIDTH), np.uint8), 0
    for n in parts:
        rows, exact = shapes.added(rows, n * one[None]), exact + n
    held = shapes.read(rows)[0]
    if exact <= shapes.HELD:
        assert held.tolist() == (exact * one).tolist()
    else:
        assert shapes.HELD // 2 <= held[0] <= shapes.HELD
        assert held / held[0] == pytest.approx(one, rel=0.02)


def test_a_row_takes_any_step_whole() -> None:
    x = np.full((1, 24), 255, np.uint8)
    many = row_of(x)[None] * 1_000_000
    held = shapes.read(shapes.added(np.zeros((1, shapes.WIDTH), np.uint8), many))[0]
    assert held[0] <= shapes.HELD
    assert held / held[0] == pytest.approx(row_of(x), rel=0.01)


def test_machines_stand_out_and_few_prompts_say_nothing() -> None:
    people = [row_of(prompts(30, i, asks=True)) for i in range(5)]
    machines = [row_of(prompts(30, i, asks=False)) for i in range(5)]
    few = [row_of(prompts(6, i, asks=False)) for i in range(3)]
    share, pooled, score = groups(people, machines, machines[:2], few).T
    assert score[1] > score[0] + 2
    assert share.tolist() == [1.0] * 4
    assert pooled.tolist() == [40.0, 40.0, 16.0, 18.0], "eight of a tenant at most"
    assert np.isnan(score[2:]).all(), "two tenants are no pool, and 18 prompts are too few"


def test_the_score_is_the_models_of_the_pool() -> None:
    x = [prompts(8, i, asks=i % 2 == 0) for i in range(4)]
    expected = ShapeModel.shipped().score(pool(np.vstack(x) // 4 * 4, np.zeros(32, bool))[None])
    assert groups([row_of(part) for part in x])[0, 2] == pytest.approx(expected[0], abs=0.3)


def test_one_busy_member_and_one_framed_one_hardly_move_it() -> None:
    people = [row_of(prompts(30, i, asks=True)) for i in range(9)]
    machines = [row_of(prompts(30, i, asks=False)) for i in range(9)]
    busy, framed = row_of(prompts(3_000, 99, asks=False)), row_of(prompts(30, 99, asks=True))
    alone, joined, campaign, with_him = groups(people, [*people, busy], machines, [*machines, framed])[:, 2]
    gap = campaign - alone
    assert joined - alone < 0.4 * gap
    assert campaign - with_him < 0.4 * gap
    swamped = sum(people) + busy
    assert groups([swamped] * 3)[0, 2] - alone > 0.6 * gap, "added up without a limit, he would have spoken for all"


def test_prompts_in_templates_count_in_the_share_alone() -> None:
    x = prompts(60, 5, asks=False)
    half = [row_of(x[i::5], np.arange(12) < 6) for i in range(5)]
    whole = [row_of(x[i::5][:6]) for i in range(5)]
    (share, pooled, score), (_, _, same) = groups(half, whole)
    assert (share, pooled) == (0.5, 30.0)
    kept = ShapeModel.shipped().values[-1]
    assert abs(score - same) <= np.ptp(kept) + 1e-9


def test_the_population_keeps_two_days_of_it() -> None:
    def act(step: int) -> StepBlob:
        return blob(step, [Act("a", sums=dict.fromkeys(SHAPE, 3)), Act("b", sums={"n_text": 4})])

    people, day = Population(STEP_MS), 86_400_000 // STEP_MS
    held = []
    for step in (0, 1, day, 2 * day, 4 * day):
        people.add(FIRST + step, [act(step)])
        held.append(people.shape_of(np.array([0, 1]))[:, 0].tolist())
    assert held == [[3, 0], [6, 0], [9, 0], [6, 0], [3, 0]]


def test_a_shape_is_ranked_among_groups_whose_templates_weigh_as_much() -> None:
    def frame(score: list[float], share: float) -> pl.DataFrame:
        rows = {"shape_score": score, "residual_share": share, "shape_prompts": 50.0, "tenants": 3.0}
        rest = ("harvest_share", "template_share", "question_share", "uniformity", "new_link_share", "new_model_share",
                "change_z", "at_cap_share", "follow_up_share", "tools_share", *opinions.CODES)  # fmt: skip
        return pl.DataFrame(rows).with_columns(pl.lit(None, pl.Float64).alias(name) for name in rest)

    reference = pl.concat([frame([i / 100 for i in range(100)], 1.0), frame([5.0 + i for i in range(100)], 0.1)])
    assert ranks(frame([0.5], 0.9), reference, 40)["shape_quantile"].to_list() == [50 / 101]
    assert ranks(frame([0.5], 0.2), reference, 40)["shape_quantile"].to_list() == [0.0]
    assert ranks(frame([0.5], 0.6), reference, 40)["shape_quantile"].to_list() == [None], "nobody to rank among"


def test_sums_some_runs_at_a_time_are_the_sums() -> None:
    draw = np.random.default_rng(5)
    values = draw.integers(0, 1000, (40_000, 3))
    changes = draw.random(39_999) < 0.6
    cut = Cut.where(changes, 40_000)
    assert len(cut.begin) > 20_000
    rows = draw.permutation(40_000)
    np.testing.assert_array_equal(cut.total_of(values.__getitem__, rows), cut.total(values[rows]))
    none = Cut.where(np.zeros(0, np.bool_), 0)
    assert none.total_of(values.__getitem__, rows[:0]).shape == (0, 3)
