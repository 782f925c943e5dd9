"""What the commands call: score files, and write a suite's or a drill's report. Wires, and decides nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from . import report
from .drill import DrillReport
from .inputs import read_alerts, read_log, read_truth
from .score import Evaluation, evaluate
from .suite import SuiteReport
from .suite_report import suite_html, suite_markdown, suite_tables

__all__ = ["evaluate_files", "suite_html", "suite_markdown", "suite_tables", "write_drill", "write_suite"]


def evaluate_files(
    alerts: str | Path,
    truth: str | Path,
    logs: Sequence[str | Path],
    json_path: str | Path | None = None,
    html_path: str | Path | None = None,
) -> Evaluation:
    """Contract 4's command. Raises ``BadInput`` and ``NothingReadable``."""
    result = evaluate(read_alerts(alerts), read_truth(truth), read_log(logs))
    report.write(result, json_path, html_path)
    return result


def write_suite(suite: SuiteReport, json_path: str | Path | None, html_path: str | Path | None) -> None:
    """The files that were asked for."""
    if json_path is not None:
        Path(json_path).write_text(suite.to_json(), encoding="utf-8")
    if html_path is not None:
        Path(html_path).write_text(suite_html(suite), encoding="utf-8")


def write_drill(drill: DrillReport, json_path: str | Path | None) -> None:
    """The drill's JSON; its page is :meth:`DrillReport.page`."""
    if json_path is not None:
        Path(json_path).write_text(json.dumps(drill.as_dict(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
