"""What the campaign stage is told, and what it asks of its surroundings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CampaignOptions:
    """Times are of event time. ``margin_bits``: surprise over log2 of the pairs looked at; 8 bits are one edge by
    chance in 256 rebuilds. ``rebuild_s`` is the longest time between two rebuilds, ``growth`` the share of new links
    that brings one forward (up to five times as much where there are more than 100,000). ``least_tenants`` unrelated
    tenants make a candidate.
    ``shipped_calibration``: groups of simulated honest traffic stand in for live ones until there are enough."""

    step_s: int = 600
    rebuild_s: int = 3_600
    growth: float = 0.05
    link_days: float = 30.0
    margin_bits: float = 8.0
    least_tenants: int = 3
    calibration_groups: int = 2_000
    shipped_calibration: bool = True
    least_calibration: int = 40
    """Calibration groups without which a rank says nothing: the finest rank of 40 is 0.976."""


@dataclass(frozen=True, slots=True)
class KnownCorpus:
    """A known corpus: its name and how many items it has."""

    name: str
    items: int


class Facts(Protocol):
    """What the provider said beside the log, as of a time in ms."""

    def product_seen_ms(self, account: str, at_ms: int) -> int | None:
        """Last first-party telemetry of an account; None: never."""

    def knows(self, kind: str) -> bool:
        """Whether events of this kind exist at all: without them nothing can be missing."""

    def banned_ms(self, account: str, at_ms: int) -> int | None:
        """When the account was banned."""

    def agreed(self, at_ms: int) -> Collection[str]:
        """Accounts and organisations whose use is sanctioned."""


class NoFacts:
    """Nothing is known."""

    def product_seen_ms(self, account: str, at_ms: int) -> int | None:
        """Never."""
        return None

    def knows(self, kind: str) -> bool:
        """No."""
        return False

    def banned_ms(self, account: str, at_ms: int) -> int | None:
        """Never."""
        return None

    def agreed(self, at_ms: int) -> Collection[str]:
        """Nobody."""
        return ()
