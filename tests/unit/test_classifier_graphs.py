"""What a GPU runs by, in the CPU's memory: fixed places, captured graphs, and what is done where those do harm."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import set_models
from onnxruntime.capi.onnxruntime_pybind11_state import Fail  # type: ignore[import-untyped]  # ships no types

from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import CLASSIFIER_COLUMNS, Classifier, ClassifierOptions, runtime
from monitor.score.runtime import Runner, _Gate
from monitor.wiring import VECTORS


def served(directory: Path, *buckets: int) -> Classifier:
    options = ClassifierOptions(set_models.write(directory), providers=("cpu",), buckets=buckets)
    return Classifier(options, ACCOUNT_FEATURES, VECTORS)


class _Session:
    """A session that says it runs on a GPU; what it computes is the real one's. ``harm``: what its graphs do."""

    def __init__(self, real: Any, harm: str = ""):
        self.real, self.harm = real, harm
        self.graphs: list[int] = []

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        """A graph's first run is its capture; the harm is done by the second."""
        number = int(options.get_run_config_entry("gpu_graph_id"))
        if self.harm == "refused" and number >= 0:
            raise Fail("operation not permitted when stream is capturing")
        if self.harm == "broken":
            raise RuntimeError("Error in execution: CUDA failure 2: out of memory")  # as its IOBinding raises it
        if self.harm != "stale" or number < 0 or number not in self.graphs:
            self.real.run_with_iobinding(binding, options)
        self.graphs.append(number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_fixed_places_in_memory_give_the_same_batches(tmp_path: Path) -> None:
    """IOBinding as on a GPU, in the CPU's memory: many batches through the same places, a last one that is not full."""
    model = served(tmp_path, 4, 16, 256)
    assert model._active is not None
    plain = model._active.runner
    bound = Runner(_Session(plain.session), None, (4, 16, 256))
    assert bound._large.device == "cuda"
    bound._large.device = "cpu"
    drawn = set_models.drawn(300)
    for n in (1, 4, 5, 16, 37, 300, 3):
        part = {"ev": drawn[0][:n], "there": drawn[1][:n], "agg": np.nan_to_num(drawn[2][:n])}
        pad = {"ev": np.zeros(1, np.uint8), "there": np.zeros(1, np.uint8), "agg": np.zeros(2, np.float32)}
        assert np.array_equal(bound.run(part, pad)["p"], plain.run(part, pad)["p"])
    assert set(bound._large.bound) == {4, 16, 256}


SIZES = (1, 4, 5, 16, 37, 300, 3, 16, 300)


def asked(runner: Runner, n: int) -> Any:
    """Another few sets each time that as many are asked about."""
    drawn = set_models.drawn(n, seed=n + len(runner.timings))
    feed = {"ev": drawn[0], "there": drawn[1], "agg": np.nan_to_num(drawn[2])}
    pad: dict[str, Any] = {"ev": np.zeros(1, np.uint8), "there": np.zeros(1, np.uint8), "agg": np.zeros(2, np.float32)}
    return runner.run(feed, pad)["p"], set_models.reference(*drawn[:2], np.nan_to_num(drawn[2]))


def captures(directory: Path, harm: str = "") -> tuple[Runner, _Session, list[_Session]]:
    """A runner that captures graphs in the CPU's memory, its session, and those that it opened since."""
    model = served(directory, 4, 16, 256)
    assert model._active is not None
    real, opened = model._active.runner.session, []

    def plain() -> _Session:
        opened.append(_Session(real))
        return opened[-1]

    session = _Session(real, harm)
    runner = Runner(session, None, (4, 16, 256), plain=plain)
    runner._large.device = "cpu"
    return runner, session, opened


def test_a_graph_is_captured_once_a_size_and_thread_and_reads_what_it_is_given(tmp_path: Path) -> None:
    runner, session, opened = captures(tmp_path)

    def work() -> None:
        for n in SIZES:
            said, wanted = asked(runner, n)
            assert np.allclose(said, wanted, atol=1e-5)

    work()
    # one run by none to compare with, and all others by the graph of their size
    assert session.graphs.count(-1) == 3
    assert set(session.graphs) == {-1, 4, 16, 256}
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    assert session.graphs.count(-1) == 6
    assert runner.graphs
    assert not opened


def test_large_batches_are_not_captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "GRAPH_ROWS", 16)
    runner, session, _ = captures(tmp_path)
    for n in SIZES:
        said, wanted = asked(runner, n)
        assert np.allclose(said, wanted, atol=1e-5)
    assert set(session.graphs) == {-1, 4, 16}
    assert runner.graphs


@pytest.mark.parametrize("harm", ["refused", "stale"])
def test_a_model_that_cannot_be_captured_serves_without(tmp_path: Path, harm: str) -> None:
    """Refused amid the capture, or captured with its first inputs in it."""
    runner, _, opened = captures(tmp_path, harm)
    for n in SIZES:
        said, wanted = asked(runner, n)
        assert np.allclose(said, wanted, atol=1e-5)
    assert not runner.graphs
    assert runner.session is opened[0]
    assert len(opened) == 1
    assert set(opened[0].graphs) == {-1}


def test_a_gpu_that_fails_is_no_opinion_and_counted(tmp_path: Path) -> None:
    model = served(tmp_path, 4, 16)
    assert model._active is not None
    model._active.runner = Runner(_Session(model._active.runner.session, "broken"), None, (4, 16))
    model._active.runner._large.device = "cpu"
    found = model.score_sets(*set_models.drawn(3))
    assert all(np.isnan(found[c]).all() for c in CLASSIFIER_COLUMNS)
    assert model.status().failures == 1
    assert "failed (RuntimeError)" in str(model.status().inactive)


def test_a_capture_is_alone() -> None:
    """However many run: those inside end first, and nobody enters before it has ended."""
    gate, inside, seen = _Gate(), threading.Semaphore(0), []
    stop = threading.Event()

    def runs() -> None:
        while not stop.is_set():
            with gate.shared():
                inside.release()
                seen.append(1)
                time.sleep(0.001)
                seen.append(-1)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(runs)
        try:
            for _ in range(20):
                inside.acquire()
                with gate.alone():
                    assert sum(seen) == 0
                    before = len(seen)
                    time.sleep(0.002)
                    assert len(seen) == before
        finally:
            stop.set()
