"""The whole pipeline from Apache Kafka against its own ceiling, in one run.

    PYTHONPATH=.:tests python tests/bench/bench_pipeline.py [--records N] [--accounts N] [--hours H] [--turns N]

Simulated requests with about 1 KB of text go to a topic; one process then only polls and decodes JSON (the
ceiling), once by kafka-python's own loop over records and once by our kernel in its place; another runs the service
with every detector on, checkpoints and Redis included. Quarantine is an hour here, and with ``--hours`` a quarter of
one and epochs are ten minutes, so that the anomaly models, which otherwise learn each six hours what is a day old,
score within the bench; everything else is as it ships. A million simulated requests take a day and a half of event
time: at the rates here that is a backlog read a thousand times faster than it came, with a campaign step every 5,000
records. ``--hours`` squeezes them into so many, which is nearer to traffic that comes as fast as it is read.
``--turns`` reads the topic so often without campaigns and with them, in turns: what campaigns cost. Prints
rates, their ratio, each stage's share, rows scored by each detector, memory. Decides nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import servers
from kafka import KafkaConsumer

from monitor import live, wiring
from monitor.backtest import peak_rss_mb
from monitor.precompile import precompile
from monitor.records import RawBatch
from monitor.runner import Runner
from monitor.service import Signals
from monitor.settings import KafkaSettings, Settings
from monitor.simulate.api import build
from monitor.sketch import Keyring
from monitor.source.kafka_client import connect, consumer_config
from monitor.source.kafka_sender import KafkaSender
from monitor.source.kafka_source import KafkaSource
from monitor.source.protocol import Source

TOPIC = "bench"


def kafka(broker: str, group: str, topic: str = "") -> dict[str, Any]:
    return {
        "brokers": [broker], "topic": topic or TOPIC, "group": group, "auto_offset_reset": "earliest",
        "session_timeout_ms": 30_000,
    }  # fmt: skip


def settings_of(broker: str, group: str, topic: str) -> KafkaSettings:
    return KafkaSettings.model_validate(kafka(broker, group, topic))


def produce(broker: str, records: int, accounts: int, topic: str = "", squeeze: float = 1.0) -> dict[str, Any]:
    """Traffic of a fifth as many simulated accounts, each spread over five names: many accounts, few requests each.
    Times since the first request are divided by ``squeeze``."""
    world = build(["D1", "D2", "B1", "B3"], accounts // 5, 4.0, 7, heavy_cap=400.0)
    sent = size = 0
    start: float | None = None
    last = 0.0
    texts: set[int] = set()
    names: set[str] = set()
    began = time.perf_counter()
    topic = topic or TOPIC
    with KafkaSender(KafkaSettings(brokers=(broker,), topic=topic), topic) as sender:
        for chunk in world:
            # no more than is sent, or the shares below would count what nobody read
            room = records - sent
            chunk = chunk.head(room)
            spread = pl.col("request_id").hash(1) % 5
            start = float(chunk.event_s[0]) if start is None else start
            moved = [c for c in ("ts", "completed_at") if c in chunk.frame.columns]
            name = pl.format("{}-{}", "account_id", spread)
            frame = chunk.frame.with_columns(
                (((pl.col(c) - start) / squeeze + start).round(3) for c in moved), account_id=name
            )
            texts.update(frame["prompt"].drop_nulls().hash(1).to_list())
            names.update(frame["account_id"].unique().to_list())
            lines = io.BytesIO()
            frame.write_ndjson(lines)
            times = (start + (chunk.event_s - start) / squeeze).tolist()
            last = max(last, times[-1])
            for key, value, at in zip(frame["account_id"], lines.getvalue().splitlines(), times, strict=True):
                sender.send(key.encode(), value, timestamp_ms=round(at * 1000))
                sent += 1
                size += len(value)
                if sent == records:
                    break
            if sent == records:
                break
        sender.flush()
    return {
        "records": sent, "hours": round((last - (start or 0.0)) / 3600, 2), "accounts": len(names),
        "bytes_a_record": round(size / sent),
        "distinct_prompts": round(len(texts) / sent, 3), "produced_per_s": round(sent / (time.perf_counter() - began)),
    }  # fmt: skip


def ceiling(broker: str, reader: str) -> dict[str, Any]:
    """Poll and JSON-decode only; ``reader``: ``library`` (kafka-python's consumer, as it comes) or ``kernel``."""
    poll, end = (by_library if reader == "library" else by_kernel)(broker)
    decode = msgspec.json.Decoder().decode
    count, began, last, idle, cpu = 0, 0.0, 0.0, 0, 0.0
    while idle < 3:
        values = poll()
        if values and not began:
            began, cpu = time.perf_counter(), time.process_time()
        for value in values:
            decode(value)
        count += len(values)
        idle = 0 if values else idle + (count > 0)
        last = time.perf_counter() if values else last
    cpu = time.process_time() - cpu
    end()
    return {"records": count, "per_s": round(count / (last - began)), "cpu_us_a_record": round(cpu / count * 1e6, 1)}


def by_library(broker: str) -> tuple[Callable[[], Sequence[Any]], Callable[[], None]]:
    """A poll's values, and the end of it."""
    settings = KafkaSettings.model_validate(kafka(broker, "ceiling-library"))
    consumer: Any = connect(settings, KafkaConsumer, **consumer_config(settings, settings.group))
    consumer.subscribe([settings.topic])

    def poll() -> list[Any]:
        polled = consumer.poll(timeout_ms=500, max_records=20_000)
        return [record.value for records in polled.values() for record in records]

    return poll, consumer.close


def by_kernel(broker: str) -> tuple[Callable[[], Sequence[Any]], Callable[[], None]]:
    """The same by the monitor's source."""
    source = KafkaSource(KafkaSettings.model_validate(kafka(broker, "ceiling-kernel")))
    return lambda: source.poll(20_000, 0.5).values, source.close


def pipeline(
    broker: str, redis: str, folder: str, topic: str = "", short: str = "", group: str = "bench", without: str = ""
) -> dict[str, Any]:
    """The service, until it has read everything; ``short``: of some hours of event time; ``without``: campaigns."""
    settings = Settings.model_validate(
        {
            "kafka": kafka(broker, group, topic), "redis": {"url": redis}, "campaigns": {"enabled": not without},
            "checkpoint": {"path": folder, "every_s": 30},
            "score": {"anomaly": {"quarantine_h": 0.25 if short else 1.0}}, "http": {"enabled": False},
            "features": {"epoch_s": 600 if short else 3_600},
        }
    )  # fmt: skip
    precompile(live.__name__)
    with Signals() as signals:
        service = live.service(
            settings, keys=Keyring.from_seed(1), rules=wiring.load(settings), rule_paths=wiring.rule_paths(settings),
            signals=signals, done=lambda s: bool(counts.events) and isinstance(s, KafkaSource) and s.caught_up(),
        )  # fmt: skip
        p = service.runner.pipeline
        counts = p.observe.counts
        cpu = time.process_time()
        span = reading(service.runner)
        service.run()
        seconds = time.monotonic() - service.runner.began
    stages = {
        s.labels["stage"]: s.value
        for m in p.observe.telemetry.stage_seconds.collect()
        for s in m.samples
        if s.name.endswith("_sum") and s.value
    }
    pauses = p.observe.telemetry.checkpoint_pause_seconds.collect()[0].samples
    buckets = [(float(s.labels["le"]), s.value) for s in pauses if s.name.endswith("_bucket")]
    return {
        "records": counts.events, "seconds": round(seconds, 1),
        "seconds_joining_and_ending": round(seconds - (span[1] - span[0]), 1),
        "per_s": round(counts.events / (span[1] - span[0])),
        "per_s_with_joining_and_ending": round(counts.events / seconds),
        "cpu_us_a_record": round((time.process_time() - cpu) / counts.events * 1e6, 1), "rows": counts.rows,
        "rows_scored": counts.rows_scored, "accounts": len(p.features.accounts),
        "stage_share": {k: round(v / seconds, 3) for k, v in stages.items()},
        "checkpoint_s": round(next(s.value for s in pauses if s.name.endswith("_sum")), 2),
        "checkpoint_pauses_up_to_s": next(le for le, n in buckets if n == buckets[-1][1]),
        "peak_rss_mb": round(peak_rss_mb()), "state_mb": round(p.features.nbytes / 1e6),
        "inactive_features": sorted(p.inactive().features), "rejects": counts.rejects, "late": counts.late,
    }  # fmt: skip


def reading(runner: Runner) -> list[float]:
    """Filled by a run: when the first records came, and when the last were taken in and their alerts delivered. So the
    ceiling is timed too, which neither joins a group nor closes ticks and writes its state at the end."""
    span, check = [0.0, 0.0], runner.check_topic

    def came(source: Source, batch: RawBatch) -> None:
        span[0] = span[0] or time.monotonic()
        check(source, batch)

    def delivered(step: str) -> None:
        span[1] = time.monotonic() if step == "delivered" else span[1]

    runner.check_topic, runner.step = came, delivered
    return span


def turns(broker: str, short: str, times: int) -> dict[str, Any]:
    """What campaigns cost: the topic read without them and with them, one after the other, ``times`` times; a new
    Redis, group and folder each."""
    shown = ("per_s", "cpu_us_a_record", "peak_rss_mb")
    runs: list[dict[str, Any]] = []
    for turn in range(times):
        pair = {}
        for name, without in (("without", "campaigns"), ("with", "")):
            with tempfile.TemporaryDirectory() as folder, servers.RedisServer() as redis:
                group = f"turn-{turn}-{name}"
                made = child("pipeline", broker, redis.url, folder, TOPIC, short, group, without)
            pair[name] = {key: made[key] for key in shown}
        runs.append({**pair, "cost": round(1 - pair["with"]["per_s"] / pair["without"]["per_s"], 3)})
        print(json.dumps(runs[-1]), flush=True)
    return {"turns": runs, "cost_median": round(statistics.median(run["cost"] for run in runs), 3)}


def child(*arguments: str) -> dict[str, Any]:
    # as `monitor run` has it: see monitor/cli/__init__.py
    env = {"POLARS_MAX_THREADS": "1", **os.environ}
    out = subprocess.run(
        [sys.executable, __file__, "--role", *arguments], stdout=subprocess.PIPE, check=True, env=env
    ).stdout
    return dict(json.loads(out.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--hours", type=float, help="squeeze event time into so many; default: as it is")
    parser.add_argument("--turns", type=int, default=0, help="runs without campaigns and with them, in turns")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", nargs="+")
    options = parser.parse_args()
    if options.role:
        role, *rest = options.role
        made = {"ceiling": ceiling, "pipeline": pipeline}[role](*rest)  # type: ignore[operator]  # each has its own
        print(json.dumps(made))
        return
    # 35 hours of event time for a million, of this many accounts
    squeeze = options.records / 1e6 * 35 * 1e5 / options.accounts / options.hours if options.hours else 1.0
    with tempfile.TemporaryDirectory() as folder, servers.RedisServer() as redis:
        broker = servers.ApacheKafka().start()
        try:
            servers.create_topic(broker.bootstrap, TOPIC, options.partitions)
            made = produce(broker.bootstrap, options.records, options.accounts, squeeze=squeeze)
            result: dict[str, Any] = {"produced": made}
            print(json.dumps(result), flush=True)
            result["ceiling"] = child("ceiling", broker.bootstrap, "library")
            result["ceiling_kernel"] = child("ceiling", broker.bootstrap, "kernel")
            short = "short" if options.hours else ""
            result["pipeline"] = child("pipeline", broker.bootstrap, redis.url, folder, TOPIC, short)
            result["ratio"] = round(result["pipeline"]["per_s"] / result["ceiling"]["per_s"], 3)
            result["ratio_kernel"] = round(result["pipeline"]["per_s"] / result["ceiling_kernel"]["per_s"], 3)
            # What a loaded machine does not move much: the processor time of both, the first poll of the ceiling aside.
            result["cpu_ratio"] = round(result["ceiling"]["cpu_us_a_record"] / result["pipeline"]["cpu_us_a_record"], 3)
            if options.turns:
                result["campaigns"] = turns(broker.bootstrap, short, options.turns)
            result["kafka"] = servers.VERSIONS.get("Apache Kafka", "")
        finally:
            broker.stop()
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
