"""Settings: defaults, precedence, secrets, and all problems at once with their places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import SecretStr, ValidationError

from monitor import yamlfile
from monitor.errors import BadInput
from monitor.settings import Settings, example_yaml, json_schema, load_settings, masked

ROOT = Path(__file__).resolve().parents[2]
SECRET = "correct-horse-battery-staple-0123456789"


def refused(tmp_path: Path, text: str, env: dict[str, str] | None = None, **options: Any) -> list[str]:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(BadInput) as caught:
        load_settings(file, env or {}, **options)
    return [str(p).removeprefix(f"{tmp_path}/") for p in caught.value.problems]


def test_the_example_shows_every_knob_and_equals_the_defaults() -> None:
    committed = (ROOT / "deploy/monitor.yaml").read_text()
    assert committed == example_yaml(), "write it again: monitor config example > deploy/monitor.yaml"
    assert load_settings(ROOT / "deploy/monitor.yaml", {}) == Settings()
    assert yamlfile.parse(committed).data == masked(Settings())


def test_every_setting_says_what_it_means() -> None:
    schema = json_schema()
    for name, definition in {"Settings": schema, **schema["$defs"]}.items():
        assert definition["additionalProperties"] is False, name
        for field, entry in definition["properties"].items():
            section = schema["$defs"].get(entry.get("$ref", "").removeprefix("#/$defs/"), {})
            assert len(entry.get("description") or section["description"]) > 8, f"{name}.{field}"
            assert "default" in entry or name == "KeySettings", f"{name}.{field}"


def test_the_schema_accepts_the_example_and_refuses_what_the_loader_refuses() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(yamlfile.parse(example_yaml()).data)) == []
    for bad in ({"kafkas": {}}, {"kafka": {"assignor": "lazy"}}, {"score": {"anomaly": {"trees": 0}}}):
        assert list(validator.iter_errors(bad)), bad


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().kafka.topic = "x"  # type: ignore[misc]  # what the test is about


def test_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("kafka: {topic: from-file, group: g}\nscore: {anomaly: {trees: 7}}\n")
    env = {
        "MONITOR__KAFKA__TOPIC": "from-env",
        "MONITOR__KAFKA__BROKERS": "a:1, b:2",
        "MONITOR__SCORE__ANOMALY__HEIGHT": "8",
        "MONITOR__KAFKA__SSL_CHECK_HOSTNAME": "false",
        "MONITOR__KEYS__RING": f"[{{id: k1, secret: {SECRET}}}]",
        "MONITOR__LOG__LEVEL": "",
        "MONITOR__KAFKA__CLIENT_RACK": "null",
        "MONITOR__REDIS__PASSWORD": "null",
        "MONITORING": "other",
        "HOME": "/nowhere",
    }
    settings = load_settings(file, env)
    assert settings.kafka.topic == "from-env"
    assert settings.kafka.group == "g"
    assert settings.kafka.brokers == ("a:1", "b:2")
    assert settings.kafka.ssl_check_hostname is False
    assert (settings.score.anomaly.trees, settings.score.anomaly.height) == (7, 8)
    assert settings.keys.ring[0].secret == SecretStr(SECRET)
    assert settings.log.level == "info"
    assert settings.kafka.client_rack is None
    assert settings.redis.password == SecretStr("null"), "a password may be the word null"


def test_this_process_s_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONITOR__KAFKA__TOPIC", "from-this-process")
    assert load_settings().kafka.topic == "from-this-process"


def test_all_problems_at_once_each_with_its_line_and_remedy(tmp_path: Path) -> None:
    text = """\
kafka:
  broker: [a:1]
  brokers: a
  assignor: coperative
  session_timeout_ms: abc
redis:
  url: redis://u:hunter2@h/0
tick_s: 3
features: {tick_s: 7}
keys:
  ring:
    - id: "a b"
    - id: x
      secret_file: /nonexistent/secret
alerts: {sinks: "file, webhok"}
http: 5
"""
    env = {"MONITOR__REDIS__PROTOCOL": "9", "MONITOR__KAFKA__TOPICS": "x", "MONITOR__SCORE__ANOMALY__TREE": "1"}
    found = refused(tmp_path, text, env)
    expected = [
        "m.yaml:2: kafka.broker: is not a setting; did you mean 'brokers'?",
        "m.yaml:3: kafka.brokers[0]: 'a' is not host:port",
        "m.yaml:4: kafka.assignor: input should be 'cooperative' or 'eager', not 'coperative'; did you mean "
        "'cooperative'?",
        "m.yaml:5: kafka.session_timeout_ms: input should be a valid integer, unable to parse string as an integer, "
        "not 'abc'",
        "m.yaml:7: redis.url: holds a password, which would be shown and logged: use password_file",
        "m.yaml:8: tick_s: is not a setting; did you mean 'features.tick_s'?",
        "m.yaml:9: features.tick_s: must divide a minute: windows are made of minutes",
        "m.yaml:12: keys.ring[0].id: string should match pattern '^[A-Za-z0-9_.-]+$', not 'a b'",
        "m.yaml:14: keys.ring[1].secret_file: '/nonexistent/secret' can't be read: No such file or directory",
        "environment: MONITOR__KAFKA__TOPICS: is not a setting; did you mean 'MONITOR__KAFKA__TOPIC'?",
        "environment: MONITOR__REDIS__PROTOCOL: input should be 2 or 3, not '9'",
    ]
    for line in expected:
        assert line in found
    assert "hunter2" not in "\n".join(found)
    assert any(line.startswith("m.yaml:16: http:") for line in found)


def test_a_field_that_is_wrong_hides_no_check_of_another_section(tmp_path: Path) -> None:
    found = refused(tmp_path, "redis: {protocol: 9}\nkafka: {security_protocol: SASL_SSL}\n")
    assert found == [
        "m.yaml:1: redis.protocol: input should be 2 or 3, not 9",
        "m.yaml:2: kafka.sasl_mechanism: is needed by SASL_SSL",
    ]


def test_a_field_that_is_wrong_makes_no_false_finding_in_its_section(tmp_path: Path) -> None:
    found = refused(tmp_path, "kafka: {security_protocol: SASL_TLS, sasl_mechanism: PLAIN}\n")
    assert len(found) == 1
    assert "kafka.security_protocol" in found[0]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("kafka: {sasl_mechanism: PLAIN}", "kafka.sasl_mechanism"),
        ("kafka: {security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_password: x}", "kafka.sasl_username"),
        ("kafka: {security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_username: x}", "kafka.sasl_password_file"),
        ("kafka: {security_protocol: SASL_SSL, sasl_mechanism: OAUTHBEARER}", "kafka.oauth_token_file"),
        ("kafka: {ssl_certfile: c.pem}", "kafka.ssl_certfile"),
        ("kafka: {heartbeat_interval_ms: 20000}", "kafka.heartbeat_interval_ms"),
        ("kafka: {session_timeout_ms: 400000}", "kafka.session_timeout_ms"),
        ("kafka: {context_topic: requests}", "kafka.topic"),
        ("kafka: {brokers: []}", "kafka.brokers"),
        ("kafka: {brokers: 'h:0'}", "kafka.brokers[0]"),
        ("kafka: {alerts_topic: a}", "kafka.alerts_topic"),
        ("alerts: {sinks: kafka}", "kafka.alerts_topic"),
        ("alerts: {sinks: file}", "alerts.file"),
        ("alerts: {sinks: webhook}", "alerts.webhook"),
        ("alerts: {webhook: {url: 'ftp://x'}}", "alerts.webhook.url"),
        ("redis: {url: 'http://h'}", "redis.url"),
        ("redis: {ssl_cafile: ca.pem}", "redis.ssl_cafile"),
        ("redis: {ssl_keyfile: k.pem, url: 'rediss://h'}", "redis.ssl_certfile"),
        ("features: {epoch_s: 3605}", "features.epoch_s"),
        ("features: {lateness_s: .inf}", "features.lateness_s"),
        ("score: {classifier: {require_gpu: true, providers: cpu}}", "score.classifier.require_gpu"),
        ("score: {classifier: {buckets: '256,64'}}", "score.classifier.buckets"),
        ("keys: {ring: [{id: a}]}", "keys.ring[0].secret_file"),
        ("keys: {ring: [{id: a, secret: short}]}", "keys.ring[0].secret"),
        (f"keys: {{ring: [{{id: a, secret: {SECRET}}}, {{id: a, secret: {SECRET}}}]}}", "keys.ring"),
        ("keys: {ring: [{id: a, secret_file: f, active_from: 2026-01-01}]}", "keys.ring[0].active_from"),
        ("[1, 2]", "must be a mapping"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, text: str, field: str) -> None:
    found = refused(tmp_path, text, read_secrets=False)
    assert any(f" {field}" in line for line in found), found
    assert all("m.yaml:1:" in line for line in found)


def test_secrets_come_from_files_and_are_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    hook = tmp_path / "hook"
    hook.write_text("https://hooks.example/T123-token\n")
    file = tmp_path / "m.yaml"
    file.write_text(
        f"redis: {{password_file: {secret}}}\nkeys: {{ring: [{{id: a, secret_file: {secret}}}]}}\n"
        f"alerts: {{webhook: {{url_file: {hook}}}}}\n"
    )
    settings = load_settings(file, {})
    assert settings.redis.password == SecretStr(SECRET)
    assert settings.keys.ring[0].secret == SecretStr(SECRET)
    assert settings.alerts.webhook.url == SecretStr("https://hooks.example/T123-token")
    shown = json.dumps(masked(settings)) + repr(settings) + str(settings)
    assert SECRET not in shown
    assert "T123-token" not in shown
    assert load_settings(file, {}, read_secrets=False).redis.password is None


def test_secret_files_that_do_not_serve(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "big").write_text("x" * 70_000)
    for name, word in (
        ("empty", "is empty"),
        ("binary", "is not UTF-8"),
        ("big", "over 64 KiB"),
        ("no", "No such file"),
    ):
        found = refused(tmp_path, f"redis:\n  password_file: {tmp_path / name}\n")
        assert len(found) == 1
        assert "m.yaml:2: redis.password_file" in found[0]
        assert word in found[0]
    (found,) = refused(tmp_path, 'redis:\n  password_file: "a\\0b"\n')
    assert "null byte" in found
    (tmp_path / "short").write_text("short")
    found = refused(tmp_path, f"keys: {{ring: [{{id: a, secret_file: {tmp_path / 'short'}}}]}}\n")
    assert "shorter than 32 characters" in found[0]
    found = refused(tmp_path, f"redis: {{password: x, password_file: {tmp_path / 'short'}}}\n")
    assert "and password are both set" in found[0]


def test_a_value_of_any_length_makes_a_problem_of_some_lines(tmp_path: Path) -> None:
    (found,) = refused(tmp_path, f"alerts:\n  sinks: [{'a' * 70_000}]\n")
    assert len(found) < 1_500
    assert "m.yaml:2: alerts.sinks" in found


def test_a_secret_of_a_wrong_type_is_not_quoted(tmp_path: Path) -> None:
    found = refused(tmp_path, "redis: {password: [hunter2]}\nkafka: {sasl_password: {a: hunter2}}\n")
    assert len(found) == 2
    assert "hunter2" not in "\n".join(found)


def test_the_hash_changes_with_what_changes_alerts_and_with_nothing_else() -> None:
    def of(env: dict[str, str]) -> str:
        return load_settings(None, {f"MONITOR__{k}": v for k, v in env.items()}).hash

    base = of({})
    for same in ({"KAFKA__TOPIC": "x"}, {"REDIS__PASSWORD": "x"}, {"HTTP__PORT": "1"}, {"FEATURES__PARTITIONS": "8"},
                 {"ALERTS__BUDGET_PER_WEEK": "2"}):  # fmt: skip
        assert of(same) == base, same
    others = [{"FEATURES__TICK_S": "20"}, {"SOURCE__ENTITY": "org"}, {"SCORE__ANOMALY__TREES": "9"}]
    others += [{"DECODE__FUTURE_S": "1"}]
    assert len({base, *(of(other) for other in others)}) == len(others) + 1


def test_run_demands_a_key() -> None:
    assert [field for field, _ in Settings().missing_for_run()] == ["keys.ring"]
    given = load_settings(None, {"MONITOR__KEYS__RING": f"[{{id: a, secret: {SECRET}}}]"})
    assert list(given.missing_for_run()) == []
