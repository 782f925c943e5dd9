"""What would have to be different for an alert to be weaker: the nearest single change of each statistic.

Found by asking the rules themselves, on copies of the row in which one statistic moves toward either end of its
range, so that it holds of whatever condition a rule has. Applying a change drops the alert; half of it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from .model import Rule, RuleSet

_POINTS = 24
_ROUNDS = 2
"""Two rounds of 24 points place the edge within a six-hundredth of the way."""
MOST = 8

Level = Callable[[Sequence[str]], int]
"""Rules that still fire to a level of severity, -1 for none."""


def changes(rules: RuleSet, values: Mapping[str, Any], fired: Sequence[str], level: Level) -> list[dict[str, Any]]:
    """For each statistic that the firing rules read: ``{change, from, to, level}``, the smallest relative move first.

    ``level`` is what is left of the severity after it. Statistics that no single move of helps are left out.
    """
    held = [rules.rules[name] for name in fired if name in rules.rules]
    now = level(fired)
    features = sorted({f for rule in held for f in rule.features if isinstance(values.get(f), float | int)})
    found = []
    for name in features:
        value = float(values[name])
        low, high = rules.bounds(name)
        ends = [low if low is not None else min(0.0, 2 * value), high if high is not None else 2 * value + 1]
        for end in ends:
            if end == value:
                continue
            near, far = value, end
            result = None
            for _ in range(_ROUNDS):
                points = np.linspace(near, far, _POINTS + 1)[1:]
                after = _levels(held, values, name, points, level)
                drop = next((i for i, after_level in enumerate(after) if after_level < now), None)
                if drop is None:
                    break
                result = (float(points[drop]), after[drop])
                near, far = (near if drop == 0 else float(points[drop - 1])), float(points[drop])
            if result is not None:
                distance = abs(result[0] - value) / max(abs(value), abs(end - value), 1e-9)
                found.append((distance, {"change": name, "from": value, "to": result[0], "level": result[1]}))
    return [entry for _, entry in sorted(found, key=lambda f: (f[0], f[1]["change"]))[:MOST]]


def _levels(held: Sequence[Rule], values: Mapping[str, Any], name: str, points: Any, level: Level) -> list[int]:
    columns = sorted({c for rule in held for c in rule.when.columns})
    frame = pl.DataFrame({c: pl.Series([values.get(c)] * len(points), dtype=_dtype(values.get(c))) for c in columns})
    frame = frame.with_columns(pl.Series(name, points, dtype=pl.Float64), t_ms=pl.lit(0, pl.Int64))
    answers = frame.select(rule.when.expr.fill_null(False).alias(rule.id) for rule in held)
    return [level([rule.id for rule in held if row[rule.id]]) for row in answers.iter_rows(named=True)]


def _dtype(value: Any) -> pl.DataType:
    if isinstance(value, str):
        return pl.String()
    return pl.Boolean() if isinstance(value, bool) else pl.Float64()
