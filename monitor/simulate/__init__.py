"""Request logs with known truth: populations, disclosed campaigns at their real per-account rates, look-alikes.

::

    scenario (YAML) ─▶ population ─▶ arrivals ─▶ rows ─▶ log ─▶ NDJSON, Kafka
                        who, links    when       what    contract 1
                        └──────────────────────▶ daily: account-days and their links, without requests

``world.Simulator`` is the whole of it; ``api.simulate`` writes files; ``daily.daily_rows`` makes what a week of a
million accounts shows to a linker. It knows the contracts and nothing of
the detectors: what they look at must not leak into what it makes.
"""

from .scenario import Scenario, evade, find, json_schema, shipped
from .world import Chunk, Simulator

__all__ = ["Chunk", "Scenario", "Simulator", "evade", "find", "json_schema", "shipped"]
