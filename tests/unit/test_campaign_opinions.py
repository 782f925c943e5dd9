"""What the classifier said of a campaign's accounts: codes that add up, a mean in which nobody speaks for others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from campaign_world import FIRST, STEP_MS, Act, blob, campaign, people
from hypothesis import given, settings
from hypothesis import strategies as st
from spine import Record, batch, pipeline, polls, world

import monitor.campaigns.opinions
from monitor.campaigns import CampaignStage, StepBlob, opinions
from monitor.campaigns.cut import Cut
from monitor.campaigns.opinions import CODES, HELD, HYPOTHESES, LEAST_TENANTS, READ, STEPS, WIDTH, added, mean
from monitor.campaigns.population import Population
from monitor.score import CLASSIFIER_COLUMNS

DAY = 86_400_000 // STEP_MS
QUICK = settings(deadline=None)


def of_group(tenants: Sequence[Sequence[float]]) -> list[float]:
    """``STATISTICS`` of one group; each tenant's accounts by their opinion of the first hypothesis, NaN for none."""
    sizes = np.array([len(t) for t in tenants], np.int64)
    own = np.full((sizes.sum(), len(HYPOTHESES)), np.nan)
    own[:, 0] = [p for t in tenants for p in t]
    by_tenant = Cut(np.cumsum(sizes) - sizes, sizes)
    by_group = Cut(np.zeros(1, np.int64), np.array([len(tenants)], np.int64))
    return opinions.statistics(by_tenant, by_group, own)[0].tolist()


def test_they_are_the_classifiers_columns_in_its_order() -> None:
    assert READ == CLASSIFIER_COLUMNS


def test_golden_codes_of_rows() -> None:
    said = pl.DataFrame(
        {"subject": ["a", "a", "a", "b"], "partition": [0] * 4, "tick": [59, 3, 60, 7],
         **{name: pl.Series([1.0, 0.5, 0.001, None], dtype=pl.Float64) for name in READ}}
    )  # fmt: skip
    rows = opinions.of_rows(said, 60).select("step", "account", "tick", CODES[0]).rows()
    assert rows == [(0, "a", 59, 251), (0, "b", 7, 0), (1, "a", 60, 1)], "the step's last; 0 is no opinion"


SAID = st.lists(st.lists(st.integers(0, STEPS + 1), min_size=5, max_size=5), max_size=40)


@QUICK
@given(SAID, SAID)
def test_sums_of_disjoint_steps_are_the_sum_of_all(first: list[list[int]], second: list[list[int]]) -> None:
    """In any order: two days' sums, too, are read as one."""

    def summed(parts: list[list[int]]) -> np.ndarray:
        rows = np.zeros((1, WIDTH), np.uint8)
        for codes in parts:
            rows = added(rows, np.array([codes], np.uint8))
        return rows

    whole = np.array([*first, *second], np.float64).reshape(-1, 5)
    told = (whole > 0).sum(axis=0)
    expected = np.where(told > 0, np.where(whole > 0, whole - 1, 0).sum(axis=0) / np.maximum(told, 1) / STEPS, np.nan)
    for parts in (first + second, (first + second)[::-1]):
        np.testing.assert_allclose(mean([summed(parts)])[0], expected, rtol=1e-12)
    np.testing.assert_allclose(mean([summed(first), summed(second)])[0], expected, rtol=1e-12)


def test_a_day_of_very_many_is_held_in_as_much_room() -> None:
    rows = np.zeros((1, WIDTH), np.uint8)
    for i in range(4 * HELD):
        rows = added(rows, np.array([[STEPS + 1, 1, 0, 1 + i % 2 * STEPS, 126]], np.uint8))
    found = mean([rows])[0]
    assert found[[0, 1, 4]].tolist() == [1.0, 0.0, 0.5]
    assert np.isnan(found[2])
    assert found[3] == pytest.approx(0.5, abs=0.01)


PART = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=LEAST_TENANTS, max_size=6)


@QUICK
@given(PART, PART)
def test_a_pool_of_disjoint_tenants_is_the_mean_of_its_parts(one: list[list[float]], other: list[list[float]]) -> None:
    whole, a, b = (of_group(t)[0] for t in (one + other, one, other))
    assert whole == pytest.approx((a * len(one) + b * len(other)) / (len(one) + len(other)), abs=1e-12)


def check_nobody_speaks_for_others() -> None:
    assert of_group([[1.0] * 40, [0.0], [0.0], [0.0]])[0] == 0.25, "forty accounts of one tenant"
    busy = people_with(campaign(5), {"c0000": 1.0}, steps=60)
    assert busy["opinion_distillation"] == pytest.approx(0.2), "an account that was read sixty times"


def people_with(acts: list[Act], said: dict[str, float], steps: int = 1) -> dict[str, float | None]:
    """The row of the one candidate; who is in ``said`` is read in each of the steps, others in the first as 0."""
    stage = CampaignStage()
    for act in acts:
        act.opinion = dict.fromkeys(HYPOTHESES, said.get(act.account, 0.0))
    found = stage.step(FIRST, [blob(0, people(200) + acts)])
    loud = [a for a in acts if a.account in said]
    for step in range(1, steps):
        found = stage.step(FIRST + step, [blob(step, loud)]) or found
    assert found is not None
    return {n: v if isinstance(v, float) else None for n, v in found.rows.row(0, named=True).items()}


def test_nobody_speaks_for_others() -> None:
    check_nobody_speaks_for_others()


def test_a_mean_over_opinions_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect that the check above is for: accounts weigh by how much was read of them."""

    def by_account(by_tenant: Cut, by_group: Cut, own: np.ndarray) -> np.ndarray:
        flat = Cut(np.zeros(1, np.int64), np.array([len(own)], np.int64))
        return np.column_stack([flat.mean(own), flat.mean(np.ones((len(own), 1)))])

    monkeypatch.setattr(monitor.campaigns.opinions, "statistics", by_account)
    with pytest.raises(AssertionError):
        check_nobody_speaks_for_others()


def test_two_tenants_speak_for_no_group() -> None:
    nan = float("nan")
    assert np.isnan(of_group([[0.9], [0.9], [nan], [nan]])[0])
    assert of_group([[0.9], [0.9], [0.9], [nan]])[0] == pytest.approx(0.9)
    assert of_group([[0.9], [0.9], [nan], [nan]])[-1] == 0.5, "the share that was read"


def test_what_was_not_read_is_not_known() -> None:
    found = CampaignStage().step(FIRST, [blob(0, people(200) + campaign(6))])
    assert found is not None
    row = found.rows.row(0, named=True)
    assert [row[code] for code in CODES] == [None] * 5
    assert row["opinion_share"] == 0
    assert row["opinion_distillation_quantile"] is None


def test_two_days_count_and_no_more() -> None:
    crowd, held = Population(STEP_MS), []
    for step, said in ((0, 1.0), (1, 0.0), (DAY, None), (2 * DAY, None)):
        crowd.add(FIRST + step, [blob(step, [Act("a", opinion={} if said is None else {"resale": said})])])
        held.append(crowd.opinion_of(np.array([0]))[0, HYPOTHESES.index("resale")])
    assert held[:3] == [1.0, 0.5, 0.5]
    assert np.isnan(held[3])


@pytest.fixture(scope="module")
def part() -> Sequence[Record]:
    return world()[-1_500:]


def blobs_of(part: Sequence[Record], cuts: Sequence[int]) -> tuple[list[StepBlob], dict[tuple[int, int, str], float]]:
    """Every blob of a whole pipeline, and by partition, step and account the opinion that its rows carry at the end of
    the step, of those with one made in it."""
    p, made, standing = pipeline(), list[StepBlob](), dict[tuple[int, int, str], float]()
    p.campaigns.archive = made.extend

    def seen(rows: pl.DataFrame) -> None:
        told = rows.drop_nulls(READ[0]).select("partition", pl.col("tick") // 60, "subject", READ[0]).sort("tick")
        standing.update({(a, b, c): d for a, b, c, d in told.iter_rows()})

    p.seen = seen
    for poll in polls(part, cuts):
        p.process(batch(poll))
        p.publish_campaigns()
    p.finish()
    p.publish_campaigns()
    return sorted(made, key=lambda b: (b.step, b.partition)), standing


def test_the_blobs_of_a_pipeline_have_what_its_rows_say_however_the_log_is_cut(part: Sequence[Record]) -> None:
    whole, standing = blobs_of(part, ())
    again, _ = blobs_of(part, range(90, 1_500, 170))
    assert [(b.step, b.partition) for b in again] == [(b.step, b.partition) for b in whole]
    assert all(b.accounts.equals(a.accounts) for a, b in zip(again, whole, strict=True))
    read = 0
    for b in whole:
        for name, code in zip(b.accounts["account"].to_list(), b.opinions()[:, 0].tolist(), strict=True):
            if code:
                read += 1
                assert code == round(STEPS * standing[(b.partition, b.step, name)]) + 1
    assert read > 20, "or nothing was tried"


def test_a_snapshot_keeps_them() -> None:
    said = campaign(8)
    for i, act in enumerate(said):
        act.opinion = {"distillation": i / 7}
    one, other = CampaignStage(), CampaignStage()
    one.step(FIRST, [blob(0, people(200) + said)])
    other.load(one.dump())
    for stage in (one, other):
        stage.step(FIRST + 1, [blob(1, said[:4])])
    assert other.dump() == one.dump()
    assert np.nanmax(other.population.opinion_of(np.arange(208))) == 1.0
