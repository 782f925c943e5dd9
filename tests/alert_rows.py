"""Rules, policies and rows for the tests of alerts: small, and by hand, so that expectations can be read off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from hypothesis import strategies as st

from monitor.alerts import AlertOptions, AlertStage, Lookups
from monitor.records import FIRING_SCHEMA, Alert, Policy

POLICY = Policy(
    roots={
        "identity": ("linkage", "client"),
        "behaviour": ("timing", "history", "pivot", "volume"),
        "content": ("template", "corpus", "shape", "content"),
        "exact": ("replay", "intel"),
    },
    never_high=("anomaly", "classifier", "volume", "geography"),
    attested=("linkage", "payment_fp", "account_age_days"),
    exact=("replay", "intel"),
)


@dataclass(frozen=True)
class Rule:
    """The attributes that the stage reads of a compiled rule."""

    severity: str = "medium"
    families: tuple[str, ...] = ("timing",)
    mode: str = "alert"
    hypothesis: str = "distillation"
    confidence: float = 0.5
    cooldown_s: int = 600
    evidence: tuple[str, ...] = ("regularity_1h",)
    features: tuple[str, ...] = ("regularity_1h",)
    raw_fields: tuple[str, ...] = ("ts",)
    params: Mapping[str, float] = field(default_factory=lambda: {"regularity": 0.9})


RULES: dict[str, Rule] = {
    "timing.metronome": Rule(),
    "template.sweep": Rule("high", ("template",), confidence=0.6, evidence=("template_24h", "template_vs_past"),
                           features=("template_24h",), params={"share": 0.8}, cooldown_s=1_200),
    "volume.flood": Rule("critical", ("volume",), hypothesis="automation", evidence=("requests_1h",), features=()),
    "client.trial": Rule("high", ("client",), mode="shadow", hypothesis="resale", evidence=(), features=()),
}  # fmt: skip

COLUMNS = {
    "subject": pl.String(), "partition": pl.Int32(), "tick": pl.Int64(), "t_ms": pl.Int64(), "client_class": pl.UInt8(),
    "regularity_1h": pl.Float64(), "template_24h": pl.Float64(), "template_vs_past": pl.Float64(),
    "template_past": pl.Float64(), "requests_1h": pl.Float64(),
    "total_requests": pl.Int64(), "total_input_tokens": pl.Int64(), "total_output_tokens": pl.Int64(),
    "total_reasoning_tokens": pl.Int64(), "total_cost_microusd": pl.Int64(),
}  # fmt: skip

Row = tuple[str, int, Sequence[str]]
"""(subject, tick, rules that fire)."""

SUBJECTS = ["a-1", "a-2", "b-10"]
TICK_MS = 10_000

row = st.tuples(
    st.sampled_from(SUBJECTS),
    st.integers(0, 500),
    st.lists(st.sampled_from(sorted(RULES)), max_size=3, unique=True),
)
history = st.lists(row, min_size=1, max_size=60, unique_by=lambda r: r[:2])


def part(subject: str) -> int:
    """The partition of a test subject."""
    return len(subject) % 2 + 3


def frames(rows: Iterable[Row], **columns: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Feature frame and firings: values are functions of subject and tick, so that any split gives the same."""
    ordered = sorted(rows, key=lambda r: (r[0], r[1]))
    data: list[dict[str, Any]] = []
    fired: list[tuple[int, str]] = []
    for index, (subject, tick, rules) in enumerate(ordered):
        data.append(
            {
                "subject": subject, "partition": part(subject), "tick": tick, "t_ms": tick * 10_000 + 7_000,
                "client_class": 2, "regularity_1h": (tick % 10) / 10, "template_24h": 0.9, "template_vs_past": 0.25,
                "template_past": 0.65, "requests_1h": float(tick), "total_requests": 100 + tick,
                "total_input_tokens": 1_000 * tick, "total_output_tokens": 10 * tick, "total_reasoning_tokens": None,
                "total_cost_microusd": 1_500_000 + tick, **columns,
            }
        )  # fmt: skip
        fired += [(index, rule) for rule in rules]
    return (
        pl.DataFrame(data, schema=COLUMNS),
        pl.DataFrame(fired, schema=pl.Schema(FIRING_SCHEMA), orient="row"),
    )


def an_alert(n: int = 0, revision: int = 1, **changes: Any) -> Alert:
    """A valid alert about account ``a-<n>``."""
    values: dict[str, Any] = {
        "alert_id": f"{n:032x}", "revision": revision, "revised_at": 1_000.0 + n + revision, "state": "open",
        "kind": "account", "subject": f"a-{n}", "subject_type": "account", "accounts": [f"a-{n}"], "members": {},
        "hypothesis": "distillation", "hypotheses": {"distillation": 0.5}, "severity": "medium", "score": None,
        "expected_false_per_week": None, "uncalibrated": True, "mode": "alert", "families": ["timing"],
        "rules": ["timing.metronome"], "window": {"start": 990.0, "end": 1_000.0}, "raised_at": 1_000.0,
        "exposure": {"requests": 5, "cost_usd": 0.25, "models": ["m-1"]}, "exemplars": ["r-1"],
        "evidence": {"features": {"regularity_1h": {"value": 0.95, "baseline": None, "quantile": None}}},
        "versions": {"monitor": "0.1.0"},
    }  # fmt: skip
    return Alert(**{**values, **changes})


def watched() -> AlertStage:
    """A stage whose look-ups tell what they were asked."""
    return AlertStage(
        POLICY,
        RULES,
        AlertOptions(revise_s=900, ledger_s=2_000, versions={"monitor": "x"}),
        Lookups(
            exemplars=lambda partition, subject, until_ms: [f"{subject}@{until_ms}"],
            models=lambda partition, subject, until_ms: [f"m-{until_ms % 7}"],
        ),
    )
