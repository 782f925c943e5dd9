"""A tiny real ONNX model over sets for tests, with its manifest: a logistic score of a set's mean and aggregates."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import CLASSIFIER_COLUMNS
from monitor.score.manifest import features_hash
from monitor.vectors import POOL_SIZE, SET_SIZE
from monitor.wiring import VECTORS

FEATURES = ("follow_up_share_24h", "day_entropy_7d")
DEFAULTS = (0.5, 0.25)
WIDTH = len(CLASSIFIER_COLUMNS)


def weights(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return (
        (rng.normal(0, 1, (VECTORS.width, WIDTH)) / 255).astype(np.float32),
        rng.normal(0, 1, (len(FEATURES), WIDTH)).astype(np.float32),
    )


def graph(size: int, seed: int = 0, kind: int = TensorProto.UINT8) -> bytes:
    """sigmoid(sum over the set of events V + agg W)."""
    v, w = weights(seed)
    nodes = [
        helper.make_node("Cast", ["ev"], ["e"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["there"], ["t"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["t", "one"], ["count"], keepdims=1),
        helper.make_node("Reshape", ["t", "row"], ["weights"]),
        helper.make_node("MatMul", ["weights", "e"], ["summed"]),
        helper.make_node("Reshape", ["summed", "flat"], ["sum"]),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "V"], ["a"]),
        helper.make_node("MatMul", ["agg", "W"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p"]),
    ]
    constants = {"V": v, "W": w, "one": np.array([1], np.int64), "row": np.array([-1, 1, size], np.int64),
                 "flat": np.array([-1, VECTORS.width], np.int64)}  # fmt: skip
    inputs = [
        helper.make_tensor_value_info("ev", kind, ["B", size, VECTORS.width]),
        helper.make_tensor_value_info("there", TensorProto.UINT8, ["B", size]),
        helper.make_tensor_value_info("agg", TensorProto.FLOAT, ["B", len(FEATURES)]),
    ]
    output = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["B", WIDTH])
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "sets", inputs, [output], initial),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=10,
    )  # fmt: skip
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def reference(events: Any, mask: Any, rows: Any, seed: int = 0) -> Any:
    """What the graph gives, in double precision: [n, columns]; NaN aggregates take their default."""
    v, w = (x.astype(np.float64) for x in weights(seed))
    filled = np.where(np.isnan(rows), np.array(DEFAULTS), rows).astype(np.float64)
    mean = (events * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1)[:, None]
    return 1 / (1 + np.exp(-(mean @ v + filled @ w)))


def drawn(n: int, size: int = SET_SIZE, seed: int = 1, fewest: int = 8) -> tuple[Any, Any, Any]:
    """Random sets, masks and aggregates."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(size) < rng.integers(fewest, size + 1, n)[:, None]).astype(np.uint8)
    events = (rng.integers(0, 256, (n, size, VECTORS.width)) * mask[:, :, None]).astype(np.uint8)
    rows = rng.random((n, len(FEATURES))).astype(np.float32)
    rows[rng.random(rows.shape) < 0.3] = np.nan
    return events, mask, rows


def manifest(model: bytes, pool: bytes, seed: int = 0, **changed: Any) -> dict[str, Any]:
    events, mask, rows = drawn(3, seed=9)
    expected = reference(events, mask, rows, seed)
    named = [{n: None if np.isnan(x) else float(x) for n, x in zip(FEATURES, r, strict=True)} for r in rows]
    return {
        "schema": "classifier/v1", "name": "sets", "version": "1", "sha256": hashlib.sha256(model).hexdigest(),
        "opset": 18, "catalogue_hash": features_hash(FEATURES, ACCOUNT_FEATURES), "features": list(FEATURES),
        "inputs": [{"name": "ev", "role": "events"}, {"name": "there", "role": "events_mask"},
                   {"name": "agg", "role": "aggregates"}],
        "outputs": [{"name": "p", "columns": list(CLASSIFIER_COLUMNS)}],
        "nulls": {"defaults": list(DEFAULTS), "min_known": 0.0},
        "sets": {"layout_hash": VECTORS.hash, "width": VECTORS.width, "size": SET_SIZE, "pool": POOL_SIZE,
                 "pool_sha256": hashlib.sha256(pool).hexdigest()},
        "golden": {
            "rows": named, "tolerance": 1e-5,
            "events": [base64.b64encode(e[m == 1].tobytes()).decode() for e, m in zip(events, mask, strict=True)],
            "expected": {c: expected[:, i].tolist() for i, c in enumerate(CLASSIFIER_COLUMNS)},
        },
        "licence": "Apache-2.0", "training_data_sha256": "0" * 64, **changed,
    }  # fmt: skip


def write(directory: Path, seed: int = 0, **changed: Any) -> Path:
    """A model directory; ``changed`` replaces parts of its manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    model, pool = graph(SET_SIZE, seed), graph(POOL_SIZE, seed)
    (directory / "model.onnx").write_bytes(model)
    (directory / "pool.onnx").write_bytes(pool)
    (directory / "manifest.json").write_text(json.dumps(manifest(model, pool, seed, **changed)), encoding="utf-8")
    return directory
