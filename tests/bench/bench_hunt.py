"""How large the archive is and how long a hunt over it takes: ``PYTHONPATH=.:tests python tests/bench/bench_hunt.py``.

The archive is written as a monitor writes it, from one blob a day and partition. Every sum of an account is drawn, and
its links repeat from day to day with some that change, as an account's do. A campaign of 200 shares a network and a
template for half of its days; the hunt starts from one of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from monitor.archive import Archive, days_of, scan
from monitor.backtest import peak_rss_mb
from monitor.campaigns import StepBlob
from monitor.campaigns.kinds import CODE, KINDS
from monitor.campaigns.sums import NAMES
from monitor.campaigns.tally import TOTALS
from monitor.hunting import hunt, load

STEP_MS = 600_000
FIRST_DAY = 20_000
MEMBERS = 200
VALUES = {
    "payment": 0.95, "egress_prefix": 0.4, "egress_asn": 0.02, "contact_domain": 0.3, "referral": 0.05,
    "client_build": 0.002, "user_agent": 0.01, "ja4": 0.002, "tool_schema": 0.1, "system_prompt": 0.5,
}  # fmt: skip
"""Values of each kind, as a share of the accounts: a card is one's own, a build is everybody's."""


def numbers(kind: str, index: np.ndarray) -> np.ndarray:
    """Values of a kind as spread-out 64-bit hashes, never 0."""
    x = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(CODE[kind] * 0x1234567)
    return (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) | np.uint64(16)


def day_blob(day: int, partition: int, accounts: np.ndarray, of: int, rng: np.random.Generator) -> StepBlob:
    """One partition's accounts on one day."""
    here = np.sort(accounts[rng.random(len(accounts)) < 0.6])
    n, step = len(here), (FIRST_DAY + day) * 144 + 72
    member = here < MEMBERS
    requests = rng.geometric(0.04, n)
    columns: dict[str, pl.Series] = {
        "account": pl.Series([f"acct_{a:012d}" for a in here]), "tenant": pl.Series([f"org_{a:012d}" for a in here]),
        "created_ms": pl.Series((here.astype(np.int64) * 7_919_331) % 10**11 + 10**12),
        "billing": pl.Series((here % 6).astype(np.uint8)),
        "first_ms": pl.Series(step * STEP_MS + rng.integers(0, STEP_MS, n)),
        "last_ms": pl.Series(step * STEP_MS + rng.integers(0, STEP_MS, n)),
        "ticks": pl.Series(rng.integers(1, 1 << 59, n).astype(np.uint64)), "exemplar": pl.Series(["r"] * n),
    }  # fmt: skip
    columns |= {t: pl.Series((requests * rng.integers(1, 2_000, n)).astype(np.int64)) for t in TOTALS}
    columns["requests"] = pl.Series(requests.astype(np.int64))
    columns |= {s: pl.Series(rng.binomial(requests, 0.3).astype(np.int32)) for s in NAMES}
    links = []
    for kind, share in VALUES.items():
        size = max(int(of * share), 8)
        own = np.random.default_rng(CODE[kind]).integers(0, size, of)[here]
        links.append((np.arange(n), kind, numbers(kind, own)))
    for j in range(6):  # templates: some of every day, most of that day alone
        for kind in ("template_opening", "template_closing"):
            values = np.where(rng.random(n) < 0.3, here * 31 + j, rng.integers(0, 1 << 40, n))
            links.append((np.arange(n), kind, numbers(kind, values)))
    if day % 2:
        at = np.flatnonzero(member)
        links += [(at, "egress_prefix", np.full(len(at), 0xABCDE0, np.uint64)),
                  (at, "template_opening", np.full(len(at), 0x50, np.uint64))]  # fmt: skip
    table = pl.concat(
        pl.DataFrame({"account": at.astype(np.uint32), "kind": np.full(len(at), CODE[kind], np.uint8), "value": value,
                      "count": np.ones(len(at), np.int32)}) for at, kind, value in links
    ).unique().sort("account", "kind", "value")  # fmt: skip
    models = pl.DataFrame(schema={"account": pl.UInt32(), "model": pl.String(), "count": pl.Int32()})
    return StepBlob(step, partition, pl.DataFrame(columns), table, models)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--hunt", type=Path, help="hunt over this archive, made before, and make none")
    asked = parser.parse_args()
    if asked.hunt:
        follow(asked.hunt, asked.days)
        return
    assert len(KINDS) > len(VALUES)
    rng = np.random.default_rng(1)
    with TemporaryDirectory() as folder:
        path = Path(folder)
        archive, rows, spent = Archive(path, STEP_MS), 0, 0.0
        everybody = np.arange(asked.accounts)
        for day in range(asked.days + 1):  # the last one closes the others
            blobs = [day_blob(day, p, everybody[p :: asked.partitions], asked.accounts, rng)
                     for p in range(asked.partitions)]  # fmt: skip
            rows += sum(len(b.accounts) for b in blobs) if day < asked.days else 0
            began = time.process_time()
            archive.put(blobs)
            spent += time.process_time() - began
        days = [files for _, files in scan(path)][: asked.days]
        size = sum(f.stat().st_size for files in days for f in files)
        print(f"archive: {rows:,} account-days, {size / 1e6:,.0f} MB, {size / rows:.0f} bytes an account-day; "
              f"{spent / rows * 1e6:.1f} µs of processor time each to write")  # fmt: skip
        # in a process of its own: making the archive took memory of another kind
        command = [sys.executable, __file__, "--hunt", folder, "--days", str(asked.days)]
        subprocess.run(command, check=True)


def follow(path: Path, days: int) -> None:
    """Load what a hunt holds, and hunt from one of the campaign."""
    first = days_of(path)[0]
    began, cpu = time.perf_counter(), time.process_time()
    people = load(path, first, first + timedelta(days=days - 1))
    print(f"load: {time.perf_counter() - began:.1f} s ({time.process_time() - cpu:.1f} s of processor time), "
          f"{len(people):,} accounts")  # fmt: skip
    began, cpu = time.perf_counter(), time.process_time()
    found = hunt(people, [f"acct_{3:012d}"])
    mine = sum(int(f.account.removeprefix("acct_")) < MEMBERS for f in found.found)
    print(f"hunt: {time.perf_counter() - began:.1f} s ({time.process_time() - cpu:.1f} s of processor time), {mine} of "
          f"{MEMBERS} members, {len(found.found) - mine} others; {peak_rss_mb():,.0f} MB at most")  # fmt: skip


if __name__ == "__main__":
    main()
