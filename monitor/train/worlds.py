"""The simulated logs that the model which ships was trained on: `monitor train` makes them where none are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monitor.simulate import api, evade, find
from monitor.simulate.scenario import shipped

ACCOUNTS, DAYS, HEAVY_CAP = 500, 2.5, 200.0


@dataclass(frozen=True, slots=True)
class World:
    """A seed (the suites of `monitor evaluate` use 1 and up) and what evasion every attack in it tries."""

    seed: int
    evasion: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its log."""
        return f"world-{self.seed}.parquet"


WORLDS = (
    World(101),
    World(102, {"cover": 0.5, "human": 0.3}),
    World(103, {"paraphrase": 0.6}),
    World(104, {"cover": 0.25, "age_days": 150}),
    World(105),
    World(106, {"cover": 0.8, "human": 0.5, "paraphrase": 0.4}),
    World(107),
    World(108, {"cover": 0.4}),
)
CAST = (
    "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S13", "S14", "G1", "P1", "P2", "P3", "S0",
    "D1", "D2", *(f"B{i}" for i in range(1, 16)),
)  # fmt: skip
"""Everything that ships, in an order that the worlds depend on."""


def make(folder: Path, progress: Callable[[str], None] = lambda note: None) -> tuple[list[Path], list[Path]]:
    """Logs and truths of the worlds in ``folder``; one that is there already is kept."""
    assert set(CAST) <= set(shipped())
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / world.name for world in WORLDS]
    truths = [log.with_name(f"{log.stem}.truth.ndjson") for log in logs]
    for world, log, truth in zip(WORLDS, logs, truths, strict=True):
        if not truth.exists():  # written last
            scenarios = find([*CAST])
            if world.evasion:
                scenarios = [evade(scenario, **world.evasion) for scenario in scenarios]
            # as when the model that ships was trained: its card names the digest of these very worlds
            made = api.simulate(scenarios, log, accounts=ACCOUNTS, days=DAYS, seed=world.seed, heavy_cap=HEAVY_CAP,
                                absent_count=True)  # fmt: skip
            progress(f"{log.name}: {made.requests:,} requests of {made.accounts:,} accounts")
    return logs, truths
