"""The shape of what is left of a prompt without its heavy grams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from monitor.sketch import SHAPE_NAMES, HeavyGrams, Keyring, Sketcher, kernel, residual
from monitor.sketch.sketcher import TextSketches, texts_of

SKETCHER = Sketcher(Keyring.from_seed(5))


def sketch(*texts: str, heavy: HeavyGrams | None = None) -> TextSketches:
    return SKETCHER.sketch_texts(texts_of(texts), None, np.zeros(len(texts), np.int64), heavy)


def heavy_of(texts: list[str], at_least: int) -> HeavyGrams:
    made = texts_of(texts)
    assert made is not None
    rows, hashes = SKETCHER.grams(made, 0)
    assert len(set(zip(rows.tolist(), hashes.tolist(), strict=True))) == len(rows), "a gram counts once a text"
    values, counts = np.unique(hashes, return_counts=True)
    return HeavyGrams(SKETCHER.keyring.keys[0].id, values[counts >= at_least])


FRAME = "Below is a task for the helper to finish with care now: {} Reply in plain words of your own choice today"
CONTENTS = [
    "why do cats sleep so long every day?", "MAKE MY LOGO BIGGER!", "explain gravity like lectures would",
    'tell it "in quotes" then 42 times', "请写一首关于春天的诗", "x",
]  # fmt: skip


def test_residual_is_the_shape_of_the_text_without_the_wrapper() -> None:
    prompts = [FRAME.format(c) for c in CONTENTS]
    heavy = heavy_of(prompts, len(prompts))
    made, alone = sketch(*prompts, heavy=heavy), sketch(*CONTENTS)
    assert made.residual is not None
    for name in ("first_person", "second_person", "question_first", "imperative_first", "has_question"):
        j = SHAPE_NAMES.index(name)
        assert made.residual[:, j].tolist() == alone.shape[:, j].tolist(), name
    j = SHAPE_NAMES.index("log_chars")
    assert np.abs(made.residual[:-1, j].astype(int) - alone.shape[:-1, j]).max() <= 4  # a space or two more
    assert (made.residual[:, j] < made.shape[:, j]).all()
    assert made.residual_share is not None
    assert (made.residual_share < 160).all()


def test_residual_without_a_heavy_gram_is_the_shape() -> None:
    heavy = heavy_of([FRAME.format("x")] * 2, 1)
    made = sketch("nothing of this occurs in any frame at all", heavy=heavy)
    assert np.array_equal(made.residual, made.shape)
    assert made.residual_share is not None
    assert made.residual_share[0] == 255
    other_key = HeavyGrams("another", heavy.hashes)
    again = sketch(FRAME.format("x"), heavy=other_key)
    assert np.array_equal(again.residual, again.shape)


def test_residual_keeps_slots_of_a_fully_heavy_text() -> None:
    text = 'please rate the sentence "it rains a lot?" with care and 12 points'
    heavy = heavy_of([text], 1)
    made = sketch(text, heavy=heavy)
    assert made.residual is not None
    assert made.residual[0, SHAPE_NAMES.index("has_question")] == 255
    assert made.residual[0, SHAPE_NAMES.index("digit_share")] > 0
    assert made.residual[0, SHAPE_NAMES.index("politeness")] == 0


def test_a_frame_of_three_words_is_heavy_at_the_edges() -> None:
    frames = ["Summarise the review: {} and nothing else", "{} is this right", "the review asks to summarise {} ok"]
    insides = [f"{a} {b} {c}" for a, b, c in zip(WORDS, WORDS[1:], WORDS[2:], strict=False)]
    heavy = heavy_of([frames[0].format(i) for i in insides], len(insides))
    made = sketch(frames[0].format("a b c d"), frames[2].format("a b c d"), heavy=heavy)
    assert made.residual_share is not None
    # "Summarise the review" opens it and "and nothing else" closes it; in the middle of a text the words are plain
    assert made.residual_share.tolist() == [255 - round(255 * 6 / 10), 255]
    closing = heavy_of([frames[1].format(i) for i in insides], len(insides))
    assert sketch(frames[1].format("x y z"), heavy=closing).residual_share.tolist() == [255 - round(255 / 2)]  # type: ignore[union-attr]


WORDS = ["lime", "coal", "reed", "moss", "iron", "salt", "clay", "pine", "fern", "rust", "silk", "jade"]


def test_room_for_covered_words_is_that_of_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece of fewer rows than there is room for once wrote past its array; Python checks what a kernel does not."""
    real = residual.strip_heavy

    def checked(*args: Any) -> tuple[int, int]:
        n, covered = args[6], args[9]
        assert n <= len(covered)
        return real(*args)

    monkeypatch.setattr(residual, "strip_heavy", checked)
    monkeypatch.setattr(kernel, "strip_rows", residual.strip_rows.py_func)  # type: ignore[attr-defined]
    monkeypatch.setattr(kernel, "PIECE_BYTES", 400)
    frame = "please do keep the following words in mind {} and answer in one line"
    prompts = [frame.format(" ".join(WORDS[i % 9 : i % 9 + 3])) for i in range(20)]
    heavy = heavy_of(prompts, 20)
    made = sketch(*prompts, heavy=heavy)
    assert made.residual_share is not None
    assert np.unique(made.residual_share).tolist() == [255 - round(255 * 13 / 16)]
