"""The drill and the semi-real worlds, on real text and timing where the data lie beside the clone."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import semi_real
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.evaluate import semireal, sizes, suite
from monitor.evaluate.drill import TAG
from monitor.evaluate.suite_report import semi_real_rows

DATA = semi_real.data_folder()
pytestmark = pytest.mark.skipif(DATA is None, reason="no ../shared/data beside the clone: real text and timing")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(build(), [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_drill_over_a_log_that_the_simulator_did_not_make(tmp_path: Path) -> None:
    assert DATA is not None
    log, work = tmp_path / "real.ndjson", tmp_path / "work"
    made = semi_real.compose(DATA, log, accounts=40, days=1, per_day=100)
    before = log.read_bytes()
    page = run("drill", "--log", log, "--scenarios", "S5,S10,S8", "--no-worth", "--processes", 1, "--work", work,
               "--json", tmp_path / "d.json")  # fmt: skip
    report = json.loads((tmp_path / "d.json").read_text())
    assert (report["requests"], report["accounts"], report["scenarios"]) == (made, 40, 3)
    assert set(report["found"]) | set(report["missed"]) == {"S5", "S10", "S8"}
    assert f"found {len(report['found'])} of 3" in page
    assert log.read_bytes() == before
    overlaid = [json.loads(line) for line in (work / "overlay" / "log.ndjson").open(encoding="utf-8")]
    drilled = [r for r in overlaid if r["account_id"].startswith(TAG)]
    assert len(overlaid) - len(drilled) == made
    assert len(drilled) > 200
    own = [json.loads(line) for line in before.splitlines()]
    assert {r["model"] for r in drilled} <= {r["model"] for r in own}
    assert not any("payment_fp" in r or "ip" in r for r in drilled)
    alone = (work / "undisturbed.alerts.ndjson").read_text()
    assert TAG not in alone


def test_each_source_of_attack_text_has_a_world_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DATA is not None
    monkeypatch.setattr(suite, "SUITES", {"tiny": sizes.Size(40, 1.0, ("S5",), 40)})
    files = [DATA / f"prompts_{n}.parquet" for n in ("benign_arena", "distill_codealpaca", "distill_meta_selfinstruct")]
    monkeypatch.setattr(suite, "mmd_rows", partial(semireal.mmd_rows, window=100, per_group=60))
    real = semireal.sources(files, [DATA / semi_real.TRACE])
    report = suite.run_suite("tiny", _noticing, tmp_path, with_baselines=False, semi_real=real)
    rows = semi_real_rows(report)
    assert [row[0] for row in rows] == ["simulated", "distill_codealpaca", "distill_meta_selfinstruct"]
    text = {v: (tmp_path / "seed1" / f"text-{v}" / "log.ndjson").read_text("utf-8") for v in (r[0] for r in rows[1:])}
    hostile = {v: {json.loads(line)["prompt"] for line in log.split("\n") if line} for v, log in text.items()}
    assert len(hostile["distill_codealpaca"] & hostile["distill_meta_selfinstruct"]) > 0  # the honest side is shared
    assert len(hostile["distill_codealpaca"] - hostile["distill_meta_selfinstruct"]) > 20
    # it names every member at medium and no campaign: both drops are none
    assert [(row[5], row[10]) for row in rows] == [("+0", "+0")] * 3
    assert [row[9] for row in rows] == [f"{o.evaluation.noticed_abusive} (100%)" for o in report.outcomes]
    protocols = [(m.protocol, m.attack) for m in report.mmd]
    assert protocols == [(p, a) for p in ("one population", "many tenants") for a in sorted(text)]
    for m in report.mmd:
        assert 0 <= m.false_positives < 0.2
        assert all(0 <= c <= 1 for c in m.caught)
    assert max(m.caught[-1] for m in report.mmd) > 0.5


def _noticing(log: Path, context: Path, alerts: Path) -> dict:
    """Names every member at medium, by the truth beside the log: the same share in every world."""
    truth = [json.loads(line) for line in log.with_name("log.truth.ndjson").open()]
    alerts.write_text("".join(
        json.dumps({"alert_id": t["account_id"], "kind": "account", "subject": t["account_id"], "severity": "medium",
                    "revised_at": t["first_ts"]}) + "\n" for t in truth))  # fmt: skip
    return {}
