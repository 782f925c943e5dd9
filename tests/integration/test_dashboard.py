"""The dashboard: made by its builder, on metrics that exist, and with data in every query of a real Prometheus."""

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

from monitor.fields import ALERT_STATES, HYPOTHESES, REJECT_REASONS, SEVERITIES
from monitor.service import Health, HttpService, process_registry
from monitor.settings import HttpSettings
from monitor.telemetry import (
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
BOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards/abuse-monitor.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
ANNOTATIONS = [(entry["name"], entry["expr"]) for entry in BOARD["annotations"]["list"]]
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
    for panel in PANELS:
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert re.search(rf"\b{label}\b", target["expr"]) or label == "instance", panel["title"]


@pytest.mark.parametrize(("title", "expression"), [*QUERIES, *ANNOTATIONS])
def test_every_query_parses(title: str, expression: str) -> None:
    promql_parser.parse(filled(expression))


def test_the_board_is_sound() -> None:
    assert BOARD["uid"] == "abuse-monitor"
    assert "apiVersion" not in BOARD, "file provisioning of Grafana 13 refuses the second schema"
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {entry["name"]: entry for entry in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    cells: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        mine = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not mine & cells, f"{panel['title']} lies over another"
        cells |= mine
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith("?"), f"{panel['title']}: a panel answers a question"
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'job=~"$job"' in target["expr"], panel["title"]
            assert "vector(0)" not in target["expr"], "no data must look like no data"
            assert not re.search(r"(rate|increase)\([^)]*\[(?!\$__(rate_interval|range)\])", target["expr"]), panel[
                "title"
            ]


def test_provisioning_names_what_compose_mounts() -> None:
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    boards = yaml.safe_load((GRAFANA / "provisioning/dashboards/abuse-monitor.yaml").read_text())["providers"][0]
    grafana = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["grafana"]
    assert (source["type"], source["url"]) == ("prometheus", "${PROMETHEUS_URL}")
    assert grafana["environment"]["PROMETHEUS_URL"].startswith("http://prometheus:")
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
        t.stopped.labels(partition).set((step + 1) % 2)
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
    t.firings.labels("rule-a", "alert").inc(int(rng.integers(1, 9)))
    t.firings.labels("rule-b", "shadow").inc(2)
    t.exception_hits.labels("rule-a", "nightly").inc(int(rng.integers(1, 9)))
    for severity in SEVERITIES:
        t.alerts.labels("rule-a", severity, HYPOTHESES[step % len(HYPOTHESES)], "alert").inc(int(rng.integers(1, 9)))
        t.alerts_open.labels(severity).set(int(rng.integers(1, 9)))
    t.alerts.labels("rule-b", "low", "unknown", "shadow").inc()
    t.checkpointed(rng.random() / 10, n * 100, [0, 1])
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
    telemetry.set_build("0.1.0", "3.13", "c0", "r0")
    telemetry.set_model("m", "00")
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
            server = prometheus([urlsplit(service.url).netloc])
            assert server.wait_for("count_over_time(abusemon_build_info[1m]) > 8", timeout_s=60)
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
