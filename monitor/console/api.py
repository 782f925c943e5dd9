"""The JSON API: flat rows for tables (Grafana's Infinity reads them as they are), whole alerts by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from monitor.casework import Desk, Reader
from monitor.errors import MonitorError
from monitor.fields import ALERT_KINDS, ALERT_STATES, SEVERITIES
from monitor.lifecycle import CASE_STATES, incident
from monitor.records import Alert
from monitor.store import cases, readers

from .http import BadRequest

LIMIT = 1_000
FILTERS = ("severity", "kind", "state", "case", "limit")
"""Parameters of a list of alerts."""
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "severity": SEVERITIES,
    "kind": ALERT_KINDS,
    "state": ALERT_STATES,
    "case": CASE_STATES,
}


def filters(query: Mapping[str, str]) -> dict[str, str]:
    """The filters of a query; an empty one is none. Raises BadRequest for a value that does not exist."""
    found = {name: query[name] for name in _CHOICES if query.get(name)}
    for name, value in found.items():
        if value not in _CHOICES[name]:
            raise BadRequest(400, f"{name} is one of {', '.join(_CHOICES[name])}")
    return found


def only(query: Mapping[str, str], *names: str) -> None:
    """Raises BadRequest for a parameter that is none of ``names``: misspelt, a filter would let everything through."""
    for name in query:
        if name not in names:
            raise BadRequest(400, f"{name} is no parameter here: there are {', '.join(names)}")


def limit(query: Mapping[str, str], default: int = 100) -> int:
    """How many rows, 1 to :data:`LIMIT`."""
    text = query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LIMIT):
        raise BadRequest(400, f"limit is a number from 1 to {LIMIT}")
    return int(text)


def rows(desk: Desk, asked: Mapping[str, str], most: int) -> list[dict[str, Any]]:
    """Newest first. ``severity`` means at least, the others exactly."""
    least = SEVERITIES.index(asked.get("severity", "info"))

    def wanted(a: Alert) -> bool:
        return (
            SEVERITIES.index(a.severity) >= least
            and asked.get("kind", a.kind) == a.kind
            and asked.get("state", a.state) == a.state
        )

    many = LIMIT if "case" in asked else most
    found = readers.list_alerts(desk.client, desk.keys, limit=many, wanted=wanted)
    states = cases.states(desk.client, desk.keys, [a.alert_id for a in found])
    made = [row(a, states[a.alert_id]) for a in found]
    return [r for r in made if asked.get("case", r["case"]) == r["case"]][:most]


def row(a: Alert, case: str) -> dict[str, Any]:
    """An alert as a row of a table."""
    return {
        "alert_id": a.alert_id,
        "incident": incident(a.alert_id),
        "raised_at": a.raised_at,
        "revised_at": a.revised_at,
        "kind": a.kind,
        "subject": a.subject,
        "severity": a.severity,
        "hypothesis": a.hypothesis,
        "confidence": max(a.hypotheses.values(), default=0.0),
        "accounts": a.accounts_total or len(a.accounts),
        "members": max(len(a.members), a.accounts_total or 0),
        "requests": a.exposure.get("requests"),
        "output_tokens": a.exposure.get("output_tokens"),
        "cost_usd": a.exposure.get("cost_usd"),
        "rules": a.rules,
        "families": a.families,
        "state": a.state,
        "case": case,
        "page": f"/alerts/{a.alert_id}",
    }


def one(desk: Desk, reader: Reader, name: str) -> dict[str, Any]:
    """An alert as contract 2 has it, with its case."""
    alert_id = desk.find(name)
    alert = desk.revisions(reader, "api", alert_id)[-1]
    held = cases.case(desk.client, desk.keys, alert_id)
    return {
        "alert": msgspec.to_builtins(alert),
        "incident": held.incident,
        "decisions": msgspec.to_builtins(held.events),
    }


def account(desk: Desk, reader: Reader, name: str) -> dict[str, Any]:
    """What is known of an account: the verdict on it and the alerts that name it. Raises MonitorError: nothing."""
    desk.note(reader, "account", name)
    verdict = readers.verdict(desk.client, desk.keys, name)
    found = readers.naming(desk.client, desk.keys, name)
    if verdict is None and not found:
        raise MonitorError("nothing is known of this account")
    states = cases.states(desk.client, desk.keys, [a.alert_id for a in found])
    return {
        "account": name,
        "verdict": None if verdict is None else msgspec.to_builtins(verdict),
        "alerts": [row(a, states[a.alert_id]) | {"tier": tier(a, name)} for a in found],
    }


def tier(a: Alert, account: str) -> str | None:
    """The account's place in a campaign."""
    member = a.members.get(account)
    return member.tier if member is not None else "core" if account in a.accounts else None


def firings(desk: Desk, alerts: Sequence[Alert]) -> dict[str, dict[str, int]]:
    """Rule -> how many of the alerts it held in: all, open, medium and above, confirmed, found false."""
    states = cases.states(desk.client, desk.keys, [a.alert_id for a in alerts])
    made: dict[str, dict[str, int]] = {}
    for a in alerts:
        for name in a.rules:
            held = made.setdefault(name, dict.fromkeys(("all", "open", "strong", "confirmed", "false_positive"), 0))
            held["all"] += 1
            held["open"] += a.state == "open"
            held["strong"] += SEVERITIES.index(a.severity) >= 2
            if states[a.alert_id] in held:
                held[states[a.alert_id]] += states[a.alert_id] != "open"
    return made
