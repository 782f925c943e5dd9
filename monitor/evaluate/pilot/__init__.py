"""The pilot's multi-tenant protocol: what tests on text are worth where every customer is different.

Public prompts carry no account, so tenants are composed of them; read every figure as semi-real.
"""

from . import report
from .protocol import PilotReport, Plan, run_pilot

__all__ = ["PilotReport", "Plan", "report", "run_pilot"]
