"""One param of one rule through a range of values, over stored rows: the curve that a threshold is chosen on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from monitor.alerts.severity import rank
from monitor.engines import Spread
from monitor.errors import BadInput, Problem
from monitor.evaluate.inputs import Truth
from monitor.rules import RuleSet

from .compare import standing
from .replay import Run, replay
from .rows import Rows

MOST_POINTS = 200
_FORM = re.compile(r"([a-z0-9-]+)\.([a-z][a-z0-9_]*)=([^:]+):([^:]+):([0-9]+)")


@dataclass(frozen=True, slots=True)
class Sweep:
    """``values`` of the param ``param`` of the rule ``rule``, rising or falling."""

    rule: str
    param: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """What a value leads to. ``fired``: rows, ``subjects``: whom the rule fired on; ``alerts`` of which it is a reason.

    ``medium`` and ``high`` count alerts of the whole set, of mode ``alert``, at that severity or above, ``gained`` and
    ``lost`` accounts that have an alert only here or only with the value in force. With a truth, ``abusive``,
    ``look_alike`` and ``background`` say who the subjects are (members, for a rule over campaigns); else None.
    """

    value: float
    fired: int
    subjects: int
    alerts: int
    medium: int
    high: int
    gained: int
    lost: int
    abusive: int | None = None
    look_alike: int | None = None
    background: int | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A sweep's points and ``now``, the one of the value in force. ``abusive`` accounts there are in all, or None."""

    sweep: Sweep
    now: Point
    points: list[Point]
    abusive: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"rule": self.sweep.rule, "param": self.sweep.param, "now": asdict(self.now),
                "points": [asdict(p) for p in self.points], "abusive": self.abusive}  # fmt: skip


def parse_sweep(text: str, rules: RuleSet) -> Sweep:
    """``rule.param=FROM:TO:POINTS``, both ends included. Raises BadInput where it is none, or out of the bounds."""
    found = _FORM.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError("is not rule.param=FROM:TO:POINTS, as in trace-harvest.elicitation=0.1:0.5:9")
        low, high, count = float(found[3]), float(found[4]), int(found[5])
        if not 2 <= count <= MOST_POINTS:
            raise ValueError(f"asks for {count} points: 2 to {MOST_POINTS}")
        rule = rules.rules.get(found[1])
        if rule is None:
            raise ValueError(f"no rule {found[1]!r}: `monitor rules list` shows those there are")
        # as written, not as summed: 0.3 must not become 0.30000000000000004 on the page
        values = tuple(float(f"{low + (high - low) * i / (count - 1):.12g}") for i in range(count))
        for value in values:
            rule.retuned({found[2]: value})
    except ValueError as error:
        raise BadInput([Problem("--sweep", 0, f"{text!r}: {error}")]) from None
    return Sweep(found[1], found[2], values)


def sweep(
    rows: Rows, rules: RuleSet, asked: Sweep, truth: Iterable[Truth] = (), spread: Spread[Part, list[Point]] = map,
    parts: int = 1,
) -> Curve:  # fmt: skip
    """Judge the rows by each value, the values in ``parts`` jobs of ``spread``: the same points whatever they are. A
    rule that is off is tried in shadow: nothing else would be seen of it."""
    known = tuple(truth)
    count = max(1, min(parts, len(asked.values)))
    cuts = [len(asked.values) * i // count for i in range(count + 1)]
    jobs = [Part(rows, rules, replace(asked, values=asked.values[a:b]), known) for a, b in pairwise(cuts)]
    found = list(spread(points, jobs))
    abusive = sum(t.actor != "benign" for t in known) if known else None
    return Curve(asked, found[0][0], [point for part in found for point in part[1:]], abusive)


@dataclass(frozen=True, slots=True)
class Part:
    """Some values of a sweep, and all that it takes to judge by them: the rows by their directory."""

    rows: Rows
    rules: RuleSet
    asked: Sweep
    truth: tuple[Truth, ...]


def points(part: Part) -> list[Point]:
    """The point of the value in force, then those of the part's values: one pass over the rows."""
    asked = part.asked
    rule = part.rules.rules[asked.rule]
    base = part.rules if rule.mode != "off" else _with(part.rules, replace(rule, mode="shadow"))
    rule = base.rules[asked.rule]
    sets = [base, *(_with(base, rule.retuned({asked.param: v})) for v in asked.values)]
    runs = replay(part.rows, sets, tried=asked.rule)
    known = {t.account_id: t for t in part.truth}
    values = (rule.params[asked.param], *asked.values)
    return [_point(v, run, runs[0], asked.rule, known) for v, run in zip(values, runs, strict=True)]


def _with(rules: RuleSet, rule: Any) -> RuleSet:
    return replace(rules, rules={**rules.rules, rule.id: rule})


def _point(value: float, run: Run, base: Run, rule: str, known: dict[str, Truth]) -> Point:
    mine = [a for a in run.alerts.values() if rule in a.rules]
    here, before = set(standing(run)), set(standing(base))
    worst = [rank(run.peak[i]) for i, a in run.alerts.items() if a.mode == "alert"]
    who = _accounts(run, mine, rule)
    told: dict[str, int | None] = {"abusive": None, "look_alike": None, "background": None}
    if known:
        actors = [known.get(a) for a in who]
        told = {
            "abusive": sum(t is not None and t.actor != "benign" for t in actors),
            "look_alike": sum(t is not None and t.actor == "benign" for t in actors),
            "background": sum(t is None for t in actors),
        }
    return Point(
        value, run.fired[rule], len(run.subjects.get(rule, ())), len(mine), sum(w >= rank("medium") for w in worst),
        sum(w >= rank("high") for w in worst), len(here - before), len(before - here), **told,
    )  # fmt: skip


def _accounts(run: Run, mine: Sequence[Any], rule: str) -> set[str]:
    if run.rules.rules[rule].over == "account":
        return run.subjects.get(rule, set())
    return {account for alert in mine for account in alert.accounts}
