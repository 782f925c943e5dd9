"""``python tests/integration/chaos.py [--only NAME ...] [--seed N]``: faults on real servers, one after the other.

Starts Apache Kafka and Redis, does each fault of ``chaos_faults.py`` to a member of the monitor, says what it did, and
prints a table: alerts lost, twice and unexpected against an undisturbed backtest, seconds until it had caught up, what
its health said meanwhile. Exit status 1 where anything was lost, came twice or was told wrongly. Needs root (two small
file systems are mounted).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import servers  # noqa: E402
from chaos import Result, Trial, the_log, undisturbed  # noqa: E402
from chaos_faults import FAULTS  # noqa: E402
from members import groups  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], choices=[f.__name__ for f in FAULTS])
    o = parser.parse_args()
    results: list[Result] = []
    with servers.ApacheKafka() as kafka, servers.RedisServer() as redis:
        ids = len({alert_id for alert_id, _, _ in undisturbed()})
        print(f"Apache Kafka {kafka.version}, {redis.version}; seed {o.seed}")
        print(f"{len(the_log())} records, {ids} alerts in {len(undisturbed())} revisions", flush=True)
        for fault in FAULTS:
            if o.only and fault.__name__ not in o.only:
                continue
            results.append(tried(fault, kafka, redis, o.seed))
    print("\n| fault | alerts lost | twice | unexpected | caught up after | health while it lasted |")
    print("|---|---|---|---|---|---|")
    for r in results:
        told = "; ".join([r.health, *r.notes, *(f"WRONG: {w}" for w in r.wrong)])
        print(f"| {r.name} | {r.lost} of {r.revisions} | {r.twice} | {r.unexpected} | {r.recovery_s:.1f} s | {told} |")
    return 0 if all(r.well for r in results) else 1


def tried(fault, kafka: servers.ApacheKafka, redis: servers.RedisServer, seed: int) -> Result:
    """One fault, from a fresh group on."""
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {fault.__name__}: {what}", flush=True)

    with tempfile.TemporaryDirectory() as name, groups(kafka.bootstrap, redis.url, Path(name)) as make:
        chance = random.Random(f"{seed}:{fault.__name__}")
        trial = Trial(fault.__name__, kafka, redis, make, Path(name), chance, say)
        try:
            fault(trial)
            result = trial.result()
        except Exception as error:  # the other faults are still to come
            say(f"FAILED: {type(error).__name__}: {str(error)[:1500]}")
            result = Result(fault.__name__, -1, -1, -1, 0, 0.0, trial.health, trial.notes, [*trial.wrong, "gave up"])
        finally:
            if trial.watch is not None:
                trial.watch.stop()
    verdict = "well" if result.well else f"NOT WELL {result}"
    say(f"lost {result.lost}, twice {result.twice}, unexpected {result.unexpected}: {verdict}")
    return result


if __name__ == "__main__":
    sys.exit(main())
