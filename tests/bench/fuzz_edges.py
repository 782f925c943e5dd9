"""What a person or a client may send at the edges: mutated settings, rules and HTTP requests (``tests/fuzzing.py``).

    PYTHONPATH=.:tests python tests/bench/fuzz_edges.py [--each N] [--seed N] [--only settings rules http]

A third each; HTTP goes to the three servers in turn (ingest with a spool, the console with a Redis, metrics), by real
sockets. Stops at the first broken promise with what broke it. Prints what came of them, and the memory before and
after: the second half may not add more than ``GROWTH_MB``. Good requests are answered well at the end.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import fuzzing
import servers
from fuzz_servers import targets

GROWTH_MB = 150.0
"""What allocators keep beside what the work needs; a leak of 10 kB a request would be three times that."""


def campaign(name: str, count: int, seed: int, once: Callable[[random.Random], str]) -> None:
    """``count`` mutants, each from a seed of its own: a failure names the one that makes it again."""
    came, began, half = Counter[str](), time.monotonic(), 0.0
    for i in range(count):
        if i == count // 2:
            half = fuzzing.resident_mb()
        try:
            came[once(random.Random(seed + i))] += 1
        except BaseException:
            print(f"{name}: broken by seed {seed + i}", flush=True)
            raise
    grown = fuzzing.resident_mb() - half
    said = ", ".join(f"{word} {n:,}" for word, n in came.most_common())
    print(f"{name}: {count:,} ({said}) in {time.monotonic() - began:.0f} s; second half {grown:+.0f} MB", flush=True)
    assert grown < GROWTH_MB, f"{name}: memory grew by {grown:.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=int, default=33_334)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--only", nargs="+", default=["settings", "rules", "http"])
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        settings, rules, spool = (Path(name) / part for part in ("settings", "rules", "spool"))
        settings.mkdir()
        rules.mkdir()
        if "settings" in options.only:
            example = fuzzing.example_settings()
            campaign("settings", options.each, options.seed, lambda r: fuzzing.settings_once(r, settings, example))
        if "rules" in options.only:
            texts = fuzzing.rule_texts()
            campaign("rules", options.each, options.seed, lambda r: fuzzing.rule_once(r, rules, texts))
        if "http" in options.only:
            redis = stack.enter_context(servers.RedisServer())
            served = targets(stack, redis.url, spool)
            for target in served:
                fuzzing.good(target)
            campaign("http", options.each, options.seed, lambda r: fuzzing.http_once(r, r.choice(served)))
            for target in served:
                fuzzing.good(target)


if __name__ == "__main__":
    main()
