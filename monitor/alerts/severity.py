"""How severe the firing rules may make an alert. Knows no feature, no threshold: the policy is data.

A rule declares a severity; the policy caps what rests on too little. HIGH is the level that wakes somebody,
so it needs witnesses who can't be one and the same: families of two roots, and a fact that the client can't
choose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from monitor.fields import SEVERITIES
from monitor.records import Policy

_RANK = {name: rank for rank, name in enumerate(SEVERITIES)}


def rank(severity: str) -> int:
    """0 (info) to 4 (critical)."""
    return _RANK[severity]


def roots_of(families: Collection[str], policy: Policy) -> list[str]:
    """Roots that the families belong to, sorted; families that read everything have none."""
    return sorted(root for root, members in policy.roots.items() if any(f in members for f in families))


def severity(
    declared: Iterable[str], families: Collection[str], facts: Collection[str], policy: Policy, *, lone: bool,
    calibrated: bool,
) -> str:  # fmt: skip
    """The highest declared severity that the evidence carries.

    ``facts`` are the features and contract fields behind the evidence that are known (not null). ``lone`` is
    an alert on one account: capped by ``policy.account_cap`` until its false positives are ``calibrated``.
    """
    level = max(map(rank, declared))
    if all(family == "volume" for family in families):
        level = min(level, rank(policy.volume_cap))
    if level >= rank("high") and not _carries_high(families, facts, policy):
        level = rank("medium")
    if lone and not calibrated:
        level = min(level, rank(policy.account_cap))
    return SEVERITIES[level]


def _carries_high(families: Collection[str], facts: Collection[str], policy: Policy) -> bool:
    counting = [family for family in families if family not in policy.never_high]
    if len(roots_of(counting, policy)) < policy.min_roots:
        return False
    exact = any(family in policy.exact for family in counting)
    return exact or any(name in policy.attested for name in (*counting, *facts))
