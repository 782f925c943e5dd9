"""Contract 5: reading context, and what is known of an account at a time."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.context import ContextEvent, ContextState, parse_context, read_context
from monitor.errors import Problem
from monitor.fields import AGREEMENT_KINDS, CONTEXT_TYPES

T = 1_750_000_000
MS = T * 1000
HOUR = 3_600_000


def line(**record: Any) -> bytes:
    return json.dumps({"ts": T, **record}).encode()


def event(at: int = T, **record: Any) -> ContextEvent:
    found = parse_context(json.dumps({"ts": at, **record}).encode(), "test")
    assert isinstance(found, ContextEvent), found
    return found


def good(kind: str) -> dict[str, Any]:
    record: dict[str, Any] = {"type": kind, "account_id": "a", "model": "m"}
    attrs = {
        "agreement": {"kind": "research", "owner": "trust@provider", "expires": "2025-12-01T00:00:00Z"},
        "intel": {"indicator": "k:1", "kind": "ja4", "expires": T + 60},
        "incident": {"until": T + 600},
    }
    return record | {"attrs": attrs.get(kind, {"product": "desktop"})}


@pytest.mark.parametrize("kind", CONTEXT_TYPES)
def test_every_type_of_context_is_read(kind: str) -> None:
    events, problems = read_context([(1, line(**good(kind))), (2, b"  \n")], "context.ndjson")
    assert problems == []
    assert [e.type for e in events] == [kind]
    state = ContextState()
    state.apply(events, MS)
    assert state.known_types == {kind}


@pytest.mark.parametrize("kind", [k for k, v in CONTEXT_TYPES.items() if v.needs])
def test_what_a_type_needs_is_demanded(kind: str) -> None:
    for name in CONTEXT_TYPES[kind].needs:
        problem = parse_context(line(**{k: v for k, v in good(kind).items() if k != name}), "f", 3)
        assert problem == Problem("f", 3, f"{kind} needs it", name)


def agreed(org: str | None = "o", **attrs: Any) -> bytes:
    return line(type="agreement", org_id=org, attrs=attrs)


@pytest.mark.parametrize(
    ("value", "name", "says"),
    [
        (b"{", None, "not JSON"), (b'{"ts": NaN}', None, "not JSON"), (b"[]", None, "object"), (b"{}", "ts", "missing"),
        (line(), "type", "missing"), (line(type=5), "type", "string"),
        (line(type="acount_banned"), "type", "account_banned?"),
        (line(type="product_seen", account_id=7), "account_id", "256"), (b"[" * 20_000, None, "object"),
        (line(type="product_seen", account_id=""), "account_id", "256"),
        (line(type="incident", attrs=[]), "attrs", "object"),
        (json.dumps({"ts": T * 1000, "type": "incident"}).encode(), "ts", "milliseconds"),
        (json.dumps({"ts": "2025-01-01T00:00:00", "type": "incident"}).encode(), "ts", "zone"),
        (json.dumps({"ts": "0001-01-01T00:00:00Z", "type": "incident"}).encode(), "ts", "2000"),
        (agreed(kind="router", owner="x", expires=T, org=None), "account_id", "org_id"),
        (agreed(owner="x", expires=T), "attrs.kind", "needs"),
        (agreed(owner="x", kind="router"), "attrs.expires", "RFC 3339"),
        (agreed(kind="fun", owner="x", expires=T), "attrs.kind", "router"),
        (agreed(kind="router", owner="", expires=T), "attrs.owner", "answers"),
        (agreed(kind="router", owner="x", expires="soon"), "attrs.expires", "zone"),
        (line(type="intel"), "attrs.indicator", "needs"),
    ],
)  # fmt: skip
def test_a_problem_names_the_field_and_the_remedy_and_no_value(value: bytes, name: str | None, says: str) -> None:
    events, problems = read_context([(7, value)], "c.ndjson")
    assert events == []
    (problem,) = problems
    assert (problem.file, problem.line, problem.field) == ("c.ndjson", 7, name)
    assert says in problem.message
    assert "acount" not in problem.message
    assert "soon" not in problem.message


def test_what_is_not_needed_is_dropped_on_reading() -> None:
    state = ContextState()
    attrs = {"payment_fp": "CANARY", "note": {"deep": ["CANARY"]}, "product": "CANARY"}
    state.apply([event(type="payment_changed", account_id="a", attrs=attrs)], MS)
    state.apply([event(type="product_seen", account_id="a", attrs=attrs)], MS)
    assert b"CANARY" not in state.dump()


def test_status_is_as_of_its_time() -> None:
    state = ContextState()
    state.apply([
        event(T + 20, type="account_restored", account_id="a"), event(T, type="account_created", account_id="a"),
        event(T + 10, type="account_banned", account_id="a"), event(T + 20, type="account_closed", account_id="a"),
    ], MS + 60_000)  # fmt: skip
    known = [state.status_at("a", MS + s * 1000) for s in (-1, 0, 9, 10, 19, 20, 60)]
    assert known == [None, "open", "open", "banned", "banned", "closed", "closed"]
    assert state.status_at("b", MS) is None
    assert state.created_ms("a") == MS


def test_an_event_waits_for_its_time() -> None:
    state = ContextState()
    state.apply([event(T + 10, type="model_released", model="m")], MS + 9_999)
    assert state.released_ms("m") is None
    assert state.known_types == frozenset()
    state = ContextState.load(state.dump())
    state.apply([], MS + 10_000)
    assert state.released_ms("m") == MS + 10_000
    assert state.releases(MS, MS + 10_000) == ((MS + 10_000, "m"),)
    assert state.releases(MS + 10_000, MS + 20_000) == ()


def test_last_seen_does_not_know_what_came_after() -> None:
    early, late = ContextState(), ContextState()
    seen = [event(T + 1800 * i, type="product_seen", account_id="a") for i in range(6)]
    early.apply(seen[:3], MS + HOUR)
    late.apply(seen, MS + 3 * HOUR)
    for at in (*range(MS - 1000, MS + HOUR, 60_000), MS + HOUR):
        assert early.last_ms("product_seen", "a", at) == late.last_ms("product_seen", "a", at)
    assert late.last_ms("product_seen", "a", MS - 1) is None
    assert late.last_ms("key_created", "a", MS + HOUR) is None


def agreement(at: int, kind: str, expires: int, **who: str) -> ContextEvent:
    attrs = {"kind": kind, "owner": "trust", "expires": expires}
    return event(at, type="agreement", attrs=attrs, **who)


def test_agreements_of_the_account_and_of_its_organisation() -> None:
    state = ContextState()
    state.apply([
        agreement(T, "distillation", T + 100, account_id="a"), agreement(T, "router", T + 50, org_id="o"),
        agreement(T + 30, "router", T + 200, org_id="o"), agreement(T + 60, "distillation", T + 60, account_id="a"),
    ], MS + 300_000)  # fmt: skip

    def kinds(at: int, account: str = "a", org: str | None = "o") -> list[str]:
        return [a.kind for a in state.agreements_at(account, org, MS + at * 1000)]

    assert kinds(-1) == []
    assert kinds(0) == ["distillation", "router"]
    assert kinds(0, "b") == ["router"]
    assert kinds(0, "a", None) == ["distillation"]
    assert kinds(60) == ["router"], "an agreement that expires at once is at its end"
    assert kinds(199) == ["router"], "a renewal holds"
    assert kinds(200) == []
    assert state.agreements_at("b", "o", MS)[0].owner == "trust"


def test_incidents_and_intel_end() -> None:
    state = ContextState()
    state.apply([
        event(type="incident", attrs={"until": T + 600}), event(T + 5000, type="incident"),
        event(type="intel", attrs={"indicator": "k", "expires": T + 10}), event(type="intel", attrs={"indicator": "j"}),
    ], MS + HOUR * 10)  # fmt: skip
    assert [state.incident_at(MS + s * 1000) for s in (-1, 0, 599, 600, 5000, 8599, 8600)] == [
        False, True, True, False, True, True, False,
    ]  # fmt: skip
    assert [state.intel_at("k", MS + s * 1000) for s in (-1, 0, 9, 10)] == [False, True, True, False]
    assert state.intel_at("j", MS + HOUR * 9)
    assert not state.intel_at("other", MS)


def test_lookup_is_aligned_with_its_rows() -> None:
    state = ContextState()
    state.apply([
        event(type="account_created", account_id="a"), agreement(T, "reseller", T + 100, org_id="o"),
        event(T + 10, type="account_banned", account_id="a"), event(T + 20, type="product_seen", account_id="b"),
    ], MS + 60_000)  # fmt: skip
    frame = state.lookup(["a", "b", "a", "c"], ["o", None, None, "o"], [MS, MS + 30_000, MS + 10_000, MS + 100_000])
    assert frame.to_dict(as_series=False) == {
        "context_created_ms": [MS, None, MS, None], "context_status": [0, None, 2, None],
        "product_seen_ms": [None, MS + 20_000, None, None],
        "agreements": [1 << AGREEMENT_KINDS.index("reseller"), 0, 0, 0],
    }  # fmt: skip
    empty = ContextState().lookup(["a"], [None], [MS])
    assert empty.row(0) == (None, None, None, None)
    assert empty.schema == frame.schema == {
        "context_created_ms": pl.Int64, "context_status": pl.UInt8, "product_seen_ms": pl.Int64, "agreements": pl.UInt8,
    }  # fmt: skip


def test_a_state_of_another_version_is_refused() -> None:
    blob = ContextState().dump()
    assert blob[1] == 1
    with pytest.raises(ValueError, match="version 2"):
        ContextState.load(blob[:1] + b"\x02" + blob[2:])
    with pytest.raises(ValueError, match=r"."):
        ContextState.load(b"\xc1")


events = st.lists(
    st.builds(
        lambda kind, at, who: event(T + at, **(good(kind) | {"account_id": who, "org_id": who, "model": who})),
        st.sampled_from(list(CONTEXT_TYPES)), st.integers(0, 200_000), st.sampled_from("ab"),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(events, st.randoms(use_true_random=False), st.integers(0, 250_000))
def test_order_and_splits_change_no_byte(made: list[ContextEvent], rng: Any, cut: int) -> None:
    end = MS + 250_000_000
    one = ContextState()
    one.apply(made, end)
    other = ContextState()
    mixed = [*made, *made[:3]]
    rng.shuffle(mixed)
    third = len(mixed) // 3
    for chunk, until in (
        (mixed[:third], 0),
        (mixed[third : 2 * third], MS + 1000 * cut),
        (mixed[2 * third :], end),
    ):
        other.apply(chunk, until)
        other = ContextState.load(other.dump())
    assert other.dump() == one.dump()
    assert ContextState.load(one.dump()).dump() == one.dump()
