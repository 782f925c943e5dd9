"""Families of templates over an archive: against plain counting, by days, and by the command."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from campaign_world import FIRST, STEP_MS, Act, blob
from typer.testing import CliRunner

from monitor.__main__ import build as cli
from monitor.archive import Archive
from monitor.errors import BadInput
from monitor.hunting import families

A_DAY = 144
"""Steps."""
BEGIN = date(1970, 1, 1) + timedelta(days=FIRST // A_DAY + 1)
"""The first whole day of the archives here."""
START = (FIRST // A_DAY + 1) * A_DAY - FIRST


def act(i: int, template: int, tenant: str | None = None, client: int = 7, harvest: int = 0, age: float = 50.0) -> Act:
    links = {"template_opening": [template << 8], "client_build": [client << 8], "payment": [(i + 1) << 20]}
    return Act(f"a{i}", requests=10, tenant=tenant, created_days=age, links=links,
               sums={"n_text": 10, "n_harvest": harvest})  # fmt: skip


def archive(tmp_path: Path, days: list[list[Act]]) -> Path:
    Archive(tmp_path, STEP_MS).put([blob(START + A_DAY * d, acts) for d, acts in enumerate(days)])
    return tmp_path


def test_a_family_is_what_enough_unrelated_tenants_share(tmp_path: Path) -> None:
    vendor = [act(i, 1, client=i % 3, age=100.0 + i) for i in range(9)]
    ring = [act(20 + i, 2, harvest=4, age=3.0) for i in range(4)]
    firm = [act(40 + i, 3, tenant="firm") for i in range(6)]
    own = [act(60 + i, 100 + i) for i in range(30)]
    found = families(archive(tmp_path, [vendor + ring + firm + own]))
    assert [(f.template, f.tenants, f.accounts, f.clients) for f in found] == [
        ("000000000000010", 9, 9, 3), ("000000000000020", 4, 4, 1),
    ]  # fmt: skip
    assert [(f.kind, f.harvest, f.age_days) for f in found] == [
        ("template_opening", 0.0, 104.0), ("template_opening", 0.4, 3.0),
    ]  # fmt: skip
    assert {(f.first, f.last, f.days) for f in found} == {(BEGIN, BEGIN, 1)}


def test_holders_of_different_days_are_one_family_and_an_account_counts_once(tmp_path: Path) -> None:
    days = [[act(i % 5, 1, age=10.0 + d)] for d, i in enumerate((0, 1, 0, 2, 2, 0, 1, 1))]
    (found,) = families(archive(tmp_path, days))
    assert (found.tenants, found.accounts, found.days) == (3, 3, 8)
    assert (found.first, found.last) == (BEGIN, BEGIN + timedelta(days=7))
    assert found.age_days == 11.0, "each at its first day: 10, 11 and 13"
    assert families(tmp_path, last=BEGIN + timedelta(days=2)) == [], "two tenants by then"
    assert families(tmp_path, BEGIN + timedelta(days=3))[0].first == BEGIN + timedelta(days=3)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_as_plain_counting(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    held: dict[int, set[str]] = defaultdict(set)
    days = []
    for _ in range(7):
        acts = []
        for i in rng.choice(60, 40, replace=False).tolist():
            template = int(rng.integers(1, 40))
            held[template].add(f"t{i % 45}")
            acts.append(act(i, template, tenant=f"t{i % 45}"))
        days.append(acts)
    found = {int(f.template, 16) >> 4: f.tenants for f in families(archive(tmp_path, days), least=4)}
    assert found == {template: len(who) for template, who in held.items() if len(who) >= 4}


def test_the_command_shows_what_is_new_and_small(tmp_path: Path) -> None:
    vendor, ring = [act(i, 1, age=100.0) for i in range(9)], [act(20 + i, 2, harvest=4, age=3.0) for i in range(4)]
    archive(tmp_path, [vendor, vendor, vendor + ring])
    run = CliRunner().invoke(cli(), ["templates", "--archive", str(tmp_path), "--json"])
    told = json.loads(run.stdout)
    assert [f["tenants"] for f in told["families"]] == [9, 4]
    assert told["until"] == told["families"][1]["first"] == (BEGIN + timedelta(days=2)).isoformat()
    for chosen in (["--new", "2"], ["--most", "8"]):
        run = CliRunner().invoke(cli(), ["templates", "--archive", str(tmp_path), "--json", *chosen])
        assert [f["tenants"] for f in json.loads(run.stdout)["families"]] == [4]
    shown = CliRunner().invoke(cli(), ["templates", "--archive", str(tmp_path), "--limit", "1"])
    assert "2 templates of 3 tenants or more" in shown.stdout
    assert "1 more" in shown.stdout
    assert CliRunner().invoke(cli(), ["templates"]).exit_code == 2


def test_no_template_and_no_day(tmp_path: Path) -> None:
    plain = Act("a", links={"payment": [1 << 20]})
    assert families(archive(tmp_path, [[plain]])) == []
    with pytest.raises(BadInput, match="holds no day"):
        families(tmp_path, first=BEGIN + timedelta(days=9))
