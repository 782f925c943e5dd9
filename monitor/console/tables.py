"""Rows that a dashboard shows beside the alerts: accounts that they name, rules and weeks by what people found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from monitor.casework import Desk
from monitor.fields import SEVERITIES
from monitor.lifecycle import CASE_STATES, incident
from monitor.records import Alert
from monitor.store import cases, readers

from . import api
from .http import BadRequest

WEEK_S = 7 * 86_400
WEEKS_MOST = 52
_MEDIUM, _HIGH = SEVERITIES.index("medium"), SEVERITIES.index("high")


def accounts(desk: Desk, most: int) -> list[dict[str, Any]]:
    """A row for each account that the newest alerts name, by its strongest alert that is not over; the strongest first.

    ``tier`` and ``membership`` are null where the alert is on the account itself; ``alerts`` counts those that name it.
    """
    found = readers.list_alerts(desk.client, desk.keys, limit=api.LIMIT)
    states = cases.states(desk.client, desk.keys, [a.alert_id for a in found])
    named: dict[str, list[Alert]] = {}
    for alert in found:
        for account in _named(alert):
            named.setdefault(account, []).append(alert)
    rows = [_account(name, held, states) for name, held in named.items()]
    rows.sort(key=lambda r: (-SEVERITIES.index(r["severity"]), -r["revised_at"], r["account"]))
    return rows[:most]


def _named(alert: Alert) -> Iterator[str]:
    if alert.kind == "account":
        yield alert.subject
    yield from dict.fromkeys((*alert.accounts, *alert.members)) if alert.kind == "campaign" else ()


def _account(account: str, alerts: list[Alert], states: Mapping[str, str]) -> dict[str, Any]:
    strongest = max(alerts, key=lambda a: (a.state == "open", SEVERITIES.index(a.severity), a.revised_at))
    member = strongest.members.get(account) if strongest.kind == "campaign" else None
    return {
        "account": account,
        "severity": strongest.severity,
        "hypothesis": strongest.hypothesis,
        "kind": strongest.kind,
        "tier": api.tier(strongest, account) if strongest.kind == "campaign" else None,
        "membership": None if member is None else member.membership,
        "alerts": len(alerts),
        "alert_id": strongest.alert_id,
        "incident": incident(strongest.alert_id),
        "revised_at": strongest.revised_at,
        "state": strongest.state,
        "case": states[strongest.alert_id],
        "page": f"/accounts/{quote(account, safe='')}",
        "alert_page": f"/alerts/{strongest.alert_id}",
    }


def rules(desk: Desk) -> list[dict[str, Any]]:
    """A row for each rule: the newest alerts that it held in, by what people found; ``precision`` of those decided."""
    counts = api.firings(desk, readers.list_alerts(desk.client, desk.keys, limit=api.LIMIT))
    rows = []
    for name, note in sorted(desk.rule_notes().items()):
        held = counts.get(name) or dict.fromkeys(("all", "open", "strong", "confirmed", "false_positive"), 0)
        decided = held["confirmed"] + held["false_positive"]
        rows.append(
            {
                "rule": name,
                "title": note.title,
                "hypothesis": note.hypothesis,
                "severity": note.severity,
                **held,
                "precision": held["confirmed"] / decided if decided else None,
                "page": f"/rules/{quote(name, safe='')}",
            }
        )
    return sorted(rows, key=lambda r: -r["all"])


def weeks(query: Mapping[str, str]) -> int:
    """How many weeks back, 1 to :data:`WEEKS_MOST`."""
    text = query.get("weeks", "8")
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= WEEKS_MOST):
        raise BadRequest(400, f"weeks is a number from 1 to {WEEKS_MOST}")
    return int(text)


def quality(desk: Desk, number: int, now_s: float) -> dict[str, list[dict[str, Any]]]:
    """``weeks``: the last ones of seven days that end at ``now_s``, newest first, by when an alert was raised, and what
    people found of it since; ``cases``: alerts by the state of their case. Of the newest alerts (:data:`api.LIMIT`).

    ``spent`` is false alerts of HIGH over ``alerts.budget_per_week``; ``expected_false`` is the
    largest ``expected_false_per_week`` among the alerts of HIGH (null where none is calibrated).
    """
    found = readers.list_alerts(desk.client, desk.keys, limit=api.LIMIT)
    states = cases.states(desk.client, desk.keys, [a.alert_id for a in found])
    budget = desk.settings.alerts.budget_per_week
    rows = []
    for back in range(number):
        end = now_s - back * WEEK_S
        here = [a for a in found if end - WEEK_S < a.raised_at <= end and SEVERITIES.index(a.severity) >= _MEDIUM]
        high = [a for a in here if SEVERITIES.index(a.severity) >= _HIGH]
        said = Counter(states[a.alert_id] for a in here)
        false_high = sum(states[a.alert_id] == "false_positive" for a in high)
        expected = [a.expected_false_per_week for a in high if a.expected_false_per_week is not None]
        rows.append(
            {
                "week": end - WEEK_S,
                "alerts": len(here),
                "high": len(high),
                "confirmed": said["confirmed"],
                "false_positive": said["false_positive"],
                "false_high": false_high,
                "budget": budget,
                "spent": false_high / budget,
                "expected_false": max(expected) if expected else None,
            }
        )
    counted = [
        {
            "case": state,
            "alerts": sum(states[a.alert_id] == state for a in found),
            "high": sum(states[a.alert_id] == state and SEVERITIES.index(a.severity) >= _HIGH for a in found),
        }
        for state in CASE_STATES
    ]
    return {"weeks": rows, "cases": counted}
