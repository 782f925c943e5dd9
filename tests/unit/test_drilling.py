"""A drill's round is judged by where the pipeline stands, also after the last record that came."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry

from monitor.drilling import Drill, DrillTelemetry, Plan, _Round
from monitor.records import RawBatch
from monitor.sketch import Keyring, Sketcher


def test_a_round_ends_when_its_time_is_judged_though_nothing_comes() -> None:
    """The pipeline is behind what is read: a topic that falls silent left the round open for good."""
    plan = Plan(within_s=3600.0, rounds=1)
    drill = Drill(plan, Sketcher(Keyring.from_seed(1)), DrillTelemetry(CollectorRegistry()), grace_s=10.0)
    nothing = RawBatch([], np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64), {})
    drill._round, drill.now, drill.judged = _Round(0.0, 3600.0, frozenset({"a"}), []), 3700.0, lambda: 3000.0
    source: object = None  # nobody asks it while nothing comes
    assert drill.lay(nothing, source) is nothing  # type: ignore[arg-type]
    assert not drill.over
    drill.judged = lambda: 3700.0
    drill.lay(nothing, source)  # type: ignore[arg-type]
    assert drill.over
    assert drill.results[0].after_s is None
