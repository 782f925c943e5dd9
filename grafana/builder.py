"""Turns panels into Grafana's Classic JSON, which every Grafana from 11.6 on provisions.

Knows Grafana's form and none of our panels: those are in ``boards/``. Numbers come from Prometheus. Accounts and
campaigns come as tables from the JSON API of ``monitor serve``, through the Infinity data source: no metric may name
an account.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA_VERSION = 39
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
INFINITY = "yesoreyeram-infinity-datasource"
API = {"type": INFINITY, "uid": "${api}"}
CONSOLE = "http://127.0.0.1:9465"
"""Where `monitor serve` listens by default: the variable ``console`` says where a browser finds it."""
TAG = "abuse-monitor"
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
class Column:
    """A column of a table: the field of the API's row, its heading, its type and unit.

    ``page``: the name of a field that holds a path of the console, to which the cell links.
    """

    field: str
    title: str
    type: Literal["string", "number", "timestamp_epoch_s"] = "string"
    unit: str = ""
    page: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the JSON API: the question that it answers, the path with its query, where the rows are in it."""

    title: str
    question: str
    path: str
    root: str
    columns: tuple[Column, ...]
    width: int = 24
    height: int = 9
    empty: str = "nothing"


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel | Table, ...]


@dataclass(frozen=True)
class Board:
    """A dashboard; ``uid`` is its address and its file's name."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel | Table, ...]:
        """Every panel, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def dashboard(board: Board) -> dict[str, Any]:
    """The dashboard as Grafana's Classic JSON."""
    panels: list[dict[str, Any]] = []
    api = any(isinstance(panel, Table) for panel in board.panels)
    y = 0
    for row in board.rows:
        panels.append(_row(len(panels) + 1, row.title, y))
        y += 1
        skyline = [y] * 24
        for panel in row.panels:
            y, x = min((max(skyline[x : x + panel.width]), x) for x in range(25 - panel.width))
            grid = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            make = _table if isinstance(panel, Table) else _panel
            panels.append(make(len(panels) + 1, panel, grid))  # type: ignore[arg-type]  # made for its own kind
            skyline[x : x + panel.width] = [y + panel.height] * panel.width
        y = max(skyline)
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "1m" if api else "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "links": [_others()],
        "annotations": {"list": _annotations()},
        "templating": {"list": _variables(api)},
        "panels": panels,
    }


def _others() -> dict[str, Any]:
    return {
        "type": "dashboards", "title": "Abuse monitor", "tags": [TAG], "asDropdown": False, "icon": "external link",
        "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": "",
    }  # fmt: skip


def _variables(api: bool) -> list[dict[str, Any]]:
    found = [
        _source("datasource", "Data source", "prometheus"),
        _variable("job", "Job", "label_values(abusemon_build_info, job)"),
        _variable("instance", "Replica", 'label_values(abusemon_build_info{job=~"$job"}, instance)'),
    ]
    if api:
        chosen = {"selected": True, "text": CONSOLE, "value": CONSOLE}
        found += [
            _source("api", "API", INFINITY),
            {"name": "console", "label": "Console", "type": "textbox", "query": CONSOLE, "hide": 0,
             "current": chosen, "options": [chosen]},
        ]  # fmt: skip
    return found


def _source(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "label": label, "type": "datasource", "query": query, "hide": 0, "current": {}, "options": [],
        "refresh": 1, "regex": "", "multi": False, "includeAll": False,
    }  # fmt: skip


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "definition": query,
        "query": {"query": query, "refId": f"{name}-variable"}, "refresh": 2, "sort": 1, "hide": 0, "regex": "",
        "multi": True, "includeAll": True, "allValue": ".*", "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _annotations() -> list[dict[str, Any]]:
    """Deploys and alerts: what may explain a step in a graph."""
    build = 'max by (version, config) (abusemon_build_info{{job=~"$job"}}{})'
    model = 'max by (model, sha256) (abusemon_model_info{{job=~"$job", role="active"}}{})'
    reached = 'abusemon_alerts_reached_total{job=~"$job", severity="high"}[$__interval]'
    reload = 'abusemon_rules_last_reload_success_timestamp_seconds{job=~"$job"}[$__interval]'
    before = " offset $__interval"
    return [
        _annotation("Deployed", f"{build.format('')} unless {build.format(before)}", "blue", "deployed {{version}}"),
        _annotation("Model changed", f"{model.format('')} unless {model.format(before)}", "purple", "model {{model}}"),
        _annotation("Rules reloaded", f"changes({reload}) > 0", "purple", "rules reloaded"),
        _annotation("HIGH raised", f"sum by (kind) (increase({reached})) > 0", "red", "HIGH: {{kind}}"),
        _annotation(
            "The monitor in trouble",
            'max by (alertname, severity) (ALERTS{alertstate="firing", job=~"$job", alertname!~"AlertFlood"})',
            "orange",
            "{{alertname}} ({{severity}})",
        ),
    ]


def _annotation(name: str, expression: str, colour: str, title: str) -> dict[str, Any]:
    return {
        "name": name, "datasource": SOURCE, "enable": True, "expr": expression, "iconColor": colour,
        "titleFormat": title, "step": "60s",
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


def _table(number: int, table: Table, grid: dict[str, int]) -> dict[str, Any]:
    pages = sorted({column.page for column in table.columns if column.page})
    columns = [{"selector": c.field, "text": c.title, "type": c.type} for c in table.columns]
    columns += [{"selector": page, "text": page, "type": "string"} for page in pages]
    target = {
        "refId": "A", "datasource": API, "type": "json", "source": "url", "format": "table", "parser": "backend",
        "url": table.path, "url_options": {"method": "GET", "data": ""}, "root_selector": table.root,
        "columns": columns, "filters": [], "global_query_id": "",
    }  # fmt: skip
    overrides = [_override(c.title, _properties(c)) for c in table.columns if _properties(c)]
    overrides += [_override(page, [{"id": "custom.hidden", "value": True}]) for page in pages]
    steps = [{"color": "text", "value": None}]
    defaults = {
        "unit": "short", "noValue": table.empty, "custom": {"align": "auto", "filterable": True}, "mappings": [],
        "thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"},
    }  # fmt: skip
    return {
        "id": number,
        "type": "table",
        "title": table.title,
        "description": table.question,
        "datasource": API,
        "gridPos": grid,
        "targets": [target],
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": _options("table"),
    }


def _override(name: str, properties: list[dict[str, Any]]) -> dict[str, Any]:
    return {"matcher": {"id": "byName", "options": name}, "properties": properties}


def _properties(column: Column) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if column.unit or column.type == "timestamp_epoch_s":
        found.append({"id": "unit", "value": column.unit or "dateTimeAsIso"})
    if column.page:
        url = f"${{console}}${{__data.fields.{column.page}}}"
        found.append({"id": "links", "value": [{"title": "Evidence", "url": url, "targetBlank": True}]})
    if column.field == "severity":
        words = {word: {"text": word, "color": colour} for word, colour in SEVERITY_COLOURS.items()}
        found += [
            {"id": "mappings", "value": [{"type": "value", "options": words}]},
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
        ]
    return found


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
