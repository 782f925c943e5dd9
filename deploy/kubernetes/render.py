"""Writes the manifests of this folder from the chart: ``python deploy/kubernetes/render.py [HELM]``.

They are for whoever has no Helm. With them come renderings for tests, of the chart with everything switched on, and a
digest of the chart and all of them, so that tests without Helm see when one was changed alone.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "helm" / "abuse-monitor"
EXAMPLES = HERE.parents[1] / "tests" / "kubernetes"
KUBE_VERSION = "1.33.0"
"""What the chart is rendered for; nothing in it depends on more than its ``kubeVersion``."""
CORE = ("config", "monitor", "clients", "network")
"""Templates that need nothing installed in the cluster: what kustomization.yaml lists."""
OPTIONAL = {
    "drill": "drill.enabled=true",
    "observability": "serviceMonitor.enabled=true,prometheusRule.enabled=true",
    "scaling": "autoscaling.enabled=true",
}
"""Templates that are off by default, the last two since they need an operator, and the values that switch them on."""
DASHBOARDS = "dashboards.enabled=true,dashboards.consoleUrl=https://abuse.example"
EVERYTHING = (
    "serviceMonitor.enabled=true,prometheusRule.enabled=true,autoscaling.enabled=true,ingest.enabled=true,"
    "gpu.enabled=true,drill.enabled=true,drill.everyHours=12,console.gatewayTokenKey=gateway-token,"
    "networkPolicy.egressPorts={9093,443},prometheusRule.runbooks=https://wiki.example/abuse,"
    "autoscaling.authenticationRef=kafka"
)
"""Everything but the dashboards, which are copies of files that are here already."""
SCALED = "autoscaling.enabled=true,settings.kafka.brokers={a:9092,b:9092},settings.kafka.topic=t"


def template(helm: str, *arguments: str, name: str = "abuse-monitor") -> str:
    """What Helm makes of the chart. Raises RuntimeError with its words."""
    command = [helm, "template", name, str(CHART), "--kube-version", KUBE_VERSION, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise RuntimeError("\n".join(line for line in done.stderr.splitlines() if "walk.go" not in line))
    return done.stdout


def digest(made: Mapping[Path, str]) -> str:
    """SHA-256 over the chart's own files and what was made of them, the dashboards aside."""
    whole = hashlib.sha256()
    chart = [path for path in sorted(CHART.rglob("*")) if path.is_file() and "dashboards" not in path.parts]
    for path, text in [*((path, path.read_text()) for path in chart), *sorted(made.items())]:
        whole.update(f"{path.name}\0{text}\0".encode())
    return whole.hexdigest()


def outputs(helm: str) -> dict[Path, str]:
    """Every generated file and its text."""
    made = {}
    for part in (*CORE, *OPTIONAL):
        values = ["--set", OPTIONAL[part]] if part in OPTIONAL else []
        text = template(helm, *values, "--show-only", f"templates/{part}.yaml")
        text = re.sub(r"^# Source: .*\n|^ *app\.kubernetes\.io/managed-by: Helm\n|^ +$\n", "", text, flags=re.M)
        made[HERE / f"{part}.yaml"] = f"# Made from deploy/helm/abuse-monitor by render.py: change that.\n{text}"
    scaled = ["--set", SCALED, *(f"--show-only=templates/{part}.yaml" for part in ("monitor", "scaling"))]
    for name, arguments in (("everything", ["--set", EVERYTHING]), ("scaled", scaled)):
        made[EXAMPLES / f"{name}.yaml"] = re.sub(r"^ +$\n", "", template(helm, *arguments), flags=re.M)
    made[EXAMPLES / "sha256"] = f"{digest(made)}\n"
    return made


if __name__ == "__main__":
    for path, text in outputs(sys.argv[1] if len(sys.argv) > 1 else "helm").items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(path.name)
