"""The coefficients of the README's capacity page, measured, and the page itself.

    PYTHONPATH=.:tests python tests/bench/bench_accounts.py --json ACCOUNTS.json
    PYTHONPATH=.:tests python tests/bench/bench_capacity.py --accounts-json ACCOUNTS.json [--records N] [--write]

What an account costs comes from ``bench_accounts.py``. What a request costs Kafka and Redis is measured here: the
service reads a topic of ``--records`` and one of three times as many, each with a Redis of its own; the coefficients
are what the larger run has more. ``--write`` puts the table between the marks in README.md: no figure there is typed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import bench_pipeline
import redis
import servers

README = Path(__file__).resolve().parents[2] / "README.md"
MARKS = ("<!-- capacity, written by tests/bench/bench_capacity.py -->\n", "<!-- end of capacity -->\n")
GROWS = 3


def disk_bytes(kafka: servers.ApacheKafka, topic: str) -> int:
    """What the topic's records take on the broker: as they were compressed, and as they travel to a reader."""
    return sum(p.stat().st_size for p in kafka.directory.glob(f"node-*/data/{topic}-*/*.log"))


def live(kafka: servers.ApacheKafka, records: int, accounts: int, partitions: int) -> dict[str, float]:
    """One run of the service: counts of its Redis, bytes of its topic."""
    topic = f"capacity{records}"
    servers.create_topic(kafka.bootstrap, topic, partitions)
    made = bench_pipeline.produce(kafka.bootstrap, records, accounts, topic)
    with tempfile.TemporaryDirectory() as folder, servers.RedisServer() as store:
        client = redis.Redis.from_url(store.url)
        before = client.info()
        run = bench_pipeline.child("pipeline", kafka.bootstrap, store.url, folder, topic)
        after = client.info()
        client.close()
    return {
        "records": run["records"], "accounts": made["accounts"], "rows": run["rows"],
        "disk_bytes": disk_bytes(kafka, topic), "plain_bytes": made["bytes_a_record"] * run["records"],
        "cpu_us": run["cpu_us_a_record"] * run["records"],
        "commands": after["total_commands_processed"] - before["total_commands_processed"],
        "to_redis": after["total_net_input_bytes"] - before["total_net_input_bytes"],
        "from_redis": after["total_net_output_bytes"] - before["total_net_output_bytes"],
        "held": after["used_memory"] - before["used_memory"],
    }  # fmt: skip


def page(a: dict[str, Any], small: dict[str, float], large: dict[str, float]) -> str:
    """The table, out of what was measured."""
    more = {name: large[name] - small[name] for name in large}
    n = more["records"]
    few, many = a["few"]["cpu_us_a_record"], a["many"]["cpu_us_a_record"]
    base_mb = a["many"]["peak_mb"] - a["memory_bytes_an_account"] * a["many"]["accounts"] / 1e6
    full = a["many"]["checkpoint"]["full"]["mb"] * 1e6 / a["many"]["accounts"]

    def rate(us: float) -> str:
        return f"{1e6 / us:,.0f} requests a second and core, {us / 3.6:,.1f} CPU-hours a billion requests"

    rows = [
        ("processor, text of 1 KB, {0:,} accounts", (a["few"]["accounts"],), rate(few), "requests and their length"),
        ("the same with {0:,}", (a["many"]["accounts"],), rate(many), "requests, once the accounts are known"),
        ("the same while {0:,} are first seen", (a["many"]["accounts"],), rate(a["many"]["fill_cpu_us_a_record"]),
         "accounts first seen: state is made for them, their links are clustered anew"),
        ("metadata alone, {0:,} accounts", (a["metadata"]["accounts"],), rate(a["metadata"]["cpu_us_a_record"]),
         "requests"),
        ("with Kafka, Redis, checkpoints; most accounts new", (), rate(more["cpu_us"] / n),
         "new accounts and their links"),
        ("memory of a process", (), f"{base_mb:,.0f} MB and {a['memory_bytes_an_account']:,} bytes an account; "
         f"{a['many']['peak_mb']:,} MB at most with {a['many']['accounts']:,}",
         "accounts of its partitions in seven days"),
        ("a full checkpoint", (), f"{full:,.0f} bytes an account",
         "accounts; one in 20 is full, the others are changes"),
        ("a restart with {0:,} accounts", (a["restart"]["accounts"],), f"{a['restart']['back_s']} s, "
         f"{a['restart']['state_s']} s of it to read the state", "accounts of its partitions"),
        ("Redis", (), f"{1e3 * more['commands'] / n:,.1f} commands a thousand requests; a request "
         f"{more['to_redis'] / n:,.0f} bytes to it, {more['from_redis'] / n:,.0f} from it",
         "alerts; links seen in a step"),
        ("Redis, held", (), f"{more['held'] / n:,.0f} bytes a request", "the same, until `redis.ttl_s` has passed"),
        ("Kafka, read", (), f"{more['disk_bytes'] / n:,.0f} bytes a request, by zstd from "
         f"{more['plain_bytes'] / n:,.0f}", "requests; one commit a checkpoint beside it"),
    ]  # fmt: skip
    named = [(name.format(*values), *rest) for name, values, *rest in rows]
    lines = ["| resource | measured | grows with |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in named)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--accounts-json", type=Path, required=True)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--accounts", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with servers.ApacheKafka() as kafka:
        sizes = (options.records, GROWS * options.records)
        runs = [live(kafka, n, options.accounts, options.partitions) for n in sizes]
    print(json.dumps(runs, indent=1), flush=True)
    made = page(json.loads(options.accounts_json.read_text()), *runs)
    print(made)
    if options.write:
        text = README.read_text("utf-8")
        head, begin, rest = text.partition(MARKS[0])
        assert begin, "README.md has no place for the page"
        README.write_text(head + begin + made + MARKS[1] + rest.partition(MARKS[1])[2], "utf-8")


if __name__ == "__main__":
    main()
