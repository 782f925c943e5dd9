"""The same features and rule on Quix Streams, Bytewax and Faust-streaming: one topic, one run, ratios printed.

    PYTHONPATH=.:tests python tests/bench/bench_peers.py [--records N] [--accounts N] [--partitions P] [--venv F]
        [--json F]

``tests/bench/peers`` has each peer's program, the rule as a plain function (``last_hour.py``) and the versions that
are pinned; the environment of the peers is made where it is missing. Simulated requests with about 1 KB of text go to
a topic of Apache Kafka. One process after the other reads it from the beginning and writes what it reports to a topic
of its own: each peer; the monitor with this one rule and everything off that it can do without; the monitor as it
ships, this rule added. All must report the same accounts in the same minute as a plain loop over the topic does: exit
status 1 where one does not. Times run from the first record to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_pipeline
import msgspec
import servers

from monitor.source.kafka_sender import KafkaSender
from monitor.source.kafka_source import KafkaSource
from monitor.source.partitioner import Partitioner

HERE = Path(__file__).resolve().parent / "peers"
sys.path.append(str(HERE))
import last_hour  # noqa: E402 - the path comes first

LIMIT_S = 900
PEERS = {"quix": "quixstreams", "bytewax": "bytewax", "faust": "faust-streaming"}
RULE_ID = "last-hour"
AFTER_S = 600.0
"""How far after the last request each partition's last record lies: it closes the monitor's last tick."""
Reported = dict[str, int]
"""Account -> end of the minute in which it was first reported, epoch seconds."""

RULE = f"""\
schema: monitor.rule/v1
id: {RULE_ID}
title: Many requests and tokens in the last hour
family: volume
hypothesis: automation
severity: low
confidence: 0.1
status: stable
mode: alert
version: 1
params:
  requests: {{value: {last_hour.REQUESTS}, min: 1, max: 1000000, unit: requests an hour, help: of the comparison}}
  tokens: {{value: {last_hour.TOKENS}, min: 1, max: 1000000000, unit: tokens an hour, help: of the comparison}}
when: requests_1h >= params.requests && output_tokens_1h >= params.tokens
cooldown: 7d
evidence: [requests_1h, output_tokens_1h, input_tokens_1h, rate_limited_share_1h]
why: It compares this engine with others.
blind_spots: It finds nothing that matters.
false_positives: Anybody who is busy.
runbook: [Do nothing]
tags: [AML.T0040]
references: ["https://kafka.apache.org"]
tests:
  - {{name: busy, given: {{requests_1h: 1000, output_tokens_1h: 1000000}}, alert: true}}
  - {{name: quiet, given: {{requests_1h: 1, output_tokens_1h: 1}}, alert: false}}
  - {{name: nothing known, given: {{}}, alert: unknown}}
"""


def all_of(broker: str, topic: str, group: str) -> list[tuple[int, bytes]]:
    """Every record of a topic, in the order of each partition, with its partition."""
    source = KafkaSource(bench_pipeline.settings_of(broker, group, topic))
    found: list[tuple[int, bytes]] = []
    idle = 0
    while idle < 3:
        batch = source.poll(20_000, 0.5)
        found += zip(batch.partition.tolist(), batch.values, strict=True)
        idle = 0 if len(batch) else idle + source.caught_up()
    source.close()
    return found


def by_a_loop(records: list[tuple[int, bytes]]) -> Reported:
    """What a plain loop over the topic reports."""
    decode, states, found = msgspec.json.Decoder().decode, dict[str, last_hour.State](), Reported()
    for _, value in records:
        record = decode(value)
        account = record["account_id"]
        told = last_hour.take(states.setdefault(account, last_hour.fresh()), record)
        if told is not None:
            found[account] = int(told["minute_end"])
    return found


def close_the_last_minute(broker: str, topic: str, partitions: int, last_s: float) -> None:
    """A record at the end of each partition, of an account of its own."""
    place, names = Partitioner(partitions), dict[int, str]()
    for i in range(100 * partitions):
        names.setdefault(place(f"closing-{i}"), f"closing-{i}")
    with KafkaSender(bench_pipeline.settings_of(broker, "closing", topic), topic) as sender:
        for name in names.values():
            record = {"ts": last_s + AFTER_S, "request_id": name, "account_id": name, "model": "m", "input_tokens": 1,
                      "output_tokens": 1, "status": 200}  # fmt: skip
            sender.send(name.encode(), json.dumps(record).encode(), timestamp_ms=round((last_s + AFTER_S) * 1000))
        sender.flush()


def environment(folder: Path) -> tuple[Path, list[str]]:
    """The peers' interpreter, in a virtual environment that is made where it is missing, and the peers that cannot be
    installed on this Python: where the pinned list as a whole cannot, each is tried by itself."""
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        print(f"installing the peers into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--only-binary", ":all:"]
        missing = []
        if subprocess.run([*pip, "--no-deps", "-r", str(HERE / "requirements.txt")]).returncode:
            pinned = (HERE / "requirements.txt").read_text().splitlines()
            for name, package in PEERS.items():
                wanted = next(line for line in pinned if line.startswith(f"{package}=="))
                if subprocess.run([*pip, wanted, "orjson", "cramjam"]).returncode:
                    missing.append(name)
        done.write_text("\n".join(missing))
    return python, done.read_text().split()


def run_peer(name: str, python: Path, broker: str, topic: str, partitions: int, records: int, folder: Path) -> Any:
    """A peer's own process over the whole topic; its report."""
    out, report = f"alerts-{name}", folder / f"{name}.json"
    state = folder / name
    state.mkdir()
    servers.create_topic(broker, out, partitions)
    env = {
        **os.environ, "PYTHONPATH": str(HERE), "BROKER": broker, "TOPIC": topic, "OUT": out, "REPORT": str(report),
        "PARTITIONS": str(partitions), "FOLDER": str(state), "RECORDS": str(records),
    }  # fmt: skip
    program = str(HERE / f"with_{name}.py")
    if name == "quix":
        command = [program, broker, topic, out, str(report), str(state)]
    elif name == "bytewax":
        subprocess.run([str(python), "-m", "bytewax.recovery", str(state), "1"], check=True, env=env, cwd=HERE)
        command = ["-m", "bytewax.run", "with_bytewax:flow", "-r", str(state), "-s", "30", "-b", "180"]
    else:
        command = [program, "worker", "-l", "warn"]
    log = folder / f"{name}.log"
    with log.open("w") as file:
        done = subprocess.run(
            [str(python), *command], env=env, cwd=HERE, stdout=file, stderr=subprocess.STDOUT, timeout=LIMIT_S
        )
    if done.returncode or not report.exists():
        raise SystemExit(f"{name} ended with {done.returncode}:\n{log.read_text()[-3000:]}")
    return json.loads(report.read_text())


def compared(found: Reported, expected: Reported) -> dict[str, Any]:
    """Whether the reports are those of the loop, and some of the differences (of the loop, of the engine)."""
    accounts = expected.keys() | found.keys()
    other = {a: (expected.get(a), found.get(a)) for a in accounts if expected.get(a) != found.get(a)}
    return {"reported": len(found), "same": not other, "differs": dict(sorted(other.items())[:3])}


def reported_by(broker: str, name: str) -> Reported:
    """What a peer or the monitor wrote: the first minute of each account."""
    found = Reported()
    for _, value in all_of(broker, f"alerts-{name}", f"read-{name}"):
        alert = json.loads(value)
        if "account" in alert:
            account, end = alert["account"], int(alert["minute_end"])
        elif RULE_ID in alert["rules"]:
            account, end = alert["subject"], (int(alert["revised_at"]) // 60 + 1) * 60
        else:
            continue
        found[account] = min(end, found.get(account, end))
    return found


def monitor(broker: str, topic: str, folder: str, name: str, report: str) -> None:
    """The monitor's service over the whole topic, in this process."""
    from stopwatch import Stopwatch

    from monitor import live, wiring
    from monitor.jit import warm_all
    from monitor.records import RawBatch
    from monitor.service import Signals
    from monitor.settings import Settings
    from monitor.sketch import Keyring

    rules = Path(folder) / "rules"
    (rules / "volume").mkdir(parents=True)
    (rules / "volume" / f"{RULE_ID}.yaml").write_text(RULE)
    values: dict[str, Any] = {
        "kafka": {**bench_pipeline.kafka(broker, f"monitor-{name}"), "topic": topic, "alerts_topic": f"alerts-{name}"},
        "checkpoint": {"path": str(Path(folder) / "state"), "every_s": 5}, "http": {"enabled": False},
        "alerts": {"sinks": ["kafka"]}, "features": {"tick_s": 60},
        "rules": {"dirs": [str(rules)] if name == "alone" else [str(p) for p in (wiring.packaged_rules(), rules)]},
    }  # fmt: skip
    if name == "alone":
        values |= {
            "campaigns": {"enabled": False},
            "score": {"anomaly": {"enabled": False}, "classifier": {"model_dir": "none"}},
        }
    settings = Settings.model_validate(values)
    warm_all()
    watch = Stopwatch()

    class Timed(KafkaSource):
        def poll(self, max_records: int, timeout_s: float) -> RawBatch:
            batch = super().poll(max_records, timeout_s)
            if len(batch):
                watch.tick(len(batch))
            return batch

    def done(source: object) -> bool:
        if watch.records and isinstance(source, KafkaSource) and source.caught_up():
            watch.mark()
            return True
        return False

    with Signals() as signals:
        service = live.service(
            settings, keys=Keyring.from_seed(1), rules=wiring.load(settings), rule_paths=wiring.rule_paths(settings),
            signals=signals, source=lambda runner: Timed(settings.kafka, runner), done=done,
        )  # fmt: skip
        service.run()
    said = {"tick_s": 60, "checkpoint_s": 5, "rules": len(service.runner.pipeline.rules.rules)}
    watch.write(report, {"monitor": service.runner.pipeline.versions["monitor"]}, said)


def run_monitor(name: str, broker: str, topic: str, partitions: int, folder: Path) -> Any:
    """The same in a process of its own; its report."""
    home, report = folder / f"monitor-{name}", folder / f"monitor-{name}.json"
    home.mkdir()
    servers.create_topic(broker, f"alerts-{name}", partitions)
    servers.create_topic(broker, f"{topic}.dlq", 1) if name == "alone" else None
    command = [sys.executable, __file__, "--role", broker, topic, str(home), name, str(report)]
    subprocess.run(command, check=True, timeout=LIMIT_S)
    return json.loads(report.read_text())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--accounts", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--venv", type=Path, default=servers.cache_dir() / "peers")
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", nargs="+")
    options = parser.parse_args()
    if options.role:
        monitor(*options.role)
        return
    python, missing = environment(options.venv)
    for peer in missing:
        print(f"NOT RUN: {PEERS[peer]} can't be installed on Python {sys.version.split()[0]}: see above", flush=True)
    options.peers = [peer for peer in options.peers if peer not in missing]
    topic, partitions = bench_pipeline.TOPIC, options.partitions
    result: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kafka = servers.ApacheKafka().start()
        try:
            broker = kafka.bootstrap
            servers.create_topic(broker, topic, partitions)
            result["produced"] = bench_pipeline.produce(broker, options.records, options.accounts)
            records = all_of(broker, topic, "count")
            last_s = max(last_hour.event_s(json.loads(value)) for _, value in records)
            close_the_last_minute(broker, topic, partitions, last_s)
            expected = by_a_loop(records)
            result |= {"kafka": kafka.version, "reported_by_a_loop": len(expected)}
            print(json.dumps(result), flush=True)
            runs: dict[str, Any] = {}
            for peer in options.peers:
                runs[peer] = run_peer(peer, python, broker, topic, partitions, len(records) + partitions, folder)
                runs[peer] |= compared(reported_by(broker, peer), expected)
                print(peer, json.dumps(runs[peer]), flush=True)
            for kind in ("alone", "whole"):
                runs[kind] = run_monitor(kind, broker, topic, partitions, folder)
                runs[kind] |= compared(reported_by(broker, kind), expected)
                print(f"monitor {kind}", json.dumps(runs[kind]), flush=True)
        finally:
            kafka.stop()
    result |= {"runs": runs, "load_after": os.getloadavg()[0]}
    for kind in ("alone", "whole"):
        for peer in options.peers:
            by_clock = runs[kind]["per_s"] / runs[peer]["per_s"]
            by_cpu = runs[peer]["cpu_us_a_record"] / runs[kind]["cpu_us_a_record"]
            print(f"monitor {kind} / {peer}: {by_clock:.2f} by the clock, {by_cpu:.2f} by processor time")
            result[f"{kind}/{peer}"] = {"clock": round(by_clock, 2), "cpu": round(by_cpu, 2)}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if different := [name for name, run in runs.items() if not run["same"]]:
        raise SystemExit(f"other accounts or minutes than a plain loop: {', '.join(different)}")


if __name__ == "__main__":
    main()
