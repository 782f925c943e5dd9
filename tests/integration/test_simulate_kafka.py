"""``monitor simulate --out kafka://…``: record times, keys, pacing, and the files beside."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import servers
from kafka import KafkaConsumer
from typer.testing import CliRunner

from monitor.__main__ import build


@pytest.mark.kafka
def test_records_carry_event_time_and_come_at_the_speed_asked_for(kafka_broker: str, tmp_path: Path) -> None:
    topic = servers.create_topic(kafka_broker, "simulated", 3)
    common = ("simulate", "S8", "--accounts", "20", "--days", "0.1", "--seed", "4", "--heavy-cap", "300")
    began = time.monotonic()
    said = CliRunner().invoke(build(), [
        *common, "--out", f"kafka://{kafka_broker}/{topic}", "--speed", "4000", "--context", str(tmp_path / "c.ndjson"),
        "--truth", str(tmp_path / "t.ndjson"), "--json",
    ])  # fmt: skip
    took = time.monotonic() - began
    assert said.exit_code == 0, said.output
    written = json.loads(said.stdout)
    assert CliRunner().invoke(build(), [*common, "--out", str(tmp_path / "f.ndjson")]).exit_code == 0
    lines = (tmp_path / "f.ndjson").read_bytes().split(b"\n")[:-1]
    expected = {json.loads(line)["request_id"]: line for line in lines}
    assert written["requests"] == len(expected)
    # no upper bound: a slow machine is late, and catches up
    assert took >= 0.9 * (written["last_ts"] - written["first_ts"]) / 4000
    consumer = KafkaConsumer(topic, bootstrap_servers=kafka_broker, auto_offset_reset="earliest",
                             consumer_timeout_ms=8_000, group_id=None)  # fmt: skip
    got = {}
    for record in consumer:
        request = json.loads(record.value)
        assert record.timestamp == round(request["completed_at"] * 1000)
        assert record.key == request["account_id"].encode()
        got[request["request_id"]] = record.value
        if len(got) == len(expected):
            break
    consumer.close()
    assert got == expected
    for name, beside in (("c", "f.context"), ("t", "f.truth")):
        assert (tmp_path / f"{name}.ndjson").read_bytes() == (tmp_path / f"{beside}.ndjson").read_bytes()


def test_a_broker_that_does_not_answer_is_said(tmp_path: Path) -> None:
    said = CliRunner().invoke(build(), ["simulate", "S8", "--accounts", "20", "--days", "0.1", "--heavy-cap", "300",
                                        "--out", "kafka://127.0.0.1:9/none"])  # fmt: skip
    assert said.exit_code == 3, said.output
    assert "127.0.0.1:9" in said.output.replace("\n", "")
