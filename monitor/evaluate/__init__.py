"""Scores alerts against truth, and runs the suites that make both. Knows the contracts, not the detectors.

======================  =====================================================================
``inputs``              alerts (contract 2), truth (contract 4) and the log's ledger from files
``score``               what was found, when, what leaked, who was wrongly accused
``bounds``              exact 95 % upper bounds
``report``, ``plots``   table, JSON, one HTML page
``baselines``           known detectors, written from their papers, on the same logs
``ablation``            logs with fields taken away
``fairness``            logs renamed and moved, on which nothing may change
``semireal``            worlds with text and timing from files, a source at a time
``suite``, ``drill``    simulate, run what is given, score
``nightly``             daily account rows of a million accounts to a linker, and its score
``suite_report``        a suite's tables and page
======================  =====================================================================
"""

from .inputs import Ledger, read_alerts, read_log, read_truth
from .score import Evaluation, evaluate

__all__ = ["Evaluation", "Ledger", "evaluate", "read_alerts", "read_log", "read_truth"]
