"""The snapshot is river, to the last bit that matters; a restored forest goes on as if nothing had happened."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.arrays import StateUnreadable
from monitor.score.blob import pack, unpack
from monitor.score.forest import Forest, Snapshot
from monitor.score.options import MODEL_CLASSES, AnomalyOptions
from monitor.score.partition import Layout, PartitionModels

WIDTH = 12


def drawn(n: int, width: int = WIDTH, seed: int = 0, nulls: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.clip(rng.normal(rng.random(width), 0.15, (n, width)), 0, 1).astype(np.float32)
    rows[rng.random(rows.shape) < nulls] = np.nan
    return rows


def forest(rows: int = 0, *, window: int = 32, seed: int = 1) -> Forest:
    made = Forest(WIDTH, window=window, seed=seed)
    made.learn(drawn(rows))
    return made


@pytest.mark.parametrize("group", range(len(MODEL_CLASSES)), ids=MODEL_CLASSES)
@pytest.mark.parametrize("kind", [0, 1], ids=["population", "change"])
def test_snapshot_equals_river_after_ten_thousand_rows_in_every_class(group: int, kind: int) -> None:
    """The forests are those a partition makes, seeds and widths included; 39 pivots, a window half full."""
    layout = Layout(((0, WIDTH), (WIDTH, 9)), 3, 10, 3_600)
    model = PartitionModels(0, layout, AnomalyOptions()).duels[group][kind].forest
    model.learn(drawn(10_100, model.width, seed=group, nulls=0.1))
    snapshot = model.snapshot()
    assert snapshot is not None
    assert model.learned // model.window >= 3
    probes = np.concatenate([drawn(300, model.width, 7, 0.2), np.random.default_rng(8).random((300, model.width))])
    probes = probes.astype(np.float32)
    expected = np.array([model.score_one(row) for row in probes])
    assert np.abs(snapshot.score(probes) - expected).max() <= 1e-9
    assert expected.std() > 0.01  # scores that are all alike would prove nothing


def test_a_snapshot_does_not_move_when_the_forest_learns_on() -> None:
    model = forest(100)
    before = model.snapshot()
    assert before is not None
    probes = drawn(50, seed=3)
    expected = before.score(probes)
    model.learn(drawn(200, seed=4))
    assert np.array_equal(before.score(probes), expected)
    after = model.snapshot()
    assert after is not None
    assert not np.array_equal(after.score(probes), expected)


def test_no_opinion_before_two_windows() -> None:
    model = forest(63)
    assert not model.ready
    assert model.snapshot() is None
    model.learn(drawn(1))
    assert model.ready
    assert model.snapshot() is not None


@pytest.mark.parametrize("learned", [0, 1, 31, 32, 33, 100, 640])
def test_restored_forest_learns_the_same_trees(learned: int) -> None:
    kept, restored = forest(learned), forest()
    restored.load(unpack(pack(kept.dump())))
    for seed in (5, 6):
        more = drawn(90, seed=seed)
        kept.learn(more)
        restored.learn(more)
        assert kept.learned == restored.learned
        one, two = kept.dump(), restored.dump()
        for name in ("feature", "threshold", "mass", "current"):
            assert np.array_equal(one[name], two[name]), name
        probes = drawn(50, seed=9, nulls=0.1)
        assert [kept.score_one(p) for p in probes] == [restored.score_one(p) for p in probes]


def test_restored_cuts_are_those_saved_not_those_drawn_anew() -> None:
    """Another seed stands for another version of river, which would draw other cuts."""
    kept, other = forest(100), forest(seed=2)
    other.load(unpack(pack(kept.dump())))
    assert np.array_equal(kept.dump()["threshold"], other.dump()["threshold"])
    snapshot = other.snapshot()
    assert snapshot is not None
    probes = drawn(40, seed=3)
    assert np.array_equal(snapshot.score(probes), [kept.score_one(p) for p in probes])


def test_a_null_reads_as_the_middle() -> None:
    snapshot = forest(100).snapshot()
    assert snapshot is not None
    rows = drawn(50, seed=3, nulls=0.3)
    assert np.array_equal(snapshot.score(rows), snapshot.score(np.where(np.isnan(rows), np.float32(0.5), rows)))


def test_seeds_decide_the_cuts() -> None:
    assert np.array_equal(forest(40).dump()["threshold"], forest(40).dump()["threshold"])
    assert not np.array_equal(forest(40).dump()["threshold"], forest(40, seed=2).dump()["threshold"])


@pytest.mark.parametrize(
    "harm",
    [
        {"learned": -1}, {"learned": "many"}, {"mass": np.zeros((10, 3), np.int32)}, {"current": None},
        {"threshold": np.zeros((1, 1))}, {"feature": np.full((10, 63), 200, np.uint8)},
    ],
)  # fmt: skip
def test_damaged_state_is_refused(harm: dict[str, object]) -> None:
    body = {**forest(100).dump(), **harm}
    with pytest.raises(StateUnreadable, match="damaged"):
        forest().load(body)


def test_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match="features expected"):
        forest().learn(drawn(3, width=5))
    with pytest.raises(ValueError, match="1 to 255"):
        Forest(0)


def test_walk_stops_where_river_stops() -> None:
    """One tree, one branch: a root under a tenth of the window ends the walk before the leaf is added."""
    feature, threshold = np.zeros((1, 1), np.uint8), np.full((1, 1), 0.5)
    sparse = Snapshot(feature, threshold, np.array([[4, 1, 3]], np.int32), 50, 1)
    dense = Snapshot(feature, threshold, np.array([[5, 1, 4]], np.int32), 50, 1)
    row = np.array([[0.2]], np.float32)
    assert sparse.score(row)[0] == 1 - 4 / 150
    assert dense.score(row)[0] == 1 - (5 + 2 * 1) / 150
