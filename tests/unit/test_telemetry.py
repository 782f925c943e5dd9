"""The metrics: what each is, that none can grow with the number of accounts, that promtool agrees."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import monitor
from monitor.fields import OPTIONAL, REJECT_REASONS
from monitor.metering import PREFIX, ScoreHistogram
from monitor.telemetry import DETECTORS, STAGES, Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(CollectorRegistry())


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(PREFIX + name, labels)


def test_each_metric_is_described_once_and_exported_under_its_name(telemetry: Telemetry) -> None:
    names = [spec.name for spec in telemetry.specs]
    assert len(set(names)) == len(names) > 45
    exported = {family.name + ("_total" if family.type == "counter" else "") for family in telemetry.registry.collect()}
    assert exported == set(names)
    for spec in telemetry.specs:
        assert spec.name.startswith(PREFIX), spec
        assert spec.help.endswith("."), spec
        assert (spec.kind == "counter") == spec.name.endswith("_total"), spec
        assert spec.shown in {"dashboard", "internal"}, spec
        assert all(values for values in spec.labels.values()), spec


def test_each_metric_is_told_by_some_code() -> None:
    """A metric that nobody sets stands at zero for ever, and its panel and its alert with it."""
    tree = Path(monitor.__file__).parent
    own = {
        target.attr
        for node in ast.walk(ast.parse((tree / "telemetry.py").read_text()))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Attribute) and isinstance(getattr(Telemetry(CollectorRegistry()), target.attr, None),
                                                            (Counter, Gauge, Histogram, ScoreHistogram))
    }  # fmt: skip
    assert len(own) > 55
    told = {
        node.attr
        for path in tree.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _is_telemetry(node.value, path.name)
    }
    assert own - told == set()


def _is_telemetry(node: ast.expr, file: str) -> bool:
    """Whether the expression is what our code calls the metrics: ``m``, ``telemetry``, ``….telemetry``."""
    if isinstance(node, ast.Attribute):
        return node.attr == "telemetry"
    return isinstance(node, ast.Name) and node.id in {"m", "telemetry", "self" if file == "telemetry.py" else "m"}


def test_no_label_can_hold_what_a_client_or_an_account_gives(telemetry: Telemetry) -> None:
    allowed = {
        "reason", "field", "outcome", "partition", "event", "stage", "detector", "component", "provider", "mode",
        "rule", "exception", "severity", "hypothesis", "state", "sink", "operation", "version", "python", "config",
        "rules", "model", "sha256", "role", "kind", "tier",
    }  # fmt: skip
    assert {label for spec in telemetry.specs for label in spec.labels} <= allowed


def test_closed_labels_exist_from_the_start(telemetry: Telemetry) -> None:
    for reason in REJECT_REASONS:
        assert value(telemetry, "rejects_total", reason=reason) == 0
    for name in OPTIONAL:
        assert value(telemetry, "wrong_types_total", field=name) == 0
    for stage in STAGES:
        assert value(telemetry, "stage_seconds_count", stage=stage) == 0
    for detector in DETECTORS:
        assert value(telemetry, "score_ratio_count", detector=detector) == 0
    assert value(telemetry, "alerts_total", rule="x", severity="low", hypothesis="resale", mode="alert") is None


def test_the_series_of_a_replica_are_bounded(telemetry: Telemetry) -> None:
    """100 rules, 64 partitions: 2,000 series at most, however many accounts, and text that anyone made."""
    telemetry.set_rules((f"rule-{i}", "alert", "high", "resale") for i in range(100))
    telemetry.assigned(range(64))
    telemetry.checkpointed(0.1, 10, range(64))
    telemetry.scored("change", np.random.default_rng(1).random(10_000))
    samples = sum(len(family.samples) for family in telemetry.registry.collect())
    assert samples < 2_000


def test_a_histogram_of_arrays_counts_as_prometheus_does(telemetry: Telemetry) -> None:
    telemetry.scored("change", np.array([0.05, 0.1, 0.1001, 1.0, np.nan]))
    telemetry.scored("change", np.array([0.95], dtype=np.float32))
    assert value(telemetry, "rows_scored_total", detector="change") == 5
    assert value(telemetry, "score_ratio_count", detector="change") == 5
    assert value(telemetry, "score_ratio_bucket", detector="change", le="0.1") == 2
    assert value(telemetry, "score_ratio_bucket", detector="change", le="0.2") == 3
    assert value(telemetry, "score_ratio_bucket", detector="change", le="1.0") == 5
    assert value(telemetry, "score_ratio_bucket", detector="change", le="+Inf") == 5
    assert value(telemetry, "score_ratio_sum", detector="change") == pytest.approx(2.2001, abs=1e-6)
    assert value(telemetry, "score_ratio_count", detector="population") == 0


def test_rules_that_are_gone_take_their_series_along(telemetry: Telemetry) -> None:
    telemetry.set_rules([("a", "alert", "high", "resale"), ("b", "shadow", "low", "unknown")])
    assert value(telemetry, "rules_loaded", mode="alert") == 1
    assert value(telemetry, "rule_firings_total", rule="a", mode="alert") == 0
    telemetry.exception_hits.labels("a", "nightly").inc()
    telemetry.alerts.labels("change", "low", "unknown", "alert").inc()
    telemetry.set_rules([("b", "shadow", "low", "unknown")])
    assert value(telemetry, "rule_firings_total", rule="a", mode="alert") is None
    assert value(telemetry, "rule_exception_hits_total", rule="a", exception="nightly") is None
    assert value(telemetry, "rules_loaded", mode="alert") == 0
    assert value(telemetry, "rules_loaded", mode="shadow") == 1
    assert value(telemetry, "alerts_total", rule="change", severity="low", hypothesis="unknown", mode="alert") == 1


def test_a_partition_that_leaves_takes_its_series_along(telemetry: Telemetry) -> None:
    telemetry.assigned([0, 1])
    telemetry.lag.labels("1").set(5)
    telemetry.released([1, 7], lost=True)
    assert value(telemetry, "consumer_lag_records", partition="0") == 0
    assert value(telemetry, "consumer_lag_records", partition="1") is None
    assert value(telemetry, "rebalances_total", event="lost") == 2
    assert value(telemetry, "rebalances_total", event="assigned") == 2


def test_one_build_one_model_one_provider(telemetry: Telemetry) -> None:
    telemetry.set_build("1", "3.11", "aa", "r1")
    telemetry.set_build("1", "3.11", "aa", "r2")
    assert value(telemetry, "build_info", version="1", python="3.11", config="aa", rules="r1") is None
    assert value(telemetry, "build_info", version="1", python="3.11", config="aa", rules="r2") == 1
    assert telemetry.registry.get_sample_value(PREFIX + "model_info", {}) is None
    telemetry.set_models("m-1:0123", "m-2:4567")
    telemetry.set_models("m-2:4567")
    assert value(telemetry, "model_info", model="m-1", sha256="0123", role="active") is None
    assert value(telemetry, "model_info", model="m-2", sha256="4567", role="active") == 1
    assert value(telemetry, "model_info", model="m-2", sha256="4567", role="shadow") is None
    telemetry.set_rules_hash("r3")
    assert value(telemetry, "build_info", version="1", python="3.11", config="aa", rules="r2") is None
    assert value(telemetry, "build_info", version="1", python="3.11", config="aa", rules="r3") == 1
    telemetry.set_provider("cpu")
    assert value(telemetry, "classifier_provider_info", provider="cpu") == 1
    assert value(telemetry, "classifier_provider_info", provider="cuda") == 0
    telemetry.set_provider(None)
    assert value(telemetry, "classifier_provider_info", provider="cpu") == 0


def test_a_stage_is_measured_even_where_it_fails(telemetry: Telemetry) -> None:
    with pytest.raises(ZeroDivisionError), telemetry.stage("decode"):
        raise ZeroDivisionError
    assert value(telemetry, "stage_seconds_count", stage="decode") == 1


def test_a_refused_reload_keeps_the_time_of_the_last_good_one(telemetry: Telemetry) -> None:
    telemetry.rules_reloaded(True)
    loaded = value(telemetry, "rules_last_reload_success_timestamp_seconds")
    telemetry.rules_reloaded(False)
    assert value(telemetry, "rules_last_reload_successful") == 0
    assert value(telemetry, "rules_last_reload_success_timestamp_seconds") == loaded != 0


@pytest.mark.prometheus
def test_promtool_finds_nothing_to_say(telemetry: Telemetry) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    telemetry.set_rules([("a", "alert", "high", "resale")])
    telemetry.assigned([0])
    telemetry.set_build("1", "3", "c", "r")
    text = generate_latest(telemetry.registry)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    broken = subprocess.run(["promtool", "check", "metrics"], input=b"# TYPE x counter\nx 1\n", capture_output=True)
    assert broken.returncode != 0, "promtool says nothing to anything"
