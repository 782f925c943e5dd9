"""The dashboards as a page of Markdown: each panel with its question, each metric with its meaning."""

from __future__ import annotations

from builder import INFINITY, Board, Panel, Table


def readme(boards: tuple[Board, ...], helps: dict[str, str], internal: dict[str, str]) -> str:
    """grafana/README.md: each panel, the question, what it reads; then each metric's meaning."""
    out = [
        "# The dashboards", "",
        "`python grafana/build.py` makes `dashboards/*.json` and this page from `boards/`; a test compares them.",
        "Grafana takes them through `provisioning/`, as in `deploy/compose.yaml`, by the ConfigMap of the Helm chart,",
        "or by import. Numbers come from a Prometheus, tables of campaigns and accounts from the JSON API of `monitor",
        f"serve` by the Infinity data source (`{INFINITY}`, Grafana 11.6 or newer); both are",
        "chosen at the top. `Console` up there is where your browser finds `monitor serve`: the tables link to its",
        "pages of evidence. Annotations mark deploys, another model or rule set, alerts of HIGH, and the alerts about",
        "the monitor itself.",
        "",
    ]  # fmt: skip
    for board in boards:
        out += [f"## {board.title}", "", board.description, ""]
        for row in board.rows:
            out += [f"### {row.title}", "", "| panel | question | reads |", "|---|---|---|"]
            out += [f"| {p.title} | {p.question} | {_reads(p)} |" for p in row.panels]
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


def _reads(panel: Panel | Table) -> str:
    if isinstance(panel, Table):
        return f"`GET {panel.path}`"
    return ", ".join(f"`{m}`" for m in panel.metrics)
