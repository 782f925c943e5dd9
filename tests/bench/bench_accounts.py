"""What accounts cost: the rate, memory, state and restart of one process with few accounts and with a million.

    PYTHONPATH=.:tests python tests/bench/bench_accounts.py [--few 10000] [--many 1000000] [--requests N] [--json F]

No server: batches of made requests (``made_traffic.py``) go through the pipeline, every step on, and only the pipeline
is timed. Each run is a process of its own. First every account sends at least once, as many requests in every run, then
``--requests`` of random accounts are measured; event time goes at 1,000 requests a second. The state of the many is
written, and another process takes it over: timed from its start until it has worked a batch. Few accounts are measured
with text and without. Ratios by processor time are printed beside those by the clock, which other work disturbs, and
without the campaign stage, which clusters anew at once what a million new accounts share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from made_traffic import Traffic

from monitor import memory, wiring
from monitor.backtest import peak_rss_mb
from monitor.checkpointing import Checkpointer
from monitor.jit import warm_all
from monitor.pipeline import Pipeline
from monitor.rounds import COPY_S
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.store.directory import DirectoryStore

PARTITIONS = 8
SCOPE = "bench/accounts"


def make_pipeline() -> Pipeline:
    # as they ship, the anomaly models learn each six hours what is a day old: they would cost nothing here
    settings = Settings.model_validate({"score": {"anomaly": {"quarantine_h": 0}}, "features": {"epoch_s": 60}})
    made = wiring.pipeline(settings, keys=Keyring.from_seed(1), rules=wiring.load(settings))
    memory.set_aside()  # as `monitor run` does
    return made


def stage_seconds(pipeline: Pipeline) -> dict[str, float]:
    """Seconds of each stage so far."""
    return {
        s.labels["stage"]: s.value
        for m in pipeline.observe.telemetry.stage_seconds.collect()
        for s in m.samples
        if s.name.endswith("_sum")
    }


class Meter:
    """Seconds by the clock and of the processor within the block, added up."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu


def feed(pipeline: Pipeline, batches: Any) -> Meter:
    """All batches through every step."""
    meter = Meter()
    for batch in batches:
        with meter:
            pipeline.process(batch)
            pipeline.work_campaigns()
    return meter


def steady(accounts: int, text: bool, fill: int, requests: int, folder: str) -> dict[str, Any]:
    """The measured run; with ``folder`` the state is written there."""
    warm_all()
    pipeline = make_pipeline()
    begun_mb = peak_rss_mb()
    traffic = Traffic(accounts, text=text, partitions=PARTITIONS)
    filled = feed(pipeline, traffic.batches(fill, each_once=True))
    before, size = stage_seconds(pipeline), traffic.bytes
    meter = feed(pipeline, traffic.batches(requests))
    stages = {name: value - before.get(name, 0.0) for name, value in stage_seconds(pipeline).items()}
    made: dict[str, Any] = {
        "accounts": len(pipeline.features.accounts), "text": text,
        "bytes_a_record": round((traffic.bytes - size) / requests),
        "fill_per_s": round(fill / filled.wall), "per_s": round(requests / meter.wall),
        "cpu_us_a_record": round(meter.cpu / requests * 1e6, 1),
        "without_campaigns_per_s": round(requests / (meter.wall - stages.get("campaigns", 0.0))),
        "fill_cpu_us_a_record": round(filled.cpu / fill * 1e6, 1),
        "stage_share": {k: round(v / meter.wall, 3) for k, v in stages.items() if v},
        "rows": pipeline.observe.counts.rows, "rows_scored": dict(sorted(pipeline.observe.counts.rows_scored.items())),
        "start_mb": round(begun_mb), "peak_mb": round(peak_rss_mb()),
        "features_mb": round(pipeline.features.nbytes / 1e6),
    }  # fmt: skip
    if folder:
        made["checkpoint"] = write(pipeline, traffic, folder)
    return made


def write(pipeline: Pipeline, traffic: Traffic, folder: str) -> dict[str, Any]:
    """All of the state, then only what 20,000 more requests changed: bytes, the longest pause of a turn, and how long
    it takes until a partition is written. Copied as the loop does it, though with no batch in between."""
    store = DirectoryStore(Path(folder), SCOPE)
    keeper, offsets = Checkpointer(pipeline, store), dict.fromkeys(range(PARTITIONS), 0)
    for p in offsets:
        store.claim(p, 1)
    made = {}
    for name in ("full", "changes"):
        pauses, written, cpu = [], [], time.process_time()
        for p in offsets:
            first = time.perf_counter()
            more = True
            while more:
                began = time.perf_counter()
                while more and time.perf_counter() - began < COPY_S:
                    more = keeper.copy_some(p)
                if not more:
                    keeper.begin(p, 0, 1)
                pauses.append(time.perf_counter() - began)
                while not keeper.idle:
                    time.sleep(0.001)
            assert all(w.error is None for w in keeper.written(wait_for_all=True))
            written.append(time.perf_counter() - first)
        made[name] = {
            "mb": round(keeper.bytes_written / 1e6, 1), "longest_pause_ms": round(max(pauses) * 1e3),
            "longest_write_ms": round(max(written) * 1e3), "cpu_s": round(time.process_time() - cpu, 2),
        }  # fmt: skip
        keeper.bytes_written = 0
        if name == "full":
            for batch in traffic.batches(20_000):
                pipeline.process(batch)
    return made


def restart(accounts: int, folder: str, started: float) -> dict[str, Any]:
    """Take the state over; ``started`` is the clock when this process was started."""
    imported = time.time() - started
    warm_all()
    warm = time.time() - started
    pipeline = make_pipeline()
    keeper = Checkpointer(pipeline, DirectoryStore(Path(folder), SCOPE))
    keeper.expect(range(PARTITIONS), 2)
    for p in range(PARTITIONS):
        assert keeper.restore(p, 2) is not None
    restored = time.time() - started
    cpu = time.process_time()
    held = len(pipeline.features.accounts)
    traffic = Traffic(accounts, text=True, partitions=PARTITIONS)
    batch = next(iter(traffic.batches(20_000)))
    made = time.time()
    pipeline.process(batch)
    pipeline.work_campaigns()
    return {
        "accounts": held, "imported_s": round(imported, 1), "kernels_s": round(warm - imported, 1),
        "state_s": round(restored - warm, 1), "first_batch_s": round(time.time() - made, 1), "cpu_s": round(cpu, 1),
        "back_s": round(restored + time.time() - made, 1), "peak_mb": round(peak_rss_mb()),
    }  # fmt: skip


def child(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, __file__, "--role", *map(str, arguments)]
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ).stdout
    made = dict(json.loads(out.splitlines()[-1]))
    print(json.dumps(made), flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=600_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", nargs="+")
    options = parser.parse_args()
    if options.role:
        role, *rest = options.role
        if role == "restart":
            print(json.dumps(restart(int(rest[0]), rest[1], float(rest[2]))))
        else:
            accounts, text, fill, requests = map(int, rest[:4])
            print(json.dumps(steady(accounts, bool(text), fill, requests, rest[4] if len(rest) > 4 else "")))
        return
    few, many, n = options.few, options.many, options.requests
    result: dict[str, Any] = {"load_before": [round(x, 1) for x in os.getloadavg()]}
    with tempfile.TemporaryDirectory() as folder:
        result["few"] = child("steady", few, 1, many, n)
        result["metadata"] = child("steady", few, 0, many, n)
        result["many"] = child("steady", many, 1, many, n, folder)
        result["restart"] = child("restart", many, folder, time.time())
    for name, over, under in (("many / few", "many", "few"), ("metadata / text", "metadata", "few")):
        clock = result[over]["per_s"] / result[under]["per_s"]
        cpu = result[under]["cpu_us_a_record"] / result[over]["cpu_us_a_record"]
        rest = result[over]["without_campaigns_per_s"] / result[under]["without_campaigns_per_s"]
        result[name] = {"clock": round(clock, 2), "cpu": round(cpu, 2), "clock_without_campaigns": round(rest, 2)}
    growth = (result["many"]["peak_mb"] - result["few"]["peak_mb"]) * 1e6
    result["memory_bytes_an_account"] = round(growth / (result["many"]["accounts"] - result["few"]["accounts"]))
    result["load_after"] = [round(x, 1) for x in os.getloadavg()]
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
