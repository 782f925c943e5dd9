"""The dashboards on the demo: a real Prometheus scrapes it while it works, and each query returns data meanwhile."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from monitor.demo import Demo, World
from monitor.service import Signals

ROOT = Path(__file__).resolve().parents[2]
WORLD = World(accounts=150, days=2.0)
"""Small: some twenty seconds of a machine that has nothing else to do."""
QUIET = {
    "Model on trial against the one in use": "no model is on trial",
    "Taken away by exceptions": "no shipped rule has one",
    "Over the frozen threshold": "models are compared after a day of learning",
    "Rules reloaded": "nobody changes a rule",
    "HIGH raised": "a world so small has no campaign of HIGH",
    "The monitor in trouble": "it is not",
}
"""Queries that may return nothing here, and why. The other test feeds them."""
MOVING = {
    "Funnel", "Requests a second", "Accounts with state", "Opened, by severity", "Scores, quantiles", "Tick delay",
    "Records a second", "Time by stage", "Firings, by rule", "Inference", "Output tokens leaked so far", "Sinks",
    "Checkpoint bytes", "Campaigns open, by hypothesis", "Candidates and what they are ranked among",
}  # fmt: skip
"""Panels that must show more than zero."""
SCRAPED_S = 60.0
"""How long after the last request was judged a panel may stay empty: sixty scrapes."""


def queries() -> dict[str, set[str]]:
    """Title -> the queries under it, as Grafana would send them, of panels and annotations of every dashboard."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "grafana/dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        asked = [(p["title"], t["expr"]) for p in board["panels"] for t in p.get("targets", ()) if "expr" in t]
        asked += [(a["name"], a["expr"]) for a in board["annotations"]["list"]]
        for title, expression in asked:
            for name, value in (("$__rate_interval", "15s"), ("$__range", "5m"), ("$__interval", "15s")):
                expression = expression.replace(name, value)
            found.setdefault(title, set()).add(expression.replace("$job", ".*").replace("$instance", ".*"))
    return found


def lacking(asked: dict[str, set[str]], seen: dict[str, float]) -> set[str]:
    """Titles of what has shown nothing yet, or nothing above zero where it should move."""
    still = {title for title in MOVING if not max(seen.get(e, 0.0) for e in asked[title]) > 0}
    return still | {title for title, found in asked.items() if title not in QUIET and not found <= set(seen)}


@pytest.mark.prometheus
@pytest.mark.slow
def test_each_panel_has_data_while_the_demo_runs(prometheus: Callable[..., Any]) -> None:
    demo, signals = Demo(WORLD, keep=True), Signals()
    player = threading.Thread(target=demo.run, args=(signals,), daemon=True)
    player.start()
    asked = queries()
    seen: dict[str, float] = {}
    try:
        while demo.service is None or demo.service.http is None or not demo.service.http.last_url:
            assert player.is_alive(), "the demo ended before it began"
            time.sleep(0.1)
        server = prometheus([urlsplit(demo.service.http.last_url).netloc], [ROOT / "deploy/prometheus/alerts.yml"])
        end = float("inf")  # set when all was judged: what the last requests moved is scraped after it
        while (missing := lacking(asked, seen)) and time.monotonic() < end:
            assert player.is_alive(), "a demo that is kept ended by itself"
            if demo.settled:
                end = min(end, time.monotonic() + SCRAPED_S)
            for expression in {e for found in asked.values() for e in found}:
                values = [abs(v) for r in server.query(expression) if not math.isnan(v := float(r["value"][1]))]
                if values:
                    seen[expression] = max([seen.get(expression, 0.0), *values])
            time.sleep(0.5)
    finally:
        signals.stop()
        player.join(60)
    assert demo.alerts, "a demo that finds nothing shows nothing"
    assert not missing
    assert set(QUIET) <= set(asked), "what is excused exists"
