"""Request-log records for tests: a full good one, batches, a seeded mutator. No fixture, no server."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from monitor.decode import DecodeOptions
from monitor.fields import FIELDS, REQUIRED
from monitor.records import RawBatch

OPTIONS = DecodeOptions(digest_key=b"test digest key")
STAMP = 1_750_000_000_000
"""Kafka timestamp of every record made here unless told otherwise; the records' own times lie at it."""

FULL: dict[str, Any] = {
    "ts": 1750000000.25, "request_id": "req-1", "account_id": "acct-1", "model": "m-large", "input_tokens": 120,
    "output_tokens": 30, "status": 200, "completed_at": "2025-06-15T15:06:41.5Z", "org_id": "org-1",
    "project_id": "proj-1", "billing_account_id": "bill-1", "api_key_id": "key-1", "account_created_at": 1740000000,
    "plan": "team", "billing_type": "prepaid", "auth_type": "key", "channel": "api",
    "marketplace_account_id": "mp-1", "reseller_of_record": "rs-1", "region": "eu-1", "end_user_id": "eu-77",
    "content_policy": "full", "operation": "chat", "delivery": "sync", "batch_id": "b-1", "model_served": "m-large-2",
    "cached_tokens": 10, "reasoning_tokens": 5, "latency_ms": 812.4, "cost_usd": 0.001234, "finish_reason": "stop",
    "stream": False, "refused": False, "moderation": ["self_harm:allow"], "temperature": 0.7, "top_p": 0.95,
    "max_tokens": 1024, "n": 1, "seed": -7, "logprobs": True, "top_logprobs": 5, "logit_bias": False,
    "response_format": "json_schema", "reasoning_effort": "high", "tools": ["search", "python"],
    "tool_schema_fp": "ts-1", "n_messages": 3, "turn_index": 0, "input_kind": "user", "conversation_id": "c-1",
    "system": "be brief", "prompt": "why is the sky blue?", "response": "scattering", "sketch": {"v": 1, "key_id": "k"},
    "ip": "192.0.2.7", "asn": 4294967295, "country": "NL", "user_agent": "sdk/1.0", "client_name": "sdk",
    "client_version": "1.0", "ja4": "t13d", "payment_fp": "pay-1", "referral_fp": "ref-1",
    "contact_domain": "example.org", "reasoning_blob_fp": ["blob-1"],
}  # fmt: skip
"""Every field of the contract, each with a good value."""

SMALL: dict[str, Any] = {name: FULL[name] for name in REQUIRED}


def dumps(record: object) -> bytes:
    """Compact UTF-8 JSON, non-ASCII as it is."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def small(**change: Any) -> bytes:
    """The smallest good record with fields set; Ellipsis drops one."""
    return dumps({k: v for k, v in (SMALL | change).items() if v is not ...})


def raw(values: Sequence[bytes | None], stamp: int = STAMP, start: int = 0, partition: int = 0) -> RawBatch:
    """Values as one batch of one partition."""
    n = len(values)
    offset = np.arange(start, start + n, dtype=np.int64)
    return RawBatch(
        values, np.full(n, partition, np.int32), offset, np.full(n, stamp, np.int64), {partition: start + n}
    )


def part(batch: RawBatch, lo: int, hi: int) -> RawBatch:
    """Records ``lo`` to ``hi`` of a batch."""
    return RawBatch(
        batch.values[lo:hi], batch.partition[lo:hi], batch.offset[lo:hi], batch.timestamp_ms[lo:hi], batch.next_offsets
    )


_ODD: tuple[bytes, ...] = (
    b"null", b"true", b"false", b"0", b"-0", b"-1", b"1e3", b"1e400", b"-1e400", b"NaN", b"Infinity", b"200.0",
    b"200.5",
    b"1000000000", b"1000000001", b"9223372036854775808", b"9" * 40, b"9" * 5000, b"01", b"1.", b"-", b'""', b'"x"',
    b'"' + b"y" * 300 + b'"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\\\ud800"', b'"\\u0000"',
    b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\\q"', b'"\x01"', b'"', b"[]", b"{}", b"[1]", b'["a"]', b'["a",null]',
    b'["\\ud800"]',
    b"[[[[]]]]", b'{"v":1e400}', b'{"v":"\xff"}', b"[" * 3000, b"[" * 3000 + b"]" * 3000, b'"2025-06-15T12:00:00Z"',
    b'"2025-06-15T12:00:00"', b'"2025-06-15T12:00:00.123456789+02:00"', b'"2016-12-31T23:59:60Z"',
    b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59-23:59"', b'"2025-13-40T99:99:99Z"', b"1750000000",
    b"1750000000000", b"946684800", b"946684799.9995", b"4102444800.0004", b'"none"', b'"sketch"', b'"full"',
    b"\xef\xbb\xbf", b"", b" ", b"\x00", b"1750000300", b"1750000300.001", b'"2025-07-01T00:00:00Z"',
)  # fmt: skip
"""JSON values (and what is none) that broke a reader somewhere, or lie on an edge of the contract."""


def mutant(rng: random.Random) -> bytes | None:
    """One record, good or broken in up to four ways: values, names, structure, bytes."""
    names = list(FIELDS)
    fields = {k: dumps(v) for k, v in FULL.items() if k in REQUIRED or rng.random() < 0.5}
    order = list(fields)
    if rng.random() < 0.2:
        rng.shuffle(order)
    pairs = [(dumps(k), fields[k]) for k in order]
    flips = 0
    for _ in range(rng.randrange(5)):
        i = rng.randrange(len(pairs)) if pairs else 0
        match rng.randrange(9):
            case 0 | 1 | 2 if pairs:
                pairs[i] = (pairs[i][0], rng.choice(_ODD))
            case 3:
                pairs.append((dumps(rng.choice(names)), rng.choice(_ODD)))
            case 4 if pairs:
                del pairs[i]
            case 5:
                pairs.insert(
                    i, (rng.choice((b'"extra"', b'""', b'"\\ud800"', b'"\xff"', b"1", b"x")), rng.choice(_ODD))
                )
            case 6 if pairs:
                pairs.append((pairs[i][0], dumps(rng.choice((1, "a", None, [], 1.5)))))
            case _:
                flips += 1
    value = b"{" + b",".join(k + b":" + v for k, v in pairs) + b"}"
    for _ in range(flips):
        value = _byte_mutant(value, rng)
    return None if rng.random() < 0.002 else value


def _byte_mutant(value: bytes, rng: random.Random) -> bytes:
    if not value:
        return value
    i = rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            return value[:i]
        case 1:
            return value[:i] + bytes([rng.randrange(256)]) + value[i + 1 :]
        case 2:
            return value[:i] + rng.choice(_ODD) + value[i:]
        case 3:
            return value[:i] + value[rng.randrange(i, len(value)) :]
        case 4:
            return value + rng.choice((b"\n", b" ", b"}", b"x", b"\x00", value))
        case 5:
            return rng.choice((b" ", b"\n", b"\xef\xbb\xbf", b"[")) + value
        case 6:
            return value.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32", "utf-7")))
        case _:
            return rng.choice((b"", b" \n", b"null", b"[]", b'"a"', b"5", b"hello world", b"\x1f\x8b\x08\x00"))
