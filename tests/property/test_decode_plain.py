"""The compiled reader of plain records takes a subset of what the typed struct takes, and gives the same."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from decode_oracle import same
from hypothesis import given, settings
from hypothesis import strategies as st
from records_made import OPTIONS, STAMP, mutant, raw

import monitor
from monitor.decode import decode
from monitor.decode.plain import read_plain
from monitor.decode.stage import _decode_each

GOOD = {
    "ts": 1750000000.25,
    "request_id": "r-1",
    "account_id": "a-1",
    "model": "m-1",
    "input_tokens": 10,
    "output_tokens": 5,
    "status": 200,
}


def is_plain(record: bytes) -> bool:
    return len(read_plain([record], 1 << 20).rows) == 1


def both(records: list[bytes | None], stamp: int = -1) -> None:
    batch = raw(records, stamp=stamp)
    made = decode(batch, OPTIONS)
    expected, _ = _decode_each(batch, OPTIONS)
    same([made], [expected])
    assert made.frame.columns == expected.frame.columns


def test_mutants_give_what_the_struct_gives() -> None:
    rng = random.Random(20_260_301)
    plain = total = 0
    for n in range(20):
        records = [mutant(rng) for _ in range(500)]
        both(records, STAMP if n % 2 else -1)
        plain += len(read_plain(records, OPTIONS.max_bytes).rows)
        total += len(records)
    # If everything went the other way, nothing was compared.
    assert 0.05 * total < plain < 0.95 * total


@settings(max_examples=300, deadline=None)
@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_any_string_and_number_is_read_the_same(text: str, number: float, ascii_only: bool) -> None:
    text = text.encode("utf-8", "replace").decode()
    changes = ({"prompt": text}, {"user_agent": text, "tools": [text]}, {"latency_ms": number}, {"cost_usd": number})
    for change in changes:
        both([json.dumps({**GOOD, **change}, ensure_ascii=ascii_only).encode()])


@pytest.mark.parametrize(
    ("change", "plain"),
    [
        ({}, True),
        ({"prompt": 'a"\\\n\u0001é漢😀' * 9}, True),
        ({"temperature": 0.1 + 0.2}, True),
        ({"x": [{"y": [1, "é"]}]}, True),
        ({"ts": "2025-06-15T12:00:00Z"}, True),
        ({"ts": "2024-02-29T23:59:59.123456+05:30"}, True),
        ({"ts": "2025-02-29T00:00:00Z"}, False),
        ({"ts": "2025-06-15T12:00:00"}, False),
        ({"cost_usd": 1e-7}, True),
        ({"finish_reason": "end_turn"}, True),
        ({"finish_reason": "never heard of"}, False),
        ({"status": 200.0}, False),
        ({"content_policy": "none", "prompt": "x"}, False),
        ({"content_policy": "none"}, True),
        ({"seed": -(1 << 40)}, True),
        ({"account_id": ""}, False),
        ({"account_id": "a" * 257}, False),
        ({"account_id": None}, False),
        ({"top_p": 1.5}, False),
        ({"tools": ["a", ""]}, True),
        ({"tools": ['a"']}, False),
        ({"moderation": ["hate:block"]}, True),
        ({"stream": 1}, False),
        ({"sketch": {"v": 1}}, True),
        ({"sketch": 1}, False),
        ({"asn": 4294967295}, True),
        ({"max_tokens": 10**10}, False),
    ],
)
def test_what_is_plain(change: dict[str, object], plain: bool) -> None:
    record = json.dumps({**GOOD, **change}).encode()
    assert is_plain(record) is plain
    both([record, json.dumps(GOOD).encode()])


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"}}",
        b" x",
        b",",
        b'"a":1}',
        b',"a":01}',
        b',"a":1.}',
        b',"a":[1,]}',
        b',"a":{"b":1,}}',
        b',"a":"\x01"}',
        b',"a":"\\x"}',
        b',"a":"\\ud800"}',
        b',"a":"\\ud800\\u0041"}',
        b',"a":"\xff"}',
        b',"a":"\xed\xa0\x80"}',
        b',"a":tru}',
        b',"a":nulll}',
        b',"a":NaN}',
        b',"a":1e999}',
        b',"status":201}',
        b',"a":' + b"[" * 40 + b"]" * 40 + b"}",
        b',"a":"',
        b',"a',
        b":1}",
        b',"\\u0061":1}',
        b',"a":-}',
        b',"a":1 2}',
        b",}",
    ],
)
def test_doubtful_records_are_left_to_the_struct(tail: bytes) -> None:
    record = json.dumps(GOOD).encode()[:-1] + tail
    assert not is_plain(record)
    both([record, json.dumps(GOOD).encode()])


@pytest.mark.parametrize("more", [b'"latency_ms":1e3', b'"cost_usd":0.12345678901234567', b'"temperature":1e400'])
def test_a_time_out_of_range_is_not_forgiven_for_another_number(more: bytes) -> None:
    """Both need more digits than the kernel keeps and are read afterwards, field by field: one no is no."""
    record = json.dumps(GOOD | {"ts": 0}).encode().replace(b'"ts": 0', b'"ts": 9223372036854775808, ' + more)
    assert not is_plain(record)
    both([record])


def test_what_lies_behind_a_record_does_not_matter() -> None:
    """Every prefix of a record, next to every other: the reader must not look beyond its record's end."""
    record = json.dumps({**GOOD, "prompt": 'a\\u00e9"é漢', "tools": ["a"]}, ensure_ascii=False).encode()
    parts = [record[:n] for n in range(1, len(record))]
    assert read_plain(parts, 1 << 20).rows.tolist() == []
    assert read_plain([p for part in parts for p in (part, record)], 1 << 20).rows.tolist() == [
        2 * i + 1 for i in range(len(parts))
    ]


def test_a_column_does_not_hold_the_batch() -> None:
    """An id that is kept (an open tick) must not keep the text of its batch alive."""
    plain = read_plain([json.dumps({**GOOD, "prompt": "x" * 10_000}).encode()] * 100, 1 << 20)
    kept = next(s for s in plain.series() if s.name == "request_id")
    assert kept.dtype == pl.String
    assert sum(b.size for b in kept.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers() if b) < 10_000
    assert np.array_equal(plain.rows, np.arange(100))


def test_the_reader_stays_inside_its_arrays() -> None:
    """Every prefix of a record with numba's bounds checks on: an index past an end raises instead of reading on."""
    code = """
import json
from monitor.decode.plain import read_plain
record = json.dumps({
    "ts": "2025-06-15T12:00:00.5Z", "request_id": "r", "account_id": "a", "model": "m", "input_tokens": 1,
    "output_tokens": 1, "status": 200, "prompt": 'a\\\\u00e9"\\U0001f600', "tools": ["a"], "x": [{"y": [1e5, None]}],
    "finish_reason": "stop", "moderation": ["a:block"], "cost_usd": 0.1,
}).encode()
for n in range(1, len(record)):
    assert not len(read_plain([record[:n]], 1 << 20).rows)
assert [len(s) for s in read_plain([record], 1 << 20).series()]
print('inside')
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(monitor.__file__).parents[1], capture_output=True, text=True,
        timeout=800,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "1", "NUMBA_CACHE_DIR": "/dev/null/none"},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "inside"), done.stderr[-2000:]
