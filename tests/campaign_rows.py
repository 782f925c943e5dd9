"""Alerts about a campaign and an account with all the evidence that contract 2 allows."""

from __future__ import annotations

import hashlib
from typing import Any

from alert_rows import an_alert

from monitor.records import Alert, Member

START = 1_767_600_000.0
HOUR = 3_600.0
LINKS = (("payment", True), ("egress", False), ("ja4", False), ("template", False), ("creation", True), ("blob", True))
TESTS = (("own_history", "history", 0.9991), ("residual_shape", "shape", 0.97), ("template", "template", 0.9999))
VERSIONS = {"monitor": "0.1.0", "rules": "4782f6cd33f33d56", "model": "none", "config": "6b81c875bd410189"}


def accounts(count: int) -> list[str]:
    """Ids as a provider gives them."""
    return [f"acct_{hashlib.sha256(b'%d' % i).hexdigest()[:8]}" for i in range(count)]


def campaign(revision: int = 1, size: int = 40, **changes: Any) -> Alert:
    """Revision of one growing campaign: a third of it core; severity rises with the third revision."""
    names = accounts(size)
    core = names[: max(size // 3, 1)]
    members = {
        name: Member("core" if i < len(core) else "likely" if i < 2 * len(core) else "peripheral",
                     round(1 - i / (2 * size), 4), ["identity", "content"] if i < len(core) else ["identity"])
        for i, name in enumerate(names)
    }  # fmt: skip
    now = START + revision * 6 * HOUR
    values: dict[str, Any] = {
        "alert_id": f"{0xC0FFEE:032x}", "revised_at": now, "kind": "campaign", "subject": "camp-7f3a",
        "subject_type": "campaign", "accounts": core, "members": members, "hypothesis": "distillation",
        "hypotheses": {"distillation": 0.93, "resale": 0.12, "account_farm": 0.44, "unknown": 0.0},
        "severity": "high" if revision >= 3 else "medium", "families": ["linkage", "template", "history"],
        "rules": ["trace-harvest", "campaign-of-yesterday"], "window": {"start": START, "end": now},
        "raised_at": START + 2 * HOUR, "exemplars": [f"req_{revision}_{i}" for i in range(6)],
        "exposure": {"requests": 900 * revision, "input_tokens": 10_000, "output_tokens": 90_000 * revision,
                     "reasoning_tokens": None, "cost_usd": 2.5 * revision, "models": ["m-large", "m-small"]},
        "evidence": {
            "features": {
                "requests_24h": {"value": 26.0, "baseline": 4.0, "quantile": 0.71, "vs_past": 1.9},
                "template_concentration_24h": {"value": 0.93, "baseline": 0.2, "quantile": 0.999},
                "follow_up_share_24h": {"value": 0.0, "baseline": 0.4, "quantile": 0.02},
                "reasoning_elicitation_share_24h": {"value": None, "baseline": None, "quantile": None},
            },
            "thresholds": {"trace-harvest": {"elicitation": 0.3, "hours": 16}},
            "links": [
                {"kind": kind, "value": hashlib.sha256(kind.encode()).hexdigest()[:16], "accounts": 5 + i,
                 "population": 40 * (i + 1), "rarity": 12.5 - i, "attested": attested}
                for i, (kind, attested) in enumerate(LINKS)
            ],
            "tests": {
                name: {"family": family, "value": 0.8, "baseline": 0.1, "quantile": q, "p": round(1 - q, 4),
                       "holds": q > 0.99}
                for name, family, q in TESTS
            },
            "counterfactual": [{"change": "without the payment link", "severity": "medium"}],
            "history": [{"at": START + HOUR * i, "members": min(size, 4 + 3 * i), "core": min(len(core), i)}
                        for i in range(1, 6 * revision)],
            "not_known": ["reasoning_elicitation_share_24h"],
            "classifier": {"distillation": 0.91, "resale": 0.03},
            "score_basis": "declared",
        },
        "versions": VERSIONS,
    }  # fmt: skip
    return an_alert(0, revision, **{**values, **changes})


def lone(revision: int = 1, n: int = 1, **changes: Any) -> Alert:
    """Revision of an alert about one account, as the account rules make it."""
    now = START + revision * HOUR
    values: dict[str, Any] = {
        "revised_at": now, "window": {"start": START, "end": now}, "raised_at": START + 600.0,
        "rules": ["trace-harvest"], "families": ["content", "template"],
        "members": {f"a-{n}": Member("core", 1.0, ["content"])}, "exemplars": [f"req_{n}_{i}" for i in range(3)],
        "exposure": {"requests": 100 * revision, "output_tokens": 5_000 * revision, "cost_usd": 0.5, "models": ["m-1"]},
        "evidence": {
            "features": {
                "requests_24h": {"value": 26.0 + n, "baseline": None, "quantile": 0.7},
                "template_concentration_24h": {"value": 0.9, "baseline": None, "quantile": 0.99},
                "follow_up_share_24h": {"value": 0.1 * revision, "baseline": None, "quantile": min(0.1 * n, 1.0)},
            },
            "thresholds": {"trace-harvest": {"elicitation": 0.3}}, "score_basis": "declared", "not_known": [],
        },
        "versions": VERSIONS,
    }  # fmt: skip
    return an_alert(n, revision, **{**values, **changes})
