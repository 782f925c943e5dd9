"""``config`` and ``doctor`` as a person calls them: output, exit codes, no secret shown."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.cli import config, doctor
from monitor.cli.doctor import Finding, Probe, doctor_command, exit_code, run_probes
from monitor.errors import DependencyDown, MonitorError
from monitor.settings import Settings, example_yaml, json_schema, load_settings, masked

SECRET = "correct-horse-battery-staple-0123456789"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    return str(file)


def test_show_is_yaml_that_loads_again_and_hides_secrets(runner: CliRunner, tmp_path: Path) -> None:
    file = write(tmp_path, f"kafka: {{topic: t1}}\nredis: {{password: {SECRET}}}\n")
    shown = runner.invoke(config.app, ["show", "--config", file])
    assert shown.exit_code == 0
    assert SECRET not in shown.output
    tree = yaml.safe_load(shown.output)
    assert (tree["kafka"]["topic"], tree["redis"]["password"]) == ("t1", "**********")
    assert json.loads(runner.invoke(config.app, ["show", "-c", file, "--json"]).output) == tree
    plain = runner.invoke(config.app, ["show"])
    again = load_settings(write(tmp_path, plain.output), {})
    assert again == Settings()


def test_show_takes_the_environment(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONITOR__KAFKA__TOPIC", "from-env")
    assert "topic: from-env" in runner.invoke(config.app, ["show"]).output


def test_check_lists_every_problem_and_exits_2(runner: CliRunner, tmp_path: Path) -> None:
    file = write(tmp_path, "kafka:\n  topc: x\nredis:\n  protocol: 7\n")
    text = runner.invoke(config.app, ["check", "-c", file])
    assert text.exit_code == 2
    assert text.stdout == ""
    assert text.stderr.splitlines() == [
        f"{file}:2: kafka.topc: is not a setting; did you mean 'topic'?",
        f"{file}:4: redis.protocol: input should be 2 or 3, not 7",
    ]
    as_json = runner.invoke(config.app, ["check", "-c", file, "--json"])
    assert as_json.exit_code == 2
    assert [(p["line"], p["field"]) for p in json.loads(as_json.stdout)["problems"]] == [
        (2, "kafka.topc"), (4, "redis.protocol"),
    ]  # fmt: skip


def test_check_demands_what_run_demands_unless_told(runner: CliRunner, tmp_path: Path) -> None:
    bare = runner.invoke(config.app, ["check"])
    assert (bare.exit_code, "keys.ring" in bare.stderr) == (2, True)
    assert runner.invoke(config.app, ["check", "--no-run"]).exit_code == 0
    file = write(tmp_path, f"keys: {{ring: [{{id: a, secret: {SECRET}}}]}}\n")
    good = runner.invoke(config.app, ["check", "-c", file])
    assert (good.exit_code, good.stdout.startswith("ok: ")) == (0, True)
    away = write(tmp_path, "keys: {ring: [{id: a, secret_file: /run/secrets/absent}]}\n")
    assert runner.invoke(config.app, ["check", "-c", away]).exit_code == 2
    assert runner.invoke(config.app, ["check", "-c", away, "--no-secrets"]).exit_code == 0


def test_a_file_that_is_not_there_exits_2(runner: CliRunner) -> None:
    for command in ("show", "check"):
        result = runner.invoke(config.app, [command, "-c", "absent.yaml"])
        assert (result.exit_code, result.stderr) == (2, "absent.yaml: can't be read: No such file or directory\n")


def test_schema_and_example(runner: CliRunner) -> None:
    assert json.loads(runner.invoke(config.app, ["schema"]).stdout) == json_schema()
    assert runner.invoke(config.app, ["example"]).stdout == example_yaml()


def down() -> Finding:
    raise DependencyDown("no broker answers at b:9092")


def refuse() -> Finding:
    raise ConnectionRefusedError(111, "Connection refused")


def odd() -> Finding:
    raise MonitorError("the model's hash differs from its manifest")


def slow() -> Finding:
    time.sleep(30)
    return Finding("ok", "")


def test_each_way_a_probe_can_end() -> None:
    fine = Finding("ok", "3 brokers")
    probes = [Probe("a", lambda: fine), Probe("b", down), Probe("c", refuse), Probe("d", odd), Probe("e", slow, 0.05)]
    found = run_probes(probes)
    assert [(f.name, f.status) for f in found] == [
        ("a", "ok"), ("b", "unreachable"), ("c", "unreachable"), ("d", "failed"), ("e", "unreachable"),
    ]  # fmt: skip
    assert all(f.detail for f in found)
    assert all(f.remedy for f in found if f.status != "ok")
    assert exit_code(found) == 3
    assert exit_code([found[0], found[3]]) == 1
    assert exit_code([found[0], Finding("warning", "w", "r")]) == 0


def test_a_defect_of_a_probe_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_probes([Probe("x", lambda: Finding("ok", str(1 // 0)))])


def make(*probes: Probe) -> typer.Typer:
    app = typer.Typer()
    app.command("doctor")(doctor_command(lambda settings: probes))
    return app


def test_doctor_renders_and_exits(runner: CliRunner, tmp_path: Path) -> None:
    text = f"keys: {{ring: [{{id: a, secret: {SECRET}}}]}}\nhttp: {{port: 0}}\ncheckpoint: {{path: {tmp_path / 's'}}}\n"
    file = write(tmp_path, text)
    good = runner.invoke(make(Probe("kafka", lambda: Finding("ok", "3 brokers"))), ["-c", file])
    assert good.exit_code == 0, good.output
    lines = good.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "packages"], ["ok", "settings"], ["ok", "checkpoints"], ["ok", "http"], ["ok", "kafka"],
    ]  # fmt: skip
    assert list((tmp_path / "s").iterdir()) == [], "the probe's file is gone"
    bad = runner.invoke(make(Probe("kafka", down)), ["-c", file, "--json"])
    assert bad.exit_code == 3
    body = json.loads(bad.stdout)
    assert (body["exit_code"], body["findings"][-1]["detail"]) == (3, "no broker answers at b:9092")
    assert SECRET not in good.output + bad.output


def test_doctor_without_a_key_fails_and_with_bad_settings_exits_2(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(make(), [])
    assert result.exit_code == 1
    assert "keys.ring is empty" in result.stdout
    result = runner.invoke(make(), ["-c", write(tmp_path, "x: 1\n")])
    assert (result.exit_code, result.stdout) == (2, "")


def test_doctor_sees_a_taken_port_and_a_directory_it_may_not_write(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = {"MONITOR__HTTP__PORT": str(port), "MONITOR__CHECKPOINT__PATH": str(blocked / "state")}
        found = {f.name: f for f in run_probes(list(doctor.local_probes(load_settings(None, env))))}
    assert (found["http"].status, found["checkpoints"].status) == ("warning", "failed")
    redis = load_settings(None, {"MONITOR__CHECKPOINT__STORE": "redis", "MONITOR__HTTP__ENABLED": "false"})
    assert [probe.name for probe in doctor.local_probes(redis)] == ["packages", "settings"]
    assert masked(redis)["checkpoint"]["store"] == "redis"


def test_putting_the_command_line_together_again_adds_nothing_to_it():
    once = typer.main.get_command(build())
    again = typer.main.get_command(build())
    assert sorted(once.commands) == sorted(again.commands)
    assert len(build().registered_commands) == len({c.name for c in build().registered_commands})
