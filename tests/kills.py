"""SIGKILL a member at random moments, again and again, and say in which step of its loop each kill hit.

The log is produced in portions, one before each life, so that every life has records to read however fast it is.
Every second kill is aimed: after its random wait it falls in the step that was hit least so far. A checkpoint is
a few milliseconds of a second; without the aim hundreds of kills would be needed to hit every step.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from members import STEPS, Group, Member, Record, produce, wait_for


@dataclass
class Kills:
    """``hits``: the step in which each kill fell, in order."""

    seed: int
    aimed_every: int = 2
    aims: Sequence[str] = STEPS
    defect: str = ""
    linger_s: float = 0.01
    longest_wait_s: float = 0.6
    hits: list[str] = field(default_factory=list)

    def run(self, group: Group, records: Sequence[Record], kills: int) -> Member:
        """Kill so many lives of one member, then let the last one read to the end; that one."""
        chance = random.Random(self.seed)
        size = -(-len(records) // (kills + 1))
        for n in range(kills):
            produce(group.bootstrap, group.topic, records[n * size : (n + 1) * size])
            member = group.start(defect=self.defect, linger_s=self.linger_s)
            assert wait_for(lambda m=member: m.alive() and m.steps, every_s=0.01)
            wait_for(lambda: False, chance.uniform(0, self.longest_wait_s))
            if n % self.aimed_every == 0:
                seen = Counter(self.hits)
                self.hits.append(member.kill_in(min(self.aims, key=lambda step: (seen[step], step))))
            else:
                self.hits.append(member.kill())
        produce(group.bootstrap, group.topic, records[kills * size :])
        return group.run_to_the_end(defect=self.defect)

    def table(self) -> str:
        """Hits by step, one a line."""
        seen = Counter(self.hits)
        return "\n".join(f"{step:<12}{seen[step]:>4}" for step in STEPS)


def difference(expected: Sequence[tuple[str, int, bytes]], found: Sequence[tuple[str, int, bytes]]) -> dict[str, int]:
    """Losses, entries nobody expected, and entries that came twice; all zero where nothing happened."""
    twice = Counter(e[:2] for e in found)
    return {
        "lost": len(set(expected) - set(found)),
        "unexpected": len(set(found) - set(expected)),
        "twice": sum(count - 1 for count in twice.values()),
    }
