"""The tick stage: a function of record order in each partition, however the stream is cut, moved or disturbed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tick_events import (
    DAY,
    HOUR,
    OPTIONS,
    T0,
    Event,
    check_accounting,
    check_late,
    check_moves,
    check_oracle,
    check_splits,
    fast,
    frame,
    play,
)

ABSURD = [0, 1, T0 - 400 * DAY, T0 + 30 * DAY, T0 + 365 * DAY, 4_102_444_800_000]
step = st.one_of(
    st.integers(0, 3_000), st.integers(0, 120_000), st.just(0), st.integers(-90_000, 0),
    st.integers(-3 * HOUR, 3 * HOUR), st.integers(-10 * DAY, 2 * DAY),
)  # fmt: skip
drawn = st.tuples(
    st.sampled_from([0, 0, 0, 1, 4]),
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.one_of(step, step, step, step, step, step, st.sampled_from(ABSURD).map(lambda t: (t,))),
    st.integers(0, 8),
    st.sampled_from([0, 0, 0, 1]),
    st.booleans(),
)


def _stream(rows: list[tuple[int, str, object, int, int, bool]]) -> list[Event]:
    """Times by steps from the partition's last ordinary one; a tuple is an absurd time, true repeats a record."""
    now: dict[int, int] = {}
    made: list[Event] = []
    for partition, account, when, request, content, repeat in rows:
        if repeat and made and request < 3:
            made.append(made[-1 - (request % len(made))])
            continue
        if isinstance(when, tuple):
            t_ms = int(when[0])
        else:
            t_ms = max(now.get(partition, T0) + int(str(when)), 0)
            now[partition] = max(now.get(partition, T0), t_ms) if int(str(when)) < 2 * HOUR else t_ms
        made.append(Event(partition, account, t_ms, request, content))
    return made


streams = st.lists(drawn, min_size=1, max_size=70).map(_stream)
cuts = st.lists(st.integers(1, 70), max_size=8)


@settings(max_examples=150, deadline=None)
@given(events=streams, cuts=cuts)
def test_polls_change_nothing(events: list[Event], cuts: list[int]) -> None:
    check_splits(events, cuts)
    check_splits(events, range(len(events)))


@settings(max_examples=200, deadline=None)
@given(events=streams, cuts=cuts)
def test_equals_the_slow_one(events: list[Event], cuts: list[int]) -> None:
    check_oracle(events, cuts)


@settings(max_examples=60, deadline=None)
@given(events=streams, cuts=cuts)
def test_every_record_is_accounted_for(events: list[Event], cuts: list[int]) -> None:
    check_accounting(events, cuts)


@settings(max_examples=100, deadline=None)
@given(events=streams, cuts=cuts, moves=st.sets(st.integers(0, 8), min_size=1))
def test_dumps_at_any_point_change_nothing(events: list[Event], cuts: list[int], moves: set[int]) -> None:
    check_moves(events, cuts, moves)


@settings(max_examples=40, deadline=None)
@given(events=streams)
def test_the_watermark_never_falls(events: list[Event]) -> None:
    stage, last = fast(), {}
    for i, event in enumerate(events):
        stage.push(frame([event], i))
        for partition, ms in stage.watermarks_ms.items():
            assert ms >= last.get(partition, ms)
            last[partition] = ms


def test_a_late_event_folds_in_and_only_a_week_is_too_late() -> None:
    check_late()


def test_partitions_do_not_hear_each_other() -> None:
    one = [Event(0, f"a{i % 5}", T0 + i * 5_000, i) for i in range(200)]
    other = [Event(1, f"b{i % 5}", T0 - 3 * DAY + i * 7_000, i) for i in range(200)]
    both = [e for pair in zip(one, other, strict=True) for e in pair]
    got = play(both, range(0, 400, 7))
    for p, alone in ((0, play(one)), (1, play(other))):
        ticks = {key: [t for t, _ in rows] for key, rows in got.by_account().items() if key[0] == p}
        assert ticks == {(p, a): [t for t, _ in rows] for (_, a), rows in alone.by_account().items()}
        assert got.watermarks[p] == next(iter(alone.watermarks.values()))


def _ordinary(n: int, start: int = T0) -> list[Event]:
    return [Event(0, f"a{i % 6}", start + i * 2_000, 1_000 + i) for i in range(n)]


@pytest.mark.parametrize("absurd", ABSURD[3:])
def test_one_absurd_record_moves_nothing(absurd: int) -> None:
    plain = _ordinary(300)
    odd = [*plain[:150], Event(0, "x", absurd, 1), *plain[150:]]
    assert play(odd).watermarks == play(plain).watermarks
    assert play(odd).counts["late"] == play(plain).counts["late"] == 0


def test_absurd_records_of_one_account_or_of_different_years_do_not_add_up() -> None:
    plain = _ordinary(4_000)
    odd = list(plain)
    for i in range(40):
        odd.insert(100 * i + 50, Event(0, f"x{i}", T0 + (30 + 3 * i) * DAY, i))
        odd.insert(100 * i + 60, Event(0, "y", T0 + 900 * DAY, 100 + i))
    assert play(odd).watermarks == play(plain).watermarks


def test_absurd_records_that_stay_hours_apart_do_not_add_up() -> None:
    """Three accounts must agree while the clock goes on by an hour, not within the life of a partition."""
    plain = [Event(0, f"a{i % 6}", T0 + i * 60_000, i) for i in range(600)]
    odd = list(plain)
    for i in range(4):
        odd.insert(50 + i * 130, Event(0, f"x{i}", T0 + 90 * DAY, 9_000 + i))
    assert play(odd).watermarks == play(plain).watermarks


def test_three_accounts_agreeing_move_it_and_so_does_a_run_of_one() -> None:
    plain = _ordinary(50)
    later = T0 + 2 * DAY
    three = [Event(0, f"a{i}", later + i * 1_000, 5_000 + i) for i in range(3)]
    assert play([*plain, *three[:2]]).watermarks == play(plain).watermarks
    assert play([*plain, *three]).watermarks == {0: later + 2_000 - OPTIONS.lateness_ms}
    run = [Event(0, "a1", later + i * 1_000, 5_000 + i) for i in range(8)]
    assert play([*plain, *run[:7]]).watermarks == play(plain).watermarks
    assert play([*plain, *run]).watermarks == {0: later + 7_000 - OPTIONS.lateness_ms}


def test_an_absurd_one_among_those_that_agree_stays_behind() -> None:
    later = T0 + 2 * DAY
    mixed = [Event(0, "x", T0 + 900 * DAY, 1), *(Event(0, f"a{i}", later + i, 10 + i) for i in range(3))]
    assert play([*_ordinary(50), *mixed]).watermarks == {0: later + 2 - OPTIONS.lateness_ms}


def test_the_brokers_own_time_needs_no_agreement() -> None:
    events = [*_ordinary(20), Event(0, "a0", T0 + 5 * DAY, 1)]
    assert play(events, trusted=True).watermarks == {0: T0 + 5 * DAY - OPTIONS.lateness_ms}


def test_a_watermark_in_1970_forgets_what_came_before_it() -> None:
    """Hypothesis found it: eight of one account in a row are believed, and the earliest of them is of 1970."""
    usual, absurd = Event(0, "a", T0, 0, 0), Event(0, "a", 0, 0, 0)
    others = [Event(0, "b", T0, 0, 0), absurd, Event(0, "c", T0, 0, 0)]
    check_oracle([usual, usual, usual, absurd, usual, usual, usual, *others])


def test_sparse_traffic_goes_on() -> None:
    """One account that calls every two hours is beyond the jump each time: its ticks still close."""
    events = [Event(0, "a", T0 + i * 2 * HOUR, i) for i in range(60)]
    got = play(events)
    assert got.waiting <= 8
    assert got.counts["late"] == got.counts["dropped"] == 0


def test_an_empty_partition_moves_without_inventing_an_event() -> None:
    stage, again = fast(), fast()
    stage.push(frame(_ordinary(20)))
    stage.flush()
    again.load(0, stage.dump(0))
    assert again.waiting == 0
    assert again.watermarks_ms == stage.watermarks_ms
    assert len(again.flush()) == 0


def test_a_dropped_partition_begins_afresh() -> None:
    stage = fast()
    stage.push(frame(_ordinary(20)))
    stage.drop(0)
    assert (stage.waiting, stage.watermarks_ms) == (0, {})
    _, stats = stage.push(frame(_ordinary(20)))
    assert stats.duplicates == 0
