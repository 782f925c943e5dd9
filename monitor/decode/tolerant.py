"""The slow path: one record that the typed struct refused, field by field.

An optional field with a wrong value becomes null and is named; a required one refuses the record with a
reason of ``fields.REJECT_REASONS``. Two things are mended rather than refused, because the client can
bring them about: a refusal would let it hide from the monitor, or stop a partition through its limit of
rejects. These are bytes that are not UTF-8 and lone surrogates inside strings (each becomes U+FFFD), and
an empty or over-long ``request_id`` or ``model``. A mended record says so.

Errors never hold a byte of the input. Knows nothing of batches and frames.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from monitor.decode.wire import Row, Wire, read_any, read_field, read_float, read_members, read_string
from monitor.fields import FIELDS, ID_LENGTH, REQUIRED, TIME_MAX_S, TIME_MIN_S, Field, Kind

MENDED_IDS = frozenset({"request_id", "model"})
"""Required strings that a client can choose: mended, never a reason to refuse the record."""
NO_ID = "~"
"""Stands for an empty ``request_id`` or ``model``."""
_DIGEST_CHARS = 32

_NOT_JSON = (ValueError, RecursionError)
_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair: stays
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."  # any other escape, consumed whole so that `\\ud800` is read as a backslash and five letters
)
_LEAP_SECOND = re.compile(rb'^("\d{4}-\d\d-\d\d[Tt ]\d\d:59):60((?:\.\d+)?(?:[Zz]|[+-]\d\d:?\d\d)")$')


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record is refused, and the contract's field that did it."""

    reason: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """A row, the optional fields that were nulled, and whether a string was mended."""

    row: Row
    wrong: tuple[str, ...] = ()
    mended: bool = False


class _Wrong(Exception):
    def __init__(self, reason: str):
        self.reason = reason


def read_tolerantly(value: bytes) -> Read | Refusal:
    """Reads one record of any bytes; never raises."""
    if not value.strip():
        return Refusal("empty")
    opened = _open(value)
    if isinstance(opened, Refusal):
        return opened
    members, mended = opened
    found: dict[str, object] = {}
    wrong: list[str] = []
    reasons: dict[str, str] = {}
    for name, raw in members.items():
        field = FIELDS.get(name)
        text = bytes(raw)
        if field is None or text == b"null":
            continue
        try:
            found[name], changed = _value(field, text)
            mended = mended or changed
        except _Wrong as error:
            if field.required:
                reasons[name] = error.reason
                continue
            wrong.append(name)
            if field.name == "content_policy":
                # Unreadable is not "everything is allowed".
                found[name] = "other"
    for name in REQUIRED:
        if name in reasons:
            return Refusal(reasons[name], name)
        if name not in found:
            return Refusal("missing_field", name)
    return Read(Wire(**found), tuple(wrong), mended)


def _open(value: bytes) -> tuple[dict[str, Raw], bool] | Refusal:
    """The members of the record, and whether its bytes had to be mended first."""
    try:
        return read_members(value), False
    except msgspec.ValidationError:
        try:
            read_any(value)
        except RecursionError:
            return Refusal("too_deep")
        except ValueError:
            return Refusal("not_json")
        return Refusal("not_object")
    except RecursionError:
        return Refusal("too_deep")
    except ValueError:
        try:
            value.decode()
            good_utf8 = True
        except UnicodeDecodeError:
            good_utf8 = False
    mended = mend(value)
    if mended != value:
        try:
            return read_members(mended), True
        except RecursionError:
            return Refusal("too_deep")
        except msgspec.ValidationError:
            return Refusal("not_object")
        except ValueError:
            pass
    return Refusal("not_json" if good_utf8 else "not_utf8")


def mend(value: bytes) -> bytes:
    """``value`` without its byte order mark, with U+FFFD for what is not UTF-8 and for each lone surrogate escape."""
    text = value.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    return _ESCAPES.sub(lambda m: "\\ufffd" if m["lone"] else m[0], text).encode()


def _value(field: Field, text: bytes) -> tuple[object, bool]:
    """The value of one member (not null), and whether it was mended; raises ``_Wrong`` with a reason."""
    try:
        if field.kind is Kind.OBJECT:
            if not text.startswith(b"{"):
                raise _Wrong("wrong_type")
            return Raw(text), False
        if field.kind is not Kind.TIME:
            return read_field[field.name](text), False
    except UnicodeDecodeError:
        # The bytes of this one string; the rest of the record was never looked at as text.
        return _value(field, text.decode(errors="replace").encode())[0], True
    except _NOT_JSON:
        pass
    match field.kind:
        case Kind.TIME:
            return _seconds(text), False
        case Kind.INTEGER | Kind.NUMBER:
            return _integral(field, text), False
        case Kind.ID if field.name in MENDED_IDS and text.startswith(b'"'):
            return _mended_id(read_string(text)), True
        case Kind.ID if text.startswith(b'"'):
            raise _Wrong("bad_id")
        case _:
            raise _Wrong("wrong_type")


def _seconds(text: bytes) -> float:
    leap = _LEAP_SECOND.match(text)
    if leap:
        # RFC 3339 allows second 60; Python has none. It is the second after :59.
        text = leap[1] + b":59" + leap[2]
    try:
        when = read_field["ts"](text)
        seconds = when if isinstance(when, float) else when.timestamp()
    except _NOT_JSON:
        if text.startswith(b'"'):
            raise _Wrong("bad_time") from None
        raise _Wrong("out_of_range" if _is_number(text) else "wrong_type") from None
    if not TIME_MIN_S <= seconds <= TIME_MAX_S:
        raise _Wrong("out_of_range")
    return float(seconds + bool(leap))


def _integral(field: Field, text: bytes) -> int:
    """An integer written as a float (``200.0``, ``2e2``); a number outside its range is told from another type."""
    if not _is_number(text):
        raise _Wrong("wrong_type")
    try:
        number = read_float(text)
    except _NOT_JSON:
        raise _Wrong("out_of_range") from None
    if not field.low <= number <= field.high:
        raise _Wrong("out_of_range")
    if field.kind is Kind.NUMBER or not number.is_integer():
        raise _Wrong("wrong_type")
    return int(number)


def _is_number(text: bytes) -> bool:
    return text[:1] in b"-0123456789"


def _mended_id(value: str) -> str:
    if not value:
        return NO_ID
    tail = hashlib.blake2b(value.encode(), digest_size=_DIGEST_CHARS // 2).hexdigest()
    return f"{value[: ID_LENGTH - _DIGEST_CHARS - 1]}~{tail}"
