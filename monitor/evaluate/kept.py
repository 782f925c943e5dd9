"""Suites that were run before: read from their JSON, added up over seeds, and put into a page's marked tables.

A marked table stands between ``<!-- standard, seeds 3 to 7: Scenarios -->`` and ``<!-- end -->``: suite, seeds (and
runs, where only some were asked for) and the table's title. So the figures of a README come from a command, and
another run can't be taken for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from monitor.errors import BadInput, Problem

from .suite import SuiteReport
from .suite_report import sections

_MARK = re.compile(r"^<!-- (?P<name>\w+, seeds? .+?): (?P<title>.+?) -->$", re.MULTILINE)
_END = "<!-- end -->"


def read(paths: Sequence[Path]) -> SuiteReport:
    """The reports of these files as one. Raises ``BadInput`` for files that are none, or not of one suite."""
    found, problems = [], []
    for path in paths:
        try:
            found.append(msgspec.convert(json.loads(path.read_bytes()), SuiteReport))
        except OSError as e:
            problems.append(Problem(str(path), 0, f"can't be read: {e.strerror}"))
        except (ValueError, msgspec.ValidationError) as e:
            problems.append(Problem(str(path), 0, f"is no report of a suite: {e}"))
    seeds = [seed for report in found for seed in report.seeds]
    if len({(report.suite, report.runs) for report in found}) > 1 or len(set(seeds)) < len(seeds):
        message = "reports are added up where they are of one suite, the same runs and other seeds"
        problems.append(Problem("arguments", 0, message))
    if problems:
        raise BadInput(problems)
    if len(found) == 1:
        return found[0]
    return SuiteReport(
        found[0].suite, tuple(seeds), tuple(o for report in found for o in report.outcomes),
        tuple(f for report in found for f in report.fairness), found[0].mmd, found[0].runs,
    )  # fmt: skip


def name_of(suite: SuiteReport) -> str:
    """What a mark calls a run: "standard, seed 28", "standard, seeds 3 to 7, 21", "…, runs detector, text"."""
    runs: list[list[int]] = []
    for seed in sorted(suite.seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    seeds = ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    chosen = f", runs {', '.join(suite.runs)}" if suite.runs else ""
    return f"{suite.suite}, seed{'s' if len(suite.seeds) > 1 else ''} {seeds}{chosen}"


def fill(page: str, suite: SuiteReport) -> tuple[str, int]:
    """``page`` with every marked table of this suite, these seeds and runs made anew, and how many that were.

    Raises ``BadInput`` for a mark without an end, or with a title that the suite has no table of.
    """
    tables = {title: (header, rows) for title, header, rows in sections(suite)}
    out, at, count, problems = [], 0, 0, []
    for mark in _MARK.finditer(page):
        if mark["name"] != name_of(suite):
            continue
        line, end = page.count("\n", 0, mark.start()) + 1, page.find(_END, mark.end())
        if end < 0:
            problems.append(Problem("the page", line, f"has no {_END} after this mark"))
        elif mark["title"] not in tables:
            problems.append(Problem("the page", line, f"no table {mark['title']!r}; there are {', '.join(tables)}"))
        else:
            header, rows = tables[mark["title"]]
            out += [page[at : mark.end()], "\n", markdown(header, rows), "\n"]
            at, count = end, count + 1
    if problems:
        raise BadInput(problems)
    return "".join([*out, page[at:]]), count


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns that are the same "-" or nothing in every row are left out."""
    kept = [k for k in range(len(header)) if k == 0 or any(row[k] not in ("-", "") for row in rows)]
    lines = [[header[k] for k in kept], ["---"] * len(kept), *([row[k] for k in kept] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
