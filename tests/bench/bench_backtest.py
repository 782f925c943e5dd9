"""A backtest of many days of quiet accounts, metadata only: requests a second, all steps on.

    PYTHONPATH=. python tests/bench/bench_backtest.py [--accounts N] [--days D] [--engine local|processes[:N]]

26 requests an account and day, spread as sessions; every request falls into a tick of its own, so a feature row is
made for nearly each. Prints the rate, processor time of all processes and the rows scored; of one process each stage's
share. Decides nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

import monitor.wiring as wiring
from monitor import offline
from monitor.engines import engine_of
from monitor.jit import warm_all
from monitor.pipeline import Pipeline

START = 1_767_571_200.0


def write_log(path: Path, accounts: int, days: int) -> int:
    """Sessions of about nine requests, three a day, log-normal tokens; NDJSON sorted by time. Returns the requests."""
    rng = np.random.default_rng(44)
    n = accounts * days * 26
    account = rng.integers(0, accounts, n)
    session = rng.integers(0, 3, n) * 5.0 + (account % 8)
    t = np.sort(START + rng.integers(0, days, n) * 86_400.0 + session * 3600 + rng.exponential(1200.0, n))
    frame = pl.DataFrame(
        {
            "ts": t.round(3), "request_id": np.arange(n), "account_id": account, "model": rng.integers(0, 3, n),
            "input_tokens": rng.lognormal(7.5, 1.0, n).astype(np.int64),
            "output_tokens": rng.lognormal(6.0, 1.0, n).astype(np.int64), "status": 200,
            "latency_ms": rng.integers(200, 9_000, n), "turn_index": rng.integers(0, 4, n),
            "temperature": rng.integers(0, 3, n) / 2, "max_tokens": 4096, "account_created_at": START - 9e6,
        }
    )  # fmt: skip
    frame = frame.with_columns(
        pl.format("r{}", "request_id").alias("request_id"), pl.format("a{}", "account_id").alias("account_id"),
        pl.format("m{}", "model").alias("model"), api_key_id=pl.format("k{}", "account_id"),
    )  # fmt: skip
    frame.write_ndjson(path)
    return n


def processor_s() -> float:
    """Processor time of this process and of those that it started and that have ended, seconds."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--accounts", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=44)
    parser.add_argument("--engine", default="local")
    options = parser.parse_args()
    made: list[Pipeline] = []
    build = wiring.pipeline

    def keep(*args: object, **named: object) -> Pipeline:
        made.append(build(*args, **named))  # type: ignore[arg-type]  # handed on as they came
        return made[0]

    wiring.pipeline = keep  # to read the stage times afterwards
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.ndjson"
        print(f"{write_log(log, options.accounts, options.days):,} requests, {log.stat().st_size / 1e6:,.0f} MB")
        warm_all()
        cpu, began = processor_s(), time.perf_counter()
        result = offline.backtest_files([log], Path(folder) / "alerts.ndjson", engine=engine_of(options.engine))
        seconds = time.perf_counter() - began
        cpu = processor_s() - cpu
    shares = {
        s.labels["stage"]: round(s.value / seconds, 3)
        for m in made[0].observe.telemetry.stage_seconds.collect()
        for s in m.samples
        if s.name.endswith("_sum") and s.value
    }
    print(
        json.dumps(
            {
                "requests_per_s": round(result["events"] / seconds), "seconds": round(seconds, 1),
                "cpu_us_a_request": round(cpu / result["events"] * 1e6, 1),
                "rows": result["rows"], "rows_scored": result["rows_scored"], "alerts": result["alerts"]["total"],
                "peak_rss_mb": result["peak_rss_mb"], "peak_rss_mb_all": result["peak_rss_mb_all"],
                "stage_share": shares,
            }, indent=1,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
