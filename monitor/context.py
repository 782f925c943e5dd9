"""Contract 5: what is not a request. Reads context events, and answers what was known of an account at a time.

Takes lines or values that somebody else opened; knows no file, no topic, no feature. An event takes effect
at its own time, in any order of arrival: everything kept is a set, a minimum or a maximum, so two readers
of the same events hold the same bytes. Attributes that are not needed here (fingerprints of payment, names
of products) are dropped on reading and never reach the state.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import msgspec
import polars as pl
from msgspec import Meta, Raw

from monitor.errors import Problem
from monitor.fields import AGREEMENT_KINDS, CONTEXT_TYPES, ID_LENGTH, TIME_MAX_S, TIME_MIN_S

VERSION = 1
INCIDENT_MS = 3_600_000
"""How long an incident without ``until`` lasts."""
STATUS_CHANGES = 32
"""Changes of status kept for an account, the latest: a flapping script must not grow the state."""
STATUSES = ("open", "closed", "banned")
"""Status of an account. Two changes in one millisecond: the later in this list wins."""
_STATUS_OF = {"account_created": 0, "account_restored": 0, "account_closed": 1, "account_banned": 2}
_LAST = ("product_seen", "key_created", "key_revoked", "payment_changed")
LAST_HOURS = 8
"""Hours with such an event that are kept for an account, the latest; of an hour its first event."""
HOUR_MS = 3_600_000

_Seconds = Annotated[float, Meta(ge=float(TIME_MIN_S), le=float(TIME_MAX_S))] | Annotated[datetime, Meta(tz=True)]
_Id = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH)]


class _Wire(msgspec.Struct):
    ts: _Seconds
    type: str
    account_id: _Id | None = None
    org_id: _Id | None = None
    model: _Id | None = None
    attrs: dict[str, Raw] | None = None


_read = msgspec.json.Decoder(_Wire).decode
_ATTRS: dict[str, Any] = {"kind": str, "owner": _Id, "expires": _Seconds, "until": _Seconds, "indicator": _Id}
_read_attr = {name: msgspec.json.Decoder(wire).decode for name, wire in _ATTRS.items()}

_TIME_HELP = "give epoch seconds (2000 to 2100; not milliseconds) or RFC 3339 with a zone"
_ID_HELP = f"give a string of 1 to {ID_LENGTH} characters"
_HELP = {
    "ts": _TIME_HELP, "expires": _TIME_HELP, "until": _TIME_HELP, "type": "give a string", "account_id": _ID_HELP,
    "org_id": _ID_HELP, "model": _ID_HELP, "owner": f"{_ID_HELP}: who answers for the agreement",
    "indicator": f"{_ID_HELP}: the keyed indicator", "kind": "give a string", "attrs": "give an object",
}  # fmt: skip
_NEEDED_ATTRS = {"agreement": ("kind", "owner", "expires"), "intel": ("indicator",)}
_OPTIONAL_ATTRS = {"incident": ("until",), "intel": ("kind", "expires")}


class ContextEvent(msgspec.Struct, frozen=True, order=True, kw_only=True, array_like=True):
    """One event of contract 5. Times are epoch milliseconds; ``until_ms`` is when an agreement, an incident or an
    indicator ends (null: never). ``kind`` is an agreement's or an indicator's, ``owner`` an agreement's.
    """

    ts_ms: int
    type: str
    account_id: str = ""
    org_id: str = ""
    model: str = ""
    kind: str = ""
    owner: str = ""
    indicator: str = ""
    until_ms: int = 0


class _Wrong(Exception):
    def __init__(self, message: str, name: str | None = None):
        self.message, self.name = message, name


def read_context(lines: Iterable[tuple[int, bytes]], file: str) -> tuple[list[ContextEvent], list[Problem]]:
    """Reads NDJSON lines ``(line number, bytes)``: the good events in file order, and every problem with its remedy.

    Blank lines are skipped. A problem quotes no value.
    """
    events: list[ContextEvent] = []
    problems: list[Problem] = []
    for number, line in lines:
        if line.strip():
            found = parse_context(line, file, number)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                events.append(found)
    return events, problems


def parse_context(value: bytes, file: str, line: int = 0) -> ContextEvent | Problem:
    """One context event, or what is wrong with it. ``file`` and ``line`` only name the place (a topic, an offset)."""
    try:
        return _event(value)
    except _Wrong as wrong:
        return Problem(file, line, wrong.message, wrong.name)


def _event(value: bytes) -> ContextEvent:
    try:
        wire = _read(value)
    except msgspec.ValidationError as error:
        raise _named(error) from None
    except (ValueError, RecursionError):
        raise _Wrong("is not JSON: one object a line, UTF-8") from None
    kind_of_event = CONTEXT_TYPES.get(wire.type)
    if kind_of_event is None:
        near = difflib.get_close_matches(wire.type[:64], CONTEXT_TYPES, 1)
        raise _Wrong(f"is none of {', '.join(CONTEXT_TYPES)}" + (f" (did you mean {near[0]}?)" if near else ""), "type")
    for name in kind_of_event.needs:
        if getattr(wire, name) is None:
            raise _Wrong(f"{wire.type} needs it", name)
    attrs = _attrs(wire)
    ts_ms = _ms(wire.ts)
    if wire.type == "agreement" and wire.account_id is None and wire.org_id is None:
        raise _Wrong("an agreement needs account_id or org_id", "account_id")
    if wire.type == "agreement" and attrs["kind"] not in AGREEMENT_KINDS:
        raise _Wrong(f"is none of {', '.join(AGREEMENT_KINDS)}", "attrs.kind")
    until = attrs.get("expires", attrs.get("until"))
    return ContextEvent(
        ts_ms=ts_ms,
        type=wire.type,
        account_id=wire.account_id or "",
        org_id=wire.org_id or "",
        model=wire.model or "",
        kind=attrs.get("kind", ""),
        owner=attrs.get("owner", ""),
        indicator=attrs.get("indicator", ""),
        until_ms=_ms(until) if until is not None else ts_ms + INCIDENT_MS if wire.type == "incident" else 0,
    )


def _named(error: msgspec.ValidationError) -> _Wrong:
    # The library's text names our field in a path at its end; nothing else of it is used.
    path = re.search(r"`\$\.(\w+)", str(error))
    missing = re.search(r"required field `(\w+)`$", str(error))
    if missing:
        return _Wrong("is missing", missing[1])
    if path and path[1] in _HELP:
        return _Wrong(_HELP[path[1]], path[1])
    return _Wrong("is not an object: one JSON object a line")


def _attrs(wire: _Wire) -> dict[str, Any]:
    given = wire.attrs or {}
    found: dict[str, Any] = {}
    needed = _NEEDED_ATTRS.get(wire.type, ())
    for name in (*needed, *_OPTIONAL_ATTRS.get(wire.type, ())):
        text = bytes(given.get(name, b"null"))
        if text == b"null":
            if name in needed:
                raise _Wrong(f"{wire.type} needs it: {_HELP[name]}", f"attrs.{name}")
            continue
        try:
            found[name] = _read_attr[name](text)
        except (ValueError, RecursionError):
            raise _Wrong(_HELP[name], f"attrs.{name}") from None
    return found


def _ms(when: float | datetime) -> int:
    seconds = when.timestamp() if isinstance(when, datetime) else when
    if not TIME_MIN_S <= seconds <= TIME_MAX_S:
        raise _Wrong(_TIME_HELP, "ts")
    return round(seconds * 1000)


class _Account(msgspec.Struct, array_like=True):
    """What is known of one account; times in milliseconds, ``created`` 0: not known, ``last`` by type."""

    created: int = 0
    status: list[tuple[int, int]] = msgspec.field(default_factory=list)
    last: dict[str, list[int]] = msgspec.field(default_factory=dict)


class _Image(msgspec.Struct, array_like=True):
    version: int
    until: int
    accounts: dict[str, _Account]
    agreements: list[ContextEvent]
    intel: list[ContextEvent]
    released: dict[str, int]
    incidents: list[tuple[int, int]]
    waiting: list[ContextEvent]
    seen: list[str]


_write = msgspec.msgpack.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Agreement:
    """A sanctioned use in force: ``kind`` of ``fields.AGREEMENT_KINDS``, who answers for it, when it ends (ms)."""

    kind: str
    owner: str
    expires_ms: int


@dataclass(slots=True)
class ContextState:
    """Context that has taken effect up to ``until_ms``, and events that wait for their time."""

    until_ms: int = 0
    _accounts: dict[str, _Account] = field(default_factory=dict)
    _agreements: dict[str, list[ContextEvent]] = field(default_factory=dict)
    _intel: dict[str, list[ContextEvent]] = field(default_factory=dict)
    _released: dict[str, int] = field(default_factory=dict)
    _incidents: list[tuple[int, int]] = field(default_factory=list)
    _waiting: set[ContextEvent] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)

    def apply(self, events: Iterable[ContextEvent], until_ms: int) -> None:
        """Takes ``events`` in any order; those up to event time ``until_ms`` take effect, later ones wait."""
        self.until_ms = max(self.until_ms, until_ms)
        due = [e for e in events if not self._waits(e)]
        due += [e for e in self._waiting if e.ts_ms <= self.until_ms]
        self._waiting = {e for e in self._waiting if e.ts_ms > self.until_ms}
        for event in due:
            self._take(event)

    def _waits(self, event: ContextEvent) -> bool:
        if event.ts_ms > self.until_ms:
            self._waiting.add(event)
            return True
        return False

    def _take(self, event: ContextEvent) -> None:
        self._seen.add(event.type)
        match event.type:
            case "agreement":
                for prefix, name in (("a:", event.account_id), ("o:", event.org_id)):
                    if name:
                        _insert(self._agreements.setdefault(prefix + name, []), event)
            case "intel":
                _insert(self._intel.setdefault(event.indicator, []), event)
            case "model_released":
                self._released[event.model] = min(event.ts_ms, self._released.get(event.model, event.ts_ms))
            case "incident":
                _insert(self._incidents, (event.ts_ms, event.until_ms))
            case _:
                account = self._accounts.setdefault(event.account_id, _Account())
                if event.type in _STATUS_OF:
                    _insert(account.status, (event.ts_ms, _STATUS_OF[event.type]))
                    del account.status[:-STATUS_CHANGES]
                if event.type == "account_created":
                    account.created = min(event.ts_ms, account.created or event.ts_ms)
                elif event.type in _LAST:
                    times = account.last.get(event.type, ())
                    account.last[event.type] = _first_of_hours([*times, event.ts_ms])

    def created_ms(self, account_id: str) -> int | None:
        """When the account was made."""
        account = self._accounts.get(account_id)
        return (account.created or None) if account else None

    def status_at(self, account_id: str, at_ms: int) -> str | None:
        """One of :data:`STATUSES`, or null where no change of it is known by then."""
        account = self._accounts.get(account_id)
        i = bisect_right(account.status, (at_ms, len(STATUSES))) if account else 0
        return STATUSES[account.status[i - 1][1]] if account and i else None

    def banned_ms(self, account_id: str, at_ms: int) -> int | None:
        """Time of the ban that is in force at ``at_ms``."""
        account = self._accounts.get(account_id)
        i = bisect_right(account.status, (at_ms, len(STATUSES))) if account else 0
        last = account.status[i - 1] if account and i else None
        return last[0] if last is not None and STATUSES[last[1]] == "banned" else None

    def agreed(self, at_ms: int) -> frozenset[str]:
        """Accounts and organisations for which an agreement is in force."""
        out = set()
        for subject in self._agreements:
            name = subject[2:]
            account, org = (name, None) if subject.startswith("a:") else ("", name)
            if self.agreements_at(account, org, at_ms):
                out.add(name)
        return frozenset(out)

    def last_ms(self, kind: str, account_id: str, at_ms: int) -> int | None:
        """Last time by ``at_ms`` of product_seen, key_created, key_revoked or payment_changed, to the hour.

        Of each hour its first event is kept, so that what was known at a time does not depend on what came after
        it; asked about a time before the last eight such hours it knows nothing.
        """
        account = self._accounts.get(account_id)
        times = account.last.get(kind, []) if account else []
        i = bisect_right(times, at_ms)
        return times[i - 1] if i else None

    def agreements_at(self, account_id: str, org_id: str | None, at_ms: int) -> tuple[Agreement, ...]:
        """Agreements in force for the account or its organisation, by kind and owner.

        The latest event about one kind and owner holds: a renewal, or an end where it expires at once.
        """
        latest: dict[tuple[str, str], ContextEvent] = {}
        for subject in ("a:" + account_id, "o:" + (org_id or "")):
            for event in self._agreements.get(subject, ()):
                if event.ts_ms <= at_ms:
                    known = latest.get((event.kind, event.owner))
                    if known is None or (event.ts_ms, -event.until_ms) > (known.ts_ms, -known.until_ms):
                        latest[event.kind, event.owner] = event
        return tuple(
            Agreement(kind, owner, e.until_ms) for (kind, owner), e in sorted(latest.items()) if at_ms < e.until_ms
        )

    def released_ms(self, model: str) -> int | None:
        """When the model was released first."""
        return self._released.get(model)

    def releases(self, after_ms: int, up_to_ms: int) -> tuple[tuple[int, str], ...]:
        """Releases ``(time, model)`` in the interval, its start excluded, in order."""
        return tuple(sorted((t, m) for m, t in self._released.items() if after_ms < t <= up_to_ms))

    def incident_at(self, at_ms: int) -> bool:
        """Whether an incident of the provider covers the time."""
        return any(start <= at_ms < until for start, until in self._incidents)

    def intel_at(self, indicator: str, at_ms: int) -> bool:
        """Whether a partner's keyed indicator is in force."""
        return any(e.ts_ms <= at_ms and not 0 < e.until_ms <= at_ms for e in self._intel.get(indicator, ()))

    @property
    def known_types(self) -> frozenset[str]:
        """Kinds of context that took effect at all: a detector that needs another one is inactive."""
        return frozenset(self._seen)

    def lookup(self, account_id: Sequence[str], org_id: Sequence[str | None], at_ms: Sequence[int]) -> pl.DataFrame:
        """What was known at each row's time, aligned with the rows.

        Columns: ``context_created_ms`` i64, ``context_status`` u8 (index in STATUSES), ``product_seen_ms`` i64,
        ``agreements`` u8 (bit i: a kind AGREEMENT_KINDS[i] is in force; null where no agreement is known at all).
        """
        rows = range(len(account_id))
        seen = [self.last_ms("product_seen", a, t) for a, t in zip(account_id, at_ms, strict=True)]
        status = [self.status_at(a, t) for a, t in zip(account_id, at_ms, strict=True)]
        agreed: list[int | None] = [None] * len(rows)
        if self._agreements:
            for i in rows:
                kinds = {a.kind for a in self.agreements_at(account_id[i], org_id[i], at_ms[i])}
                agreed[i] = sum(1 << AGREEMENT_KINDS.index(kind) for kind in kinds)
        return pl.DataFrame(
            {
                "context_created_ms": pl.Series([self.created_ms(a) for a in account_id], dtype=pl.Int64),
                "context_status": pl.Series([None if s is None else STATUSES.index(s) for s in status], dtype=pl.UInt8),
                "product_seen_ms": pl.Series(seen, dtype=pl.Int64),
                "agreements": pl.Series(agreed, dtype=pl.UInt8),
            }
        )

    def dump(self) -> bytes:
        """The state as msgpack: equal states give equal bytes, however the events came."""
        return _write(
            _Image(
                VERSION,
                self.until_ms,
                self._accounts,
                sorted({e for held in self._agreements.values() for e in held}),
                sorted({e for held in self._intel.values() for e in held}),
                self._released,
                self._incidents,
                sorted(self._waiting),
                sorted(self._seen),
            )
        )

    @classmethod
    def load(cls, blob: bytes) -> ContextState:
        """The state that :meth:`dump` wrote; ``ValueError`` for another version or damaged bytes."""
        image = msgspec.msgpack.decode(blob, type=_Image)
        if image.version != VERSION:
            raise ValueError(f"context state has version {image.version}, not {VERSION}: read the context again")
        state = cls(
            image.until, image.accounts, {}, {}, image.released, image.incidents, set(image.waiting), set(image.seen)
        )
        for event in (*image.agreements, *image.intel):
            state._take(event)
        return state


def _insert(ordered: list[Any], item: Any) -> None:
    """Adds to a sorted set that is held as a list."""
    i = bisect_right(ordered, item)
    if not i or ordered[i - 1] != item:
        insort(ordered, item)


def _first_of_hours(times: Iterable[int]) -> list[int]:
    first: dict[int, int] = {}
    for t in times:
        first[t // HOUR_MS] = min(t, first.get(t // HOUR_MS, t))
    return sorted(first.values())[-LAST_HOURS:]
