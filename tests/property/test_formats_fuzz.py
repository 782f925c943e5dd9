"""Every mapping against garbage: nothing raises, every item is accounted for, a credential never comes through.

And ``auto``: a native log is native, whatever else its records hold.
"""

from __future__ import annotations

import json
import random
from typing import Any

import foreign
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from otlp_protobuf import as_protobuf

from monitor.decode import AUTO, read_message
from monitor.decode.formats import Auto
from monitor.decode.otlp import NotOtlp, read_protobuf
from monitor.fields import FIELDS, REJECT_REASONS, REQUIRED
from monitor.records import Refused

NAMES = [n for n in foreign.formats().names if n != "native"]
ODD: list[Any] = [
    None, True, False, 0, -1, 1e308, 2**63, -(2**70), 0.1, "", "-", "NaN", "1e999", "\ud800", "2026-01-01T00:00:00",
    "9999-12-31T23:59:59Z", "{", "[1,", "[[[]]]", "{\"a\": {}}", [], {}, [[]], [None], {"": {}}, ["x", 1], "9" * 400,
    {"text": {"text": {"text": {}}}}, [{"role": []}], {"role": "user"}, [{"content": [{"type": 1}]}],
]  # fmt: skip
SAMPLES = {name: foreign.lines(name) for name in foreign.CARRIES}


def accounted(name: str, values: list[bytes | None]) -> None:
    """Items of all messages = rows + rejects + ignored, with a known reason each; and no surprise in what comes out."""
    reader = foreign.reader(name)
    items = 0
    for value in values:
        message = read_message(reader, value, "id", 1 << 20)
        assert len(message.events) == len(message.places) == len(set(message.places))
        items += len(message.events) + message.ignored
        assert len(message.events) + message.ignored >= 1
        for event in message.events:
            assert foreign.SECRET not in event or name == AUTO
            if isinstance(event, Refused):
                assert event.reason in REJECT_REASONS
                assert event == b""
            elif name != AUTO:
                assert json.loads(event).keys() <= FIELDS.keys()
    done = foreign.decoded(name, values)
    assert len(done.frame) + len(done.rejects) + done.ignored == items
    assert {r.reason for r in done.rejects} <= REJECT_REASONS.keys()


def mutated(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """A copy with some values replaced, keys dropped, renamed or doubled, and parts put where others were."""
    draw = chance.random()
    if draw < 0.03:
        return chance.choice(ODD)
    if draw < 0.04 and depth < 30:
        deep: Any = value
        for _ in range(chance.choice([3, 50, 400])):
            deep = [deep] if chance.random() < 0.5 else {"messages": deep}
        return deep
    if isinstance(value, dict):
        return {
            (k if chance.random() > 0.02 else k.swapcase()): mutated(v, chance, depth + 1)
            for k, v in value.items() if chance.random() > 0.02
        }  # fmt: skip
    if isinstance(value, list):
        return [mutated(v, chance, depth + 1) for v in value for _ in range(chance.choice([1, 1, 1, 1, 2, 0]))]
    if isinstance(value, str) and value[:1] in "{[" and draw < 0.5:
        try:
            return json.dumps(mutated(json.loads(value), chance, depth + 1))
        except (ValueError, RecursionError):
            return value
    return value


@pytest.mark.parametrize("sample", sorted(SAMPLES))
def test_mutated_samples_are_accounted_for(sample):
    chance = random.Random(sample)
    values: list[bytes | None] = []
    for _ in range(150):
        record = json.loads(chance.choice(SAMPLES[sample]))
        text = json.dumps(mutated(record, chance), ensure_ascii=True).encode()
        if chance.random() < 0.1:
            at = chance.randrange(len(text))
            text = text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :]
        values.append(text)
    for name in (foreign.FORMAT_OF[sample], AUTO, chance.choice(NAMES)):
        accounted(name, values)


@pytest.mark.parametrize("name", NAMES)
def test_garbage_is_accounted_for(name):
    chance = random.Random(name)
    values: list[bytes | None] = [None, b"", b" \n", b"\xef\xbb\xbf{}", b"[]", b"[[]]", b"1", b'"x"', b"null", b"{}"]
    values += [json.dumps(odd).encode() for odd in ODD]
    values += [chance.randbytes(chance.randrange(1, 200)) for _ in range(200)]
    values += [b'{"a":' * 20_000, b"[" * 100_000, b'{"ts": NaN}', b"\x0a" + b"\xff" * 40]
    values += [b'{"a": "' + b"\\ud800" * 9 + b'"}']
    accounted(name, values)


@settings(max_examples=60, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["messages", "role", "content", "parts", "text", "choices", "message", "delta", "usage", "attributes", "ai",
         "resourceSpans", "scopeSpans", "spans", "key", "value", "stringValue", "kvlistValue", "values", "metadata",
         "event", "out", "obj", "rid", "input", "output", "logEvents", "result", "request", "response", "tools"],
    ) | st.text(max_size=4), inner, max_size=5), max_leaves=25,
))  # fmt: skip
def test_any_json_is_accounted_for_in_every_format(value):
    text = json.dumps(value).encode()
    for name in NAMES:
        accounted(name, [text])


def test_protobuf_with_flipped_bits_is_read_or_refused():
    chance = random.Random(1)
    whole = [as_protobuf(line) for sample in ("otlp", "otlp_logs", "otlp_old") for line in SAMPLES[sample]]
    read = refused = 0
    values: list[bytes | None] = []
    for _ in range(2_000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.choice([1, 1, 2, 8])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        cut = bytes(data) if chance.random() < 0.8 else bytes(data[: chance.randrange(len(data))])
        try:
            read_protobuf(cut)
            read += 1
        except NotOtlp:
            refused += 1
        if len(values) < 200:
            values.append(cut)
    assert min(read, refused) > 100, (read, refused)
    accounted("otlp", values)
    accounted(AUTO, values)


def test_a_protobuf_value_nested_without_end_is_refused():
    def wrapped(data: bytes, field: int) -> bytes:
        size = len(data)
        length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
        return bytes([field << 3 | 2]) + length + data

    value = b""
    for _ in range(2_000):
        value = wrapped(wrapped(value, 1), 5)  # AnyValue.array_value.values
    attribute = wrapped(wrapped(b"k", 1) + wrapped(value, 2), 9)
    message = wrapped(wrapped(wrapped(attribute, 2), 2), 1)
    with pytest.raises(NotOtlp):
        read_protobuf(message)
    accounted("otlp", [message])


# ------------------------------------------------------------------------------------------------------------- auto

_MARKS = sorted(
    {
        path.split("/")[0]
        for plan in foreign.formats().plans.values() if plan.detect is not None
        for path in (*plan.detect.all, *plan.detect.any, *plan.detect.values, "metadata", "ai", "result", "data")
    }
)  # fmt: skip
"""First steps of everything that any mapping is known by."""


@settings(max_examples=300, deadline=None)
@given(
    extra=st.dictionaries(
        st.sampled_from(_MARKS) | st.text(max_size=6), st.sampled_from([*ODD, {"usage": {}}, 5, "x"])
    ),
    dropped=st.sets(st.sampled_from(REQUIRED), max_size=3),
)
def test_auto_takes_no_native_record_for_another_format(extra, dropped):
    """Whatever unknown fields it has, and though up to three required ones are missing."""
    record = extra | {k: v for k, v in json.loads(foreign.lines("native")[0]).items() if k not in dropped}
    text = json.dumps(record).encode()
    auto = foreign.reader(AUTO)
    assert isinstance(auto, Auto)
    assert auto.detect(text) == "native"
    assert read_message(auto, text, "id", 1 << 20).events == [text]


def test_auto_reads_a_native_log_as_native_does():
    from spine import world

    values = [record.value for record in world(accounts=20, days=1.0)][:3_000]
    auto = foreign.formats().reader(AUTO)
    assert isinstance(auto, Auto)
    assert [read_message(auto, v, "id", 1 << 20).events for v in values] == [[v] for v in values]
    assert auto.seen == {"native": len(values)}
