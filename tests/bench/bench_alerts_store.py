"""What alerts and checkpoints cost here: ``pytest -s`` with this file. Times decide nothing, counts are asserted."""

from __future__ import annotations

import os
import time
from pathlib import Path

import polars as pl
import pytest
from alert_rows import POLICY, RULES, an_alert, frames

from monitor.alerts import AlertOptions, AlertStage, FileSink
from monitor.records import FIRING_SCHEMA, Checkpoint
from monitor.store import CheckpointStore, DirectoryStore
from monitor.store.redis_checkpoints import RedisCheckpointStore
from monitor.store.redis_link import RedisOptions, connect
from monitor.store.redis_sink import RedisSink

pytestmark = pytest.mark.slow


def show(what: str, count: float, unit: str, seconds: float) -> None:
    print(f"{what:<58} {count / seconds:>12,.0f} {unit}/s  ({seconds:.2f} s)")


def test_checkpoints(tmp_path: Path, redis_url: str) -> None:
    full = [os.urandom(8 << 20) for _ in range(4)]
    stores: dict[str, CheckpointStore] = {
        "directory": DirectoryStore(tmp_path), "redis": RedisCheckpointStore(RedisOptions(url=redis_url)),
    }  # fmt: skip
    for name, store in stores.items():
        began = time.perf_counter()
        store.save(Checkpoint(0, 1, 1, {"features": full}))
        show(f"checkpoint, {name}: save 4 blobs of 8 MB", 32, "MB", time.perf_counter() - began)
        began = time.perf_counter()
        back = store.load(0)
        show(f"checkpoint, {name}: load and verify", 32, "MB", time.perf_counter() - began)
        assert back is not None
        assert back.parts["features"] == full
        small = [os.urandom(50_000) for _ in range(30)]
        began = time.perf_counter()
        for n, blob in enumerate(small):
            store.save(Checkpoint(0, n + 2, 1, {"features": [blob], "ticks": [blob[:1_000]]}, {"features": 4 + n}))
        show(f"checkpoint, {name}: deltas of 50 KB on 32 MB", len(small), "saves", time.perf_counter() - began)
        again = store.load(0)
        assert again is not None
        assert len(again.parts["features"]) == 34


def test_alerts_to_sinks(tmp_path: Path, redis_url: str, valkey_url: str) -> None:
    alerts = [an_alert(n) for n in range(5_000)]
    for name, url in (("Redis", redis_url), ("Valkey", valkey_url)):
        sink = RedisSink(RedisOptions(url=url))
        began = time.perf_counter()
        sink.send(alerts)
        show(f"alerts to {name}, in batches", len(alerts), "alerts", time.perf_counter() - began)
        began = time.perf_counter()
        for alert in alerts[:1_000]:
            sink.send([alert])
        show(f"alerts to {name}, repeated, one a call", 1_000, "alerts", time.perf_counter() - began)
        assert sink.repeated == 1_000
        with connect(RedisOptions(url=url)) as client:
            assert client.xlen(sink.keys.stream_of("alert")) == len(alerts)
            used = client.info("memory")["used_memory"] / len(alerts)
        print(f"{name}: {used:,.0f} B an alert, everything included")
        sink.close()
    file = FileSink(tmp_path / "alerts.ndjson")
    began = time.perf_counter()
    file.send(alerts)
    file.flush()
    show("alerts to a file, fsync", len(alerts), "alerts", time.perf_counter() - began)
    file.close()


def test_stage() -> None:
    quiet, _ = frames([(f"a-{n:06d}", 1, []) for n in range(200_000)])
    none = pl.DataFrame(schema=pl.Schema(FIRING_SCHEMA))
    stage = AlertStage(POLICY, RULES, AlertOptions())
    stage.decide(*frames([(f"a-{n:06d}", 0, ["timing.metronome"]) for n in range(1_000)]))
    began = time.perf_counter()
    assert stage.decide(quiet, none) == []
    show("stage: rows of which 0.5 % are in an episode", len(quiet), "rows", time.perf_counter() - began)
    frame, firings = frames([(f"b-{n:05d}", 1, ["timing.metronome", "template.sweep"]) for n in range(20_000)])
    began = time.perf_counter()
    alerts = stage.decide(frame, firings)
    show("stage: rows that open an episode", len(alerts), "alerts", time.perf_counter() - began)
    again = frame.with_columns(pl.col("tick") + 1, pl.col("t_ms") + 10_000)
    began = time.perf_counter()
    assert stage.decide(again, firings) == []
    show("stage: rows that fire on in an open episode", len(again), "rows", time.perf_counter() - began)
    partitions = sorted(frame["partition"].unique().to_list())
    began = time.perf_counter()
    size = sum(len(stage.dump(partition)) for partition in partitions)
    print(f"stage: {size / 21_000:,.0f} B an open episode in a checkpoint ({time.perf_counter() - began:.2f} s)")
    assert len(alerts) == 20_000
