"""The network in PyTorch: the "Fast" set form, its training and its Platt calibration. torch lives here.

A request's vector goes through two layers; four queries attend over the set; their means, the set's mean and second
moment and the aggregates go through two more. Attention pooling after Lee et al. 2019 (Set Transformer), mean and
second moment after Zaheer et al. 2017 (Deep Sets). Written as functions over named tensors, which are exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.errors import DependencyDown
from monitor.score import CLASSIFIER_COLUMNS

from .augment import Batch, Sampler

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Weights = dict[str, F32]

QUERIES = 4
HIDDEN, STATE, HEAD = 64, 48, 64
MASKED = 30.0
"""Subtracted from the attention of a place without a vector: e^-30 of the others'."""
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Scaling:
    """How aggregates enter: log(1 + x) where ``log`` is 1, then less ``mean`` over ``spread``, held within 5. The
    null's default is the mean: it enters as zero."""

    log: F32
    mean: F32
    spread: F32

    @staticmethod
    def of(aggregates: F32, log: F32) -> Scaling:
        """By the known values of a training set; a column never known keeps mean 0 and spread 1."""
        x = np.where(log > 0, np.log1p(np.maximum(aggregates, 0)), aggregates).astype(np.float64)
        known = ~np.isnan(x)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, x, 0).sum(axis=0) / count
        spread = np.sqrt(np.where(known, np.square(x - mean), 0).sum(axis=0) / count)
        return Scaling(log, mean.astype(np.float32), np.maximum(spread, 1e-3).astype(np.float32))

    @property
    def defaults(self) -> F32:
        """What stands for an aggregate that is not known, in its own unit."""
        return np.where(self.log > 0, np.expm1(self.mean * (self.log > 0)), self.mean).astype(np.float32)


def torch_of_extra() -> Any:
    """The module torch. Raises DependencyDown where the extra is not installed."""
    try:
        import torch
    except ImportError as error:
        raise DependencyDown("training needs PyTorch: pip install 'api-abuse-monitor[train]'") from error
    return torch


def begin(width: int, features: int, seed: int) -> Weights:
    """Fresh weights (He et al. 2015), seeded."""
    rng = np.random.default_rng(seed)
    pooled = (QUERIES + 2) * STATE
    sizes = {"in": (width, HIDDEN), "state": (HIDDEN, STATE), "query": (STATE, QUERIES),
             "head": (pooled + features, HEAD), "out": (HEAD, len(CLASSIFIER_COLUMNS))}  # fmt: skip
    made: Weights = {}
    for name, (rows, columns) in sizes.items():
        made[f"{name}.w"] = rng.normal(0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32)
        made[f"{name}.b"] = np.zeros(columns, np.float32)
    made["out.w"] *= 0.1
    return made


def logits(torch: Any, w: Mapping[str, Any], scaling: Mapping[str, Any], events: Any, mask: Any, rows: Any) -> Any:
    """Logits [n, hypotheses] of float tensors: events [n, K, D] from 0 to 255, mask [n, K], aggregates without NaN."""
    h = torch.relu((events / 255.0) @ w["in.w"] + w["in.b"])
    h = torch.relu(h @ w["state.w"] + w["state.b"])
    attention = torch.softmax(h @ w["query.w"] + w["query.b"] + (mask[:, :, None] - 1.0) * MASKED, dim=1)
    even = mask[:, :, None] / (mask.sum(dim=1)[:, None, None] + EPSILON)
    pooled = torch.cat([attention, even], dim=2).transpose(1, 2) @ h
    second = even.transpose(1, 2) @ (h * h)
    x = scaling["log"] * torch.log(torch.relu(rows) + 1.0) + (1.0 - scaling["log"]) * rows
    x = torch.clamp((x - scaling["mean"]) / scaling["spread"], -5.0, 5.0)
    z = torch.cat([pooled.flatten(1), second.flatten(1), x], dim=1)
    z = torch.relu(z @ w["head.w"] + w["head.b"])
    return z @ w["out.w"] + w["out.b"]


def fit(
    sampler: Sampler,
    scaling: Scaling,
    *,
    steps: int,
    seed: int,
    threads: int = 1,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> Weights:
    """Weights after ``steps`` batches, every fourth of pools. The same arguments give the same weights: one thread by
    default, because a sum over threads depends on their number.

    Loss: binary cross-entropy of each hypothesis whose truth is known, which are not exclusive.
    """
    torch = torch_of_extra()
    torch.set_num_threads(threads)
    start = begin(sampler.samples.events.shape[2], sampler.samples.aggregates.shape[1], seed)
    w = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    fixed = _tensors(torch, scaling)
    optimiser = torch.optim.AdamW(w.values(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    for step in range(steps):
        batch = sampler.pools(64) if step % 4 == 3 else sampler.accounts(256)
        events, mask, rows = _inputs(torch, batch, scaling)
        labels = torch.from_numpy(batch.labels.astype(np.float32))
        told = (labels >= 0).float()
        answer = logits(torch, w, fixed, events, mask, rows)
        each = torch.nn.functional.binary_cross_entropy_with_logits(answer, labels.clamp(min=0), reduction="none")
        loss = (each * told).sum() / told.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            progress(step + 1, loss.item())
    return {name: value.detach().numpy().copy() for name, value in w.items()}


def predict(weights: Weights, scaling: Scaling, batch: Batch) -> F64:
    """Logits [n, hypotheses] of a batch as it is, without augmentation."""
    torch = torch_of_extra()
    w = {name: torch.from_numpy(value) for name, value in weights.items()}
    fixed = _tensors(torch, scaling)
    out = np.zeros((len(batch.events), len(CLASSIFIER_COLUMNS)))
    with torch.no_grad():
        for at in range(0, len(out), 1_024):
            part = Batch(*(getattr(batch, name)[at : at + 1_024] for name in Batch.__slots__))
            out[at : at + 1_024] = logits(torch, w, fixed, *_inputs(torch, part, scaling)).numpy()
    return out


def _inputs(torch: Any, batch: Batch, scaling: Scaling) -> tuple[Any, Any, Any]:
    rows = np.where(np.isnan(batch.aggregates), scaling.defaults, batch.aggregates).astype(np.float32)
    return (
        torch.from_numpy(batch.events.astype(np.float32)),
        torch.from_numpy(batch.mask.astype(np.float32)),
        torch.from_numpy(rows),
    )


def _tensors(torch: Any, scaling: Scaling) -> dict[str, Any]:
    return {name: torch.from_numpy(getattr(scaling, name)) for name in ("log", "mean", "spread")}


def platt(logit: F64, labels: npt.NDArray[np.int8], weight: F64) -> tuple[F32, F32]:
    """Slope and offset [hypotheses] that make each logit a probability on weighted calibration samples (Platt 1999,
    with his targets away from 0 and 1), by Newton's method. A hypothesis without both kinds keeps 1 and 0."""
    slope, offset = np.ones(logit.shape[1], np.float32), np.zeros(logit.shape[1], np.float32)
    for j in range(logit.shape[1]):
        known = labels[:, j] >= 0
        x, y, v = logit[known, j], labels[known, j].astype(np.float64), weight[known]
        positives, negatives = v[y == 1].sum(), v[y == 0].sum()
        if not positives or not negatives:
            continue
        counts = (y == 1).sum(), (y == 0).sum()
        target = np.where(y == 1, (counts[0] + 1) / (counts[0] + 2), 1 / (counts[1] + 2))
        a, b = 1.0, float(np.log(positives / negatives))
        for _ in range(100):
            p = 1 / (1 + np.exp(-np.clip(a * x + b, -40, 40)))
            g, c = v * (p - target), v * p * (1 - p)
            gradient = np.array([(g * x).sum(), g.sum()]) + 1e-9
            hessian = np.array([[(c * x * x).sum(), (c * x).sum()], [(c * x).sum(), c.sum()]]) + 1e-6 * np.eye(2)
            move = np.linalg.solve(hessian, gradient)
            move *= min(1.0, 2.0 / (np.abs(move).max() + 1e-12))
            a, b = a - move[0], b - move[1]
            if np.abs(move).max() < 1e-9:
                break
        slope[j], offset[j] = max(a, 1e-3), b
    return slope, offset
