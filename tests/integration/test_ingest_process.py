"""``monitor ingest`` and ``monitor run`` as processes: killed after a 202 nothing is lost; what is posted is scored."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import foreign
import pytest
from processes import SECRET, TOKEN, Process, wait
from spine import world

from monitor.source.spool_source import SpoolSource

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def killed_again_and_again(tmp_path: Path, lives: int, *defect: str) -> tuple[Counter[str], set[str]]:
    """Post from four threads while the process is killed at random; ids in the spool, and those acknowledged."""
    chance = random.Random(1)
    record = json.loads(foreign.lines("litellm")[1])
    acknowledged: set[str] = set()
    lock, counter = threading.Lock(), iter(range(10**9))
    for _ in range(lives):
        member = Process(tmp_path, [str(HERE / "ingest_member.py"), "SETTINGS", *defect])
        stop = threading.Event()

        def poster(member=member, stop=stop):
            while not stop.is_set():
                with lock:
                    ids = [f"id-{next(counter)}" for _ in range(3)]
                team = {**record["metadata"], "user_api_key_team_id": f"team-{hash(ids[0]) % 9}"}
                body = json.dumps([record | {"litellm_call_id": i, "metadata": team} for i in ids]).encode()
                try:
                    if member.post(body, "litellm") == 202:
                        with lock:
                            acknowledged.update(ids)
                except (OSError, http.client.HTTPException):
                    return  # it was killed before it answered: nobody was told anything

        threads = [threading.Thread(target=poster) for _ in range(4)]
        before = len(acknowledged)
        for thread in threads:
            thread.start()
        while len(acknowledged) < before + 30:
            assert member.process.poll() is None
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        assert member.end(signal.SIGKILL) == -signal.SIGKILL
        stop.set()
        for thread in threads:
            thread.join(60)
    Process(tmp_path, [str(HERE / "ingest_member.py"), "SETTINGS"]).end()  # mends the torn tails
    source = SpoolSource(tmp_path / "spool", 3)
    found: Counter[str] = Counter()
    while len(batch := source.poll(1_000, 0.0)):
        found.update(json.loads(value)["request_id"] for value in batch.values if value is not None)
    source.close()
    return found, acknowledged


def test_killed_after_a_202_it_has_lost_nothing(tmp_path):
    found, acknowledged = killed_again_and_again(tmp_path, 3)
    assert len(acknowledged) >= 90
    assert acknowledged - found.keys() == set()
    assert max(found.values()) == 1


def test_the_check_sees_an_answer_that_is_given_too_early(tmp_path):
    found, acknowledged = killed_again_and_again(tmp_path, 1, "early")
    assert acknowledged - found.keys()


def test_what_is_posted_is_scored_once_over_a_restart(tmp_path):
    values = [record.value for record in world(accounts=20, days=0.5)][:1_200]
    half = len(values) // 2
    arguments = ["-m", "monitor", "run", "--config", "SETTINGS"]
    first = Process(tmp_path, arguments)
    assert first.post(b"\n".join(values[:half]), "native") == 202
    wait(lambda: first.metric("abusemon_requests_decoded_total") == half, first)
    assert first.end() == 0, "it drains"
    second = Process(tmp_path, arguments)
    assert second.post(b"\n".join(values[half:]), "auto") == 202
    wait(lambda: second.metric("abusemon_requests_decoded_total") == len(values) - half, second)
    time.sleep(1.5)
    assert second.metric("abusemon_requests_decoded_total") == len(values) - half, "no row of the first life again"
    sent_twice = len(values) - len(set(values))
    again = second.metric("abusemon_duplicates_total")
    assert again <= sent_twice
    assert second.end() == 0
    committed = json.loads((tmp_path / "spool" / "committed.json").read_bytes())
    assert sum(committed["offsets"].values()) == len(values)
    assert committed["generation"] == 2
    text = b"".join(p.read_bytes() for p in (tmp_path / "spool").rglob("*.seg"))
    prompt = next(p for v in values if (p := json.loads(v).get("prompt", ""))[:1].isascii() and len(p) > 20)
    assert prompt[:20].encode() not in text
    assert any(prompt[:20].encode() in v for v in values)


def test_a_port_that_is_taken_is_said_and_ends_it(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = os.environ | {
            "MONITOR__INGEST__PORT": str(taken.getsockname()[1]), "MONITOR__INGEST__TOKEN": TOKEN,
            "MONITOR__INGEST__TO": "spool", "MONITOR__INGEST__SPOOL": str(tmp_path / "s"),
            "MONITOR__KEYS__RING": json.dumps([{"id": "k1", "secret": SECRET}]), "MONITOR__HTTP__ENABLED": "false",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "monitor", "ingest"], env=environment, capture_output=True, timeout=400
        )
    assert done.returncode == 2
    assert b"ingest.port" in done.stderr
    del environment["MONITOR__INGEST__TOKEN"]
    done = subprocess.run(
        [sys.executable, "-m", "monitor", "ingest"], env=environment, capture_output=True, timeout=400
    )
    assert done.returncode == 2
    assert b"ingest.token_file" in done.stderr
