"""What means hide: the worst seed of each scenario, and which hypothesis is named of which kind of campaign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ..fields import HYPOTHESES
from .score import CampaignScore
from .suite import SuiteReport

WORST = ("scenario", "seeds", "found in", "hours to HIGH", "leaked +0 h", "core precision", "core recall",
         "all-member recall")  # fmt: skip
_NONE = "not found"
CONFUSION = ("true", *HYPOTHESES, _NONE)


def worst_rows(suite: SuiteReport, run: str = "detector") -> list[list[str]]:
    """One row a scenario of a run: each figure is that of its worst seed ("-": no seed has it). None for one seed."""
    by: dict[str, list[CampaignScore]] = {}
    for outcome in suite.of(run):
        for c in outcome.evaluation.campaigns:
            by.setdefault(c.scenario, []).append(c)
    if len(suite.seeds) < 2:
        return []
    return [
        [
            name, str(len(of)), str(sum(c.found for c in of)), _worst(max, [c.hours_to_high for c in of], ".1f"),
            _worst(max, [c.leaks[0].share for c in of], ".1%"), _worst(min, [c.core_precision for c in of], ".2f"),
            _worst(min, [c.core_recall for c in of], ".2f"), _worst(min, [c.member_recall for c in of], ".2f"),
        ]
        for name, of in sorted(by.items())
    ]  # fmt: skip


def _worst(pick: Callable[[list[float]], float], values: Sequence[float | None], form: str) -> str:
    known = [v for v in values if v is not None]
    return format(pick(known), form) if known else "-"


def confusion_rows(suite: SuiteReport, run: str = "detector") -> list[list[str]]:
    """One row a true actor: how many of its campaigns an alert first of HIGH calls what, over seeds."""
    named: dict[str, Counter[str]] = {}
    for outcome in suite.of(run):
        for c in outcome.evaluation.campaigns:
            named.setdefault(c.actor, Counter())[(c.hypothesis if c.found else None) or _NONE] += 1
    kinds = [actor for actor in HYPOTHESES if actor in named]
    return [[actor, *(str(named[actor][column]) for column in CONFUSION[1:])] for actor in kinds]
