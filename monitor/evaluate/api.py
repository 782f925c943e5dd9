"""What the commands call: score files, and write a suite's or a drill's report. Wires, and decides nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from monitor.errors import BadInput, Problem

from . import kept, report
from .drill import DrillReport
from .inputs import read_alerts, read_log, read_truth
from .score import Evaluation, evaluate
from .suite import SuiteReport
from .suite_report import suite_html, suite_markdown, suite_tables

__all__ = [
    "evaluate_files", "fill_page", "read_suites", "suite_html", "suite_markdown", "suite_tables", "write_drill",
    "write_suite",
]  # fmt: skip


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


def read_suites(paths: Sequence[Path]) -> SuiteReport:
    """Suites run before, from their JSON. Raises ``BadInput``."""
    return kept.read(paths)


def fill_page(path: Path, suite: SuiteReport) -> None:
    """Make the suite's marked tables in a Markdown page anew. Raises ``BadInput``, also where it has none."""
    try:
        page, count = kept.fill(path.read_text("utf-8"), suite)
    except OSError as e:
        raise BadInput([Problem(str(path), 0, f"can't be read: {e.strerror}")]) from e
    if not count:
        message = f"has no table of {kept.name_of(suite)}: one stands after <!-- {kept.name_of(suite)}: Scenarios -->"
        raise BadInput([Problem(str(path), 0, message)])
    path.write_text(page, "utf-8")


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
