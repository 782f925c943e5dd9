"""A million accounts with ten million links: ``python tests/bench/bench_campaigns.py [ACCOUNTS] [ACTIVE]``.

Ordinary density: each account has ten links, of kinds and commonness as below, and a campaign in a thousand accounts.
Prints how many tenants hold a value, then the time and memory of the first rebuild over everybody and of further
steps in which ``ACTIVE`` accounts call: one between two rebuilds, and the next rebuild. A third of those who call
bring a prompt and templates that are new to them.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import polars as pl

from monitor.campaigns import CampaignStage, StepBlob
from monitor.campaigns.kinds import CODE
from monitor.campaigns.opinions import CODES
from monitor.campaigns.sums import NAMES, SHAPE
from monitor.campaigns.tally import TOTALS
from monitor.jit import warm_all

STEP_MS, FIRST = 600_000, 2_900_000
HOLDERS: dict[str, float] = {
    "payment": 1.2, "egress_prefix": 4.0, "egress_asn": 4_000.0, "contact_domain": 30.0, "referral": 40.0,
    "client_build": 2_000.0, "ja4": 3_000.0, "system_prompt": 2.5, "template_opening": 1.5, "template_closing": 2.5,
}  # fmt: skip
"""Accounts behind a value of each kind, in the mean: half of them far fewer, some far more (a Zipf law)."""
MEMBERS = 40
"""Accounts of each campaign: eight cards, five addresses, one client, four templates."""


def links_of(accounts: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Value of each account by kind; the last thousandth of the accounts are campaigns."""
    out = {}
    first = accounts - accounts // 1_000
    number = np.arange(accounts - first) // MEMBERS
    for kind, holders in HOLDERS.items():
        count = max(1, int(accounts / holders))
        # a third of the holders on values by a power law, the rest evenly
        value = rng.integers(0, count, accounts)
        common = rng.random(accounts) < 1 / 3
        value[common] = (count * rng.random(int(common.sum())) ** 3).astype(np.int64)
        spread = {"payment": 8, "egress_prefix": 5, "template_opening": 4}.get(kind)
        if spread is not None or kind == "client_build":
            value[first:] = count + number * 10 + rng.integers(0, spread or 1, accounts - first)
        out[kind] = value
    return out


def blob(step: int, rows: np.ndarray, values: dict[str, np.ndarray], created_ms: np.ndarray) -> StepBlob:
    """The accounts ``rows`` with all their links, as one partition publishes them."""
    n = len(rows)
    names = pl.Series(np.char.add("acct_", rows.astype(str)))
    zero, four = (pl.Series(np.full(n, value, np.int32)) for value in (0, 4))
    ones = {"requests": 4, "n_text": 4, "n_ok": 4, "n_turn": 4, "n_harvest": 1, "question": 1, "log_in": 60}
    at = (FIRST + step) * STEP_MS
    columns = {
        "account": names, "tenant": names, "created_ms": pl.Series(created_ms[rows]),
        "billing": pl.Series(np.full(n, 4, np.uint8)), "first_ms": pl.Series(np.full(n, at)),
        "last_ms": pl.Series(np.full(n, at + 1_000)), "ticks": pl.Series(np.ones(n, np.uint64)), "exemplar": names,
        **{name: pl.Series(np.full(n, ones.get(name, 0), np.int64)) for name in TOTALS},
        **{name: pl.Series(np.full(n, ones[name], np.int32)) if name in ones
           else four if name in SHAPE else zero for name in NAMES},
        **{code: pl.Series(np.full(n, 2, np.uint8)) for code in CODES},
    }  # fmt: skip
    links = pl.DataFrame(
        {
            "account": np.tile(np.arange(n, dtype=np.uint32), len(values)),
            "kind": np.repeat(np.array([CODE[k] for k in values], np.uint8), n),
            "value": np.concatenate([v[rows].astype(np.uint64) + np.uint64(1) for v in values.values()]),
            "count": np.full(n * len(values), 4, np.int32),
        }
    )
    models = pl.DataFrame({"account": np.arange(n, dtype=np.uint32), "model": ["m"] * n, "count": [4] * n},
                          schema={"account": pl.UInt32(), "model": pl.String(), "count": pl.Int32()})  # fmt: skip
    return StepBlob(FIRST + step, 0, pl.DataFrame(columns), links, models)


def peak_mb() -> float:
    """Largest resident memory so far, in 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main(accounts: int, active: int) -> None:
    """See the module."""
    warm_all()
    rng = np.random.default_rng(1)
    values = links_of(accounts, rng)
    created = (FIRST * STEP_MS - rng.integers(0, 900 * 86_400_000, accounts)).astype(np.int64)
    late = accounts - accounts // 1_000
    created[late:] = FIRST * STEP_MS - 10 * 86_400_000
    for kind, value in values.items():
        held = np.bincount(value)
        held = held[held > 0]
        high = np.quantile(held, 0.99)
        print(f"  {kind:17} {len(held):>9,} values; holders {held.mean():,.1f}, 99 %: {high:,.0f}, most {held.max():,}")
    stage = CampaignStage()
    whole = blob(0, np.arange(accounts), values, created)
    print(f"{accounts:,} accounts, {len(whole.links):,} links; made at {peak_mb():,.0f} MB")
    people = stage.population
    at = time.perf_counter()
    people.add(FIRST, [whole])
    del whole
    print(f"taken over in {time.perf_counter() - at:.1f} s, {peak_mb():,.0f} MB")
    at, cpu = time.perf_counter(), time.process_time()
    found = stage.step(FIRST, [])
    planted = -(-accounts // 1_000 // MEMBERS)
    print(
        f"clustered and judged in {time.perf_counter() - at:.1f} s ({time.process_time() - cpu:.1f} s of processors),"
        f" {peak_mb():,.0f} MB: {0 if found is None else len(found.findings)} candidates, {planted} planted"
    )
    for step, word in ((1, "between rebuilds"), (2, "between rebuilds"), (7, "with a rebuild")):
        rows = np.sort(rng.choice(accounts, active, replace=False))
        again = rng.choice(rows, active // 3, replace=False)
        for kind in ("system_prompt", "template_opening", "template_closing"):
            values[kind][again] = rng.choice(values[kind], len(again))
        given = blob(step, rows, values, created)
        at, cpu = time.perf_counter(), time.process_time()
        stage.step(FIRST + step, [given])
        print(f"a step of {active:,} accounts {word}: {time.perf_counter() - at:.1f} s "
              f"({time.process_time() - cpu:.1f} s of processors), {peak_mb():,.0f} MB")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, int(sys.argv[2]) if len(sys.argv) > 2 else 50_000)
