"""The models of one partition: its quarantine, four classes of client with two forests each, and its sketches.

Everything here changes at epoch boundaries only (:meth:`PartitionModels.advance`), so how an epoch's rows were cut
into polls can change nothing. Knows no frame and no column names but the two forests' places in a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.score.blob import BadBlob
from monitor.score.champion import Duel
from monitor.score.keys import calibrates, row_keys
from monitor.score.options import MODEL_CLASSES, AnomalyOptions
from monitor.score.reservoir import Reservoir, decay_key, member
from monitor.score.sample import Rows

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the forests find their features in a squashed row, and the clock: ``spans`` is (start, width) of the
    population and the change forest; ``values`` the catalogue's features that sketches keep."""

    spans: tuple[tuple[int, int], ...]
    values: int
    tick_s: int
    epoch_s: int

    @property
    def width(self) -> int:
        """Squashed values of a row."""
        return sum(width for _, width in self.spans)


class PartitionModels:
    """State of one partition. ``epoch`` is the one in progress; None before the first row."""

    def __init__(self, number: int, layout: Layout, options: AnomalyOptions):
        self._number, self._layout, self._options = number, layout, options
        self.epoch: int | None = None
        self.excluded = 0
        self.duels = [
            [Duel(width, options, _seed(options.seed, group, kind)) for kind, (_, width) in enumerate(layout.spans)]
            for group in range(len(MODEL_CLASSES))
        ]
        self.calibration = [Reservoir(options.calibration_rows, layout.width, len(layout.spans)) for _ in MODEL_CLASSES]
        self.sketches = [Reservoir(options.sketch_rows, layout.values) for _ in MODEL_CLASSES]
        self._quarantine: list[Rows] = []
        self._fresh: list[Rows] = []  # kept for quantiles, not yet in their sketches

    @property
    def quarantined(self) -> int:
        """Rows that wait."""
        return sum(len(rows) for rows in self._quarantine)

    def cap(self, group: int) -> int:
        """Subjects kept of an epoch: more while the class has no champion, never over ``sample_per_s``."""
        options = self._options
        most = max(1, int(options.sample_per_s * self._layout.epoch_s / len(MODEL_CLASSES)))
        return min(options.warm_rows if self.duels[group][0].champion else options.cold_rows, most)

    def advance(
        self, epoch: int, sampled: Sequence[Rows], sketched: Sequence[Rows], suspects: U64, accept_drift: bool = False
    ) -> bool:
        """Close every epoch before ``epoch``; true if a champion or a calibration set changed.

        ``sampled`` and ``sketched`` are the rows kept of those epochs; ``suspects`` sorted hashes. Rows that have
        waited their time are learned at the next learning boundary, oldest first; passing three boundaries at once
        is the same as passing them one by one with the same suspects.
        """
        before, self.epoch = self.epoch, epoch
        self._quarantine.extend(sampled)
        self._fresh.extend(sketched)
        if len(suspects):
            for reservoir in (*self.calibration, *self.sketches):
                reservoir.drop(suspects)
        if before is None or self._learns_at(before + 1) <= epoch:
            self._sketch(suspects)
        waiting: list[Rows] = []
        due: dict[int, list[Rows]] = {}
        for rows in self._quarantine:
            boundary = self._learns_at(rows.epoch + 1 + self._wait_epochs())
            if boundary > epoch:
                waiting.append(rows)
                continue
            innocent = rows.take(~member(rows.subject, suspects))
            self.excluded += len(rows) - len(innocent)
            due.setdefault(boundary, []).append(innocent)
        self._quarantine = waiting
        for boundary, cleared in sorted(due.items()):
            self._clear(sorted(cleared, key=lambda rows: rows.epoch), boundary)
        if accept_drift:
            for group in range(len(MODEL_CLASSES)):
                self._consider(group, epoch, accept_drift=True)
        changed = bool(due) or accept_drift or len(suspects) > 0
        if changed:
            self._calibrate()
        return changed

    def _learns_at(self, epoch: int) -> int:
        """The first boundary from ``epoch`` on at which this partition learns: not all of them at the same one."""
        every = self._options.learn_epochs
        return epoch + (self._number - epoch) % every

    def _calibrate(self) -> None:
        for duels, reservoir in zip(self.duels, self.calibration, strict=True):
            for kind, duel in enumerate(duels):
                duel.calibrate(reservoir.marks[:, kind])

    def _wait_epochs(self) -> int:
        return -int(-self._options.quarantine_h * 3_600 // self._layout.epoch_s)  # rounded up

    def _marks(self, group: int, rows: F32) -> F64:
        return np.stack([duel.raw(part) for duel, part in self._parts(group, rows)], axis=1)

    def _parts(self, group: int, rows: F32) -> list[tuple[Duel, F32]]:
        spans = self._layout.spans
        return [(d, rows[:, start : start + width]) for d, (start, width) in zip(self.duels[group], spans, strict=True)]

    def _consider(self, group: int, epoch: int, *, accept_drift: bool = False) -> None:
        reservoir = self.calibration[group]
        for kind, (duel, rows) in enumerate(self._parts(group, reservoir.rows)):
            raw = duel.consider(epoch, rows, reservoir.marks[:, kind], accept_drift)
            if raw is not None:
                reservoir.marks[:, kind] = raw

    def _clear(self, cleared: Sequence[Rows], boundary: int) -> None:
        """Learn and calibrate from the cleared rows of some epochs, as of the boundary that cleared them."""
        for group in range(len(MODEL_CLASSES)):
            cap = self.cap(group)
            mine = [rows.take(rows.group == group).smallest(cap) for rows in cleared]
            subject = np.concatenate([rows.subject for rows in mine])
            if not len(subject):
                continue
            values = np.concatenate([rows.values for rows in mine])
            priority = np.concatenate([self._priority(rows) for rows in mine])
            test = calibrates(subject)
            marks = self._marks(group, values[test])
            self.calibration[group].add(priority[test], subject[test], values[test], marks)
            for duel, part in self._parts(group, values[~test]):
                duel.learn(part)
            self._consider(group, boundary)

    def _sketch(self, suspects: U64) -> None:
        """Move the rows kept for quantiles into their sketches."""
        if not self._fresh:
            return
        # One offer a group, not one an epoch and group: the boundary costs half a millisecond less.
        group, subject, values = (
            np.concatenate([getattr(rows, part) for rows in self._fresh]) for part in ("group", "subject", "values")
        )
        priority = np.concatenate([self._priority(rows) for rows in self._fresh])
        innocent = ~member(subject, suspects)
        for number, reservoir in enumerate(self.sketches):
            mine = innocent & (group == number)
            reservoir.add(priority[mine], subject[mine], values[mine])
        self._fresh = []

    def _priority(self, rows: Rows) -> F64:
        _, by_tick = row_keys(rows.subject, rows.tick, np.full(len(rows), rows.epoch))
        half_life = self._options.calibration_half_life_h * 3_600
        return decay_key(by_tick, rows.tick * self._layout.tick_s, half_life)

    def dump(self) -> dict[str, Any]:
        """Plain arrays and numbers for :func:`monitor.score.blob.pack`; ``epoch`` is the owner's to keep."""
        return {
            "excluded": self.excluded,
            "duels": [[duel.dump() for duel in duels] for duels in self.duels],
            "calibration": [r.dump() for r in self.calibration],
            "sketches": [r.dump() for r in self.sketches],
            "quarantine": [rows.dump() for rows in self._quarantine],
            "fresh": [rows.dump() for rows in self._fresh],
        }

    def load(self, body: Mapping[str, Any]) -> None:
        """Continue where :meth:`dump` left off. Raises BadBlob."""
        try:
            self.excluded = int(body["excluded"])
            for duels, dumped in zip(self.duels, body["duels"], strict=True):
                for duel, part in zip(duels, dumped, strict=True):
                    duel.load(part)
            for name, reservoirs in (("calibration", self.calibration), ("sketches", self.sketches)):
                for reservoir, part in zip(reservoirs, body[name], strict=True):
                    reservoir.load(part)
            self._quarantine = [Rows.load(part, self._layout.width) for part in body["quarantine"]]
            self._fresh = [Rows.load(part, self._layout.values) for part in body["fresh"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadBlob("a partition without its parts") from error
        for group, reservoir in enumerate(self.calibration):
            reservoir.marks = self._marks(group, reservoir.rows)
        self._calibrate()


def _seed(seed: int, group: int, kind: int) -> int:
    """A seed of its own for each forest of a partition; the same in every partition, so that scores compare."""
    return seed * 1_009 + group * 16 + kind
