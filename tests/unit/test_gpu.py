"""The classifier on an NVIDIA GPU: `pytest -m gpu` where one is, with CUDA 13 and cuDNN 9. Left out elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import set_models
from campaign_world import FIRST, STEP_MS, Act, blob

from monitor.archive import Archive, Reads
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.records import REQUEST_SET
from monitor.rescoring import rescore
from monitor.score import CLASSIFIER_COLUMNS, Classifier, ClassifierOptions, packaged_model
from monitor.vectors import POOL_SIZE, SET_SIZE
from monitor.wiring import VECTORS

pytestmark = pytest.mark.gpu
SIZES = (1, 7, 8, 15, 16, 63, 64, 65, 300, 1_024, 1_100, 5_000, 20_000)


def model(*providers: str, **changed: Any) -> Classifier:
    return Classifier(ClassifierOptions(packaged_model(), providers=providers, **changed), ACCOUNT_FEATURES, VECTORS)


def drawn(n: int, size: int, seed: int = 1) -> tuple[Any, Any, Any]:
    """Sets as they come, and aggregates that vary about what training took for unknown."""
    events, mask, _ = set_models.drawn(n, size, seed)
    rng = np.random.default_rng(seed)
    middle = np.array(json.loads((packaged_model() / "manifest.json").read_text("utf-8"))["nulls"]["defaults"])
    rows = (middle * rng.lognormal(0.0, 0.5, (n, len(middle)))).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    return events, mask, rows


def scores(of: Classifier, *sets: Any) -> Any:
    found = of.score_sets(*sets)
    return np.stack([found[c] for c in CLASSIFIER_COLUMNS], axis=1)


@pytest.mark.parametrize("size", [SET_SIZE, POOL_SIZE])
def test_the_gpu_says_what_the_cpu_says(size: int) -> None:
    gpu, cpu = model("cuda", require_gpu=True), model("cpu")
    for n in SIZES:
        sets = drawn(n, size, seed=n)
        on_gpu, on_cpu = scores(gpu, *sets), scores(cpu, *sets)
        assert np.isfinite(on_gpu).all()
        assert np.abs(on_gpu - on_cpu).max() <= 1e-4
        assert on_cpu.std() > 0.01 or n < 64, "scores that do not differ compare nothing"


def test_the_whole_graph_is_on_the_gpu() -> None:
    """The session does not start where a node would fall back to the CPU."""
    status = model("cuda", require_gpu=True).status()
    assert status.providers[0] == "CUDAExecutionProvider"
    assert status.fallback is None
    assert status.inactive is None


def test_a_few_rows_go_to_the_cpu_and_many_to_the_gpu() -> None:
    both = model("cuda", "cpu", gpu_from=32)
    both.take_timings()
    for n, where in ((31, "cpu"), (32, "cuda"), (500, "cuda"), (1, "cpu")):
        both.score_sets(*drawn(n, SET_SIZE))
        assert {provider for provider, _, _ in both.take_timings()} == {where}, n


def test_what_was_archived_scores_the_same_on_either(tmp_path: Path) -> None:
    features = tuple(ACCOUNT_FEATURES.names)
    archive = Archive(tmp_path, STEP_MS, reads=Reads(tmp_path, STEP_MS, features, VECTORS.hash))
    events, mask, _ = set_models.drawn(2_000)
    rows = np.random.default_rng(3).random((2_000, len(features)))
    archive.scored(pl.DataFrame({
        "subject": [f"a{i}" for i in range(2_000)], "partition": pl.Series([0] * 2_000, dtype=pl.Int32),
        "t_ms": [(FIRST + 1) * STEP_MS] * 2_000,
        REQUEST_SET: pl.Series([e[m == 1].tobytes() for e, m in zip(events, mask, strict=True)], dtype=pl.Binary),
        **{name: rows[:, i] for i, name in enumerate(features)},
    }))  # fmt: skip
    archive.put([blob(0, [Act("a0")])])
    on = [ClassifierOptions(packaged_model(), providers=(provider,)) for provider in ("cuda", "cpu")]
    found = [rescore(tmp_path, each, above=0.0, threads=3).found.sort("account") for each in on]
    assert len(found[0]) == 2_000
    apart = [(found[0][c] - found[1][c]).abs().max() for c in CLASSIFIER_COLUMNS]
    assert max(float(str(a)) for a in apart) <= 1e-4
