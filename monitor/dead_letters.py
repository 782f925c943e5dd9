"""Where the runner hands over what was no request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from monitor.records import Reject


class DeadLetterBox(Protocol):
    """Where rejects go."""

    def put(self, rejects: Sequence[Reject]) -> None:
        """Hand rejects over."""

    def flush(self) -> None:
        """Return when they are acknowledged; SinkBusy where they are not."""


class NoDeadLetters:
    """Rejects are counted only: a demo without a topic for them."""

    def put(self, rejects: Sequence[Reject]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""
