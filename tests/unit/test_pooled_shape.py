"""The shape of a pool: its numbers by hand, sums that add, and a model that can only fall."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.pooled import FEATURES, ShapeModel, fit_shape, pool, pool_from_sums, sums_of
from monitor.pooled.shape import COLUMN, MIN_KEPT, Sums
from monitor.sketch import SHAPE_NAMES


def requests(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.integers(0, 256, (n, 24), dtype=np.uint8)
    x[:, 13:] = 255 * (x[:, 13:] > 128)
    return x, rng.random(n) < 0.3


def test_the_columns_are_those_of_the_sketch() -> None:
    assert {name: SHAPE_NAMES.index(name) for name in COLUMN} == dict(COLUMN)


def test_features_by_hand() -> None:
    x = np.zeros((40, 24), np.uint8)
    x[:10, COLUMN["has_question"]] = 255
    x[:30, COLUMN["imperative_first"]] = 255
    x[::2, COLUMN["log_chars"]] = 102  # half 0, half 102: a standard deviation of 51 = 0.2 x 255
    got = dict(zip(FEATURES, pool(x, np.arange(40) < 4).tolist(), strict=True))
    assert got["question_rate"] == 0.25
    assert got["no_command_rate"] == 0.25
    assert got["follow_up_rate"] == 0.1
    assert got["log_chars_sd"] == pytest.approx(0.2)
    assert got["kept_share"] == 1.0
    assert sum(v != 0 for v in got.values()) == 5


def test_requests_with_a_heavy_gram_count_in_the_share_alone() -> None:
    rng = np.random.default_rng(1)
    x, follow = requests(90, rng)
    share = np.where(np.arange(90) < 30, 254, 255).astype(np.uint8)
    residual = x.copy()
    residual[:30] = 0
    assert pool(x, follow, residual, share)[:-1].tolist() == pool(x[30:], follow[30:])[:-1].tolist()
    assert pool(x, follow, residual, share)[-1] == pytest.approx(2 / 3)


def test_sums_of_disjoint_pools_add_up() -> None:
    rng = np.random.default_rng(2)
    (a, fa), (b, fb) = requests(70, rng), requests(55, rng)
    added = Sums(*(u + v for u, v in zip(sums_of(a, fa), sums_of(b, fb), strict=True)))
    both = pool(np.vstack([b, a]), np.concatenate([fb, fa]))
    assert pool_from_sums(*added)[0].tolist() == both.tolist()


def test_sums_of_coarser_scalars_need_their_scale() -> None:
    x, follow = requests(400, np.random.default_rng(3))
    coarse = x.copy()
    coarse[:, :13] //= 4
    got = pool_from_sums(*sums_of(coarse, follow), scale=63.75)[0]
    assert np.abs(got - pool(x, follow)).max() < 0.01


def test_too_few_requests_have_no_shape_and_no_score() -> None:
    x, follow = requests(MIN_KEPT, np.random.default_rng(4))
    enough, few = pool(x, follow), pool(x[1:], follow[1:])
    assert not np.isnan(enough).any()
    assert np.isnan(few[:-1]).all()
    assert few[-1] == 1.0
    score = ShapeModel.shipped().score(np.vstack([enough, few]))
    assert np.isnan(score).tolist() == [False, True]
    assert np.isnan(pool(x[:0], follow[:0])).all()


def test_a_feature_that_is_not_known_accuses_nobody() -> None:
    model = ShapeModel.shipped()
    features = np.full((1, len(FEATURES)), 0.1)
    for j in range(len(FEATURES)):
        hidden, harmless = features.copy(), features.copy()
        hidden[0, j], harmless[0, j] = np.nan, 1.0
        assert model.score(hidden)[0] == pytest.approx(model.score(harmless)[0])


@pytest.fixture(scope="module")
def fitted() -> tuple[ShapeModel, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    y = np.arange(600) % 3 == 0
    x = rng.normal(0.5, 0.1, (600, len(FEATURES))) - 0.15 * y[:, None] * (np.arange(len(FEATURES)) < 4)
    x[:, 5] += 0.3 * y  # higher in campaigns: what is not allowed must not be learned
    return fit_shape(x, y), x, y


def test_the_fit_ranks_and_only_falls(fitted: tuple[ShapeModel, np.ndarray, np.ndarray]) -> None:
    model, x, y = fitted
    score = model.score(x)
    order = np.argsort(score)
    ranks = np.empty(len(y))
    ranks[order] = np.arange(len(y))
    auc = (ranks[y].sum() - y.sum() * (y.sum() - 1) / 2) / (y.sum() * (~y).sum())
    assert auc > 0.97
    assert np.ptp(model.values[5]) == 0.0
    lower = x - np.random.default_rng(6).random(x.shape)
    assert (model.score(lower) >= score).all()
    assert model.contributions(x).sum(axis=1) + model.base == pytest.approx(score)


def test_a_model_survives_json_and_a_rising_one_is_refused(fitted: tuple[ShapeModel, np.ndarray, np.ndarray]) -> None:
    model, x, _ = fitted
    assert np.abs(ShapeModel.from_json(model.to_json()).score(x) - model.score(x)).max() < 1e-4
    with pytest.raises(ValueError, match="never rise"):
        ShapeModel(0.0, model.edges, tuple(v[::-1] for v in model.values), {})
    with pytest.raises(ValueError, match="not a shape model"):
        ShapeModel.from_json(model.to_json().replace("question_rate", "rate"))
    with pytest.raises(ValueError, match="both sides"):
        fit_shape(x, np.zeros(len(x), bool))


def test_the_shipped_model_says_what_it_was_trained_on() -> None:
    model = ShapeModel.shipped()
    assert model.about["windows"]["hostile"] >= 100
    assert "ship_ok" in model.about["licence"]
    assert np.ptp(model.values[FEATURES.index("no_command_rate")]) > 1.0
