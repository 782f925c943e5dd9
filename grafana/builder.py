"""Turns panels into Grafana's Classic JSON, which every Grafana from 10 on provisions, and into a page of Markdown.

Knows Grafana's form and none of our panels: those are in ``panels.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA_VERSION = 39
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
METRIC = re.compile(r"\b(?:abusemon|process)_[a-z0-9_]+")
SEVERITY_COLOURS = {"info": "blue", "low": "green", "medium": "yellow", "high": "orange", "critical": "red"}

Kind = Literal["stat", "timeseries", "bars", "funnel", "heatmap", "table"]


@dataclass(frozen=True)
class Panel:
    """One panel: the question that it answers, its queries by legend, its unit, width and height in grid cells.

    ``thresholds`` are (value, colour) pairs over a green base; ``empty`` says what no data means where that is normal.
    """

    title: str
    question: str
    kind: Kind
    queries: dict[str, str]
    unit: str = "short"
    width: int = 8
    height: int = 7
    thresholds: tuple[tuple[float, str], ...] = ()
    mappings: tuple[tuple[str, str, str], ...] = ()
    empty: str = ""

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that the queries read, without a histogram's suffixes."""
        found = [m for expression in self.queries.values() for m in METRIC.findall(expression)]
        return sorted({re.sub(r"_(?:bucket|count|sum)$", "", name) for name in found})


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def dashboard(rows: tuple[Row, ...]) -> dict[str, Any]:
    """The dashboard as Grafana's Classic JSON."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        panels.append(_row(len(panels) + 1, row.title, y))
        y += 1
        skyline = [y] * 24
        for panel in row.panels:
            y, x = min((max(skyline[x : x + panel.width]), x) for x in range(25 - panel.width))
            grid = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            panels.append(_panel(len(panels) + 1, panel, grid))
            skyline[x : x + panel.width] = [y + panel.height] * panel.width
        y = max(skyline)
    return {
        "uid": "abuse-monitor",
        "title": "Abuse monitor",
        "description": "From request to alert: what came in, was scored and raised, and whether it keeps up.",
        "tags": ["abuse-monitor"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "links": [],
        "annotations": {"list": [_reloads()]},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
    return [
        {**source, "current": {}, "options": [], "refresh": 1, "regex": "", "multi": False, "includeAll": False},
        _variable("job", "Job", "label_values(abusemon_build_info, job)"),
        _variable("instance", "Replica", 'label_values(abusemon_build_info{job=~"$job"}, instance)'),
    ]


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "definition": query,
        "query": {"query": query, "refId": f"{name}-variable"}, "refresh": 2, "sort": 1, "hide": 0, "regex": "",
        "multi": True, "includeAll": True, "allValue": ".*", "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _reloads() -> dict[str, Any]:
    expression = 'changes(abusemon_rules_last_reload_success_timestamp_seconds{job=~"$job"}[$__interval]) > 0'
    return {
        "name": "Rules reloaded", "datasource": SOURCE, "enable": True, "expr": expression, "iconColor": "purple",
        "titleFormat": "rules reloaded", "step": "60s",
    }  # fmt: skip


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    grid = {"x": 0, "y": y, "w": 24, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": grid, "panels": []}


def _panel(number: int, panel: Panel, grid: dict[str, int]) -> dict[str, Any]:
    types = {"bars": "timeseries", "funnel": "bargauge"}
    instant = panel.kind in {"stat", "funnel", "table"}
    targets = [
        {
            "refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expression, "legendFormat": legend,
            "editorMode": "code", "instant": instant, "range": not instant,
            "format": "heatmap" if panel.kind == "heatmap" else "table" if panel.kind == "table" else "time_series",
        }
        for i, (legend, expression) in enumerate(panel.queries.items())
    ]  # fmt: skip
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": colour, "value": value} for value, colour in panel.thresholds]
    defaults: dict[str, Any] = {
        "unit": panel.unit, "min": 0, "noValue": panel.empty or "no data", "custom": _custom(panel.kind),
        "color": {"mode": "thresholds" if panel.thresholds or panel.mappings else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps}, "mappings": _mappings(panel.mappings),
    }  # fmt: skip
    return {
        "id": number,
        "type": types.get(panel.kind, panel.kind),
        "title": panel.title,
        "description": panel.question,
        "datasource": SOURCE,
        "gridPos": grid,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": _severities(panel)},
        "options": _options(panel.kind),
    }


def _custom(kind: Kind) -> dict[str, Any]:
    if kind == "bars":
        return {"drawStyle": "bars", "fillOpacity": 70, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}}
    if kind == "timeseries":
        return {"drawStyle": "line", "fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": False}
    return {}


def _options(kind: Kind) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if kind == "stat":
        return {"reduceOptions": last, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
    if kind == "funnel":
        return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic", "valueMode": "color"}
    if kind == "heatmap":
        axis = {"axisPlacement": "left", "unit": "s"}
        return {"calculate": False, "yAxis": axis, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64}}
    if kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _mappings(mappings: tuple[tuple[str, str, str], ...]) -> list[dict[str, Any]]:
    if not mappings:
        return []
    return [{"type": "value", "options": {value: {"text": text, "color": c} for value, text, c in mappings}}]


def _severities(panel: Panel) -> list[dict[str, Any]]:
    if "{{severity}}" not in panel.queries:
        return []
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in SEVERITY_COLOURS.items()
    ]


def readme(rows: tuple[Row, ...], helps: dict[str, str], internal: dict[str, str]) -> str:
    """grafana/README.md: panel, the question, the metrics; then each metric's meaning."""
    out = [
        "# The dashboard", "",
        "`python grafana/build.py` makes `dashboards/abuse-monitor.json` and this page from `panels.py`; a test",
        "compares them. Grafana takes the dashboard through `provisioning/`, as in `deploy/compose.yaml`, or by",
        "import. It reads one Prometheus, chosen at the top, and never shows an account: the alerts in Redis do.", "",
    ]  # fmt: skip
    for row in rows:
        out += [f"## {row.title}", "", "| panel | question | metrics |", "|---|---|---|"]
        out += [f"| {p.title} | {p.question} | {', '.join(f'`{m}`' for m in p.metrics)} |" for p in row.panels]
        out += [""]
    out += [
        "## Metrics on no panel",
        "",
        "For debugging; read them with PromQL.",
        "",
        "| metric | meaning |",
        "|---|---|",
    ]
    out += [f"| `{name}` | {text} |" for name, text in internal.items()]
    out += ["", "## Metrics on the panels", "", "| metric | meaning |", "|---|---|"]
    return "\n".join([*out, *(f"| `{name}` | {text} |" for name, text in helps.items()), ""])
