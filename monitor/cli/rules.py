"""``monitor rules lint|test|list|show|schema|readme``: what the rules are, and what is wrong with them.

Without paths the rules of the package are meant. Exit codes: 0 all well, 1 findings (a failing test; a warning under
``--strict``), 2 rules that can't be used.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import BadInput, Problem
from ..features.catalogue import CLIENT_CLASSES
from ..features.vocabulary import CATALOGUE
from ..rules import CaseResult, Rule, RuleSet, load_rules, packaged_rules, run_tests
from ..rules.build import columns_of
from ..rules.readme import readme_text
from ..rules.schema import schema_text
from .common import JsonOption, guarded, out, table, write_json

app = typer.Typer(no_args_is_help=True, help="Check, test and describe the detection rules.")

PathsArgument = Annotated[
    list[Path] | None, typer.Argument(help="Directories or files of rules; none: those of the package.")
]
PolicyOption = Annotated[
    Path | None, typer.Option(help="Policy file; none: the one among the paths, or the package's.")
]
WriteOption = Annotated[bool, typer.Option("--write", help="Write the packaged file instead of printing it.")]


def _load(paths: list[Path] | None, policy: Path | None, tests: bool = True) -> RuleSet:
    return load_rules(paths or [packaged_rules()], CATALOGUE, CLIENT_CLASSES, policy, tests)


@app.command()
def lint(
    paths: PathsArgument = None,
    policy: PolicyOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say everything that is wrong with the rules, each with file, line and remedy."""
    try:
        rules = _load(paths, policy)
    except BadInput as error:
        _tell(error.problems, (), as_json)
        raise typer.Exit(error.exit_code) from None
    warnings = (*rules.warnings, *_expired(rules, int(datetime.now(UTC).timestamp() * 1000)))
    _tell((), warnings, as_json, f"ok: {len(rules)} rules (hash {rules.hash})")
    if warnings and strict:
        raise typer.Exit(1)


def _expired(rules: RuleSet, now_ms: int) -> list[Problem]:
    return [
        Problem(rule.file, 0, f"exception {e.name!r} expired: remove it or ask {e.owner}", "exceptions")
        for rule in rules.rules.values()
        for e in rule.exceptions
        if e.expires_ms <= now_ms
    ]


def _tell(problems: tuple[Problem, ...], warnings: tuple[Problem, ...], as_json: bool, well: str = "") -> None:
    if as_json:
        write_json({"problems": [asdict(p) for p in problems], "warnings": [asdict(w) for w in warnings]})
        return
    for problem in problems:
        typer.echo(str(problem), err=True)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    if well:
        typer.echo(well)


@app.command("test")
@guarded
def run_in_file_tests(paths: PathsArgument = None, policy: PolicyOption = None, as_json: JsonOption = False) -> None:
    """Run the tests in the rule files; exit 1 if one fails."""
    rules = _load(paths, policy, tests=False)
    results = run_tests(rules.rules.values(), columns_of(CATALOGUE, CLIENT_CLASSES))
    failed = [r for r in results if not r.passed]
    if as_json:
        write_json([_result(r) for r in results])
    else:
        for result in failed:
            typer.echo(str(result.problem), err=True)
        typer.echo(f"{len(results) - len(failed)} of {len(results)} tests of {len(rules)} rules passed")
    if failed:
        raise typer.Exit(1)


def _result(result: CaseResult) -> dict[str, Any]:
    case = result.case
    return {"rule": result.rule.id, "test": case.name, "expected": case.expected, "actual": result.actual,
            "passed": result.passed}  # fmt: skip


@app.command("list")
@guarded
def list_command(paths: PathsArgument = None, policy: PolicyOption = None, as_json: JsonOption = False) -> None:
    """List the rules."""
    rules = _load(paths, policy).rules.values()
    if as_json:
        write_json([_described(rule) for rule in rules])
        return
    rows = ((r.id, ", ".join(r.families), r.hypothesis, r.severity, r.mode, r.title) for r in rules)
    out.print(table(f"{len(rules)} rules", ("id", "families", "points to", "severity", "mode", "title"), rows))


@app.command()
@guarded
def show(
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the rule.")],
    paths: PathsArgument = None,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one rule: its condition with the params in force, what it needs, why, and what to do."""
    rules = _load(paths, policy)
    rule = rules.rules.get(rule_id)
    if rule is None:
        raise BadInput([Problem(rule_id, 0, f"no such rule; there are {', '.join(rules.rules)}")])
    if as_json:
        write_json(_described(rule))
        return
    values = {"condition": rule.when.source.strip(), "params": ", ".join(f"{k}={v:g}" for k, v in rule.params.items()),
              "needs": ", ".join(rules.inactive(()).get(rule.id, ())) or "nothing optional", "why": rule.why,
              "blind spots": rule.blind_spots, "false positives": rule.false_positives,
              "runbook": "; ".join(rule.runbook), "tags": ", ".join(rule.tags), "file": rule.file}  # fmt: skip
    out.print(table(f"{rule.id}: {rule.title}", ("", ""), values.items()))


def _described(rule: Rule) -> dict[str, Any]:
    names = ("id", "title", "family", "families", "hypothesis", "severity", "confidence", "status", "mode", "version",
             "for_s", "cooldown_s", "params", "evidence", "features", "raw_fields", "why", "blind_spots",
             "false_positives", "runbook", "tags", "references", "file")  # fmt: skip
    exceptions = [{"name": e.name, "reason": e.reason, "owner": e.owner, "expires_ms": e.expires_ms}
                  for e in rule.exceptions]  # fmt: skip
    return {n: getattr(rule, n) for n in names} | {"when": rule.when.source, "exceptions": exceptions}


@app.command()
@guarded
def schema(write: WriteOption = False) -> None:
    """Print the JSON Schema of rule files, for editors."""
    _give(schema_text(CATALOGUE), "schema.json", write)


@app.command()
@guarded
def readme(write: WriteOption = False) -> None:
    """Print the page about the rules, made from the rules and the catalogue."""
    _give(readme_text(_load(None, None), CATALOGUE, CLIENT_CLASSES), "README.md", write)


def _give(text: str, name: str, write: bool) -> None:
    if write:
        (packaged_rules() / name).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
