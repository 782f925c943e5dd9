"""What runs around the pipeline: health and metrics over HTTP, logs, signals, systemd. Knows no stage.

This package may read the wall clock: it talks to people and to process managers, never to a detector.
"""

from __future__ import annotations

from .health import Check, Health
from .http import HttpService
from .logs import configure_logging, fields
from .registry import process_registry
from .signals import Signals
from .systemd import Systemd

__all__ = ["Check", "Health", "HttpService", "Signals", "Systemd", "configure_logging", "fields", "process_registry"]
