"""A rule set over rows: what fires, after how long, for whom not, and that cutting the stream changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_files import Folder, folder, frame

from monitor.errors import MonitorError
from monitor.records import FIRING_SCHEMA
from monitor.rules import HoldState, RuleSet

NEW_YEAR_2027_MS = 1_798_761_600_000
WEEK_TICKS = 7 * 8640


@pytest.fixture
def rules(tmp_path: Path) -> Folder:
    return folder(tmp_path / "rules")


def held(rules: Folder, duration: str = "1m") -> RuleSet:
    rules.rule(**{"for": duration})
    return rules.load()


def fired(loaded: RuleSet, hold: HoldState, *rows: dict[str, Any]) -> list[int]:
    return loaded.evaluate(frame(*rows), hold).firings["row"].to_list()


def at(tick: int, value: float | None = 0.9, subject: str = "a", partition: int = 0) -> dict[str, Any]:
    return {"tick": tick, "regular_1h": value, "subject": subject, "partition": partition}


def test_only_true_fires(rules: Folder) -> None:
    rules.rule()
    rules.rule(
        "timing/negated.yaml",
        when="!(regular_1h > params.level)",
        tests=[
            {"name": "y", "given": {"regular_1h": 0.1}, "alert": True},
            {"name": "n", "given": {"regular_1h": 0.9}, "alert": False},
            {"name": "u", "given": {}, "alert": "unknown"},
        ],
    )
    result = rules.load().evaluate(
        frame(at(0, 0.9), at(0, 0.1, "b"), at(0, None, "c"), at(0, float("nan"), "d")), HoldState()
    )
    assert result.firings.schema == pl.Schema(FIRING_SCHEMA)
    assert result.firings.rows() == [(0, "steady"), (1, "negated")]
    assert result.true_counts == {"negated": 1, "steady": 1}


def test_shadow_is_evaluated_and_off_is_not(rules: Folder) -> None:
    rules.rule(mode="shadow")
    rules.rule("timing/quiet.yaml", mode="off")
    loaded = rules.load()
    result = loaded.evaluate(frame(at(0)), HoldState())
    assert result.firings["rule"].to_list() == ["steady"]
    assert loaded.rules["steady"].mode == "shadow"
    assert "quiet" not in result.true_counts


def test_no_rows_and_absent_columns(rules: Folder) -> None:
    rules.rule(exceptions=[{"name": "x", "match": {"client_class": ["new"]}, "reason": "not judged yet", "owner": "jk",
                            "expires": "2030-01-01"}])  # fmt: skip
    loaded = rules.load()
    empty = loaded.evaluate(frame().clear(), HoldState())
    assert empty.firings.height == 0
    bare = frame(at(0)).drop("regular_1h", "client_class")
    assert loaded.evaluate(bare, HoldState()).true_counts == {"steady": 0}


def test_an_exception_holds_to_the_end_of_its_day_and_is_counted(rules: Folder) -> None:
    rules.rule(exceptions=[{"name": "partner", "match": {"account_id": ["a", "b"], "client_class": ["app"]},
                            "reason": "contract with us", "owner": "jk", "expires": "2026-12-31"}])  # fmt: skip
    loaded = rules.load()
    last = {"regular_1h": 0.9, "t_ms": NEW_YEAR_2027_MS - 1}
    rows = frame(last, last | {"subject": "c"}, last | {"client_class": 2}, last | {"client_class": None},
                 last | {"t_ms": NEW_YEAR_2027_MS}, last | {"subject": "b"})  # fmt: skip
    result = loaded.evaluate(rows, HoldState())
    assert result.firings["row"].to_list() == [1, 2, 3, 4]
    assert result.exception_hits == {("steady", "partner"): 2}
    assert result.true_counts == {"steady": 6}


def test_account_ids_are_subjects_only_where_accounts_are_scored(rules: Folder) -> None:
    rules.rule(exceptions=[{"name": "x", "match": {"account_id": ["a"]}, "reason": "contract with us", "owner": "jk",
                            "expires": "2030-12-31"}])  # fmt: skip
    loaded = rules.load()
    assert loaded.evaluate(frame(at(0)), HoldState()).firings.height == 0
    assert loaded.evaluate(frame(at(0)), HoldState(), "org").firings.height == 1
    assert loaded.evaluate(frame(at(0)).with_columns(account_id=pl.lit("z")), HoldState()).firings.height == 1


def test_for_counts_event_time_and_not_rows(rules: Folder) -> None:
    loaded = held(rules)
    assert fired(loaded, HoldState(), *(at(t) for t in range(8))) == [6, 7]
    assert fired(loaded, HoldState(), at(0), at(6)) == [1]
    assert fired(loaded, HoldState(), at(0), at(5)) == []
    assert fired(loaded, HoldState(tick_s=1), *(at(t) for t in (0, 59, 60))) == [2]


@pytest.mark.parametrize("broken", [0.1, None])
def test_for_begins_anew_after_a_row_that_is_not_true(rules: Folder, broken: float | None) -> None:
    assert fired(held(rules), HoldState(), at(0), at(3, broken), at(6), at(11), at(12)) == [4]


def test_for_is_by_account_and_partition(rules: Folder) -> None:
    rows = [at(0), at(0, 0.9, "b"), at(6, 0.9, "b"), at(3, 0.1), at(6), at(6, 0.9, "a", 1)]
    assert fired(held(rules), HoldState(), *rows) == [2]


def test_for_takes_rows_in_any_order(rules: Folder) -> None:
    assert fired(held(rules), HoldState(), at(6), at(0), at(3)) == [0]


def test_a_week_of_silence_ends_a_run(rules: Folder) -> None:
    loaded = held(rules)
    assert fired(loaded, HoldState(), at(0), at(WEEK_TICKS)) == [1]
    assert fired(loaded, HoldState(), at(0), at(WEEK_TICKS + 1)) == []
    hold = HoldState()
    fired(loaded, hold, at(0))
    fired(loaded, hold, at(WEEK_TICKS + 1, 0.1, "other"))
    assert len(hold) == 0
    assert fired(loaded, hold, at(WEEK_TICKS + 2)) == []


def test_a_changed_rule_starts_its_runs_anew(rules: Folder) -> None:
    hold = HoldState()
    fired(held(rules), hold, at(0))
    assert fired(held(rules), hold, at(6)) == [0]
    rules.rule(**{"for": "1m"}, title="Other words, same condition")
    assert fired(rules.load(), hold, at(7)) == [0]
    rules.rule(**{"for": "1m"}, params={"level": {"value": 0.51, "min": 0.1, "max": 1, "help": "x"}},
               tests=[{"name": "y", "given": {"regular_1h": 0.6}, "alert": True},
                      {"name": "n", "given": {"regular_1h": 0.5}, "alert": False},
                      {"name": "u", "given": {}, "alert": "unknown"}])  # fmt: skip
    assert fired(rules.load(), hold, at(8)) == []


def test_state_is_by_partition_and_survives_a_restart(rules: Folder) -> None:
    loaded = held(rules)
    hold = HoldState()
    fired(loaded, hold, at(0), at(0, 0.9, "b", 1))
    blobs = {p: hold.dump(p) for p in (0, 1, 2)}
    other = HoldState()
    for partition, blob in blobs.items():
        other.load(partition, blob)
        assert other.dump(partition) == blob
    other.drop(1)
    assert len(other) == 1
    assert fired(loaded, other, at(6), at(6, 0.9, "b", 1)) == [0]
    assert fired(loaded, hold, at(6), at(6, 0.9, "b", 1)) == [0, 1]


def test_a_blob_replaces_what_was_there(rules: Folder) -> None:
    hold = HoldState()
    fired(held(rules), hold, at(0))
    blob = hold.dump(0)
    hold.load(0, blob)
    assert len(hold) == 1


def test_bad_blobs_say_what_to_do() -> None:
    with pytest.raises(MonitorError, match="restore its checkpoint"):
        HoldState().load(3, b"nonsense")
    with pytest.raises(MonitorError, match=r"set features\.tick_s back"):
        HoldState(tick_s=1).load(3, HoldState(tick_s=10).dump(3))
    old = msgspec.msgpack.encode({"version": 0, "tick_ms": 10_000, "runs": {}})
    with pytest.raises(MonitorError, match="version 0"):
        HoldState().load(3, old)


@pytest.fixture(scope="module")
def two_minutes(tmp_path_factory: pytest.TempPathFactory) -> RuleSet:
    return held(folder(tmp_path_factory.mktemp("rules")), "2m")


ROW = st.tuples(st.integers(0, 40), st.sampled_from([0.9, 0.9, 0.1, None]), st.sampled_from("abc"), st.integers(0, 1))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=40, unique_by=lambda r: (r[0], r[2], r[3])), data=st.data())
def test_cuts_order_and_restarts_change_nothing(
    rows: list[tuple[int, float | None, str, int]], data: st.DataObject, two_minutes: RuleSet
) -> None:
    loaded = two_minutes
    ordered = sorted(rows, key=lambda row: (row[0], row[2:]))

    def run(pieces: list[list[tuple[int, float | None, str, int]]], restart: bool) -> tuple[set[Any], list[bytes]]:
        hold, found = HoldState(), set()
        for piece in pieces:
            result = loaded.evaluate(frame(*(at(*r) for r in piece)), hold).firings["row"]
            found |= {piece[i] for i in result}
            if restart:
                fresh = HoldState()
                for partition in (0, 1):
                    fresh.load(partition, hold.dump(partition))
                hold = fresh
        return found, [hold.dump(p) for p in (0, 1)]

    whole = run([ordered], False)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(ordered)), max_size=6)))
    pieces = [ordered[a:b] for a, b in zip([0, *cuts], [*cuts, len(ordered)], strict=True) if a < b]
    shuffled = [data.draw(st.permutations(p)) for p in pieces]
    assert run(shuffled, restart=data.draw(st.booleans())) == whole
    assert whole[0] == _by_hand(ordered)


def _by_hand(ordered: list[tuple[int, float | None, str, int]]) -> set[Any]:
    """Row by row, the way one would explain it."""
    since: dict[Any, int] = {}
    found = set()
    for row in ordered:
        tick, value, subject, partition = row
        if value == 0.9:
            begun = since.setdefault((subject, partition), tick)
            if (tick - begun) * 10 >= 120:
                found.add(row)
        else:
            since.pop((subject, partition), None)
    return found


def test_what_is_inactive_without_which_field(rules: Folder) -> None:
    rules.rule()
    cases = [{"name": "y", "given": {"regular_1h": 1, "template_1h": 1, "volume_1h": 9}, "alert": True},
             {"name": "n", "given": {"regular_1h": 0, "template_1h": 0, "volume_1h": 0}, "alert": False},
             {"name": "u", "given": {}, "alert": "unknown"}]  # fmt: skip
    rules.rule("timing/both.yaml", when="regular_1h > 0.5 && template_1h > 0.5", params={}, tests=cases)
    rules.rule(
        "timing/either.yaml", when="(regular_1h > 0.5 || volume_1h > 5) && volume_1h >= 0", params={}, tests=cases
    )
    loaded = rules.load()
    assert loaded.inactive({"prompt", "latency_ms"}) == {}
    assert loaded.inactive({"latency_ms"}) == {"both": ("prompt",)}
    assert loaded.inactive(()) == {"both": ("latency_ms", "prompt"), "steady": ("latency_ms",)}
    assert loaded.inactive({"prompt", "latency_ms"}, {"template_1h"}) == {"both": ("template_1h",)}
