"""One training from samples to a model directory: split, fit, calibrate, measure, export, and a manifest of it all."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor import wiring
from monitor.errors import NothingReadable
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import CLASSIFIER_COLUMNS, ClassifierOptions
from monitor.score.classifier import Classifier
from monitor.score.manifest import MANIFEST, MODEL, POOL, features_hash
from monitor.vectors import POOL_SIZE, SET_SIZE

from . import card, export, network
from .augment import FEWEST, Batch, Sampler
from .dataset import ROLES, Samples, feature_names, split
from .metrics import account_weights, left_out, measure, measure_pools, rounded

CARD = "README.md"
_GOLDEN = 12
_POOLS = 1_024
_TOLERANCE = 1e-4
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plan:
    """``steps`` batches, ``short_steps`` where a scenario is left out; ``prevalence`` is the share of accounts
    that the calibration takes for abusive, in each way: far fewer than a simulated log has."""

    seed: int = 1
    steps: int = 400
    short_steps: int = 400
    prevalence: float = 0.02
    leave_out: bool = True
    name: str = "requests"
    version: str = "2"
    threads: int = 1


def train(
    samples: Samples, out: Path, plan: Plan, logs: Sequence[Path], progress: Callable[[str], None] = lambda note: None
) -> dict[str, Any]:
    """Train on ``samples`` and write a model directory to ``out``; returns its manifest. Raises NothingReadable where
    there is too little to train on, calibrate with and measure by, DependencyDown without the extra ``train``."""
    torch = network.torch_of_extra()
    role = split(samples, plan.seed)
    parts = [samples.take(role == r) for r in range(len(ROLES))]
    for name, part in zip(ROLES, parts, strict=True):
        if not len(part) or not (part.labels == 1).any():
            raise NothingReadable(f"no abusive tenant is left to {name}: give more logs, or more seeds of a simulation")
    fitted, calibration, test = parts
    log = np.array([1.0 if _heavy(name) else 0.0 for name in feature_names()], np.float32)
    scaling = network.Scaling.of(fitted.aggregates, log)
    weights = _fit(fitted, scaling, plan, plan.steps, progress, "all scenarios")
    batch = _batch(calibration)
    slope, offset = network.platt(
        network.predict(weights, scaling, batch), calibration.labels, _prior(calibration, plan.prevalence)
    )
    probability = _probability(network.predict(weights, scaling, _batch(test)), slope, offset)
    figures = {**measure(probability, test), **_sizes(parts)}
    pools = _pools(test, plan)
    figures |= measure_pools(_probability(network.predict(weights, scaling, pools), slope, offset), pools.labels)
    if plan.leave_out:
        figures |= _leave_out(samples, role, scaling, plan, progress)
    out.mkdir(parents=True, exist_ok=True)
    graphs = {
        name: export.graph(weights, scaling, slope, offset, size)
        for name, size in ((MODEL, SET_SIZE), (POOL, POOL_SIZE))
    }
    chosen = test.take(_spread(probability[:, 0], _GOLDEN))
    golden = _probability(network.predict(weights, scaling, _batch(chosen)), slope, offset)
    manifest = {
        "schema": "classifier/v1", "name": plan.name, "version": plan.version,
        "sha256": hashlib.sha256(graphs[MODEL]).hexdigest(), "opset": export.OPSET,
        "catalogue_hash": features_hash(feature_names(), ACCOUNT_FEATURES), "features": list(feature_names()),
        "inputs": [{"name": name, "role": role_} for role_, name in export.INPUTS.items()],
        "outputs": [{"name": export.OUTPUT, "columns": list(CLASSIFIER_COLUMNS)}],
        "nulls": {"defaults": [float(v) for v in scaling.defaults], "min_known": 0.0},
        "sets": {
            "layout_hash": wiring.VECTORS.hash, "width": wiring.VECTORS.width, "size": SET_SIZE, "pool": POOL_SIZE,
            "pool_sha256": hashlib.sha256(graphs[POOL]).hexdigest(), "min_events": FEWEST,
        },
        "golden": _golden(chosen, golden),
        "licence": "Apache-2.0", "training_data_sha256": samples.digest, "metrics": rounded(figures),
        "training": {
            "seed": plan.seed, "steps": plan.steps, "short_steps": plan.short_steps, "prevalence": plan.prevalence,
            "torch": torch.__version__,
            "logs": [path.name for path in logs], "threads": plan.threads,
        },
    }  # fmt: skip
    for name, graph in graphs.items():
        (out / name).write_bytes(graph)
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    (out / CARD).write_text(card.render(manifest), "utf-8")
    # as it will be served: every check of the loader, the golden rows among them
    Classifier(ClassifierOptions(model_dir=out, providers=("cpu",)), ACCOUNT_FEATURES, wiring.VECTORS)
    return manifest


def _fit(
    samples: Samples, scaling: network.Scaling, plan: Plan, steps: int, progress: Callable[[str], None], label: str
) -> network.Weights:
    sampler = Sampler(samples, wiring.VECTORS, feature_names(), np.random.default_rng(plan.seed))
    return network.fit(
        sampler, scaling, steps=steps, seed=plan.seed, threads=plan.threads,
        progress=lambda step, loss: progress(f"{label}: step {step} of {steps}, loss {loss:.3f}"),
    )  # fmt: skip


def _leave_out(
    samples: Samples, role: npt.NDArray[np.int8], scaling: network.Scaling, plan: Plan, progress: Callable[[str], None]
) -> dict[str, float]:
    """Recall of each kind of attack by a network that never saw one of it, honest tenants unseen too."""
    found: dict[str, float] = {}
    for scenario in np.unique(samples.scenario[(samples.labels == 1).any(axis=1)]):
        mine = samples.scenario == scenario
        weights = _fit(samples.take((role == 0) & ~mine), scaling, plan, min(plan.steps, plan.short_steps), progress,
                       f"without {scenario}")  # fmt: skip
        shown = samples.take(mine | ((role == 2) & ~(samples.labels == 1).any(axis=1)))
        value = left_out(network.predict(weights, scaling, _batch(shown)), shown, str(scenario))
        if value is not None:
            found[f"left_out.{scenario}"] = value
    return found


def _pools(samples: Samples, plan: Plan) -> Batch:
    """Pools of tenants that were not trained on, with cover and missing fields as in training."""
    sampler = Sampler(samples, wiring.VECTORS, feature_names(), np.random.default_rng(plan.seed + 1))
    made = [sampler.pools(64) for _ in range(_POOLS // 64)]
    return Batch(*(np.concatenate([getattr(b, name) for b in made]) for name in Batch.__slots__))


def _heavy(name: str) -> bool:
    """Counts and amounts, whose logarithm enters; shares and logarithms enter as they are."""
    feature = ACCOUNT_FEATURES[name]
    return feature.high is None and feature.low == 0 and not feature.unit.startswith(("log2", "share", "root"))


def _batch(samples: Samples) -> Batch:
    return Batch(samples.events, samples.mask, samples.aggregates, samples.labels)


def _prior(samples: Samples, prevalence: float) -> F64:
    """Weights under which every account counts once and the abusive ones are ``prevalence`` of them."""
    weight = account_weights(samples)
    abusive = (samples.labels == 1).any(axis=1)
    share = weight[abusive].sum() / weight.sum()
    return np.asarray(np.where(abusive, weight * prevalence / share, weight * (1 - prevalence) / (1 - share)))


def _probability(logit: F64, slope: npt.NDArray[np.float32], offset: npt.NDArray[np.float32]) -> F64:
    return np.asarray(1 / (1 + np.exp(-(logit * slope + offset))))


def _sizes(parts: Sequence[Samples]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, part in zip(ROLES, parts, strict=True):
        abusive = (part.labels == 1).any(axis=1)
        found[f"sets.{name}"] = len(part)
        found[f"accounts.{name}"] = len(np.unique(part.account))
        found[f"abusive_accounts.{name}"] = len(np.unique(part.account[abusive]))
    return found


def _spread(scores: F64, n: int) -> npt.NDArray[np.int64]:
    """Places of ``n`` samples from the lowest score to the highest."""
    order = np.argsort(scores, kind="stable")
    return np.unique(order[np.linspace(0, len(order) - 1, min(n, len(order))).astype(np.int64)])


def _golden(samples: Samples, expected: F64) -> dict[str, Any]:
    rows = [
        {name: None if np.isnan(value) else float(value) for name, value in zip(feature_names(), row, strict=True)}
        for row in samples.aggregates
    ]
    sets = [base64.b64encode(e[m == 1].tobytes()).decode() for e, m in zip(samples.events, samples.mask, strict=True)]
    return {
        "rows": rows, "events": sets, "tolerance": _TOLERANCE,
        "expected": {c: expected[:, i].tolist() for i, c in enumerate(CLASSIFIER_COLUMNS)},
    }  # fmt: skip
