"""``monitor rules``: output, ``--json`` and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from monitor.cli.rules import app
from monitor.rules import packaged_rules


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    source = packaged_rules() / "volume" / "heavy-output.yaml"
    text = source.read_text().replace("severity: info", "severity: inof").replace("tags: [AML.T0040", "tags: [AML.T004")
    (tmp_path / "heavy-output.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    source = packaged_rules() / "volume" / "heavy-output.yaml"
    (tmp_path / "heavy-output.yaml").write_text(source.read_text().replace("24h: 30000000", "24h: 30000"))
    return tmp_path


def test_lint_passes_the_packaged_rules() -> None:
    result = run("lint", "--strict")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("ok: ")
    assert json.loads(run("lint", "--json").stdout) == {"problems": [], "warnings": []}


def test_lint_tells_every_problem_and_exits_2(broken: Path) -> None:
    result = run("lint", broken)
    assert result.exit_code == 2
    assert "heavy-output.yaml:7: severity: 'inof' is not one of" in result.stderr
    told = json.loads(run("lint", broken, "--json").stdout)["problems"]
    assert told[0]["line"] == 7
    assert told[0]["field"] == "severity"


def test_lint_warns_of_expired_exceptions(tmp_path: Path) -> None:
    text = (packaged_rules() / "volume" / "heavy-output.yaml").read_text()
    text += ("exceptions:\n  - {name: old, match: {account_id: [a]}, reason: long ago it was right, owner: jk, "
             'expires: "2020-01-01"}\n')  # fmt: skip
    (tmp_path / "heavy-output.yaml").write_text(text)
    assert run("lint", tmp_path).exit_code == 0
    result = run("lint", tmp_path, "--strict")
    assert result.exit_code == 1
    assert "exception 'old' expired: remove it or ask jk" in result.stderr


def test_test_runs_the_tests_in_the_files(failing: Path, broken: Path) -> None:
    assert run("test").exit_code == 0
    results = json.loads(run("test", "--json").stdout)
    assert len(results) > 60
    assert all(r["passed"] for r in results)


def test_test_exits_1_on_a_failing_one(failing: Path) -> None:
    result = run("test", failing)
    assert result.exit_code == 1
    assert "should be true, is false" in result.stderr
    assert "2 of 3 tests of 1 rules passed" in result.stdout


def test_test_exits_2_on_what_can_not_be_loaded(broken: Path) -> None:
    assert run("test", broken).exit_code == 2


def test_list_and_show() -> None:
    rules = json.loads(run("list", "--json").stdout)
    assert {"id", "severity", "when", "raw_fields", "exceptions"} <= set(rules[0])
    assert str(len(rules)) in run("list").stdout
    shown = json.loads(run("show", "trace-harvest", "--json").stdout)
    assert shown == next(r for r in rules if r["id"] == "trace-harvest")
    assert "reasoning_elicitation_share_24h" in run("show", "trace-harvest").stdout


def test_show_refuses_an_unknown_id() -> None:
    result = run("show", "trace-harvst")
    assert result.exit_code == 2
    assert "trace-harvest" in result.stderr


def test_schema_and_readme_print_what_is_committed() -> None:
    assert run("schema").stdout == (packaged_rules() / "schema.json").read_text()
    assert run("readme").stdout == (packaged_rules() / "README.md").read_text()
