"""Decode by hand: one record, one field, one reason at a time."""

from __future__ import annotations

import hashlib
from typing import Any

import polars as pl
import pytest
from records_made import FULL, OPTIONS, SMALL, STAMP, dumps, raw, small

from monitor.decode import DecodeOptions, available_fields, decode
from monitor.fields import FIELDS, GOOD_EXAMPLE, OPTIONAL, REJECT_REASONS, REQUIRED, Kind
from monitor.records import EVENT_SCHEMA, Decoded

WRONG: dict[Kind, tuple[Any, ...]] = {
    Kind.TIME: (True, [], {}, "yesterday", "2025-06-15T12:00:00", 1.75e12, 0),
    Kind.ID: (7, True, [], {}, "x" * 257),
    Kind.STRING: (7, True, [], {}),
    Kind.TEXT: (7, False, ["text"], {"text": 1}),
    Kind.CODE: (7, True, ["chat"]),
    Kind.INTEGER: ("5", True, [], 1.5),
    Kind.NUMBER: ("5", True, [], -1, 1e12),
    Kind.BOOLEAN: (0, 1, "true", []),
    Kind.STRINGS: ("a", 1, True, [1], [None], {}),
    Kind.OBJECT: ("{}", 1, True, []),
}


def one(**change: Any) -> Decoded:
    return decode(raw([small(**change)]), OPTIONS)


def only(decoded: Decoded, column: str) -> Any:
    assert decoded.rejects == ()
    return decoded.frame.get_column(column).to_list()[0]


def test_the_full_record_has_every_column_with_its_value() -> None:
    assert list(FULL) == list(FIELDS), "the full record lacks a field of the contract"
    decoded = decode(raw([dumps(FULL)]), OPTIONS)
    assert decoded.rejects == ()
    assert decoded.wrong_types == {}
    assert decoded.unknown_fields == decoded.mended == 0
    row = decoded.frame.row(0, named=True)
    assert row == {
        "partition": 0, "offset": 0, "record_ms": STAMP, "t_ms": 1750000001500, "ts_ms": 1750000000250,
        "subject": "acct-1", "request_id": "req-1", "account_id": "acct-1", "model": "m-large", "input_tokens": 120,
        "output_tokens": 30, "status": 200, "org_id": "org-1", "project_id": "proj-1", "billing_account_id": "bill-1",
        "api_key_id": "key-1", "account_created_ms": 1740000000000, "plan": "team", "billing_type": 4,
        "auth_type": "key", "channel": "api", "marketplace_account_id": "mp-1", "reseller_of_record": "rs-1",
        "region": "eu-1", "end_user_id": "eu-77", "content_policy": 1, "operation": 1, "delivery": 1, "batch_id": "b-1",
        "model_served": "m-large-2", "cached_tokens": 10, "reasoning_tokens": 5, "latency_ms": 812,
        "cost_microusd": 1234, "finish_reason": 1, "stream": False, "refused": False, "moderated": False,
        "temperature_milli": 700, "top_p_milli": 950, "max_tokens": 1024, "n": 1, "seed_set": True, "logprobs": True,
        "top_logprobs": 5, "logit_bias": False, "response_format": 3, "reasoning_effort": 5,
        "tools": ["search", "python"], "n_tools": 2, "tool_schema_fp": "ts-1", "n_messages": 3, "turn_index": 0,
        "input_kind": 1, "conversation_id": "c-1", "system": "be brief", "prompt": "why is the sky blue?",
        "response": "scattering", "sketch": b'{"v":1,"key_id":"k"}', "ip": "192.0.2.7", "asn": 4294967295,
        "country": "NL", "user_agent": "sdk/1.0", "client_name": "sdk", "client_version": "1.0", "ja4": "t13d",
        "payment_fp": "pay-1", "referral_fp": "ref-1", "contact_domain": "example.org", "reasoning_blob_fp": ["blob-1"],
    }  # fmt: skip
    assert available_fields(decoded.frame) == frozenset(FIELDS)


def test_columns_have_the_types_of_an_event() -> None:
    schema = decode(raw([dumps(FULL)]), OPTIONS).frame.schema
    hashed_later = {"tools", "ip", "asn", "country", "user_agent", "client_name", "ja4"}
    shared = schema.keys() & EVENT_SCHEMA.keys() - hashed_later
    assert {c: schema[c] for c in shared} == {c: EVENT_SCHEMA[c] for c in shared}
    assert len(shared) > 40


def test_the_smallest_record_has_only_the_required_columns() -> None:
    frame = one().frame
    required = [c for name in REQUIRED[1:] for c in FIELDS[name].columns]
    assert frame.columns == ["partition", "offset", "record_ms", "t_ms", "ts_ms", "subject", *required]
    assert available_fields(frame) == frozenset(REQUIRED)


@pytest.mark.parametrize("reason", REJECT_REASONS)
def test_the_documented_example_gives_its_reason(reason: str) -> None:
    example = REJECT_REASONS[reason].example
    options = DecodeOptions(OPTIONS.digest_key, max_bytes=len(GOOD_EXAMPLE) - 1) if reason == "oversize" else OPTIONS
    decoded = decode(raw([GOOD_EXAMPLE[:0] if example is None else example]), options)
    assert [r.reason for r in decoded.rejects] == [reason]
    assert decoded.frame.height == 0
    assert REJECT_REASONS[reason].help


def test_the_good_example_is_good() -> None:
    assert decode(raw([GOOD_EXAMPLE]), OPTIONS).rejects == ()


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_wrong_type_in_an_optional_field_is_null_and_counted(name: str) -> None:
    for value in WRONG[FIELDS[name].kind]:
        decoded = decode(raw([dumps(FULL | {name: value}), dumps(FULL)]), OPTIONS)
        assert decoded.rejects == (), (name, value)
        assert decoded.wrong_types == {name: 1}, (name, value)
        assert available_fields(decoded.frame[:1]) == frozenset(FIELDS) - _lost(name), (name, value)
        assert available_fields(decoded.frame[1:]) == frozenset(FIELDS)


def _lost(name: str) -> set[str]:
    # A policy that cannot be read is the strictest one.
    return {"system", "prompt", "response", "sketch"} if name == "content_policy" else {name}


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_absent_optional_field_is_null_and_not_counted(name: str) -> None:
    absent = {k: v for k, v in FULL.items() if k != name}
    for record in (absent, absent | {name: None}):
        decoded = decode(raw([dumps(record)]), OPTIONS)
        assert decoded.rejects == ()
        assert decoded.wrong_types == {}
        lost = {name}
        assert available_fields(decoded.frame) == frozenset(FIELDS) - lost


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_refuses_the_record_by_name(name: str) -> None:
    for missing in (..., None):
        (reject,) = one(**{name: missing}).rejects
        assert (reject.reason, reject.field) == ("missing_field", name)
    for value in (True, [], {}):
        (reject,) = one(**{name: value}).rejects
        assert (reject.reason, reject.field) == ("wrong_type", name)


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens", "status"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-1, "out_of_range"), (10**9 + 1, "out_of_range"), (10**30, "out_of_range"), (1.5, "wrong_type"),
        ("5", "wrong_type"), (1e300, "out_of_range"),
    ],
)  # fmt: skip
def test_a_required_integer(name: str, value: Any, reason: str) -> None:
    (reject,) = one(**{name: value}).rejects
    assert (reject.reason, reject.field) == (reason, name)


@pytest.mark.parametrize("text", [b"1e400", b"-1e400", b"9" * 5000])
def test_a_number_that_no_float_holds(text: bytes) -> None:
    value = small(status=...)[:-1] + b',"status":' + text + b"}"
    assert [r.reason for r in decode(raw([value]), OPTIONS).rejects] == ["out_of_range"]
    value = small()[:-1] + b',"max_tokens":' + text + b',"temperature":' + text + b"}"
    assert decode(raw([value]), OPTIONS).wrong_types == {"temperature": 1, "max_tokens": 1}


@pytest.mark.parametrize(("written", "read"), [(200.0, 200), (1e9, 10**9), (-0.0, 0)])
def test_an_integral_float_is_an_integer(written: float, read: int) -> None:
    assert only(one(output_tokens=written, max_tokens=written), "output_tokens") == read
    assert one(max_tokens=written).frame.get_column("max_tokens").to_list() == [read]


def test_edges_of_integers_and_ids_are_inside() -> None:
    decoded = one(input_tokens=10**9, output_tokens=0, account_id="x" * 256, status=999, asn=2**32 - 1, top_p=1)
    assert decoded.rejects == ()
    assert decoded.wrong_types == {}
    assert one(asn=2**32).wrong_types == {"asn": 1}
    assert one(top_p=1.001).wrong_types == {"top_p": 1}


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        (1750000000, 1750000000000), (1750000000.123, 1750000000123), (1750000000.9996, 1750000001000),
        ("2025-06-15T15:06:40Z", 1750000000000), ("2025-06-15T17:06:40.25+02:00", 1750000000250),
        ("2025-06-15t15:06:40.123456789z", 1750000000123), ("2016-12-31T23:59:60.5Z", 1483228800500),
        (946684800, 946684800000), (4102444800, 4102444800000),
    ],
)  # fmt: skip
def test_times(written: Any, ms: int) -> None:
    decoded = decode(raw([small(ts=written, account_created_at=written)], stamp=-1), OPTIONS)
    assert only(decoded, "ts_ms") == only(decoded, "t_ms") == only(decoded, "account_created_ms") == ms


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("2025-06-15T12:00:00", "bad_time"), ("2025-06-15", "bad_time"), ("1750000000", "bad_time"), ("", "bad_time"),
        ("2025-02-30T00:00:00Z", "bad_time"), ("1999-12-31T23:59:59Z", "out_of_range"), (1750000000000, "out_of_range"),
        ("2100-01-01T00:00:01Z", "out_of_range"), ("9999-12-31T23:59:59-23:59", "out_of_range"),
        ("0001-01-01T00:00:00+23:59", "out_of_range"), (946684799.999, "out_of_range"), (0, "out_of_range"),
        (-1, "out_of_range"), (False, "wrong_type"), ([1750000000], "wrong_type"),
    ],
)  # fmt: skip
def test_bad_times(written: Any, reason: str) -> None:
    decoded = decode(raw([small(ts=written), small()], stamp=-1), OPTIONS)
    assert [(r.reason, r.field, r.offset) for r in decoded.rejects] == [(reason, "ts", 0)]
    late = decode(raw([small(completed_at=written)], stamp=-1), OPTIONS)
    assert late.rejects == ()
    assert late.wrong_types == {"completed_at": 1}
    assert only(late, "t_ms") == only(late, "ts_ms")


def test_event_time_is_completed_at_where_present() -> None:
    decoded = decode(raw([small(completed_at=1750000009), small()]), OPTIONS)
    assert decoded.frame.get_column("t_ms").to_list() == [1750000009000, 1750000000250]
    assert decoded.frame.get_column("ts_ms").to_list() == [1750000000250, 1750000000250]


def test_the_future_begins_past_the_allowance() -> None:
    edge = STAMP / 1000 + 300
    values = [
        small(ts=edge),
        small(ts=edge + 0.001),
        small(completed_at=edge + 0.001),
        small(ts="2099-01-01T00:00:00Z"),
    ]
    decoded = decode(raw(values), OPTIONS)
    assert [(r.offset, r.reason, r.field) for r in decoded.rejects] == [
        (1, "future", "ts"), (2, "future", "completed_at"), (3, "future", "ts"),
    ]  # fmt: skip
    assert decode(raw(values, stamp=-1), OPTIONS).rejects == (), "without a Kafka timestamp nothing is the future"
    assert decode(raw(values, stamp=-1), OPTIONS).frame.get_column("record_ms").null_count() == 4


def test_a_rejected_record_counts_no_wrong_types() -> None:
    decoded = decode(raw([small(ts="2099-01-01T00:00:00Z", n="1", plan=4)]), OPTIONS)
    assert [r.reason for r in decoded.rejects] == ["future"]
    assert decoded.wrong_types == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"), (b"", "empty"), (b" \n\t", "empty"), (b"null", "not_object"), (b"5", "not_object"),
        (b"{}", "missing_field"), (b"{", "not_json"), (b"[1,", "not_json"), (b"hello", "not_json"),
        (small() + b"}", "not_json"), (small() + small(), "not_json"), (small()[:-1], "not_json"),
        (b'{"ts":Infinity}', "not_json"), (b'{"ts":01}', "not_json"), (b'{"a":"\x01"}', "not_json"),
        (b"[" * 20_000, "too_deep"), (small()[:-1] + b',"x":' + b"[" * 9000 + b"]" * 9000 + b"}", "too_deep"),
        (small()[:-1] + b',"tools":' + b"[" * 9000 + b"]" * 9000 + b"}", "too_deep"),
        (b"\x1f\x8b\x08\x00\xff", "not_utf8"),
    ],
)  # fmt: skip
def test_what_is_no_object(value: bytes | None, reason: str) -> None:
    decoded = decode(raw([small(), value, small()]), OPTIONS)
    assert [(r.offset, r.reason) for r in decoded.rejects] == [(1, reason)]
    assert decoded.frame.get_column("offset").to_list() == [0, 2]


def test_the_cap_is_inclusive() -> None:
    value = small()
    assert decode(raw([value]), DecodeOptions(b"k", max_bytes=len(value))).rejects == ()
    (reject,) = decode(raw([value]), DecodeOptions(b"k", max_bytes=len(value) - 1)).rejects
    assert (reject.reason, reject.length) == ("oversize", len(value))


def test_white_space_and_a_byte_order_mark_around_a_record() -> None:
    decoded = decode(raw([b" " + small() + b"\r\n", b"\xef\xbb\xbf" + small()]), OPTIONS)
    assert decoded.rejects == ()
    assert decoded.mended == 1


def test_of_a_repeated_name_the_last_counts() -> None:
    value = b'{"status":"x","plan":5,' + small()[1:-1] + b',"plan":"b"}'
    decoded = decode(raw([value]), OPTIONS)
    assert only(decoded, "plan") == "b"
    assert only(decoded, "status") == 200
    assert decoded.wrong_types == {}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb'"a\ud800b"', "a\ufffdb"), (rb'"\udc00\ud800"', "\ufffd\ufffd"), (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\\ud800"', "\\ud800"),
        (rb'"\\ud800 \ud800"', "\\ud800 \ufffd"), (b'"a\xffb"', "a\ufffdb"), (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd"),
    ],
)  # fmt: skip
def test_a_client_cannot_hide_behind_bad_characters(written: bytes, read: str) -> None:
    for name in ("prompt", "user_agent", "request_id", "model", "end_user_id"):
        value = small(**{name: ...})[:-1] + b',"' + name.encode() + b'":' + written + b"}"
        decoded = decode(raw([value]), OPTIONS)
        assert only(decoded, name) == read
        assert decoded.wrong_types == {}
        assert decoded.mended == ("\ufffd" in read)


@pytest.mark.parametrize("name", ["request_id", "model"])
def test_an_odd_client_chosen_id_is_mended(name: str) -> None:
    long = one(**{name: "x" * 5000})
    assert long.mended == 1
    assert len(only(long, name)) == 256
    assert only(long, name) != only(one(**{name: "x" * 5001}), name)
    assert only(long, name) == only(one(**{name: "x" * 5000}), name)
    assert only(one(**{name: ""}), name) == "~"
    (reject,) = one(account_id="x" * 257).rejects
    assert (reject.reason, reject.field) == ("bad_id", "account_id")


def test_codes_take_spellings_and_others_are_other() -> None:
    values = ["chat", "Chat", "EMBEDDING", "chat_completion", "pigeon post", "", None]
    decoded = decode(
        raw([small(operation=v, finish_reason=f) for v, f in zip(values, _FINISHES, strict=True)]), OPTIONS
    )
    assert decoded.frame.get_column("operation").to_list() == [1, 1, 3, 1, 13, 13, None]
    assert decoded.frame.get_column("finish_reason").to_list() == [1, 2, 3, 4, 8, None, 1]


_FINISHES = ["end_turn", "MAX_TOKENS", "tool_use", "SAFETY", "whatever", None, "STOP"]


def test_moderated_is_any_action_but_letting_through() -> None:
    lists = [["hate:block"], ["hate:allow", "x:flag"], ["hate:allow"], [], None, ["hate"]]
    moderated = decode(raw([small(moderation=m) for m in lists]), OPTIONS).frame.get_column("moderated")
    assert moderated.to_list() == [True, True, False, False, None, True]


def test_an_empty_array_of_tools_is_known() -> None:
    frame = decode(raw([small(tools=[]), small(tools=None), small(tools=["a"])]), OPTIONS).frame
    assert frame.get_column("n_tools").to_list() == [0, None, 1]
    assert frame.get_column("tools").to_list() == [[], None, ["a"]]


@pytest.mark.parametrize(
    ("policy", "sketch", "text_stays", "sketch_stays"),
    [
        ("full", True, True, True), (None, True, True, True), ("sketch", True, False, True),
        ("sketch", False, True, False), ("none", True, False, False), ("none", False, False, False),
        ("whatever", True, False, False), (5, True, False, False), ("None", True, False, False),
    ],
)  # fmt: skip
def test_content_policy(policy: Any, sketch: bool, text_stays: bool, sketch_stays: bool) -> None:
    text = {"system": "s", "prompt": "p", "response": "r"}
    held = small(content_policy=policy, sketch={"v": 1} if sketch else None, **text)
    free = small(sketch={"v": 1}, **text)
    frame = decode(raw([held, free]), OPTIONS).frame
    for name in text:
        assert frame.get_column(name).is_not_null().to_list() == [text_stays, True]
    assert frame.get_column("sketch").is_not_null().to_list() == [sketch_stays, True]


@pytest.mark.parametrize(
    ("entity", "subject"),
    [("account", "acct-1"), ("org", "org-1"), ("project", "proj-1"), ("key", "key-1"), ("account+end_user", None)],
)
def test_the_subject_is_the_scored_entity(entity: str, subject: str | None) -> None:
    options = DecodeOptions(OPTIONS.digest_key, entity=entity)
    assert only(decode(raw([dumps(FULL)]), options), "subject") == subject
    if entity in ("org", "project", "key"):
        assert only(decode(raw([dumps(SMALL)]), options), "subject") is None


def test_unknown_fields_are_counted() -> None:
    values = [small(extra=1, more={"prompt": "x"}), small(), dumps([1]), small(another=None)]
    decoded = decode(raw(values), OPTIONS)
    assert decoded.unknown_fields == 3
    assert decoded.wrong_types == {}
    assert "extra" not in decoded.frame.columns


def test_unknown_fields_of_a_long_partition_are_estimated() -> None:
    many = decode(raw([small(extra=1)] * 20_000, start=5_000_000), OPTIONS)
    assert 0.8 * 20_000 < many.unknown_fields < 1.2 * 20_000


def test_a_reject_has_coordinates_and_a_keyed_digest_and_nothing_of_the_input() -> None:
    value = small(account_id="", prompt="CANARY-77")
    decoded = decode(raw([value], start=41, partition=3), OPTIONS)
    (reject,) = decoded.rejects
    assert (reject.partition, reject.offset, reject.length) == (3, 41, len(value))
    assert reject.digest == hashlib.blake2b(value, digest_size=16, key=OPTIONS.digest_key).hexdigest()
    assert "CANARY" not in repr(decoded)
    other = decode(raw([value]), DecodeOptions(b"another key")).rejects[0]
    assert other.digest != reject.digest


def test_nothing_in_nothing_out() -> None:
    decoded = decode(raw([]), OPTIONS)
    assert decoded.frame.height == 0
    assert decoded.frame.schema["account_id"] == pl.String
    assert decoded.frame.schema["subject"] == pl.String
    assert decoded.frame.schema["input_tokens"] == pl.Int64


@pytest.mark.parametrize(
    "bad", [{"digest_key": b""}, {"digest_key": b"x" * 65}, {"max_bytes": 0}, {"future_s": -1.0}, {"entity": "planet"}]
)
def test_options_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        DecodeOptions(**({"digest_key": b"k"} | bad))
