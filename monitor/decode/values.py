"""Conversions: from what a foreign log writes to what contract 1 says, one function for each kind of field.

A conversion answers ``None`` where the value is not of its kind: the mapping then tries its next path, and the value
itself goes on only where nothing else converts, for decode to name it as of a wrong type. Knows no path and no format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Literal, get_args

from monitor.decode.chat import operation_of, parts_of, text_of, tool_names
from monitor.decode.paths import opened
from monitor.fields import ID_LENGTH, Field, Kind

Convert = Callable[[Any], Any]
Unit = Literal["s", "ms", "us", "ns", "auto"]
As = Literal["text", "first", "present", "address", "names", "operation"]
PER_SECOND: Mapping[str, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
assert {*PER_SECOND, "auto"} == set(get_args(Unit))

_NUMBER = re.compile(r"[-+]?[0-9]{1,24}(?:\.[0-9]{1,24})?(?:[eE][-+]?[0-9]{1,3})?")
_ZONE = re.compile(r"(?:[zZ]|[+-]\d\d:?\d\d)$")
_SECRET = re.compile(r"(?i)^\s*(?:bearer |basic |sk-|sk_|xoxb-|ghp_|eyJ[\w-]{8,}\.)|-----BEGIN")
_ADDRESS = re.compile(r"^\[(?P<v6>[0-9A-Fa-f:.%]+)\](?::\d+)?$|^(?P<v4>\d{1,3}(?:\.\d{1,3}){3})(?::\d+)?$")
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def converter(field: Field, as_: As | None, unit: Unit | None, zone: str | None, scale: float | None) -> Convert:
    """The conversion of a field's values. ``unit`` is of times and ``latency_ms``; ``zone`` where times have none."""
    if as_ is not None:
        named: dict[As, Convert] = {
            "text": parts_of, "first": _first, "present": _present, "address": address, "names": tool_names,
            "operation": _operation,
        }  # fmt: skip
        return named[as_]
    match field.kind:
        case Kind.TIME:
            return partial(_time, per_second=PER_SECOND.get(unit or "s"), zone=zone)
        case Kind.INTEGER:
            return partial(_integer, factor=scale)
        case Kind.NUMBER if field.name == "latency_ms":
            return partial(_number, factor=1_000 / PER_SECOND.get(unit or "ms", 1_000) * (scale or 1))
        case Kind.NUMBER:
            return partial(_number, factor=scale)
        case Kind.BOOLEAN:
            return _boolean
        case Kind.STRINGS:
            return _strings
        case Kind.OBJECT:
            return lambda value: value if isinstance(opened(value), dict) else None
        case Kind.TEXT:
            return text_of
        case _:
            return _key_id if field.name == "api_key_id" else _string


def number(value: Any) -> float | int | None:
    """A finite number, also from a string that is one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        found = float(value)
        if not math.isfinite(found):
            return None
        return int(value) if value.strip().lstrip("+-").isdecimal() else found
    return None


def word(value: Any) -> str | None:
    """How a value is written as a key of a mapping's ``map``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else None


def address(value: Any) -> str | None:
    """The client's address: the first of a forwarding list, without its port."""
    if not isinstance(value, str):
        return None
    first = value.split(",", 1)[0].strip()
    found = _ADDRESS.match(first)
    return (found["v6"] or found["v4"]) if found else first or None


def seconds(value: Any, per_second: int | None, zone: str | None) -> float | int | None:
    """A time as a number in its own unit: RFC 3339 in seconds. ``zone`` where it has none; None: not a time."""
    found = number(value)
    if found is not None or not isinstance(value, str):
        return found
    text = value.strip().replace(" UTC", "Z")
    text = text if not zone or _ZONE.search(text) else text + zone
    try:
        moment = datetime.fromisoformat(text).timestamp() if _ZONE.search(text) else None
    except (ValueError, OverflowError):
        return None
    return None if moment is None else moment * (per_second or 1)


def _time(value: Any, per_second: int | None, zone: str | None) -> float | None:
    found = seconds(value, per_second, zone)
    if found is None or abs(found) > 1e22:
        return None
    if per_second is None:  # "auto": a time of this century tells its unit by its size
        size = abs(found)
        per_second = 1_000_000_000 if size > 1e17 else 1_000_000 if size > 1e14 else 1_000 if size > 1e11 else 1
    return found / per_second


def _integer(value: Any, factor: float | None) -> float | int | None:
    found = number(value)
    if found is None or not factor:
        return int(found) if isinstance(found, float) and found.is_integer() and abs(found) < 1e18 else found
    return round(found * factor) if abs(found) < 1e15 else None


def _number(value: Any, factor: float | None) -> float | int | None:
    found = number(value)
    if found is None or not factor or factor == 1:
        return found
    # To the picosecond or a millionth of a cent: what a division by a power of ten leaves behind it is noise.
    return round(found * factor, 9) if abs(found) < 1e22 else None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    found = word(value)
    return None if found is None else _WORDS.get(found.strip().lower())


def _string(value: Any) -> str | None:
    return word(value) if not isinstance(value, bool) else None


def _key_id(value: Any) -> str | None:
    """The id of a key, never the key: what looks like a credential is not known."""
    text = _string(value)
    return None if text is None or _SECRET.search(text) or len(text) > ID_LENGTH else text


def _strings(value: Any) -> list[str] | None:
    value = opened(value)
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def _first(value: Any) -> Any:
    value = opened(value)
    if isinstance(value, list):
        value = next((item for item in value if item is not None), None)
    return value if isinstance(value, str | int | float) else None


def _present(value: Any) -> bool:
    return value not in (False, "", [], {})


def _operation(value: Any) -> str | None:
    return operation_of(value) if isinstance(value, str) else None
