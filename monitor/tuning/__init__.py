"""Rules over stored rows: a log is read once, and then every rule, and every value of a param, is tried on its rows.

Rows are kept as the rules saw them, so scores are those of the run that made them: an anomaly model leaves suspects
out, and other rules would suspect others. Everything after the rules is done anew.
"""

from .compare import Change, Comparison, compare
from .replay import Alone, Run, judged_alone, replay
from .rows import Rows, record
from .shadow import Shadow, statistics
from .sweep import Curve, Point, Sweep, parse_sweep, sweep
from .why import Looked, look, of_alert

__all__ = [
    "Alone", "Change", "Comparison", "Curve", "Looked", "Point", "Rows", "Run", "Shadow", "Sweep", "compare",
    "judged_alone", "look", "of_alert", "parse_sweep", "record", "replay", "statistics", "sweep",
]  # fmt: skip
