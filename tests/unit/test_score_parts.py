"""The parts under the detectors: hashes that never change, maps to [0, 1], samples that do not know an order."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import score_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.arrays import StateUnreadable
from monitor.features.catalogue import ACCOUNT_FEATURES, CLIENT_CLASSES, SCORES
from monitor.score import SCORE_COLUMNS, AnomalyOptions, ClassifierOptions, ScoreOptions
from monitor.score.blob import pack, unpack
from monitor.score.keys import calibrates, row_keys, subject_keys
from monitor.score.options import CLASS_OF, MODEL_CLASSES
from monitor.score.reservoir import Reservoir, decay_key
from monitor.score.sample import EpochSample
from monitor.score.squash import squash_for


def test_vocabulary_is_the_catalogues() -> None:
    assert SCORES.names == SCORE_COLUMNS
    assert ScoreOptions().client_classes == CLIENT_CLASSES
    assert set(CLASS_OF) == set(CLIENT_CLASSES)
    assert set(CLASS_OF.values()) == set(MODEL_CLASSES)
    assert len(MODEL_CLASSES) <= 4
    assert all(name in ACCOUNT_FEATURES for name in AnomalyOptions().level_features)


def plain_hash(text: str, seed: int) -> int:
    """FNV-1a and SplitMix64's finaliser with Python's integers."""
    mask = 2**64 - 1
    h = 0xCBF29CE484222325 ^ seed
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h = (h ^ h >> shift) * factor & mask
    return h ^ h >> 31


def test_subject_hashes_are_the_same_for_ever() -> None:
    """Saved state compares hashes: a change of the function would free every suspect in quarantine."""
    texts = ["a-17", "", "a-18", "\u00e9", "x" * 300]
    assert subject_keys(pl.Series([*texts, None]), 1).tolist() == [plain_hash(t, 1) for t in [*texts, ""]]
    assert plain_hash("a-17", 1) == 13410133978281092485
    assert subject_keys(["a-17"], 2)[0] == plain_hash("a-17", 2) != plain_hash("a-17", 1)
    assert len(subject_keys([], 1)) == 0


def test_subject_hashes_of_a_slice_are_those_of_its_rows() -> None:
    series = pl.Series([f"acct-{i}" for i in range(50)])
    assert np.array_equal(subject_keys(series[10:20], 1), subject_keys(series, 1)[10:20])
    assert np.array_equal(subject_keys(series[::3], 1), subject_keys(series, 1)[::3])


def test_a_third_of_the_subjects_calibrates() -> None:
    keys = subject_keys([f"acct-{i}" for i in range(30_000)], 1)
    assert calibrates(keys).mean() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("feature", ACCOUNT_FEATURES, ids=lambda f: f.name)
def test_every_map_is_monotone_bounded_and_keeps_nulls(feature: object) -> None:
    low = feature.low if feature.low is not None else -50.0
    high = feature.high if feature.high is not None else 1e9
    values = np.concatenate([np.linspace(low, high, 200), np.linspace(low, min(high, low + 40), 200)])
    values.sort()
    frame = pl.DataFrame({feature.name: [*values.tolist(), None, float("nan"), float("inf")]})
    out = squash_for([feature]).of(frame)[:, 0]
    assert np.isnan(out[-3:]).all()
    assert (np.diff(out[:-3]) >= 0).all()
    assert out[0] >= 0
    assert out[-4] <= 1
    assert out[-4] - out[0] > 0.3  # a map that leaves a forest nothing to cut is a mistake


def test_a_missing_column_is_unknown() -> None:
    out = squash_for([ACCOUNT_FEATURES["requests_24h"]]).of(pl.DataFrame({"other": [1.0, 2.0]}))
    assert np.isnan(out).all()


rows_st = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 10**6), st.integers(0, 40)), min_size=1, max_size=60
)


@settings(deadline=None, max_examples=60)
@given(rows_st, st.integers(1, 12), st.randoms(use_true_random=False))
def test_a_reservoir_keeps_the_same_rows_in_any_order(
    rows: list[tuple[int, int, int]], k: int, shuffle: object
) -> None:
    def fill(order: list[tuple[int, int, int]], cuts: int) -> set[tuple[float, int, float]]:
        out = Reservoir(k, 1)
        for part in np.array_split(np.arange(len(order)), cuts):
            chosen = [order[i] for i in part]
            if chosen:
                hashed = np.array([c[0] for c in chosen], np.uint64)
                time = np.array([c[1] for c in chosen], np.int64)
                subject = np.array([c[2] for c in chosen], np.uint64)
                out.add(decay_key(hashed, time, 3_600.0), subject, np.array([[c[1]] for c in chosen], np.float32))
            assert len(out) <= k
        return set(zip(out.key.tolist(), out.subject.tolist(), out.rows[:, 0].tolist(), strict=True))

    rows = list({(r[0], r[1]): r for r in rows}.values())
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    hashed = np.array([r[0] for r in rows], np.uint64)
    keys = decay_key(hashed, np.array([r[1] for r in rows], np.int64), 3_600.0)
    smallest = sorted(zip(keys.tolist(), (r[2] for r in rows), (float(np.float32(r[1])) for r in rows), strict=True))
    assert fill(rows, 1) == fill(shuffled, 3) == set(smallest[:k])


def test_a_reservoir_leans_to_the_recent() -> None:
    rng = np.random.default_rng(1)
    kept = Reservoir(200, 1)
    time = np.repeat(np.arange(40) * 3_600, 100)
    rows = time.astype(np.float32)[:, None]
    kept.add(decay_key(rng.integers(0, 2**64, 4_000, dtype=np.uint64), time, 8 * 3_600.0), time.astype(np.uint64), rows)
    recent = (kept.rows >= 20 * 3_600).mean()
    assert 0.75 < recent < 0.97  # at a half-life of 8 h the older half weighs 2 ** -2.5 of the newer


def test_a_dropped_subject_leaves_with_all_its_rows() -> None:
    kept = Reservoir(10, 1, 1)
    subject = np.array([1, 2, 1, 3], np.uint64)
    kept.add(np.arange(4.0), subject, np.ones((4, 1), np.float32), np.arange(4.0)[:, None])
    assert kept.drop(np.array([1, 9], np.uint64)) == 2
    assert kept.subject.tolist() == [2, 3]
    assert kept.marks[:, 0].tolist() == [1.0, 3.0]


def test_a_sample_keeps_one_row_a_subject_and_the_smallest_keys() -> None:
    subject = np.repeat(subject_keys([f"acct-{i}" for i in range(40)], 1), 5)
    tick = np.tile(np.arange(5), 40).astype(np.int64)
    epoch, group = np.zeros(200, np.int64), np.zeros(200, np.uint8)
    values = np.arange(200, dtype=np.float32)[:, None]
    sample = EpochSample(1)
    sample.offer(epoch, epoch, group, subject, tick, lambda at: values[at], lambda p, g: 8)
    (kept,) = sample.of(0)
    by_epoch, by_tick = row_keys(subject, tick, epoch)
    wanted = sorted(dict(zip(by_epoch.tolist(), subject.tolist(), strict=True)).items())[:8]
    assert set(kept.subject.tolist()) == {s for _, s in wanted}
    for s, value in zip(kept.subject.tolist(), kept.values[:, 0].tolist(), strict=True):
        mine = np.flatnonzero(subject == s)
        assert value == mine[np.argmin(by_tick[mine])]


def test_volume_gives_no_weight() -> None:
    """An account with 200 rows an epoch is drawn as often as one with 2."""
    quiet, busy = np.arange(0, 100), np.arange(1_000, 1_100)
    drawn = {"quiet": 0, "busy": 0}
    for epoch in range(20):
        sample = EpochSample(1)
        who = np.concatenate([np.repeat(quiet, 2), np.repeat(busy, 200)])
        subject = subject_keys([str(w) for w in who], 1)
        tick = np.arange(len(who), dtype=np.int64)
        there = np.full(len(who), epoch, np.int64)
        zero = np.zeros(len(who), np.int64)
        values = who.astype(np.float32)[:, None]
        sample.offer(zero, there, zero.astype(np.uint8), subject, tick, lambda at: values[at], lambda p, g: 10)  # noqa: B023
        (kept,) = sample.of(0)
        for value in kept.values[:, 0]:
            drawn["quiet" if value < 1_000 else "busy"] += 1
    assert sum(drawn.values()) == 200
    assert 60 < drawn["busy"] < 140


@pytest.mark.parametrize("blob", [b"", b"not one", pack({"a": 1})[:-4]])
def test_bytes_that_are_no_state_are_refused(blob: bytes) -> None:
    with pytest.raises(StateUnreadable):
        unpack(blob)


def test_a_blob_gives_back_what_it_was_given() -> None:
    body = {
        "a": [np.arange(6, dtype=np.float32).reshape(2, 3), None],
        "b": {"c": 1.5, "d": np.empty((0, 4), np.uint64)},
    }
    out = unpack(pack(body))
    assert np.array_equal(out["a"][0], body["a"][0])
    assert out["a"][1] is None
    assert out["b"]["d"].shape == (0, 4)
    out["a"][0][0] = 9  # writable


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (AnomalyOptions, {"height": 20}, "height"), (AnomalyOptions, {"trim": 0.7}, "shares"),
        (AnomalyOptions, {"cold_rows": 0}, "at least one row"), (ClassifierOptions, {"buckets": (8, 4)}, "rise"),
        (ScoreOptions, {"tick_s": 7}, "multiple"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(kind: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_rows_made_for_tests_are_what_the_stage_is_given() -> None:
    frame = score_rows.rows(3, np.arange(40))
    assert frame.columns[5:] == list(ACCOUNT_FEATURES.names)
    assert frame.select("subject", "tick").is_duplicated().sum() == 0
