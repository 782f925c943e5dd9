"""Tiny real ONNX models for tests: logistic scores of a few features, with a manifest that is true of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import CLASSIFIER_COLUMNS
from monitor.score.manifest import features_hash

FEATURES = ("requests_24h", "error_share_24h", "output_tokens_mean_24h", "follow_up_share_24h", "day_entropy_7d")
DEFAULTS = (30.0, 0.0, 400.0, 0.5, 0.7)
WIDTH = len(CLASSIFIER_COLUMNS)
SCALE = (0.01, 1.0, 0.001, 1.0, 1.0)


def weights(seed: int, width: int, columns: int) -> np.ndarray[Any, Any]:
    """Weights of the graph: seeded, scaled to features of these sizes."""
    drawn = np.random.default_rng(seed).normal(0, 1, (width, columns))
    return (drawn * np.array(SCALE[:width])[:, None]).astype(np.float32)


def graph(
    seed: int = 0, *, mask: bool = True, opset: int = 18, out: str = "p", columns: int = WIDTH, batch: str | int = "B"
) -> bytes:
    """sigmoid(agg W + mask V): the mask enters the result, so a test sees whether it was given."""
    width = len(FEATURES)
    w = numpy_helper.from_array(weights(seed, width, columns), "W")
    v = numpy_helper.from_array(0.2 * weights(seed + 1, width, columns) / np.array(SCALE, np.float32)[:, None], "V")
    nodes = [helper.make_node("MatMul", ["agg", "W"], ["a"])]
    inputs = [helper.make_tensor_value_info("agg", TensorProto.FLOAT, [batch, width])]
    if mask:
        inputs.append(helper.make_tensor_value_info("known", TensorProto.FLOAT, [batch, width]))
        nodes += [helper.make_node("MatMul", ["known", "V"], ["b"]), helper.make_node("Add", ["a", "b"], ["z"])]
    nodes.append(helper.make_node("Sigmoid", ["z" if mask else "a"], [out]))
    outputs = [helper.make_tensor_value_info(out, TensorProto.FLOAT, [batch, columns])]
    made = helper.make_graph(nodes, "tiny", inputs, outputs, [w, v] if mask else [w])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def reference(rows: Sequence[Sequence[float | None]], seed: int = 0, *, mask: bool = True, columns: int = WIDTH) -> Any:
    """What the graph gives, by numpy in double precision: [rows, columns]."""
    known = np.array([[v is not None for v in row] for row in rows])
    filled = np.array([[DEFAULTS[i] if v is None else v for i, v in enumerate(row)] for row in rows])
    width = len(FEATURES)
    z = filled @ weights(seed, width, columns).astype(np.float64)
    if mask:
        z = z + known @ (0.2 * weights(seed + 1, width, columns) / np.array(SCALE)[:, None])
    return 1 / (1 + np.exp(-z))


GOLDEN: list[list[float | None]] = [
    [30.0, 0.0, 400.0, 0.5, 0.7],
    [900.0, 0.2, 1_500.0, 0.0, 0.99],
    [3.0, None, 40.0, 1.0, None],
]


def manifest(model: bytes, seed: int = 0, *, mask: bool = True, version: str = "1", **changed: Any) -> dict[str, Any]:
    """A manifest that is true of :func:`graph` with the same arguments."""
    expected = reference(GOLDEN, seed, mask=mask)
    inputs = [{"name": "agg", "role": "aggregates"}] + ([{"name": "known", "role": "mask"}] if mask else [])
    return {
        "schema": "classifier/v1", "name": "tiny", "version": version, "sha256": hashlib.sha256(model).hexdigest(),
        "opset": 18, "catalogue_hash": features_hash(FEATURES, ACCOUNT_FEATURES), "features": list(FEATURES),
        "inputs": inputs,
        "outputs": [{"name": "p", "columns": list(CLASSIFIER_COLUMNS)}],
        "nulls": {"defaults": list(DEFAULTS), "min_known": 0.5},
        "golden": {
            "rows": [dict(zip(FEATURES, row, strict=True)) for row in GOLDEN], "tolerance": 1e-5,
            "expected": {c: expected[:, i].tolist() for i, c in enumerate(CLASSIFIER_COLUMNS)},
        },
        "licence": "Apache-2.0", "training_data_sha256": "0" * 64, "metrics": {"auc": 0.5}, **changed,
    }  # fmt: skip


def write(directory: Path, seed: int = 0, *, mask: bool = True, version: str = "1", **changed: Any) -> Path:
    """A model directory; ``changed`` replaces parts of its manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    model = graph(seed, mask=mask)
    (directory / "model.onnx").write_bytes(model)
    made = manifest(model, seed, mask=mask, version=version, **changed)
    (directory / "manifest.json").write_text(json.dumps(made), encoding="utf-8")
    return directory
