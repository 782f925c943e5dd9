"""Signatures of generator families: what they hold on, what they leave alone, users' own, and the wire."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monitor import wiring
from monitor.decode import DecodeOptions, decode
from monitor.errors import BadInput
from monitor.records import RawBatch
from monitor.settings import CorporaSettings, Settings
from monitor.sketch import Generators, Keyring, Sketcher, read_generators
from monitor.sketch.frame import sketch_frame
from monitor.sketch.generators import OWN_BITS, builtin
from monitor.sketch.sketcher import texts_of

RING = Keyring.from_seed(1)
SKETCHER = Sketcher(RING)


def families(*texts: str, system: str | None = None, sketcher: Sketcher = SKETCHER) -> list[set[str]]:
    slots = np.zeros(len(texts), np.int64)
    made = sketcher.sketch_texts(texts_of(texts), texts_of([system] * len(texts)), slots)
    assert (made.lexicon < 1 << 16).all()
    return [{name for bit, name in sketcher.generators.names.items() if g >> bit & 1} for g in made.generator.tolist()]


@pytest.mark.parametrize(("text", "family"), [
    ("Come up with a series of tasks:\nTask 1: count the boats", "self_instruct"),
    ("We need 30 new ones. Try not to repeat the verb for each instruction.", "self_instruct"),
    ("Act as a prompt rewriter. Your text can only add 10 to 20 words.", "evol_instruct"),
    ("Draw inspiration from the given prompt and write a rarer one.", "evol_instruct"),
    ("Score the answer by the rubric below from 1 to 5. Respond with only a number.", "rubric_grading"),
    ("Write down your complete internal reasoning inside think tags, then the final answer.", "trace_elicitation"),
    ("请你生成一系列多样的任务，每条指令尽量不要重复动词。", "self_instruct"),
])  # fmt: skip
def test_a_signature_holds(text: str, family: str) -> None:
    assert family in families(text)[0]
    assert family in families(text.upper())[0]
    assert family in families("ordinary question", system=text)[0]


def test_half_a_signature_and_everyday_prompts_do_not() -> None:
    everyday = [
        "Can you give me a list of tasks for moving house?", "Grade this essay for me please, and explain why.",
        "Think step by step: what is 17 times 3?", "Rewrite this mail so that it sounds friendlier.",
        "How do I write a rubric for my students?", "Return the answer as JSON only.", "",
        "Show me your complete internal reasoning.",
    ]  # fmt: skip
    assert families(*everyday) == [set()] * len(everyday)


def test_the_flags_of_the_lexicon_stay_what_they_were() -> None:
    texts = texts_of(["Score the answer by the rubric below from 1 to 5. Respond with only a number."])
    slots = np.zeros(1, np.int64)
    without = Sketcher(RING, generators=Generators(()))
    assert SKETCHER.sketch_texts(texts, None, slots).lexicon == without.sketch_texts(texts, None, slots).lexicon != 0


OWN = """\
name: question_mill
bit: 8
group:
  - phrases:
      en: ["(mill|grind) (a |the |)question"]
      de: ["mahle eine frage"]
  - flags: [json_only, multiple_choice]
"""


def test_a_users_family_by_settings(tmp_path: Path) -> None:
    (tmp_path / "mill.yaml").write_text(OWN)
    settings = Settings(corpora=CorporaSettings(generators=tmp_path))
    sketcher = wiring.sketcher(settings, RING)
    assert sketcher.generators.names[8] == "question_mill"
    texts = ("Mill a question. Answer only in JSON.", "mill the question", "Mahle eine Frage!\nA. x\nB. y\nC. z")
    assert families(*texts, sketcher=sketcher) == [{"question_mill"}, set(), {"question_mill"}]
    pipeline = wiring.pipeline(settings, keys=RING, rules=wiring.load(settings))
    assert pipeline.versions["generators"] == sketcher.generators.versions["generators"]
    assert builtin().versions == {}


@pytest.mark.parametrize("change", [
    ("bit: 8", "bit: 3"), ("bit: 8", "bit: 24"), ("bit: 8", "bit: eight"), ("question_mill", "a b"),
    ("json_only", "jsn"), ("group:", "groups:"), ("(mill|", "((mill|"), ("mahle eine frage", ""),
    ("name:", "extra: 1\nname:"), ("question_mill", "self_instruct"),
])  # fmt: skip
def test_a_bad_family_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    assert change[0] in OWN
    (tmp_path / "mill.yaml").write_text(OWN.replace(*change))
    with pytest.raises(BadInput):
        wiring.sketcher(Settings(corpora=CorporaSettings(generators=tmp_path)), RING)


def test_too_many_groups_are_refused(tmp_path: Path) -> None:
    for i, bit in enumerate(list(OWN_BITS)[:14]):
        (tmp_path / f"{i}.toml").write_text(
            f'name = "f{i}"\nbit = {bit}\n[[group]]\nphrases.en = ["mark number {i} x{i}"]\n'
        )
    with pytest.raises(BadInput, match="too many"):
        read_generators(tmp_path)
    (tmp_path / "13.toml").unlink()
    assert len(read_generators(tmp_path).families) == len(builtin().families) + 13


def test_text_and_its_sketch_agree_and_an_old_sketch_does_not_know() -> None:
    base = {"ts": 1_750_000_000, "request_id": "r", "account_id": "a", "model": "m", "input_tokens": 1,
            "output_tokens": 1, "status": 200}  # fmt: skip
    events = [
        base | {"prompt": "Come up with a series of tasks"}, base | {"system": "Act as a prompt rewriter."},
        base | {"prompt": "what?"}, base, base | {"response": "x"},
    ]  # fmt: skip
    stripped = SKETCHER.sketch_many(events)
    assert column(events) == column(stripped) == [1, 2, 0, None, None]
    old = [e | {"sketch": {k: v for k, v in e["sketch"].items() if k != "generator"}} for e in stripped[:1]]
    assert column(old) == [None]
    assert column([stripped[0] | {"sketch": stripped[0]["sketch"] | {"generator": "?AAA"}}]) == [None]


def column(events: list[dict[str, object]]) -> list[int | None]:
    n = len(events)
    values: list[bytes | None] = [json.dumps(e).encode() for e in events]
    raw = RawBatch(values, np.zeros(n, np.int32), np.arange(n, dtype=np.int64), np.full(n, -1, np.int64), {0: n})
    return sketch_frame(decode(raw, DecodeOptions(b"digest")).frame, SKETCHER)[0]["generator"].to_list()
