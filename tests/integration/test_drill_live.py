"""A live drill: its campaign is found beside the traffic, or said to be missed; nothing is written."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
import servers
from typer.testing import CliRunner

from monitor import live
from monitor.__main__ import build
from monitor.drilling import Plan, Result, run_drill
from monitor.service import Signals
from monitor.settings import Settings
from monitor.simulate.api import simulate
from monitor.sketch import Keyring, Sketcher
from monitor.source.files import FileSource

HOUR = 3_600.0
ACCOUNTS, DAYS = 400, 0.5


def drilled(folder: Path, plan: Plan, kafka: dict[str, Any], log: Path | None = None, **changed: Any) -> list[Result]:
    """The rounds of a drill over ``log``, or over the topic of ``kafka`` from its beginning."""
    folder.mkdir()
    settings = Settings.model_validate({
        # few at a time: what a poll of a file spans is what an hour of a topic is
        "kafka": {"max_poll_records": 60, **kafka}, "checkpoint": {"path": str(folder / "state")},
        "archive": {"path": str(folder / "archive")},
        "alerts": {"sinks": ["file"], "file": str(folder / "alerts.ndjson")}, **changed,
    })  # fmt: skip
    told: list[Result] = []
    drill = run_drill(
        settings, Keyring.from_seed(1), plan, Signals(), port=0, told=told.append, earliest=True,
        log=None if log is None else lambda runner: FileSource([log], 4, listener=runner),
    )  # fmt: skip
    assert drill.results == told
    assert list(folder.iterdir()) == [], "a drill writes nothing"
    return told


@pytest.mark.parametrize("sketched", [False, True])
def test_a_campaign_is_found_beside_the_traffic_in_each_round(tmp_path: Path, sketched: bool) -> None:
    """Also where the gateway strips text and client-chosen strings before anybody reads them."""
    log = tmp_path / "log.ndjson"
    simulate(["B5"], log, accounts=ACCOUNTS, days=DAYS, seed=3, heavy_cap=40)
    if sketched:
        log = stripped(log)
    plan = Plan(within_s=2 * HOUR, every_s=2.5 * HOUR, study=400, rounds=2)
    rounds = drilled(tmp_path / "drill", plan, {}, log)
    print([r.after_s and f"HIGH after {r.after_s / HOUR:.1f} h" for r in rounds])
    assert [r.after_s is not None for r in rounds] == [True, True]
    assert all(r.accounts >= 10 and 0 < (r.after_s or 0) <= plan.within_s for r in rounds)
    assert rounds[1].began - rounds[0].began >= plan.every_s


def stripped(log: Path) -> Path:
    """The log as a gateway with the monitor's key sends it."""
    sketcher = Sketcher(Keyring.from_seed(1))
    events = [msgspec.json.decode(line) for line in log.read_bytes().splitlines()]
    out = log.with_name("sketched.ndjson")
    out.write_bytes(b"".join(msgspec.json.encode(e) + b"\n" for e in sketcher.sketch_many(events)))
    assert b'"prompt"' not in out.read_bytes()
    return out


@pytest.mark.kafka
def test_a_monitor_that_no_longer_finds_it_is_told_of(kafka_broker: str, tmp_path: Path) -> None:
    topic = f"drill-{uuid.uuid4().hex[:8]}"
    servers.create_topic(kafka_broker, topic, 4)
    live.produce_simulation(["B5"], f"kafka://{kafka_broker}/{topic}", accounts=100, days=2 * DAYS, seed=3, speed=None,
                            heavy_cap=40)  # fmt: skip
    plan = Plan(within_s=HOUR, study=200, rounds=1)
    # Few at a time here too. A partition has 1,000 records of 24 hours: with 500 a poll, and lag not known yet, the
    # study ended where one of 12 hours did, and the hour after it never came.
    kafka = {"brokers": [kafka_broker], "topic": topic, "group": topic}
    rounds = drilled(tmp_path / "drill", plan, kafka, campaigns={"enabled": False}, archive={})
    assert [r.after_s for r in rounds] == [None]
    with servers.admin(kafka_broker) as client:
        assert topic not in {str(group) for group in client.list_groups()}, "the monitor's own group is untouched"


def test_a_spool_and_an_unknown_scenario_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    key = {"keys": {"ring": [{"id": "k", "secret": "0123456789abcdef" * 4}]}}
    spool = {"source": {"read": "spool"}, "alerts": {"sinks": []}}
    cases = ((key | spool, [], "source.read"), (key, ["--scenarios", "S99"], "S99"), ({}, [], "keys.ring"))
    for sections, more, word in cases:
        (tmp_path / "m.yaml").write_text(json.dumps(sections))
        call = ["drill", "--live", "--config", str(tmp_path / "m.yaml"), "--port", "0", *more]
        result = CliRunner().invoke(build(), call)
        assert result.exit_code == 2, result.output
        assert word in result.output
    assert CliRunner().invoke(build(), ["drill"]).exit_code == 2
