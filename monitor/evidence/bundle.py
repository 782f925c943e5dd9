"""From the revisions of an alert to the body of an evidence bundle: plain JSON values, no text of any request.

What a reader needs to judge without us: what was seen and when, against what it was compared, which rules held and
whom they may hit wrongly, what was decided and why, what was not known, and how to compute it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from monitor.errors import MonitorError
from monitor.lifecycle import CaseEvent, incident, state_of
from monitor.records import Alert

from .seal import SCHEMA

__all__ = ["SCHEMA", "CaseEvent", "RuleNote", "build", "nearest_benign"]


class RuleNote(msgspec.Struct, frozen=True):
    """What the file of a rule says of it: version, the reasons, whom it misses and whom it hits wrongly."""

    id: str
    title: str
    version: int
    hypothesis: str
    severity: str
    families: list[str]
    params: dict[str, float]
    why: str
    blind_spots: str
    false_positives: str
    runbook: list[str]
    references: list[str]


def build(
    revisions: Sequence[Alert],
    decisions: Sequence[CaseEvent] = (),
    *,
    rules: Mapping[str, RuleNote],
    made_at: str,
    made_by: str,
    monitor: str,
    viewer_url: str | None = None,
    benign: Iterable[Alert] = (),
) -> dict[str, Any]:
    """The body of a bundle, to be sealed. ``benign`` are alerts that people found to be false: the nearest is named.

    ``made_at`` is RFC 3339. ``rules`` are the rules in force now; of one that was removed since only the id is known.
    Raises MonitorError where the revisions are none, or of two alerts.
    """
    kept = sorted({a.revision: a for a in revisions}.values(), key=lambda a: a.revision)
    if len({a.alert_id for a in revisions}) != 1:
        raise MonitorError("a report is about one alert: give the revisions of one")
    last = kept[-1]
    missing = sorted(set(range(1, last.revision)) - {a.revision for a in kept})
    return {
        "schema": SCHEMA,
        "alert_id": last.alert_id,
        "incident": incident(last.alert_id),
        "subject": {"id": last.subject, "type": last.subject_type, "kind": last.kind},
        "case": state_of(decisions),
        "revisions": [msgspec.to_builtins(a) for a in kept],
        "revisions_missing": missing,
        "decisions": [msgspec.to_builtins(d) for d in decisions],
        "rules": {name: msgspec.to_builtins(rules[name]) for name in last.rules if name in rules},
        "rules_unknown": sorted(set(last.rules) - set(rules)),
        "nearest_benign": nearest_benign(last, benign),
        "viewer_url": viewer_url,
        "replay": _replay(last),
        "made": {"at": made_at, "by": made_by, "monitor": monitor},
    }


def nearest_benign(alert: Alert, others: Iterable[Alert]) -> dict[str, Any] | None:
    """The case found benign whose evidence is most like this one, and the features in which they differ most.

    Distance: mean difference of the quantiles of the features that both show, at least three of them. None where
    there is no such case.
    """
    mine = _quantiles(alert)
    best: tuple[float, str, Alert, dict[str, float]] | None = None
    for other in others:
        theirs = _quantiles(other)
        shared = sorted(mine.keys() & theirs.keys())
        if other.alert_id == alert.alert_id or len(shared) < 3:
            continue
        gaps = {name: round(mine[name] - theirs[name], 6) for name in shared}
        mean = sum(map(abs, gaps.values())) / len(gaps)
        if best is None or (mean, other.alert_id) < best[:2]:
            best = (mean, other.alert_id, other, gaps)
    if best is None:
        return None
    mean, name, other, gaps = best
    largest = sorted(gaps, key=lambda n: (-abs(gaps[n]), n))[:5]
    return {
        "alert_id": name,
        "incident": incident(name),
        "rules": other.rules,
        "distance": round(mean, 6),
        "differs": {n: {"here": mine[n], "there": round(mine[n] - gaps[n], 6)} for n in largest},
    }


def _quantiles(alert: Alert) -> dict[str, float]:
    entries = alert.evidence.get("features") or {}
    return {
        name: float(entry["quantile"])
        for name, entry in entries.items()
        if isinstance(entry, dict) and isinstance(entry.get("quantile"), (int, float))
    }


def _replay(alert: Alert) -> dict[str, Any]:
    """What must be the same, and the commands that give the same alert."""
    week = 7 * 86_400
    return {
        "needs": {
            "versions": dict(alert.versions),
            "log": {"from": alert.window["start"] - week, "to": alert.revised_at, "why": "a window is seven days long"},
            "also": ["the context events of that time", "the same sketch key", "as many partitions as the topic has"],
        },
        "commands": [
            "monitor config check --config monitor.yaml",
            "monitor rules lint rules",
            "monitor backtest LOG... --context CONTEXT... --config monitor.yaml --rules rules --alerts again.ndjson",
            f"monitor alerts show {alert.alert_id} --file again.ndjson",
        ],
        "expect": {"alert_id": alert.alert_id, "raised_at": alert.raised_at, "severity": alert.severity},
    }
