"""Runs the tests that stand in the rule files, through the same compiled expressions as live rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from ..errors import Problem
from .cel import TIME, Column
from .model import Case, Rule

_DTYPES = {"number": pl.Float64(), "string": pl.String(), "bool": pl.Boolean(), "code": pl.UInt8()}
_WORDS = {True: "true", False: "false", None: "unknown"}


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What one test gave; ``actual`` None is unknown."""

    rule: Rule
    case: Case
    actual: bool | None

    @property
    def passed(self) -> bool:
        """Whether the condition was what the test says."""
        return self.actual is self.case.expected

    @property
    def problem(self) -> Problem | None:
        """The failure, with its line."""
        if self.passed:
            return None
        message = f"{self.case.name!r} should be {_WORDS[self.case.expected]}, is {_WORDS[self.actual]}"
        return Problem(self.rule.file, self.case.line, message, "tests")


def run_tests(rules: Iterable[Rule], columns: Mapping[str, Column]) -> list[CaseResult]:
    """Run every test of every rule, also of those that are off. ``for`` and exceptions play no part."""
    results: list[CaseResult] = []
    for rule in rules:
        frame = pl.DataFrame(
            [
                pl.Series(name, [_value(c, columns[name], name) for c in rule.tests], dtype=_DTYPES[columns[name].kind])
                for name in sorted(rule.when.columns)
            ]
            + [pl.Series(TIME, [0] * len(rule.tests), dtype=pl.Int64)]
        )
        actual = frame.select(rule.when.expr.alias("actual"))["actual"].to_list()
        results += [CaseResult(rule, case, value) for case, value in zip(rule.tests, actual, strict=True)]
    return results


def _value(case: Case, column: Column, name: str) -> float | str | bool | None:
    value = case.given.get(name)
    return column.values.index(str(value)) if column.kind == "code" and value is not None else value
