"""A backtest over a Ray cluster of two nodes on this machine, one of them killed in the middle of a task."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.simulate import api

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
PARTITIONS = 8


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head and a second node, each with one processor."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).resolve().parents[2]), *sys.path]))
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def backtest(folder: Path, out: Path, engine: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "monitor", "backtest", str(folder / "log.ndjson"), "--alerts", str(out), "--quiet",
               "--partitions", str(PARTITIONS), "--context", str(folder / "log.context.ndjson"),
               "--engine", engine]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tasks_of(raylet: int) -> list[int]:
    """Processes of a node that are in a task now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            said = path.with_name("cmdline").read_bytes()  # ray::IDLE between two tasks, else the task's function
            if parent == raylet and said.startswith(b"ray::") and not said.startswith(b"ray::IDLE"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def test_the_same_alerts_with_a_node_killed_in_the_middle_of_a_task(nodes: Any, tmp_path: Path) -> None:
    api.simulate(["S1", "S10"], tmp_path / "log.ndjson", accounts=120, days=0.7, seed=5, heavy_cap=40)
    local = backtest(tmp_path, tmp_path / "local.ndjson", "local")
    assert local.wait(200) == 0, local.communicate()[0]
    second = next(node for node in nodes.worker_nodes)
    raylet = second.all_processes["raylet"][0].process.pid
    spread = backtest(tmp_path, tmp_path / "ray.ndjson", f"ray://{nodes.address}")
    end = time.monotonic() + 120
    while not (running := tasks_of(raylet)):
        assert spread.poll() is None, spread.communicate()[0]
        assert time.monotonic() < end, "no task came to the second node"
        time.sleep(0.02)
    os.kill(raylet, signal.SIGKILL)
    try:
        said, _ = spread.communicate(timeout=200)
    finally:
        spread.kill()
    assert spread.returncode == 0, said
    assert running
    whole = (tmp_path / "local.ndjson").read_bytes().splitlines()
    assert any(b'"kind":"campaign"' in line for line in whole)
    assert sorted((tmp_path / "ray.ndjson").read_bytes().splitlines()) == sorted(whole)


def test_a_cluster_that_does_not_answer_is_said(tmp_path: Path) -> None:
    api.simulate(["D1"], tmp_path / "log.ndjson", accounts=12, days=0.1, seed=5, heavy_cap=20)
    done = backtest(tmp_path, tmp_path / "ray.ndjson", "ray://127.0.0.1:1")
    try:
        said, _ = done.communicate(timeout=60)
    finally:
        done.kill()
    assert done.returncode == 3, said
    assert "no Ray cluster answers at 127.0.0.1:1" in said
