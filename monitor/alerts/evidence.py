"""What an alert shows for itself: values, baselines, thresholds. Knows no text: a text column is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from monitor.alerts.options import Quantile
from monitor.errors import MonitorError

_WINDOW = re.compile(r"_(1m|1h|24h|7d)$")


def baseline_columns(feature: str, columns: Collection[str]) -> dict[str, str]:
    """Columns that say what is usual for this subject: ``past`` its own level, ``vs_past`` the change."""
    found: dict[str, str] = {}
    stem = _WINDOW.sub("", feature)
    for kind in ("past", "vs_past"):
        for name in (f"{feature}_{kind}", f"{stem}_{kind}"):
            if name in columns and name != feature:
                found[kind] = name
                break
    return found


def measure(
    row: Mapping[str, Any], partition: int, feature: str, client_class: int | None, quantile: Quantile
) -> dict[str, Any]:
    """One feature's entry: value, baseline, quantile, and ``vs_past`` where the catalogue has it."""
    value = number(row.get(feature), feature)
    entry: dict[str, Any] = {"value": value, "baseline": None, "quantile": None}
    for kind, column in baseline_columns(feature, row.keys()).items():
        entry["baseline" if kind == "past" else kind] = number(row[column], column)
    if value is not None:
        entry["quantile"] = quantile(partition, feature, client_class, float(value))
    return entry


def number(value: Any, name: str) -> float | int | bool | None:
    """The value if it is one that may leave the process. Raises MonitorError on anything but a number."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise MonitorError(f"'{name}' is not a number: text must not become evidence, take it out of the rule's evidence")
