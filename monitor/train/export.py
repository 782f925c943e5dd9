"""Weights to ONNX, opset 18, in plain operators that CUDA has kernels for. onnx lives here.

The graph is written by hand, not traced: it is small, its bytes are the same in every run, and no exporter decides what
runs on a GPU. The set's size is fixed and only the batch is free, so no shape is computed while it runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.errors import DependencyDown
from monitor.score import CLASSIFIER_COLUMNS

from .network import EPSILON, HIDDEN, MASKED, QUERIES, STATE, Scaling, Weights

OPSET, IR = 18, 10
INPUTS = {"events": "events", "events_mask": "events_mask", "aggregates": "aggregates"}
"""Role -> name of the graph's input."""
OUTPUT = "probability"


def graph(
    weights: Weights, scaling: Scaling, slope: npt.NDArray[np.float32], offset: npt.NDArray[np.float32], size: int
) -> bytes:
    """The model over sets of ``size`` vectors, Platt's slope and offset inside. Raises DependencyDown without onnx."""
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise DependencyDown("the export needs onnx: pip install 'api-abuse-monitor[train]'") from error

    width, features, columns = weights["in.w"].shape[0], len(scaling.mean), len(CLASSIFIER_COLUMNS)
    constants: dict[str, npt.NDArray[Any]] = {
        **weights,
        "byte": np.array(1 / 255, np.float32), "one": np.array(1, np.float32), "masked": np.array(MASKED, np.float32),
        "epsilon": np.array(EPSILON, np.float32), "low": np.array(-5, np.float32), "high": np.array(5, np.float32),
        "log": scaling.log, "plain": (1 - scaling.log).astype(np.float32), "mean": scaling.mean,
        "rate": (1 / scaling.spread).astype(np.float32), "slope": slope, "offset": offset,
        "flat": np.array([-1, width], np.int64), "sets": np.array([-1, size, STATE], np.int64),
        "queries": np.array([-1, size, QUERIES], np.int64), "column": np.array([-1, size, 1], np.int64),
        "pooled_shape": np.array([-1, (QUERIES + 1) * STATE], np.int64),
        "second_shape": np.array([-1, STATE], np.int64),
        "axis1": np.array([1], np.int64),
    }  # fmt: skip
    nodes: list[Any] = []

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    add("Cast", ["events"], "bytes", to=TensorProto.FLOAT)
    add("Mul", ["bytes", "byte"], "shares")
    add("Reshape", ["shares", "flat"], "rows")
    add("Relu", [add("Gemm", ["rows", "in.w", "in.b"], "in")], "in_on")
    add("Relu", [add("Gemm", ["in_on", "state.w", "state.b"], "state")], "h")
    add("Reshape", [add("Gemm", ["h", "query.w", "query.b"], "query"), "queries"], "asked")
    add("Reshape", ["h", "sets"], "set")
    add("Cast", ["events_mask"], "mask", to=TensorProto.FLOAT)
    add("Reshape", ["mask", "column"], "there")
    add("Mul", [add("Sub", ["there", "one"], "gone"), "masked"], "penalty")
    add("Softmax", [add("Add", ["asked", "penalty"], "scored")], "attention", axis=1)
    add("Add", [add("ReduceSum", ["there", "axis1"], "count", keepdims=1), "epsilon"], "count_on")
    add("Div", ["there", "count_on"], "even")
    add("Transpose", [add("Concat", ["attention", "even"], "looks", axis=2)], "looks_t", perm=[0, 2, 1])
    add("Reshape", [add("MatMul", ["looks_t", "set"], "pooled"), "pooled_shape"], "means")
    add("Transpose", ["even"], "even_t", perm=[0, 2, 1])
    add("MatMul", ["even_t", add("Mul", ["set", "set"], "squares")], "second")
    add("Reshape", ["second", "second_shape"], "moments")
    add("Log", [add("Add", [add("Relu", ["aggregates"], "positive"), "one"], "more")], "logged")
    add("Add", [add("Mul", ["logged", "log"], "by_log"), add("Mul", ["aggregates", "plain"], "as_is")], "unscaled")
    add("Mul", [add("Sub", ["unscaled", "mean"], "centred"), "rate"], "scaled")
    add("Clip", ["scaled", "low", "high"], "held")
    add("Concat", ["means", "moments", "held"], "all", axis=1)
    add("Relu", [add("Gemm", ["all", "head.w", "head.b"], "head")], "head_on")
    add("Gemm", ["head_on", "out.w", "out.b"], "logit")
    add("Sigmoid", [add("Add", [add("Mul", ["logit", "slope"], "steep"), "offset"], "calibrated")], OUTPUT)

    inputs = [
        helper.make_tensor_value_info("events", TensorProto.UINT8, ["B", size, width]),
        helper.make_tensor_value_info("events_mask", TensorProto.UINT8, ["B", size]),
        helper.make_tensor_value_info("aggregates", TensorProto.FLOAT, ["B", features]),
    ]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["B", columns])
    initial = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "requests", inputs, [output], initial)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    model.producer_name = "monitor train"
    checker.check_model(model, full_check=True)
    assert weights["in.w"].shape[1] == HIDDEN
    return bytes(model.SerializeToString(deterministic=True))
