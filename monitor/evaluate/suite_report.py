"""A suite for people: rows of each table, over seeds, as rich tables, Markdown and one page with plots.

Counts are added over seeds before a bound is taken, so that more seeds prove more. Every row stays in, bad ones too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from statistics import mean, median

from rich.table import Table

from ..plain import cell
from . import report
from .fairness import TESTS
from .groups import LEVELS as GROUP_LEVELS
from .groups import added
from .mmd_table import SHARES
from .score import DELAYS_H, CampaignScore, Evaluation, LoneScore, Rate, rate
from .semireal import PREFIX
from .sizes import LIVES, PAIRS, SIDES
from .spread import CONFUSION, WORST, confusion_rows, worst_rows
from .suite import Named, SuiteReport

_DETECTORS = ("run", "found", "hypotheses right", "missed", "leaked", "false HIGH campaigns",
              "per million account-days, at most", "honest accounts accused", "core precision", "core recall",
              "abusive accounts at medium", "honest accounts at medium")  # fmt: skip
_FALSE = ("run", "honest account-days", "false HIGH campaigns", "per million account-days (at most)",
          "per week (at most)", "honest accounts accused", "per million account-days (at most)",
          "per week (at most)")  # fmt: skip
_SCENARIOS = ("scenario", "accounts : population", "found in", "hypothesis right in", "median hours to HIGH",
              "leaked at least", *(f"leaked +{d} h" for d in DELAYS_H), *(f"tokens leaked +{d} h" for d in DELAYS_H),
              "core precision", "core recall", "all-member precision", "all-member recall",
              "accounts at medium")  # fmt: skip
_COSTS = ("attack on the detector", "seeds", "measured on", "core recall without", "with", "cost (points)",
          "at medium without", "with", "cost (points)", "honest accounts accused without", "with")  # fmt: skip


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [v for v in values if v is not None]
    return format(mean(known), form) if known else "-"


def detector_rows(suite: SuiteReport) -> list[list[str]]:
    """One row a run of the composed world: the detector, its ablations, every baseline; sums over seeds."""
    rows = []
    for name in (n for n in suite.names if n not in TESTS):
        runs = [o.evaluation for o in suite.of(name) if o.variant == "composed"]
        if not runs:
            continue
        campaigns = [c for e in runs for c in e.campaigns]
        total = sum(c.requests for c in campaigns)
        leaked = sum(c.leaks[0].requests for c in campaigns) / total if total else None
        upper = pooled([e.false_campaigns for e in runs], runs).per_million_account_days_upper
        rows.append([
            name, f"{sum(c.found for c in campaigns)} of {len(campaigns)}",
            str(sum(bool(c.hypothesis_right) for c in campaigns)), _missed(campaigns), _mean([leaked], ".1%"),
            str(sum(e.false_campaigns.count for e in runs)), f"{upper:.0f}",
            str(sum(e.false_accounts.count for e in runs)), _mean([e.core_precision for e in runs], ".2f"),
            _mean([e.core_recall for e in runs], ".2f"), str(sum(e.noticed_abusive for e in runs)),
            str(sum(e.noticed_honest for e in runs)),
        ])  # fmt: skip
    return rows


def _missed(campaigns: Sequence[CampaignScore]) -> str:
    """Scenarios that were missed, each with how often of how many where that was not always."""
    of = Counter(c.scenario for c in campaigns)
    missed = Counter(c.scenario for c in campaigns if not c.found)
    if len(missed) == len(of) and missed == of:
        return "all" if of else "-"
    named = (s if missed[s] == of[s] else f"{s} ({missed[s]} of {of[s]})" for s in sorted(missed))
    return ", ".join(named) or "-"


def pooled(rates: Sequence[Rate], runs: Sequence[Evaluation]) -> Rate:
    """One rate of several runs': counts, account-days and days added up."""
    return rate(sum(r.count for r in rates), sum(e.account_days for e in runs), sum(e.days for e in runs))


def false_rows(suite: SuiteReport) -> list[list[str]]:
    """One row a run of the composed world or the long one: rates of false alarms, at most (95 %), over seeds."""
    rows = []
    for name in (n for n in suite.names if n not in TESTS):
        runs = [o.evaluation for o in suite.of(name) if o.variant in ("composed", LIVES)]
        if not runs:
            continue
        row = [name, str(sum(e.account_days for e in runs))]
        for rates in ([e.false_campaigns for e in runs], [e.false_accounts for e in runs]):
            r = pooled(rates, runs)
            row += [str(r.count), f"{r.per_million_account_days:.1f} ({r.per_million_account_days_upper:.1f})",
                    f"{r.per_week:.2f} ({r.per_week_upper:.2f})"]  # fmt: skip
        rows.append(row)
    return rows


def scenario_rows(suite: SuiteReport, run: str = "detector") -> list[list[str]]:
    """One row a scenario of a run, over seeds: shares are means, requests and tokens leaked are sums."""
    by: dict[str, list[CampaignScore]] = {}
    for outcome in suite.of(run):
        for c in outcome.evaluation.campaigns:
            by.setdefault(c.scenario, []).append(c)
    rows = []
    for name, of in sorted(by.items()):
        hours = [c.hours_to_high for c in of if c.hours_to_high is not None]
        delays = range(len(DELAYS_H))
        rows.append([
            name, f"{of[0].accounts} : {of[0].population}", f"{sum(c.found for c in of)} of {len(of)}",
            f"{sum(bool(c.hypothesis_right) for c in of)}", f"{median(hours):.1f}" if hours else "-",
            _mean([c.leaked_at_least for c in of], ".1%"),
            *(f"{_mean([c.leaks[k].share for c in of], '.1%')} ({sum(c.leaks[k].requests for c in of)})"
              for k in delays),
            *(f"{sum(c.leaks[k].tokens for c in of) / 1e6:.2f} M" for k in delays),
            _mean([c.core_precision for c in of], ".2f"), _mean([c.core_recall for c in of], ".2f"),
            _mean([c.member_precision for c in of], ".2f"), _mean([c.member_recall for c in of], ".2f"),
            f"{sum(c.noticed for c in of)} of {sum(c.accounts for c in of)}",
        ])  # fmt: skip
    return rows


def cost_rows(suite: SuiteReport) -> list[list[str]]:
    """One row an attack on the detector itself: what it costs the recall of the rest, by paired worlds."""
    rows = []
    for pair in PAIRS:
        sides = [[o.evaluation for o in suite.of(f"{pair.name}, {side}")] for side in SIDES]
        if not all(sides):
            continue
        core, medium, accused = [], [], []
        for runs in sides:
            of = [c for e in runs for c in e.campaigns if c.scenario in pair.measured]
            members = sum(c.accounts for c in of)
            core.append(sum((c.core_recall or 0.0) * c.accounts for c in of) / max(members, 1))
            medium.append(sum(c.noticed for c in of) / max(members, 1))
            accused.append(sum(e.false_accounts.count for e in runs))
        rows.append([
            pair.name, str(len(sides[0])), ", ".join(pair.measured), f"{core[0]:.1%}", f"{core[1]:.1%}",
            f"{100 * (core[0] - core[1]):+.1f}", f"{medium[0]:.1%}", f"{medium[1]:.1%}",
            f"{100 * (medium[0] - medium[1]):+.1f}", str(accused[0]), str(accused[1]),
        ])  # fmt: skip
    return rows


def confounder_rows(suite: SuiteReport, run: str = "detector") -> list[list[str]]:
    """One row a look-alike of a run, over seeds."""
    by: dict[str, list[tuple[int, ...]]] = {}
    for outcome in suite.of(run):
        for c in outcome.evaluation.confounders:
            by.setdefault(c.scenario, []).append((c.accounts, c.false_high, c.contaminated, c.noticed))
    rows = []
    for name, of in sorted(by.items()):
        accounts, false, accused, noticed = (sum(x[k] for x in of) for k in range(4))
        rows.append([name, str(accounts), str(false), f"{accused / accounts:.2%}", f"{noticed} of {accounts}"])
    return rows


_ALERT = ("world", "runs", "found", "median hours to HIGH", "hypotheses named in (median hours)")
_LOOK_ALIKES = ("look-alike", "accounts", "false HIGH", "contamination", "accounts at medium")
_LONE = ("scenario", "accounts", "at HIGH", "at medium", "median hours to medium", "leaked +0 h")
_SEMI_REAL = ("attack text", "abusive accounts : population", "found", "hypotheses right", "core recall",
              "drop (points)", "leaked", "false HIGH campaigns", "honest accounts accused",
              "abusive accounts at medium", "drop (points)", "honest accounts at medium")  # fmt: skip
_MMD = ("null windows of", "attack text", "window", "false alarms", *(f"caught at {s:.0%}" for s in SHARES))
_FAIR = ("log changed by", "seed", "alert revisions", "of them changed", "subjects", "verdicts changed", "reading")

_GROUPS = ("by", "group", "honest accounts", *(f"named at {level} or more" for level in GROUP_LEVELS))


def lone_rows(suite: SuiteReport, run: str = "detector") -> list[list[str]]:
    """One row a scenario of abusive accounts that are no campaign, over seeds."""
    by: dict[str, list[LoneScore]] = {}
    for outcome in suite.of(run):
        for lone in outcome.evaluation.lone:
            by.setdefault(lone.scenario, []).append(lone)
    rows = []
    for name, of in sorted(by.items()):
        hours = [x.hours_to_medium for x in of if x.hours_to_medium is not None]
        rows.append([
            name, str(sum(x.accounts for x in of)), str(sum(x.high for x in of)), str(sum(x.medium for x in of)),
            f"{median(hours):.1f}" if hours else "-", _mean([x.leaks[0].share for x in of], ".1%"),
        ])  # fmt: skip
    return rows


def semi_real_rows(suite: SuiteReport) -> list[list[str]]:
    """The simulated world, then one row for each source of text; both drops are from the first, in points."""
    names = [n for n in suite.names if n.startswith(PREFIX)]
    rows: list[list[str]] = []
    first: tuple[float, float] | None = None
    for name in ["detector", *names] if names else []:
        runs = [o.evaluation for o in suite.of(name)]
        if not runs:
            continue
        campaigns = [c for e in runs for c in e.campaigns]
        abusive = sum(c.accounts for c in campaigns) + sum(x.accounts for e in runs for x in e.lone)
        noticed = sum(e.noticed_abusive for e in runs)
        share = noticed / abusive if abusive else 0.0
        core = mean(e.core_recall for e in runs)
        sent = sum(c.requests for c in campaigns)
        leaked = sum(c.leaks[0].requests for c in campaigns) / sent if sent else None
        own = core, share
        first = own if name == "detector" else first
        core_drop, drop = (f"{100 * (a - b):+.0f}" if first else "-" for a, b in zip(first or own, own, strict=True))
        rows.append([
            name.removeprefix(PREFIX) if name.startswith(PREFIX) else "simulated",
            f"{abusive} : {sum(e.population for e in runs)}",
            f"{sum(c.found for c in campaigns)} of {len(campaigns)}",
            str(sum(bool(c.hypothesis_right) for c in campaigns)), f"{core:.2f}", core_drop, _mean([leaked], ".1%"),
            str(sum(e.false_campaigns.count for e in runs)), str(sum(e.false_accounts.count for e in runs)),
            f"{noticed} ({share:.0%})", drop, str(sum(e.noticed_honest for e in runs)),
        ])  # fmt: skip
    return rows


def mmd_table_rows(suite: SuiteReport) -> list[list[str]]:
    """One row a protocol and source: share of windows that the published MMD test catches."""
    return [
        [m.protocol, m.attack, str(m.window), f"{m.false_positives:.1%}", *(f"{c:.2f}" for c in m.caught)]
        for m in suite.mmd
    ]


def fairness_rows(suite: SuiteReport) -> list[list[str]]:
    """One row a fairness test and seed."""
    return [
        [f.name, str(f.seed), str(f.revisions), str(f.changed), str(f.subjects), str(f.subjects_changed), f.reading]
        for f in suite.fairness
    ]


def group_rows(suite: SuiteReport) -> list[list[str]]:
    """One row a group of honest accounts, over seeds: how many of it alerts name at each severity."""
    return [
        [g.by, g.group, str(g.accounts), *(f"{n} ({n / g.accounts:.1%})" for n in g.named)]
        for g in added([o.groups for o in suite.of("detector")])
    ]


def _hypotheses(named: Sequence[Named]) -> str:
    return ", ".join(f"{hypothesis} {runs} ({hours:.1f})" for hypothesis, runs, hours in named) or "-"


def sections(suite: SuiteReport) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    """(title, header, rows) of each table that has rows."""
    alert = [
        [n, str(runs), str(found), "-" if h is None else f"{h:.1f}", _hypotheses(named)]
        for n, runs, found, h, named in suite.time_to_alert()
    ]
    every = [
        ("Detectors on the same logs", _DETECTORS, detector_rows(suite)),
        ("False alarms", _FALSE, false_rows(suite)),
        ("Scenarios", _SCENARIOS, scenario_rows(suite)),
        ("The worst seed of each scenario", WORST, worst_rows(suite)),
        ("Scenarios over their lives", _SCENARIOS, scenario_rows(suite, LIVES)),
        ("The worst seed of each, over their lives", WORST, worst_rows(suite, LIVES)),
        ("Hypotheses: what campaigns are and what they are called", CONFUSION, confusion_rows(suite)),
        ("Benign look-alikes", _LOOK_ALIKES, confounder_rows(suite)),
        ("Single abusive accounts", _LONE, lone_rows(suite)),
        ("Attacks on the detector", _COSTS, cost_rows(suite)),
        ("Time to alert by mix (%) and size", _ALERT, alert),
        ("Semi-real: text and timing from files", _SEMI_REAL, semi_real_rows(suite)),
        ("The published MMD test, by share of the attacker in a window", _MMD, mmd_table_rows(suite)),
        ("Fairness (invariant 8)", _FAIR, fairness_rows(suite)),
        ("Honest accounts that alerts name, by group", _GROUPS, group_rows(suite)),
    ]
    return [(t, h, r) for t, h, r in every if r]


def suite_tables(suite: SuiteReport) -> list[Table]:
    """A suite as rich tables."""
    out = []
    for title, header, rows in sections(suite):
        table = Table(title=f"{title} ({suite.suite}, {len(suite.seeds)} seeds)", title_justify="left")
        for i, name in enumerate(header):
            table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(cell, row))
        out.append(table)
    return out


def suite_markdown(suite: SuiteReport) -> str:
    """A suite as Markdown, for the README: every row, the bad ones too."""
    parts = []
    for title, header, rows in sections(suite):
        lines = [f"**{title}** ({suite.suite}, {len(suite.seeds)} seeds)", "", "| " + " | ".join(header) + " |"]
        lines.append("|" + "---|" * len(header))
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def suite_html(suite: SuiteReport) -> str:
    """A suite as one self-contained page; plots are of the first seed's detector run."""
    title = f"Suite {suite.suite}, {len(suite.seeds)} seeds"
    parts = [f"<h1>{escape(title)}</h1>"]
    parts += [f"<h2>{escape(t)}</h2>{report.html_table(h, r)}" for t, h, r in sections(suite)]
    for outcome in suite.of("detector")[:1]:
        parts.append(report.plots_of(outcome.evaluation))
    return report.page(title, "".join(parts))
