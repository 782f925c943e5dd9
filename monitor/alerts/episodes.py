"""One episode of alarm on one subject, and how it is kept in a checkpoint. Knows no frame and no rule file.

An episode carries what the rules said when they fired, so that neither a reload of the rules nor a restart
changes one that is open. It holds integers of event time only.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from monitor.errors import MonitorError
from monitor.records import Alert

STATE_VERSION = 1


class Held(msgspec.Struct, array_like=True):
    """What a rule declared when it last fired, and which of the facts behind it were known so far."""

    severity: str
    families: list[str]
    hypothesis: str
    confidence: float
    cooldown_s: int
    facts: list[str]
    thresholds: dict[str, Any]


class Episode(msgspec.Struct, array_like=True):
    """From the first firing to the end of ``cooldown`` after the last.

    ``exposure`` holds the subject's running totals as of its last row: requests, input, output and reasoning
    tokens, micro-dollars; null where not known. ``written`` is the last revision; revision 0 is one that was
    held back because the partition was muted.
    """

    subject: str
    mode: str
    start_tick: int
    last_tick: int
    raised_ms: int
    rules: dict[str, Held]
    exposure: list[int | None]
    written: Alert | None = None

    def closes_ms(self, tick_ms: int) -> int:
        """Event time at which it ends if nothing fires any more: a tick that begins then is a new episode."""
        return (self.last_tick + 1) * tick_ms + 1_000 * max(held.cooldown_s for held in self.rules.values())

    @property
    def families(self) -> list[str]:
        """Families of all rules that fired, sorted."""
        return sorted({family for held in self.rules.values() for family in held.families})


class PartitionState(msgspec.Struct):
    """Everything of one partition: open episodes by (mode, subject), and what was closed lately."""

    version: int
    tick_ms: int
    muted_until_ms: int
    episodes: list[Episode]
    closed: list[Alert]


def alert_id(mode: str, subject_type: str, subject: str, start_ms: int) -> str:
    """32 hex digits, a pure function of the subject and the event time at which its episode starts."""
    # A JSON array: no two different tuples give the same bytes.
    text = msgspec.json.encode(("account", mode, subject_type, subject, start_ms))
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def dump_state(state: PartitionState) -> bytes:
    """Msgpack, in an order that does not depend on how the state came about."""
    state.episodes.sort(key=lambda e: (e.mode, e.subject))
    state.closed.sort(key=lambda a: (a.revised_at, a.alert_id))
    return msgspec.msgpack.encode(state)


def load_state(blob: bytes, tick_ms: int) -> PartitionState:
    """Raises MonitorError where it was written with another tick or by another version."""
    state = msgspec.msgpack.decode(blob, type=PartitionState)
    if state.version != STATE_VERSION or state.tick_ms != tick_ms:
        raise MonitorError(
            f"alert state has version {state.version} and ticks of {state.tick_ms} ms, this run wants "
            f"{STATE_VERSION} and {tick_ms}: go back to the old features.tick_s, or start with a new kafka.group"
        )
    return state
