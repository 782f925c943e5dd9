"""The dashboards: made by their builder, on metrics that exist, with data in every query of a real Prometheus."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import promql_parser
import pytest
import yaml

from monitor.fields import ALERT_KINDS, ALERT_STATES, HYPOTHESES, REJECT_REASONS, SEVERITIES, TIERS
from monitor.service import Health, HttpService, process_registry
from monitor.settings import HttpSettings
from monitor.telemetry import (
    ANOMALY_KINDS,
    ANOMALY_MODELS,
    ANOMALY_STATES,
    COMPONENTS,
    DETECTORS,
    PROVIDERS,
    REDIS_OPERATIONS,
    RESTORES,
    SINKS,
    STAGES,
    SUPPRESSIONS,
    Telemetry,
)

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "grafana"
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
PANELS: list[dict[str, Any]] = [
    panel for board in BOARDS.values() for panel in board["panels"] if panel["type"] != "row"
]
GRAPHS = [panel for panel in PANELS if panel["datasource"]["type"] == "prometheus"]
QUERIES = [(panel["title"], target["expr"]) for panel in GRAPHS for target in panel["targets"]]
ANNOTATIONS = [(entry["name"], entry["expr"]) for board in BOARDS.values() for entry in board["annotations"]["list"]]
METRIC = re.compile(r"\babusemon_[a-z0-9_]+")

METRIC_VALUES = (
    "abusemon_records_consumed_total", "abusemon_rejects_total", "abusemon_alerts_total", "abusemon_score_ratio_count",
    "abusemon_consumer_lag_records", "abusemon_paused", "abusemon_tick_delay_seconds_sum", "abusemon_stage_seconds_sum",
)  # fmt: skip


def filled(expression: str, step: str = "6s") -> str:
    """The query as Grafana would send it."""
    for name, value in (("$__rate_interval", step), ("$__range", "1h"), ("$__interval", step)):
        expression = expression.replace(name, value)
    expression = expression.replace("$job", ".*").replace("$instance", ".*")
    assert "$" not in expression
    return expression


@pytest.fixture(scope="module")
def build() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("grafana_build", GRAFANA / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.path[:]
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


def test_committed_files_are_what_the_builder_makes(build: ModuleType) -> None:
    for path, text in build.outputs().items():
        assert path.read_text() == text, "run: python grafana/build.py"


def test_every_metric_used_exists_and_every_metric_is_shown_or_internal() -> None:
    specs = {spec.name: spec for spec in Telemetry(process_registry()).specs}
    used = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for _, expression in [*QUERIES, *ANNOTATIONS]
        for name in METRIC.findall(expression)
    }
    assert used <= set(specs), "the dashboard reads what nobody exports"
    shown = {name for name, spec in specs.items() if spec.shown == "dashboard"}
    assert shown - used == set(), "said to be shown, and is not"
    assert used & (set(specs) - shown) == set(), "shown, and said to be internal"


def test_labels_in_queries_are_labels_of_the_metrics() -> None:
    specs = {spec.name: set(spec.labels) for spec in Telemetry(process_registry()).specs}
    for title, expression in QUERIES:
        known = {"job", "instance", "le"}
        for name in METRIC.findall(expression):
            known |= specs[re.sub(r"_(bucket|count|sum)$", "", name)]
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert set(re.split(r",\s*", labels)) <= known, f"{title}: {labels}"
    for panel in GRAPHS:
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert re.search(rf"\b{label}\b", target["expr"]) or label == "instance", panel["title"]


@pytest.mark.parametrize(("title", "expression"), [*QUERIES, *ANNOTATIONS])
def test_every_query_parses(title: str, expression: str) -> None:
    promql_parser.parse(filled(expression))


def test_there_is_a_board_for_each_who_asks() -> None:
    titles = {board["uid"]: board["title"] for board in BOARDS.values()}
    assert titles == {
        "abuse-monitor": "Abuse",
        "abuse-monitor-quality": "Detection quality",
        "abuse-monitor-pipeline": "Pipeline",
        "abuse-monitor-models": "Model and rules",
    }


@pytest.mark.parametrize("uid", sorted(BOARDS))
def test_the_board_is_sound(uid: str) -> None:
    board = BOARDS[uid]
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert board["uid"] == uid
    assert "apiVersion" not in board, "file provisioning of Grafana 13 refuses the second schema"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {entry["name"]: entry for entry in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert board["links"][0]["tags"] == board["tags"], "from each dashboard to the others"
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        mine = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not mine & cells, f"{panel['title']} lies over another"
        cells |= mine
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith("?"), f"{panel['title']}: a panel answers a question"
        assert panel["fieldConfig"]["defaults"]["unit"]
        uid = panel["datasource"]["uid"]
        assert uid in ("${datasource}", "${api}")
        assert uid[2:-1] in variables, f"{panel['title']}: its data source cannot be chosen"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == uid
            if "expr" not in target:
                continue
            assert 'job=~"$job"' in target["expr"], panel["title"]
            assert "vector(0)" not in target["expr"], "no data must look like no data"
            assert not re.search(r"(rate|increase)\([^)]*\[(?!\$__(rate_interval|range)\])", target["expr"]), panel[
                "title"
            ]


def test_provisioning_names_what_compose_mounts() -> None:
    folder = GRAFANA / "provisioning"
    boards = yaml.safe_load((folder / "dashboards/abuse-monitor.yaml").read_text())["providers"][0]
    sources = {
        source["type"]: source
        for path in (folder / "datasources").glob("*.yaml")
        for source in yaml.safe_load(path.read_text())["datasources"]
    }
    grafana = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["grafana"]
    types = {entry["query"] for board in BOARDS.values() for entry in board["templating"]["list"]
             if entry["type"] == "datasource"}  # fmt: skip
    assert set(sources) == types, "a data source for each that a dashboard asks for"
    for source in sources.values():
        assert re.fullmatch(r"\$\{[A-Z_]+\}", source["url"])
        assert source["url"][2:-1] in grafana["environment"], "Grafana would see an empty address"
    assert f"../grafana/dashboards:{boards['options']['path']}:ro" in grafana["volumes"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{boards['options']['path']}/abuse-monitor.json"


def feed(telemetry: Telemetry, rng: np.random.Generator, step: int) -> None:
    """A moment of traffic: every metric moves, by another amount each time."""
    t, n = telemetry, int(rng.integers(50, 150))
    t.records.inc(n + 3)
    t.record_bytes.inc(n * 700)
    t.decoded.inc(n)
    for counter, values in (
        (t.rejects, tuple(REJECT_REASONS)), (t.wrong_types, ("temperature", "n")), (t.late, ("folded", "dropped")),
        (t.suppressed, SUPPRESSIONS), (t.alert_revisions, ALERT_STATES), (t.sent, SINKS), (t.sink_busy, SINKS),
        (t.redis_errors, REDIS_OPERATIONS), (t.restores, RESTORES), (t.rebalances, ("assigned", "revoked", "lost")),
    ):  # fmt: skip
        for value in values:
            counter.labels(value).inc(int(rng.integers(1, 9)))
    for plain in (t.dead_letters, t.duplicates, t.id_reuse, t.jumps_held, t.unknown_fields, t.pauses, t.fenced):
        plain.inc(int(rng.integers(1, 9)))
    for partition in ("0", "1"):
        t.lag.labels(partition).set(int(rng.integers(0, 1_000)))
        t.stalled.labels(partition).set(step % 2)
        t.stopped.labels(partition).set(int(partition))
        t.watermark.labels(partition).set(time.time() - rng.random())
    t.partitions.set(2 + step % 2)
    t.paused.set(step % 2)
    t.rules_inactive.set(step % 3)
    t.accounts.set(1_000 + step)
    for stage in STAGES:
        t.stage_seconds.labels(stage).observe(rng.random() / 10)
    t.tick_closed(time.time() - 5 * rng.random())
    for detector in DETECTORS:
        t.scored(detector, rng.random(n))
        t.detector_active.labels(detector).set(1)
    for component in COMPONENTS:
        t.state_bytes.labels(component).set(int(rng.integers(1_000, 9_000)))
    for provider in PROVIDERS:
        t.classifier_seconds.labels(provider).observe(rng.random() / 100)
    t.classifier_batch.observe(n)
    t.shadow_rows.inc(n)
    t.shadow_differs.inc(int(rng.integers(1, 9)))
    t.classifier_failures.inc(int(rng.integers(1, 9)))
    for kind in ANOMALY_KINDS:
        for state in ANOMALY_STATES:
            t.anomaly_models.labels(kind, state).set(int(rng.integers(1, 9)))
        for model in ANOMALY_MODELS:
            t.anomaly_alarms.labels(kind, model).set(rng.random() / 10)
        for outcome in ("promoted", "refused"):
            t.anomaly_promotions.labels(kind, outcome).set(step)
    for kind in ALERT_KINDS:
        for severity in SEVERITIES:
            t.alerts_reached.labels(kind, severity).inc()
            t.exposed_requests.labels(kind, severity).set(100 * step)
            t.exposed_output_tokens.labels(kind, severity).set(1_000 * step)
    for tier in TIERS:
        t.campaign_members.labels(tier).set(step)
    t.campaigns_open.labels("high", "distillation").set(1 + step % 2)
    t.candidates.set(step % 5)
    t.calibration_groups.set(100 + step % 5)
    t.set_build("0.1.0", "3.13", f"c{step}", "r0")
    t.set_models(f"m-1:{step}", "m-2:00")
    t.firings.labels("rule-a", "alert").inc(int(rng.integers(1, 9)))
    t.firings.labels("rule-b", "shadow").inc(2)
    t.exception_hits.labels("rule-a", "nightly").inc(int(rng.integers(1, 9)))
    for severity in SEVERITIES:
        t.alerts.labels("rule-a", severity, HYPOTHESES[step % len(HYPOTHESES)], "alert").inc(int(rng.integers(1, 9)))
        t.alerts_open.labels(severity).set(int(rng.integers(1, 9)))
    t.alerts.labels("rule-b", "low", "unknown", "shadow").inc()
    t.checkpointed(rng.random() / 10, n * 100, [0, 1])
    t.checkpoint_pause_seconds.observe(rng.random() / 10)
    t.restore_seconds.observe(rng.random())
    t.rules_reloaded(True)


@pytest.mark.prometheus
def test_every_query_returns_data_from_a_real_prometheus(prometheus: Callable[..., Any]) -> None:
    """A monitor's registry with moving values, served by our own server, scraped by Prometheus each second."""
    registry = process_registry()
    telemetry = Telemetry(registry)
    rules = [("rule-a", "alert", "high", "resale"), ("rule-b", "shadow", "low", "unknown")]
    telemetry.set_rules(rules)
    telemetry.assigned([0, 1])
    telemetry.set_provider("cpu")
    health = Health(["rules"], on_change=telemetry.ready.set)
    health.set("rules", ok=True)
    rng = np.random.default_rng(7)
    done = threading.Event()

    def work() -> None:
        step = 0
        while not done.wait(0.2):
            feed(telemetry, rng, step)
            step += 1

    feeder = threading.Thread(target=work)
    with HttpService(HttpSettings(port=0), health, registry) as service:
        feeder.start()
        try:
            server = prometheus([urlsplit(service.url).netloc], [ROOT / "deploy/prometheus/alerts.yml"])
            assert server.wait_for("count_over_time(abusemon_ready[1m]) > 8")
            asked = [*QUERIES, *ANNOTATIONS]
            empty = [f"{title}: {query}" for title, query in asked if not numbers(server.query(filled(query)))]
            assert empty == []
            moved = "max(max_over_time({0}[1m]) - min_over_time({0}[1m])) > 0"
            constant = [name for name in METRIC_VALUES if not numbers(server.query(moved.format(name)))]
            assert constant == [], "the feed must move what it claims to test"
            names = {row["metric"]["__name__"] for row in server.query('{__name__=~"abusemon_.+"}')}
            exported = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}
            assert exported == {spec.name for spec in telemetry.specs}
        finally:
            done.set()
            feeder.join()


def numbers(result: list[dict[str, Any]]) -> list[float]:
    """Values of an instant query that are numbers: a quantile of nothing is NaN, which is no data."""
    return [value for row in result if not math.isnan(value := float(row["value"][1]))]
