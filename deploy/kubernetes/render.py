"""Writes the manifests of this folder from the chart: ``python deploy/kubernetes/render.py [HELM]``.

They are for whoever has no Helm. A test compares the committed files with what this makes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "helm" / "abuse-monitor"
KUBE_VERSION = "1.33.0"
"""What the chart is rendered for; nothing in it depends on more than its ``kubeVersion``."""
CORE = ("config", "monitor", "clients", "network")
"""Templates that need nothing installed in the cluster: what kustomization.yaml lists."""
OPTIONAL = {
    "observability": "serviceMonitor.enabled=true,prometheusRule.enabled=true",
    "scaling": "autoscaling.enabled=true",
}
"""Templates that need an operator, and the values that switch them on."""


def template(helm: str, *arguments: str, name: str = "abuse-monitor") -> str:
    """What Helm makes of the chart. Raises RuntimeError with its words."""
    command = [helm, "template", name, str(CHART), "--kube-version", KUBE_VERSION, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise RuntimeError("\n".join(line for line in done.stderr.splitlines() if "walk.go" not in line))
    return done.stdout


def outputs(helm: str) -> dict[Path, str]:
    """Every generated file and its text."""
    made = {}
    for part in (*CORE, *OPTIONAL):
        values = ["--set", OPTIONAL[part]] if part in OPTIONAL else []
        text = template(helm, *values, "--show-only", f"templates/{part}.yaml")
        text = re.sub(r"^# Source: .*\n|^ *app\.kubernetes\.io/managed-by: Helm\n|^ +$\n", "", text, flags=re.M)
        made[HERE / f"{part}.yaml"] = f"# Made from deploy/helm/abuse-monitor by render.py: change that.\n{text}"
    return made


if __name__ == "__main__":
    for path, text in outputs(sys.argv[1] if len(sys.argv) > 1 else "helm").items():
        path.write_text(text)
        print(path.name)
