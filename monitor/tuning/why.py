"""Why a rule fires on a subject, or does not: the row that says most, taken apart, and what the whole time shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from monitor.campaigns.calibrate import RANKED
from monitor.features.catalogue import CLIENT_CLASSES
from monitor.records import Alert
from monitor.rules import HoldState, Rule, RuleSet, Term, explain, shortfall

from .replay import KEYS, frame_of
from .rows import AGREED, Rows

_MOST = 20_000
"""Rows taken apart at once."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A rule on a subject. ``rows`` there are, ``true`` with the condition true, ``fired`` on which it fired.

    ``excepted`` were held back by exceptions, ``agreed`` by a sanctioned use, the others (``true`` less these) by
    ``for``. ``at`` is the end of the row's tick (event time, seconds) whose ``terms`` are shown: the last on which it
    fired, else the last that was true, else the one that came nearest. ``subject`` is a campaign's id for a rule over
    campaigns, where ``account`` was asked for.
    """

    rule: Rule
    account: str
    subject: str
    rows: int
    true: int
    fired: int
    excepted: int
    agreed: int
    first: float | None
    last: float | None
    at: float | None
    terms: tuple[Term, ...]

    @property
    def open_terms(self) -> int:
        """Terms of the condition that do not hold on the row shown."""
        return shortfall(self.terms)[0] if self.terms else -1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        terms = [
            {"term": t.text, "depth": t.depth, "outcome": t.outcome, "value": t.value, "limit": t.limit,
             "margin": t.margin} for t in self.terms
        ]  # fmt: skip
        return {
            "rule": self.rule.id, "over": self.rule.over, "mode": self.rule.mode, "account": self.account,
            "subject": self.subject, "rows": self.rows, "true": self.true, "fired": self.fired,
            "excepted": self.excepted, "agreed": self.agreed, "for_s": self.rule.for_s, "first": self.first,
            "last": self.last, "at": self.at, "open_terms": self.open_terms, "terms": terms,
        }  # fmt: skip


def look(rows: Rows, rules: RuleSet, account: str, at: float | None = None) -> list[Looked]:
    """Each of ``rules`` on an account, or on a campaign by its id: those over campaigns on each one it belongs to.

    ``at``: the row to show, the last by this event time (seconds), instead of the one that says most.
    """
    of_account = rows.of(account)
    out = [
        _look(rule, rules, of_account, account, account, rows, at)
        for rule in rules.rules.values() if rule.over == "account" and len(of_account)
    ]  # fmt: skip
    for campaign, frame in campaigns_of(rows, account).items():
        for rule in rules.rules.values():
            if rule.over == "campaign":
                out.append(_look(rule, rules, frame, account, campaign, rows, at))
    return out


def of_alert(alert: Alert, rules: RuleSet, account: str) -> list[Looked]:
    """The rules of an alert on the evidence that it carries: its last revision's values, one row, nothing of the rest.

    A term over a feature that the alert does not carry is unknown here, though it was not when the rule fired.
    """
    values: dict[str, Any] = {name: entry["value"] for name, entry in alert.evidence.get("features", {}).items()}
    for test in alert.evidence.get("tests", {}).items():
        values.setdefault(test[0], test[1]["value"])
    ranks = {statistic: column for column, (statistic, _) in RANKED.items()}
    values |= {ranks[s]: t["quantile"] for s, t in alert.evidence.get("tests", {}).items() if s in ranks}
    known = {n: pl.Series([v], dtype=pl.Float64() if not isinstance(v, bool) else None) for n, v in values.items()}
    frame = pl.DataFrame({**known, "t_ms": [round(alert.revised_at * 1000)], "subject": [alert.subject]})
    out = []
    for rule in (rules.rules[name] for name in alert.rules if name in rules.rules):
        given = frame.with_columns(account_id=pl.col("subject")) if rule.over == "account" else frame
        terms = tuple(explain(rule, given, CLIENT_CLASSES)[0])
        out.append(Looked(rule, account, alert.subject, 1, int(terms[0].outcome is True), 1, 0, 0, alert.raised_at,
                          alert.revised_at, alert.revised_at, terms))  # fmt: skip
    return out


def campaigns_of(rows: Rows, account: str) -> dict[str, pl.DataFrame]:
    """Candidates that are ``account`` or have it as a member: id -> a row for each such step."""
    found: dict[str, list[pl.DataFrame]] = {}
    for step in rows.steps():
        ids = [c for c, f in step.findings.items() if c == account or any(m.account == account for m in f.members)]
        if ids:
            frame = frame_of(step)
            for campaign in ids:
                found.setdefault(campaign, []).append(frame.filter(pl.col("subject") == campaign))
    return {campaign: pl.concat(frames, how="diagonal_relaxed") for campaign, frames in found.items()}


def _look(
    rule: Rule, rules: RuleSet, frame: pl.DataFrame, account: str, subject: str, rows: Rows, at: float | None
) -> Looked:
    tick_ms = rows.meta.tick_ms if rule.over == "account" else rows.meta.step_ms
    entity = rows.meta.entity if rule.over == "account" else "campaign"
    frame = frame.sort("tick")
    tried = replace(rules, rules={rule.id: replace(rule, mode="alert")})
    held = tried.evaluate(frame, HoldState(tick_ms / 1000), entity, over=rule.over)
    fired = held.firings["row"].to_numpy()
    covered = frame[AGREED].to_numpy()[fired] if AGREED in frame.columns else np.zeros(len(fired), np.bool_)
    agreed = int(covered.sum())
    fired = fired[~covered]
    ends = (frame["tick"].to_numpy() + 1) * tick_ms / 1000
    shown, terms = _shown(rule, frame, fired, ends, at, entity)
    return Looked(
        rule, account, subject, len(frame), held.true_counts[rule.id], len(fired),
        sum(held.exception_hits.values()), agreed, float(ends[fired[0]]) if len(fired) else None,
        float(ends[fired[-1]]) if len(fired) else None, None if shown is None else float(ends[shown]), tuple(terms),
    )  # fmt: skip


def _shown(
    rule: Rule, frame: pl.DataFrame, fired: Any, ends: Any, at: float | None, entity: str
) -> tuple[int | None, Sequence[Term]]:
    """The row to show and its terms."""
    kept = frame.select(sorted({*KEYS, *rule.when.columns} & set(frame.columns)))
    if entity == "account" and "account_id" not in kept.columns:
        kept = kept.with_columns(account_id=pl.col("subject"))
    if at is not None:
        before = np.flatnonzero(ends <= at)
        chosen = int(before[-1]) if len(before) else None
    elif len(fired):
        chosen = int(fired[-1])
    else:
        return _nearest(rule, kept)
    if chosen is None:
        return None, ()
    return chosen, explain(rule, kept[chosen], CLIENT_CLASSES)[0]


def _nearest(rule: Rule, frame: pl.DataFrame) -> tuple[int | None, Sequence[Term]]:
    best: tuple[tuple[int, float], int, Sequence[Term]] | None = None
    for start in range(0, len(frame), _MOST):
        for i, terms in enumerate(explain(rule, frame[start : start + _MOST], CLIENT_CLASSES), start):
            far = shortfall(terms)
            if best is None or far <= best[0]:  # of equal ones the last: what was known then is known best
                best = far, i, terms
    return (None, ()) if best is None else (best[1], best[2])
