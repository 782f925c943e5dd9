"""What people decide about an alert: the states of a case, the moves between them, the id that support quotes.

A case exists beside its alert: the monitor goes on revising the alert, people move the case. Imports no sibling
but the errors, and knows no store.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from monitor.errors import MonitorError

CASE_STATES = ("open", "acknowledged", "confirmed", "false_positive", "appealed", "closed")
MOVES: Mapping[str, tuple[str, ...]] = {
    "open": ("acknowledged", "confirmed", "false_positive", "closed"),
    "acknowledged": ("confirmed", "false_positive", "closed"),
    "confirmed": ("false_positive", "appealed", "closed"),
    "false_positive": ("confirmed", "closed"),
    "appealed": ("confirmed", "false_positive", "closed"),
    "closed": ("appealed",),
}
"""State -> states that a person may move the case to. A closed case comes back by an appeal alone."""
VERDICTS = ("confirmed", "false_positive")
"""States that say who was right: what training and thresholds learn from."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # without I, L, O and U: it is read out on the telephone
_INCIDENT = re.compile(r"INC-[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}")
_LENGTH = 2_000


class CaseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One move. ``at`` is epoch seconds, as told by whoever moved it; ``revision``, ``severity`` and ``score`` are
    the alert's at that moment, so that an appeal can be read against what was known then.
    """

    state: str
    at: float
    by: str
    why: str
    revision: int
    severity: str
    score: float | None = None


def incident(alert_id: str) -> str:
    """``INC-XXXX-XXXX``: 40 bits of the alert's id, so a replay gives the same one; case and dashes do not matter."""
    value = int.from_bytes(hashlib.blake2b(alert_id.encode(), digest_size=5, person=b"incident").digest())
    letters = "".join(_ALPHABET[value >> shift & 31] for shift in range(35, -1, -5))
    return f"INC-{letters[:4]}-{letters[4:]}"


def read_incident(text: str) -> str | None:
    """The incident id in what somebody typed, None where it is none: ``inc 7k3mq2xo`` is ``INC-7K3M-Q2X0``."""
    letters = re.sub(r"[^0-9A-Z]", "", text.upper()).removeprefix("INC")
    letters = letters.replace("O", "0").replace("I", "1").replace("L", "1")
    made = f"INC-{letters[:4]}-{letters[4:]}"
    return made if len(letters) == 8 and _INCIDENT.fullmatch(made) else None


def state_of(events: Sequence[CaseEvent]) -> str:
    """Where the case stands."""
    return events[-1].state if events else "open"


def verdict_of(events: Sequence[CaseEvent]) -> CaseEvent | None:
    """The last decision on who was right; an appeal that is not decided yet suspends it."""
    if state_of(events) == "appealed":
        return None
    return next((event for event in reversed(events) if event.state in VERDICTS), None)


def move(events: Sequence[CaseEvent], state: str, *, by: str, why: str, at: float) -> None:
    """Whether the next event may be added. Raises MonitorError with what is possible instead."""
    now = state_of(events)
    if state not in MOVES[now]:
        possible = ", ".join(MOVES[now])
        raise MonitorError(f"the case is {now}: it can become {possible}, not {state}")
    for name, text in (("by", by), ("why", why)):
        if not text.strip() or len(text) > _LENGTH:
            raise MonitorError(
                f"--{name} is needed, in at most {_LENGTH} characters: it is what an appeal is read against"
            )
    if events and at < events[-1].at:
        before = datetime.fromtimestamp(events[-1].at, UTC).isoformat()
        raise MonitorError(f"the case was last moved at {before}: give a later --at")
