"""``python tests/integration/account_for.py --requests 1000000``: every record in is accounted for, and how fast.

Starts Apache Kafka and Redis, produces simulated requests with planted duplicates and malformed records, runs one
member over them, prints the figures. Exit status 1 where the books do not balance.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import accounting  # noqa: E402
import servers  # noqa: E402
from members import SCENARIOS, groups, produce  # noqa: E402

from monitor.simulate.api import build  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=8_000)
    parser.add_argument("--days", type=float, default=3.0)
    o = parser.parse_args()
    world = build(SCENARIOS, o.accounts, o.days, 7, heavy_cap=5_000.0)
    requests = itertools.islice(itertools.chain.from_iterable(c.messages() for c in world), o.requests)
    log = accounting.Spoiled(requests)
    with servers.ApacheKafka() as kafka, servers.RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
        print(f"Apache Kafka {kafka.version}, {redis.version}")
        with groups(kafka.bootstrap, redis.url, Path(folder)) as make:
            group = make(max_poll_records=20_000, checkpoint_s=10.0)
            begun = time.monotonic()
            produce(kafka.bootstrap, group.topic, log)
            made = time.monotonic() - begun
            print(f"produced {log.produced} records in {made:.0f} s: {dict(log.planted)}")
            group.finish.touch()
            begun = time.monotonic()
            member = group.start()
            member.end(3_600)
            took = time.monotonic() - begun
            print(f"read in {took:.0f} s with the start of the process: {log.produced / took:.0f} records/s")
            print(f"counted: {member.counts}")
            try:
                accounting.check(group, member, log.planted)
            except AssertionError as error:
                print(f"NOT accounted for: {error}")
                return 1
            print(f"alerts: {len({alert_id for alert_id, _, _ in group.alerts()})}")
    print("every record is accounted for; the dead letters are exactly the rejects")
    return 0


if __name__ == "__main__":
    sys.exit(main())
