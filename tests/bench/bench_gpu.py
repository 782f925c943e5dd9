"""The classifier on a GPU beside one core of the CPU: ``PYTHONPATH=.:tests python tests/bench/bench_gpu.py``.

The model that ships, over drawn sets. Prints whether the whole graph runs on the GPU (it does not start otherwise),
how far the scores are apart, microseconds a call by its rows on either, from how many rows the GPU is the quicker one
(what ``score.classifier.gpu_from`` is for), rates by threads, and what IOBinding, captured graphs and TensorFloat-32
do. Without a GPU: the CPU alone, and it says so.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # ships no types

from monitor.errors import BadInput
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import CLASSIFIER_COLUMNS, Classifier, ClassifierOptions, packaged_model
from monitor.score.manifest import MANIFEST, Manifest
from monitor.vectors import POOL_SIZE, SET_SIZE
from monitor.wiring import VECTORS

CALLS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1_024, 4_096, 16_384, 65_536)
CUDA = "CUDAExecutionProvider"
Drawn = tuple[Any, Any, Any]


def drawn(n: int, size: int, features: int, seed: int, below: float = 1.0) -> Drawn:
    """Sets of 8 to ``size`` vectors and aggregates, each about those of a row that training saw (the model's golden
    ones, of those with no score over ``below``): one byte in eight differs a little, a tenth of the aggregates is not
    known."""
    rng = np.random.default_rng(seed)
    manifest = msgspec.json.decode((packaged_model() / MANIFEST).read_bytes(), type=Manifest)
    golden, held = manifest.golden.sets(VECTORS.width, SET_SIZE)
    known = np.array([[row[name] for name in manifest.features] for row in manifest.golden.rows], np.float32)
    highest = np.max([*manifest.golden.expected.values()], axis=0)
    of = rng.choice(np.flatnonzero(highest <= below), n)
    which = rng.integers(0, np.maximum(held.sum(axis=1), 1)[of][:, None], (n, size))
    mask = (np.arange(size) < rng.integers(8, size + 1, n)[:, None]).astype(np.uint8)
    noise = rng.integers(0, 8, (n, size, VECTORS.width), dtype=np.uint8)
    noise[rng.integers(0, 8, noise.shape, dtype=np.uint8) > 0] = 0
    rows = np.where(np.isnan(known), manifest.nulls.defaults, known)[of] * rng.lognormal(0.0, 0.1, (n, known.shape[1]))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    events = (golden[of[:, None], which] ^ noise) * mask[:, :, None]
    return events, mask, np.resize(rows.T, (features, n)).T.astype(np.float32, order="C")


def model(*providers: str, **changed: Any) -> Classifier:
    options = ClassifierOptions(packaged_model(), providers=providers, **changed)
    return Classifier(options, ACCOUNT_FEATURES, VECTORS)


def scores(of: Classifier, sets: Drawn) -> Any:
    found = of.score_sets(*sets)
    return np.stack([found[c] for c in CLASSIFIER_COLUMNS], axis=1)


def per_call(call: Callable[[], object], least_s: float = 0.3) -> float:
    """Median seconds of a call."""
    call()
    taken: list[float] = []
    while sum(taken) < least_s or len(taken) < 5:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def rate(make: Callable[[], Classifier], sets: Drawn, threads: int, least_s: float = 1.5) -> float:
    """Sets a second of so many threads, each with a session of its own."""
    models = [make() for _ in range(threads)]
    end = time.perf_counter() + least_s

    def work(of: Classifier) -> int:
        done = 0
        while time.perf_counter() < end:
            of.score_sets(*sets)
            done += len(sets[0])
        return done

    for each in models:
        each.score_sets(*sets)
    began = time.perf_counter()
    end = began + least_s
    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, models))
    return done / (time.perf_counter() - began)


def raw(tf32: str, sets: Drawn, how: str) -> tuple[float, Any]:
    """Seconds a call and the probabilities of a bare session on the GPU: ``fed`` as everybody does, ``bound`` to fixed
    places, or a ``graph`` captured over them."""
    options = [(CUDA, {"use_tf32": tf32, "enable_cuda_graph": "1" if how == "graph" else "0"})]
    session = ort.InferenceSession((packaged_model() / "model.onnx").read_bytes(), providers=options)
    feed = {"events": sets[0], "events_mask": sets[1], "aggregates": np.nan_to_num(sets[2])}
    if how == "fed":
        return per_call(lambda: session.run(None, feed)), session.run(None, feed)[0]
    binding = session.io_binding()
    held = {name: ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0) for name, value in feed.items()}
    for name, value in held.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("probability", "cuda")
    eager, graph = ort.RunOptions(), ort.RunOptions()
    eager.add_run_config_entry("gpu_graph_id", "-1")
    graph.add_run_config_entry("gpu_graph_id", "1")
    session.run_with_iobinding(binding, eager)
    binding.bind_ortvalue_output("probability", binding.get_outputs()[0])

    def call() -> Any:
        for name, value in held.items():
            value.update_inplace(feed[name])
        session.run_with_iobinding(binding, graph if how == "graph" else eager)
        return binding.copy_outputs_to_cpu()[0]

    return per_call(call), call()


def listed(threads: Sequence[int], rates: Sequence[float]) -> str:
    return ", ".join(f"{t}: {r:,.0f}" for t, r in zip(threads, rates, strict=True))


def card() -> str:
    try:
        asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no GPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=131_072, help="sets that scores are compared on")
    args = parser.parse_args()
    cpu = model("cpu")
    features = len(cpu.features)
    many = drawn(args.rows, SET_SIZE, features, 1)
    print(f"{card()}; {os.cpu_count()} processors ({platform.machine()}); ONNX Runtime {ort.__version__}")
    try:
        gpu: Classifier | None = model("cuda", require_gpu=True)
    except BadInput as error:
        print(f"no GPU to measure: {error}")
        gpu = None
    if gpu is not None:
        print(f"the whole graph is on {gpu.status().providers[0]} (session.disable_cpu_ep_fallback)")
        pools = drawn(args.rows // 16, POOL_SIZE, features, 2)
        for name, sets in (("sets of 32", many), ("pools of 128", pools)):
            apart = np.abs(scores(gpu, sets) - scores(cpu, sets))
            print(f"{name}: {len(sets[0]):,} scored on both, at most {np.nanmax(apart):.2e} apart")
        for n in (16, 64, 1_024, 16_384):
            part = tuple(x[:n] for x in many)
            (base, plain), (held, _), (replayed, same) = (raw("0", part, how) for how in ("fed", "bound", "graph"))
            print(
                f"{n:,} sets: as everybody feeds {1e3 * base:.2f} ms, at fixed places {1e3 * held:.2f}, by a captured "
                f"graph {1e3 * replayed:.2f}, and scores {np.abs(plain - same).max():.1e} apart"
            )
        quick, rough = raw("1", part, "bound")
        print(f"  with TensorFloat-32 {1e3 * quick:.2f} ms, and scores {np.abs(plain - rough).max():.1e} apart")
    print(f"{'rows a call':>12} {'CPU us':>10} {'GPU us':>10} {'CPU / GPU':>10}")
    quicker: list[bool] = []
    for n in CALLS:
        sets = tuple(x[:n] for x in many)
        slow = 1e6 * per_call(partial(cpu.score_sets, *sets))
        if gpu is None:
            print(f"{n:12,} {slow:10,.0f}")
            continue
        fast = 1e6 * per_call(partial(gpu.score_sets, *sets))
        quicker.append(fast < slow)
        print(f"{n:12,} {slow:10,.0f} {fast:10,.0f} {slow / fast:10.2f}")
    if quicker and quicker[-1]:
        slower = [n for n, wins in zip(CALLS, quicker, strict=True) if not wins]
        print(f"the GPU is the quicker one {f'of more than {slower[-1]:,} rows' if slower else 'always'}")
    part = tuple(x[:16_384] for x in many)
    widths = [t for t in (1, 2, 4, 8, 16) if t <= (os.cpu_count() or 1)]
    on_cpu = [rate(partial(model, "cpu"), part, t) for t in widths]
    print(f"sets a second on the CPU by threads: {listed(widths, on_cpu)}")
    for size in (1_024, 4_096, 16_384) if gpu is not None else ():
        found = [rate(partial(model, "cuda", require_gpu=True, buckets=(size,)), part, t) for t in widths]
        print(
            f"sets a second on the GPU in batches of {size:,} by threads: {listed(widths, found)}; "
            f"{max(found) / on_cpu[0]:.1f} times one core, {max(found) / max(on_cpu):.1f} times all"
        )


if __name__ == "__main__":
    main()
