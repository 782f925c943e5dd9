"""Marked text goes through the whole pipeline; every byte that was written is searched, unpacked, for it.

With a leak switched on in one place the same search finds it there, and only there.
"""

from __future__ import annotations

import io
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import zstandard
from canaries import CANARIES, found_in, search
from prometheus_client import generate_latest
from spine import PARTITIONS, Record, batch, pipeline, polls, world
from spine_checks import edited

import monitor.features.state
from monitor.alerts import FileSink
from monitor.arrays import pack
from monitor.checkpointing import Checkpointer
from monitor.pipeline import Outcome, Pipeline
from monitor.records import RawBatch, Reject
from monitor.service.logs import JsonFormatter, TextFormatter
from monitor.source.dead_letters import DeadLetters
from monitor.store import DirectoryStore

C = CANARIES
LOG = logging.getLogger("monitor.test.no_text")
PLACES = {"alerts", "checkpoints", "dead-letters", "logs", "metrics", "summary"}


def marked() -> list[Record]:
    """Part of the log in which alerts open, every client-chosen string with its mark."""
    made = []
    for i, r in enumerate(world()[-1_300:]):
        record = json.loads(r.value)
        text = {name: f"{record.get(name) or ''} {C[name]} {record.get(name) or ''}" for name in ("prompt", "system")}
        change = {
            **text, "response": f"certainly. {C['response']}", "ip": C["ipv6" if i % 3 == 0 else "ip"],
            "tools": [C["tools"], "search"], "user_agent": C["user_agent"], "contact_domain": C["contact_domain"],
            "end_user_id": f"{C['end_user_id']}-{i % 5}", "client_name": C["user_agent"],
        }  # fmt: skip
        made.append(replace(r, value=edited(r.value, change)))
    return made


def broken() -> list[bytes | None]:
    """What is no request, or only nearly one, each with the mark."""
    good = json.loads(world()[-1].value)
    mark = C["broken"]

    def with_(**change: Any) -> bytes:
        return json.dumps({k: v for k, v in (good | change).items() if v is not ...}).encode()

    whole = with_(prompt=mark)
    return [
        mark.encode(), b'{"prompt": "' + mark.encode(), whole[:-7], b"[" + whole + b"]", whole + whole, None, b"",
        with_(prompt=[mark]), with_(prompt={"a": mark}), with_(ip=[mark]), with_(ip=mark), with_(tools=mark),
        with_(tools=[[mark]]), with_(user_agent={"x": mark}), with_(end_user_id=[mark]),
        with_(contact_domain=5, x=mark),
        with_(account_id=[mark]), with_(account_id=..., prompt=mark), with_(ts=mark), with_(status=mark),
        with_(input_tokens=mark), with_(request_id={mark: mark}), with_(operation=mark), with_(content_policy=mark),
        with_(sketch={"v": 1, "key_id": mark, "prompt": mark}), with_(sketch=mark), with_(moderation=[mark]),
        with_(country=mark), with_(finish_reason=mark), with_(reasoning_blob_fp=[mark]), with_(ja4=mark),
        with_(**{mark: mark}), with_(**{mark: {mark: [mark]}}), with_(conversation_id=mark * 20),
        with_(prompt=mark + "x" * (1 << 20)), whole.replace(mark.encode(), mark.encode() + b"\xff\xfe\xed\xa0\x80"),
        whole.replace(mark.encode(), mark.encode() + b"\\ud800"), whole.decode().encode("utf-16"),
        with_(completed_at=mark), with_(temperature=mark), with_(seed=mark), with_(n=mark), with_(asn=mark),
    ]  # fmt: skip


class _Letters:
    """A Kafka sender that writes to a file."""

    def __init__(self, path: Path):
        self.path = path

    def send(
        self, key: bytes | None, value: bytes | None, headers: Any = (), partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:  # fmt: skip
        with self.path.open("ab") as file:
            file.write(msgspec.msgpack.encode([key, value, list(headers)]) + b"\n")

    def flush(self, timeout_s: float = 60.0) -> None:
        pass


def everything(root: Path, leak: Callable[[Pipeline], None] = lambda p: None) -> Outcome:
    """Run marked records through a pipeline that writes wherever it can write, each place a folder of ``root``."""
    for place in PLACES:
        (root / place).mkdir(parents=True)
    handlers = [logging.FileHandler(root / "logs" / name, encoding="utf-8") for name in ("json", "text")]
    for handler, formatter in zip(handlers, (JsonFormatter(), TextFormatter()), strict=True):
        handler.setFormatter(formatter)
        logging.getLogger().addHandler(handler)
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.DEBUG)
    p = pipeline()
    keeper = Checkpointer(p, DirectoryStore(root / "checkpoints"))
    sink = FileSink(root / "alerts" / "out.ndjson")
    letters = DeadLetters(_Letters(root / "dead-letters" / "letters"), "requests")
    rejects: list[Reject] = []
    alerts = []
    try:
        for partition in range(PARTITIONS):
            keeper.restore(partition, 1)
        leak(p)
        for i, poll in enumerate([*polls(marked(), (500, 900))]):
            raw = batch(poll)
            outcome = p.process(raw if i else _with_broken(raw))
            alerts += outcome.alerts
            rejects += outcome.rejects
            letters.put(outcome.rejects)
            sink.send(outcome.alerts)
            for partition, offset in raw.next_offsets.items():
                keeper.save(partition, offset, 1)
            LOG.info("polled", extra={"fields": {"alerts": len(outcome.alerts), "next": str(raw.next_offsets)}})
        sink.flush()
        _fail(p)
        p.measure()
        (root / "metrics" / "metrics").write_bytes(generate_latest(p.observe.telemetry.registry))
        (root / "summary" / "counts").write_text(f"{p.observe.counts}\n{p.inactive()}\n{rejects}")
    finally:
        sink.close()
        logging.getLogger().setLevel(level)
        for handler in handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()
    return Outcome(alerts, tuple(rejects))


def _with_broken(raw: RawBatch) -> RawBatch:
    bad = broken()
    at = np.arange(len(bad)) + 10_000_000
    return RawBatch(
        [*raw.values, *bad],
        np.append(raw.partition, np.zeros(len(bad), np.int32)).astype(np.int32),
        np.append(raw.offset, at),
        np.append(raw.timestamp_ms, np.full(len(bad), -1)),
        raw.next_offsets,
    )


def _fail(p: Pipeline) -> None:
    """A step that fails on text: the traceback is logged, and says where, not what."""

    class Failing:
        def push(self, events: pl.DataFrame, trusted: bool) -> None:
            raise ValueError(f"could not parse {C['prompt']} of {C['ip']}") from KeyError(C["system"])

    held, p.ticks = p.ticks, Failing()  # type: ignore[assignment]  # it fails, as the test wants
    try:
        p.process(batch(marked()[:3]))
    except ValueError:
        LOG.exception("a step failed")
    finally:
        p.ticks = held


def test_nothing_that_a_client_wrote_is_written(tmp_path: Path) -> None:
    outcome = everything(tmp_path / "out")
    assert outcome.alerts, "no alert was written, so none was searched"
    assert len(outcome.rejects) >= 15
    assert {p.name for p in (tmp_path / "out").iterdir() if any(f.stat().st_size for f in p.rglob("*"))} == PLACES
    assert "a step failed" in (tmp_path / "out" / "logs" / "json").read_text()
    assert search(tmp_path / "out") == {}


# --------------------------------------------------------------------------------- the search can find it


def _leak_state(m: pytest.MonkeyPatch) -> Callable[[Pipeline], None]:
    def leaky(kind: str, version: int, arrays: Any, values: Any = None) -> bytes:
        return pack(kind, version, {**arrays, "note": np.frombuffer(C["prompt"].encode(), np.uint8)}, values)

    m.setattr(monitor.features.state, "pack", leaky)
    return lambda p: None


def _leak_open_ticks(m: pytest.MonkeyPatch) -> Callable[[Pipeline], None]:
    """A column of the open ticks that holds the raw user agent: an Arrow file within a packed blob."""

    def leak(p: Pipeline) -> None:
        inner = p.ticks.push
        raw = pl.lit(C["user_agent"]).alias("plan")
        m.setattr(type(p.ticks), "push", lambda self, events, trusted=False: inner(events.with_columns(raw), trusted))

    return leak


def _leak_alert(m: pytest.MonkeyPatch) -> Callable[[Pipeline], None]:
    m.setattr(Pipeline, "exemplars", lambda self, partition, subject, until_ms: [C["end_user_id"]])
    return lambda p: None


def _leak_log(m: pytest.MonkeyPatch) -> Callable[[Pipeline], None]:
    return lambda p: LOG.warning("slow request from %s", C["ip"])


def _leak_metric(m: pytest.MonkeyPatch) -> Callable[[Pipeline], None]:
    return lambda p: p.observe.telemetry.rejects.labels(C["tools"]).inc()


def _leak_letter(m: pytest.MonkeyPatch) -> Callable[[Pipeline], None]:
    inner = DeadLetters.put
    m.setattr(DeadLetters, "put", lambda self, rejects: inner(self, [replace(r, field=C["broken"]) for r in rejects]))
    return lambda p: None


def _leak_summary(m: pytest.MonkeyPatch) -> Callable[[Pipeline], None]:
    return lambda p: p.observe.counts.fields.add(C["contact_domain"])


@pytest.mark.parametrize(
    ("switch", "places", "canary"),
    [
        (_leak_state, {"checkpoints"}, "prompt"),
        (_leak_open_ticks, {"checkpoints"}, "user_agent"),
        (_leak_alert, {"alerts", "checkpoints"}, "end_user_id"),
        (_leak_log, {"logs"}, "ip"),
        (_leak_metric, {"metrics"}, "tools"),
        (_leak_letter, {"dead-letters"}, "broken"),
        (_leak_summary, {"summary"}, "contact_domain"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_leak_is_found_where_it_is(
    switch: Callable[[pytest.MonkeyPatch], Callable[[Pipeline], None]],
    places: set[str],
    canary: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything(tmp_path / "out", switch(monkeypatch))
    hits = search(tmp_path / "out")
    assert set(hits) == places
    assert all(f"{canary} (plain)" in found for found in hits.values())


def _packings() -> Iterator[tuple[str, bytes]]:
    text = C["system"]
    frame, ipc = pl.DataFrame({"a": [text, "b"]}), io.BytesIO()
    frame.write_ipc(ipc, compression="zstd")
    yield (
        "zstd in msgpack in zstd",
        zstandard.compress(msgspec.msgpack.encode({"x": [zstandard.compress(text.encode())]})),
    )
    yield "compressed Arrow", ipc.getvalue()
    yield "compressed Arrow in msgpack", msgspec.msgpack.encode([1, ipc.getvalue()])
    yield "escaped JSON", json.dumps({"t": text}).replace("-", "\\u002d").encode()
    yield "zlib", zlib.compress(text.encode())
    yield "utf-16", text.encode("utf-16")
    yield "hex", text.encode().hex().encode()


@pytest.mark.parametrize(("name", "data"), [*_packings()], ids=lambda v: v if isinstance(v, str) else "")
def test_the_search_unpacks(name: str, data: bytes) -> None:
    assert any(hit.startswith("system") for hit in found_in(data)), name
