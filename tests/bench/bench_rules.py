"""What the rules stage costs: ``python tests/bench/bench_rules.py [--rows 200000] [--frames 5]``.

Prints rows a second for each packaged condition alone (the slowest and the median), for all of them in one pass as the
pipeline runs them (``for``, exceptions and firings included), and for one in twenty rows true.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import polars as pl

from monitor.features.catalogue import CLIENT_CLASSES
from monitor.features.vocabulary import CATALOGUE
from monitor.rules import HoldState, load_rules, packaged_rules


def rows(count: int, accounts: int, tick: int, seed: int) -> pl.DataFrame:
    """Feature rows with values over each feature's range and one in ten unknown."""
    rng = np.random.default_rng(seed)
    columns: dict[str, pl.Series] = {}
    for feature in CATALOGUE:
        values = rng.random(count) if feature.high == 1 else rng.lognormal(3, 2, count)
        columns[feature.name] = pl.Series(np.where(rng.random(count) < 0.1, np.nan, values)).fill_nan(None)
    names = pl.Series([f"account-{i}" for i in range(accounts)])
    account = rng.integers(0, accounts, count)
    return pl.DataFrame({
        "subject": names.gather(account), "partition": pl.Series(account % 8, dtype=pl.Int32),
        "tick": pl.Series(tick + np.arange(count) * 100 // count, dtype=pl.Int64),
        "t_ms": pl.Series((tick + np.arange(count) * 100 // count) * 10_000, dtype=pl.Int64),
        "client_class": pl.Series(rng.integers(0, 5, count), dtype=pl.UInt8), **columns,
    })  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--frames", type=int, default=5)
    args = parser.parse_args()
    begun = time.perf_counter()
    rules = load_rules([packaged_rules()], CATALOGUE, CLIENT_CLASSES)
    print(f"load, compile and test {len(rules)} rules: {time.perf_counter() - begun:.2f} s")
    frame = rows(args.rows, args.accounts, 0, 0)
    alone: dict[str, float] = {}
    for rule in rules.active:
        best = 0.0
        for _ in range(3):
            begun = time.perf_counter()
            frame.lazy().select(rule.when.expr).collect()
            best = max(best, args.rows / (time.perf_counter() - begun))
        alone[rule.id] = best
    slowest = min(alone, key=alone.__getitem__)
    print(f"one condition: median {statistics.median(alone.values()) / 1e6:.1f} M rows/s, "
          f"slowest {alone[slowest] / 1e6:.1f} M rows/s ({slowest})")  # fmt: skip
    hold, spent, firings = HoldState(), 0.0, 0
    for number in range(args.frames):
        made = rows(args.rows, args.accounts, number * 100, number)
        begun = time.perf_counter()
        firings += rules.evaluate(made, hold).firings.height
        spent += time.perf_counter() - begun
    total = args.rows * args.frames
    print(f"all {len(rules.active)} rules in one pass: {total / spent:,.0f} rows/s, "
          f"{total * len(rules.active) / spent / 1e6:.1f} M conditions/s, {firings / total:.2f} firings a row, "
          f"{len(hold):,} open runs, state {sum(len(hold.dump(p)) for p in range(8)) / 1e6:.1f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
