"""What the score stage costs: ``python tests/bench/bench_score.py [--days 44] [--accounts 2000]``.

Rows are those of a backtest of quiet accounts (one row an account and hour), scored an epoch at a time on all
partitions at once; generating them is not timed. Prints microseconds of processor time a row (of all threads, so
that other load on the machine matters little) for scoring, sampling and learning, and the rate of scoring alone on
a large frame once every class is ready.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import score_rows

from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.jit import warm_all
from monitor.score import ScoreOptions, Scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=44)
    parser.add_argument("--accounts", type=int, default=2_000)
    parser.add_argument("--distinct-epochs", type=int, default=48, help="epochs generated, then repeated")
    args = parser.parse_args()
    warm_all()
    scorer = Scorer(ScoreOptions(), ACCOUNT_FEATURES)
    accounts = np.arange(args.accounts)
    epochs = int(args.days * 24)
    made = [score_rows.rows(0, accounts, seed) for seed in range(min(args.distinct_epochs, epochs))]
    spent = dict.fromkeys(("score", "collect", "advance"), 0.0)
    count, worst, scored_rows = 0, 0.0, 0
    for epoch in range(epochs):
        frame = made[epoch % len(made)]
        frame = frame.with_columns(frame["tick"] + epoch * score_rows.TICKS)
        start = time.process_time()
        for partition in range(score_rows.PARTITIONS):
            scorer.advance(partition, epoch, ())
        after = time.process_time()
        scored = scorer.score(frame)
        now = time.process_time()
        scorer.collect(scored)
        end = time.process_time()
        worst = max(worst, after - start)
        for name, took in zip(spent, (now - after, end - now, after - start), strict=True):
            spent[name] += took
        count += frame.height
        scored_rows += frame.height - scored["anomaly_population"].null_count()
    total = sum(spent.values())
    print(f"{count:,} rows, {scored_rows:,} with a population score, {epochs} epochs, {total:.1f} s")
    for name, took in (*spent.items(), ("all", total)):
        print(f"  {name:8} {took:6.2f} s  {1e6 * took / count:6.2f} us a row")
    print(f"  slowest boundary ({score_rows.PARTITIONS} partitions): {1e3 * worst:.1f} ms")
    print(f"  ready: {scorer.status().ready} of {scorer.status().models}")
    print(f"  checkpoint: {len(scorer.dump(0)):,} bytes a partition", end="")
    start = time.process_time()
    scorer.dump(0)
    print(f" in {1e3 * (time.process_time() - start):.1f} ms")
    large = made[0].sample(200_000, with_replacement=True, seed=1)
    start = time.process_time()
    scorer.score(large)
    print(f"  scoring 200,000 rows at once: {200_000 / (time.process_time() - start):,.0f} rows/s")


if __name__ == "__main__":
    main()
