"""What the stage skips because an open episode has said it already changes no alert and no byte of its state."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import polars as pl
import pytest
from alert_rows import POLICY, RULES, SUBJECTS, TICK_MS, Row, frames, part, watched
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.alerts import AlertStage
from monitor.alerts.standing import Agenda, Firings, Standing
from monitor.records import Alert, Policy

OTHER = {
    **RULES,
    "timing.metronome": replace(RULES["timing.metronome"], severity="low", cooldown_s=60),
    "volume.flood": replace(RULES["volume.flood"], mode="shadow", evidence=("requests_1h", "template_24h")),
}
STRICT = replace(POLICY, volume_cap="info")
BOOKS: list[tuple[Policy, dict[str, object]]] = [(POLICY, {**RULES}), (STRICT, {**OTHER}), (STRICT, {**RULES})]
LAST = 150
Turns = list[tuple[int, int]]
turns_of = st.lists(st.tuples(st.integers(1, LAST), st.integers(0, len(BOOKS) - 1)), max_size=4)
often = st.sampled_from([(), ("volume.flood",), ("timing.metronome",), ("timing.metronome", "volume.flood")])
"""So few kinds, and so many rows in the 900 s before growth alone is told, that most are skipped."""
dense = st.lists(
    st.tuples(st.sampled_from(["a-1", "a-1", "b-10"]), st.integers(0, LAST), often),
    min_size=20, max_size=80, unique_by=lambda r: r[:2],
)  # fmt: skip


def with_nulls(frame: pl.DataFrame, gaps: int) -> pl.DataFrame:
    """Some values not known in some ticks."""
    ticks = pl.col("tick") % (gaps + 1)
    return frame.with_columns(
        pl.when(ticks != 1).then("regularity_1h").alias("regularity_1h"),
        pl.when(ticks != 2).then("template_24h").alias("template_24h"),
    )


def play(s: AlertStage, rows: list[Row], turns: Turns, mute_ms: int, gaps: int) -> tuple[list[Alert], list[bytes]]:
    """Rows in calls that end at the ticks of ``turns``, each followed by another rulebook and a mute."""
    partitions = sorted({part(subject) for subject in SUBJECTS})
    for partition in partitions:
        s.mute(partition, mute_ms)
    out, states, begin = [], [], 0
    for end, book in [*sorted(turns), (501, 0)]:
        frame, firings = frames([r for r in rows if begin <= r[1] < end])
        out += s.decide(with_nulls(frame, gaps), firings, dict.fromkeys(partitions, end * TICK_MS))
        policy, rules = BOOKS[book]
        s.use(policy, rules, {"monitor": str(book)})  # type: ignore[arg-type]  # a dict of rules is one of detections
        states += [s.dump(p) for p in partitions]
        begin = end
    return out, states


@settings(max_examples=300, deadline=None)
@given(rows=dense, turns=turns_of, mute_ms=st.sampled_from([0, 0, 1_200_000]), gaps=st.integers(0, 4))
def test_what_was_said_is_skipped_and_nothing_else(rows: list[Row], turns: Turns, mute_ms: int, gaps: int) -> None:
    skipping = play(watched(), rows, turns, mute_ms, gaps)
    with (
        mock.patch.object(Standing, "is_old", return_value=False),
        mock.patch.object(Agenda, "note", lambda self, standing, due_ms: self._heap.append((0, 0, standing))),
        mock.patch.object(Agenda, "take", lambda self, by_ms: [s for *_, s in self._heap]),
    ):
        assert play(watched(), rows, turns, mute_ms, gaps) == skipping


def test_a_firing_that_was_said_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    note = AlertStage._note
    monkeypatch.setattr(AlertStage, "_note", lambda *given: (looked.append(1), note(*given))[1])
    rows: list[Row] = [("a-1", tick, ["volume.flood"]) for tick in range(200)]
    alerts = watched().decide(*frames(rows))
    # written once, and again when 900 s had passed: each time the first of its kind, and the one that was due
    assert [a.revision for a in alerts] == [1, 2, 3]
    assert len(looked) < 20


@settings(max_examples=100, deadline=None)
@given(rows=dense, gaps=st.integers(0, 4))
def test_a_firing_knows_what_its_row_knows(rows: list[Row], gaps: int) -> None:
    columns = ["never_there", "regularity_1h", "template_24h", "total_reasoning_tokens"]
    frame, firings = frames(rows)
    frame = with_nulls(frame, gaps)
    found = Firings({name: rule.mode for name, rule in RULES.items()}, columns).of(frame, firings)
    assert len(set(map(id, found.values()))) == len({(f.known, str(f.rules)) for f in found.values()})
    told: dict[int, list[str]] = {}
    for at, rule in firings.iter_rows():
        told.setdefault(at, []).append(rule)
    assert found.keys() == told.keys()
    for at, firing in found.items():
        row = frame.row(at, named=True)
        assert firing.known == {name for name in columns if row.get(name) is not None}
        assert firing.rules["alert"] == tuple(sorted(told[at]))


def test_an_episode_closes_when_the_rules_of_now_say_so_and_not_when_those_before_did() -> None:
    s = watched()
    s.decide(*frames([("a-1", 1, ["timing.metronome"])]))  # of 600 s
    s.use(POLICY, {**OTHER}, {})  # of 60 s
    s.decide(*frames([("a-1", 5, ["timing.metronome"])]))
    assert not s.advance(part("a-1"), 110_000)
    (closed,) = s.advance(part("a-1"), 120_000)
    assert closed.state == "closed"
