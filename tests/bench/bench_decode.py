"""Decode alone, one thread: records a second, and where the time goes.

    python tests/bench/bench_decode.py [--records N] [--batch N] [--rounds N] [--profile full|quiet|strings|unknown]

Prints the best of the rounds, because other work on the machine can only add. Decides nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

import numpy as np

from monitor.decode import DecodeOptions, decode
from monitor.decode.columns import columns_of, contract_series
from monitor.decode.wire import read_row
from monitor.fields import REQUIRED
from monitor.records import RawBatch

WORDS = [f"word{i}" for i in range(5000)]


def event(i: int, rng: random.Random) -> dict[str, Any]:
    """A record of 46 fields and about 1.4 KB."""
    account = rng.randrange(100_000)
    return {
        "ts": 1_750_000_000 + i / 1000, "request_id": f"req-{i:012d}", "account_id": f"acct-{account:06d}",
        "model": "m-large", "input_tokens": rng.randrange(5000), "output_tokens": rng.randrange(2000), "status": 200,
        "completed_at": 1_750_000_003.5 + i / 1000, "org_id": f"org-{account % 997}", "project_id": f"p-{account % 31}",
        "billing_account_id": f"b-{account}", "api_key_id": f"key-{account}", "account_created_at": 1_740_000_000,
        "plan": "team", "billing_type": "prepaid", "auth_type": "key", "channel": "api", "region": "eu-1",
        "end_user_id": f"u-{rng.randrange(10**6)}", "content_policy": "full", "operation": "chat", "delivery": "sync",
        "model_served": "m-large-2", "cached_tokens": 10, "reasoning_tokens": 50, "latency_ms": 1234.5,
        "cost_usd": 0.0123, "finish_reason": "stop", "stream": False, "refused": False, "temperature": 0.7,
        "top_p": 0.95, "max_tokens": 1024, "n": 1, "logprobs": False, "tools": ["search", "python"], "n_messages": 5,
        "turn_index": 2, "input_kind": "user", "conversation_id": f"c-{i}",
        "prompt": " ".join(rng.choices(WORDS, k=54)), "ip": f"192.0.2.{account % 256}", "asn": 64500, "country": "NL",
        "user_agent": "sdk/1.0 python/3.11", "client_name": "sdk",
    }  # fmt: skip


def values_of(profile: str, records: int) -> list[bytes]:
    """The records of a profile; quiet has the required fields only, strings RFC 3339 times, unknown extra fields."""
    rng = random.Random(7)
    values = []
    for i in range(records):
        record = event(i, rng)
        if profile == "quiet":
            record = {k: record[k] for k in REQUIRED}
        elif profile == "strings":
            record |= {"ts": "2025-06-15T12:00:00.25Z", "completed_at": "2025-06-15T12:00:03.5+02:00"}
        elif profile == "unknown":
            record |= {"trace_id": "4bf92f3577b34da6", "pod": "gw-7", "retries": 0}
        values.append(json.dumps(record).encode())
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", choices=("full", "quiet", "strings", "unknown"), default="full")
    args = parser.parse_args()
    values = values_of(args.profile, args.records)
    batches = []
    for start in range(0, len(values), args.batch):
        part = values[start : start + args.batch]
        offset = np.arange(start, start + len(part), dtype=np.int64) + 10_000
        stamps = np.full(len(part), 1_750_001_000_000, np.int64)
        batches.append(RawBatch(part, np.zeros(len(part), np.int32), offset, stamps, {0: start + len(part)}))
    options = DecodeOptions(digest_key=b"bench")
    best: dict[str, float] = {}
    for _ in range(args.rounds):
        spent = {"json": 0.0, "columns": 0.0, "all": 0.0}
        for batch in batches:
            started = time.perf_counter()
            rows = [read_row(v) for v in batch.values]  # type: ignore[arg-type]  # no None among them
            parsed = time.perf_counter()
            spent["json"] += parsed - started
            if args.profile != "strings":
                contract_series(columns_of(rows))
                spent["columns"] += time.perf_counter() - parsed
            del rows
            started = time.perf_counter()
            decoded = decode(batch, options)
            spent["all"] += time.perf_counter() - started
            assert decoded.frame.height == len(batch)
        best = {k: min(v, best.get(k, v)) for k, v in spent.items()}
    size = sum(map(len, values)) / len(values)
    print(f"profile {args.profile}: {len(values)} records of {size:.0f} B, {len(json.loads(values[0]))} fields")
    for name, seconds in best.items():
        print(f"  {name:8} {seconds / len(values) * 1e6:6.2f} us a record")
    print(f"  {len(values) / best['all']:,.0f} records/s")


if __name__ == "__main__":
    main()
