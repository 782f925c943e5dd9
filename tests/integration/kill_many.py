"""``python tests/integration/kill_many.py --kills 30``: SIGKILL at random moments, and what came of it.

Starts Apache Kafka and Redis (or Valkey: ``--valkey``), runs the log once undisturbed, then with the kills, prints
the steps that were hit and the difference of the streams. Exit status 1 where an alert was lost or came twice, or a
step was never hit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import servers  # noqa: E402
from kills import Kills, difference  # noqa: E402
from members import STEPS, groups, log, produce  # noqa: E402

from monitor.source.embedded import EmbeddedValkey  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--accounts", type=int, default=600)
    parser.add_argument("--days", type=float, default=3.0)
    parser.add_argument("--heavy-cap", type=float, default=1_000.0)
    parser.add_argument("--checkpoints", choices=["directory", "redis", "object"], default="directory")
    parser.add_argument("--valkey", action="store_true")
    parser.add_argument("--defect", default="", choices=["", "swapped"])
    o = parser.parse_args()
    records = log(o.accounts, o.days, 7, o.heavy_cap)
    store = EmbeddedValkey() if o.valkey else servers.RedisServer()
    with contextlib.ExitStack() as stack, servers.ApacheKafka() as kafka, store:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        checkpoints = {"store": o.checkpoints}
        if o.checkpoints == "object":
            s3 = stack.enter_context(servers.S3())
            os.environ.update(servers.S3_ENV)
            checkpoints |= {"url": s3.bucket("kills"), "endpoint": s3.url}
        print(f"Apache Kafka {kafka.version}, {store.version}, checkpoints: {o.checkpoints}, {len(records)} records")
        with groups(kafka.bootstrap, store.url, Path(folder)) as make:
            calm = make()
            produce(kafka.bootstrap, calm.topic, records)
            calm.run_to_the_end()
            expected = calm.alerts()
            begun = time.monotonic()
            kills = Kills(o.seed, defect=o.defect)
            group = make(max_poll_records=500, settings={"checkpoint": checkpoints})
            last = kills.run(group, records, o.kills)
            found = difference(expected, group.alerts())
            missing = len(records) - last.counts["in_rows"]
    print(f"{len(kills.hits)} kills in {time.monotonic() - begun:.0f} s; steps hit:\n{kills.table()}")
    print(f"in order: {' '.join(kills.hits)}")
    ids = len({alert_id for alert_id, _, _ in expected})
    print(f"expected {ids} alerts in {len(expected)} revisions: {found}; requests missing in the state: {missing}")
    return 1 if any(found.values()) or missing or set(STEPS) - set(kills.hits) else 0


if __name__ == "__main__":
    sys.exit(main())
