"""Small logs with what they must raise: a folder a case, its name says the behaviour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from replay_cases import CASES, ROOT, events

from monitor.fields import SEVERITIES
from monitor.offline import backtest_files

FOLDERS = sorted(path.parent for path in ROOT.glob("*/expected.yaml"))


def raised(log: Path, out: Path) -> dict[str, dict[str, Any]]:
    """The last revision of each account's strongest alert; of a campaign's core members, the campaign's."""
    backtest_files([log], out, partitions=1)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    last = {line["alert_id"]: line for line in lines if line["mode"] == "alert"}
    found: dict[str, dict[str, Any]] = {}
    for alert in last.values():
        if alert["kind"] == "campaign":
            found |= {account: alert for account in alert["accounts"] if account not in found}
            continue
        held = found.get(alert["subject"])
        if (
            held is None
            or held["kind"] == "campaign"
            or (SEVERITIES.index(alert["severity"]) > SEVERITIES.index(held["severity"]))
        ):
            found[alert["subject"]] = alert
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_case(folder: Path, tmp_path: Path) -> None:
    """``alerts``: account, all rules, severity and window of each; nobody else reaches ``nothing_else_from``."""
    expected = yaml.safe_load((folder / "expected.yaml").read_text())
    found = raised(folder / "events.ndjson", tmp_path / "alerts.ndjson")
    wanted = {alert["account"]: alert for alert in expected["alerts"]}
    weighty = SEVERITIES[SEVERITIES.index(expected["nothing_else_from"]) :]
    assert {a for a, alert in found.items() if alert["severity"] in weighty} <= set(wanted)
    for account, alert in wanted.items():
        assert account in found, f"no alert on {account}"
        got = found[account]
        assert (got["rules"], got["severity"], got["window"]) == (alert["rules"], alert["severity"], alert["window"])


def test_every_case_has_its_log_and_its_expectation() -> None:
    assert {folder.name for folder in FOLDERS} == set(CASES)
    for name in CASES:
        assert (ROOT / name / "events.ndjson").read_bytes() == events(name), "run: python tests/replay_cases.py"
        assert len(events(name).splitlines()) < 60
