"""What the tuning commands print: changes, a sweep's curve, a condition taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .common import out, table

if TYPE_CHECKING:
    from ..rules import Term
    from ..tuning import Comparison, Curve, Looked

MOST_SHOWN = 40


def when(seconds: float | None) -> str:
    """Event time in UTC, nothing for None."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _number(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def show_changes(found: Comparison) -> None:
    """Alerts and accounts gained and lost."""
    from ..tuning.compare import WHAT

    values = found.as_dict()
    for name in ("old", "new"):
        counts = " · ".join(f"{k} {v}" for k, v in values[name]["alert"].items()) or "none"
        shadow = sum(values[name]["shadow"].values())
        out.out(f"{name}: {values[name]['rules']} rules ({values[name]['hash']}), alerts {counts}, {shadow} in shadow",
                highlight=False)  # fmt: skip
    lines = [(name, *_counts(rule["old"]), *_counts(rule["new"])) for name, rule in values["rules"].items()]
    columns = ("rule", "old mode", "rows", "subjects", "new mode", "rows", "subjects")
    out.print(table(f"{len(lines)} rules differ", columns, lines))
    tally = ", ".join(f"{sum(c.what == w for c in found.accounts)} {w}" for w in WHAT)
    shown = [
        (c.what, c.mode, c.subject, c.old or "", c.new or "", ", ".join(c.rules), when(c.at), c.truth)
        for c in found.accounts[:MOST_SHOWN]
    ]
    heads = ("change", "mode", "account", "old", "new", "rules", "raised", "truth")
    out.print(table(f"Accounts: {tally}", heads, shown))
    if len(found.accounts) > MOST_SHOWN:
        out.out(f"{len(found.accounts) - MOST_SHOWN} more: --json or --html has all", highlight=False)


def _counts(rule: dict[str, Any] | None) -> tuple[object, ...]:
    return ("", "", "") if rule is None else (rule["mode"], f"{rule['fired']:,}", rule["subjects"])


def show_curve(curve: Curve) -> None:
    """A sweep's points, that of the value in force first."""
    told = curve.abusive is not None
    lines = []
    for p in [curve.now, *curve.points]:
        name = f"{p.value:g}" + (" (in force)" if p is curve.now else "")
        counts: tuple[object, ...] = (name, f"{p.fired:,}", p.subjects, p.alerts, p.medium, p.high, p.gained, p.lost)
        lines.append((*counts, p.abusive, p.look_alike, p.background) if told else counts)
    columns = (curve.sweep.param, "rows", "accounts", "alerts", "medium+", "high+", "gained", "lost")
    told_columns = ("abusive", "look-alike", "background") if told else ()
    title = f"{curve.sweep.rule}" + (f", of {curve.abusive} abusive accounts" if told else "")
    out.print(table(title, (*columns, *told_columns), lines))


def missing(found: Looked) -> str:
    """What keeps a rule from firing, in a few words."""
    if found.fired:
        return ""
    if found.agreed:
        return "covered by an agreement"
    if found.excepted:
        return "an exception"
    if found.true:
        return f"never true for {found.rule.for_s} s on end"
    open_ = [t for t in found.terms if t.depth == 1 and t.outcome is not True] or list(found.terms[:1])
    return "; ".join(_short(t) for t in open_[:2]) + (f"; {len(open_) - 2} more" if len(open_) > 2 else "")


def _short(term: Term) -> str:
    if term.outcome is None:
        return f"{term.text} (unknown)"
    return f"{term.text} ({'does not hold' if term.value is None else f'is {_number(term.value)}'})"


def show_looked(looked: Sequence[Looked]) -> None:
    """Each rule's terms on the row that says most."""
    words = {True: "true", False: "false", None: "unknown"}
    for found in looked:
        rule = found.rule
        lines = [
            ("  " * max(t.depth - 1, 0) + t.text, words[t.outcome], "" if t.limit is None and t.value is None and
             t.outcome is not None else _number(t.value), "" if t.margin is None else f"{t.margin:+,.6g}",
             "" if t.slack is None else f"{t.slack:+.0%}")
            for t in found.terms if t.depth or len(found.terms) == 1
        ]  # fmt: skip
        about = f"{rule.id} on {found.subject}: fired on {found.fired:,} of {found.rows:,} rows"
        held = found.true - found.fired
        if held > 0:
            reasons = [f"{found.excepted} by an exception"] * bool(found.excepted)
            reasons += [f"{found.agreed} by an agreement"] * bool(found.agreed)
            waited = held - found.excepted - found.agreed
            reasons += [f"{waited:,} by for: {rule.for_s} s"] * (waited > 0)
            about += f", held back on {', '.join(reasons)}"
        title = f"{about}; {rule.mode}, {rule.severity}. Row of {when(found.at) or 'no time'}"
        out.print(table(title, ("term", "is", "value", "margin", "of the limit"), lines))
