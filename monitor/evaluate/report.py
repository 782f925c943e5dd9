"""An evaluation for people and machines: a table, JSON, and one HTML page that needs nothing else.

Every figure has ``campaign : population`` beside it; bad rows stay in. Knows nothing of how it was scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from rich.table import Table

from ..plain import cell
from . import plots
from .score import DELAYS_H, Evaluation

_STYLE = """body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1a202c}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}td,th{padding:.25rem .6rem;
border-bottom:1px solid #e2e8f0;text-align:right}
th{font-weight:600}td:first-child,th:first-child{text-align:left}.no{color:#c53030}
svg{width:37rem;max-width:100%;height:auto}svg text{font:10px system-ui,sans-serif;fill:#4a5568}.end{text-anchor:end}
.mid{text-anchor:middle}
div{overflow-x:auto}.axis{stroke:#a0aec0;fill:none}.sent{fill:#cbd5e0}.named{fill:#2b6cb0}.alert{stroke:#c53030}"""

_CAMPAIGN = (
    "campaign",
    "accounts : population",
    "found",
    "hypothesis",
    "hours to HIGH",
    *(f"leaked +{d} h" for d in DELAYS_H),
    "core precision",
    "core recall",
    "all-member precision",
    "all-member recall",
    "accounts at medium",
)


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def campaign_rows(e: Evaluation) -> list[list[str]]:
    """One row a campaign, as text."""
    rows = []
    for c in e.campaigns:
        guess = "-" if c.hypothesis is None else f"{c.hypothesis}{'' if c.hypothesis_right else ' (wrong)'}"
        leaks = [f"{x.share:.1%} ({x.requests}; {x.tokens / 1e6:.2f} M tokens)" for x in c.leaks]
        quality = (c.core_precision, c.core_recall, c.member_precision, c.member_recall)
        rows.append(
            [
                c.campaign,
                f"{c.accounts} : {c.population}",
                "yes" if c.found else "no",
                guess,
                _number(c.hours_to_high, ".1f"),
                *leaks,
                *map(_number, quality),
                str(c.noticed),
            ]
        )
    return rows


def lone_rows(e: Evaluation) -> list[list[str]]:
    """One row for the abusive accounts of a scenario that are no campaign."""
    return [
        [
            x.scenario,
            f"{x.accounts} : {e.population}",
            f"{x.high}",
            f"{x.medium}",
            _number(x.hours_to_medium, ".1f"),
            *(f"{k.share:.1%}" for k in x.leaks),
        ]
        for x in e.lone
    ]


def confounder_rows(e: Evaluation) -> list[list[str]]:
    """One row a benign look-alike."""
    return [
        [
            c.scenario,
            f"{c.accounts} : {e.population}",
            str(c.false_high),
            f"{c.contaminated}",
            f"{c.contamination:.2%} (at most {c.contamination_upper:.2%})",
            str(c.noticed),
        ]
        for c in e.confounders
    ]


def overall_rows(e: Evaluation) -> list[list[str]]:
    """False alarms with their 95 % upper bounds."""
    rows = []
    for name, r in (("campaigns", e.false_campaigns), ("accounts", e.false_accounts)):
        rows.append(
            [
                f"false HIGH {name}",
                str(r.count),
                f"{r.per_million_account_days:.2f} (at most {r.per_million_account_days_upper:.2f})",
                f"{r.per_week:.2f} (at most {r.per_week_upper:.2f})",
            ]
        )
    return rows


_LONE = (
    "scenario",
    "accounts : population",
    "HIGH",
    "medium or more",
    "hours to medium",
    *(f"leaked +{d} h" for d in DELAYS_H),
)
_CONFOUNDER = ("look-alike", "accounts : population", "false HIGH", "accused", "contamination", "accounts at medium")
_OVERALL = ("overall", "count", "per million account-days", "per week")


def sections(e: Evaluation) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    """(title, header, rows) of each table that has rows."""
    every = [
        ("Campaigns", _CAMPAIGN, campaign_rows(e)),
        ("Single accounts", _LONE, lone_rows(e)),
        ("Benign look-alikes", _CONFOUNDER, confounder_rows(e)),
        ("False alarms", _OVERALL, overall_rows(e)),
    ]
    return [(t, h, r) for t, h, r in every if r]


def tables(e: Evaluation) -> list[Table]:
    """The evaluation as rich tables."""
    out = []
    for title, header, rows in sections(e):
        table = Table(title=title, title_justify="left", header_style="bold")
        for i, name in enumerate(header):
            table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(cell, row))
        out.append(table)
    return out


def summary(e: Evaluation) -> str:
    """One line."""
    rate = e.false_campaigns
    return (
        f"found {e.found} of {len(e.campaigns)} campaigns; {rate.count} false HIGH campaigns in {e.account_days} "
        f"honest account-days (at most {rate.per_million_account_days_upper:.1f} per million, 95 %); "
        f"{e.false_accounts.count} honest accounts accused"
    )


def to_json(e: Evaluation) -> str:
    """Stable JSON: equal evaluations give equal text."""
    return json.dumps(e.as_dict(), indent=1, sort_keys=True) + "\n"


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, escaped; cells that say no are marked."""
    head = "".join(f"<th>{escape(h)}</th>" for h in header)
    body = "".join(
        "<tr>" + "".join(f"<td{' class=no' if cell == 'no' else ''}>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<div><table><tr>{head}</tr>{body}</table></div>"


def to_html(e: Evaluation, title: str = "Evaluation", comparison: Mapping[str, Evaluation] | None = None) -> str:
    """One page with tables and plots, self-contained. ``comparison`` adds detectors on the same log by name."""
    parts = [f"<h1>{escape(title)}</h1><p>{escape(summary(e))}</p>"]
    if comparison:
        header, rows = comparison_rows({title: e, **comparison})
        parts.append(f"<h2>Detectors on the same log</h2>{html_table(header, rows)}")
    parts += [f"<h2>{escape(t)}</h2>{html_table(h, r)}" for t, h, r in sections(e)]
    parts.append(plots_of(e))
    return page(title, "".join(parts))


def plots_of(e: Evaluation) -> str:
    """Leak curves, precision by threshold and the campaigns' timelines, as HTML; nothing where there is no campaign."""
    if not e.campaigns:
        return ""
    parts = []
    found = [(c.campaign, [(float(x.delay_h), x.share) for x in c.leaks]) for c in e.campaigns if c.found]
    for first in range(0, len(found), plots.LINES):
        lines = found[first : first + plots.LINES]
        parts.append(f"<h2>Leaked by delay of the response</h2>{plots.curves('leaked', lines, 'hours of delay')}")
    points = [(p.severity, p.precision) for p in e.thresholds]
    parts.append(f"<h2>Precision by severity threshold</h2>{plots.bars('precision', points)}<h2>Timelines</h2>")
    parts += [
        f"<h3>{escape(c.campaign)}</h3>{plots.timeline(c.campaign, e.timelines[c.campaign])}" for c in e.campaigns
    ]
    return "".join(parts)


def page(title: str, body: str) -> str:
    """A whole HTML page around ``body``."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}<body>{body}</body></html>\n'


def comparison_rows(results: Mapping[str, Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Detectors side by side: found, leaks, false alarms, precision of what they accuse."""
    header = [
        "detector",
        "found",
        "hypotheses right",
        "leaked",
        "false HIGH campaigns",
        "honest accounts accused",
        "accused per million account-days",
        "core precision",
        "core recall",
    ]
    rows = []
    for name, e in results.items():
        total = sum(c.requests for c in e.campaigns)
        leaked = sum(c.leaks[0].requests for c in e.campaigns)
        rows.append(
            [
                name,
                f"{e.found} of {len(e.campaigns)}",
                str(sum(bool(c.hypothesis_right) for c in e.campaigns)),
                _number(leaked / total if total else None, ".1%"),
                str(e.false_campaigns.count),
                str(e.false_accounts.count),
                f"{e.false_accounts.per_million_account_days:.0f}",
                _number(e.core_precision),
                _number(e.core_recall),
            ]
        )
    return header, rows


def write(e: Evaluation, json_path: str | Path | None, html_path: str | Path | None, title: str = "Evaluation") -> None:
    """The files that were asked for."""
    if json_path is not None:
        Path(json_path).write_text(to_json(e), encoding="utf-8")
    if html_path is not None:
        Path(html_path).write_text(to_html(e, title), encoding="utf-8")
