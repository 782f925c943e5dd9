"""Mutated settings, rules and HTTP requests: a smoke version of ``tests/bench/fuzz_edges.py``."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import fuzzing
import pytest
from fuzz_servers import targets

FILES, REQUESTS = 150, 300


def test_any_settings_are_used_or_refused_in_words(tmp_path: Path) -> None:
    example = fuzzing.example_settings()
    came = Counter(fuzzing.settings_once(random.Random(i), tmp_path, example) for i in range(FILES))
    assert min(came["accepted"], came["refused"]) > FILES // 30


def test_any_rule_can_be_evaluated_or_is_refused_in_words(tmp_path: Path) -> None:
    texts = fuzzing.rule_texts()
    came = Counter(fuzzing.rule_once(random.Random(i), tmp_path, texts) for i in range(FILES))
    assert min(came["accepted"], came["refused"]) > FILES // 30


def test_any_request_gets_an_answer_and_the_next_good_one_too(redis_url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        served = targets(stack, redis_url, tmp_path / "spool")
        rng = random.Random(1)
        for target in served:
            fuzzing.good(target)
        came = Counter(fuzzing.http_once(rng, rng.choice(served)) for _ in range(REQUESTS))
        for target in served:
            fuzzing.good(target)
    assert len(came) > 5, came


def test_what_hangs_or_says_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "SLOW_S", -1.0)
    with pytest.raises(AssertionError, match="s for b'x'"), fuzzing.in_time(b"x"):
        pass
    with pytest.raises(AssertionError):
        fuzzing.checked(fuzzing.BadInput([]))
