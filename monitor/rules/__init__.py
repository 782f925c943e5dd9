"""Detections as data: YAML rules with CEL conditions, compiled to Polars, tested, reloaded.

``load_rules`` gives a ``RuleSet``; its ``evaluate`` takes feature rows and a ``HoldState`` (one for all partitions of
this process) and gives firings. Imports no sibling: the catalogue of features is handed in.
"""

from .counterfactual import changes
from .hold import HoldState
from .infile import CaseResult, run_tests
from .load import content_hash, load_rules, packaged_rules
from .model import Evaluation, Rule, RuleSet
from .reload import Reload, Reloader
from .terms import Term, explain, shortfall

__all__ = [
    "CaseResult", "Evaluation", "HoldState", "Reload", "Reloader", "Rule", "RuleSet", "Term", "changes", "content_hash",
    "explain", "load_rules", "packaged_rules", "run_tests", "shortfall",
]  # fmt: skip
