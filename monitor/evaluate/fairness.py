"""Invariant 8, measured: geography is not evidence, nor is the phase of a day.

A detector runs over a log whose countries and autonomous systems are renamed one to one, over the log moved by
hours, and over the log with all autonomous systems made one. The first must change nothing, the second nothing that
is said of anybody; the third must change something, else the first can't fail. Compares alerts; knows neither the
detector nor the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from .ablation import Transform, merge_asns, relabel_geography, shift_phase
from .inputs import Revision

RELABELLED, SHIFTED, MERGED = "relabelled geography", "shifted day", "merged networks"
SHIFT_H = 7.0
TESTS = (RELABELLED, SHIFTED, MERGED)
_SHIFT_S = {SHIFTED: SHIFT_H * 3600.0}
Said = tuple[str, str, str]
"""Mode, severity, hypothesis."""
_PLACES = 3
"""Decimal places of a second and of a score within which two are equal."""


@dataclass(frozen=True, slots=True)
class Fairness:
    """One comparison: revisions of alerts and how many of either side have no equal on the other; subjects, and those
    of whom not the same was said."""

    name: str
    seed: int
    revisions: int
    changed: int
    subjects: int
    subjects_changed: int

    @property
    def holds(self) -> bool | None:
        """Whether the invariant holds; None where this comparison demands nothing by itself.

        A moved log has other numbers for its times, so a revision may come some steps sooner or later (one of 5,063
        on seed 116); the same must be said of everybody, in shadow too.
        """
        if self.name == RELABELLED:
            return self.changed == 0
        return self.subjects_changed == 0 if self.name == SHIFTED else None

    @property
    def reading(self) -> str:
        """The verdict in words."""
        if self.name == RELABELLED:
            return "holds" if self.holds else "BROKEN: a score depends on where"
        if self.name == MERGED:
            return "sees the merger" if self.changed else "nothing reads networks yet: the relabelling can't fail"
        return "the same verdicts" if self.holds else "BROKEN: what is said of an account depends on the hour"


def transform(name: str) -> Transform:
    """The change of a test. Raises KeyError for another name."""
    return {RELABELLED: relabel_geography(), SHIFTED: shift_phase(SHIFT_H), MERGED: merge_asns()}[name]


def compare(name: str, seed: int, before: Iterable[Revision], after: Iterable[Revision]) -> Fairness:
    """Alerts of the log as it is against those of the changed one. Alert ids and evidence are not compared."""
    moved = _SHIFT_S.get(name, 0.0)
    first, second = (list(before), list(after)) if not moved else (_named(before, 0.0), _named(after, moved))
    one, two = Counter(_revision(r, 0.0) for r in first), Counter(_revision(r, moved) for r in second)
    mine, other = _verdicts(first), _verdicts(second)
    changed = sum(((one - two) + (two - one)).values())
    everybody = mine.keys() | other.keys()
    differ = sum(mine.get(s) != other.get(s) for s in everybody)
    return Fairness(name, seed, len(first), changed, len(mine), differ)


def _named(revisions: Iterable[Revision], moved: float) -> list[Revision]:
    """Campaigns called by when and of whom they were founded: their ids are made of the step, which is moved."""
    out, called = [], dict[str, str]()
    for r in sorted(revisions, key=lambda r: (r.subject, r.revision)):
        if r.kind == "campaign":
            name = f"{round(r.revised_at - moved, _PLACES)} {' '.join(sorted(r.accounts))}"
            r = structs.replace(r, subject=called.setdefault(r.subject, name))
        out.append(r)
    return out


def _revision(r: Revision, moved: float) -> tuple[Any, ...]:
    score = None if r.score is None else round(r.score, _PLACES)
    return (r.kind, r.subject, r.revision, round(r.revised_at - moved, _PLACES), r.state, r.mode, r.severity,
            r.hypothesis, score, tuple(sorted(r.accounts)))  # fmt: skip


def _verdicts(revisions: Iterable[Revision]) -> dict[tuple[str, str], frozenset[Said]]:
    """What was ever said of each subject."""
    said: dict[tuple[str, str], set[Said]] = {}
    for r in revisions:
        said.setdefault((r.kind, r.subject), set()).add((r.mode, r.severity, r.hypothesis))
    return {subject: frozenset(values) for subject, values in said.items()}
