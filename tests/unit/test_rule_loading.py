"""Rule files to rule sets: what is refused, with which words and on which line, and what lists and overrides do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rule_files import CATALOGUE, CLASSES, POLICY, RULE, Folder, folder, frame

from monitor.errors import BadInput
from monitor.rules import HoldState, content_hash, load_rules

DAY_MS = 86_400_000
NEW_YEAR_2027_MS = 1_798_761_600_000
EXCEPTION = {"name": "partner", "match": {"account_id": ["a"]}, "reason": "contract with us", "owner": "jk",
             "expires": "2026-12-31"}  # fmt: skip


@pytest.fixture
def rules(tmp_path: Path) -> Folder:
    return folder(tmp_path / "rules")


def refused(rules: Folder, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        rules.load(**options)
    assert caught.value.problems == tuple(sorted(caught.value.problems))
    return str(caught.value).replace(str(rules.path) + "/", "")


def test_a_rule_is_what_its_file_says(rules: Folder) -> None:
    rules.rule(**{"for": "10m", "families": ["timing", "volume"], "when": "regular_1h > params.level && volume_1h > 2"},
               tests=[{"name": "y", "given": {"regular_1h": 1, "volume_1h": 3}, "alert": True},
                      {"name": "n", "given": {"regular_1h": 0, "volume_1h": 3}, "alert": False},
                      {"name": "u", "given": {"volume_1h": 3}, "alert": "unknown"}])  # fmt: skip
    loaded = rules.load()
    rule = loaded.rules["steady"]
    assert (rule.for_s, rule.cooldown_s, rule.params) == (600, 3600, {"level": 0.5})
    assert rule.families == ("timing", "volume")
    assert rule.features == ("regular_1h", "volume_1h")
    assert rule.raw_fields == ("latency_ms", "ts")
    assert loaded.policy.attested == ("ip",)
    assert loaded.policy.roots["exact"] == ("replay", "intel")
    assert loaded.policy.never_high == ("anomaly", "classifier", "volume", "geography")


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"when": "regular_1 > 0.5", "params": {}}, "when: unknown name 'regular_1': did you mean 'regular_1h'?"),
    ({"when": "regular_1h > 'a'", "params": {}}, "when: compares a number with a string"),
    ({"when": "regular_1h > 7", "params": {}}, "when: 7 lies outside the range of regular_1h (0 to 1)"),
    ({"when": "true", "params": {}}, "when: reads no feature"),
    ({"when": "client_class == 'app'", "params": {}}, "when: reads no feature"),
    ({"when": 5}, "when: input should be a valid string"),
    ({"severity": "hihg"}, "severity: 'hihg' is not one of info, low, medium, high, critical: did you mean 'high'?"),
    ({"severity": "medium", "family": "volume", "when": "volume_1h > 5", "params": {}}, "rests on volume alone"),
    ({"family": "template"}, "family: 'template' is not the folder 'timing': move the file"),
    ({"families": ["template"]}, "families[0]: the condition reads no feature of family 'template'"),
    ({"hypothesis": "theft"}, "hypothesis: 'theft' is not one of distillation"),
    ({"confidence": 2}, "confidence: input should be less than or equal to 1"),
    ({"version": 0}, "version: input should be greater than or equal to 1"),
    ({"status": "experimental"}, "mode: an experimental rule may not alert"),
    ({"for": "10 minutes"}, "for: '10 minutes' should be a number and s, m, h or d, like 10m"),
    ({"cooldown": None}, "cooldown: is required: event time without a firing that ends an episode"),
    ({"why": None}, "why: is required"),
    ({"blind_spots": "none"}, "blind_spots: string should have at least 10 characters"),
    ({"runbook": []}, "runbook: list should have at least 1 item"),
    ({"tags": ["AML.T0024.02"]}, "tags[0]: unknown tag 'AML.T0024.02': did you mean 'AML.T0024.002'?"),
    ({"references": ["http://a"]}, "references[0]: 'http://a' should be a link that starts with https://"),
    ({"evidence": ["regular"]}, "evidence[0]: unknown feature 'regular': did you mean 'regular_1h'?"),
    ({"evidence": ["networks_1h"]}, "evidence[0]: networks_1h is attested by the provider"),
    ({"severty": "low"}, "severty: is not a field here: did you mean 'severity'?"),
    (
        {"params": {"level": {"value": 2, "min": 0, "max": 1, "help": "x"}}},
        "params.level.value: 2 is not within 0 to 1",
    ),
    (
        {"params": RULE["params"] | {"other": {"value": 1, "min": 0, "max": 1, "help": "x"}}},
        "params.other: is not used",
    ),
    (
        {"params": {"level": {"value": "0.5", "min": 0, "max": 1, "help": "x"}}},
        "params.level.value: input should be a valid",
    ),
    (
        {"params": {"level": {"value": 0.5, "mim": 0, "max": 1, "help": "x"}}},
        "params.level.mim: is not a field here: did you mean 'min'?",
    ),
    ({"tests": RULE["tests"][:2] + RULE["tests"][:1]}, "tests: no test with alert: unknown: add one"),
    ({"tests": RULE["tests"] + RULE["tests"][:1]}, "tests: the name 'more' occurs twice"),
    (
        {"tests": [*RULE["tests"], {"name": "x", "given": {"regular": 1}, "alert": True}]},
        "tests[3].given.regular: unknown feature",
    ),
    (
        {"tests": [*RULE["tests"], {"name": "x", "given": {"regular_1h": 7}, "alert": True}]},
        "above the feature's range (at most 1)",
    ),
    (
        {"tests": [*RULE["tests"], {"name": "x", "given": {"regular_1h": "7"}, "alert": True}]},
        "'7' is a string, the feature is a number",
    ),
    (
        {"tests": [*RULE["tests"], {"name": "x", "given": {"client_class": "old"}, "alert": True}]},
        "'old' is not one of new, app, batch",
    ),
    (
        {"tests": [*RULE["tests"], {"name": "x", "given": {"regular_1h": 0.2}, "alert": True}]},
        "tests: 'x' should be true, is false",
    ),
    ({"tests": [*RULE["tests"], {"name": "x", "given": {}, "alert": False}]}, "tests: 'x' should be false, is unknown"),
    ({"exceptions": [EXCEPTION, EXCEPTION]}, "exceptions: the name 'partner' occurs twice"),
    (
        {"exceptions": [EXCEPTION | {"expires": "2026-02-30"}]},
        "exceptions[0].expires: '2026-02-30' is not a day of the calendar",
    ),
    (
        {"exceptions": [EXCEPTION | {"expires": "soon"}]},
        "exceptions[0].expires: 'soon' should be a day, like 2027-01-31",
    ),
    ({"exceptions": [{k: v for k, v in EXCEPTION.items() if k != "owner"}]}, "exceptions[0].owner: is required"),
    ({"exceptions": [EXCEPTION | {"match": {"ip": ["a"]}}]}, "exceptions[0].match"),
    ({"exceptions": [EXCEPTION | {"match": {"client_class": ["batsh"]}}]}, "did you mean 'batch'?"),
    ({"exceptions": [EXCEPTION | {"match": {"account_id": "lists.nobody"}}]}, "exceptions[0].match: no list 'nobody'"),
]


@pytest.mark.parametrize(("changes", "said"), CHANGES)
def test_a_bad_rule_is_refused_with_its_remedy(rules: Folder, changes: dict[str, Any], said: str) -> None:
    file = "volume/steady.yaml" if changes.get("family") == "volume" else "timing/steady.yaml"
    rules.rule(file, **changes)
    assert said in refused(rules)


def test_everything_wrong_is_told_at_once_with_lines(rules: Folder) -> None:
    rules.rule("timing/first.yaml", severity="huge", tags=["T1"], when="regular_1h > params.levl")
    rules.rule("timing/second.yaml", id="other")
    rules.write("timing/third.yaml", "schema: monitor.rule/v1\nid: third\nid: third\n")
    rules.write("timing/fourth.yaml", "schema: monitor.rul/v1\n")
    rules.write(
        "lists/people.yaml",
        {
            "schema": "monitor.list/v1",
            "id": "people",
            "owner": "jk",
            "reason": "they are known",
            "expires": "2027-01-31",
        },
    )
    rules.write(
        "overrides/x.yaml", {"schema": "monitor.override/v1", "target": "frist", "reason": "we tried it", "owner": "jk"}
    )
    said = refused(rules)
    lines = said.splitlines()
    assert "timing/first.yaml:6: severity: 'huge' is not one of" in said
    assert "timing/second.yaml:2: id: 'other' is not the file's name" in said
    assert "timing/third.yaml:3: the key 'id' is written twice" in said
    assert "timing/fourth.yaml:1: schema: 'monitor.rul/v1' is unknown: did you mean 'monitor.rule/v1'?" in said
    assert "lists/people.yaml:1: items: needs either items or file" in said
    assert "overrides/x.yaml:2: target: no rule 'frist'" in said
    assert len(lines) >= 6


def test_all_problems_of_one_rule_are_told_at_once(rules: Folder) -> None:
    rules.rule(when="regular_1h > params.levl && nothing > 1", tags=["T1"], evidence=["no"], families=["shape"])
    assert {"when", "tags[0]", "evidence[0]"} == {line.split(": ")[1] for line in refused(rules).splitlines()}


def test_an_empty_directory_and_a_missing_one(rules: Folder, tmp_path: Path) -> None:
    assert "holds no rule" in refused(rules)
    with pytest.raises(BadInput, match="does not exist"):
        load_rules([tmp_path / "no"], CATALOGUE, CLASSES)


def test_ids_are_unique_over_all_paths(rules: Folder, tmp_path: Path) -> None:
    rules.rule()
    other = Folder(tmp_path / "more")
    other.rule()
    with pytest.raises(BadInput, match="'steady' is already in"):
        load_rules([rules.path, other.path], CATALOGUE, CLASSES)


def test_the_policy(rules: Folder, tmp_path: Path) -> None:
    rules.rule()
    own = tmp_path / "own.yaml"
    Folder(tmp_path).write("own.yaml", POLICY | {"account_cap": "low"})
    assert rules.load(policy=own).policy.account_cap == "low"
    rules.write(
        "policy.yaml", POLICY | {"attested": ["ipp"], "roots": POLICY["roots"] | {"exact": ["replay", "linkage"]}}
    )
    said = refused(rules)
    assert "attested[0]: 'ipp' is no family, feature or field of the log: did you mean 'ip'?" in said
    assert "'linkage' stands under two roots" in said
    rules.write("policy.yaml", POLICY | {"min_roots": 1})
    assert "min_roots" in refused(rules)
    rules.write("policy.yaml", POLICY)
    rules.write("again.yaml", POLICY)
    assert "is a second policy" in refused(rules)


def test_without_a_policy_the_packages_holds(rules: Folder) -> None:
    (rules.path / "policy.yaml").unlink()
    rules.rule()
    assert rules.load().policy.volume_cap == "low"


LIST = {"schema": "monitor.list/v1", "id": "known", "owner": "jk", "reason": "they told us so", "expires": "2026-12-31"}


def _known_only(rules: Folder, **changes: Any) -> None:
    rules.rule(when="regular_1h > params.level && !(account_id in lists.known)", **changes, tests=[
        {"name": "y", "given": {"regular_1h": 1, "account_id": "z"}, "alert": True},
        {"name": "n", "given": {"regular_1h": 0}, "alert": False},
        {"name": "u", "given": {"account_id": "z"}, "alert": "unknown"},
    ])  # fmt: skip


@pytest.mark.parametrize("inline", [True, False])
def test_a_list_holds_until_the_end_of_its_last_day_of_event_time(rules: Folder, inline: bool) -> None:
    _known_only(rules)
    rules.write("lists/known.yaml", LIST | ({"items": ["a", "b"]} if inline else {"file": "known.txt"}))
    rules.write("lists/known.txt", "# ours\na\n\nb\n")
    loaded = rules.load()
    rows = frame(*({"regular_1h": 0.9, "subject": s, "t_ms": NEW_YEAR_2027_MS + t} for s in "az" for t in (-1, 0)))
    assert loaded.evaluate(rows, HoldState()).firings["row"].to_list() == [1, 2, 3]


def test_bad_lists(rules: Folder) -> None:
    _known_only(rules)
    rules.write("lists/known.yaml", LIST | {"file": "../policy.yaml"})
    assert "without a folder" in refused(rules)
    rules.write("lists/known.yaml", LIST | {"file": "absent.txt"})
    assert "absent.txt can't be read" in refused(rules)
    rules.write("lists/known.yaml", LIST | {"items": ["a"], "file": "known.txt"})
    assert "needs either items or file" in refused(rules)
    rules.write("lists/known.yaml", LIST | {"items": ["a"], "expires": "2026-13-01"})
    assert "not a day of the calendar" in refused(rules)


def test_macros(rules: Folder) -> None:
    macro = {
        "schema": "monitor.macro/v1",
        "id": "even",
        "help": "very regular traffic",
        "expression": "regular_1h > 0.5",
    }
    rules.rule(when="macros.even", params={})
    rules.write("macros/even.yaml", macro)
    first = rules.load().rules["steady"]
    rules.write("macros/even.yaml", macro | {"expression": "regular_1h > 0.55"})
    assert rules.load().rules["steady"].key != first.key
    rules.write("macros/even.yaml", macro | {"expression": "regular > 0.5"})
    said = refused(rules)
    assert "macros/even.yaml:4: expression: unknown name 'regular'" in said
    assert "timing/steady.yaml:" in said


def test_unused_lists_and_macros_are_warnings(rules: Folder) -> None:
    rules.rule()
    rules.write("lists/known.yaml", LIST | {"items": ["a"]})
    assert [w.message for w in rules.load().warnings] == ["no rule uses this list"]


OVERRIDE = {"schema": "monitor.override/v1", "target": "steady", "reason": "too many firings", "owner": "jk"}


def test_an_override_changes_what_it_may(rules: Folder) -> None:
    rules.rule(exceptions=[EXCEPTION])
    before = rules.load().rules["steady"]
    rules.write("overrides/steady.yaml", OVERRIDE | {
        "mode": "shadow", "severity": "info", "params": {"level": 0.4}, "exceptions": [EXCEPTION | {"name": "second"}],
    })  # fmt: skip
    with pytest.raises(BadInput, match="'level' should be false, is true"):
        rules.load()  # the in-file test at the old level says so
    rule = rules.load(tests=False).rules["steady"]
    assert (rule.mode, rule.severity, rule.params) == ("shadow", "info", {"level": 0.4})
    assert [e.name for e in rule.exceptions] == ["partner", "second"]
    assert rule.key != before.key


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"params": {"level": 3}}, "params.level: 3 is not within 0.1 to 1"),
        ({"params": {"levle": 1}}, "has no param 'levle'"),
        ({"when": "true"}, "when: is not a field here"),
        ({"mode": "of"}, "did you mean 'off'?"),
    ],
)
def test_an_override_can_do_nothing_else(rules: Folder, changes: dict[str, Any], said: str) -> None:
    rules.rule()
    rules.write("overrides/steady.yaml", OVERRIDE | changes)
    assert said in refused(rules)


def test_two_overrides_of_the_same_thing_are_refused(rules: Folder) -> None:
    rules.rule()
    rules.write("overrides/a.yaml", OVERRIDE | {"mode": "shadow"})
    rules.write("overrides/b.yaml", OVERRIDE | {"mode": "off"})
    assert "steady: mode is set in" in refused(rules)


def test_the_hash_is_of_the_content_and_not_of_the_place(rules: Folder, tmp_path: Path) -> None:
    rules.rule()
    twin = folder(tmp_path / "elsewhere")
    twin.rule()
    assert rules.load().hash == twin.load().hash == content_hash([twin.path])
    twin.rule(title="Steadier")
    assert rules.load().hash != twin.load().hash


def test_hidden_folders_are_left_out_and_links_followed(rules: Folder) -> None:
    """A mounted ConfigMap: the files are links into ``..data``, itself a link to a hidden folder."""
    version = rules.path / "..2026_11_23"
    version.mkdir()
    rules.rule("..2026_11_23/steady.yaml")
    (rules.path / "..data").symlink_to(version.name)
    (rules.path / "steady.yaml").symlink_to("..data/steady.yaml")
    assert list(rules.load().rules) == ["steady"]
