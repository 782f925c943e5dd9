"""What rules in shadow would have said, counted from alerts: those of a backtest's file or of a live stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from monitor.alerts.severity import rank
from monitor.records import Alert
from monitor.rules import RuleSet

WEEK_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Shadow:
    """A rule on trial. ``alerts`` of mode shadow that name it, on ``subjects``; ``also`` of these have an alert of mode
    ``alert`` as well, of which people ``confirmed`` some and called some a ``false_positive``; ``new`` are the rest.
    ``per_week`` is alerts for a week of the alerts' own time, None under a day of it. Severities are the shadow's.
    """

    rule: str
    mode: str
    status: str
    alerts: int
    subjects: int
    severity: Mapping[str, int]
    also: int
    new: int
    confirmed: int
    false_positive: int
    first: float | None
    last: float | None
    per_week: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "severity": dict(self.severity)}


def statistics(alerts: Iterable[Alert], rules: RuleSet, states: Mapping[str, str] | None = None) -> list[Shadow]:
    """A line for each rule in shadow, by id, also where it never fired. ``states``: alert id -> state of its case."""
    last: dict[str, Alert] = {}
    peak: dict[str, str] = {}
    for alert in alerts:
        peak[alert.alert_id] = max(peak.get(alert.alert_id, "info"), alert.severity, key=rank)
        held = last.get(alert.alert_id)
        if held is None or alert.revision >= held.revision:
            last[alert.alert_id] = alert
    heard = [a for a in last.values() if a.mode == "alert"]
    named = {s for a in heard for s in (a.subject, *a.accounts)}
    judged: dict[str, set[str]] = {"confirmed": set(), "false_positive": set()}
    for a in heard:
        state = (states or {}).get(a.alert_id, "")
        if state in judged:
            judged[state] |= {a.subject, *a.accounts}
    times = [(a.raised_at, a.revised_at) for a in last.values()]
    span = max(e for _, e in times) - min(b for b, _ in times) if times else 0.0
    wanted = {r.id for r in rules.rules.values() if r.mode == "shadow"}
    wanted |= {name for a in last.values() if a.mode == "shadow" for name in a.rules if name in rules.rules}
    out = []
    for name in sorted(wanted):
        mine = [a for a in last.values() if a.mode == "shadow" and name in a.rules]
        subjects = {a.subject for a in mine}
        rule = rules.rules[name]
        counts = Counter(peak[a.alert_id] for a in mine)
        out.append(Shadow(
            name, rule.mode, rule.status, len(mine), len(subjects), {s: counts[s] for s in sorted(counts, key=rank)},
            len(subjects & named), len(subjects - named), len(subjects & judged["confirmed"]),
            len(subjects & judged["false_positive"]), min((a.raised_at for a in mine), default=None),
            max((a.revised_at for a in mine), default=None),
            round(len(mine) * WEEK_S / span, 2) if span >= 86_400 else None,
        ))  # fmt: skip
    return out
