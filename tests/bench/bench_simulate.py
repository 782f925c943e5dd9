"""Speed and memory of the simulator alone: ``python tests/bench/bench_simulate.py [REQUESTS] [ACCOUNTS]``.

Writes NDJSON to the null device and prints, at each tenth of the way: requests, requests a second, resident memory.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from monitor.simulate import Simulator

PER_ACCOUNT_DAY = 30
"""Requests of an ordinary account a day where heavy ones are capped at 300, roughly: it sets the length of the run."""


def resident_mb() -> float:
    """Resident memory of this process now, in 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(wanted: int, accounts: int) -> None:
    """Run until ``wanted`` requests are written."""
    days = 1.3 * wanted / (accounts * PER_ACCOUNT_DAY) + 1
    world = Simulator(["S4", "S5", "B3"], accounts=accounts, days=days, seed=1, heavy_cap=300)
    print(f"{accounts} accounts; before the first request {resident_mb():.0f} MB")
    began, said = time.process_time(), 0
    with Path(os.devnull).open("wb") as sink:
        for chunk in world:
            sink.write(chunk.ndjson())
            if world.requests >= min(said + wanted // 10, wanted):
                said = world.requests
                spent = time.process_time() - began
                print(f"{said:>12,} requests {said / spent:>9,.0f} a CPU second {resident_mb():>7.0f} MB", flush=True)
            if world.requests >= wanted:
                return


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, int(sys.argv[2]) if len(sys.argv) > 2 else 20_000)
