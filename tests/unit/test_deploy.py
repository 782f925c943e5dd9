"""What is shipped to deploy: it parses, agrees with itself and with the code, and is locked down as it says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from monitor.settings import load_settings
from monitor.telemetry import Telemetry

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"\babusemon_[a-z0-9_]+")
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def test_each_test_that_the_threat_model_names_is_there() -> None:
    text = (DEPLOY / "THREAT-MODEL.md").read_text()
    named = re.findall(r"`((?:unit|property|integration|contracts|bench|replay)/[\w./-]+)", text)
    assert len(named) > 10
    for name in named:
        assert list((ROOT / "tests").glob(f"{name}*")), name
    settings = re.findall(r"`((?:decode|features|source|checkpoint)\.\w+)`", text)
    example = (DEPLOY / "monitor.yaml").read_text()
    for name in settings:
        assert f"\n  {name.split('.')[1]}:" in example, name


def test_compose_has_the_five_and_a_producer(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {"kafka", "redis", "monitor", "prometheus", "grafana"} <= set(services)
    assert services["producer"]["profiles"] == ["demo"]
    for name, service in services.items():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"]), f"{name}: a whole version, never latest"
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "mem_limit" in service, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} listens beyond this host"
        if service.get("restart") != "no":
            assert service["healthcheck"]["test"][0] == "CMD", name
        for secret in service.get("secrets", []):
            assert secret in compose["secrets"], name
        waits = service.get("depends_on", {})
        assert set(waits) <= set(services), name
        for other, how in waits.items() if isinstance(waits, dict) else ():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}, which has no check"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), f"{name}: {source}"


def test_the_monitor_s_container_is_locked_and_its_environment_is_settings(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    monitor = compose["services"]["monitor"]
    assert monitor["read_only"] is True
    assert monitor["user"] == "65532:65532"
    key = tmp_path / "monitor-key"
    key.write_text("0123456789abcdef" * 4)
    env = {k: str(v).replace("/run/secrets", str(tmp_path)) for k, v in monitor["environment"].items()}
    settings = load_settings(None, {**env, **docker_env()})
    assert list(settings.missing_for_run()) == []
    assert settings.http.host == "0.0.0.0"
    assert str(settings.checkpoint.path) in {volume.split(":")[1] for volume in monitor["volumes"]}
    assert docker_env()["NUMBA_CACHE_DIR"] in {volume.split(":")[1] for volume in monitor["volumes"]}
    assert monitor["ports"] == [f"127.0.0.1:{settings.http.port}:{settings.http.port}"]


def test_the_producer_makes_scenarios_that_ship(compose: dict[str, Any]) -> None:
    command = compose["services"]["producer"]["command"]
    names = command[1 : command.index("--out")]
    assert names
    assert set(names) <= {path.stem for path in (ROOT / "monitor/simulate/scenarios").glob("*.yaml")}
    assert command[command.index("--out") + 1] == "kafka://kafka:19092/requests"


def docker_env() -> dict[str, str]:
    last = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")[-1].replace("\\\n", " ")
    pairs = [pair for line in re.findall(r"^ENV (.*)$", last, re.M) for pair in line.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def test_the_image_is_pinned_hashed_and_not_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)", text, re.M) == ["python:3.13-slim"] * 2
    assert "--require-hashes" in text
    assert text.rstrip().splitlines()[-1] == 'CMD ["run"]'
    assert re.search(r"^USER 65532:65532$", text, re.M)
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        for name in source.split():
            assert (ROOT / name).exists() or name == "README.md", name
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not any(line.startswith("!") and "secret" in line for line in ignored)


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-dev.txt"])
def test_every_dependency_is_pinned_with_a_hash(name: str) -> None:
    text = (DEPLOY / name).read_text().replace("\\\n", " ")
    requirements = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(requirements) > 30
    for line in requirements:
        assert re.match(r"^[a-z0-9.-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", line), line[:80]
    assert "://" not in text


def test_every_dependency_of_the_project_is_in_the_list() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", (DEPLOY / "constraints.txt").read_text(), re.M))
    wanted = project["dependencies"] + project["optional-dependencies"]["embedded"]
    names = {re.match(r"[A-Za-z0-9.-]+", entry).group().lower() for entry in wanted}  # type: ignore[union-attr]
    assert names <= pinned, "write it again: deploy/README.md, Dependencies"


def test_alerts_read_metrics_that_exist_and_have_a_runbook() -> None:
    specs = {spec.name: spec for spec in Telemetry(CollectorRegistry()).specs}
    headings = set(re.findall(r"^### (\w+)$", (DEPLOY / "README.md").read_text(), re.M))
    assert {alert["alert"] for alert in ALERTS} == headings
    for alert in ALERTS:
        used = {re.sub(r"_bucket$", "", name) for name in METRIC.findall(alert["expr"])}
        assert used, alert["alert"]
        assert used <= set(specs), alert["alert"]
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"deploy/README.md#{alert['alert'].lower()}"


def test_each_alert_is_tested_both_ways() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus/tests.yml").read_text())["tests"]
    fires, quiet = set(), set()
    for case in tests:
        for entry in case["alert_rule_test"]:
            (fires if entry["exp_alerts"] else quiet).add(entry["alertname"])
    assert fires == quiet == {alert["alert"] for alert in ALERTS}


def tool(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        package = {"promtool": "prometheus", "systemd-analyze": "systemd"}[command[0]]
        pytest.skip(f"{command[0]} is missing: apt-get install {package}")
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.prometheus
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "tests.yml")],
)
def test_promtool_accepts_it(arguments: tuple[str, ...]) -> None:
    done = tool("promtool", *arguments, cwd=DEPLOY / "prometheus")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_alerts_that_never_fire_turn_their_tests_red(tmp_path: Path) -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = "abusemon_build_info == -1"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    shutil.copy(DEPLOY / "prometheus/tests.yml", tmp_path)
    done = tool("promtool", "test", "rules", "tests.yml", cwd=tmp_path)
    assert done.returncode != 0
    assert set(re.findall(r"alertname: ?(\w+)", done.stdout + done.stderr)) == {alert["alert"] for alert in ALERTS}


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd/abuse-monitor.service").read_text()
    unit = tmp_path / "abuse-monitor.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M))
    done = tool("systemd-analyze", "verify", str(unit), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_a_notify_service_with_settings_that_load(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd/abuse-monitor.service").read_text()
    for line in ("Type=notify", "WatchdogSec=120", "DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes"):
        assert f"\n{line}\n" in text
    (tmp_path / "monitor-key").write_text("0123456789abcdef" * 4)
    env = dict(pair.strip('"').split("=", 1) for pair in re.findall(r"^Environment=(.*)$", text, re.M))
    env = {name: re.sub(r"/run/credentials/[^/]+", str(tmp_path), value) for name, value in env.items()}
    settings = load_settings(DEPLOY / "monitor.yaml", env)
    assert settings.keys.ring[0].id == "k1"
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert stop is not None
    assert int(stop[1]) > settings.checkpoint.drain_s


def test_no_host_of_a_registry_and_no_path_of_a_machine() -> None:
    # any image or index with a host before its name, any URL of an index, any home or work tree
    words = re.compile(r"(image: *\S+\.\S+/|--(extra-)?index-url|registry\.|simple/|/home/|/root/)")
    for path in [*DEPLOY.rglob("*"), *(ROOT / "grafana").rglob("*")]:
        if path.is_file() and path.suffix != ".pyc":
            found = words.search(path.read_text())
            assert found is None, f"{path}: {found}"
