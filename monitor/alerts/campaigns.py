"""From rules that hold of a candidate to the campaign's alert: one alert a campaign, revised sparingly.

The alert opens when a rule first fires, and its id is a hash of the campaign's. It is written again when its severity
rises, a rule joins, the core grows (by one, a large one by a fiftieth), or after ``revise_s`` with another core; when
rules are silent for their longest ``cooldown`` it closes; when its campaign merges into an older one it says so and
ends. Reads no clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from monitor.alerts.compose import combined, confidence, same_content
from monitor.alerts.episodes import Held
from monitor.alerts.evidence import number
from monitor.alerts.options import AlertOptions, Detection
from monitor.alerts.severity import rank, roots_of, severity
from monitor.errors import MonitorError
from monitor.fields import HYPOTHESES, SEVERITIES
from monitor.records import Alert, Member, Policy

STATE_VERSION = 1
CALIBRATED_FROM = 100
"""Calibration groups without which a rank cannot reach 0.99: the alert then says ``uncalibrated``."""


_GROWN = 0.02
"""New core members, as a share of those named, that are worth a revision at once."""


class MemberLike(Protocol):
    """What is read of a member."""

    @property
    def account(self) -> str: ...  # noqa: D102
    @property
    def tier(self) -> str: ...  # noqa: D102
    @property
    def membership(self) -> float: ...  # noqa: D102
    @property
    def families(self) -> Sequence[str]: ...  # noqa: D102


class FindingsLike(Protocol):
    """What is read of a candidate's findings."""

    @property
    def members(self) -> Sequence[MemberLike]: ...  # noqa: D102
    @property
    def links(self) -> Sequence[Mapping[str, Any]]: ...  # noqa: D102
    @property
    def exposure(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def exemplars(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def start_ms(self) -> int: ...  # noqa: D102
    @property
    def history(self) -> Sequence[tuple[int, int, int]]: ...  # noqa: D102
    @property
    def corpus(self) -> Mapping[str, Any] | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate of a step: its id, statistics, the rules that fired, and what was found."""

    campaign: str
    values: Mapping[str, Any]
    fired: Sequence[str]
    findings: FindingsLike
    what_if: Callable[[Callable[[Sequence[str]], int]], list[dict[str, Any]]] = lambda level: []
    """Given what rules that still fire would carry, the nearest changes that weaken the alert."""


class _Open(msgspec.Struct):
    campaign: str
    mode: str
    begun_ms: int
    fired_ms: int
    rules: dict[str, Held]
    written: Alert | None = None
    asked_ms: int = -1
    """When the rules were last asked what would weaken the alert."""


class _State(msgspec.Struct):
    version: int
    muted_until_ms: int
    open: list[_Open]
    closed: list[Alert]
    unsuspected: int = 0


class CampaignAlerts:
    """Open campaign alerts and the last revisions of closed ones. ``ranks``: rank column -> statistic it ranks."""

    def __init__(
        self, policy: Policy, rules: Mapping[str, Detection], options: AlertOptions, step_ms: int,
        ranks: Mapping[str, str],
    ):  # fmt: skip
        self._options, self._step_ms, self._ranks = options, step_ms, dict(ranks)
        self._open: dict[tuple[str, str], _Open] = {}
        self._closed: list[Alert] = []
        self._muted_ms = 0
        self._unsuspected = 0
        self.use(policy, rules, options.versions)

    def use(self, policy: Policy, rules: Mapping[str, Detection], versions: Mapping[str, str]) -> None:
        """Take another rulebook. Open alerts keep what their rules said."""
        self._policy, self._rules, self._versions = policy, rules, dict(versions)

    def decide(
        self, judged: Iterable[Judged], merged: Sequence[tuple[str, str]], at_ms: int, whole: bool = True
    ) -> list[Alert]:
        """Alerts and revisions of one step, whose event time ends at ``at_ms``; ``whole``: all candidates are there."""
        alerts: list[Alert] = []
        for gone, into in merged:
            for mode in ("alert", "shadow"):
                alerts += self._merge((gone, mode), (into, mode), at_ms)
        candidates = list(judged)
        if whole and candidates:
            self._unsuspected = sum(not c.fired for c in candidates)
        for candidate in candidates:
            for mode in ("alert", "shadow"):
                fired = [r for r in candidate.fired if self._rules[r].mode == mode]
                if fired or (candidate.campaign, mode) in self._open:
                    alerts += self._step(candidate, mode, fired, at_ms)
        alerts += self._settle(at_ms)
        return sorted(alerts, key=lambda a: (a.revised_at, a.subject, a.mode, a.revision))

    def suspects(self) -> set[str]:
        """Core and likely members of open alerts of medium or more: nothing learns from them."""
        written = [o.written for o in self._open.values() if o.mode == "alert" and o.written is not None]
        return {
            account
            for alert in written
            if rank(alert.severity) >= rank("medium")
            for account, member in alert.members.items()
            if member.tier != "peripheral"
        }

    def open_alerts(self) -> list[Alert]:
        """Open alerts of mode ``alert``, as last written."""
        held = [o.written for o in self._open.values() if o.mode == "alert"]
        return [a for a in held if a is not None and a.revision]

    def mute(self, until_ms: int) -> None:
        """Write nothing before this event time; what is still open then is written then."""
        self._muted_ms = until_ms

    def ledger(self) -> list[Alert]:
        """Last revisions of what is open or was closed lately: to write again where a sink lost its data."""
        return [o.written for o in self._open.values() if o.written is not None and o.written.revision] + self._closed

    def forget(self) -> None:
        """Drop everything: another process has it."""
        self._open, self._closed, self._unsuspected = {}, [], 0

    def dump(self) -> bytes:
        """The state, in an order of its own."""
        held = [self._open[key] for key in sorted(self._open)]
        closed = sorted(self._closed, key=lambda a: (a.revised_at, a.alert_id))
        return msgspec.msgpack.encode(_State(STATE_VERSION, self._muted_ms, held, closed, self._unsuspected))

    def load(self, blob: bytes) -> None:
        """Replace the state. Raises MonitorError for another version."""
        state = msgspec.msgpack.decode(blob, type=_State)
        if state.version != STATE_VERSION:
            raise MonitorError(f"campaign alert state has version {state.version}, not {STATE_VERSION}: start afresh")
        self._open = {(o.campaign, o.mode): o for o in state.open}
        self._closed, self._muted_ms = state.closed, state.muted_until_ms
        self._unsuspected = state.unsuspected

    # -------------------------------------------------------------------------------------------------- inside

    def _step(self, c: Judged, mode: str, fired: Sequence[str], at_ms: int) -> list[Alert]:
        held = self._open.setdefault((c.campaign, mode), _Open(c.campaign, mode, at_ms, at_ms, {}))
        if fired:
            held.fired_ms = at_ms
        for name in fired:
            held.rules[name] = self._held(name, c.values)
        if not held.rules or not fired:
            return []
        alert = self._compose(held, c, at_ms)
        if at_ms >= self._muted_ms and not self._worth_writing(held.written, alert, at_ms):
            return []
        # only now, and not for a further member: asking the rules what would weaken it takes ten milliseconds
        if self._asks_again(held, alert, at_ms):
            alert.evidence["counterfactual"] = self._what_if(held, c, not alert.uncalibrated)
            held.asked_ms = at_ms
        if at_ms < self._muted_ms:
            held.written = msgspec.structs.replace(alert, revision=0)
            return []
        held.written = alert
        return [alert]

    def _held(self, name: str, values: Mapping[str, Any]) -> Held:
        rule = self._rules[name]
        known = {f for f in (*rule.features, *rule.evidence) if values.get(f) is not None}
        fields = rule.raw_fields if known.issuperset(rule.features) else ()
        return Held(
            severity=rule.severity, families=sorted(rule.families), hypothesis=rule.hypothesis,
            confidence=confidence(rule.confidence), cooldown_s=rule.cooldown_s, facts=sorted({*known, *fields}),
            thresholds=dict(rule.params),
        )  # fmt: skip

    def _worth_writing(self, last: Alert | None, alert: Alert, at_ms: int) -> bool:
        if last is None or last.revision == 0:
            return True
        if rank(alert.severity) > rank(last.severity) or set(alert.rules) - set(last.rules):
            return True
        # a core member who is not named goes on: each one counts until the core is large
        if len(set(alert.accounts) - set(last.accounts)) >= max(1.0, _GROWN * len(last.accounts)):
            return True
        waited = at_ms - round(last.revised_at * 1_000) >= self._options.revise_s * 1_000
        return waited and not same_content(last, alert)

    def _asks_again(self, held: _Open, alert: Alert, at_ms: int) -> bool:
        """Whether what would weaken the alert may be another than the last revision says: other rules, another
        severity, or older than ``revise_s``."""
        last = held.written
        old = at_ms - held.asked_ms >= self._options.revise_s * 1_000
        return last is None or old or (alert.rules, alert.severity) != (last.rules, last.severity)

    def _compose(self, held: _Open, c: Judged, at_ms: int) -> Alert:
        last = held.written
        rules = [held.rules[name] for name in sorted(held.rules)]
        families = sorted({family for rule in rules for family in rule.families})
        groups = c.values.get("calibration_groups") or 0
        calibrated = groups >= CALIBRATED_FROM
        level = self._level(rules, calibrated)
        hypotheses = combined(rules)
        core = [m.account for m in c.findings.members if m.tier == "core"]
        features = {f for name in held.rules for f in (*self._rules_evidence(name),)}
        # once for those who do alike: asked for each of 600,000 members it was a sixth of the campaign steps
        roots = {told: roots_of(told, self._policy) for told in {m.families for m in c.findings.members}}
        return Alert(
            alert_id=_alert_id(held), revision=last.revision + 1 if last is not None else 1, revised_at=at_ms / 1_000,
            state="open", kind="campaign", subject=held.campaign, subject_type="campaign", accounts=core,
            members={
                m.account: Member(tier=m.tier, membership=m.membership, roots=roots[m.families])
                for m in c.findings.members
            },
            hypothesis=max(HYPOTHESES, key=lambda h: hypotheses[h]) if any(hypotheses.values()) else "unknown",
            hypotheses=hypotheses, severity=level, score=None,
            expected_false_per_week=self._expected_false(c.values, groups) if calibrated else None,
            uncalibrated=not calibrated, mode=held.mode, families=families, rules=sorted(held.rules),
            window={"start": c.findings.start_ms / 1_000, "end": at_ms / 1_000},
            raised_at=last.raised_at if last is not None and last.revision else at_ms / 1_000,
            exposure=dict(c.findings.exposure), exemplars=list(c.findings.exemplars)[: self._options.exemplars_max],
            evidence=self._evidence(held, c, features), versions=dict(self._versions),
        )  # fmt: skip

    def _rules_evidence(self, name: str) -> Iterable[str]:
        rule = self._rules.get(name)
        return () if rule is None else (*rule.evidence, *rule.features)

    def _level(self, rules: Sequence[Held], calibrated: bool) -> str:
        """Severity that the rules carry together."""
        families = {family for rule in rules for family in rule.families}
        facts = {fact for rule in rules for fact in rule.facts}
        return severity([r.severity for r in rules], families, facts, self._policy, lone=not calibrated,
                        calibrated=calibrated)  # fmt: skip

    def _what_if(self, held: _Open, c: Judged, calibrated: bool) -> list[dict[str, Any]]:
        def level(fired: Sequence[str]) -> int:
            left = [held.rules[name] for name in fired if name in held.rules]
            return rank(self._level(left, calibrated)) if left else -1

        return [
            {**entry, "severity": SEVERITIES[entry["level"]] if entry["level"] >= 0 else None}
            for entry in c.what_if(level)
        ]

    def _evidence(self, held: _Open, c: Judged, features: set[str]) -> dict[str, Any]:
        values = c.values
        shown = sorted(f for f in features if f in values and f not in self._ranks)
        rank_of = {statistic: column for column, statistic in self._ranks.items()}
        entries = {
            f: {"value": number(values[f], f), "baseline": None,
                "quantile": number(values.get(rank_of.get(f, "")), f)} for f in shown
        }  # fmt: skip
        tests = {
            statistic: {"value": number(values.get(statistic), statistic), "quantile": number(values[column], column),
                        "groups": number(values.get("calibration_groups"), "calibration_groups"),
                        "shipped": number(values.get("calibration_shipped"), "calibration_shipped")}
            for column, statistic in sorted(self._ranks.items()) if values.get(column) is not None
        }  # fmt: skip
        return {
            "features": entries,
            "links": [dict(link) for link in c.findings.links],
            "tests": tests,
            **({"corpus": dict(c.findings.corpus)} if c.findings.corpus is not None else {}),
            "thresholds": {name: dict(held.rules[name].thresholds) for name in sorted(held.rules)},
            "history": [
                {"at": (step + 1) * self._step_ms / 1_000, "members": members, "core": core}
                for step, members, core in c.findings.history
            ],
            "counterfactual": held.written.evidence.get("counterfactual", []) if held.written is not None else [],
            "score_basis": "declared",
            "not_known": sorted(f for f in features if values.get(f) is None),
        }

    def _expected_false(self, values: Mapping[str, Any], groups: float) -> float | None:
        """Benign candidates as strong as this one in a week, if each is judged once a week: the smallest tail that a
        calibration of this size can show, times two for the two lanes, times the candidates nobody suspects."""
        found = [float(values[column]) for column in self._ranks if values.get(column) is not None]
        if not found:
            return None
        tail = max(1.0 - max(found), 1.0 / (groups + 1.0))
        return round(min(1.0, 2.0 * tail) * (self._unsuspected + 1), 6)

    def _merge(self, gone: tuple[str, str], into: tuple[str, str], at_ms: int) -> list[Alert]:
        held = self._open.pop(gone, None)
        if held is None or held.written is None or not held.written.revision:
            return []
        other = self._open.get(into)
        target = _alert_id(other) if other is not None else _alert_id(_Open(into[0], into[1], at_ms, at_ms, {}))
        last = msgspec.structs.replace(
            held.written, revision=held.written.revision + 1, revised_at=at_ms / 1_000, state="merged",
            merged_into=target,
        )  # fmt: skip
        self._closed.append(last)
        return [last]

    def _settle(self, at_ms: int) -> list[Alert]:
        """Close what has been silent, and write what was held back while muted."""
        alerts: list[Alert] = []
        for key, held in list(self._open.items()):
            if held.written is None:
                continue
            if held.written.revision == 0 and at_ms >= self._muted_ms and held.fired_ms == at_ms:
                held.written = msgspec.structs.replace(
                    held.written, revision=1, revised_at=at_ms / 1_000, raised_at=at_ms / 1_000
                )
                alerts.append(held.written)
            closes = held.fired_ms + 1_000 * max(r.cooldown_s for r in held.rules.values())
            if closes <= at_ms:
                del self._open[key]
                if held.written.revision:
                    last = msgspec.structs.replace(
                        held.written, revision=held.written.revision + 1, revised_at=closes / 1_000, state="closed"
                    )
                    self._closed.append(last)
                    alerts.append(last)
        oldest = at_ms / 1_000 - self._options.ledger_s
        self._closed = [a for a in self._closed if a.revised_at > oldest]
        return alerts


def _alert_id(held: _Open) -> str:
    """32 hex digits, a function of the campaign and the mode: what opens again after closing goes on under its id."""
    text = msgspec.json.encode(("campaign", held.mode, held.campaign))
    return hashlib.blake2b(text, digest_size=16).hexdigest()
