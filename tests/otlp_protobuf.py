"""OTLP/JSON as protobuf, encoded by the protobuf library itself: what our own reader is held against."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

_T = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "str": _T.TYPE_STRING, "bool": _T.TYPE_BOOL, "i64": _T.TYPE_INT64, "f64": _T.TYPE_DOUBLE, "bytes": _T.TYPE_BYTES,
    "fixed64": _T.TYPE_FIXED64, "i32": _T.TYPE_INT32, "u32": _T.TYPE_UINT32,
}  # fmt: skip
_PROTO = {
    "AnyValue": [("string_value", 1, "str"), ("bool_value", 2, "bool"), ("int_value", 3, "i64"),
                 ("double_value", 4, "f64"), ("array_value", 5, "ArrayValue"), ("kvlist_value", 6, "KeyValueList"),
                 ("bytes_value", 7, "bytes")],
    "ArrayValue": [("values", 1, "*AnyValue")],
    "KeyValueList": [("values", 1, "*KeyValue")],
    "KeyValue": [("key", 1, "str"), ("value", 2, "AnyValue")],
    "Scope": [("name", 1, "str"), ("version", 2, "str")],
    "Resource": [("attributes", 1, "*KeyValue"), ("dropped_attributes_count", 2, "u32")],
    "Event": [("time_unix_nano", 1, "fixed64"), ("name", 2, "str"), ("attributes", 3, "*KeyValue")],
    "Status": [("message", 2, "str"), ("code", 3, "i32")],
    "Span": [("trace_id", 1, "bytes"), ("span_id", 2, "bytes"), ("trace_state", 3, "str"),
             ("parent_span_id", 4, "bytes"), ("name", 5, "str"), ("kind", 6, "i32"),
             ("start_time_unix_nano", 7, "fixed64"), ("end_time_unix_nano", 8, "fixed64"),
             ("attributes", 9, "*KeyValue"), ("dropped_attributes_count", 10, "u32"), ("events", 11, "*Event"),
             ("status", 15, "Status")],
    "ScopeSpans": [("scope", 1, "Scope"), ("spans", 2, "*Span"), ("schema_url", 3, "str")],
    "ResourceSpans": [("resource", 1, "Resource"), ("scope_spans", 2, "*ScopeSpans"), ("schema_url", 3, "str")],
    "TracesData": [("resource_spans", 1, "*ResourceSpans")],
    "LogRecord": [("time_unix_nano", 1, "fixed64"), ("severity_number", 2, "i32"), ("body", 5, "AnyValue"),
                  ("attributes", 6, "*KeyValue"), ("dropped_attributes_count", 7, "u32"), ("trace_id", 9, "bytes"),
                  ("span_id", 10, "bytes"), ("observed_time_unix_nano", 11, "fixed64"), ("event_name", 12, "str")],
    "ScopeLogs": [("scope", 1, "Scope"), ("log_records", 2, "*LogRecord")],
    "ResourceLogs": [("resource", 1, "Resource"), ("scope_logs", 2, "*ScopeLogs")],
    "LogsData": [("resource_logs", 1, "*ResourceLogs")],
}  # fmt: skip
"""opentelemetry-proto's messages, for the real protobuf library to encode: what our reader is held against."""


@cache
def proto_classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="otlp.proto", package="otlp", syntax="proto3")
    for name, members in _PROTO.items():
        message = file.message_type.add(name=name)
        for member, number, kind in members:
            made = message.field.add(name=member, number=number, label=_T.LABEL_OPTIONAL)
            if kind.startswith("*"):
                made.label, kind = _T.LABEL_REPEATED, kind[1:]
            if kind in _KINDS:
                made.type = _KINDS[kind]
            else:
                made.type, made.type_name = _T.TYPE_MESSAGE, f".otlp.{kind}"
            if name == "AnyValue":
                made.oneof_index = 0
        if name == "AnyValue":
            message.oneof_decl.add(name="value")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"otlp.{n}")) for n in _PROTO}


def as_protobuf(line: bytes) -> bytes:
    """An OTLP/JSON line as protobuf, by the protobuf library."""

    def ids_as_base64(node: Any) -> Any:
        if isinstance(node, list):
            return [ids_as_base64(x) for x in node]
        if isinstance(node, dict):
            return {
                k: b64encode(bytes.fromhex(v)).decode() if k in ("traceId", "spanId") else ids_as_base64(v)
                for k, v in node.items()
            }
        return node

    record = ids_as_base64(json.loads(line))
    made = proto_classes()["TracesData" if "resourceSpans" in record else "LogsData"]()
    return json_format.ParseDict(record, made).SerializeToString()
