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
    known = {frozenset(fired): level(fired)}
    now = known[frozenset(fired)]

    def of(still: frozenset[str]) -> int:
        if still not in known:
            known[still] = level(sorted(still))
        return known[still]

    moves = [
        (name, float(values[name]), end)
        for name in sorted({f for rule in held for f in rule.features if isinstance(values.get(f), float | int)})
        for end in _ends(rules, name, float(values[name]))
    ]
    spans = [(value, end) for _, value, end in moves]
    reached: list[tuple[float, int] | None] = [None] * len(moves)
    for _ in range(_ROUNDS):
        points = [np.linspace(near, far, _POINTS + 1)[1:] for near, far in spans]
        for i, after in enumerate(_after(held, values, [m[0] for m in moves], points, of)):
            drop = next((j for j, found in enumerate(after) if found < now), None)
            if drop is not None:
                reached[i] = (float(points[i][drop]), after[drop])
                spans[i] = (spans[i][0] if drop == 0 else float(points[i][drop - 1]), float(points[i][drop]))
    found = [
        (abs(to[0] - value) / max(abs(value), abs(end - value), 1e-9),
         {"change": name, "from": value, "to": to[0], "level": to[1]})
        for (name, value, end), to in zip(moves, reached, strict=True) if to is not None
    ]  # fmt: skip
    return [entry for _, entry in sorted(found, key=lambda f: (f[0], f[1]["change"]))[:MOST]]


def _ends(rules: RuleSet, name: str, value: float) -> list[float]:
    low, high = rules.bounds(name)
    ends = [low if low is not None else min(0.0, 2 * value), high if high is not None else 2 * value + 1]
    return [end for end in ends if end != value]


def _after(
    held: Sequence[Rule], values: Mapping[str, Any], names: Sequence[str], points: Sequence[Any],
    of: Callable[[frozenset[str]], int],
) -> list[list[int]]:  # fmt: skip
    """Level at each point of each move: one frame and one pass for all of them."""
    rows = len(names) * _POINTS
    columns = {}
    for c in sorted({c for rule in held for c in rule.when.columns}):
        if isinstance(values.get(c), str):
            columns[c] = pl.Series([values[c]] * rows)
            continue
        column = np.full(rows, np.nan if values.get(c) is None else float(values[c]))
        for i, name in enumerate(names):
            if name == c:
                column[i * _POINTS : (i + 1) * _POINTS] = points[i]
        columns[c] = pl.Series(column, nan_to_null=True)
    frame = pl.DataFrame(columns).with_columns(t_ms=pl.lit(0, pl.Int64))
    answers = frame.select(rule.when.expr.fill_null(False).alias(rule.id) for rule in held).rows()
    ids = [rule.id for rule in held]
    levels = [of(frozenset(name for name, fires in zip(ids, row, strict=True) if fires)) for row in answers]
    return [levels[i * _POINTS : (i + 1) * _POINTS] for i in range(len(names))]
