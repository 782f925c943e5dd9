"""What is shipped to deploy: it parses, agrees with itself and with the code, and is locked down as it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from monitor.cli.drill_live import PORT as DRILL_PORT
from monitor.settings import load_settings
from monitor.telemetry import DrillTelemetry, Telemetry

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


PROFILES = {"core", "kafka", "obs", "demo", "gpu", "drill"}


def running(compose: dict[str, Any], *profiles: str) -> set[str]:
    return {name for name, service in compose["services"].items() if set(service["profiles"]) & set(profiles)}


def test_the_compose_schema_accepts_it() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    done = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_profiles_choose_what_runs(compose: dict[str, Any]) -> None:
    assert {name for service in compose["services"].values() for name in service["profiles"]} == PROFILES
    assert running(compose, "core") == {"monitor", "console", "redis"}
    assert running(compose, "gpu") == {"monitor-gpu", "console", "redis"}
    assert running(compose, "kafka") == {"kafka", "topics"}
    assert running(compose, "obs") == {"prometheus", "grafana"}
    everything = {"kafka", "topics", "redis", "monitor", "console", "producer", "prometheus", "grafana"}
    assert running(compose, "demo") == everything
    assert running(compose, "drill") == {"drill"}
    for profile in PROFILES:
        here = running(compose, profile)
        for name in here:
            image = compose["services"][name]["image"]
            assert ("build" in compose["services"][name]) == image.startswith("abuse-monitor"), f"who builds {image}?"
            waits = compose["services"][name].get("depends_on", {})
            needed = {other for other, how in waits.items() if how.get("required", True)}
            assert needed <= here, f"{name} under --profile {profile}"


def test_the_gpu_s_monitor_takes_the_other_s_place(compose: dict[str, Any], tmp_path: Path) -> None:
    gpu = compose["services"]["monitor-gpu"]
    (tmp_path / "monitor-key").write_text("0123456789abcdef" * 4)
    settings = load_settings(None, {**docker_env(), **environment(gpu, tmp_path)})
    assert settings.score.classifier.require_gpu is True
    assert settings.score.classifier.providers == ("cuda", "cpu")
    assert settings.kafka.brokers == ("kafka:19092",)
    assert gpu["networks"]["default"]["aliases"] == ["monitor"], "what Prometheus scrapes"
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert gpu["build"]["target"] in targets()
    assert compose["services"]["monitor"]["build"]["target"] in targets()
    assert gpu["ports"] == compose["services"]["monitor"]["ports"]


def test_the_drill_has_what_it_needs_and_is_scraped_where_it_runs(compose: dict[str, Any], tmp_path: Path) -> None:
    drill = compose["services"]["drill"]
    (tmp_path / "monitor-key").write_text("0123456789abcdef" * 4)
    settings = load_settings(None, {**docker_env(), **environment(drill, tmp_path)})
    assert list(settings.missing_for_run()) == []
    assert settings.http.host == "0.0.0.0"
    assert drill["ports"] == [f"127.0.0.1:{DRILL_PORT}:{DRILL_PORT}"]
    assert f":{DRILL_PORT}/healthz" in drill["healthcheck"]["test"][-1]
    assert [volume.split(":")[1] for volume in drill["volumes"]] == [docker_env()["NUMBA_CACHE_DIR"]], "no state"
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    (scraped,) = (job["dns_sd_configs"] for job in jobs if job["job_name"] == "abuse-monitor-drill")
    assert scraped == [{"names": ["drill"], "type": "A", "port": DRILL_PORT}]


def test_services_are_pinned_bounded_and_on_loopback(compose: dict[str, Any]) -> None:
    services = compose["services"]
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
    env = environment(monitor, tmp_path)
    settings = load_settings(None, {**env, **docker_env()})
    assert list(settings.missing_for_run()) == []
    assert settings.http.host == "0.0.0.0"
    assert str(settings.checkpoint.path) in {volume.split(":")[1] for volume in monitor["volumes"]}
    assert docker_env()["NUMBA_CACHE_DIR"] in {volume.split(":")[1] for volume in monitor["volumes"]}
    assert monitor["ports"] == [f"127.0.0.1:{settings.http.port}:{settings.http.port}"]


def environment(service: dict[str, Any], secrets: Path) -> dict[str, str]:
    """As Compose gives it with nothing set outside."""
    values = {k: str(v).replace("/run/secrets", str(secrets)) for k, v in service["environment"].items()}
    return {k: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", v) for k, v in values.items()}


def test_the_console_listens_where_its_port_is_and_wants_a_token(compose: dict[str, Any], tmp_path: Path) -> None:
    for name in ("monitor-key", "console-token"):
        (tmp_path / name).write_text("0123456789abcdef" * 4)
    console = compose["services"]["console"]
    settings = load_settings(None, {**docker_env(), **environment(console, tmp_path)})
    port = settings.console.port
    assert (settings.console.host, console["ports"]) == ("0.0.0.0", [f"127.0.0.1:{port}:{port}"])
    assert settings.console.token is not None
    assert console["read_only"] is True
    assert str(settings.console.port) in str(console["healthcheck"])


def test_the_producer_makes_scenarios_that_ship(compose: dict[str, Any]) -> None:
    command = compose["services"]["producer"]["command"]
    names = command[1 : command.index("--out")]
    assert names
    assert set(names) <= {path.stem for path in (ROOT / "monitor/simulate/scenarios").glob("*.yaml")}
    assert command[command.index("--out") + 1] == "kafka://kafka:19092/requests"


def stages() -> dict[str, tuple[str, str]]:
    """Stage of the Dockerfile -> what it is made from, and its text."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", (DEPLOY / "Dockerfile").read_text(), flags=re.M)[1:]
    return {name: (source, text) for source, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


def targets() -> set[str]:
    """Stages that a user builds."""
    return {name for name, (source, _) in stages().items() if source == "base"}


def docker_env() -> dict[str, str]:
    text = stages()["base"][1].replace("\\\n", " ")
    pairs = [pair for line in re.findall(r"^ENV (.*)$", text, re.M) for pair in line.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def test_the_image_is_pinned_hashed_and_not_root() -> None:
    made, text = stages(), (DEPLOY / "Dockerfile").read_text()
    assert list(made) == ["build", "base", "cuda", "gpu", "cpu"], "the last one is what a plain build makes"
    assert made["build"][0] == made["base"][0] == "python:3.13-slim"
    assert re.fullmatch(r"nvidia/cuda:13\.\d+\.\d+-cudnn-runtime-ubuntu\d+\.\d+", made["cuda"][0])
    assert targets() == {"gpu", "cpu"}
    assert "--require-hashes" in made["build"][1]
    base = made["base"][1]
    assert base.rstrip().splitlines().count('CMD ["run"]') == 1
    assert re.search(r"^USER 65532:65532$", base, re.M)
    for name in targets():
        assert not re.search(r"^(USER|RUN|ENTRYPOINT|CMD) ", made[name][1], re.M), "what the base says holds"
    sources = re.findall(r"--from=(\S+)", text)
    assert set(sources) <= set(made)
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        for name in source.split():
            assert (ROOT / name).exists() or name == "README.md", name
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not any(line.startswith("!") and "secret" in line for line in ignored)


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-cluster.txt", "constraints-dev.txt"])
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
    exported = (Telemetry(CollectorRegistry()), DrillTelemetry(CollectorRegistry()))
    specs = {spec.name: spec for telemetry in exported for spec in telemetry.specs}
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
        packages = {"promtool": "prometheus", "systemd-analyze": "systemd", "amtool": "prometheus-alertmanager"}
        pytest.skip(f"{command[0]} is missing: apt-get install {packages[command[0]]}")
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


UNITS = {"abuse-monitor": "run", "abuse-monitor-console": "serve", "abuse-monitor-ingest": "ingest",
         "abuse-monitor-drill": "drill --live"}  # fmt: skip


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / f"systemd/{name}.service").read_text()
    unit = tmp_path / f"{name}.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M))
    done = tool("systemd-analyze", "verify", str(unit), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", "NoNewPriviliges=yes"))
    assert "NoNewPriviliges" in tool("systemd-analyze", "verify", str(unit), cwd=tmp_path).stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_locked_and_its_settings_load(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / f"systemd/{name}.service").read_text()
    notify = ("Type=exec",) if UNITS[name] == "serve" else ("Type=notify", "WatchdogSec=120", "NotifyAccess=main")
    for line in (*notify, "DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes"):
        assert f"\n{line}\n" in text
    assert f"/bin/monitor {UNITS[name]} --config /etc/abuse-monitor/monitor.yaml\n" in text
    for credential in re.findall(r"^LoadCredential=([^:]+):/etc/abuse-monitor/\1$", text, re.M):
        (tmp_path / credential).write_text("0123456789abcdef" * 4)
    env = dict(pair.strip('"').split("=", 1) for pair in re.findall(r"^Environment=(.*)$", text, re.M))
    assert set(re.findall(r"/run/credentials/([^/]+)", text)) == {f"{name}.service"}
    env = {key: re.sub(r"/run/credentials/[^/]+", str(tmp_path), value) for key, value in env.items()}
    settings = load_settings(DEPLOY / "monitor.yaml", env)
    assert settings.keys.ring[0].id == "k1"
    token = {"serve": settings.console.token, "ingest": settings.ingest.token}.get(UNITS[name], settings.keys.ring[0])
    assert token is not None
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert stop is not None
    assert UNITS[name] != "run" or int(stop[1]) > settings.checkpoint.drain_s


def test_the_services_of_a_host_have_ports_of_their_own() -> None:
    taken: list[int] = []
    for name, command in UNITS.items():
        text = (DEPLOY / f"systemd/{name}.service").read_text()
        env = dict(pair.split("=", 1) for pair in re.findall(r"^Environment=(MONITOR__\w+__PORT=\d+)$", text, re.M))
        settings = load_settings(None, env)
        taken += {
            "run": [settings.http.port], "serve": [settings.console.port], "drill --live": [DRILL_PORT],
            "ingest": [settings.http.port, settings.ingest.port],
        }[command]  # fmt: skip
    assert len(set(taken)) == len(taken) == 5


@pytest.mark.prometheus
def test_amtool_accepts_the_example_and_routes_by_severity() -> None:
    folder = DEPLOY / "prometheus"
    done = tool("amtool", "check-config", "alertmanager.yml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    for labels, receiver in (
        (("severity=page", "alertname=MonitorAbsent"), "pager"),
        (("severity=ticket", "alertname=RejectsHigh"), "tickets"),
        (("severity=ticket", "alertname=AlertFlood"), "abuse-team"),
    ):
        routed = tool("amtool", "config", "routes", "test", "--config.file=alertmanager.yml", *labels, cwd=folder)
        assert routed.stdout.strip() == receiver
    config = yaml.safe_load((folder / "alertmanager.yml").read_text())
    known = {alert["alert"] for alert in ALERTS}
    matchers = [m for rule in config["inhibit_rules"] for m in (*rule["source_matchers"], *rule["target_matchers"])]
    for matcher in [*matchers, *(m for route in config["route"]["routes"] for m in route["matchers"])]:
        label, value = re.fullmatch(r'(\w+)=~?"([^"]+)"', matcher).groups()  # type: ignore[union-attr]
        assert set(value.split("|")) <= (known if label == "alertname" else {"page", "ticket"}), matcher


def test_grafana_s_contact_points_are_those_that_its_policies_name() -> None:
    example = yaml.safe_load((ROOT / "grafana/examples/contact-points.yaml").read_text())
    points = {point["name"] for point in example["contactPoints"]}
    (policy,) = example["policies"]
    assert {policy["receiver"], *(route["receiver"] for route in policy["routes"])} == points
    assert policy["routes"][0]["object_matchers"] == [["severity", "=", "page"]]
    uids = [receiver["uid"] for point in example["contactPoints"] for receiver in point["receivers"]]
    assert len(set(uids)) == len(uids)


def test_no_host_of_a_registry_and_no_path_of_a_machine() -> None:
    # any image or index with a host before its name, any URL of an index, any home or work tree
    words = re.compile(r"(image: *\S+\.\S+/|--(extra-)?index-url|registry\.|simple/|/home/|/root/)")
    for path in [*DEPLOY.rglob("*"), *(ROOT / "grafana").rglob("*")]:
        if path.is_file() and path.suffix != ".pyc":
            found = words.search(path.read_bytes().decode("utf-8", "replace"))
            assert found is None, f"{path}: {found}"
