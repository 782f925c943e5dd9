"""The chart and the plain manifests: held against Kubernetes' schemas, locked down as they say.

What Helm makes of the chart is committed, so most of this needs no Helm; a digest says whether it is of this chart, and
where Helm is there, it is rendered anew and compared.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.cli.drill_live import PORT as DRILL_PORT
from monitor.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/abuse-monitor"
PLAIN = ROOT / "deploy/kubernetes"
RENDERED = ROOT / "tests/kubernetes"
VERSIONS = ("1.27", "1.33", "1.37")
OPERATORS = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1"}
"""Whose kinds Kubernetes' schemas don't have."""
Documents = list[dict[str, Any]]


def documents(text: str) -> Documents:
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_manifests", PLAIN / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def everything() -> Documents:
    """The chart with all that can be switched on but the dashboards, as Helm rendered it."""
    return documents((RENDERED / "everything.yaml").read_text())


def check(document: dict[str, Any], version: str) -> None:
    """Strictly: an unknown field is an error."""
    kubernetes_validate.validate(document, version, strict=True)


def plain() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.name}: {document['kind']} {document['metadata']['name']}", document)
        for path in sorted(PLAIN.glob("*.yaml"))
        if path.name != "kustomization.yaml"
        for document in documents(path.read_text())
    ]


MANIFESTS = plain()


# -------------------------------------------------------------------------------------------- plain manifests


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "document"), MANIFESTS, ids=[name for name, _ in MANIFESTS])
def test_kubernetes_schemas_accept_it(name: str, document: dict[str, Any], version: str) -> None:
    if document["apiVersion"] in OPERATORS:
        assert document["kind"] in {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
    else:
        check(document, version)


def test_the_schemas_would_say_so() -> None:
    (pod,) = (d for _, d in MANIFESTS if d["kind"] == "StatefulSet")
    broken = json.loads(json.dumps(pod))
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(broken, VERSIONS[-1])


def test_kustomize_lists_what_needs_no_operator_and_is_on_by_default() -> None:
    kustomization = yaml.safe_load((PLAIN / "kustomization.yaml").read_text())
    made = {path.name for path in PLAIN.glob("*.yaml")} - {"kustomization.yaml"}
    needy = {name.split(":")[0] for name, document in MANIFESTS if document["apiVersion"] in OPERATORS}
    assert set(kustomization["resources"]) == made - needy - {"drill.yaml"}
    assert needy == {"observability.yaml", "scaling.yaml"}


def pods(manifests: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (d["metadata"]["name"], d["spec"]["template"]["spec"])
        for d in manifests
        if d["kind"] in {"StatefulSet", "Deployment"}
    ]


@pytest.mark.parametrize(("name", "spec"), pods([d for _, d in MANIFESTS]))
def test_pods_are_locked_down_and_probed(name: str, spec: dict[str, Any]) -> None:
    locked(spec)


def locked(spec: dict[str, Any]) -> None:
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    ports = {port["name"] for port in container["ports"]}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"]["path"] == path
        assert container[probe]["httpGet"]["port"] in ports
    assert container["resources"]["limits"]["memory"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert {"/tmp", "/var/lib/monitor", "/var/cache/monitor"} <= set(mounted)
    assert set(mounted.values()) == {volume["name"] for volume in spec["volumes"]}
    secrets = {path for path, volume in mounted.items() if volume == "secrets"}
    values = [str(entry.get("value", "")) for entry in container.get("env", [])]
    named = [value for value in values if "token" in value]
    assert all(any(value.startswith(f"{path}/") for path in secrets) for value in named)
    assert not any("secretKeyRef" in str(entry) for entry in container.get("env", [])), "secrets come as files"


# --------------------------------------------------------------------------------------------------- the chart


@pytest.mark.helm
def test_manifests_are_what_helm_makes_of_the_chart(helm: str, maker: ModuleType) -> None:
    for path, text in maker.outputs(helm).items():
        assert path.read_text() == text, "run: python deploy/kubernetes/render.py"


@pytest.mark.helm
def test_helm_finds_nothing_to_say(helm: str) -> None:
    done = subprocess.run([helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


def test_what_is_committed_was_made_of_this_chart(maker: ModuleType) -> None:
    made = {path: path.read_text() for folder in (PLAIN, RENDERED) for path in folder.glob("*.yaml")}
    made.pop(PLAIN / "kustomization.yaml")
    assert (RENDERED / "sha256").read_text().strip() == maker.digest(made), "run: python deploy/kubernetes/render.py"
    altered = made | {PLAIN / "drill.yaml": made[PLAIN / "drill.yaml"].replace("replicas: 1", "replicas: 2")}
    assert maker.digest(altered) != maker.digest(made)


def test_everything_switched_on_is_valid_and_locked(everything: Documents) -> None:
    made = everything
    for version in VERSIONS:
        for document in made:
            if document["apiVersion"] not in OPERATORS:
                check(document, version)
    names = [(d["kind"], d["metadata"]["name"]) for d in made]
    assert len(set(names)) == len(names)
    assert len(pods(made)) == 4
    for _, spec in pods(made):
        locked(spec)
    monitor = dict(pods(made))["abuse-monitor"]["containers"][0]
    assert monitor["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert monitor["image"].startswith("abuse-monitor-gpu:")


def test_the_settings_of_the_pods_load(everything: Documents, tmp_path: Path) -> None:
    made = everything
    config = next(d for d in made if d["kind"] == "ConfigMap" and d["metadata"]["name"] == "abuse-monitor")
    text = config["data"]["monitor.yaml"].replace("/run/secrets/abuse-monitor", str(tmp_path))
    (tmp_path / "monitor.yaml").write_text(text)
    for name in ("monitor-key", "console-token", "ingest-token", "gateway-token"):
        (tmp_path / name).write_text("0123456789abcdef" * 4)
    hosts = {}
    for name, spec in pods(made):
        entries = spec["containers"][0].get("env", [])
        env = {e["name"]: e.get("value", "abuse-monitor-0").replace("$(POD_NAME)", "abuse-monitor-0") for e in entries}
        env = {k: v.replace("/run/secrets/abuse-monitor", str(tmp_path)) for k, v in env.items()}
        settings = load_settings(tmp_path / "monitor.yaml", env)
        assert list(settings.missing_for_run()) == []
        hosts[name] = settings.console.host, settings.ingest.host, settings.kafka.group_instance_id
        graceful = spec["terminationGracePeriodSeconds"]
        assert graceful > settings.checkpoint.drain_s
    assert hosts["abuse-monitor"][2] == "abuse-monitor-0", "a restarted pod keeps its partitions"
    assert hosts["abuse-monitor-console"][0] == hosts["abuse-monitor-ingest"][1] == "0.0.0.0"


def test_the_drill_is_off_until_asked_for_and_then_one(everything: Documents, tmp_path: Path) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["drill"]["enabled"] is False

    def drill_of(manifests: Documents) -> dict[str, Any]:
        (found,) = [d for d in manifests if (d["kind"], d["metadata"]["name"]) == ("Deployment", "abuse-monitor-drill")]
        return found

    drill = drill_of(everything)
    assert (drill["spec"]["replicas"], drill["spec"]["strategy"]) == (1, {"type": "Recreate"})
    (container,) = drill["spec"]["template"]["spec"]["containers"]
    asked, config = container["args"][:6], container["args"][6:]
    assert asked == ["drill", "--live", "--within", "6", "--every", "12"]
    assert config == ["--config", "/etc/abuse-monitor/monitor.yaml"]
    assert container["ports"] == [{"name": "metrics", "containerPort": DRILL_PORT}]
    plain = drill_of([d for _, d in MANIFESTS])
    assert plain["spec"]["template"]["spec"]["containers"][0]["args"][:6] == [*asked[:-1], "24"]
    done = CliRunner().invoke(build(), [*asked, "--config", str(tmp_path / "none.yaml")])
    assert done.exit_code == 2, "the command takes these arguments, and stops at the settings"
    assert "none.yaml" in done.output
    assert "No such option" not in done.output


def test_selectors_find_their_pods_and_nobody_else_s(everything: Documents) -> None:
    made = everything
    labels = {
        d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"]
        for d in made
        if d["kind"] in {"StatefulSet", "Deployment"}
    }
    for document in made:
        spec, name = document.get("spec", {}), document["metadata"]["name"]
        selector = spec.get("selector", {})
        wanted = selector.get("matchLabels", selector) if document["kind"] != "ServiceMonitor" else {}
        if wanted:
            found = {pod for pod, has in labels.items() if wanted.items() <= has.items()}
            assert found == {name}, f"{document['kind']} {name}"
    (policy,) = (d for d in made if d["kind"] == "NetworkPolicy")
    for has in labels.values():
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= has.items()
    reached = {p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]}
    assert reached == {53, 9093, 443}
    (scraped,) = (d for d in made if d["kind"] == "ServiceMonitor")
    services = [d for d in made if d["kind"] == "Service"]
    port = scraped["spec"]["endpoints"][0]["port"]
    assert {s["metadata"]["name"] for s in services if any(p["name"] == port for p in s["spec"]["ports"])} == {
        "abuse-monitor", "abuse-monitor-drill", "abuse-monitor-ingest"}  # fmt: skip
    listening = {p["containerPort"] for _, spec in pods(made) for c in spec["containers"] for p in c["ports"]}
    assert {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]} == listening


def test_scaling_leaves_the_replicas_to_keda() -> None:
    made = documents((RENDERED / "scaled.yaml").read_text())
    (scaled,) = (d for d in made if d["kind"] == "ScaledObject")
    (target,) = (d for d in made if d["kind"] == "StatefulSet")
    assert "replicas" not in target["spec"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == target["metadata"]["name"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["bootstrapServers"] == "a:9092,b:9092"
    assert (trigger["type"], trigger["metadata"]["topic"], trigger["metadata"]["consumerGroup"]) == (
        "kafka", "t", "abuse-monitor")  # fmt: skip
    assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA reads strings"


@pytest.mark.prometheus
def test_the_rules_arrive_whole(everything: Documents, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    (rules,) = (d for d in everything if d["kind"] == "PrometheusRule")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules["spec"]))
    done = subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    own = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    moved = json.loads(json.dumps(own).replace("deploy/README.md#", "https://wiki.example/abuse#"))
    assert rules["spec"] == moved


@pytest.mark.helm
def test_the_dashboards_arrive_whole(helm: str, maker: ModuleType) -> None:
    found = {}
    for document in documents(maker.template(helm, "--set", maker.DASHBOARDS)):
        if document["metadata"].get("labels", {}).get("grafana_dashboard") == "1":
            found |= document["data"]
            check(document, VERSIONS[-1])
            assert len(json.dumps(document)) < 1 << 20, "a ConfigMap holds 1 MiB"
    boards = {path.name: path for path in (ROOT / "grafana/dashboards").glob("*.json")}
    assert set(found) == set(boards)
    for name, text in found.items():
        here = boards[name].read_text().replace("http://127.0.0.1:9465", "https://abuse.example")
        assert json.loads(text) == json.loads(here)


REFUSED: dict[str, Any] = {
    "replicas": 0,
    "replica": 3,
    "image.tag": "latest",
    "image.digest": "sha256:12",
    "settings.kafka.brokers": ["nowhere"],
    "settings.redis.password": "x",
    "settings.kafka.sasl_password": "x",
    "networkPolicy.egressPorts": [99999],
    "terminationGracePeriodSeconds": 5,
    "dashboards.consoleUrl": "https://x/",
    "drill.everyHours": 0,
    "drill.hours": 4,
}
"""Values that nobody may have, each of which its own name refuses."""


@pytest.mark.parametrize("path", REFUSED)
def test_the_schema_refuses_values_that_can_t_be(path: str) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    *outer, last = path.split(".")
    part = values
    for name in outer:
        part = part[name]
    part[last] = REFUSED[path]
    (error,) = Draft7Validator(schema).iter_errors(values)
    assert last in error.absolute_path or f"'{last}'" in error.message or error.instance == REFUSED[path]


@pytest.mark.helm
@pytest.mark.parametrize("path", REFUSED)
def test_helm_refuses_them(helm: str, maker: ModuleType, path: str) -> None:
    with pytest.raises(RuntimeError, match=path.rpartition(".")[2]):
        maker.template(helm, "--set-json", f"{path}={json.dumps(REFUSED[path])}")


@pytest.mark.helm
def test_helm_refuses_fewer_replicas_at_most_than_at_least(helm: str, maker: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="maxReplicas"):
        maker.template(helm, "--set", "autoscaling.enabled=true,autoscaling.minReplicas=9,autoscaling.maxReplicas=2")


def test_the_schema_is_one_and_takes_the_defaults() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    Draft7Validator.check_schema(schema)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert list(Draft7Validator(schema).iter_errors(values)) == []
    assert set(values) <= set(schema["properties"])


def test_the_chart_has_the_project_s_version_and_its_own_files() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    assert re.search(rf"newTag: {re.escape(version)}\b", (PLAIN / "kustomization.yaml").read_text())
    assert (CHART / "files/alerts.yml").resolve() == ROOT / "deploy/prometheus/alerts.yml"
    assert (CHART / "files/dashboards").resolve() == ROOT / "grafana/dashboards"
