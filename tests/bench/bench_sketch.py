"""Rates of the sketch step at prompts of about 1 KB, one thread: python tests/bench/bench_sketch.py [ROWS]

Prints requests a second for hashes and MinHash alone, for everything, for the whole frame step with identifiers, and
the time to compile all kernels from nothing. 95 % of the prompts are distinct; no figure here decides a test.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time

import numpy as np
import polars as pl

from monitor.jit import warm_all
from monitor.sketch import Keyring, Sketcher
from monitor.sketch.frame import sketch_frame
from monitor.sketch.kernel import PRINTS, SCALARS
from monitor.sketch.sketcher import texts_of

SYLLABLES = ("ta", "ri", "on", "ve", "mel", "ast", "no", "qui", "per", "lo", "den", "sha", "ing", "ter")


def prompts(rows: int, size: int = 1024) -> list[str]:
    """Texts of about ``size`` bytes: Zipf words of 1 to 4 syllables, sentences, numbers, lines, a quotation."""
    draw = random.Random(7)
    words = ["".join(draw.choices(SYLLABLES, k=draw.choice((1, 1, 2, 2, 2, 3, 4)))) for _ in range(20_000)]
    weights = [1 / (i + 3) for i in range(len(words))]
    made: list[str] = []
    for _ in range(rows):
        if made and draw.random() < 0.05:
            made.append(draw.choice(made))
            continue
        text = draw.choices(words, weights, k=size // 4)
        for i in range(0, len(text), 11):
            text[i] = text[i].capitalize()
            text[i - 1] += draw.choice((".", ".", ",", "?", ":\n", '"', " 12.5"))
        made.append(" ".join(text)[:size])
    return made


def rate(run: object, rows: int, repeat: int = 3) -> float:
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        run()  # type: ignore[operator]  # any callable
        best = min(best, time.perf_counter() - start)
    return rows / best


def cold_seconds() -> float:
    code = (
        "import monitor.sketch.frame, monitor.jit as j, time; "
        "t = time.process_time(); j.warm_all(); print(time.process_time() - t)"
    )
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PATH": "", "NUMBA_CACHE_DIR": empty, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    return float(done.stdout)


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 8_192
    start = time.perf_counter()
    warm_all()
    print(f"kernels from the cache or compiled: {time.perf_counter() - start:.1f} s")
    sketcher = Sketcher(Keyring.from_seed(1))
    sketcher.tables(0)
    made = prompts(rows)
    texts = texts_of(made)
    assert texts is not None
    slots = np.zeros(rows, np.int64)
    mean = len(texts.data) / rows
    print(f"{rows:,} prompts of {mean:,.0f} bytes, {len(set(made)) / rows:.0%} distinct")
    hashes = rate(lambda: sketcher.sketch_texts(texts, None, slots, want=PRINTS), rows)
    print(f"hashes, MinHash, SimHash: {hashes:>10,.0f} requests/s")
    both = rate(lambda: sketcher.sketch_texts(texts, None, slots, want=PRINTS | SCALARS), rows)
    print(f"everything of the text:   {both:>10,.0f} requests/s")
    n = range(rows)
    frame = pl.DataFrame(
        {
            "partition": pl.Series([0] * rows, dtype=pl.Int32), "offset": list(n), "t_ms": list(n), "ts_ms": list(n),
            "subject": [f"a-{i % 5000}" for i in n], "account_id": [f"a-{i % 5000}" for i in n],
            "request_id": [f"r-{i}" for i in n], "model": ["m"] * rows,
            "status": pl.Series([200] * rows, dtype=pl.Int32),
            "input_tokens": list(n), "output_tokens": list(n), "prompt": made, "ip": [f"10.0.{i % 250}.9" for i in n],
            "user_agent": [f"sdk/{i % 20}" for i in n], "conversation_id": [f"c-{i // 3}" for i in n],
        }
    )  # fmt: skip
    whole = rate(lambda: sketch_frame(frame, sketcher), rows)
    print(f"sketch_frame with ids:    {whole:>10,.0f} requests/s")
    event = {"ts": 1_750_000_000, "request_id": "r", "account_id": "a", "prompt": made[0], "ip": "10.0.0.1"}
    one = rate(lambda: [sketcher.sketch_one(event) for _ in range(200)], 200)
    print(f"sketch_one, one by one:   {one:>10,.0f} requests/s")
    many = rate(lambda: sketcher.sketch_many([{**event, "prompt": p} for p in made[:2000]]), 2000)
    print(f"sketch_many, by 2,000:    {many:>10,.0f} requests/s")
    print(f"all kernels compiled from nothing: {cold_seconds():.1f} s of CPU")


if __name__ == "__main__":
    main()
