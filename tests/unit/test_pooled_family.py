"""Requests that read like a family: told by form, not by case; what taught is never its own measure."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.pooled import MIN_KEPT, fit_family
from monitor.sketch import SHAPE_NAMES

CASE = [SHAPE_NAMES.index(name) for name in ("upper_share", "starts_upper")]


def prompts(n: int, family: bool, rng: np.random.Generator) -> np.ndarray:
    """A family's prompts are much alike in six scalars and end with a stop; others are anything."""
    x = rng.integers(0, 256, (n, 24)).astype(np.uint8)
    x[:, 13:] = 255 * (x[:, 13:] > 128)
    if family:
        x[:, [0, 2, 3, 4, 8, 9]] = 80 + rng.integers(0, 30, (n, 6))
        x[:, 23] = 255
    return x


def taught(rng: np.random.Generator, n: int = 400):
    x = np.vstack([prompts(n, False, rng), prompts(n, True, rng)])
    hostile = np.arange(2 * n) >= n
    unit = np.arange(2 * n) // 4
    return x, hostile, fit_family(x, np.zeros(2 * n, bool), hostile, np.ones(2 * n), unit, seed=3)


def test_new_prompts_of_a_family_are_told_and_one_in_a_hundred_others():
    rng = np.random.default_rng(1)
    _, _, (reader, _) = taught(rng)
    none = np.zeros(600, bool)
    new, others = reader.read(prompts(600, True, rng), none), reader.read(prompts(600, False, rng), none)
    assert reader.share(new) > 0.5
    assert reader.share(others) < 0.04


def test_case_is_not_read():
    rng = np.random.default_rng(2)
    x, _, (reader, _) = taught(rng)
    changed = x.copy()
    changed[:, CASE] = 255 - changed[:, CASE]
    none = np.zeros(len(x), bool)
    assert np.array_equal(reader.read(x, none), reader.read(changed, none))


def test_teachers_read_more_alike_than_what_readers_apart_say_of_them():
    rng = np.random.default_rng(3)
    x, hostile, (reader, apart) = taught(rng, 150)
    own = reader.read(x, np.zeros(len(x), bool))
    assert own[hostile].mean() > apart[hostile].mean() + 0.02
    assert own[~hostile].mean() < apart[~hostile].mean() - 0.02
    assert np.mean(apart[~hostile] > reader.level) <= 0.01 + 1e-9


def test_a_unit_is_never_read_by_what_it_taught():
    """Every prompt twice, in one unit: its copy may not help. In units of their own the copies do."""
    rng = np.random.default_rng(4)
    x = np.repeat(rng.integers(0, 256, (120, 24)).astype(np.uint8), 2, axis=0)
    hostile = np.repeat(rng.random(120) < 0.5, 2)
    none, even = np.zeros(240, bool), np.ones(240)
    _, kept = fit_family(x, none, hostile, even, np.arange(240) // 2, seed=1)
    _, split = fit_family(x, none, hostile, even, np.arange(240), seed=1)
    side = np.where(hostile, 1.0, -1.0)
    assert np.mean(kept * side > 0) < 0.65
    assert np.mean(split * side > 0) > 0.75


def test_small_pools_and_one_side_are_not_known():
    rng = np.random.default_rng(5)
    x, _, (reader, _) = taught(rng)
    assert np.isnan(reader.share(np.ones(MIN_KEPT - 1)))
    assert reader.share(np.full(MIN_KEPT, np.inf)) == 1.0
    with pytest.raises(ValueError, match="both sides"):
        fit_family(x, np.zeros(len(x), bool), np.ones(len(x), bool), np.ones(len(x)), np.arange(len(x)))


def test_the_same_seed_gives_the_same_reader():
    one, again = (taught(np.random.default_rng(6))[2] for _ in range(2))
    assert np.array_equal(one[1], again[1])
    assert one[0].level == again[0].level
