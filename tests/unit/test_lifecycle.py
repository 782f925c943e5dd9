"""A case moves only where it can, and its incident id survives a telephone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import MonitorError
from monitor.lifecycle import (
    CASE_STATES,
    MOVES,
    VERDICTS,
    CaseEvent,
    incident,
    move,
    read_incident,
    state_of,
    verdict_of,
)


def events(*states: str) -> list[CaseEvent]:
    return [
        CaseEvent(state=s, at=float(i), by="mia", why="because", revision=1, severity="medium")
        for i, s in enumerate(states)
    ]


def test_every_state_is_reached_and_left() -> None:
    assert set(MOVES) == set(CASE_STATES)
    assert {target for targets in MOVES.values() for target in targets} == set(CASE_STATES) - {"open"}
    assert all(MOVES.values())


@pytest.mark.parametrize("before", [s for s in CASE_STATES if s != "open"])
def test_what_is_not_possible_says_what_is(before: str) -> None:
    for after in CASE_STATES:
        if after in MOVES[before]:
            move(events(before), after, by="mia", why="because", at=5.0)
        else:
            with pytest.raises(MonitorError, match=f"the case is {before}: it can become {MOVES[before][0]}"):
                move(events(before), after, by="mia", why="because", at=5.0)


def test_a_decision_has_a_name_a_reason_and_a_later_time() -> None:
    for change in ({"by": " "}, {"why": ""}, {"why": "x" * 2_001}, {"at": -1.0}):
        with pytest.raises(MonitorError):
            move(events("acknowledged"), "confirmed", **{"by": "mia", "why": "because", "at": 1.0, **change})


def test_an_appeal_suspends_the_verdict_and_closing_keeps_it() -> None:
    assert verdict_of(events("acknowledged")) is None
    for word in VERDICTS:
        assert verdict_of(events(word)) == events(word)[0]
    assert verdict_of(events("confirmed", "appealed")) is None
    overturned = verdict_of(events("confirmed", "appealed", "false_positive", "closed"))
    assert overturned is not None
    assert overturned.state == "false_positive"
    assert state_of([]) == "open"


@given(st.text())
def test_an_incident_id_is_read_back_however_it_was_written_down(name: str) -> None:
    made = incident(name)
    assert incident(name) == made
    for heard in (made, made.lower(), made.replace("-", " "), made.replace("0", "O").replace("1", "l")):
        assert read_incident(heard) == made


@pytest.mark.parametrize("text", ["", "a-17", "INC", "INC-1234", "INC-1234-56789", "0" * 32, "INC-UUUU-UUUU"])
def test_what_is_no_incident_id(text: str) -> None:
    assert read_incident(text) is None
