"""Alerts against truth: found or not, when, what leaked until then, and who was wrongly accused.

**Found**: a campaign alert of HIGH, in mode ``alert`` and not withdrawn, more than half of whose core
members are truly of the campaign; an alert counts for one campaign. **Leaked**: a member's requests before
an alert of HIGH named it core (a campaign alert whose core is mostly abusive at that moment, or an account
alert on it), plus the delay of the response. **False**: an alert of HIGH at most half of whose core is
abusive; **contaminated**: an honest account in the core of any alert of HIGH. So alerting on everybody
finds no campaign, and accuses everyone; alerting on nobody leaks all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .bounds import poisson_upper, share_upper
from .inputs import Ledger, Revision, Truth

HIGH = frozenset({"high", "critical"})
LEVELS = ("info", "low", "medium", "high", "critical")
DELAYS_H = (0, 4, 24)
NAMED = 0.5
"""An alert names each hypothesis of that confidence or more: they are held apart, so it may name several."""
STEP_S = 600.0
"""Length of a campaign step as it comes with the settings: nobody is named before the end of his first one."""


@dataclass(frozen=True, slots=True)
class Leak:
    """What members sent before they could be stopped, with the response ``delay_h`` hours after the alert."""

    delay_h: int
    requests: int
    share: float
    tokens: int


@dataclass(frozen=True, slots=True)
class CampaignScore:
    """One true campaign. Times in hours from its first request; precision and recall null where not found."""

    campaign: str
    scenario: str
    actor: str
    accounts: int
    population: int
    requests: int
    found: bool
    hypothesis: str | None
    hypothesis_right: bool | None
    hours_to_high: float | None
    alerts: int
    leaks: tuple[Leak, ...]
    core_precision: float | None
    core_recall: float | None
    member_precision: float | None
    member_recall: float | None
    noticed: int = 0
    """Members that an account alert names at medium or more, which finds no campaign but is not nothing."""
    leaked_at_least: float | None = None
    """Share of the requests that no detector of whole steps could save: what each member sent until the end of the
    ten minutes in which its first request came. None where rows are days, or nothing was sent."""
    named: dict[str, float] = field(default_factory=dict)
    """Hypotheses that the last revision of an alert on it names, each with the hours until an alert of HIGH did."""


@dataclass(frozen=True, slots=True)
class LoneScore:
    """Abusive accounts of a scenario that are no campaign: named by an account alert, at HIGH or at medium."""

    scenario: str
    actor: str
    accounts: int
    high: int
    medium: int
    hours_to_medium: float | None
    leaks: tuple[Leak, ...]


@dataclass(frozen=True, slots=True)
class ConfounderScore:
    """One benign look-alike: alerts of HIGH that are mostly it, and the share of its accounts accused."""

    scenario: str
    accounts: int
    false_high: int
    contaminated: int
    contamination: float
    contamination_upper: float
    noticed: int = 0
    """Its accounts that an account alert names at medium or more: work for people, not an accusation."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A count of false alarms as rates, with the exact 95 % upper bound of each."""

    count: int
    per_million_account_days: float
    per_million_account_days_upper: float
    per_week: float
    per_week_upper: float


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """Alerts of a severity or more: how many, how many mostly abusive, campaigns they find."""

    severity: str
    alerts: int
    right: int
    precision: float | None
    found: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The whole score. ``account_days`` are of honest accounts: days on which each sent anything."""

    campaigns: tuple[CampaignScore, ...]
    lone: tuple[LoneScore, ...]
    confounders: tuple[ConfounderScore, ...]
    false_campaigns: Rate
    false_accounts: Rate
    account_days: int
    days: float
    population: int
    core_precision: float | None
    core_recall: float
    thresholds: tuple[ThresholdPoint, ...]
    noticed_abusive: int = 0
    noticed_honest: int = 0
    """Accounts that account alerts name at medium or more, by what they truly are."""
    false_alerts: tuple[str, ...] = ()
    unreadable: int = 0
    timelines: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @property
    def found(self) -> int:
        """Campaigns found."""
        return sum(c.found for c in self.campaigns)


class _Alert:
    """All revisions of one alert, oldest first."""

    def __init__(self, revisions: list[Revision]):
        self.revisions = sorted(revisions, key=lambda r: r.revision)
        self.last = self.revisions[-1]
        self.live = self.last.state != "withdrawn"
        self.kind = self.last.kind

    def high(self) -> list[Revision]:
        return [r for r in self.revisions if r.severity in HIGH and r.mode == "alert" and r.state != "withdrawn"]

    def core(self) -> list[str]:
        """The last core that was not empty: a closing revision may name nobody."""
        return next((r.accounts for r in reversed(self.revisions) if r.accounts), [])


def _names(revision: Revision) -> set[str]:
    """Hypotheses that a revision names; one that gives no confidences (a baseline's) names its only one."""
    held = revision.hypotheses or {revision.hypothesis: 1.0}
    return {name for name, confidence in held.items() if confidence >= NAMED}


def _majority(accounts: Sequence[str], members: set[str]) -> bool:
    return 2 * sum(a in members for a in accounts) > len(accounts)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


class _Scorer:
    def __init__(self, alerts: Iterable[Revision], truth: Iterable[Truth], log: Ledger):
        by_id: dict[str, list[Revision]] = defaultdict(list)
        for revision in alerts:
            by_id[revision.alert_id].append(revision)
        self.alerts = [_Alert(r) for _, r in sorted(by_id.items())]
        self.log, self.row = log, {a: i for i, a in enumerate(log.accounts)}
        self.weight = log.weight if log.weight is not None else np.ones(len(log.at), np.int64)
        self.truth = {t.account_id: t for t in truth}
        self.abusive = {a for a, t in self.truth.items() if t.abusive}
        self.campaigns: dict[str, set[str]] = defaultdict(set)
        for t in self.truth.values():
            if t.abusive and t.campaign:
                self.campaigns[t.campaign].add(t.account_id)
        self.named = self._named()
        self.noticed = self._noticed()

    def _named(self) -> dict[str, float]:
        """When each abusive account was first named core by an alert that may be acted on."""
        named: dict[str, float] = {}
        for alert in self.alerts:
            for r in alert.high():
                if alert.kind == "campaign" and not _majority(r.accounts, self.abusive):
                    continue
                for account in r.accounts:
                    if account in self.abusive:
                        named[account] = min(named.get(account, np.inf), r.revised_at)
        return named

    def _noticed(self) -> dict[str, float]:
        """When each account was first named by an account alert of medium or more that is not withdrawn."""
        noticed: dict[str, float] = {}
        for alert in self.alerts:
            for r in alert.revisions if alert.live else ():
                if r.kind == "account" and r.mode == "alert" and LEVELS.index(r.severity) >= 2:
                    for account in r.accounts or [r.subject]:
                        noticed[account] = min(noticed.get(account, np.inf), r.revised_at)
        return noticed

    def leaks(self, members: Iterable[str]) -> tuple[int, tuple[Leak, ...]]:
        counts, tokens, total = [0] * len(DELAYS_H), [0] * len(DELAYS_H), 0
        for account in members:
            i = self.row.get(account)
            if i is None:
                continue
            at, size = (x[self.log.start[i] : self.log.start[i + 1]] for x in (self.log.at, self.log.tokens))
            # a hijacked account's own traffic, before the thief came, is not the thief's; a batch's results
            # come up to a day after the last request was accepted
            theft = at >= self.truth[account].first_ts
            each = self.weight[self.log.start[i] : self.log.start[i + 1]]
            total += int(each[theft].sum())
            for k, delay in enumerate(DELAYS_H):
                out = theft & (at < self.named.get(account, np.inf) + delay * 3600)
                counts[k] += int(each[out].sum())
                tokens[k] += int(size[out].sum())
        share = [c / total if total else 0.0 for c in counts]
        return total, tuple(Leak(d, counts[k], share[k], tokens[k]) for k, d in enumerate(DELAYS_H))

    def floor(self, members: Iterable[str]) -> float | None:
        """See ``CampaignScore.leaked_at_least``."""
        if self.log.weight is not None:
            return None
        lost, total = 0, 0
        for i, first in ((self.row[m], self.truth[m].first_ts) for m in members if m in self.row):
            at = self.log.at[self.log.start[i] : self.log.start[i + 1]]
            at = at[at >= first]
            if len(at):
                lost += int((at < (at.min() // STEP_S + 1) * STEP_S).sum())
                total += len(at)
        return lost / total if total else None

    def campaign(self, name: str) -> CampaignScore:
        members = self.campaigns[name]
        sample = self.truth[min(members)]
        first = min(self.truth[m].first_ts for m in members)
        mine = [
            a for a in self.alerts
            if a.kind == "campaign" and a.live and a.high() and a.core() and _majority(a.core(), members)
        ]  # fmt: skip
        rightly = [r for a in mine for r in a.high() if r.accounts and _majority(r.accounts, members)]
        when = [r.revised_at for r in rightly]
        # what an alert took back is not named, however early it was
        stands = {h for a in mine for h in _names(a.last)}
        named = {
            h: (min(at) - first) / 3600
            for h in sorted(stands) if (at := [r.revised_at for r in rightly if h in _names(r)])
        }  # fmt: skip
        best = min(mine, key=lambda a: a.high()[0].revised_at, default=None)
        core = {x for a in mine for x in a.core()}
        everyone = core | {x for a in mine for r in a.revisions[-1:] for x in r.members}
        requests, leaks = self.leaks(members)
        right = {sample.actor, *sample.also}
        return CampaignScore(
            campaign=name, scenario=sample.scenario, actor=sample.actor, accounts=len(members),
            population=len(self.log.accounts), requests=requests, found=bool(mine),
            hypothesis=best.last.hypothesis if best else None,
            hypothesis_right=best.last.hypothesis in right if best else None,
            hours_to_high=(min(when) - first) / 3600 if when else None, alerts=len(mine), leaks=leaks,
            core_precision=_ratio(len(core & members), len(core)),
            core_recall=len(core & members) / len(members) if mine else None,
            member_precision=_ratio(len(everyone & members), len(everyone)),
            member_recall=len(everyone & members) / len(members) if mine else None,
            noticed=len(members & self.noticed.keys()), leaked_at_least=self.floor(members),
            named=named,
        )  # fmt: skip

    def lone(self) -> tuple[LoneScore, ...]:
        groups: dict[tuple[str, str], set[str]] = defaultdict(set)
        for t in self.truth.values():
            if t.abusive and not t.campaign:
                groups[t.scenario, t.actor].add(t.account_id)
        noticed, out = self.noticed, []
        for (scenario, actor), members in sorted(groups.items()):
            hours = [(noticed[a] - self.truth[a].first_ts) / 3600 for a in members if a in noticed]
            out.append(LoneScore(scenario, actor, len(members), sum(a in self.named for a in members), len(hours),
                                 min(hours) if hours else None, self.leaks(members)[1]))  # fmt: skip
        return tuple(out)

    def run(self) -> Evaluation:
        log = self.log
        accused = {x for a in self.alerts for r in a.high() for x in r.accounts}
        honest = [i for i, a in enumerate(log.accounts) if a not in self.abusive]
        account_days = int(log.account_days[honest].sum()) if honest else 0
        wrong = [a for a in self.alerts if a.high() and a.core() and not _majority(a.core(), self.abusive)]
        campaigns = tuple(self.campaign(name) for name in sorted(self.campaigns))
        mostly = Counter(_mostly(a.core(), self.truth) for a in wrong)
        look_alikes: dict[str, set[str]] = defaultdict(set)
        for t in self.truth.values():
            if not t.abusive:
                look_alikes[t.scenario].add(t.account_id)
        confounders = tuple(
            ConfounderScore(name, len(who), mostly[name], len(who & accused), len(who & accused) / len(who),
                            share_upper(len(who & accused), len(who)), len(who & self.noticed.keys()))
            for name, who in sorted(look_alikes.items())
        )  # fmt: skip
        false_accounts = len(accused - self.abusive)
        true_core = accused & self.abusive
        return Evaluation(
            campaigns=campaigns, lone=self.lone(), confounders=confounders,
            false_campaigns=rate(sum(a.kind == "campaign" for a in wrong), account_days, log.days),
            false_accounts=rate(false_accounts, account_days, log.days), account_days=account_days, days=log.days,
            population=len(log.accounts), core_precision=_ratio(len(true_core), len(accused)),
            core_recall=len(true_core) / len(self.abusive) if self.abusive else 1.0,
            thresholds=tuple(self._threshold(s) for s in LEVELS),
            noticed_abusive=len(self.abusive & self.noticed.keys()),
            noticed_honest=len(self.noticed.keys() - self.abusive),
            false_alerts=tuple(a.last.alert_id for a in wrong), unreadable=log.unreadable,
            timelines={c.campaign: self._timeline(c.campaign) for c in campaigns},
        )  # fmt: skip

    def _threshold(self, severity: str) -> ThresholdPoint:
        enough = frozenset(LEVELS[LEVELS.index(severity) :])
        taken = [
            a for a in self.alerts
            if a.live and a.core() and any(r.severity in enough and r.mode == "alert" for r in a.revisions)
        ]  # fmt: skip
        right = [a for a in taken if _majority(a.core(), self.abusive)]
        found = sum(
            any(a.kind == "campaign" and _majority(a.core(), m) for a in taken) for m in self.campaigns.values()
        )
        return ThresholdPoint(severity, len(taken), len(right), _ratio(len(right), len(taken)), found)

    def _timeline(self, name: str, bins: int = 60) -> dict[str, Any]:
        """The campaign's requests over the log in ``bins``, and those sent by accounts already named."""
        log, members = self.log, self.campaigns[name]
        start, end = float(log.at.min()), float(log.at.max()) + 1e-6
        edges = np.linspace(start, end, bins + 1)
        sent, stopped = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
        for account in members:
            i = self.row.get(account)
            if i is not None:
                at, each = (x[log.start[i] : log.start[i + 1]] for x in (log.at, self.weight))
                theft = at >= self.truth[account].first_ts
                after = theft & (at >= self.named.get(account, np.inf))
                sent += np.histogram(at[theft], edges, weights=each[theft])[0].astype(np.int64)
                stopped += np.histogram(at[after], edges, weights=each[after])[0].astype(np.int64)
        named = sorted(self.named[m] for m in members if m in self.named)
        return {"start": start, "end": end, "sent": sent.tolist(), "named": stopped.tolist(), "named_at": named}


def _mostly(core: Sequence[str], truth: dict[str, Truth]) -> str:
    named = (truth.get(a) for a in core)
    honest = Counter(t.scenario if t else "background" for t in named if t is None or not t.abusive)
    return min(honest, key=lambda s: (-honest[s], s)) if honest else "background"


def rate(count: int, account_days: int, days: float) -> Rate:
    """``count`` false alarms in so many honest account-days and days of log, as rates with their upper bounds."""
    upper, weeks, millions = poisson_upper(count), days / 7, max(account_days, 1) / 1e6
    return Rate(count, count / millions, upper / millions, count / weeks, upper / weeks)


def evaluate(alerts: Iterable[Revision], truth: Iterable[Truth], log: Ledger) -> Evaluation:
    """Score alerts (all revisions, any order) of a log with its truth."""
    return _Scorer(alerts, truth, log).run()
