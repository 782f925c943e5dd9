"""Writes the dashboards and grafana/README.md: ``python grafana/build.py`` after a change of panels or metrics.

A test compares the committed files with what this makes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from boards import BOARDS  # noqa: E402 - beside this file, not installed
from builder import dashboard  # noqa: E402
from page import readme  # noqa: E402
from prometheus_client import CollectorRegistry  # noqa: E402

from monitor.telemetry import Telemetry  # noqa: E402


def outputs() -> dict[Path, str]:
    """Every generated file and its text."""
    specs = Telemetry(CollectorRegistry()).specs
    shown = {spec.name: spec.help for spec in specs if spec.shown == "dashboard"}
    internal = {spec.name: spec.help for spec in specs if spec.shown == "internal"}
    made = {
        HERE / "dashboards" / f"{board.uid}.json": json.dumps(dashboard(board), indent=2) + "\n" for board in BOARDS
    }
    return made | {HERE / "README.md": readme(BOARDS, shown, internal)}


if __name__ == "__main__":
    for path, text in outputs().items():
        path.write_text(text)
        print(path.relative_to(HERE.parent))
