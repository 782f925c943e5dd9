"""Tuning on stored rows: the rows judged again are the run itself, and what the commands say can be checked by hand."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from monitor import wiring
from monitor.__main__ import build as cli
from monitor.cli.alerts import read_alerts
from monitor.errors import BadInput
from monitor.evaluate.inputs import Truth, read_truth
from monitor.records import Alert
from monitor.rules import RuleSet, packaged_rules
from monitor.settings import load_settings
from monitor.simulate.api import simulate
from monitor.tuning import Rows, compare, look, of_alert, parse_sweep, record, replay, statistics, sweep
from monitor.tuning.page import comparison_page, curve_page

OVERRIDE = """\
schema: monitor.override/v1
target: trace-harvest
reason: our own tutors ask for steps, so this says little here
owner: detection@example.com
mode: shadow   # on trial until Friday
params: {elicitation: 0.35}
"""


@dataclass(frozen=True)
class Made:
    """A log with a campaign and a look-alike, and its rows."""

    log: Path
    rows: Rows
    rules: RuleSet
    truth: list[Truth]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("tuning")
    log, settings = folder / "log.ndjson.zst", load_settings(None)
    simulate(["S1"], log, accounts=120, days=1.5, heavy_cap=50)
    rows = record([log], folder / "rows", settings=settings)
    return Made(log, rows, wiring.load(settings), read_truth(folder / "log.truth.ndjson"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli(), [str(a) for a in arguments])


def last(alerts: list[Alert]) -> dict[str, tuple[str, tuple[str, ...], int, str]]:
    newest = {a.alert_id: a for a in sorted(alerts, key=lambda a: a.revision)}
    return {i: (a.severity, tuple(a.rules), a.revision, a.mode) for i, a in newest.items()}


def test_judging_the_rows_again_gives_the_alerts_of_the_run(made: Made) -> None:
    found = replay(made.rows, [made.rules])[0]
    written = read_alerts(made.rows.directory / "alerts.ndjson")
    assert last(list(found.alerts.values())) == last(written)
    assert {a.kind for a in written} == {"account", "campaign"}
    assert {a.mode for a in written} == {"alert", "shadow"}


def test_a_sweep_is_the_same_as_each_value_by_itself(made: Made) -> None:
    for rule, values in (("trace-harvest", "elicitation=0.2:0.6:2"), ("campaign-linked", "tenants=3:30:2")):
        asked = parse_sweep(f"{rule}.{values}", made.rules)
        curve = sweep(made.rows, made.rules, asked, made.truth)
        assert [p.value for p in curve.points] == list(asked.values)
        for point in curve.points:
            tuned = made.rules.rules[rule].retuned({asked.param: point.value})
            alone = replay(made.rows, [replace(made.rules, rules={**made.rules.rules, rule: tuned})])[0]
            assert point.fired == alone.fired[rule]
            assert point.subjects == len(alone.subjects.get(rule, ()))
            assert point.alerts == sum(rule in a.rules for a in alone.alerts.values())
        assert curve.points[0].fired > curve.points[-1].fired
        assert curve.now.gained == curve.now.lost == 0


def test_the_truth_beside_a_sweep_adds_up(made: Made) -> None:
    curve = sweep(made.rows, made.rules, parse_sweep("trace-harvest.elicitation=0.1:0.9:3", made.rules), made.truth)
    assert curve.abusive == sum(t.actor != "benign" for t in made.truth)
    for p in curve.points:
        assert (p.abusive or 0) + (p.look_alike or 0) + (p.background or 0) == p.subjects
    assert (curve.points[0].abusive or 0) > 0


@pytest.mark.parametrize(("text", "says"), [
    ("trace-harvest.elicitation", "is not rule.param=FROM:TO:POINTS"),
    ("trace-harvest.elicitation=0.1:0.5:1", "asks for 1 points"),
    ("no-such.elicitation=0.1:0.5:3", "no rule 'no-such'"),
    ("trace-harvest.elicitatio=0.1:0.5:3", "did you mean 'elicitation'"),
    ("trace-harvest.elicitation=0.1:7:3", "not within the rule's bounds"),
    ("trace-harvest.elicitation=a:7:3", "could not convert"),
])  # fmt: skip
def test_a_sweep_that_is_none_says_why(made: Made, text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_sweep(text, made.rules)


def test_what_is_gained_and_lost_is_the_difference_of_two_runs(made: Made) -> None:
    without = {n: r for n, r in made.rules.rules.items() if n != "campaign-linked" and r.over == "account"}
    fewer = replace(made.rules, rules=without)
    whole, part = replay(made.rows, [made.rules, fewer])
    lost = compare(whole, part, made.truth)
    gained = compare(part, whole, made.truth)
    campaigns = {a.subject for a in whole.alerts.values() if a.kind == "campaign"}
    assert campaigns
    assert {c.subject for c in lost.alerts if c.kind == "campaign"} == campaigns
    assert {c.what for c in lost.alerts if c.kind == "campaign"} == {"lost"}
    assert sorted((c.subject, c.mode) for c in gained.accounts if c.what == "gained") == sorted(
        (c.subject, c.mode) for c in lost.accounts if c.what == "lost"
    )
    assert compare(whole, whole).alerts == compare(whole, whole).accounts == []
    abusive = {t.account_id for t in made.truth if t.actor != "benign"}
    assert all((c.truth == "abusive") == (c.subject in abusive) for c in lost.accounts)


def test_a_rule_is_explained_on_the_row_on_which_it_fired_and_where_it_came_nearest(made: Made) -> None:
    fired = replay(made.rows, [made.rules])[0].subjects["trace-harvest"]
    everyone = set(pl.concat(made.rows.frames(["subject"]))["subject"])
    on = next(f for f in look(made.rows, made.rules, min(fired)) if f.rule.id == "trace-harvest")
    assert on.fired > 0
    assert on.open_terms == 0
    assert on.terms[0].outcome is True
    off = next(f for f in look(made.rows, made.rules, min(everyone - fired)) if f.rule.id == "trace-harvest")
    assert off.fired == 0
    assert off.open_terms > 0
    assert off.terms[0].outcome is not True
    begun = look(made.rows, made.rules, min(fired), at=on.first)
    assert next(f for f in begun if f.rule.id == "trace-harvest").at == on.first


def test_a_member_is_explained_by_the_rules_over_its_campaign(made: Made) -> None:
    alert = next(a for a in replay(made.rows, [made.rules])[0].alerts.values() if a.kind == "campaign")
    found = [f for f in look(made.rows, made.rules, alert.accounts[0]) if f.subject == alert.subject]
    assert {f.rule.id for f in found} == {r.id for r in made.rules.of("campaign")}
    assert {f.rule.id for f in found if f.fired} >= set(alert.rules)
    by_id = look(made.rows, made.rules, alert.subject)
    assert {f.rule.id: f.fired for f in by_id} == {f.rule.id: f.fired for f in found}


def test_an_alert_explains_the_rules_that_raised_it(made: Made) -> None:
    written = read_alerts(made.rows.directory / "alerts.ndjson")
    campaigns = [a for a in written if a.kind == "campaign"]
    for f in of_alert(campaigns[-1], made.rules, campaigns[-1].subject):
        assert f.terms[0].outcome is not False
        assert any(t.value is not None for t in f.terms)


def test_rows_are_cut_at_the_times_given_and_the_rest_warms_up(made: Made, tmp_path: Path) -> None:
    every = pl.concat(made.rows.frames(["subject", "tick", "requests_24h"]))
    ends = (every["tick"] * made.rows.meta.tick_ms).sort()
    middle = int(ends[len(ends) // 2])
    late = record([made.log], tmp_path / "late", settings=load_settings(None), from_ms=middle)
    kept = every.filter(pl.col("tick") * made.rows.meta.tick_ms >= middle)
    assert pl.concat(late.frames(["subject", "tick", "requests_24h"])).equals(kept)
    assert all((s.step + 1) * late.meta.step_ms >= middle for s in late.steps())


def test_a_directory_with_other_things_is_left_alone(made: Made, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds 'thesis\.txt'"):
        record([made.log], tmp_path, settings=load_settings(None))
    with pytest.raises(BadInput, match="holds no rows"):
        Rows.open(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_shadow_statistics_count_whom_the_alerts_name(made: Made) -> None:
    written = read_alerts(made.rows.directory / "alerts.ndjson")
    named = {s for a in written if a.mode == "alert" for s in (a.subject, *a.accounts)}
    for s in statistics(written, made.rules):
        subjects = {a.subject for a in written if a.mode == "shadow" and s.rule in a.rules}
        assert (s.subjects, s.also, s.new) == (len(subjects), len(subjects & named), len(subjects - named))
    on_trial = {r.id for r in made.rules.rules.values() if r.mode == "shadow"}
    assert {s.rule for s in statistics([], made.rules)} == on_trial
    heard = next(a for a in written if a.mode == "alert" and a.kind == "campaign")
    judged = statistics(written, made.rules, {heard.alert_id: "confirmed"})
    assert sum(s.confirmed for s in judged) > 0
    assert sum(s.false_positive for s in judged) == 0


# ------------------------------------------------------------------------------------------------- the commands


def test_backtest_compares_sweeps_and_writes_a_page_without_anything_from_outside(made: Made, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "o.yaml").write_text(OVERRIDE)
    page = tmp_path / "page.html"
    asked = ("rules", "backtest", "--rows", made.rows.directory, "--html", page, "--json")
    result = run(*asked, "--rules", packaged_rules(), "--rules", site)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["rules"]["trace-harvest"]["old"]["mode"] == "alert"
    assert found["rules"]["trace-harvest"]["new"]["mode"] == "shadow"
    text = page.read_text()
    assert "<svg" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    result = run(*asked, "--sweep", "trace-harvest.elicitation=0.1:0.9:3")
    assert result.exit_code == 0, result.output
    assert [p["value"] for p in json.loads(result.stdout)["points"]] == [0.1, 0.5, 0.9]
    assert page.read_text().count("<polyline") == 1
    assert "trace-harvest" in run(*asked[:-1], "--rules", packaged_rules(), "--rules", site).stdout
    assert run(*asked).exit_code == 2
    assert run("rules", "backtest", "--sweep", "trace-harvest.elicitation=0.1:0.9:3").exit_code == 2


def test_explain_says_it_of_one_rule_and_of_all(made: Made) -> None:
    who = min(replay(made.rows, [made.rules])[0].subjects["trace-harvest"])
    result = run("rules", "explain", "trace-harvest", who, "--rows", made.rows.directory, "--json")
    assert result.exit_code == 0, result.output
    terms = json.loads(result.stdout)[0]["terms"]
    asked = next(t for t in terms if t["term"] == "reasoning_elicitation_share_24h >= elicitation=0.3")
    assert asked["outcome"] is True
    assert asked["margin"] == pytest.approx(asked["value"] - 0.3)
    every = run("explain", who, "--rows", made.rows.directory, "--json")
    assert {f["rule"] for f in json.loads(every.stdout)} >= {r.id for r in made.rules.of("account")}
    from_file = run("explain", who, "--file", made.rows.directory / "alerts.ndjson")
    assert from_file.exit_code == 0, from_file.output
    assert "trace-harvest" in from_file.stdout
    assert run("explain", "nobody", "--rows", made.rows.directory).exit_code == 1
    assert run("rules", "explain", "no-such", who, "--rows", made.rows.directory).exit_code == 2


def test_promote_changes_one_word_of_the_file_and_says_what_is_next(tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_bytes(OVERRIDE.replace("\n", "\r\n").encode())
    shutil.copy(packaged_rules() / "content" / "trace-harvest.yaml", tmp_path)
    shutil.copytree(packaged_rules() / "macros", tmp_path / "macros")
    before = (tmp_path / "o.yaml").read_bytes()
    dry = run("rules", "promote", "trace-harvest", tmp_path, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "o.yaml:5: would change mode shadow to alert" in dry.stdout
    assert (tmp_path / "o.yaml").read_bytes() == before
    result = run("rules", "promote", "trace-harvest", tmp_path)
    assert result.exit_code == 0, result.output
    assert "monitor rules lint" in result.stdout
    assert (tmp_path / "o.yaml").read_bytes() == before.replace(b"mode: shadow", b"mode: alert")
    again = run("rules", "promote", "trace-harvest", tmp_path)
    assert again.exit_code == 2
    assert "is in mode alert already" in again.stderr
    assert run("rules", "promote", "trace-harvest", tmp_path, "--to", "shadow").exit_code == 0
    assert (tmp_path / "o.yaml").read_bytes() == before


def test_promote_leaves_the_package_an_experiment_and_a_broken_set_as_they_are(tmp_path: Path) -> None:
    assert run("rules", "promote", "one-shot-template").exit_code == 2
    text = (packaged_rules() / "volume" / "heavy-output.yaml").read_text()
    trial = tmp_path / "heavy-output.yaml"
    trial.write_text(text.replace("status: stable", "status: experimental").replace("mode: alert", "mode: shadow"))
    result = run("rules", "promote", "heavy-output", tmp_path)
    assert result.exit_code == 2
    assert "set `status: test` first" in result.stderr
    assert "mode: shadow" in trial.read_text()


def test_the_pages_hold_hostile_ids_as_text(made: Made) -> None:
    runs = replay(made.rows, [made.rules, replace(made.rules, rules={})])
    found = compare(*runs)
    named = replace(found, accounts=[replace(found.accounts[0], subject="<script>alert(1)</script>")])
    assert "<script>" not in comparison_page(named)
    asked = parse_sweep("trace-harvest.elicitation=0.1:0.9:3", made.rules)
    assert curve_page(sweep(made.rows, made.rules, asked)) == curve_page(sweep(made.rows, made.rules, asked))
