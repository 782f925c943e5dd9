"""What the decoder must make of a record, said a second time with the standard library only.

Slow, plain and written apart from ``monitor.decode``: it shares no code with it, not even the table of
fields. Has no opinion (None) where it would have to parse an unusual time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from monitor.decode import DecodeOptions, decode
from monitor.fields import OPTIONAL, REJECT_REASONS
from monitor.records import Decoded, RawBatch

_TIMES = {
    "2025-06-15T12:00:00Z": 1749988800.0, "2025-06-15T15:06:41.5Z": 1750000001.5,
    "2025-06-15T12:00:00.123456789+02:00": 1749981600.123457, "2016-12-31T23:59:60Z": 1483228800.0,
    "2025-07-01T00:00:00Z": 1751328000.0,
    "2025-06-15T12:00:00": None, "0001-01-01T00:00:00+23:59": None, "9999-12-31T23:59:59-23:59": None,
    "2025-13-40T99:99:99Z": None, "": None, "x": None, "none": None, "full": None, "sketch": None,
}  # fmt: skip


class NoOpinion(Exception):
    """The oracle cannot say."""


def parsed(value: bytes | None) -> dict[str, Any] | None:
    """The record as Python's own json reads it, mended as the decoder promises; None where it is no object."""

    def constant(_: str) -> Any:
        raise ValueError

    def integer(digits: str) -> Any:
        return int(digits) if len(digits) < 400 else math.inf * (-1 if digits[0] == "-" else 1)

    if not value or not value.strip():
        return None
    try:
        text = value.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
        found = json.loads(text, parse_constant=constant, parse_int=integer)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _seconds(value: Any) -> float | None:
    """Epoch seconds, or None for what is no time."""
    if isinstance(value, str):
        if value not in _TIMES:
            raise NoOpinion
        value = _TIMES[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 946684800 <= value <= 4102444800 else None


def _count(value: Any, high: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= high or value % 1:
        return None
    return int(value)


def expected(value: bytes | None, stamp: int) -> tuple[int, str, int, int, int] | None:
    """``(t_ms, account_id, input_tokens, output_tokens, status)`` of a good record, None for a bad one."""
    record = parsed(value)
    if record is None:
        return None
    ts, account = _seconds(record.get("ts")), record.get("account_id")
    counts = [
        _count(record.get(k), high) for k, high in (("input_tokens", 10**9), ("output_tokens", 10**9), ("status", 999))
    ]
    if ts is None or None in counts or not isinstance(account, str) or not 1 <= len(account) <= 256:
        return None
    if not all(isinstance(record.get(k), str) for k in ("request_id", "model")):
        return None
    done = _seconds(record.get("completed_at"))
    t_ms = round((ts if done is None else done) * 1000)
    if 0 <= stamp < t_ms - 300_000:
        return None
    account = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in account)
    return (t_ms, account, *counts)  # type: ignore[return-value]  # no None among the counts


def check(batch: RawBatch, options: DecodeOptions, decoded: Decoded | None = None) -> Decoded:
    """Decodes ``batch`` and asserts every promise that can be checked from outside."""
    decoded = decoded or decode(batch, options)
    frame = decoded.frame
    rejected = {r.offset: r for r in decoded.rejects}
    assert frame.height + len(decoded.rejects) == len(batch)
    assert sorted([*frame.get_column("offset"), *rejected]) == batch.offset.tolist()
    assert frame.get_column("offset").is_sorted()
    assert list(rejected) == sorted(rejected)
    assert {r.reason for r in decoded.rejects} <= REJECT_REASONS.keys()
    assert decoded.wrong_types.keys() <= set(OPTIONAL)
    names = ["t_ms", "account_id", "input_tokens", "output_tokens", "status"]
    rows = dict(zip(frame.get_column("offset"), frame.select(names).iter_rows(), strict=True))
    for i, offset in enumerate(batch.offset.tolist()):
        try:
            want = expected(batch.values[i], int(batch.timestamp_ms[i]))
        except NoOpinion:
            continue
        assert rows.get(offset) == want, (batch.values[i], rows.get(offset), want, rejected.get(offset))
    return decoded


def same(a: Sequence[Decoded], b: Sequence[Decoded]) -> None:
    """Asserts that two ways of cutting a batch gave the same rows, rejects and counts."""
    import polars as pl
    from polars.testing import assert_frame_equal

    one = pl.concat([d.frame for d in a], how="diagonal")
    two = pl.concat([d.frame for d in b], how="diagonal")
    # A part in which a field does not occur lacks its column: the joint frame may order them otherwise.
    assert_frame_equal(one, two, check_column_order=False)
    assert [r for d in a for r in d.rejects] == [r for d in b for r in d.rejects]
    for count in ("unknown_fields", "mended"):
        assert sum(getattr(d, count) for d in a) == sum(getattr(d, count) for d in b)
    names = {n for d in (*a, *b) for n in d.wrong_types}
    for name in names:
        assert sum(d.wrong_types.get(name, 0) for d in a) == sum(d.wrong_types.get(name, 0) for d in b)
