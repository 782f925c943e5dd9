"""simulate, backtest, evaluate and the suite through the command line, with the real detector and the real scorer."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from monitor.__main__ import build
from monitor.evaluate import baselines, fairness, sizes, suite
from monitor.simulate import json_schema


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(build(), [str(a) for a in arguments])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day and a quarter of 60 accounts beside a campaign, a lone scraper and an honest look-alike; its alerts."""
    folder = tmp_path_factory.mktemp("world")
    log = folder / "log.ndjson"
    run("simulate", "S5", "D1", "B4", "--out", log, "--accounts", 60, "--days", 1.25, "--seed", 3, "--heavy-cap", 60)
    run("backtest", log, "--alerts", folder / "alerts.ndjson", "--context", folder / "log.context.ndjson", "--quiet")
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def score(world: Path, alerts: Path, folder: Path) -> dict:
    run("evaluate", "--alerts", alerts, "--truth", world / "log.truth.ndjson", "--json", folder / "e.json", "--html",
        folder / "e.html", "--quiet", "--log", world / "log.ndjson")  # fmt: skip
    assert "<svg" in (folder / "e.html").read_text()
    return json.loads((folder / "e.json").read_text())


def test_the_account_rules_notice_both_scrapers_and_no_look_alike(world: Path, tmp_path: Path) -> None:
    found = score(world, world / "alerts.ndjson", tmp_path)
    truth = {t["account_id"]: t for t in lines(world / "log.truth.ndjson")}
    sent = Counter(r["account_id"] for r in lines(world / "log.ndjson"))
    members = [a for a, t in truth.items() if t.get("campaign")]
    (campaign,) = found["campaigns"]
    assert campaign["accounts"] == len(members)
    assert campaign["requests"] == sum(sent[a] for a in members)
    assert campaign["noticed"] > len(members) / 2
    assert [(x["scenario"], x["medium"]) for x in found["lone"]] == [("D1", 1)]
    assert [(c["scenario"], c["false_high"], c["noticed"]) for c in found["confounders"]] == [("B4", 0, 0)]
    assert found["population"] == len(sent)


def test_alerting_on_everybody_or_nobody_scores_badly(world: Path, tmp_path: Path) -> None:
    everybody = sorted({r["account_id"] for r in lines(world / "log.ndjson")})
    first = min(r["ts"] for r in lines(world / "log.ndjson"))
    base = {"severity": "high", "revised_at": first, "hypothesis": "distillation"}
    one = tmp_path / "one.ndjson"
    one.write_text(json.dumps({"alert_id": "all", "kind": "campaign", "accounts": everybody, **base}) + "\n")
    each = tmp_path / "each.ndjson"
    each.write_text("".join(json.dumps({"alert_id": a, "kind": "account", "subject": a, "accounts": [a], **base}) + "\n"
                            for a in everybody))  # fmt: skip
    none = tmp_path / "none.ndjson"
    none.write_text("")
    honest = sum(t["actor"] == "benign" for t in lines(world / "log.truth.ndjson"))
    for path, leaked in ((one, 1.0), (each, 0.0), (none, 1.0)):
        found = score(world, path, tmp_path)
        (campaign,) = found["campaigns"]
        assert not campaign["found"]
        assert campaign["leaks"][0]["share"] == leaked
        accused = 0 if path == none else len(everybody)
        assert found["false_accounts"]["count"] == accused - (0 if path == none else 12 + 1)
        assert found["confounders"][0]["contaminated"] == (0 if path == none else honest)
    assert found["core_recall"] == 0.0


def test_a_tiny_suite_with_the_real_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also invariant 8: renaming every country and network changes no alert."""
    tiny = sizes.Size(60, 1.0, ("D1", "S5"), 40, ablations=("metadata only",), fairness=True)
    monkeypatch.setattr(suite, "SUITES", {"tiny": tiny})
    run("evaluate", "--suite", "tiny", "--processes", 1, "--json", tmp_path / "s.json", "--markdown", tmp_path / "s.md",
        "--quiet", "--work", tmp_path / "work")  # fmt: skip
    report = json.loads((tmp_path / "s.json").read_text())
    detector = next(o for o in report["outcomes"] if o["name"] == "detector")
    assert detector["evaluation"]["noticed_abusive"] >= 6
    text = (tmp_path / "s.md").read_text()
    for name in ("detector", "metadata only", "anomaly off", *baselines.NAMES, *fairness.TESTS):
        assert f"| {name} |" in text
    relabelled = next(f for f in report["fairness"] if f["name"] == fairness.RELABELLED)
    assert relabelled["revisions"] > 10
    assert relabelled["changed"] == 0


def test_a_score_that_depends_on_a_country_fails_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "SUITES", {"tiny": sizes.Size(20, 0.2, ("D1",), 40, fairness=True)})
    monkeypatch.setattr("monitor.offline.Detector.__call__", _patriot)
    result = run("evaluate", "--suite", "tiny", "--processes", 1, "--no-baselines", status=1)
    assert "BROKEN" in result.output


def _patriot(detector: object, log: Path, context: Path, alerts: Path) -> dict:
    foreign = {r["account_id"] for r in lines(log) if (r.get("country") or "Z") < "X"}
    alerts.write_text("".join(json.dumps({"alert_id": a, "kind": "account", "subject": a, "severity": "high",
                                          "revised_at": 0.0}) + "\n" for a in foreign))  # fmt: skip
    return {}


@pytest.mark.cluster
def test_over_ray_a_suite_gives_what_local_processes_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "SUITES", {"tiny": sizes.Size(20, 0.3, ("D1",), 40)})
    for name in ("ray", "local"):
        run("evaluate", "--suite", "tiny", "--engine", name, "--processes", 1, "--json", tmp_path / name, "--quiet",
            "--work", tmp_path / f"{name}-work")  # fmt: skip
    ray, local = (json.loads((tmp_path / name).read_text()) for name in ("ray", "local"))
    for report in (ray, local):
        for outcome in report["outcomes"]:
            outcome.pop("summary")  # it holds seconds
    assert ray == local


@pytest.mark.no_cluster
def test_ray_asked_for_but_absent_is_said(tmp_path: Path) -> None:
    result = run("evaluate", "--suite", "smoke", "--engine", "ray", "--no-baselines", "--work", tmp_path, status=2)
    assert "[cluster]" in result.output


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["evaluate"], 2, "--alerts, --truth, --log"),
        (["evaluate", "--suite", "huge"], 2, "smoke, standard"),
        (["evaluate", "--suite", "smoke", "--alerts", "x"], 2, "leave --alerts"),
        (["evaluate", "--alerts", "none", "--truth", "none", "--log", "none"], 2, "can't be read"),
        (["drill"], 2, "--log LOG"),
        (["drill", "--log", "{bad}"], 3, "no line of the log is a request"),
        (["drill", "--log", "{bad}", "--scenarios", "S99"], 2, "no such scenario"),
        (["simulate", "S4"], 2, "--out FILE"),
        (["simulate", "S99", "--out", "{out}"], 2, "no such scenario"),
        (["simulate", "S4", "--out", "{out}", "--speed", "2"], 2, "--speed"),
        (["simulate", "S4", "--out", "{out}", "--evade", "cover=lots"], 2, "KNOB=NUMBER"),
        (["simulate", "S4", "--out", "{out}", "--evade", "cloak=1"], 2, "the knobs are cover"),
        (["simulate", "S4", "--out", "kafka://host-without-topic"], 2, "names a broker and a topic"),
        (["simulate", "S4", "--out", "{out}", "--prompts", "{bad}"], 2, "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_used_is_said(arguments: list[str], status: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("nothing\n")
    places = {"{bad}": str(tmp_path / "bad"), "{out}": str(tmp_path / "out.ndjson")}
    result = run(*(places.get(a, a) for a in arguments), status=status)
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "out.ndjson").exists()


def test_truth_that_is_none_is_said_with_its_line(world: Path, tmp_path: Path) -> None:
    (tmp_path / "t.ndjson").write_text('{"account_id": "a", "actor": "benign"}\n{"account_id": 7}\n')
    result = run("evaluate", "--alerts", world / "alerts.ndjson", "--truth", tmp_path / "t.ndjson", "--log",
                 world / "log.ndjson", status=2)  # fmt: skip
    assert "t.ndjson:2" in result.output.replace("\n", "")


def test_simulate_writes_where_it_is_told_and_turns_knobs(tmp_path: Path) -> None:
    common = ("simulate", "S1", "--accounts", 30, "--days", 1, "--seed", 9, "--heavy-cap", 40)
    places = {name: tmp_path / f"{name}.ndjson" for name in ("log", "context", "truth")}
    run(*common, "--out", places["log"], "--context", places["context"], "--truth", places["truth"])
    run(*common, "--out", tmp_path / "again.ndjson")
    run(*common, "--out", tmp_path / "hidden.ndjson", "--evade", "unique_payment=true", "--evade", "unique_egress=true")
    for name, path in (("again", "log"), ("again.truth", "truth"), ("again.context", "context")):
        assert (tmp_path / f"{name}.ndjson").read_bytes() == places[path].read_bytes()

    def payments(log: Path, truth: Path) -> int:
        members = {t["account_id"] for t in lines(truth)}
        return len({r["payment_fp"] for r in lines(log) if r["account_id"] in members})

    assert payments(places["log"], places["truth"]) <= 2
    hidden = tmp_path / "hidden.truth.ndjson"
    assert payments(tmp_path / "hidden.ndjson", hidden) == len(lines(hidden))


def test_simulate_says_its_schema_and_its_scenarios() -> None:
    assert json.loads(run("simulate", "--schema").stdout) == json_schema()
    listed = run("simulate", "--list").stdout
    assert all(name in listed for name in ("S14", "B15", "P3", "unique_payment"))
