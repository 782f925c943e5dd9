"""Invariant 8, measured: geography is not evidence, nor is the phase of a day.

A detector runs over a log whose countries and autonomous systems are renamed one to one, over the log moved by
hours, and over the log with all autonomous systems made one. The first must change nothing; the third
must change something, else the first can't fail. Compares alerts; knows neither the detector nor the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .ablation import Transform, merge_asns, relabel_geography, shift_phase
from .inputs import Revision

RELABELLED, SHIFTED, MERGED = "relabelled geography", "shifted day", "merged networks"
SHIFT_H = 7.0
TESTS = (RELABELLED, SHIFTED, MERGED)
_SHIFT_S = {SHIFTED: SHIFT_H * 3600.0}
_PLACES = 3
"""Decimal places of a second and of a score within which two are equal."""


@dataclass(frozen=True, slots=True)
class Fairness:
    """One comparison: revisions of alerts on both sides, and how many of either have no equal on the other."""

    name: str
    seed: int
    revisions: int
    changed: int
    subjects: int
    subjects_changed: int

    @property
    def holds(self) -> bool | None:
        """Whether the invariant holds; None where this comparison demands nothing by itself.

        A day moved by hours moves hourly epochs and what learned in them: revisions may differ, verdicts are shown.
        """
        if self.name == RELABELLED:
            return self.changed == 0
        return None

    @property
    def reading(self) -> str:
        """The verdict in words."""
        if self.name == RELABELLED:
            return "holds" if self.holds else "BROKEN: a score depends on where"
        if self.name == MERGED:
            return "sees the merger" if self.changed else "nothing reads networks yet: the relabelling can't fail"
        return "the same verdicts" if not self.subjects_changed else "some verdicts move with the hour"


def transform(name: str) -> Transform:
    """The change of a test. Raises KeyError for another name."""
    return {RELABELLED: relabel_geography(), SHIFTED: shift_phase(SHIFT_H), MERGED: merge_asns()}[name]


def compare(name: str, seed: int, before: Iterable[Revision], after: Iterable[Revision]) -> Fairness:
    """Alerts of the log as it is against those of the changed one. Alert ids and evidence are not compared."""
    first, second = list(before), list(after)
    moved = _SHIFT_S.get(name, 0.0)
    one, two = Counter(_revision(r, 0.0) for r in first), Counter(_revision(r, moved) for r in second)
    mine, other = _verdicts(first), _verdicts(second)
    changed = sum(((one - two) + (two - one)).values())
    differ = sum(mine.get(s) != other.get(s) for s in mine.keys() | other.keys())
    return Fairness(name, seed, len(first), changed, len(mine), differ)


def _revision(r: Revision, moved: float) -> tuple[Any, ...]:
    score = None if r.score is None else round(r.score, _PLACES)
    return (r.kind, r.subject, r.revision, round(r.revised_at - moved, _PLACES), r.state, r.mode, r.severity,
            r.hypothesis, score, tuple(sorted(r.accounts)))  # fmt: skip


def _verdicts(revisions: Iterable[Revision]) -> dict[tuple[str, str], frozenset[tuple[str, str, str]]]:
    """What was ever said of each subject: mode, severity, hypothesis."""
    said: dict[tuple[str, str], set[tuple[str, str, str]]] = {}
    for r in revisions:
        said.setdefault((r.kind, r.subject), set()).add((r.mode, r.severity, r.hypothesis))
    return {subject: frozenset(values) for subject, values in said.items()}
