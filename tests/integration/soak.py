"""Hours at half load, with accounts that come and go: what grows without end would show.

    PYTHONPATH=.:tests:tests/bench python tests/integration/soak.py [--minutes 60] [--json F]

`monitor run` as a process of its own, every step on, Apache Kafka and Redis 7 on the same machine. A backlog says what
it can take; then another process sends half of that, with event time so fast that ``--event-days`` pass: an account
lives two days of it and is forgotten after a week of silence, so that from a third of the time on as many come as go.
A campaign step is ten minutes of it: a day costs some 15 s of processor time, whatever the rate.

Every ten seconds: resident memory, lag, descriptors, threads, keys in Redis and which of them have no time to live,
Redis's memory, `/readyz`. It fails where the last quarter holds more memory than the quarter before by a twentieth,
lags by more than the batches in flight, or has more descriptors, threads or keys without a life; where readiness fell;
and where what was sent is not what was taken in.
"""

from __future__ import annotations

import argparse
import json
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
from bench_delay import read_rate, send
from made_traffic import Traffic
from processes import Process

from monitor.settings import KafkaSettings
from monitor.source.kafka_sender import KafkaSender

TOPIC = "soak"
BACKLOG = 40_000
LIFE_DAYS = 2.0
EVERY_S = 10.0
IN_FLIGHT_S = 5.0
"""Seconds of requests that may be under way: a poll, and two batches ahead of it."""


def drive(broker: str, made: dict[str, Any], rate: float, seconds: float, sent: Any) -> None:
    """Send in real time until it is over; how many, in ``sent``."""
    traffic, size = Traffic(text=True, partitions=4, seed=11, **made), max(int(rate), 1)
    began = time.monotonic()
    with KafkaSender(KafkaSettings(brokers=(broker,), topic=TOPIC), TOPIC) as sender:
        for batch in traffic.batches(int(rate * seconds), size):
            send(sender, batch)
            sent.value += len(batch)
            time.sleep(max(0.0, began + (sent.value - BACKLOG) / rate - time.monotonic()))
        sender.flush()


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
        "behind": sent - round(process.metric("abusemon_records_consumed_total")),
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
    parser.add_argument("--event-days", type=float, default=28.0)
    parser.add_argument("--accounts", type=int, default=20_000, help="accounts of a moment")
    parser.add_argument("--rate", type=float, help="requests a second, in place of half of what a backlog shows")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seconds, samples = args.minutes * 60, []
    start = time.time() - args.event_days * 86_400
    with servers.ApacheKafka() as kafka, servers.RedisServer() as store, tempfile.TemporaryDirectory() as name:
        # what was read long ago goes: an hour's requests would fill the disk
        keep = {"retention.bytes": str(128 << 20), "segment.bytes": str(32 << 20)}
        servers.create_topic(kafka.bootstrap, TOPIC, 4, keep)
        servers.create_topic(kafka.bootstrap, f"{TOPIC}.dlq", 1)
        backlog = Traffic(args.accounts, text=True, per_s=BACKLOG / 60, partitions=4, start=start - 120)
        with KafkaSender(KafkaSettings(brokers=(kafka.bootstrap,), topic=TOPIC), TOPIC) as sender:
            for batch in backlog.batches(BACKLOG):
                send(sender, batch)
            sender.flush()
        process = Process(
            Path(name), ["-m", "monitor", "run", "--config", "SETTINGS"],
            kafka={"brokers": [kafka.bootstrap], "topic": TOPIC, "group": TOPIC, "auto_offset_reset": "earliest"},
            redis={"url": store.url}, alerts={"sinks": ["redis"]}, source={}, ingest={"enabled": False},
            checkpoint={"path": str(Path(name) / "state"), "every_s": 30},
        )  # fmt: skip
        client = redis.Redis.from_url(store.url)
        try:
            full = read_rate(process, BACKLOG)
            rate = args.rate or full / 2
            per_s = rate * seconds / (args.event_days * 86_400)  # of event time
            churn = args.accounts / (per_s * LIFE_DAYS * 86_400)
            made = {"accounts": args.accounts, "per_s": per_s, "start": start, "churn": churn}
            print(
                f"{full:,.0f} a second from a backlog, {rate:,.0f} a second for {args.minutes:g} minutes; "
                f"{args.event_days:g} days of event time, {args.accounts + rate * seconds * churn:,.0f} accounts",
                flush=True,
            )
            spawn = multiprocessing.get_context("spawn")
            sent = spawn.Value("q", BACKLOG)
            producer = spawn.Process(target=drive, args=(kafka.bootstrap, made, rate, seconds, sent))
            producer.start()
            due = began = time.monotonic()
            while producer.is_alive():
                due += EVERY_S
                producer.join(max(0.0, due - time.monotonic()))
                samples.append(sample(process, client, sent.value))
                if len(samples) % 12 == 1:
                    shown = {k: len(v) if k == "endless" else v for k, v in samples[-1].items()}
                    print(f"{time.monotonic() - began:6.0f} s {shown}", flush=True)
            took = time.monotonic() - began
            end = time.monotonic() + 120
            while process.metric("abusemon_records_consumed_total") < sent.value and time.monotonic() < end:
                time.sleep(0.5)
            taken = round(process.metric("abusemon_records_consumed_total"))
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
