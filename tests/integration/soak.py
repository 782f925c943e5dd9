"""An hour at half load, with accounts that come and go: what grows without end would show.

    PYTHONPATH=.:tests:tests/bench python tests/integration/soak.py [--minutes 60] [--json F]

`monitor run` as a process of its own, every step on, Apache Kafka and Redis 7 on the same machine. Event time runs so
fast that ``--event-days`` pass, of which half an hour each has traffic: an account lives a day and is forgotten after a
week of silence, its links too, so that from eight days on as many go as come. First a flood of the same density says
what the monitor takes in beside a producer that sends all it can (which costs as much as half of the monitor does;
ticks and campaign steps come with event time, of which there is seven times as much as time); then half of that comes.

Every ten seconds: resident memory, lag, descriptors, threads, keys in Redis and which of them have no time to live,
Redis's memory, `/readyz`. It fails where the last quarter holds more memory than the quarter before by a twentieth,
lags by more than the batches in flight, or has more descriptors, threads or keys without a life; where readiness fell;
and where what was sent is not what was taken in.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import redis
import servers
from bench_delay import send
from made_traffic import Traffic
from processes import Process, wait

from monitor.settings import KafkaSettings
from monitor.source.kafka_sender import KafkaSender
from monitor.telemetry import COMPONENTS

TOPIC = "soak"
TAKEN = "abusemon_records_consumed_total"
FLOOD = 600_000
LIKELY = 6_000.0
"""Requests a second that the soak is likely to have, by which the flood before it is as dense."""
APART_S = 7_200
"""Of event time, between flood and soak: more than duplicates are looked for, since both count requests from zero."""
SCRAPERS = 0.01
"""Share of accounts that scrape."""
LIFE_DAYS = 1.0
SHIFT_HOURS = 0.5
LINK_DAYS = 7.0
"""As long as an account is kept: by default links live a month, of which an hour cannot see the end."""
EVERY_S = 10.0
IN_FLIGHT_S = 5.0
"""Seconds of requests that may be under way: a poll, and two batches ahead of it."""


def drive(broker: str, made: dict[str, Any], rate: float, requests: int, sent: Any) -> None:
    """Send so many at a ``rate``, ``sent`` has how many so far."""
    traffic, before = Traffic(text=True, partitions=4, hours=SHIFT_HOURS, scrapers=SCRAPERS, **made), sent.value
    size, began = int(min(rate, 10_000)), time.monotonic()
    with KafkaSender(KafkaSettings(brokers=(broker,), topic=TOPIC), TOPIC) as sender:
        for batch in traffic.batches(requests, size):
            send(sender, batch)
            sent.value += len(batch)
            time.sleep(max(0.0, began + (sent.value - before) / rate - time.monotonic()))
        sender.flush()


def full_rate(process: Process, producer: Any) -> float:
    """Records a second that are taken in while as many come as the producer can send."""
    wait(lambda: process.metric(TAKEN) >= FLOOD / 10, process, 300)
    began, first = time.monotonic(), process.metric(TAKEN)
    producer.join()
    return (process.metric(TAKEN) - first) / (time.monotonic() - began)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def lives(client: Any) -> tuple[int, list[str]]:
    """How many keys Redis holds, and those that have no time to live."""
    keys = list(client.scan_iter(count=1_000))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.ttl(key)
        return len(keys), sorted(key.decode() for key, ttl in zip(keys, pipe.execute(), strict=True) if ttl == -1)


def sample(process: Process, client: Any, sent: int) -> dict[str, Any]:
    of = Path(f"/proc/{process.process.pid}")
    status = dict(line.split(":", 1) for line in (of / "status").read_text().splitlines() if ":" in line)
    keys, endless = lives(client)
    return {
        "rss_mb": round(int(status["VmRSS"].split()[0]) / 1024), "threads": int(status["Threads"]),
        "descriptors": len(list((of / "fd").iterdir())),
        "behind": sent - round(process.metric(TAKEN)),
        "accounts": round(process.metric("abusemon_accounts_tracked")),
        "state_mb": {c: round(process.metric(f'abusemon_state_bytes{{component="{c}"}}') / 1e6) for c in COMPONENTS},
        "keys": keys, "endless": endless, "redis_mb": round(client.info("memory")["used_memory"] / 1e6, 1),
        "ready": ready(process.metrics_port),
    }  # fmt: skip


def verdict(samples: list[dict[str, Any]], rate: float) -> list[str]:
    """What is wrong, by the samples."""
    quarter = len(samples) // 4
    before, last = samples[2 * quarter : 3 * quarter], samples[3 * quarter :]

    def of(name: str, part: list[dict[str, Any]]) -> Any:
        return np.array([s[name] for s in part])

    wrong = []
    grown = np.median(of("rss_mb", last)) / np.median(of("rss_mb", before)) - 1
    if grown > 0.05:
        wrong.append(f"memory grew by {grown:.1%} from the third quarter to the last")
    if np.median(of("behind", last)) > rate * IN_FLIGHT_S:
        wrong.append(f"{np.median(of('behind', last)):,.0f} records behind in the last quarter")
    wrong += [
        f"{name}: {of(name, last).max()} in the last quarter, {of(name, before).max()} before it"
        for name in ("descriptors", "threads")
        if of(name, last).max() > of(name, before).max() + 1
    ]
    if new := set(last[-1]["endless"]) - set(before[0]["endless"]):
        wrong.append(f"keys without a time to live that were not there: {', '.join(sorted(new))}")
    if not all(s["ready"] for s in samples[1:]):
        wrong.append(f"not ready {sum(not s['ready'] for s in samples[1:])} times")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--event-days", type=float, default=14.0)
    parser.add_argument("--accounts", type=int, default=20_000, help="accounts of a moment")
    parser.add_argument("--rate", type=float, help="requests a second, in place of half of what a backlog shows")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seconds, samples = args.minutes * 60, []
    with servers.ApacheKafka() as kafka, servers.RedisServer() as store, tempfile.TemporaryDirectory() as name:
        # what was read long ago goes: an hour's requests would fill the disk
        keep = {"retention.bytes": str(256 << 20), "segment.bytes": str(32 << 20)}
        servers.create_topic(kafka.bootstrap, TOPIC, 4, keep)
        servers.create_topic(kafka.bootstrap, f"{TOPIC}.dlq", 1)
        process = Process(
            Path(name), ["-m", "monitor", "run", "--config", "SETTINGS"],
            kafka={"brokers": [kafka.bootstrap], "topic": TOPIC, "group": TOPIC, "auto_offset_reset": "earliest"},
            redis={"url": store.url}, alerts={"sinks": ["redis"]}, source={}, ingest={"enabled": False},
            checkpoint={"path": str(Path(name) / "state"), "every_s": 30}, campaigns={"link_days": LINK_DAYS},
        )  # fmt: skip
        client = redis.Redis.from_url(store.url)
        spawn = multiprocessing.get_context("spawn")
        sent = spawn.Value("q", 0)

        def producer(rate: float, requests: int, seed: int, start: float, worked_s: float) -> Any:
            per_s = requests / worked_s
            churn = args.accounts / (per_s * LIFE_DAYS * SHIFT_HOURS * 3_600)
            made = {"accounts": args.accounts, "per_s": per_s, "start": start, "churn": churn, "seed": seed}
            child = spawn.Process(target=drive, args=(kafka.bootstrap, made, rate, requests, sent), daemon=True)
            child.start()
            return child

        try:
            worked = args.event_days * SHIFT_HOURS * 3_600  # seconds of event time that have traffic
            flood = FLOOD / (LIKELY * seconds) * worked
            now = time.time() - (args.event_days + 2) * 86_400
            full = full_rate(process, producer(math.inf, FLOOD, 10, now - flood - APART_S, flood))
            wait(lambda: process.metric(TAKEN) >= sent.value, process, 300)
            rate = args.rate or full / 2
            print(
                f"{full:,.0f} a second beside the producer, {rate:,.0f} for {args.minutes:g} minutes; "
                f"{args.event_days:g} days of event time, "
                f"{args.accounts * (1 + args.event_days / LIFE_DAYS):,.0f} accounts", flush=True,
            )  # fmt: skip
            child = producer(rate, int(rate * seconds), 11, now, worked)
            due = began = time.monotonic()
            while child.is_alive():
                due += EVERY_S
                child.join(max(0.0, due - time.monotonic()))
                samples.append(sample(process, client, sent.value))
                if len(samples) % 12 == 1:
                    shown = {k: len(v) if k == "endless" else v for k, v in samples[-1].items()}
                    print(f"{time.monotonic() - began:6.0f} s {shown}", flush=True)
            took = time.monotonic() - began
            wait(lambda: process.metric(TAKEN) >= sent.value, process)
            taken = round(process.metric(TAKEN))
        finally:
            status = process.end(signal.SIGTERM)
            client.close()
        log = (Path(name) / "log.txt").read_text("utf-8")
    wrong = verdict(samples, rate)
    if taken != sent.value:
        wrong.append(f"{sent.value:,} were sent and {taken:,} taken in")
    if status:
        wrong.append(f"it ended with status {status}: {log[-500:]}")
    first, last = samples[len(samples) // 2], samples[-1]
    print(
        f"{sent.value:,} requests, {took / 60:.1f} minutes; memory {first['rss_mb']} MB at half time, {last['rss_mb']} "
        f"at the end; descriptors {first['descriptors']} and {last['descriptors']}, threads {first['threads']} and "
        f"{last['threads']}; {max(s['behind'] for s in samples):,} behind at most; Redis {last['keys']:,} keys, "
        f"{last['redis_mb']} MB, without a life: {', '.join(last['endless']) or 'none'}"
    )
    if args.json:
        args.json.write_text(json.dumps({"load": os.getloadavg(), "rate": rate, "samples": samples}, indent=1) + "\n")
    print("\n".join(f"WRONG: {w}" for w in wrong) or "nothing grew")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
