"""The protocol's figures as tables, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from rich.table import Table

from .known_test import SIGNED, TAUGHT
from .protocol import LEFT_OUT, PilotReport
from .shape_test import Row

_CAUGHT = ("test", "source of attack text", "100 %", "50 %", "25 %", "10 %", "false positives, new tenants")

ASKED: Final[Mapping[str, tuple[tuple[str, tuple[float | None, ...], float | None], ...]]] = {
    LEFT_OUT: (("asked of the mean", (0.99, 0.85, 0.38, 0.18), 0.015),
               ("asked of the worst", (0.99, 0.75, 0.28, 0.15), 0.015)),
    TAUGHT: (("asked of the mean", (0.99, 0.98, 0.90, 0.45), None),),
    "own history": (("asked of the mean", (None, 0.95, 0.75, None), None),),
    "MMD, one population, bytes": (("asked of the mean", (0.99, 0.97, 0.95, 0.70), None),),
}  # fmt: skip
"""What the project set itself, by attacker share, and the most false positives: printed beside what was measured."""


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
        if _pooled(rows):
            out += summary(test, rows)
        out += asked(test)
    return out


def _pooled(rows: list[Row]) -> bool:
    """Whether a mean over sources says anything: a signature holds of its own generator and of nothing else."""
    return len(rows) > 1 and rows[0].test != SIGNED


def summary(test: str, rows: list[Row]) -> list[list[str]]:
    """Mean and worst of a test over its sources; of false positives the mean and the highest."""
    table = np.array([r.caught for r in rows])
    rates = [r.false_positives for r in rows if r.false_positives is not None]
    mean, worst = (_false(float(np.mean(rates))), _false(max(rates))) if rates else ("-", "-")
    return [[test, "mean of the sources", *_cells(tuple(table.mean(axis=0))), mean],
            [test, "worst source", *_cells(tuple(table.min(axis=0))), worst]]  # fmt: skip


def asked(test: str) -> list[list[str]]:
    """The aims of a test, as rows like its figures."""
    return [
        [test, name, *("-" if c is None else f"{c:.2f}" for c in caught), _false(most)]
        for name, caught, most in ASKED.get(test, ())
    ]


def short_rows(report: PilotReport) -> list[list[str]]:
    """Mean and worst alone, or the one row: what a page has room for."""
    out = []
    for test in dict.fromkeys(r.test for r in report.rows):
        rows = report.of(test)
        out += summary(test, rows) if _pooled(rows) else [
            [test, r.source, *_cells(r.caught), _false(r.false_positives)] for r in rows
        ]  # fmt: skip
        out += asked(test)
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
