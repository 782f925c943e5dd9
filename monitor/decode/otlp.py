"""OTLP traces and logs, JSON or protobuf, as flat items: one dictionary for each span and log record.

An item has ``signal`` (``span`` or ``log``), ``name``, ``kind``, ``trace_id``, ``span_id``, ``start_ns``, ``end_ns``,
``status_code`` (0 unset, 1 ok, 2 error; logs: 0), ``event_name``, ``body`` (logs), ``attributes``, ``resource`` (the
resource's attributes), ``scope`` and ``events`` (name: attributes). What instrumentations flatten into
``gen_ai.prompt.0.role`` is put back together as a list under ``gen_ai.prompt``. A log's body that is a map is merged
into its attributes: older events kept everything there.

The protobuf reader knows the wire format (varint, 64-bit, length, 32-bit) and the handful of fields that are read;
unknown ones are skipped, as protobuf demands. Twenty lines of it spare the protobuf library.
Source: opentelemetry-proto v1, ``trace.proto``, ``logs.proto``, ``common.proto``.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from monitor.decode.values import number

Item = dict[str, Any]

FIRST = b"\n"
"""The first byte of every OTLP message in protobuf: its one field, number 1, with a length."""
_DEPTH = 16
_LISTED = re.compile(
    r"^(gen_ai\.prompt|gen_ai\.completion|llm\.prompts|llm\.completions|llm\.input_messages|llm\.output_messages)"
    r"\.(\d{1,4})\.(.+)$"
)
_I64, _DOUBLE = struct.Struct("<Q"), struct.Struct("<d")


class NotOtlp(Exception):
    """The bytes are no OTLP message."""


def read_json(record: dict[str, Any]) -> list[Item]:
    """Items of a ``TracesData``, ``LogsData`` or export request as OTLP/JSON writes it. Never raises."""
    items: list[Item] = []
    for outer, inner, leaf, make in (
        (("resourceSpans", "resource_spans"), ("scopeSpans", "scope_spans"), ("spans",), _span_json),
        (("resourceLogs", "resource_logs"), ("scopeLogs", "scope_logs"), ("logRecords", "log_records"), _log_json),
    ):
        for group in _dicts(record, outer):
            owner = group.get("resource")
            resource = _attributes_json(owner.get("attributes")) if isinstance(owner, dict) else {}
            for scoped in _dicts(group, (*inner, "instrumentationLibrarySpans")):
                scope = scoped.get("scope")
                name = scope.get("name") if isinstance(scope, dict) else None
                for one in _dicts(scoped, leaf):
                    item = make(one)
                    item["resource"], item["scope"] = resource, name
                    items.append(_finished(item))
    return items


def _dicts(node: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        found = node.get(name)
        if isinstance(found, list):
            yield from (item for item in found if isinstance(item, dict))
            return


def _span_json(span: dict[str, Any]) -> Item:
    status = span.get("status")
    code = status.get("code") if isinstance(status, dict) else None
    codes = {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
    return {
        "signal": "span", "name": span.get("name"), "kind": span.get("kind"),
        "trace_id": span.get("traceId") or span.get("trace_id"), "span_id": span.get("spanId") or span.get("span_id"),
        "start_ns": _nanos(span, "startTimeUnixNano", "start_time_unix_nano"),
        "end_ns": _nanos(span, "endTimeUnixNano", "end_time_unix_nano"),
        "status_code": code if type(code) is int else codes.get(str(code), 0),
        "attributes": _attributes_json(span.get("attributes")),
        "events": {
            event["name"]: _attributes_json(event.get("attributes"))
            for event in _dicts(span, ("events",)) if isinstance(event.get("name"), str)
        },
    }  # fmt: skip


def _log_json(log: dict[str, Any]) -> Item:
    return {
        "signal": "log", "event_name": log.get("eventName") or log.get("event_name"),
        "trace_id": log.get("traceId") or log.get("trace_id"), "span_id": log.get("spanId") or log.get("span_id"),
        "start_ns": _nanos(log, "timeUnixNano", "time_unix_nano", "observedTimeUnixNano", "observed_time_unix_nano"),
        "status_code": 0, "body": _value_json(log.get("body"), 0),
        "attributes": _attributes_json(log.get("attributes")),
    }  # fmt: skip


def _nanos(record: dict[str, Any], *names: str) -> int | float | None:
    """The first of these times that is known: 0 means not known in OTLP."""
    return next((found for name in names if (found := number(record.get(name)))), None)


def _attributes_json(pairs: Any) -> dict[str, Any]:
    if not isinstance(pairs, list):
        return {}
    return {
        pair["key"]: _value_json(pair.get("value"), 0)
        for pair in pairs if isinstance(pair, dict) and isinstance(pair.get("key"), str)
    }  # fmt: skip


def _value_json(value: Any, depth: int) -> Any:
    if not isinstance(value, dict) or depth > _DEPTH:
        return None
    for kind, found in value.items():
        match kind.replace("_v", "V"):
            case "stringValue" | "boolValue" | "bytesValue":
                return found
            case "intValue":
                return number(found)
            case "doubleValue":
                return number(found)
            case "arrayValue" if isinstance(found, dict):
                return [_value_json(item, depth + 1) for item in _dicts(found, ("values",))]
            case "kvlistValue" if isinstance(found, dict):
                pairs = [p for p in _dicts(found, ("values",)) if isinstance(p.get("key"), str)]
                return {pair["key"]: _value_json(pair.get("value"), depth + 1) for pair in pairs}
    return None


def _finished(item: Item) -> Item:
    """Lists put back together, a log's body among its attributes."""
    attributes = item["attributes"]
    body = item.get("body")
    if isinstance(body, dict):
        attributes = item["attributes"] = {**body, **attributes}
    if item.get("event_name") is None and isinstance(attributes.get("event.name"), str):
        item["event_name"] = attributes["event.name"]
    lists: dict[str, dict[int, dict[str, Any]]] = {}
    for name, value in attributes.items():
        if (found := _LISTED.match(name)) is not None:
            lists.setdefault(found[1], {}).setdefault(int(found[2]), {})[found[3]] = value
    for name, entries in lists.items():
        attributes.setdefault(name, [entries[i] for i in sorted(entries)])
    return item


# ------------------------------------------------------------------------------------------------------- protobuf


def read_protobuf(data: bytes) -> list[Item]:
    """Items of a serialised ``TracesData``, ``LogsData`` or export request. NotOtlp for anything else."""
    items: list[Item] = []
    try:
        for number_, wire, start, end in _fields(data, 0, len(data)):
            if number_ != 1 or wire != 2:
                raise NotOtlp
            resource: dict[str, Any] = {}
            scopes: list[tuple[int, int]] = []
            for inner, kind, a, b in _fields(data, start, end):
                if inner == 1 and kind == 2:
                    resource = _attributes(data, a, b, 1)
                elif inner == 2 and kind == 2:
                    scopes.append((a, b))
            for a, b in scopes:
                items += _scope(data, a, b, resource)
    except (IndexError, struct.error, RecursionError):
        raise NotOtlp from None
    return items


def _scope(data: bytes, start: int, end: int, resource: dict[str, Any]) -> Iterator[Item]:
    name: str | None = None
    leaves: list[tuple[int, int]] = []
    for inner, kind, a, b in _fields(data, start, end):
        if inner == 1 and kind == 2:
            name = next((_text(data, c, d) for n, w, c, d in _fields(data, a, b) if (n, w) == (1, 2)), None)
        elif inner == 2 and kind == 2:
            leaves.append((a, b))
    for a, b in leaves:
        found = list(_fields(data, a, b))
        # A span begins with its trace id (bytes), a log record with its time (64 bit).
        is_log = any((n, w) in ((1, 1), (11, 1)) for n, w, _, _ in found)
        item = _log(data, found) if is_log else _span(data, found)
        item["resource"], item["scope"] = resource, name
        yield _finished(item)


_Field = tuple[int, int, int, int]
"""Number, wire type, and the value: its place for bytes, the value itself (twice) for numbers."""


def _fields(data: bytes, at: int, end: int) -> Iterator[_Field]:
    """The fields of one message. NotOtlp where it is cut short or not protobuf."""
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if key < 8:
            raise NotOtlp
        if wire == 2:
            size, at = _varint(data, at)
            if at + size > end:
                raise NotOtlp
            yield key >> 3, 2, at, at + size
            at += size
        elif wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, 0, value, value
        elif wire == 1:
            yield key >> 3, 1, _I64.unpack_from(data, at)[0], at
            at += 8
        elif wire == 5:
            yield key >> 3, 5, 0, at
            at += 4
        else:
            raise NotOtlp
    if at != end:
        raise NotOtlp


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    for place in range(at + 1, at + 10):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place + 1
        shift += 7
    raise NotOtlp


def _text(data: bytes, start: int, end: int) -> str:
    return data[start:end].decode("utf-8", "replace")


def _span(data: bytes, found: list[_Field]) -> Item:
    item: Item = {"signal": "span", "status_code": 0, "start_ns": None, "end_ns": None}
    attributes: dict[str, Any] = {}
    events: dict[str, dict[str, Any]] = {}
    for n, wire, a, b in found:
        match n, wire:
            case (1, 2):
                item["trace_id"] = data[a:b].hex()
            case (2, 2):
                item["span_id"] = data[a:b].hex()
            case (5, 2):
                item["name"] = _text(data, a, b)
            case (6, 0):
                item["kind"] = a
            case (7, 1):
                item["start_ns"] = a or None
            case (8, 1):
                item["end_ns"] = a or None
            case (9, 2):
                _pair(data, a, b, attributes, 0)
            case (11, 2):
                parts = list(_fields(data, a, b))
                name = next((_text(data, c, d) for m, w, c, d in parts if (m, w) == (2, 2)), "")
                events[name] = {}
                for m, w, c, d in parts:
                    if (m, w) == (3, 2):
                        _pair(data, c, d, events[name], 0)
            case (15, 2):
                item["status_code"] = next((c for m, w, c, _ in _fields(data, a, b) if (m, w) == (3, 0)), 0)
    item["attributes"], item["events"] = attributes, events
    return item


def _log(data: bytes, found: list[_Field]) -> Item:
    item: Item = {"signal": "log", "status_code": 0, "start_ns": None}
    attributes: dict[str, Any] = {}
    observed: int | None = None
    for n, wire, a, b in found:
        match n, wire:
            case (1, 1):
                item["start_ns"] = a or None
            case (11, 1):
                observed = a or None
            case (5, 2):
                item["body"] = _value(data, a, b, 0)
            case (6, 2):
                _pair(data, a, b, attributes, 0)
            case (9, 2):
                item["trace_id"] = data[a:b].hex()
            case (10, 2):
                item["span_id"] = data[a:b].hex()
            case (12, 2):
                item["event_name"] = _text(data, a, b) or None
    item["start_ns"] = item["start_ns"] or observed
    item["attributes"] = attributes
    return item


def _attributes(data: bytes, start: int, end: int, wanted: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for n, wire, a, b in _fields(data, start, end):
        if (n, wire) == (wanted, 2):
            _pair(data, a, b, found, 0)
    return found


def _pair(data: bytes, start: int, end: int, into: dict[str, Any], depth: int) -> None:
    if end - start < 128 and data[start] == 0x0A:  # as every encoder writes a short string: key, value, no more
        at = start + 2 + data[start + 1]
        if at + 4 <= end and data[at] == 0x12 and data[at + 2] == 0x0A:
            size = data[at + 3]
            if data[at + 1] == size + 2 and at + 4 + size == end and size < 128:
                into[_text(data, start + 2, at)] = _text(data, at + 4, end)
                return
    key, value = "", None
    for n, wire, a, b in _fields(data, start, end):
        if (n, wire) == (1, 2):
            key = _text(data, a, b)
        elif (n, wire) == (2, 2):
            value = _value(data, a, b, depth)
    into[key] = value


def _value(data: bytes, start: int, end: int, depth: int) -> Any:
    if depth > _DEPTH:
        raise NotOtlp
    value: Any = None
    for n, wire, a, b in _fields(data, start, end):
        match n, wire:
            case (1, 2):
                value = _text(data, a, b)
            case (2, 0):
                value = bool(a)
            case (3, 0):
                value = a - (1 << 64) if a >> 63 else a
            case (4, 1):
                value = number(_DOUBLE.unpack_from(data, b)[0])
            case (5, 2):
                value = [_value(data, c, d, depth + 1) for m, w, c, d in _fields(data, a, b) if (m, w) == (1, 2)]
            case (6, 2):
                value = {}
                for m, w, c, d in _fields(data, a, b):
                    if (m, w) == (1, 2):
                        _pair(data, c, d, value, depth + 1)
            case (7, 2):
                value = base64.b64encode(data[a:b]).decode()
    return value
