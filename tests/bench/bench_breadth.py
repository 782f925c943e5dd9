"""Whether a request costs the same however the traffic is cut: by partitions, by links, by one account that is loud.

    PYTHONPATH=.:tests:tests/bench python tests/bench/bench_breadth.py [--requests 300000] [--accounts 10000] [--json F]

No server: batches of made requests (``made_traffic.py``) go through the pipeline, every step on, each case in a process
of its own. Half of the requests come before, the other half is timed. Links are so many a second of a process that
takes in ``--per-s`` requests; event time goes slower, ``--event-per-s`` requests a second of it, so that two campaign
steps fall into the timed half, though at that pace one comes each ten minutes. The first case is measured again at the
end: what its two figures differ by is what the machine does meanwhile. Prints each case's rate and processor time
against the mean of the two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench_accounts import feed, make_pipeline, stage_seconds
from made_traffic import Traffic

from monitor.backtest import peak_rss_mb
from monitor.jit import warm_all

BASE = "8 partitions"
CASES: dict[str, dict[str, Any]] = {
    BASE: {},
    "1 partition": {"partitions": 1},
    "64 partitions": {"partitions": 64},
    "100 new links a second": {"links": 100},
    "1,000 new links a second": {"links": 1_000},
    "10,000 new links a second": {"links": 10_000},
    "100,000 new links a second": {"links": 100_000},
    "one account is 16 % of all": {"loud": 0.16},
    "one account is 52 % of all": {"loud": 0.52},
    BASE + ", again": {},
}
BATCH = 16_000
"""Records of a poll, as the settings have it."""


def measure(
    requests: int, accounts: int, per_s: float, event_per_s: float, links: float = 0.0, **case: Any
) -> dict[str, Any]:
    """One case, in this process."""
    warm_all()
    pipeline = make_pipeline()
    traffic = Traffic(accounts, text=True, per_s=event_per_s, fresh=links / per_s, **case)
    feed(pipeline, traffic.batches(requests // 2, BATCH))
    before = stage_seconds(pipeline)
    meter = feed(pipeline, traffic.batches(requests - requests // 2, BATCH))
    timed = requests - requests // 2
    stages = {name: value - before.get(name, 0.0) for name, value in stage_seconds(pipeline).items()}
    counts = pipeline.observe.counts
    assert counts.decoded == requests, f"{counts.decoded} of {requests} were decoded"
    return {
        "per_s": round(timed / meter.wall), "cpu_us_a_record": round(meter.cpu / timed * 1e6, 1),
        "peak_mb": round(peak_rss_mb()), "rows": counts.rows,
        "stage_share": {k: round(v / meter.wall, 3) for k, v in stages.items() if v},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=300_000)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--per-s", type=float, default=25_000.0)
    parser.add_argument("--event-per-s", type=float, default=125.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", nargs=1)
    options = parser.parse_args()
    if options.role:
        pace = (options.per_s, options.event_per_s)
        print(json.dumps(measure(options.requests, options.accounts, *pace, **CASES[options.role[0]])))
        return
    result: dict[str, Any] = {"load_before": [round(x, 1) for x in os.getloadavg()]}
    sizes = [
        "--requests",
        options.requests,
        "--accounts",
        options.accounts,
        "--per-s",
        options.per_s,
        "--event-per-s",
        options.event_per_s,
    ]
    for name in CASES:
        command = [sys.executable, __file__, "--role", name, *map(str, sizes)]
        out = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ).stdout
        result[name] = dict(json.loads(out.splitlines()[-1]))
        print(name, json.dumps(result[name]), flush=True)
    ends = [result[BASE], result[BASE + ", again"]]
    clock, cpu = (sum(e[key] for e in ends) / 2 for key in ("per_s", "cpu_us_a_record"))
    for name in CASES:
        made = result[name]
        print(f"{name:28} {made['per_s']:7,} a second, {made['per_s'] / clock:.2f}; "
              f"{made['cpu_us_a_record']} µs, {made['cpu_us_a_record'] / cpu:.2f}; {made['peak_mb']:,} MB")  # fmt: skip
    result["load_after"] = [round(x, 1) for x in os.getloadavg()]
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
