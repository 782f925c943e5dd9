"""Nested maps and lists of arrays as one blob, by :mod:`monitor.arrays`. Knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor import arrays
from monitor.arrays import StateUnreadable

_KIND, _VERSION = "score", 1
_ARRAY = "#"


class BadBlob(StateUnreadable):
    """Saved state of this stage that is damaged or incomplete."""

    def __init__(self, what: str):
        super().__init__(
            f"the state of 'score' is damaged ({what}): restore an earlier checkpoint, or drop this part of it, "
            "which makes the anomaly scores null until they have warmed up again"
        )


def pack(body: Mapping[str, Any]) -> bytes:
    """``body`` (nested maps and lists of arrays, numbers, strings, bytes, null) as bytes."""
    found: dict[str, npt.NDArray[Any]] = {}
    tree = _strip(body, found)
    return arrays.pack(_KIND, _VERSION, found, tree)


def unpack(blob: bytes) -> dict[str, Any]:
    """The body that :func:`pack` was given; arrays are writable copies. Raises StateUnreadable."""
    try:
        found, tree = arrays.unpack(_KIND, _VERSION, blob)
    except (TypeError, ValueError) as error:
        raise BadBlob("an array does not have the length it claims") from error
    body = _fill(tree, found)
    if not isinstance(body, dict):
        raise BadBlob("no parts")
    return body


def _strip(value: Any, found: dict[str, npt.NDArray[Any]]) -> Any:
    if isinstance(value, np.ndarray):
        name = str(len(found))
        found[name] = value
        return {_ARRAY: name}
    if isinstance(value, Mapping):
        return {str(k): _strip(v, found) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strip(v, found) for v in value]
    return value


def _fill(value: Any, found: Mapping[str, npt.NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            if value[_ARRAY] not in found:
                raise BadBlob("an array is missing")
            return found[value[_ARRAY]]
        return {k: _fill(v, found) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, found) for v in value]
    return value
