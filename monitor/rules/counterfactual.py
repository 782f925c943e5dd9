"""What would have to be different for an alert to be weaker: the nearest single change of each statistic.

Found by asking the rules themselves, on copies of the row in which one statistic moves toward either end of its
range, so that it holds of whatever condition a rule has. A change is in whole grains of its statistic: one tenant, a
millionth of a share. Applying it drops the alert; half of it, in whole grains, does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from .model import Rule, RuleSet

_POINTS = 24
_ROUNDS, _MOST_ROUNDS = 2, 5
"""Two rounds of 24 points place the edge within a six-hundredth of the way; more where it lies next to the value."""
MOST = 8
GRAIN = 1e-6
"""Smallest change of a statistic that is not a count: they are rounded so."""

Level = Callable[[Sequence[str]], int]
"""Rules that still fire to a level of severity, -1 for none."""


@dataclass(slots=True)
class _Move:
    """One statistic on its way from ``value`` to ``end``; the edge lies behind ``near`` and at or before ``far``."""

    name: str
    value: float
    end: float
    grain: float
    near: float = field(init=False)
    far: float = field(init=False)
    reached: tuple[float, int] | None = None

    def __post_init__(self) -> None:
        self.near, self.far = self.value, self.end

    def grains(self, to: float) -> float:
        """``to`` in whole grains, away from the value, no further than the end."""
        up = self.end > self.value
        # what lies a hair over a grain for want of digits is that grain
        count = to / self.grain
        whole = (math.ceil(count - 1e-6) if up else math.floor(count + 1e-6)) * self.grain
        whole = round(whole, 6)
        return min(whole, self.end) if up else max(whole, self.end)

    @property
    def next(self) -> float:
        """The value less or more than the present one by a grain."""
        step = self.grain if self.end > self.value else -self.grain
        return self.grains(self.value + step) if self.value == self.grains(self.value) else self.grains(self.value)


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
        _Move(name, float(values[name]), end, 1.0 if name in rules.whole else GRAIN)
        for name in sorted({f for rule in held for f in rule.features if isinstance(values.get(f), float | int)})
        for end in _ends(rules, name, float(values[name]))
    ]
    _settle(moves, [[m.next] for m in moves], held, values, of, now)
    for turn in range(_MOST_ROUNDS):
        # an edge that lies next to the value is looked for longer: half of a change must not drop the alert too
        open_ = [m for m in moves if (turn < _ROUNDS or m.near == m.value) and abs(m.far - m.near) > m.grain
                 and (turn == 0 or m.reached is not None) and m.far != m.next]  # fmt: skip
        points = [np.linspace(m.near, m.far, _POINTS + 1)[1:].tolist() for m in open_]
        _settle(open_, points, held, values, of, now)
    found = [m for m in moves if m.reached is not None]
    _settle(found, [[m.grains(m.far)] for m in found], held, values, of, now, last=True)
    out = [
        (abs(m.far - m.value) / max(abs(m.value), abs(m.end - m.value), 1e-9),
         {"change": m.name, "from": m.value, "to": m.reached[0], "level": m.reached[1]})
        for m in found if m.reached is not None
    ]  # fmt: skip
    return [entry for _, entry in sorted(out, key=lambda f: (f[0], f[1]["change"]))[:MOST]]


def _settle(
    moves: Sequence[_Move], points: Sequence[Sequence[float]], held: Sequence[Rule], values: Mapping[str, Any],
    of: Callable[[frozenset[str]], int], now: int, last: bool = False,
) -> None:  # fmt: skip
    """Narrow each move to the first of its points at which the level is below ``now`` and the one before it."""
    if not moves:
        return
    for move, at, after in zip(moves, points, _after(held, values, [m.name for m in moves], points, of), strict=True):
        drop = next((j for j, found in enumerate(after) if found < now), None)
        if drop is not None:
            move.reached = at[drop], after[drop]
            move.near, move.far = (move.near if drop == 0 else at[drop - 1]), at[drop]
        elif last:
            move.reached = None


def _ends(rules: RuleSet, name: str, value: float) -> list[float]:
    low, high = rules.bounds(name)
    ends = [low if low is not None else min(0.0, 2 * value), high if high is not None else 2 * value + 1]
    return [end for end in ends if end != value]


def _after(
    held: Sequence[Rule], values: Mapping[str, Any], names: Sequence[str], points: Sequence[Sequence[float]],
    of: Callable[[frozenset[str]], int],
) -> list[list[int]]:  # fmt: skip
    """Level at each point of each move, as many for each: one frame and one pass for all of them."""
    each = len(points[0])
    rows = len(names) * each
    columns = {}
    for c in sorted({c for rule in held for c in rule.when.columns}):
        if isinstance(values.get(c), str):
            columns[c] = pl.Series([values[c]] * rows)
            continue
        column = np.full(rows, np.nan if values.get(c) is None else float(values[c]))
        for i, name in enumerate(names):
            if name == c:
                column[i * each : (i + 1) * each] = points[i]
        columns[c] = pl.Series(column, nan_to_null=True)
    frame = pl.DataFrame(columns).with_columns(t_ms=pl.lit(0, pl.Int64))
    answers = frame.select(rule.when.expr.fill_null(False).alias(rule.id) for rule in held).rows()
    ids = [rule.id for rule in held]
    levels = [of(frozenset(name for name, fires in zip(ids, row, strict=True) if fires)) for row in answers]
    return [levels[i * each : (i + 1) * each] for i in range(len(names))]
