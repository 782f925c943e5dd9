"""Change against the own past: calm tenants stay calm, a change shows, and neither order nor sessions can fool it."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.pooled import change_z
from monitor.pooled.history import features


def person(n: int, rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    x = rng.normal(100 + shift, 30, (n, 24)).clip(0, 255)
    x[:, 13:] = 255 * (rng.random((n, 11)) < 0.3)
    return x.astype(np.uint8)


def sessions(n: int, size: int) -> np.ndarray:
    return np.arange(n) // size


def test_calm_is_calm_and_a_change_shows() -> None:
    rng = np.random.default_rng(1)
    past, of = person(600, rng), sessions(600, 4)
    calm = [change_z(past, of, person(300, rng), sessions(300, 4), seed=i) for i in range(20)]
    assert np.mean(calm) == pytest.approx(0.0, abs=0.6)
    assert max(calm) < 4.0
    mixed = np.vstack([person(150, rng), person(150, rng, shift=40)])
    assert change_z(past, of, mixed, np.arange(300)) > 10.0


def test_the_order_of_requests_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    past, recent = person(200, rng), person(90, rng, 10)
    of_past, of_recent = sessions(200, 3), sessions(90, 3)
    a, b = rng.permutation(200), rng.permutation(90)
    assert change_z(past[a], of_past[a], recent[b], of_recent[b]) == change_z(past, of_past, recent, of_recent)
    other = change_z(past, of_past, recent, of_recent, seed=1)
    assert other != change_z(past, of_past, recent, of_recent)


def test_whole_sessions_are_shuffled() -> None:
    """Sessions that resemble themselves: rows shuffled one by one would make honest tenants look changed."""
    rng = np.random.default_rng(3)

    def moody(count: int) -> np.ndarray:
        return np.vstack([person(20, rng, shift=s) for s in rng.normal(0, 25, count)])

    past, recent = [moody(30) for _ in range(12)], [moody(15) for _ in range(12)]
    whole = [change_z(p, sessions(600, 20), r, sessions(300, 20)) for p, r in zip(past, recent, strict=True)]
    single = [change_z(p, np.arange(600), r, np.arange(300)) for p, r in zip(past, recent, strict=True)]
    assert np.median(single) > 5.0
    assert np.median(whole) < 1.5


def test_features_are_integers_and_close_to_the_kernel() -> None:
    x = person(50, np.random.default_rng(4))
    cos, sin = features(x)
    assert cos.dtype == np.int64
    assert np.abs(cos.astype(float) ** 2 + sin.astype(float) ** 2 - 32_767**2).max() / 32_767**2 < 1e-3
    one_by_one = np.vstack([features(x[i : i + 1])[0] for i in range(50)])
    assert np.array_equal(cos, one_by_one)


def test_nothing_to_shuffle_is_not_known() -> None:
    x = person(40, np.random.default_rng(5))
    assert np.isnan(change_z(x, np.zeros(40), x, np.arange(40)))
    assert np.isnan(change_z(x[:0], [], x, np.arange(40)))
    assert change_z(np.zeros((9, 24), np.uint8), np.arange(9), np.zeros((9, 24), np.uint8), np.arange(9)) == 0.0
