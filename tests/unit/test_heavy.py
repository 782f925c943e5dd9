"""Heavy grams as the stream goes: what is stripped when, through polls, restarts and bad clocks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.decode import DecodeOptions, decode
from monitor.records import RawBatch
from monitor.sketch import SHAPE_NAMES, Key, Keyring, Sketcher
from monitor.sketch.frame import sketch_frame
from monitor.sketch.heavy import LEAST, MOST_TEXTS, ONE_IN, SIZE, GramCounter, HeavyStage, count_rows
from monitor.sketch.kernel import Words
from monitor.sketch.sketcher import texts_of

HOUR = 3_600
T = 1_750_000_000 // HOUR * HOUR
RING = Keyring.from_seed(1)
SKETCHER = Sketcher(RING)
FRAME = "Below is a task for the helper to finish with care now: {} Reply in plain words of your own choice today"
WORDS = [f"w{a}{b}x" for a in "abcdefghij" for b in "klmnopqrst"]


def event(i: int, t: float, prompt: str, account: str | None = None) -> dict[str, Any]:
    return {"ts": t, "request_id": f"r{i}", "account_id": account or f"a{i % 40}", "model": "m", "input_tokens": 1,
            "output_tokens": 1, "status": 200, "prompt": prompt}  # fmt: skip


def log(hours: int = 4, rows: int = 600, seed: int = 1) -> list[dict[str, Any]]:
    """A third of the prompts in one frame, the others of words at random; times late by up to a minute."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(hours * rows):
        words = " ".join(rng.choice(WORDS, 12))
        prompt = FRAME.format(words) if i % 3 == 0 else words
        made.append(event(i, T + 61 + i * HOUR / rows - float(rng.random()) * 60, prompt))
    return made


def sketches(
    events: Sequence[dict[str, Any]], stage: HeavyStage, first: int = 0, partitions: int = 2, commit: bool = True
) -> pl.DataFrame:
    n = len(events)
    values: list[bytes | None] = [json.dumps(e).encode() for e in events]
    place = np.array([int(e["request_id"][1:]) % partitions for e in events], np.int32)
    raw = RawBatch(values, place, np.arange(first, first + n), np.full(n, -1, np.int64), {})
    made, _ = sketch_frame(decode(raw, DecodeOptions(b"digest")).frame, stage.sketcher, stage)
    if commit:
        stage.commit(stage.planned())
    return made.select("offset", "shape", "residual", "residual_share")


def stage(sketcher: Sketcher = SKETCHER) -> HeavyStage:
    return HeavyStage(sketcher, HOUR * 1000)


@pytest.fixture(scope="module")
def whole() -> pl.DataFrame:
    return sketches(log(), stage())


def test_a_frame_is_stripped_from_the_second_epoch_on(whole: pl.DataFrame) -> None:
    events = log()
    rows = len(events) // 4
    assert whole["residual"][: rows - 20].null_count() == rows - 20
    later = whole[rows + 20 :]
    assert later["residual"].null_count() == 0
    framed = pl.Series([i % 3 == 0 for i in range(rows + 20, len(events))])
    stripped, plain = later.filter(framed), later.filter(~framed)
    assert (plain["residual_share"] == 255).all()
    assert plain["residual"].equals(plain["shape"])
    assert (stripped["residual_share"] < 160).all()
    bare = SKETCHER.sketch_texts(texts_of([" ".join(WORDS[:12])]), None, np.zeros(1, np.int64)).shape
    at = SHAPE_NAMES.index("log_chars")
    assert abs(int(stripped["residual"][0][at]) - int(bare[0, at])) <= 3
    assert stripped["residual"][0][SHAPE_NAMES.index("second_person")] == 0 != stripped["shape"][0][
        SHAPE_NAMES.index("second_person")
    ]  # fmt: skip


def in_polls(events: Sequence[dict[str, Any]], cuts: Iterable[int], restarts: frozenset[int]) -> pl.DataFrame:
    one, parts, begin = stage(), [], 0
    for number, end in enumerate([*sorted({c for c in cuts if 0 < c < len(events)}), len(events)]):
        parts.append(sketches(events[begin:end], one, begin))
        begin = end
        if number in restarts:
            blobs = {p: one.dump(p) for p in (0, 1)}
            one = stage()
            for p, blob in blobs.items():
                one.load(p, blob)
    return pl.concat(parts)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(0, 2400), max_size=12), st.frozensets(st.integers(0, 6)))
def test_polls_and_restarts_change_nothing(whole: pl.DataFrame, cuts: list[int], restarts: frozenset[int]) -> None:
    assert in_polls(log(), cuts, restarts).equals(whole, null_equal=True)


def test_partitions_do_not_touch_each_other(whole: pl.DataFrame) -> None:
    events = log()
    apart = [sketches([e for i, e in enumerate(events) if i % 2 == p], stage()) for p in (0, 1)]
    for p in (0, 1):
        assert apart[p].drop("offset").equals(whole.drop("offset")[p::2], null_equal=True)


def test_a_checkpoint_holds_what_was_taken_in() -> None:
    events = log(2)
    one, two = stage(), stage()
    for s in (one, two):
        sketches(events[:700], s)
    before = two.dump(0)
    ahead = sketches(events[700:], two, commit=False)
    assert two.dump(0) == before == one.dump(0)
    two.commit(two.planned())
    assert two.dump(0) != before
    assert ahead.equals(sketches(events[700:], one), null_equal=True)
    two.drop(0)
    assert two.dump(0) == stage().dump(0)


def test_a_batch_that_is_never_taken_in_leaves_nothing_behind() -> None:
    """An idle poll is prepared and taken in nowhere: there are tens of thousands in an hour."""
    events = log(2)
    one, two = stage(), stage()
    for begin in range(0, len(events), 100):
        for s in (one, two):
            sketches(events[begin : begin + 100], s)
        sketches([], two, commit=False)
    assert two.dump(0) == one.dump(0), "what was taken in last is what a checkpoint writes"


def epochs(times: Sequence[float], accounts: Sequence[str]) -> list[int]:
    """Hours from T that one partition believes in at each record."""
    one, believed = stage(), []
    for i, (t, account) in enumerate(zip(times, accounts, strict=True)):
        sketches([event(2 * i, t, "x", account)], one)
        believed.append(one._done[0].epoch - T // HOUR)
    return believed


def test_one_account_and_one_absurd_record_move_nothing() -> None:
    far = T + 400 * 86_400
    assert epochs([T, far, T + 60, far, T + 120], ["a", "b", "a", "b", "a"]) == [0] * 5
    assert epochs([T, T + HOUR, T + HOUR, T + HOUR], ["a", "a", "b", "c"]) == [0, 0, 0, 1]
    assert epochs([T] + [T + HOUR] * 9, ["a"] * 10)[-3:] == [0, 1, 1]
    assert epochs([T, far, *[T + HOUR + i for i in range(3)]], ["a", "b", "c", "d", "e"]) == [0, 0, 0, 1, 1]
    assert epochs([far, T, T + 1, T + 2], ["a", "b", "c", "d"])[-1] == 0


def test_heavy_is_found_among_far_more_grams_than_there_is_room_for() -> None:
    rng = np.random.default_rng(5)
    counter = GramCounter(epoch=0, key_id=RING.keys[0].id)
    total = 0
    # an array: of a list of 28,561 words choice would make one for each prompt, 2 ms
    vocabulary = np.array(["".join(w) for w in product("abcdefghijklm", repeat=4)])
    while counter.numbers[2] < MOST_TEXTS:
        prompts = [
            " ".join(rng.choice(vocabulary, 150))
            + (" this very line is in every fortieth prompt of all" if rng.random() < 1 / 40 else "")
            for _ in range(1_000)
        ]  # fmt: skip
        texts = texts_of(prompts)
        assert texts is not None
        words, keys = Words(len(prompts)), SKETCHER.text_keys(0)
        words.scan(texts.data, texts.offsets, texts.valid, keys)
        count_rows(
            texts.valid, keys, words.w_hash, words.w_at, words.m_hash, words.m_at, words.counts, counter.keys,
            counter.counts, np.full(SIZE, -1, np.int64), counter.numbers, MOST_TEXTS,
        )  # fmt: skip
        total += sum(len(p.split()) - 3 for p in prompts)
    line = texts_of(["this very line is in every fortieth prompt of all"])
    assert line is not None
    assert total > 10 * SIZE
    assert counter.numbers[0] <= SIZE * 3 // 4 + 1
    heavy, whole = set(counter.heavy().tolist()), set(SKETCHER.grams(line, 0)[1].tolist())
    # the line closes its prompts and opens none: of its own two edges it is heavy with the last alone
    assert heavy < whole
    assert len(whole - heavy) == 1


def test_a_gram_counts_once_a_prompt() -> None:
    events = [event(i, T + i, "one two three four five " * 50) for i in range(4 * LEAST * ONE_IN)]
    one = stage()
    sketches(events, one)
    counts = [int(one._done[p].counts.max()) for p in (0, 1)]
    texts = [int(one._done[p].numbers[2]) for p in (0, 1)]
    assert counts == texts
    assert 0 < min(texts) < len(events) / 4


def test_null_for_sketches_and_after_a_change_of_keys() -> None:
    late = Key("k2", b"2" * 32, (T + 2 * HOUR) * 1000)
    ring = Keyring([Key("k1", b"1" * 32), late], overlap_ms=0)
    events = log(4, 300)
    made = sketches(events, stage(Sketcher(ring)), partitions=1)
    at = [made["residual"][hour * 300 + 30 : hour * 300 + 270].null_count() for hour in range(4)]
    assert at == [240, 0, 240, 0]
    one = stage()
    sketches(events[:600], one)
    told = SKETCHER.sketch_many(events[600:])
    assert sketches(told, one)["residual"].null_count() == len(told)
