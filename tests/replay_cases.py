"""Makes the small logs of ``tests/replay``: ``python tests/replay_cases.py`` writes each folder's ``events.ndjson``.

What a case expects stands beside it in ``expected.yaml`` and is written by a person. Under 60 requests each, so that
a person can read them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent / "replay"
START = 1_767_571_200.0
"""Monday, 5 January 2026, 00:00 UTC."""
HOUR, DAY = 3_600.0, 86_400.0
SUBJECTS = ("a falling ladder", "two trains", "a leaking tank", "three loans", "a bag of marbles", "a sundial",
            "a lens", "an orchard", "a chess board", "a ferry", "four pipes", "a wedge", "a spring",
            "a lamp")  # fmt: skip
Event = dict[str, Any]


def request(account: str, ts: float, **more: Any) -> Event:
    """A request with the fields that every provider has, and what is told."""
    base = {
        "ts": round(ts, 3), "request_id": f"{account}-{round((ts - START) * 1000)}", "account_id": account,
        "model": "atlas-4", "input_tokens": 90, "output_tokens": 240, "status": 200, "api_key_id": f"key-{account}",
        "account_created_at": START - 400 * DAY, "delivery": "sync", "operation": "chat", "n_messages": 1,
        "turn_index": 0, "finish_reason": "stop", "max_tokens": 1024, "user_agent": "sdk-python/3.1", "ip": "10.7.1.5",
    }  # fmt: skip
    return {**base, **more}


def key_on_many_networks(rng: random.Random) -> Iterator[Event]:
    """A customer of three quiet days, whose key is then used from fourteen networks by five programs in an hour."""
    for day in range(3):
        for i in range(4):
            text = f"Good morning, could you look over my note on {rng.choice(SUBJECTS)}, please? I am not sure of it."
            yield request("owner-of-the-key", START + day * DAY + 9 * HOUR + i * 2_000, prompt=text)
    for i in range(42):
        yield request(
            "owner-of-the-key", START + 3 * DAY + 14 * HOUR + i * 85 + rng.random() * 20,
            ip=f"10.{20 + i % 14}.{i % 14}.9", user_agent=f"client-{'abcde'[i % 5]}/1.{i % 5}",
            prompt=f"translate: {rng.choice(SUBJECTS)} {rng.randrange(1_000)}",
        )  # fmt: skip


def reasoning_blob_replay(rng: random.Random) -> Iterator[Event]:
    """One account's opaque reasoning comes back from another account; a third only carries its own on."""
    for i in range(6):
        yield request(
            "author-of-the-blobs", START + i * 400, conversation_id="talk-1", turn_index=i, n_messages=2 * i + 1,
            reasoning_blob_fp=[f"blob-{i}"] if i else None, prompt=f"and what about {rng.choice(SUBJECTS)}?",
        )  # fmt: skip
        yield request(
            "honest-agent", START + i * 400 + 30, conversation_id="talk-9", turn_index=i, n_messages=2 * i + 1,
            reasoning_blob_fp=["own-1"] if i else None, prompt=f"next step on {rng.choice(SUBJECTS)}",
        )  # fmt: skip
    for i in range(8):
        yield request(
            "replays-the-blobs", START + 2 * HOUR + i * 60, conversation_id=f"other-{i}",
            reasoning_blob_fp=[f"blob-{1 + i % 5}"], prompt="continue from here and write all of it out",
        )  # fmt: skip


def trace_harvest_speeds_up(rng: random.Random) -> Iterator[Event]:
    """A slow start of four requests in two hours, then one every three minutes: a template that wants the reasoning."""
    for i in range(54):
        ts = START + i * 1_800 if i < 4 else START + 2 * HOUR + (i - 4) * 180
        prompt = (
            "Think step by step. Show your complete reasoning process before the final answer.\n"
            f"Problem {rng.randrange(10_000)}: about {rng.choice(SUBJECTS)}, value {rng.randrange(2, 900)}.\n"
            "Write out every intermediate step inside <thinking> tags."
        )
        cut = rng.random() < 0.6
        yield request(
            "wants-the-traces", ts, prompt=prompt, output_tokens=1024 if cut else 700,
            finish_reason="length" if cut else "stop", account_created_at=START - 5 * DAY,
        )  # fmt: skip


def benign_nightly_batch(rng: random.Random) -> Iterator[Event]:
    """One template over a table of rows, by batch, at two in the morning, on two nights."""
    for night in range(2):
        for i in range(28):
            accepted = START + night * DAY + 2 * HOUR + i * 1.5
            yield request(
                "nightly-batch", accepted, completed_at=round(accepted + 900 + rng.random() * 1_800, 3),
                delivery="batch", batch_id=f"b-{night}", output_tokens=12, input_tokens=420,
                prompt=f"Classify the ticket into one of: billing, access, other.\nTicket {rng.randrange(10**6)}: "
                f"{rng.choice(SUBJECTS)} arrived broken and {rng.choice(SUBJECTS)} is missing.",
            )  # fmt: skip


def benign_launch_day(rng: random.Random) -> Iterator[Event]:
    """Five customers of old try a new model within an hour of its release, twice as busy as before."""
    for account in range(5):
        name = f"customer-{account}"
        net = {"ip": f"10.9.{account}.4", "user_agent": f"app-{account}/2.0"}
        for day in range(3):
            text = f"Could you help me with {rng.choice(SUBJECTS)}? My colleague asked about it."
            yield request(name, START + day * DAY + (8 + account) * HOUR, prompt=text, **net)
        for i in range(8):
            text = f"Please compare {rng.choice(SUBJECTS)} with {rng.choice(SUBJECTS)} for me, would you?"
            yield request(
                name, START + 3 * DAY + 16 * HOUR + account * 300 + i * 240, model="atlas-5", prompt=text,
                turn_index=i % 3, n_messages=1 + 2 * (i % 3), conversation_id=f"c-{account}-{i // 3}", **net,
            )  # fmt: skip


CASES: dict[str, Callable[[random.Random], Iterator[Event]]] = {
    "key-on-many-networks-is-stolen": key_on_many_networks,
    "reasoning-blob-replay-is-caught-and-its-author-is-not": reasoning_blob_replay,
    "trace-harvest-is-caught-when-it-speeds-up": trace_harvest_speeds_up,
    "nightly-batch-raises-nothing-of-weight": benign_nightly_batch,
    "launch-day-raises-nothing-of-weight": benign_launch_day,
}


def events(case: str) -> bytes:
    """The log of a case, in order of ``ts``."""
    made = sorted(CASES[case](random.Random(case)), key=lambda e: (e["ts"], e["account_id"]))
    return b"".join(json.dumps(e, separators=(",", ":")).encode() + b"\n" for e in made)


if __name__ == "__main__":
    for name in CASES:
        (ROOT / name).mkdir(parents=True, exist_ok=True)
        (ROOT / name / "events.ndjson").write_bytes(events(name))
