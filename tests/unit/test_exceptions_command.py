"""``monitor exceptions add``: a file that the rules take, or none at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.features.catalogue import CLIENT_CLASSES
from monitor.features.vocabulary import CATALOGUE
from monitor.rules import load_rules, packaged_rules
from monitor.yamlfile import load

GOOD = {"--reason": "teaches long division, reviewed", "--owner": "mia@example.com", "--expires": "2027-06-30"}
NASTY = "acct: {x} # \"'\\\u2028 - "


def add(*words: str, **changes: str) -> tuple[int, str]:
    given = {"--account": "acct_Math.Tutor", **GOOD, **{f"--{k}": v for k, v in changes.items()}}
    line = ["exceptions", "add", *words, *(w for pair in given.items() for w in pair)]
    result = CliRunner().invoke(build(), line)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_rules_with_the_file_leave_the_account_alone(here: Path) -> None:
    code, said = add("trace-harvest")
    assert code == 0, said
    assert said.splitlines()[0] == "site/overrides/trace-harvest--acct-math-tutor.yaml"
    assert "when rules.dirs has site" in said
    rules = load_rules([packaged_rules(), here / "site"], CATALOGUE, CLIENT_CLASSES, tests=False)
    (made,) = rules.rules["trace-harvest"].exceptions
    assert (made.name, made.reason, made.owner) == ("acct-math-tutor", GOOD["--reason"], GOOD["--owner"])
    assert add("trace-harvest", account="acct_other")[0] == 0  # a second one beside it
    rules = load_rules([packaged_rules(), here / "site"], CATALOGUE, CLIENT_CLASSES, tests=False)
    assert len(rules.rules["trace-harvest"].exceptions) == 2


def test_whatever_is_in_a_string_stays_one(here: Path) -> None:
    code, said = add("trace-harvest", account=NASTY, reason=f"because of {NASTY}", name="odd")
    assert code == 0, said
    node = load(here / "site" / "overrides" / "trace-harvest--odd.yaml").data
    assert node["exceptions"][0]["match"] == {"account_id": [NASTY]}
    assert node["reason"] == f"because of {NASTY}"


@pytest.mark.parametrize(
    ("rule", "changes", "said"),
    [
        ("trace-harvset", {}, "no rule 'trace-harvset'"),
        ("../../etc/x", {}, "lower-case words"),
        ("trace-harvest", {"name": "../x"}, "lower-case words"),
        ("trace-harvest", {"expires": "2027-02-30"}, "is no day"),
        ("trace-harvest", {"reason": "short"}, "at least 10 characters"),
    ],
)
def test_what_the_rules_refuse_is_not_written(here: Path, rule: str, changes: dict[str, str], said: str) -> None:
    code, told = add(rule, **changes)
    assert code == 2
    assert said in told
    assert list(here.rglob("*.yaml")) == []


def test_a_file_that_is_there_is_not_overwritten(here: Path) -> None:
    add("trace-harvest")
    code, said = add("trace-harvest", reason="another reason altogether")
    assert (code, "is there already" in said) == (2, True)
