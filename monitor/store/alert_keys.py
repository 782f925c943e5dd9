"""Names of the alert keys in Redis, and the small JSON that a gateway reads. One hash tag: one slot.

==============================================  ============================================================
``abm:{abm}:alerts``                            stream of alerts of mode ``alert``; ``:shadow`` of the others
``abm:{abm}:ledger:<alert id>``                 hash: revision -> digest of what was written; ``max``
``abm:{abm}:alert:<alert id>``                  string: the alert as last written
``abm:{abm}:members:<alert id>``                string: every member, where the alert carries only some
``abm:{abm}:account:<account>``                 hash: id, revision, time, severity, state, mode of its last alert
``abm:{abm}:top``                               sorted set: accounts with an open alert, by risk
``abm:{abm}:verdict:<account>``                 string: what a gateway may act on, one GET
``abm:{abm}:alive:<instance>``                  string: gone after a flush
``abm:{abm}:case:<alert id>``                   hash: what people decided, in order; ``state``, ``incident``
``abm:{abm}:cases``                             sorted set: cases that somebody has moved, by time
``abm:{abm}:incident:<incident id>``            string: the alert id behind what support quotes
``abm:{abm}:hold:<alert id>``                   string: what must be preserved of a case; ``holds`` lists them
``abm:{abm}:decision:<id>``                     string: a proposed decision; ``decisions`` lists them
``abm:{abm}:enforce:<account>``                 string: the approved decision in force on an account
``abm:{abm}:audit``                             stream: who read or moved which case
==============================================  ============================================================

Alerts are few by design (a budget a week), so one slot carries them; verdicts are read from replicas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from monitor.errors import MonitorError
from monitor.fields import SEVERITIES
from monitor.records import Alert

VERDICTS = {"info": "observe", "low": "observe", "medium": "review", "high": "restrict", "critical": "block"}
"""Advice by severity. The monitor never blocks: a gateway that reads the key decides."""


class Verdict(msgspec.Struct, frozen=True):
    """Value of a verdict key. ``until``: event time, epoch seconds, after which it says nothing any more."""

    account: str
    verdict: str
    severity: str
    alert_id: str
    until: float


@dataclass(frozen=True, slots=True)
class AlertKeys:
    """Key names under a prefix. ``stream`` is the name of the stream after it."""

    prefix: str = "abm"
    stream: str = "alerts"

    def name(self, *parts: str) -> str:
        """A key of this slot."""
        return ":".join((f"{self.prefix}:{{{self.prefix}}}", *parts))

    def stream_of(self, mode: str) -> str:
        """The stream for alerts of that mode."""
        return self.name(self.stream) if mode == "alert" else self.name(self.stream, mode)

    def ledger(self, alert_id: str) -> str:
        """What was written of an alert."""
        return self.name("ledger", alert_id)

    def alert(self, alert_id: str) -> str:
        """The alert itself."""
        return self.name("alert", alert_id)

    def members(self, alert_id: str) -> str:
        """All its members."""
        return self.name("members", alert_id)

    def account(self, account: str) -> str:
        """State of an account."""
        return self.name("account", account)

    def top(self) -> str:
        """Accounts by risk."""
        return self.name("top")

    def verdict(self, account: str) -> str:
        """What a gateway reads."""
        return self.name("verdict", account)

    def case(self, alert_id: str) -> str:
        """What people decided about an alert."""
        return self.name("case", alert_id)

    def cases(self) -> str:
        """Cases that somebody has moved."""
        return self.name("cases")

    def incident(self, incident_id: str) -> str:
        """The alert behind an incident id."""
        return self.name("incident", incident_id)

    def hold(self, alert_id: str) -> str:
        """What must be preserved of a case."""
        return self.name("hold", alert_id)

    def holds(self) -> str:
        """Cases under a hold."""
        return self.name("holds")

    def decision(self, name: str) -> str:
        """A proposed decision."""
        return self.name("decision", name)

    def decisions(self) -> str:
        """Proposed decisions by time."""
        return self.name("decisions")

    def enforce(self, account: str) -> str:
        """The decision in force on an account."""
        return self.name("enforce", account)

    def audit(self) -> str:
        """Who read or moved which case."""
        return self.name("audit")

    def alive(self, instance: str) -> str:
        """A sink's own mark."""
        return self.name("alive", instance)


def risk(alert: Alert) -> float:
    """Order in the top set: severity first (0 to 4), confidence in the best hypothesis behind the point."""
    return SEVERITIES.index(alert.severity) + min(max(alert.hypotheses.values(), default=0.0), 0.999)


def decode_alert(data: bytes) -> Alert:
    """An alert out of Redis. Raises MonitorError where another version wrote it."""
    try:
        return msgspec.json.decode(data, type=Alert)
    except msgspec.DecodeError as error:
        raise MonitorError(
            f"an alert in Redis has another form than alert/v1: which version wrote it? ({error})"
        ) from None


def text(value: Any) -> str:
    """A reply that is text."""
    return value.decode() if isinstance(value, bytes) else str(value)
