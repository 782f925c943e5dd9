"""A partition that does not move though records wait in it. Pure: positions and a clock in, an answer out.

kafka-python 3.0.7 and 3.0.8 had such a stall (its issue 3131), and librdkafka's users report the same; from
outside it looks like a quiet topic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class StallWatch:
    """Seconds for which each partition stood still with records waiting.

    A partition is stalled once that is ``after_s``, and again after each further ``after_s``.
    """

    def __init__(self, after_s: float):
        self.after_s = after_s
        self._still: dict[int, tuple[int, float]] = {}  # position, and since when it stands there
        self._told: dict[int, float] = {}
        self._seconds: dict[int, float] = {}

    def observe(
        self, now_s: float, positions: Mapping[int, int], ends: Mapping[int, int], idle: Collection[int] = ()
    ) -> list[int]:
        """Take one look; the partitions to re-seek now. ``idle``: those that are not meant to move (paused)."""
        due = []
        self._seconds = {}
        for partition in set(self._still) - set(positions):
            self.forget(partition)
        for partition, position in positions.items():
            still = self._still.get(partition)
            waiting = ends.get(partition, position) > position and partition not in idle
            if still is None or still[0] != position or not waiting:
                self._still[partition] = (position, now_s)
                self._told.pop(partition, None)
                continue
            seconds = now_s - still[1]
            if seconds >= self.after_s:
                self._seconds[partition] = seconds
                if now_s - self._told.get(partition, -float("inf")) >= self.after_s:
                    self._told[partition] = now_s
                    due.append(partition)
        return due

    def forget(self, partition: int) -> None:
        """The partition is not ours any more."""
        self._still.pop(partition, None)
        self._told.pop(partition, None)
        self._seconds.pop(partition, None)

    def stalled(self) -> dict[int, float]:
        """Partition -> seconds, as of the last look."""
        return dict(self._seconds)
