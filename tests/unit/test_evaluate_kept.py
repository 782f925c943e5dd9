"""A suite's JSON read again: the same tables, seeds added up, and a page whose marked tables are made anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.errors import BadInput
from monitor.evaluate import api, kept, sizes, suite
from monitor.evaluate.suite import SuiteReport

PAGE = """# Figures
<!-- tiny, {seeds}, runs detector, shared payment: Detectors on the same logs -->
| old |
<!-- end -->
between
<!-- tiny, seeds 8 to 9, runs detector, shared payment: Scenarios -->
another run's
<!-- end -->
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, SuiteReport]:
    """Two seeds of a small suite, run apart, and a third run of both together under the key 0."""
    folder = tmp_path_factory.mktemp("suite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "SUITES", {"tiny": sizes.Size(30, 0.5, ("S1", "B5"), 40, fairness=True)})
        apart = {s: suite.run_suite("tiny", _first_six, folder, first_seed=s, runs=_RUNS) for s in (1, 2)}
        return {**apart, 0: suite.run_suite("tiny", _first_six, folder, seeds=2, runs=_RUNS)}


_RUNS = ("detector", "shared payment")


def _first_six(log: Path, context: Path, alerts: Path) -> dict[str, Any]:
    """Names some members of a campaign as one, so that every figure of a table differs from none."""
    truth = [json.loads(line) for line in log.with_name("log.truth.ndjson").open()]
    members = [t for t in truth if t.get("campaign")][:6]
    alert = {"alert_id": "a", "kind": "campaign", "severity": "high", "hypothesis": "distillation",
             "revised_at": min(t["first_ts"] for t in members) + 60,
             "accounts": [t["account_id"] for t in members]}  # fmt: skip
    alerts.write_text(json.dumps(alert) + "\n")
    return {"events": 1}


def test_what_was_written_is_read_as_it_was(reports: dict[int, SuiteReport], tmp_path: Path) -> None:
    for seed in (1, 2):
        api.write_suite(reports[seed], tmp_path / f"{seed}.json", tmp_path / f"{seed}.html")
    again = kept.read([tmp_path / "1.json"])
    assert again == reports[1]
    assert again.to_json() == reports[1].to_json()
    both = kept.read([tmp_path / "1.json", tmp_path / "2.json"])
    assert both.seeds == (1, 2)
    assert api.suite_markdown(both) == api.suite_markdown(reports[0])
    result = CliRunner().invoke(build(), ["evaluate", "--report", str(tmp_path / "1.json"), "--html",
                                          str(tmp_path / "again.html"), "--quiet"])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "1.html").read_bytes()


def test_a_page_gets_the_tables_of_this_suite_and_these_seeds_alone(reports: dict[int, SuiteReport]) -> None:
    page, count = kept.fill(PAGE.format(seeds="seed 1"), reports[1])
    assert count == 1
    assert "| old |" not in page
    assert "another run's" in page
    row = next(line for line in page.splitlines() if line.startswith("| detector |"))
    assert row.startswith("| detector | 1 of 1 | 1 |")
    assert any(line.startswith("| shared payment |") for line in page.splitlines())
    assert kept.fill(page, reports[1]) == (page, 1)
    assert kept.fill(page, reports[2]) == (page, 0)
    assert kept.fill(PAGE.format(seeds="seeds 1 to 2"), reports[0])[1] == 1


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("<!-- tiny, {name}: Scenarios -->\n", "the page:1: has no"),
        ("x\n<!-- tiny, {name}: Weather -->\n<!-- end -->\n", "the page:2: no table 'Weather'"),
    ],
)
def test_a_mark_that_nothing_fits_is_said_with_its_line(
    page: str, said: str, reports: dict[int, SuiteReport]
) -> None:  # fmt: skip
    with pytest.raises(BadInput, match=said):
        kept.fill(page.format(name="seed 1, runs detector, shared payment"), reports[1])


def test_a_page_without_a_mark_and_reports_that_are_none_are_said(
    reports: dict[int, SuiteReport], tmp_path: Path
) -> None:  # fmt: skip
    (tmp_path / "page.md").write_text("no mark\n")
    with pytest.raises(BadInput, match="no table of tiny, seed 1, runs detector"):
        api.fill_page(tmp_path / "page.md", reports[1])
    api.write_suite(reports[1], tmp_path / "1.json", None)
    for bad in ([tmp_path / "page.md"], [tmp_path / "none"], [tmp_path / "1.json", tmp_path / "1.json"]):
        with pytest.raises(BadInput):
            kept.read(bad)


def test_a_run_is_named_by_its_seeds_and_by_what_it_was_confined_to() -> None:
    def named(*seeds: int, runs: tuple[str, ...] = ()) -> str:
        return kept.name_of(SuiteReport("tiny", seeds, (), runs=runs))

    assert named(28) == "tiny, seed 28"
    assert [named(3, 4, 5), named(21, 3, 4, 7)] == ["tiny, seeds 3 to 5", "tiny, seeds 3 to 4, 7, 21"]
    assert named(3, 4, runs=("detector", "text")) == "tiny, seeds 3 to 4, runs detector, text"


def test_columns_that_say_nothing_are_left_out() -> None:
    table = kept.markdown(["a", "b", "c"], [["x", "-", "1"], ["y", "-", "-"]])
    assert table.splitlines() == ["| a | c |", "| --- | --- |", "| x | 1 |", "| y | - |"]
