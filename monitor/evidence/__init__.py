"""What is shown and handed on about a case: pages, plots, signed bundles, STIX. Pure functions; no server, no clock.

Everything works from contract 2's alerts alone, so that a file of a backtest serves as well as Redis.
"""

from __future__ import annotations

from .bundle import SCHEMA, CaseEvent, RuleNote, build
from .page import render
from .seal import Key, Verdict, seal, verify
from .stix import Redaction, export

__all__ = [
    "SCHEMA",
    "CaseEvent",
    "Key",
    "Redaction",
    "RuleNote",
    "Verdict",
    "build",
    "export",
    "render",
    "seal",
    "verify",
]
