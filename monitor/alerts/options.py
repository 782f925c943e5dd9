"""What the alert stage is given: options, lookups, and what it reads of a rule. Holds no state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Lookup = Callable[[int, str, int], Sequence[str]]
"""(partition, subject, until_ms) -> strings the provider gave, as known of events before ``until_ms``."""
Quantile = Callable[[int, str, int | None, float], float | None]
"""(partition, feature, client class, value) -> its quantile among benign rows of that class, None: not known."""


class Detection(Protocol):
    """What the stage reads of a rule; the rule compiler's own type has more."""

    @property
    def severity(self) -> str:
        """One of ``fields.SEVERITIES``."""

    @property
    def mode(self) -> str:
        """``alert`` or ``shadow``."""

    @property
    def families(self) -> Iterable[str]:
        """Families of evidence that its condition reads."""

    @property
    def hypothesis(self) -> str:
        """One of ``fields.HYPOTHESES``."""

    @property
    def confidence(self) -> float:
        """Declared, 0 to 1."""

    @property
    def cooldown_s(self) -> int:
        """Seconds of silence that end an episode."""

    @property
    def evidence(self) -> Iterable[str]:
        """Features to show."""

    @property
    def features(self) -> Iterable[str]:
        """Features that its condition reads."""

    @property
    def raw_fields(self) -> Iterable[str]:
        """Contract fields behind those features."""

    @property
    def params(self) -> Mapping[str, Any]:
        """Thresholds by name."""


def _nothing(partition: int, subject: str, until_ms: int) -> Sequence[str]:
    return ()


def _unknown(partition: int, feature: str, client_class: int | None, value: float) -> float | None:
    return None


@dataclass(frozen=True, slots=True)
class Lookups:
    """What the rows do not carry: exemplary request ids, models used, quantiles; all by injected callables."""

    exemplars: Lookup = _nothing
    models: Lookup = _nothing
    quantile: Quantile = _unknown


@dataclass(frozen=True, slots=True)
class AlertOptions:
    """Ticks, revisions and ledger in event time; ``calibrated`` lifts the cap on alerts about a lone account.

    ``ledger_s``: how long a closed alert stays in the state, so that it can be written again where a sink lost
    its data.
    """

    tick_ms: int = 10_000
    subject_type: str = "account"
    revise_s: int = 3_600
    exemplars_max: int = 40
    ledger_s: int = 86_400
    calibrated: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
