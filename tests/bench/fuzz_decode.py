"""The million: mutated records through decode, each judged by the oracle of ``tests/decode_oracle.py``.

    python tests/bench/fuzz_decode.py --records 1000000 [--seed N] [--processes 2]

Batches of 1 to 2,000 records. Stops at the first broken promise with the value that broke it (mutants are
made here: they hold nobody's text). Prints rows, rejects by reason, nulled fields and mended records.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from decode_oracle import check  # noqa: E402 - the path comes first
from records_made import OPTIONS, STAMP, mutant, raw  # noqa: E402

SLICE = 20_000


def work(job: tuple[int, int]) -> Counter[str]:
    """Makes and checks ``records`` mutants from ``seed``."""
    seed, records = job
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    done = 0
    while done < records:
        n = min(rng.choice((1, 7, 100, 2000)), records - done)
        values = [mutant(rng) for _ in range(n)]
        decoded = check(raw(values, stamp=rng.choice((-1, STAMP)), start=done), OPTIONS)
        counts["records"] += n
        counts["rows"] += decoded.frame.height
        counts["nulled fields"] += sum(decoded.wrong_types.values())
        counts["mended rows"] += decoded.mended
        counts.update(f"reject {r.reason}" for r in decoded.rejects)
        done += n
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    started = time.perf_counter()
    jobs = [(args.seed + k, min(SLICE, args.records - lo)) for k, lo in enumerate(range(0, args.records, SLICE))]
    total: Counter[str] = Counter()
    if args.processes == 1:
        for job in jobs:
            total += work(job)
    else:
        with ProcessPoolExecutor(args.processes) as pool:
            for counts in pool.map(work, jobs):
                total += counts
    assert total["records"] == args.records
    for name, count in sorted(total.items()):
        print(f"{name:24} {count:>10,}")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
