"""What the provider said beside the log (contract 5), ready to be joined to rows: as of each row's own time."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from monitor.context import ContextEvent, ContextState

_FOREVER_MS = 1 << 62


class Known:
    """Context events of any order. A fact counts for rows from its own event time on."""

    def __init__(self, subject_field: str = "account_id"):
        self.state = ContextState()
        self._subject_field = subject_field
        self._seen: list[tuple[str, int]] = []
        self._seen_frame: pl.DataFrame | None = None

    def take(self, events: Iterable[ContextEvent]) -> None:
        """Add events."""
        kept = list(events)
        self.state.apply(kept, _FOREVER_MS)
        news = [(e.account_id, e.ts_ms) for e in kept if e.type == "product_seen" and e.account_id]
        if news:
            self._seen += news
            self._seen_frame = None

    @property
    def product_seen(self) -> pl.DataFrame | None:
        """(subject, product_seen_ms), sorted by time; None where no such telemetry is known at all."""
        if not self._seen:
            return None
        if self._seen_frame is None:
            schema = {"subject": pl.String(), "product_seen_ms": pl.Int64()}
            self._seen_frame = pl.DataFrame(self._seen, schema=schema, orient="row").unique().sort("product_seen_ms")
        return self._seen_frame

    @property
    def fields(self) -> frozenset[str]:
        """What of the catalogue's needs the context feeds: ``context:`` and a type."""
        return frozenset(f"context:{kind}" for kind in self.state.known_types)

    def knows(self, kind: str) -> bool:
        """Whether events of a kind were told at all."""
        return kind in self.state.known_types

    def product_seen_ms(self, account: str, at_ms: int) -> int | None:
        """Last first-party telemetry of an account by ``at_ms``."""
        return self.state.last_ms("product_seen", account, at_ms)

    def banned_ms(self, account: str, at_ms: int) -> int | None:
        """When the account was banned, if it stands banned."""
        return self.state.banned_ms(account, at_ms)

    def agreed(self, at_ms: int) -> frozenset[str]:
        """Accounts and organisations with a sanctioned use in force."""
        return self.state.agreed(at_ms)

    def without_agreed(self, rows: pl.DataFrame, firings: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """``firings`` less those of subjects with a sanctioned use at the row's time; how many were left out."""
        if firings.is_empty() or "agreement" not in self.state.known_types:
            return firings, 0
        fired = rows[firings["row"]].select("subject", "t_ms")
        agreed = [bool(self.state.agreements_at(subject, None, t_ms)) for subject, t_ms in fired.iter_rows()]
        kept = firings.filter(~pl.Series(agreed, dtype=pl.Boolean))
        return kept, len(firings) - len(kept)
