"""The shipped JSON Schemas: equal to what the code says, and of one mind with the code that reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from records_made import FULL, OPTIONS, SMALL, dumps, raw

import monitor.schemas
from monitor.context import ContextEvent, parse_context
from monitor.decode import decode
from monitor.fields import CONTEXT_TYPES, GOOD_EXAMPLE, REJECT_REASONS, REQUIRED
from monitor.records import Alert, Member
from monitor.schemas import NAMES, load, render


def valid(name: str, instance: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(load(name)).is_valid(instance))


def test_the_shipped_files_are_what_the_code_renders() -> None:
    folder = Path(monitor.schemas.__file__).parent
    shipped = {p.name: p.read_text("utf-8") for p in folder.glob("*.json")}
    assert shipped == render(), "run python -m monitor.schemas"
    assert {f"{n}.json" for n in NAMES} == shipped.keys()


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(load(name))
    assert not valid(name, {})
    assert not valid(name, [])


def test_an_unknown_schema_is_named() -> None:
    with pytest.raises(KeyError, match=r"alert\.v1"):
        load("alert.v9")


ODD: tuple[Any, ...] = (
    None, True, 0, -1, 5, 0.5, 1.75e12, 1e12, "", "x", "y" * 300, "2025-06-15T12:00:00Z", "2025-06-15T12:00:00", [],
    ["a"], [1], {},
)  # fmt: skip


@pytest.mark.parametrize("name", list(FULL))
def test_what_the_request_schema_accepts_is_decoded_without_a_remark(name: str) -> None:
    assert valid("request-log.v1", FULL)
    assert valid("request-log.v1", SMALL)
    assert valid("request-log.v1", json.loads(GOOD_EXAMPLE))
    for odd in ODD:
        record = FULL | {name: odd}
        decoded = decode(raw([dumps(record)], stamp=-1), OPTIONS)
        clean = not decoded.rejects and not decoded.wrong_types and not decoded.mended
        assert valid("request-log.v1", record) == clean, (name, odd)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_is_required(name: str) -> None:
    assert not valid("request-log.v1", {k: v for k, v in SMALL.items() if k != name})


def test_no_rejected_example_is_valid_but_for_what_a_schema_cannot_see() -> None:
    for reason, why in REJECT_REASONS.items():
        if reason in ("missing_field", "wrong_type", "bad_id", "bad_time", "out_of_range", "not_object"):
            assert why.example is not None
            assert not valid("request-log.v1", json.loads(why.example)), reason


ALERT = Alert(
    alert_id="x", revision=1, revised_at=1.5, state="open", kind="account", subject="a", subject_type="account",
    accounts=["a"], members={"a": Member("core", 1.0, ["behaviour"])}, hypothesis="resale", hypotheses={"resale": 0.5},
    severity="medium", score=None, expected_false_per_week=None, uncalibrated=True, mode="alert", families=["timing"],
    rules=["r"], window={"start": 0.0, "end": 1.0}, raised_at=1.0,
    exposure={"requests": 1, "input_tokens": 1, "reasoning_tokens": None, "cost_usd": 0.1, "models": ["m"]},
    exemplars=["r-1"], evidence={"rate": {"value": 1.0}}, versions={"monitor": "1", "rules": "h", "config": "h"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True), ({"added": 1}, True), ({"state": "merged", "merged_into": "y"}, True), ({"score": 0.2}, True),
        ({"state": "merged"}, False), ({"score": 1.2}, False), ({"severity": "huge"}, False), ({"revision": 0}, False),
        ({"schema": "alert/v2"}, False), ({"families": ["vibes"]}, False), ({"hypotheses": {"malice": 1}}, False),
        ({"members": {"a": {"tier": "boss", "membership": 1, "roots": []}}}, False), ({"window": {"start": 1}}, False),
        ({"accounts": [1]}, False), ({"exemplars": ["r"] * 41}, False), ({"uncalibrated": None}, False),
    ],
)  # fmt: skip
def test_alerts(change: dict[str, Any], good: bool) -> None:
    assert valid("alert.v1", msgspec.to_builtins(ALERT) | change) == good


def test_every_field_of_an_alert_without_a_default_is_required() -> None:
    built = msgspec.to_builtins(ALERT)
    may_lack = {"merged_into", "accounts_total", "members_ref"}
    assert {
        k for k in built if not valid("alert.v1", {n: v for n, v in built.items() if n != k})
    } == built.keys() - may_lack


def test_truth() -> None:
    line = {
        "account_id": "a-17", "actor": "distillation", "also": ["resale"], "campaign": "s4-0", "scenario": "S4",
        "first_ts": 0.0, "last_ts": 0.0,
    }  # fmt: skip
    assert valid("truth.v1", line)
    assert valid("truth.v1", {"account_id": "b", "actor": "benign", "scenario": "B1"})
    assert not valid("truth.v1", line | {"actor": "villain"})
    assert not valid("truth.v1", line | {"also": ["villain"]})


CONTEXT: dict[str, Any] = {
    "ts": 1_750_000_000, "account_id": "a", "org_id": "o", "model": "m",
    "attrs": {
        "kind": "router", "owner": "x", "expires": "2026-01-01T00:00:00Z", "until": 1_750_000_600, "indicator": "k",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", [*CONTEXT_TYPES, "gossip"])
def test_the_context_schema_and_the_reader_agree(kind: str) -> None:
    changes: list[dict[str, Any]] = [{}, {"attrs": None}, {"attrs": {}}, {"ts": "2025-06-15T12:00:00"}, {"ts": 5}]
    changes += [{k: None} for k in ("account_id", "org_id", "model")] + [{"account_id": None, "org_id": None}]
    changes += [{"attrs": CONTEXT["attrs"] | {k: v}} for k in CONTEXT["attrs"] for v in (None, 5, "", "soon")]
    for change in changes:
        record = CONTEXT | {"type": kind} | change
        read = isinstance(parse_context(json.dumps(record).encode(), "f"), ContextEvent)
        assert valid("context.v1", record) == read, change
