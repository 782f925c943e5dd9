"""From an episode to the alert that contract 2 describes. Keeps nothing, decides nothing about when."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from monitor.alerts.episodes import Episode, Held, alert_id
from monitor.alerts.evidence import measure
from monitor.alerts.options import AlertOptions, Lookups
from monitor.alerts.severity import roots_of, severity
from monitor.fields import HYPOTHESES
from monitor.records import Alert, Member, Policy

_HASH = re.compile(r"[0-9a-f]{16}")


def severity_of(episode: Episode, policy: Policy, options: AlertOptions) -> str:
    """What the rules of the episode carry together."""
    return severity(
        [held.severity for held in episode.rules.values()],
        episode.families,
        {fact for held in episode.rules.values() for fact in held.facts},
        policy,
        lone=True,
        calibrated=options.calibrated,
    )


def combined(rules: Iterable[Held]) -> dict[str, float]:
    """Confidence in each hypothesis: noisy-or over the rules that speak for it, 0 where none does."""
    doubt = dict.fromkeys(HYPOTHESES, 1.0)
    for held in rules:  # the caller's order is that of rule ids, so the product has one value
        doubt[held.hypothesis] *= 1.0 - held.confidence
    return {name: round(1.0 - rest, 6) for name, rest in doubt.items()}


def exposure(totals: list[int | None], models: list[str]) -> dict[str, Any]:
    """Running totals of the subject; null where the log does not say."""
    requests, input_tokens, output_tokens, reasoning_tokens, cost = totals
    return {
        "requests": requests,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "reasoning_tokens": reasoning_tokens,
        "cost_usd": None if cost is None else cost / 1_000_000,
        "models": models,
    }


def compose(
    episode: Episode,
    partition: int,
    now_ms: int,
    measured: Mapping[str, Any],
    shown: Iterable[str],
    policy: Policy,
    versions: Mapping[str, str],
    options: AlertOptions,
    lookups: Lookups,
) -> Alert:
    """The next revision at ``now_ms``. ``measured`` is the row's values, ``shown`` the features of rules firing in it.

    Entries of rules that do not fire in this row stay as they were last written: they are what was true then.
    """
    last = episode.written
    until_ms = (episode.last_tick + 1) * options.tick_ms
    families = episode.families
    hypotheses = combined(episode.rules[name] for name in sorted(episode.rules))
    entries: dict[str, Any] = dict(last.evidence["features"]) if last is not None else {}
    client_class = measured.get("client_class")
    for feature in shown:
        entries[feature] = measure(measured, partition, feature, client_class, lookups.quantile)
    accounts = _accounts(episode.subject, options.subject_type)
    member = Member(tier="core", membership=1.0, roots=roots_of(families, policy))
    return Alert(
        alert_id=alert_id(episode.mode, options.subject_type, episode.subject, episode.start_tick * options.tick_ms),
        revision=last.revision + 1 if last is not None else 1,
        revised_at=now_ms / 1_000,
        state="open",
        kind="account",
        subject=episode.subject,
        subject_type=options.subject_type,
        accounts=accounts,
        members=dict.fromkeys(accounts, member),
        hypothesis=max(HYPOTHESES, key=lambda name: hypotheses[name]) if any(hypotheses.values()) else "unknown",
        hypotheses=hypotheses,
        severity=severity_of(episode, policy, options),
        score=None,
        expected_false_per_week=None,
        uncalibrated=not options.calibrated,
        mode=episode.mode,
        families=families,
        rules=sorted(episode.rules),
        window=_window(episode, options.tick_ms),
        raised_at=episode.raised_ms / 1_000,
        exposure=exposure(episode.exposure, sorted(set(lookups.models(partition, episode.subject, until_ms)))),
        exemplars=list(lookups.exemplars(partition, episode.subject, until_ms))[: options.exemplars_max],
        evidence={
            "features": dict(sorted(entries.items())),
            "thresholds": {name: dict(episode.rules[name].thresholds) for name in sorted(episode.rules)},
            "score_basis": "declared",
            "not_known": sorted(name for name, entry in entries.items() if entry["value"] is None),
        },
        versions=dict(versions),
    )


def refreshed(episode: Episode, now_ms: int, tick_ms: int, **changes: Any) -> Alert:
    """The last revision carried on to ``now_ms`` without asking anybody: totals and window as they are now."""
    last = episode.written
    assert last is not None
    return msgspec.structs.replace(
        last,
        revision=last.revision + 1,
        revised_at=now_ms / 1_000,
        window=_window(episode, tick_ms),
        exposure=exposure(episode.exposure, last.exposure["models"]),
        **changes,
    )


def same_content(one: Alert, other: Alert) -> bool:
    """Whether a reader would learn nothing from the second."""
    return msgspec.structs.replace(one, revision=other.revision, revised_at=other.revised_at) == other


def _window(episode: Episode, tick_ms: int) -> dict[str, float]:
    return {"start": episode.start_tick * tick_ms / 1_000, "end": (episode.last_tick + 1) * tick_ms / 1_000}


def _accounts(subject: str, subject_type: str) -> list[str]:
    """Accounts that the subject names; an org's or a project's are not known here."""
    if subject_type == "account+end_user":
        # account, colon, the end user's keyed hash; the account alone where no end user was told
        account, colon, user = subject.rpartition(":")
        return [account if colon and _HASH.fullmatch(user) else subject]
    return [subject] if subject_type == "account" else []


def confidence(value: float) -> float:
    """A declared confidence, held to 0 to 1."""
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
