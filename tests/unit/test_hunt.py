"""The hunt: by hand on small populations, and through the whole pipeline on a simulated world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from campaign_world import STEP_MS, Act, blob
from typer.testing import CliRunner

from monitor.__main__ import build as cli
from monitor.archive import Archive
from monitor.errors import BadInput
from monitor.evaluate.inputs import read_truth
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.hunting import HuntOptions, hunt, load
from monitor.offline import backtest_files
from monitor.settings import Settings
from monitor.simulate.api import simulate
from monitor.tuning.export import schema

CROWD = 400


def crowd(seed: int = 1) -> list[Act]:
    """Ordinary tenants: a card of their own, one of 60 networks, one of 8 builds, mixed requests."""
    rng = np.random.default_rng(seed)
    return [
        Act(f"b{i}", requests=20, created_days=float(rng.uniform(5, 900)),
            sums={"n_text": 20, "question": int(rng.integers(0, 20)), "n_turn": 20,
                  "n_follow": int(rng.integers(0, 20)), "log_in": int(rng.integers(800, 1600)),
                  "log_out": int(rng.integers(800, 1600))},
            links={"payment": [(1000 + i) << 8], "egress_prefix": [(5000 + int(rng.integers(60))) << 8],
                   "client_build": [(9000 + int(rng.integers(8))) << 8]})
        for i in range(CROWD)
    ]  # fmt: skip


def member(i: int, template: int = 0x7700, net: int = 0x6600, created: float | None = None, **more: int) -> Act:
    """One of a campaign: a card of its own, a shared network and template, no questions."""
    sums = {"n_text": 20, "question": 0, "n_turn": 20, "n_follow": 0, "log_in": 1000, "log_out": 1500, **more}
    links = {"payment": [(70 + i) << 20], "egress_prefix": [net], "template_opening": [template],
             "client_build": [9001 << 8]}  # fmt: skip
    return Act(f"c{i}", requests=20, created_days=100.0 + 3 * i if created is None else created, sums=sums, links=links)


def people(tmp_path: Path, acts: list[Act]) -> Path:
    Archive(tmp_path, STEP_MS).put([blob(s, acts) for s in range(3)])
    return tmp_path


def test_a_seed_finds_its_campaign_and_nobody_else(tmp_path: Path) -> None:
    held = load(people(tmp_path, crowd() + [member(i) for i in range(12)]))
    found = hunt(held, ["c3"])
    assert {f.account for f in found.found} == {f"c{i}" for i in range(12)}
    assert {f.tier for f in found.found} == {"core"}
    assert found.found[0].account == "c3"
    assert found.found[0].round == 0
    assert found.found[1].links["template_opening"] == 12
    assert set(found.found[1].does) == {"template", "shape"}
    assert found.found[1].requests == 60
    assert hunt(held, ["b7"]).found[0].account == "b7"
    assert len(hunt(held, ["b7"]).found) == 1


def test_one_rare_thing_in_common_is_not_enough_nor_are_two_that_the_client_chooses(tmp_path: Path) -> None:
    one = [member(i, template=(i + 1) << 40) for i in range(6)]
    chosen = [member(10 + i, net=(i + 1) << 40) for i in range(6)]
    held = load(people(tmp_path, crowd() + one + chosen))
    assert len(hunt(held, ["c0"]).found) == 1
    assert len(hunt(held, ["c10"]).found) == 1


def test_who_is_reached_over_others_is_found_in_a_later_round(tmp_path: Path) -> None:
    first = [member(i) for i in range(4)]
    second = [member(10 + i, template=0x8800, net=0x9900) for i in range(4)]
    bridge = member(20)
    bridge.links["egress_prefix"].append(0x9900)
    bridge.links["template_opening"].append(0x8800)
    held = load(people(tmp_path, [*crowd(), *first, *second, bridge]))
    found = {f.account: f.round for f in hunt(held, ["c0"]).found}
    assert found == {"c0": 0, **dict.fromkeys(["c1", "c2", "c3", "c20"], 1),
                     **dict.fromkeys(["c10", "c11", "c12", "c13"], 2)}  # fmt: skip
    assert max(f.round for f in hunt(held, ["c0"], HuntOptions(rounds=1)).found) == 1


def test_a_victim_with_the_links_and_other_conduct_is_linked_only(tmp_path: Path) -> None:
    framed = member(30, question=18, n_follow=19, log_in=1600, log_out=800)
    framed.links["template_opening"] = [0x1234500]
    framed.created_days = 100.0
    acts = [member(i, created=100.0 + i / 100) for i in range(8)]
    held = load(people(tmp_path, [*crowd(), *acts, framed]))
    found = {f.account: f for f in hunt(held, ["c0"]).found}
    assert found["c30"].tier == "linked"
    assert found["c30"].does == ()
    assert all(found[f"c{i}"].tier == "core" for i in range(8))


def test_accounts_of_one_tenant_are_no_campaign(tmp_path: Path) -> None:
    office = [member(i) for i in range(12)]
    for act in office:
        act.tenant = "one firm"
    assert len(hunt(load(people(tmp_path, crowd() + office)), ["c0"]).found) == 1


def test_many_days_add_up_and_what_was_shared_once_is_found(tmp_path: Path) -> None:
    archive = Archive(tmp_path, STEP_MS)
    archive.put([blob(0, crowd() + [member(i) for i in range(6)])])
    for day in range(1, 20):
        archive.put([blob(144 * day, [Act("b0"), Act("c0", requests=day)])])
    held = load(tmp_path)
    assert held.days == 20
    totals = dict(held.rows.select("account", "requests").iter_rows())
    assert totals["c0"] == 20 + sum(range(1, 20))
    assert totals["b1"] == 20
    assert dict(held.rows.select("account", "days").iter_rows())["b0"] == 20
    assert {f.account for f in hunt(held, ["c0"]).found} == {f"c{i}" for i in range(6)}


def test_days_outside_are_not_looked_at_and_an_unknown_seed_says_so(tmp_path: Path) -> None:
    archive = Archive(tmp_path, STEP_MS)
    archive.put([blob(0, crowd() + [member(i) for i in range(6)]), blob(144 * 3, [*crowd(), member(0)])])
    assert len(hunt(load(tmp_path), ["c0"]).found) == 6
    result = CliRunner().invoke(cli(), ["hunt", "--seed", "c0", "--archive", str(tmp_path), "--days", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert [f["account"] for f in json.loads(result.stdout)["found"]] == ["c0"]
    with pytest.raises(BadInput, match="no row of nobody"):
        hunt(load(tmp_path), ["nobody"])


def test_from_one_account_of_a_simulated_campaign_to_most_of_it_and_to_no_look_alike(tmp_path: Path) -> None:
    """The archive as a backtest writes it, then the command, and the export of the same log."""
    log = tmp_path / "log.ndjson.zst"
    simulate(["S1", "B5"], log, accounts=120, days=1.2, heavy_cap=40)
    settings = Settings.model_validate({"archive": {"path": str(tmp_path / "archive")}})
    summary = backtest_files([log], tmp_path / "alerts.ndjson", settings=settings)
    truth = {t.account_id: t for t in read_truth(tmp_path / "log.truth.ndjson")}
    held = load(tmp_path / "archive")
    known = set(held.rows["account"])
    campaign = sorted(a for a, t in truth.items() if t.actor == "distillation" and a in known)
    honest = known - {a for a, t in truth.items() if t.actor != "benign"}
    assert len(campaign) >= 15
    assert len(honest) >= 60
    arguments = ["hunt", "--seed", campaign[0], "--archive", str(tmp_path / "archive")]
    result = CliRunner().invoke(cli(), [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["found"]
    core = {f["account"] for f in found if f["tier"] == "core"}
    assert len(core & set(campaign)) >= 0.7 * len(campaign)
    assert not core & honest
    assert len({f["account"] for f in found} & honest) <= 2
    assert any(f["classifier"] is not None for f in found)
    look_alike = min(a for a, t in truth.items() if t.scenario == "B5" and a in known)
    assert not {f.account for f in hunt(held, [look_alike]).found} & set(campaign)
    # the totals are those of the log
    assert held.rows["requests"].sum() == summary["decoded"] - summary["duplicates"] - summary["dropped"]
    out = tmp_path / "features.parquet"
    config = tmp_path / "c.yaml"
    config.write_text(f"archive: {{path: {tmp_path / 'other'}}}\n")
    result = CliRunner().invoke(
        cli(), ["features", "export", "--input", str(log), "--out", str(out), "--every", "day", "--config", str(config)]
    )
    assert result.exit_code == 0, result.output
    rows = pl.read_parquet(out)
    assert rows.schema == pl.Schema(schema())
    assert {f.name for f in ACCOUNT_FEATURES} <= set(rows.columns)
    assert rows.select("subject", (pl.col("at").dt.offset_by("-10s")).dt.date()).is_duplicated().sum() == 0
    assert set(rows["subject"]) == known
    assert not (tmp_path / "other").exists()
