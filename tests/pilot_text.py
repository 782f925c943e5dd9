"""Prompts of people, pipelines and instruction sets from invented words, as frames of the pilot's protocol."""

from __future__ import annotations

import numpy as np
import polars as pl

OPENINGS = ("how", "what", "why", "can", "", "", "", "tell", "the")
SAID = ("i", "my", "you", "please", "we")
COMMANDS = ("write", "explain", "describe", "list", "create", "generate", "name", "summarize", "compare", "design")


def _words(rng: np.random.Generator, n: int) -> str:
    letters = np.array(list("bcdfghklmnprstvz")), np.array(list("aeiou"))
    out = []
    for _ in range(n):
        size = int(rng.integers(2, 5))
        pairs = zip(rng.choice(letters[0], size), rng.choice(letters[1], size), strict=True)
        out.append("".join(a + b for a, b in pairs))
    return " ".join(out)


def _frame(kind: str, prompts: list[str], **columns: object) -> pl.DataFrame:
    return pl.DataFrame({"kind": [kind] * len(prompts), "prompt": prompts, **columns})


def frames(seed: int, people: int = 1000, each: int = 40) -> list[tuple[str, pl.DataFrame]]:
    """People in sessions, people alone, 24 pipelines of 8 data sets, and three sets of instructions."""
    rng = np.random.default_rng(seed)

    def said() -> str:
        # no three words at either end that others share, or every prompt would be a template's
        middle = " ".join(word for word in SAID if rng.random() < 0.3)
        opening, more = OPENINGS[int(rng.integers(len(OPENINGS)))], _words(rng, int(rng.integers(3, 40)))
        return f"{opening} {_words(rng, 2)} {middle} {more}{'?' if rng.random() < 0.4 else ''}".strip()

    def told(tail: str) -> str:
        command = COMMANDS[int(rng.integers(len(COMMANDS)))].capitalize()
        return f"{command} {_words(rng, int(rng.integers(6, 12)))}{tail}"

    session = np.cumsum(rng.random(people) < 0.4)
    turn = np.arange(people) - np.searchsorted(session, session)
    pipelines, groups = [], []
    for k in range(24):
        frame = f"{_words(rng, 6)}: {{}} {_words(rng, 5)}"
        pipelines += [frame.format(_words(rng, int(rng.integers(5, 15)))) for _ in range(each)]
        groups += [f"d{k % 8}_{k}"] * each
    ids = [f"s{s}" for s in session]
    return [
        ("sessions", _frame("benign_human", [said() for _ in range(people)], session_id=ids, turn=turn)),
        ("people", _frame("benign_human", [said() for _ in range(people)])),
        ("pipelines", _frame("benign_app_pipeline", pipelines, group=groups)),
        ("first", _frame("distill", [told(".") for _ in range(700)])),
        ("second", _frame("distill", [told("") for _ in range(700)])),
        ("sweep", _frame("sweep", [f"the following is a question about {w}: {_words(rng, 9)} answer:"
                                   for w in ("law", "art") for _ in range(350)], group=["law"] * 350 + ["art"] * 350)),
    ]  # fmt: skip
