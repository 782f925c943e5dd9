"""Scenario files: all that ship load, the published schema says what the loader takes, errors have their line."""

import json
from importlib import resources

import jsonschema
import pytest
import yaml

from monitor.errors import BadInput
from monitor.simulate import find, json_schema, shipped
from monitor.simulate.scenario import POPULATION, load

WANTED = {"S0", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S13", "S14",
          "G1", "P1", "P2", "P3", *(f"B{i}" for i in range(1, 16))}  # fmt: skip
GOOD = """schema: scenario/v1
id: mine
title: Mine
kind: attack
actor: distillation
accounts: 100
groups:
  - name: a
    rate: {mean: 5}
    text: {tasks: {chat: 1}}
"""


def test_every_scenario_of_the_reference_ships():
    assert set(shipped()) >= WANTED


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_files_load_and_fit_the_published_schema(name):
    path = shipped()[name]
    scenario = load(path)
    assert scenario.id == name
    assert scenario.grounded_in
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())
    assert sum(g.share for g in scenario.groups) == pytest.approx(1.0)


def test_published_schema_is_the_loaders():
    text = (resources.files("monitor.simulate") / "scenario.schema.json").read_text()
    assert json.loads(text) == json_schema(), "run: python -m monitor.simulate"


@pytest.mark.parametrize(
    ("name", "accounts", "total", "days"),
    [("S1", 250, 150_000, 21), ("S2", 300, 3.4e6, 60), ("S3", 2000, 13e6, 60), ("S4", 24_975, 28.8e6, 44),
     ("S5", 60, 100_000, 14), ("S6", 20_000, 10e6, 30), ("S7", 500, 200_000, 90), ("S8", 20, 5000, 3),
     ("S9", 20_000, 2e6, 14), ("S10", 100, 300_000, 20), ("G1", 1, 50_000, 5)],
)  # fmt: skip
def test_figures_agree_with_the_disclosed_totals(name, accounts, total, days):
    s = find([name])[0]
    assert (s.accounts, s.days) == (accounts, days)
    rate = s.groups[0].rate
    mean = rate.mean or rate.median * 2.718281828 ** (rate.sigma**2 / 2)
    assert mean * accounts * days == pytest.approx(total, rel=0.12)
    assert accounts <= POPULATION


def test_a_good_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert find([str(path)])[0].groups[0].rate.mean == 5


def test_every_problem_at_once_each_with_its_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        GOOD.replace("actor: distillation", "actor: spy").replace("mean: 5", "mean: -5") + "    colour: red\n"
    )
    other = tmp_path / "worse.yaml"
    other.write_text("schema: scenario/v1\nid: x\n")
    with pytest.raises(BadInput) as caught:
        find([str(path), str(other), "S99"])
    said = {(p.file.rsplit("/", 1)[-1], p.line, (p.field or "").split(".")[0]) for p in caught.value.problems}
    assert {("bad.yaml", 5, "actor"), ("bad.yaml", 9, "groups[0]"), ("bad.yaml", 11, "groups[0]")} <= said
    assert any(p.file.endswith("worse.yaml") and "required" in p.message for p in caught.value.problems)
    assert any(p.file == "S99" and "shipped are" in p.message for p in caught.value.problems)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [("{mean: 5}", "{mean: 5, median: 4}", "rate"), ("{mean: 5}", "{}", "rate"), ("{chat: 1}", "{poetry: 1}", "tasks"),
     ("accounts: 100", "accounts: 0", "accounts"), ("scenario/v1", "scenario/v2", "schema"),
     ("groups:", "groups: []\nx:", "groups")],
)  # fmt: skip
def test_wrong_values_are_refused(tmp_path, old, new, field):
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(BadInput) as caught:
        load(path)
    assert any(field in (p.field or "") for p in caught.value.problems)
    assert all(p.line > 0 for p in caught.value.problems)
