"""A request log that the simulator did not make: timing and lengths of real clients, text of real prompts.

``python tests/semi_real.py DATA OUT.ndjson`` composes it from a folder with ``traces_servegen_resampled_accounts``
and ``prompts_benign_*`` (Parquet). No public source joins account, time and text, so it is semi-real: each client of
the trace is an account that lives some days, and gets sessions of one kind of prompt. What the trace does not say
(addresses, payments, clients, keys) the log does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

START = 1_780_272_000.0
"""A Monday at midnight."""
DAY = 86_400.0
TRACE = "traces_servegen_resampled_accounts.parquet"
TEXT = ("prompts_benign_sharegpt.parquet", "prompts_benign_arena.parquet", "prompts_benign_instructionwild.parquet",
        "prompts_benign_pipeline_t0.parquet")  # fmt: skip
SHARES = (0.4, 0.6, 0.75, 1.0)
"""Cumulative shares of accounts that take their text from each file: people, people, people, pipelines."""


def data_folder() -> Path | None:
    """The data beside a clone, or None."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if all((folder / name).is_file() for name in (TRACE, *TEXT)) else None


def unit(*values: object) -> float:
    """A number in [0, 1) that hangs on ``values`` alone."""
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=8).digest()) / 2**64


def prompts(data: Path, number: int) -> list[list[dict[str, str | None]]]:
    """Sessions of a file: rows of a session in turn order, or rows of one template, or single rows."""
    frame = pl.read_parquet(data / TEXT[number]).with_row_index("row")
    own = pl.concat_str(pl.lit("row "), pl.col("row").cast(pl.String))
    frame = frame.with_columns(pl.coalesce("session_id", "group", own).alias("session")).sort("session", "turn", "row")
    keep = ["system", "prompt"]
    return [part.select(keep).to_dicts() for part in frame.partition_by("session", maintain_order=True)]


def arrivals(data: Path, accounts: int, days: int, per_day: int) -> pl.DataFrame:
    """``client``, ``at`` (epoch seconds), ``model``, tokens in and out, by event time.

    Each account lives ``days`` days of clients of the trace, one a day, thinned evenly to its own volume: at most
    ``per_day``, and a twentieth of that for the median account.
    """
    days_of = pl.read_parquet(data / TRACE).partition_by("account_id", maintain_order=True)
    parts = []
    for account in range(accounts):
        wanted = max(3, int(per_day * unit("volume", account) ** 4.3))
        for day in range(days):
            source = days_of[int(unit("client", account, day) * len(days_of))]
            part = source.gather_every(max(1, len(source) // wanted), int(unit("first", account, day) * 3))
            at = (START + DAY * day + pl.col("ts")).round(3).alias("at")
            parts.append(part.select(pl.lit(f"client-{account}").alias("client"), at, "model", "input_tokens",
                                     "output_tokens"))  # fmt: skip
    return pl.concat(parts).sort("at", "client")


def requests(data: Path, accounts: int, days: int, per_day: int) -> Iterator[dict[str, object]]:
    """Requests of contract 1 by event time, with text: whole sessions of people, or forty calls of one template."""
    text = [prompts(data, i) for i in range(len(TEXT))]
    state: dict[str, tuple[int, int, int]] = {}
    for i, (client, at, model, n_in, n_out) in enumerate(arrivals(data, accounts, days, per_day).iter_rows()):
        file = next(k for k, share in enumerate(SHARES) if unit("file", client) < share)
        session, turn, count = state.get(client, (-1, 0, 0))
        if session < 0 or turn >= len(text[file][session]) or (file == 3 and turn == 40):
            session, turn = int(unit(client, count) * len(text[file])), 0
        row = text[file][session][turn]
        state[client] = (session, turn + 1, count + 1)
        request = {"ts": at, "request_id": f"r{i}", "account_id": client, "model": model, "status": 200,
                   "input_tokens": n_in, "output_tokens": n_out, "prompt": row["prompt"]}  # fmt: skip
        if file < 3:
            request |= {"conversation_id": f"{client}/{count - turn}", "turn_index": turn}
        yield request | ({"system": row["system"]} if row["system"] else {})


def compose(data: Path, out: Path, accounts: int = 200, days: int = 3, per_day: int = 300) -> int:
    """Write the log; how many requests."""
    count = 0
    with out.open("w", encoding="utf-8") as file:
        for request in requests(data, accounts, days, per_day):
            file.write(json.dumps(request, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--per-day", type=int, default=300)
    given = parser.parse_args()
    made = compose(given.data, given.out, given.accounts, given.days, given.per_day)
    sys.stderr.write(f"{made} requests\n")
