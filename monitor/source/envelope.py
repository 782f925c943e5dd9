"""The two things a source reads out of a record: whose it is, and when it was. Nothing else of it.

Files need both (virtual partitions, merging by time), ``monitor rekey`` too (key and timestamp of what it
writes). The answer must be the one that decode gives later for the same bytes, whatever a client put into
its prompt: hence a tolerant second reading. It must not keep or log a byte of a value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

_LONE_SURROGATE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)


class Envelope(NamedTuple):
    """``account`` as the record says it (None: no record of an account); ``time_s`` epoch seconds or None."""

    account: str | None
    time_s: float | None


class _Fast(msgspec.Struct):
    account_id: str | None = None
    ts: float | str | None = None
    completed_at: float | str | None = None


class _Slow(msgspec.Struct):
    account_id: msgspec.Raw = msgspec.Raw(b"null")
    ts: msgspec.Raw = msgspec.Raw(b"null")
    completed_at: msgspec.Raw = msgspec.Raw(b"null")


_fast = msgspec.json.Decoder(_Fast)
_slow = msgspec.json.Decoder(_Slow)
_NOTHING = Envelope(None, None)
_REFUSED = (ValueError, RecursionError)  # msgspec's and Unicode's errors are ValueErrors


def read_envelope(value: bytes | None) -> Envelope:
    """Account and event time of a record of contract 1; Nones where it does not say. Never raises. 1.1 us at 1 KB."""
    if value is None:
        return _NOTHING
    try:
        found = _fast.decode(value)
    except _REFUSED:
        return _read_slowly(value)
    when = found.completed_at if found.completed_at is not None else found.ts
    return Envelope(found.account_id or None, when if isinstance(when, float) else _seconds(when))


def read_envelopes(values: Sequence[bytes]) -> tuple[list[str | None], npt.NDArray[np.float64]]:
    """Accounts, and event times in epoch seconds (infinite: none), of many records: what :func:`read_envelope` says of
    each, in a third of the time."""
    found = _all_at_once(values)
    if found is None:
        each = [read_envelope(v) for v in values]
        return [e.account for e in each], np.array([np.inf if e.time_s is None else e.time_s for e in each])
    whens = [f.ts if f.completed_at is None else f.completed_at for f in found]
    if {*map(type, whens)} != {float}:
        read = [when if isinstance(when, float) else _seconds(when) for when in whens]
        whens = [np.inf if when is None else when for when in read]
    return [f.account_id or None for f in found], np.array(whens, np.float64)


def _all_at_once(values: Sequence[bytes]) -> list[_Fast] | None:
    """All records by one call; None where one of them needs a closer look.

    A line break is malformed within a string, and between ``}`` and ``{`` nothing goes on: where every break stands so,
    each is the end of a record, and as many records as lines means one in each.
    """
    lines = b"\n".join(values)
    if not (lines.startswith(b"{") and lines.endswith(b"}")):
        return None
    if not lines.count(b"}\n{") == lines.count(b"\n") == len(values) - 1:
        return None
    try:
        found = _fast.decode_lines(lines)
    except _REFUSED:
        return None
    return found if len(found) == len(values) else None


def _read_slowly(value: bytes) -> Envelope:
    """A record with a wrong type somewhere, or whose bytes decode will mend (bad UTF-8, lone surrogates)."""
    try:
        found = _slow.decode(value)
        account = _member(found.account_id, str)
    except _REFUSED:
        try:
            found = _slow.decode(_mend(value))
            account = _member(found.account_id, str)
        except _REFUSED:
            return _NOTHING
    when = None
    for raw in (found.completed_at, found.ts):
        try:
            when = _seconds(_member(raw, float | str))
        except _REFUSED:
            when = None
        if when is not None:
            break
    return Envelope(account if isinstance(account, str) and account else None, when)


def _member(raw: msgspec.Raw, kind: object) -> object:
    try:
        return msgspec.json.decode(raw, type=kind | None)  # type: ignore[operator]  # a type expression made at run time
    except msgspec.ValidationError:
        return None


def _mend(value: bytes) -> bytes:
    text = value.decode("utf-8", "replace")
    return _LONE_SURROGATE.sub(lambda m: "\ufffd" if m["lone"] else m[0], text).encode()


def _seconds(when: object) -> float | None:
    if isinstance(when, float | int):
        return float(when)
    if not isinstance(when, str):
        return None
    try:
        moment = datetime.fromisoformat(when)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
