"""``monitor doctor`` against real servers, and with each of them missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import servers
import typer
from typer.testing import CliRunner

from monitor.cli.doctor import doctor

KEY = "0123456789abcdef" * 4


def diagnose(tmp_path: Path, **sections: Any) -> tuple[int, dict[str, dict[str, str]], str]:
    file = tmp_path / "m.yaml"
    base = {
        "keys": {"ring": [{"id": "k", "secret": KEY}]}, "http": {"port": 0},
        "checkpoint": {"path": str(tmp_path / "s")},
    }  # fmt: skip
    file.write_text(json.dumps({**base, **sections}))
    app = typer.Typer()
    app.command("doctor")(doctor)
    result = CliRunner().invoke(app, ["--config", str(file), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    return result.exit_code, findings, result.output


@pytest.mark.kafka
@pytest.mark.redis7
def test_all_is_well_with_the_servers_there(kafka_broker: str, redis_url: str, tmp_path: Path) -> None:
    for topic in ("doctor-requests", "doctor-requests.dlq"):
        servers.create_topic(kafka_broker, topic, 3)
    kafka = {"brokers": kafka_broker, "topic": "doctor-requests"}
    code, findings, output = diagnose(tmp_path, kafka=kafka, redis={"url": redis_url})
    assert code == 0, output
    assert findings["kafka"]["status"] == "ok"
    assert "doctor-requests: 3 partitions" in findings["kafka"]["detail"]
    assert findings["redis"]["status"] == "ok"
    assert findings["rules"]["status"] == "ok"
    assert "CPUExecutionProvider" in findings["classifier"]["detail"]
    assert KEY not in output


@pytest.mark.kafka
def test_a_topic_that_is_not_there_fails_with_the_remedy(kafka_broker: str, tmp_path: Path) -> None:
    kafka = {"brokers": kafka_broker, "topic": "doctor-absent"}
    code, findings, _ = diagnose(tmp_path, kafka=kafka, alerts={"sinks": []})
    assert code == 1
    assert findings["kafka"]["status"] == "failed"
    assert "kafka.topic" in findings["kafka"]["remedy"]
    assert "redis" not in findings


def test_a_host_without_kafka_is_asked_for_its_spool_instead(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(KEY)
    (tmp_path / "archive").write_text("no folder")
    code, findings, output = diagnose(
        tmp_path, alerts={"sinks": ["file"], "file": str(tmp_path / "a.ndjson")}, source={"read": "spool"},
        ingest={"enabled": True, "to": "spool", "spool": str(tmp_path / "spool"), "port": 0,
                "token_file": str(tmp_path / "token")},
        archive={"path": str(tmp_path / "archive")},
    )  # fmt: skip
    assert code == 1, output
    assert not {"kafka", "redis"} & set(findings)
    assert [findings[name]["status"] for name in ("spool", "ingest", "archive")] == ["ok", "ok", "failed"]
    assert "archive.path" in findings["archive"]["remedy"]


def test_nothing_answers(tmp_path: Path) -> None:
    code, findings, _ = diagnose(tmp_path, kafka={"brokers": "127.0.0.1:1"}, redis={"url": "redis://127.0.0.1:1/0"})
    assert code == 3
    assert findings["kafka"]["status"] == findings["redis"]["status"] == "unreachable"
    assert "127.0.0.1:1" in findings["kafka"]["detail"]
    assert "127.0.0.1:1" in findings["redis"]["detail"]


def test_broken_rules_and_a_missing_model_are_named(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "a.yaml").write_text("id: a\nwhen: nothing_like_it > 3\n")
    code, findings, _ = diagnose(
        tmp_path, kafka={"brokers": "127.0.0.1:1"}, alerts={"sinks": []}, rules={"dirs": [str(rules)]},
        score={"classifier": {"model_dir": str(tmp_path / "no-model")}},
    )  # fmt: skip
    assert code == 3
    assert findings["rules"]["status"] == "failed"
    assert "a.yaml" in findings["rules"]["detail"]
    assert findings["classifier"]["status"] == "failed"
