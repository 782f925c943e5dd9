"""The classifier on an NVIDIA GPU: `pytest -m gpu` where one is, with CUDA 13 and cuDNN 9. Left out elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import set_models
from campaign_world import FIRST, STEP_MS, Act, blob
from onnx import TensorProto, helper, numpy_helper

from monitor.archive import Archive, Reads
from monitor.errors import BadInput
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.records import REQUEST_SET
from monitor.rescoring import rescore
from monitor.score import CLASSIFIER_COLUMNS, Classifier, ClassifierOptions, packaged_model
from monitor.score.runtime import GRAPH_ROWS, Runner, open_model
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


def runner_of(of: Classifier, size: int = SET_SIZE) -> Runner:
    assert of._active is not None
    assert of._active.pool is not None
    return of._active.runner if size == SET_SIZE else of._active.pool


@pytest.mark.parametrize("size", [SET_SIZE, POOL_SIZE])
def test_a_captured_graph_reads_what_it_is_given(size: int) -> None:
    """Others each time, by turns in each of its sizes."""
    gpu, cpu = model("cuda", require_gpu=True), model("cpu")
    for turn in range(4):
        for n in (8, 64, 1_024, 5, 256, 60, 4_096, 200, 16_384):
            if size * n > SET_SIZE * 4_096 and (turn, size) != (3, SET_SIZE):
                continue
            sets = drawn(n, size, seed=100_000 * turn + n)
            assert np.abs(scores(gpu, *sets) - scores(cpu, *sets)).max() <= 1e-4, (turn, n)
    runner = runner_of(gpu, size)
    assert runner.graphs
    assert set(runner._large.bound) >= {8, 64, 256, 1_024}
    assert all(bound.captured == (n <= GRAPH_ROWS) for n, bound in runner._large.bound.items())
    assert gpu.status().failures == 0


def test_threads_capture_and_run_at_once() -> None:
    """Each a model of its own, as rescoring does: what one of them runs or opens must not spoil another's capture."""
    cpu, sizes = model("cpu"), (5, 64, 300, 1_024)
    asked = [[drawn(n, SET_SIZE, seed=10_000 * thread + n) for n in sizes] for thread in range(6)]
    wanted = [[scores(cpu, *sets) for sets in each] for each in asked]

    def work(thread: int) -> tuple[float, int, bool]:
        apart, failures, graphs = [], 0, True
        for _ in range(4):
            of = model("cuda", require_gpu=True)
            for _ in range(8):
                for sets, said in zip(asked[thread], wanted[thread], strict=True):
                    apart.append(np.abs(scores(of, *sets) - said).max())
            failures, graphs = failures + of.status().failures, graphs and runner_of(of).graphs
        return float(max(apart)), failures, graphs

    with ThreadPoolExecutor(6) as pool:
        for apart, failures, graphs in pool.map(work, range(6)):
            assert apart <= 1e-4
            assert failures == 0
            assert graphs


def test_another_thread_captures_its_own() -> None:
    gpu, cpu, sets = model("cuda", require_gpu=True), model("cpu"), drawn(64, SET_SIZE)
    scores(gpu, *drawn(64, SET_SIZE, seed=2))
    with ThreadPoolExecutor(1) as pool:
        assert np.abs(pool.submit(scores, gpu, *sets).result() - scores(cpu, *sets)).max() <= 1e-4
    assert np.abs(scores(gpu, *sets) - scores(cpu, *sets)).max() <= 1e-4
    assert runner_of(gpu).graphs


def uncaptured(kind: str) -> bytes:
    """A model of four numbers a row that cannot be captured: control flow, a node that only a CPU has, or one that
    waits for what the GPU counted."""
    rng, node = np.random.default_rng(1), helper.make_node
    values = {"W": rng.normal(0, 1, (4, 2)), "V": rng.normal(0, 1, (4, 2)), "zero": 0.0, "little": 0.01}
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in values.items()]
    said = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["B", 2])
    branches = [
        helper.make_graph(
            [node("MatMul", ["x", by], [f"z{by}"]), node("Sigmoid", [f"z{by}"], [f"p{by}"])],
            by, [], [helper.make_tensor_value_info(f"p{by}", TensorProto.FLOAT, ["B", 2])],
        )
        for by in "WV"
    ]  # fmt: skip
    product, end = node("MatMul", ["x", "W"], ["a"]), node("Sigmoid", ["z"], ["p"])
    nodes = {
        "control flow": [
            node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["c"]),
            node("If", ["c"], ["p"], then_branch=branches[0], else_branch=branches[1]),
        ],
        "on the CPU": [product, node("Atan", ["a"], ["z"]), end],
        "waits": [
            product, node("Relu", ["x"], ["some"]), node("NonZero", ["some"], ["at"]),
            node("Cast", ["at"], ["where"], to=TensorProto.FLOAT), node("ReduceSum", ["where"], ["s"], keepdims=0),
            node("Mul", ["s", "little"], ["t"]), node("Add", ["a", "t"], ["z"]), end,
        ],
    }[kind]  # fmt: skip
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])
    made = helper.make_graph(nodes, "uncaptured", [given], [said], constants)
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(made, opset_imports=opset, ir_version=10).SerializeToString())


@pytest.mark.parametrize("kind", ["control flow", "on the CPU", "waits"])
def test_a_model_that_cannot_be_captured_serves_all_the_same(kind: str) -> None:
    options = ClassifierOptions(providers=("cuda", "cpu"), buckets=(8, 16), gpu_from=1)
    gpu = open_model(uncaptured(kind), kind, options)
    cpu = open_model(uncaptured(kind), kind, replace(options, providers=("cpu",)))
    pad: Mapping[str, Any] = {"x": np.zeros(4, np.float32)}
    for seed in range(12):
        rows = np.random.default_rng(seed).normal(0, 1, (8 + 8 * (seed % 2), 4)).astype(np.float32)
        assert np.abs(gpu.run({"x": rows}, pad)["p"] - cpu.run({"x": rows}, pad)["p"]).max() <= 1e-4, seed
    assert gpu.session.get_providers()[0] == "CUDAExecutionProvider"
    assert not gpu.graphs
    assert {provider for provider, _, _ in gpu.timings} == {"cuda"}


def test_a_required_gpu_runs_every_node() -> None:
    """Without capture as with it."""
    with pytest.raises(BadInput, match="ONNX Runtime refuses it"):
        open_model(uncaptured("on the CPU"), "m", ClassifierOptions(providers=("cuda", "cpu"), require_gpu=True))


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
