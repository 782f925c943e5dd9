"""However the rows are cut into calls, and wherever the process dies between two: the same alerts, byte for byte."""

from __future__ import annotations

import itertools

import msgspec
from alert_rows import RULES, SUBJECTS, TICK_MS, Row, frames, history, part, watched
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.records import Alert

cuts = st.lists(st.integers(1, 500), max_size=8)


def play(rows: list[Row], bounds: list[int], *, restore: bool, mute_ms: int, closing: bool = True) -> tuple[
    list[Alert], dict[int, bytes]
]:  # fmt: skip
    """Run ``rows`` in calls that end at the ticks ``bounds``; with ``restore``, through a new process each time."""
    s = watched()
    partitions = sorted({part(subject) for subject in SUBJECTS})
    for partition in partitions:
        s.mute(partition, mute_ms)
    out: list[Alert] = []
    begin = 0
    for end in [*sorted(set(bounds)), 501]:
        here = [r for r in rows if begin <= r[1] < end]
        watermarks = dict.fromkeys(partitions, end * TICK_MS) if closing or end == 501 else None
        out += s.decide(*frames(here), watermarks)
        begin = end
        if restore:
            again = watched()
            for partition in partitions:
                again.load(partition, s.dump(partition))
            s = again
    return out, {p: s.dump(p) for p in partitions}


@settings(max_examples=150, deadline=None)
@given(rows=history, bounds=cuts, restore=st.booleans(), mute_ms=st.sampled_from([0, 0, 1_200_000]))
def test_cuts_and_restarts_change_nothing(rows: list[Row], bounds: list[int], restore: bool, mute_ms: int) -> None:
    whole, state = play(rows, [], restore=False, mute_ms=mute_ms)
    cut, state_cut = play(rows, bounds, restore=restore, mute_ms=mute_ms)
    assert msgspec.json.encode(cut) == msgspec.json.encode(whole)
    assert state_cut == state


@settings(max_examples=60, deadline=None)
@given(rows=history, bounds=cuts)
def test_when_the_watermark_is_told_changes_no_alert(rows: list[Row], bounds: list[int]) -> None:
    told, state = play(rows, bounds, restore=False, mute_ms=0)
    late, state_late = play(rows, bounds, restore=False, mute_ms=0, closing=False)
    assert sorted(map(msgspec.json.encode, late)) == sorted(map(msgspec.json.encode, told))
    assert state_late == state


@settings(max_examples=60, deadline=None)
@given(rows=history, at=st.integers(1, 499))
def test_a_replay_from_a_checkpoint_makes_the_same_ids_and_revisions(rows: list[Row], at: int) -> None:
    whole, _ = play(rows, [], restore=False, mute_ms=0)
    partitions = sorted({part(subject) for subject in SUBJECTS})
    s = watched()
    first = s.decide(*frames([r for r in rows if r[1] < at]), dict.fromkeys(partitions, at * TICK_MS))
    saved = {p: s.dump(p) for p in partitions}
    lost = s.decide(*frames([r for r in rows if r[1] >= at]), dict.fromkeys(partitions, 501 * TICK_MS))
    again = watched()
    for p, blob in saved.items():
        again.load(p, blob)
    replayed = again.decide(*frames([r for r in rows if r[1] >= at]), dict.fromkeys(partitions, 501 * TICK_MS))
    assert replayed == lost
    assert first + replayed == whole


@settings(max_examples=100, deadline=None)
@given(rows=history)
def test_every_episode_is_a_proper_story(rows: list[Row]) -> None:
    alerts, _ = play(rows, [], restore=False, mute_ms=0)
    by_id: dict[str, list[Alert]] = {}
    for alert in alerts:
        by_id.setdefault(alert.alert_id, []).append(alert)
    fired = {(s, t, RULES[r].mode) for s, t, rules in rows for r in rules}
    assert {(a.subject, int(a.window["start"]) // 10, a.mode) for a in alerts} <= fired
    for story in by_id.values():
        assert [a.revision for a in story] == list(range(1, len(story) + 1))
        assert [a.revised_at for a in story] == sorted(a.revised_at for a in story)
        assert all(a.state == "open" for a in story[:-1])
        assert all(set(a.rules) <= set(b.rules) for a, b in itertools.pairwise(story))
    covered = {
        (a.subject, t, a.mode)
        for a in alerts
        for t in range(int(a.window["start"]) // 10, int(a.window["end"]) // 10)
    }  # fmt: skip
    still_open = {s for s, t, _ in fired if t >= 500 - 130}
    assert {f for f in fired if f[0] not in still_open} <= covered, "every firing lies in an episode that closed"
