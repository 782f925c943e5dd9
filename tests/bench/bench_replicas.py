"""Replicas in one consumer group on one machine: what 1, 2 and 4 take in, and what happens when one leaves.

    PYTHONPATH=.:tests:tests/bench python tests/bench/bench_replicas.py [--records 900000] [--json F]

`monitor run` as processes of their own, every step on, Apache Kafka and Redis 7 on the same machine, each group with a
topic's backlog of ``--records`` and checkpoints of its own. Timed from the moment in which every replica holds its
share of the eight partitions until nothing is left. They share this machine's processors, so the rate says how
many of these they use, and the processor time of a request what being many costs. Then one of two and one of four get
SIGTERM: how long until the rest holds all partitions, and whether it has all accounts then.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import servers
from bench_delay import send
from made_traffic import Traffic
from processes import Process, wait

from monitor.settings import KafkaSettings
from monitor.source.kafka_sender import KafkaSender

TOPIC, PARTITIONS = "replicas", 8
PATIENCE_S = 300.0
_TICK_S = os.sysconf("SC_CLK_TCK")


def fill(broker: str, records: int, accounts: int) -> int:
    """The backlog, whose accounts are first seen in its first part; bytes."""
    servers.create_topic(broker, TOPIC, PARTITIONS)
    servers.create_topic(broker, f"{TOPIC}.dlq", 1)
    traffic = Traffic(accounts, text=True, per_s=records / 7200, partitions=PARTITIONS)
    with KafkaSender(KafkaSettings(brokers=(broker,), topic=TOPIC), TOPIC) as sender:
        for batch in traffic.batches(records):
            send(sender, batch)
        sender.flush()
    return traffic.bytes


def start(folder: Path, broker: str, url: str, group: str) -> Process:
    folder.mkdir()
    return Process(
        folder, ["-m", "monitor", "run", "--config", "SETTINGS"],
        kafka={"brokers": [broker], "topic": TOPIC, "group": group, "auto_offset_reset": "earliest"},
        redis={"url": url, "key_prefix": group}, alerts={"sinks": ["redis"]}, source={}, ingest={"enabled": False},
        checkpoint={"path": str(folder.parent / "state"), "every_s": 30},
    )  # fmt: skip


def total(members: Sequence[Process], name: str) -> float:
    return sum(member.metric(f"abusemon_{name}") for member in members)


def processor_s(members: Sequence[Process]) -> float:
    """Processor seconds that these have taken."""
    ticks = 0
    for member in members:
        ticks += sum(map(int, Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / _TICK_S


def peak_mb(member: Process) -> int:
    status = Path(f"/proc/{member.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1000


def measure(many: int, broker: str, url: str, records: int) -> dict[str, Any]:
    group = f"group{many}"
    with tempfile.TemporaryDirectory() as name:
        with ThreadPoolExecutor(many) as pool:
            members = list(pool.map(lambda i: start(Path(name) / str(i), broker, url, group), range(many)))
        try:
            share = PARTITIONS // many
            shared = lambda: all(m.metric("abusemon_partitions_assigned") == share for m in members)  # noqa: E731
            wait(shared, members[0], PATIENCE_S)
            began, cpu, first = time.monotonic(), processor_s(members), total(members, "records_consumed_total")
            assert first < 0.8 * records, f"{first:,.0f} of {records:,} were read before all had joined: more --records"
            wait(lambda: total(members, "records_consumed_total") >= records, members[0], PATIENCE_S)
            took, cpu = time.monotonic() - began, processor_s(members) - cpu
            timed = total(members, "records_consumed_total") - first
            made: dict[str, Any] = {
                "replicas": many, "timed": round(timed), "per_s": round(timed / took),
                "cpu_us_a_record": round(cpu / timed * 1e6, 1), "processors": round(cpu / took, 2),
                "peak_mb": [peak_mb(m) for m in members],
                "accounts": [round(m.metric("abusemon_accounts_tracked")) for m in members],
            }  # fmt: skip
            if many > 1:
                leaves = members.pop()
                before = time.monotonic()
                assert leaves.end(signal.SIGTERM) == 0
                gone = time.monotonic() - before
                wait(lambda: total(members, "partitions_assigned") == PARTITIONS, members[0], PATIENCE_S)
                made["one_left"] = {
                    "it_took_s": round(gone, 1), "all_held_after_s": round(time.monotonic() - before, 1),
                    "accounts": round(total(members, "accounts_tracked")),
                }  # fmt: skip
        finally:
            for member in members:
                if member.process.poll() is None:
                    member.end(signal.SIGTERM)
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=900_000)
    parser.add_argument("--accounts", type=int, default=50_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"load_before": [round(x, 1) for x in os.getloadavg()]}
    with servers.ApacheKafka() as kafka, servers.RedisServer() as store:
        fill(kafka.bootstrap, options.records, options.accounts)
        for many in (1, 2, 4):
            result[str(many)] = measure(many, kafka.bootstrap, store.url, options.records)
            print(json.dumps(result[str(many)]), flush=True)
    result["load_after"] = [round(x, 1) for x in os.getloadavg()]
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
