"""How long from produce to an account's alert in Redis, at half of what the machine can take at that moment.

    PYTHONPATH=.:tests python tests/bench/bench_delay.py [--seconds 90] [--accounts 10000] [--json F]

`monitor run` as a process of its own, every step on, Apache Kafka and Redis 7 on the same machine. First it works off a
backlog, which says what it can take; then requests come at half of that, in their own time, and among them, three times
a second, an account that sends six at once, which a rule of this bench reports. The delay is from the moment in which
the last of the six is handed to the producer to the time that Redis gives its entry in the stream of alerts. Once with
ticks of 10 s (lateness 2 s), once with ticks of 1 s (lateness 1 s). Prints percentiles.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import redis
import servers
from made_traffic import Traffic
from processes import Process

from monitor import wiring
from monitor.records import RawBatch
from monitor.settings import KafkaSettings
from monitor.source.kafka_sender import KafkaSender

PROBES_PER_S = 3
SIX = 6
BACKLOG = 40_000
PART_S = 0.1
MAKE_S = 50e-6
"""Seconds by which a request is made at the latest, beforehand: a producer shares nothing with a monitor but the topic,
and making requests in between took half a core of the two."""
RULE = f"""\
schema: monitor.rule/v1
id: six-at-once
title: Six requests in a minute
family: volume
hypothesis: automation
severity: low
confidence: 0.1
status: stable
mode: alert
version: 1
params:
  requests: {{value: {SIX}, min: 1, max: 1000, unit: requests a minute, help: of the bench}}
when: requests_1m >= params.requests && requests_7d <= params.requests
cooldown: 7d
evidence: [requests_1m]
why: It measures a delay.
blind_spots: It finds nothing that matters.
false_positives: Anybody who is busy.
runbook: [Do nothing]
tags: [AML.T0040]
tests:
  - {{name: six, given: {{requests_1m: {SIX}, requests_7d: {SIX}}}, alert: true}}
  - {{name: one, given: {{requests_1m: 1, requests_7d: 1}}, alert: false}}
  - {{name: nothing known, given: {{}}, alert: unknown}}
"""


def start(folder: Path, broker: str, topic: str, url: str, tick_s: int, lateness_s: float) -> Process:
    rules = folder / "rules" / "volume"
    rules.mkdir(parents=True)
    (rules / "six-at-once.yaml").write_text(RULE)
    return Process(
        folder, ["-m", "monitor", "run", "--config", "SETTINGS"],
        kafka={"brokers": [broker], "topic": topic, "group": topic, "auto_offset_reset": "earliest"},
        redis={"url": url, "key_prefix": topic}, alerts={"sinks": ["redis"]}, source={}, ingest={"enabled": False},
        features={"tick_s": tick_s, "lateness_s": lateness_s},
        checkpoint={"path": str(folder / "state"), "every_s": 30},
        rules={"dirs": [str(wiring.packaged_rules()), str(rules.parent)]},
    )  # fmt: skip


def read_rate(process: Process, records: int) -> float:
    """Records a second while the backlog is read."""
    began, first = 0.0, 0.0
    end = time.monotonic() + 300
    while (seen := process.metric("abusemon_records_consumed_total")) < records:
        if seen and not began:
            began, first = time.monotonic(), seen
        assert time.monotonic() < end, f"only {seen:,.0f} of {records:,} records were read"
        time.sleep(0.05)
    return (records - first) / (time.monotonic() - began)


def send(sender: KafkaSender, batch: RawBatch) -> None:
    """Each record under its account, where its batch has it: that is where the partitioner puts it."""
    places, stamps = batch.partition.tolist(), batch.timestamp_ms.tolist()
    for value, partition, stamp in zip(batch.values, places, stamps, strict=True):
        assert value is not None
        key = value[value.index(b'"account_id":"') + 14 :].split(b'"', 1)[0]
        sender.send(key, value, partition=partition, timestamp_ms=stamp)


def drive(sender: KafkaSender, rate: float, seconds: float, accounts: int, partitions: int) -> dict[str, float]:
    """Send in real time; when the last request of each probe was handed over, epoch seconds."""
    begin = time.time() + 2.0 + rate * seconds * MAKE_S
    traffic = Traffic(accounts, text=True, per_s=rate, partitions=partitions, start=begin, seed=11)
    sent: dict[str, float] = {}
    batches = list(traffic.batches(int(rate * seconds), int(rate * PART_S)))
    assert time.time() < begin, "the requests were not made in time: raise MAKE_S"
    due, probe = begin, begin
    late = 0.0
    for batch in batches:
        due += PART_S
        time.sleep(max(0.0, due - time.time()))
        send(sender, batch)
        late = max(late, time.time() - due - PART_S)
        while probe < time.time() and time.time() < begin + seconds - 15:
            name, now = f"probe-{len(sent)}", time.time()
            for i in range(SIX):
                record = {"ts": now, "request_id": f"{name}-{i}", "account_id": name, "model": "m", "input_tokens": 9,
                          "output_tokens": 9, "status": 200}  # fmt: skip
                sender.send(name.encode(), json.dumps(record).encode(), timestamp_ms=round(now * 1000))
            sent[name] = time.time()
            probe += 1 / PROBES_PER_S
    sender.flush()
    print(f"the producer was {max(late, 0.0):.2f} s late at most", flush=True)
    return sent


def arrivals(url: str, topic: str) -> dict[str, float]:
    """When each probe's alert came to Redis, epoch seconds by its own clock."""
    client = redis.Redis.from_url(url)
    found: dict[str, float] = {}
    for key, fields in client.xrange(f"{topic}:{{{topic}}}:alerts"):
        subject = json.loads(fields[b"alert"])["subject"]
        found.setdefault(subject, int(key.split(b"-")[0]) / 1000)
    client.close()
    return found


def measure(broker: str, url: str, options: Any, tick_s: int, lateness_s: float) -> dict[str, Any]:
    topic = f"delay{tick_s}"
    servers.create_topic(broker, topic, options.partitions)
    servers.create_topic(broker, f"{topic}.dlq", 1)
    settings = KafkaSettings(brokers=(broker,), topic=topic)
    with tempfile.TemporaryDirectory() as name, KafkaSender(settings, topic) as sender:
        backlog = Traffic(options.accounts, text=True, per_s=BACKLOG / 60, partitions=options.partitions,
                          start=time.time() - 120)  # fmt: skip
        for batch in backlog.batches(BACKLOG):
            send(sender, batch)
        sender.flush()
        process = start(Path(name), broker, topic, url, tick_s, lateness_s)
        try:
            full = read_rate(process, BACKLOG)
            rate = options.rate or full / 2
            print(f"ticks of {tick_s} s: {full:,.0f} a second from a backlog; {rate:,.0f} a second now", flush=True)
            sent = drive(sender, rate, options.seconds, options.accounts, options.partitions)
            time.sleep(2.0)
            came = arrivals(url, topic)
            behind = process.metric("abusemon_records_consumed_total")
        finally:
            process.end(signal.SIGTERM)
    waits = np.array([came[probe] - at for probe, at in sent.items() if probe in came])
    p50, p90, p99 = np.percentile(waits, (50, 90, 99)).round(2).tolist()
    return {
        "tick_s": tick_s, "lateness_s": lateness_s, "backlog_per_s": round(full), "rate_per_s": round(rate),
        "probes": len(sent), "reported": len(waits), "p50_s": p50, "p90_s": p90, "p99_s": p99,
        "max_s": round(float(waits.max()), 2), "records_read": round(behind),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rate", type=float, help="requests a second, in place of half of what a backlog shows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"load_before": [round(x, 1) for x in os.getloadavg()]}
    with servers.ApacheKafka() as kafka, servers.RedisServer() as store:
        for tick_s, lateness_s in ((10, 2.0), (1, 1.0)):
            result[f"tick {tick_s} s"] = made = measure(kafka.bootstrap, store.url, options, tick_s, lateness_s)
            print(json.dumps(made), flush=True)
    result["load_after"] = [round(x, 1) for x in os.getloadavg()]
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
