"""The protocol's figures as tables, Markdown and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rich.table import Table

from .protocol import PilotReport
from .shape_test import Row

_CAUGHT = ("test", "source of attack text", "100 %", "50 %", "25 %", "10 %", "false positives, new tenants")


def _cells(caught: tuple[float, ...]) -> list[str]:
    return [f"{c:.2f}" for c in caught]


def _false(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def caught_rows(report: PilotReport) -> list[list[str]]:
    """A row a test and source, and for tests of several sources their mean and worst."""
    out = []
    for test in dict.fromkeys(r.test for r in report.rows):
        rows = report.of(test)
        out += [[test, r.source, *_cells(r.caught), _false(r.false_positives)] for r in rows]
        if len(rows) > 1:
            out += summary(test, rows)
    return out


def summary(test: str, rows: list[Row]) -> list[list[str]]:
    """Mean and worst of a test over its sources; of false positives the mean and the highest."""
    table = np.array([r.caught for r in rows])
    rates = [r.false_positives for r in rows if r.false_positives is not None]
    mean, worst = (_false(float(np.mean(rates))), _false(max(rates))) if rates else ("-", "-")
    return [[test, "mean of the sources", *_cells(tuple(table.mean(axis=0))), mean],
            [test, "worst source", *_cells(tuple(table.min(axis=0))), worst]]  # fmt: skip


def short_rows(report: PilotReport) -> list[list[str]]:
    """Mean and worst alone, or the one row: what a page has room for."""
    out = []
    for test in dict.fromkeys(r.test for r in report.rows):
        rows = report.of(test)
        out += summary(test, rows) if len(rows) > 1 else [
            [test, rows[0].source, *_cells(rows[0].caught), _false(rows[0].false_positives)]
        ]  # fmt: skip
    return out


def tables(report: PilotReport) -> list[Table]:
    """For a terminal."""
    size = report.plan.size
    caught = _table(
        f"Windows caught by attacker share, {size} requests, at 1 % of harmless tenants (seed {report.seed})",
        _CAUGHT, caught_rows(report),
    )  # fmt: skip
    kept = _table("Requests left without a template", ("tenants, or attack at 100 %", "5 %", "median", "95 %"),
                  [[name, *_cells(values)] for name, values in report.kept.items()])  # fmt: skip
    notes = [["own history: threshold", f"z = {report.history_z:.1f}"]]
    notes += [[f"left out: {what}", why] for what, why in report.left_out.items()]
    return [caught, kept, _table("Beside it", ("what", ""), notes)]


def _table(title: str, columns: tuple[str, ...], rows: list[list[str]]) -> Table:
    made = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def markdown(report: PilotReport) -> str:
    """The short table."""
    lines = [f"| {' | '.join(_CAUGHT)} |", "|" + "---|" * len(_CAUGHT)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in short_rows(report)]) + "\n"


def write(report: PilotReport, json_path: Path | None, markdown_path: Path | None) -> None:
    """Write what was asked for."""
    if json_path is not None:
        json_path.write_text(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    if markdown_path is not None:
        markdown_path.write_text(markdown(report), "utf-8")
