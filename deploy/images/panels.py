"""Draws what the queries of dashboard panels return, as one SVG: the panels' own queries, asked of a Prometheus.

It is no picture of Grafana, which is not needed for it: titles, legends and units are the dashboards', the lines are
Prometheus' answers.
"""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

Series = list[tuple[float, float]]
"""(seconds since the epoch, value)."""
SHOWN = ("Records a second", "Time by stage", "Opened, by severity", "Open now, by severity",
         "Accounts in campaigns, by tier", "Output tokens leaked so far", "Firings, by rule",
         "Scores, quantiles")  # fmt: skip
COLOURS = ("#1f5fae", "#b3261e", "#8a5a00", "#2e7d4f", "#6a4bb0", "#0f7f86", "#94408a", "#5b6672")
WIDTH, HEIGHT, COLUMNS, MOST = 590, 216, 2, 8
INTERVAL = "15s"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel with lines: what it asks, and how an answer is named."""

    title: str
    board: str
    unit: str
    queries: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Drawn:
    """A panel and its lines by name."""

    panel: Panel
    lines: dict[str, Series] = field(default_factory=dict)


def panels(folder: Path) -> list[Panel]:
    """Those of :data:`SHOWN` in the dashboards of ``folder``. Raises ValueError where one is gone."""
    found: dict[str, Panel] = {}
    for path in sorted(folder.glob("*.json")):
        board = json.loads(path.read_text("utf-8"))
        for panel in board["panels"]:
            if panel["type"] == "timeseries" and panel["title"] in SHOWN and panel["title"] not in found:
                asked = tuple((str(t["expr"]), str(t.get("legendFormat", ""))) for t in panel["targets"])
                unit = str(panel["fieldConfig"]["defaults"].get("unit", "short"))
                found[panel["title"]] = Panel(panel["title"], board["title"], unit, asked)
    if gone := set(SHOWN) - set(found):
        raise ValueError(f"no dashboard has {sorted(gone)}")
    return [found[title] for title in SHOWN]


def ask(url: str, panel: Panel, begin: float, end: float, step: float) -> Drawn:
    """The panel's lines between two times (seconds since the epoch)."""
    drawn = Drawn(panel)
    for expression, legend in panel.queries:
        query = expression.replace("$__rate_interval", INTERVAL).replace("$__interval", INTERVAL)
        query = query.replace("$job", ".*").replace("$instance", ".*")
        asked = urllib.parse.urlencode({"query": query, "start": begin, "end": end, "step": step})
        with urllib.request.urlopen(f"{url}/api/v1/query_range?{asked}", timeout=30) as answer:  # noqa: S310
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        for one in result:
            name = re.sub(r"\{\{(\w+)\}\}", lambda m, one=one: str(one["metric"].get(m[1], "")), legend)
            points = [(float(t), float(v)) for t, v in one["values"] if v not in ("NaN", "+Inf", "-Inf")]
            if points:
                drawn.lines[name or "value"] = points
    return drawn


def said(value: float, unit: str) -> str:
    """A value with its unit, short."""
    if unit == "percentunit":
        return f"{value:.0%}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}" + (" s" if unit == "s" else "")


def one(drawn: Drawn, x: float, y: float, begin: float, end: float) -> str:
    """One panel at a place of the picture: the busiest lines, each with its name."""
    left, right, top, bottom = x + 58, x + WIDTH - 168, y + 40, y + HEIGHT - 30
    lines = sorted(drawn.lines.items(), key=lambda item: -max(v for _, v in item[1]))[:MOST]
    most = max((v for _, points in lines for _, v in points), default=0.0) or 1.0
    out = [
        f'<rect x="{x + 4}" y="{y + 4}" width="{WIDTH - 8}" height="{HEIGHT - 8}" rx="8" class="c"/>',
        f'<text x="{x + 18}" y="{y + 26}" class="h">{escape(drawn.panel.title)}</text>',
        f'<text x="{x + WIDTH - 18}" y="{y + 26}" class="t" text-anchor="end">{escape(drawn.panel.board)}</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        at = bottom - (bottom - top) * share
        words = escape(said(most * share, drawn.panel.unit))
        out.append(f'<path d="M{left} {at:.1f}H{right}" class="g"/>')
        out.append(f'<text x="{left - 6}" y="{at + 4:.1f}" class="t" text-anchor="end">{words}</text>')
    for name, at, anchor in (("0 s", left, "start"), (f"{end - begin:.0f} s", right, "end")):
        out.append(f'<text x="{at}" y="{bottom + 17}" class="t" text-anchor="{anchor}">{name}</text>')
    for number, (name, points) in enumerate(lines):
        colour = COLOURS[number]
        wide, tall = (right - left) / (end - begin), (bottom - top) / most
        path = " ".join(f"{left + wide * (t - begin):.1f},{bottom - tall * max(v, 0):.1f}" for t, v in points)
        out.append(f'<polyline points="{path}" class="l" stroke="{colour}"/>')
        height = top + 8 + 17 * number
        out.append(f'<path d="M{right + 14} {height - 4}h14" class="l" stroke="{colour}"/>')
        short = name if len(name) <= 18 else name[:17] + "…"
        out.append(f'<text x="{right + 33}" y="{height}" class="t">{escape(short)}</text>')
    return "".join(out)


def picture(drawn: list[Drawn], begin: float, end: float) -> str:
    """All panels, two a row."""
    rows = -(-len(drawn) // COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows
    body = "\n".join(
        one(d, WIDTH * (i % COLUMNS), HEIGHT * (i // COLUMNS), begin, end) for i, d in enumerate(drawn)
    )  # fmt: skip
    style = (
        f"text{{font-family:{FONT};fill:#1b2430}}.h{{font-size:15px;font-weight:600}}.t{{font-size:12px;fill:#4d5a68}}"
        ".c{fill:#fff;stroke:#d5dbe2}.g{stroke:#e3e8ee;fill:none}.l{fill:none;stroke-width:1.8}"
    )
    title = "Queries of the dashboards, answered by a Prometheus that scraped the demo"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f'<title>{title}</title><style>{style}</style><rect width="{width}" height="{height}" fill="#f4f6f8"/>\n'
        f"{body}\n</svg>\n"
    )
