"""Two runs over the same rows: which alerts one has and the other has not, and what that means for each account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from monitor.alerts.severity import rank
from monitor.evaluate.inputs import Truth
from monitor.records import Alert

from .replay import Run

GAINED, LOST, STRONGER, WEAKER = "gained", "lost", "stronger", "weaker"
WHAT = (GAINED, LOST, STRONGER, WEAKER)


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an alert or an account. ``old`` and ``new`` are severities, None where there is no alert.

    ``kind`` is ``account`` or ``campaign``; ``truth`` is ``abusive``, ``look-alike``, ``background`` or empty.
    """

    what: str
    mode: str
    kind: str
    subject: str
    old: str | None
    new: str | None
    rules: tuple[str, ...]
    at: float
    accounts: int = 1
    truth: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"what": self.what, "mode": self.mode, "kind": self.kind, "subject": self.subject, "old": self.old,
                "new": self.new, "rules": list(self.rules), "at": self.at, "accounts": self.accounts,
                "truth": self.truth or None}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """``alerts``: of alerts; ``accounts``: of the worst that is said of each account, as subject or core member."""

    old: Run
    new: Run
    alerts: list[Change]
    accounts: list[Change]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "old": summary(self.old), "new": summary(self.new),
            "alerts": {w: [c.as_dict() for c in self.alerts if c.what == w] for w in WHAT},
            "accounts": {w: [c.as_dict() for c in self.accounts if c.what == w] for w in WHAT},
            "rules": {
                name: {"old": _rule(self.old, name), "new": _rule(self.new, name)}
                for name in sorted({*self.old.rules.rules, *self.new.rules.rules})
                if _rule(self.old, name) != _rule(self.new, name)
            },
        }  # fmt: skip


def summary(run: Run) -> dict[str, Any]:
    """Alerts of a run by mode and severity."""
    found = {m: Counter(run.peak[i] for i, a in run.alerts.items() if a.mode == m) for m in ("alert", "shadow")}
    return {"hash": run.rules.hash, "rules": len(run.rules), "alerts": len(run.alerts),
            **{mode: {s: counts[s] for s in sorted(counts, key=rank)} for mode, counts in found.items()}}  # fmt: skip


def _rule(run: Run, name: str) -> dict[str, Any] | None:
    rule = run.rules.rules.get(name)
    if rule is None:
        return None
    return {"mode": rule.mode, "fired": run.fired[name], "subjects": len(run.subjects.get(name, ()))}


def compare(old: Run, new: Run, truth: Iterable[Truth] = ()) -> Comparison:
    """Alerts and accounts of ``new`` against those of ``old``, worst first."""
    known = {t.account_id: t for t in truth}
    return Comparison(old, new, _alerts(old, new, known), _accounts(old, new, known))


def label(accounts: Iterable[str], known: Mapping[str, Truth]) -> str:
    """What the truth calls most of these accounts; empty without a truth."""
    if not known:
        return ""
    words = Counter(
        "background" if (t := known.get(a)) is None else "look-alike" if t.actor == "benign" else "abusive"
        for a in accounts
    )
    return max(sorted(words), key=lambda w: words[w]) if words else ""


def _alerts(old: Run, new: Run, known: Mapping[str, Truth]) -> list[Change]:
    """Alerts of one mode on one subject are one where their windows overlap."""
    found, met = [], set()
    before: dict[tuple[str, str, str], list[Alert]] = {}
    for alert in old.alerts.values():
        before.setdefault((alert.mode, alert.kind, alert.subject), []).append(alert)
    for alert in new.alerts.values():
        same = [a for a in before.get((alert.mode, alert.kind, alert.subject), ()) if _overlap(a, alert)]
        met |= {a.alert_id for a in same}
        was = max((old.peak[a.alert_id] for a in same), key=rank, default=None)
        found.append(_change(alert, was, new.peak[alert.alert_id], known))
    found += [_change(a, old.peak[i], None, known) for i, a in old.alerts.items() if i not in met]
    return _worst_first(c for c in found if c is not None)


def _overlap(one: Alert, other: Alert) -> bool:
    return one.window["start"] <= other.window["end"] and other.window["start"] <= one.window["end"]


def _change(alert: Alert, was: str | None, now: str | None, known: Mapping[str, Truth]) -> Change | None:
    if was == now:
        return None
    who = alert.accounts if alert.kind == "campaign" else [alert.subject]
    return Change(_what(was, now), alert.mode, alert.kind, alert.subject, was, now, tuple(alert.rules), alert.raised_at,
                  len(alert.accounts), label(who, known))  # fmt: skip


def _what(was: str | None, now: str | None) -> str:
    if was is None:
        return GAINED
    if now is None:
        return LOST
    return STRONGER if rank(now) > rank(was) else WEAKER


def _accounts(old: Run, new: Run, known: Mapping[str, Truth]) -> list[Change]:
    before, after = standing(old), standing(new)
    found = []
    for mode, account in before.keys() | after.keys():
        was, now = before.get((mode, account)), after.get((mode, account))
        severities = (was[0] if was else None, now[0] if now else None)
        if severities[0] != severities[1]:
            rules = tuple(sorted({*(was[1] if was else ()), *(now[1] if now else ())}))
            at = (now or was or ("", (), 0.0))[2]
            found.append(Change(_what(*severities), mode, "account", account, *severities, rules, at, 1,
                                label([account], known)))  # fmt: skip
    return _worst_first(found)


def standing(run: Run) -> dict[tuple[str, str], tuple[str, tuple[str, ...], float]]:
    """(mode, account) -> highest severity of an alert on it or with it in the core, its rules, when it was raised."""
    out: dict[tuple[str, str], tuple[str, tuple[str, ...], float]] = {}
    for i, alert in run.alerts.items():
        for account in alert.accounts or [alert.subject]:
            held = out.get((alert.mode, account))
            if held is None or rank(run.peak[i]) > rank(held[0]):
                out[alert.mode, account] = (run.peak[i], tuple(alert.rules), alert.raised_at)
    return out


def _worst_first(changes: Iterable[Change]) -> list[Change]:
    def order(c: Change) -> tuple[int, int, str, str]:
        worst = max(rank(s) for s in (c.old, c.new) if s is not None)
        return WHAT.index(c.what), -worst, c.mode, c.subject

    return sorted(changes, key=order)
