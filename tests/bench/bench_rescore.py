"""A model asked again about 90 days of a million accounts: ``PYTHONPATH=.:tests python tests/bench/bench_rescore.py``.

One day's files are written as a monitor writes them, from drawn rows, and stand for every day (links to them): a job
reads, takes apart and scores each of its 90 million rows all the same. Prints bytes a row, rows a second by the clock
with everything in it, and how long one thread of a CPU takes for a share of it. ``--accounts 20000 --days 3`` is a
minute's work on two cores.
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from bench_gpu import card, drawn, model

from monitor.archive import Reads, days_of, scan
from monitor.backtest import peak_rss_mb
from monitor.engines import engine_of
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.records import REQUEST_SET
from monitor.rescoring import rescore
from monitor.score import CLASSIFIER_COLUMNS, ClassifierOptions, packaged_model
from monitor.vectors import SET_SIZE
from monitor.wiring import VECTORS

STEP_MS = 600_000
FIRST = date(2026, 1, 1)


def write_day(path: Path, accounts: int, partitions: int) -> None:
    """One day: each account's last reading, in a file a partition."""
    read = model("cpu").features
    begin = int(datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp()) * 1000
    for partition in range(partitions):
        reads = Reads(path, STEP_MS, ACCOUNT_FEATURES.names, VECTORS.hash)
        here = np.arange(partition, accounts, partitions)
        for at in range(0, len(here), 16_384):
            ids = here[at : at + 16_384]
            events, mask, features = drawn(len(ids), SET_SIZE, len(read), int(ids[0]), below=0.01)
            flat = events[mask.astype(bool)].tobytes()
            ends = np.cumsum(mask.sum(axis=1, dtype=np.int64) * VECTORS.width)
            starts = np.append(0, ends[:-1])
            other = (name for name in ACCOUNT_FEATURES.names if name not in read)
            columns = {name: features[:, i % len(read)] for i, name in enumerate((*read, *other))}
            reads.take(pl.DataFrame({
                "subject": [f"acct_{i:012d}" for i in ids], "partition": np.full(len(ids), partition, np.int32),
                "t_ms": np.full(len(ids), begin + STEP_MS, np.int64),
                REQUEST_SET: pl.Series([flat[a:b] for a, b in zip(starts, ends, strict=True)], dtype=pl.Binary),
                **columns, **{c: np.full(len(ids), 0.01) for c in CLASSIFIER_COLUMNS},
            }, nan_to_null=True))  # fmt: skip
        reads.put({partition: begin // STEP_MS})
        reads.close(path / FIRST.isoformat(), partition)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count() or 1])
    parser.add_argument("--providers", nargs="+", default=["cuda,cpu"], help="one run of each")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--core-days", type=int, default=1, help="days that one thread of a CPU is asked about")
    parser.add_argument("--short-days", type=int, default=0, help="days of each run but the last; 0: all")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = Path(folder)
        began = time.perf_counter()
        write_day(path, args.accounts, args.partitions)
        files = [file for _, found in scan(path, kind="r") for file in found]
        size = sum(f.stat().st_size for f in files)
        print(
            f"{card()}, {os.cpu_count()} processors; {args.accounts:,} accounts a day: {size / args.accounts:,.0f} "
            f"bytes a row, written in {time.perf_counter() - began:.1f} s; {args.days} days would take "
            f"{size * args.days / 1e9:,.1f} GB"
        )
        for day in range(1, args.days):
            other = path / (FIRST + timedelta(days=day)).isoformat()
            other.mkdir()
            for file in files:
                os.link(file, other / file.name)
        assert len(days_of(path, "r")) == args.days
        runs = [(p, t) for p in args.providers for t in args.threads]
        for i, (providers, threads) in enumerate(runs):
            options = ClassifierOptions(packaged_model(), providers=tuple(providers.split(",")))
            days = args.days if i == len(runs) - 1 or not args.short_days else args.short_days
            engine = None if args.engine == "local" else engine_of(args.engine)
            last = FIRST + timedelta(days=days - 1)
            done = rescore(path, options, engine, last=last, threads=threads, above=0.99)
            where = ", ".join(f"{p} {n:,}" for p, n in sorted(done.providers.items()))
            print(
                f"{providers} {args.engine} {threads} threads: {done.rows:,} rows of {done.days} days in "
                f"{done.seconds:.1f} s, {done.rows / done.seconds:,.0f} a second (batches: {where}); "
                f"{len(done.found):,} named; {peak_rss_mb():,.0f} MB at most until here",
                flush=True,
            )
        if args.core_days:
            one = ClassifierOptions(packaged_model(), providers=("cpu",))
            core = rescore(path, one, last=FIRST + timedelta(days=args.core_days - 1), threads=1, above=0.99)
            hours = core.seconds / core.rows * args.accounts * args.days / 3600
            print(
                f"one thread on the CPU: {core.rows:,} rows in {core.seconds:.1f} s, {core.rows / core.seconds:,.0f} a "
                f"second: {hours:.2f} hours for all of it; the last run above is "
                f"{done.rows / done.seconds / (core.rows / core.seconds):.1f} times as fast"
            )


if __name__ == "__main__":
    main()
