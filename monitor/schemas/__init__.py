"""The contracts as JSON Schemas (2020-12), rendered from the code that reads and writes them.

``render`` makes them, ``python -m monitor.schemas`` writes the shipped files, ``load`` reads one. They
describe what a producer should send: the monitor itself takes more (a wrong optional field is null and
counted, an unknown one ignored), so a record that a schema accepts is one the decoder takes without a remark.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, get_args, get_type_hints

import msgspec

from monitor import fields as f
from monitor.records import Alert

NAMES = ("request-log.v1", "alert.v1", "truth.v1", "context.v1")

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ZONED = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)$"
_TIME = {
    "anyOf": [
        {"type": "number", "minimum": f.TIME_MIN_S, "maximum": f.TIME_MAX_S},
        {"type": "string", "format": "date-time", "pattern": _ZONED},
    ]
}
_STRING = {"type": "string"}
_ID = {"type": "string", "minLength": 1, "maxLength": f.ID_LENGTH}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}

Schema = dict[str, Any]


def load(name: str) -> Schema:
    """The shipped schema of one of :data:`NAMES`."""
    if name not in NAMES:
        raise KeyError(f"no schema {name!r}: one of {', '.join(NAMES)}")
    found: Schema = json.loads(files(__name__).joinpath(f"{name}.json").read_bytes())
    return found


def render() -> dict[str, str]:
    """Every schema by file name, as the text of its file."""
    made = {"request-log.v1": _request_log(), "alert.v1": _alert(), "truth.v1": _truth(), "context.v1": _context()}
    return {f"{name}.json": json.dumps(schema, indent=2) + "\n" for name, schema in made.items()}


def _object(title: str, properties: Schema, required: list[str], **more: Any) -> Schema:
    return {
        "$schema": _DIALECT, "title": title, "type": "object", "properties": properties, "required": required, **more,
    }  # fmt: skip


def _nullable(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str):
        return schema | {"type": [schema["type"], "null"]}
    return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}


def _value(field: f.Field) -> Schema:
    match field.kind:
        case f.Kind.TIME:
            return dict(_TIME)
        case f.Kind.ID:
            return dict(_ID)
        case f.Kind.STRING | f.Kind.TEXT:
            return dict(_STRING)
        case f.Kind.CODE:
            return _STRING | {"examples": [v for v in field.values if v != "other"]}
        case f.Kind.INTEGER | f.Kind.NUMBER:
            bounds = {"minimum": field.low, "maximum": field.high} if abs(field.high) < float("inf") else {}
            return {"type": field.kind.value, **bounds}
        case f.Kind.BOOLEAN:
            return {"type": "boolean"}
        case f.Kind.STRINGS:
            return {"type": "array", "items": _STRING}
        case f.Kind.OBJECT:
            return {"type": "object"}


def _request_log() -> Schema:
    properties: Schema = {}
    for field in f.FIELDS.values():
        schema = _value(field) if field.required else _nullable(_value(field))
        note = "; another value counts as other" if field.values else ""
        properties[field.name] = {"description": f"{field.doc}{note} ({field.group})"} | schema
    return _object("Request log, version 1: one completed API request", properties, list(f.REQUIRED))


def _alert() -> Schema:
    words: dict[str, Schema] = {
        "schema": {"const": "alert/v1"},
        "revision": {"type": "integer", "minimum": 1},
        "state": {"enum": list(f.ALERT_STATES)},
        "kind": {"enum": list(f.ALERT_KINDS)},
        "subject_type": {"enum": [*f.ENTITIES, "campaign"]},
        "hypothesis": {"enum": list(f.HYPOTHESES)},
        "hypotheses": {
            "type": "object", "propertyNames": {"enum": list(f.HYPOTHESES)}, "additionalProperties": _SHARE,
        },
        "severity": {"enum": list(f.SEVERITIES)},
        "score": _nullable(_SHARE),
        "expected_false_per_week": {"type": ["number", "null"], "minimum": 0},
        "mode": {"enum": list(f.MODES)},
        "families": {"type": "array", "items": {"enum": list(f.FAMILIES)}},
        "window": {
            "type": "object", "properties": {"start": {"type": "number"}, "end": {"type": "number"}},
            "required": ["start", "end"],
        },
        "members": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "tier": {"enum": list(f.TIERS)}, "membership": _SHARE,
                    "roots": {"type": "array", "items": {"enum": list(f.ROOTS)}},
                },
                "required": ["tier", "membership", "roots"],
            },
        },
        "exposure": {
            "type": "object",
            "properties": {
                **{n: {"type": ["integer", "null"], "minimum": 0}
                   for n in ("requests", "input_tokens", "output_tokens", "reasoning_tokens")},
                "cost_usd": {"type": ["number", "null"], "minimum": 0},
                "models": {"type": "array", "items": _STRING},
            },
        },
        "exemplars": {"type": "array", "items": _STRING, "maxItems": 40},
    }  # fmt: skip
    hints = get_type_hints(Alert)
    properties = {name: words.get(name) or _plain(hint) for name, hint in hints.items()}
    struct = msgspec.structs.fields(Alert)
    required = [s.name for s in struct if s.required or s.name == "schema"]
    merged: Schema = {
        "if": {"properties": {"state": {"const": "merged"}}},
        "then": {"properties": {"merged_into": _STRING}, "required": ["merged_into"]},
    }
    return _object("Alert, version 1", properties, required, **merged)


def _plain(hint: Any) -> Schema:
    """The schema of a simple annotation: scalars, lists of strings, dictionaries, each perhaps null."""
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean"}
    args = get_args(hint)
    if type(None) in args:
        return _nullable(_plain(next(a for a in args if a is not type(None))))
    if hint in kinds:
        return {"type": kinds[hint]}
    if getattr(hint, "__origin__", None) is list:
        return {"type": "array", "items": _plain(args[0])}
    if getattr(hint, "__origin__", None) is dict:
        return {"type": "object"} | ({"additionalProperties": _plain(args[1])} if args[1] in kinds else {})
    raise TypeError(f"no schema for {hint}: give this field of Alert one of its own")


def _truth() -> Schema:
    actors = {"enum": [*f.HYPOTHESES, "benign"]}
    properties: Schema = {
        "account_id": dict(_ID),
        "actor": actors,
        "also": {"type": "array", "items": actors},
        "campaign": {"type": ["string", "null"]},
        "scenario": {"type": ["string", "null"]},
        "first_ts": {"type": "number"},
        "last_ts": {"type": "number"},
    }
    return _object(
        "Truth for an evaluation: an account that is not plain background", properties, ["account_id", "actor"]
    )


def _context() -> Schema:
    properties: Schema = {
        "ts": dict(_TIME), "type": {"enum": list(f.CONTEXT_TYPES)}, "account_id": _nullable(_ID),
        "org_id": _nullable(_ID), "model": _nullable(_ID), "attrs": {"type": ["object", "null"]},
    }  # fmt: skip
    attrs = {
        "agreement": {"kind": {"enum": list(f.AGREEMENT_KINDS)}, "owner": dict(_ID), "expires": dict(_TIME)},
        "intel": {"indicator": dict(_ID), "kind": _nullable(_STRING), "expires": _nullable(_TIME)},
        "incident": {"until": _nullable(_TIME)},
    }
    must = {"agreement": ["kind", "owner", "expires"], "intel": ["indicator"]}
    rules: list[Schema] = []
    for name, kind in f.CONTEXT_TYPES.items():
        then: Schema = {"properties": {n: dict(_ID) for n in kind.needs}, "required": list(kind.needs)}
        if name in attrs:
            held: Schema = {"type": "object" if name in must else ["object", "null"], "properties": attrs[name]}
            then["properties"]["attrs"] = held | ({"required": must[name]} if name in must else {})
            then["required"] += ["attrs"] if name in must else []
        if name == "agreement":
            then["anyOf"] = [{"properties": {n: dict(_ID)}, "required": [n]} for n in ("account_id", "org_id")]
        rules.append({"if": {"properties": {"type": {"const": name}}}, "then": then})
    return _object("Context, version 1: what is not a request", properties, ["ts", "type"], allOf=rules)
