"""The river detectors over all partitions: score, sample, learn at epoch boundaries, and look quantiles up.

Two scores a row: how unusual the account is in its class of client, and how unusual its change against its own
past is. Knows the feature columns it was given by name and no other; reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.errors import BadInput, Problem
from monitor.score.bank import Bank
from monitor.score.blob import BadBlob, pack, unpack
from monitor.score.champion import Standing, needed
from monitor.score.keys import subject_keys
from monitor.score.options import CLASS_OF, MODEL_CLASSES, ScoreOptions, Vocabulary
from monitor.score.partition import Layout, PartitionModels
from monitor.score.sample import EpochSample, Rows
from monitor.score.squash import squash_for

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

KINDS = ("population", "change")


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition's models in figures: rows in quarantine, rows of suspects left out, and each model's standing."""

    quarantined: int
    excluded: int
    models: dict[tuple[str, str], Standing]
    """(model class, ``population`` or ``change``) -> how champion and challenger stand."""


class Population:
    """The anomaly detectors. One instance serves every partition of a process.

    Calls come as score, collect, advance: a frame is scored before its rows are offered for learning, and
    ``advance`` must come before the first row of the epoch it opens.
    """

    def __init__(self, options: ScoreOptions, catalogue: Vocabulary):
        self._options, self._anomaly = options, options.anomaly
        levels = options.anomaly.level_features
        unknown = [name for name in levels if name not in catalogue]
        if unknown:
            raise BadInput(
                Problem("settings", 0, f"{name!r} is not a feature: see `monitor features list`", "level_features")
                for name in unknown
            )
        self._names, self._catalogue_hash = catalogue.names, catalogue.hash
        changes = tuple(f.name for f in catalogue if f.window == "past")
        self._squash = squash_for([catalogue[name] for name in (*levels, *changes)])
        spans = ((0, len(levels)), (len(levels), len(changes)))
        self._layout = Layout(spans, len(self._names), options.tick_s, options.epoch_s)
        anomaly = options.anomaly
        self._banks = [
            Bank(start, width, needed(width), trees=anomaly.trees, height=anomaly.height, window=anomaly.window,
                 capacity=anomaly.calibration_rows)
            for start, width in spans
        ]  # fmt: skip
        groups = [MODEL_CLASSES.index(CLASS_OF.get(name, "app")) for name in options.client_classes]
        self._group_of = np.full(256, -1, np.int64)
        self._group_of[: len(groups)] = groups
        self._parts: dict[int, PartitionModels] = {}
        self._slots: dict[int, int] = {}
        self._packed: dict[int, bytes] = {}
        self._sample, self._sketch = EpochSample(self._layout.width), EpochSample(len(self._names))
        self.cold_starts: dict[int, str] = {}
        """Partitions whose saved models did not fit the settings -> why; they warm up again."""

    def score(self, frame: pl.DataFrame) -> tuple[F64, F64]:
        """Population and change rank of each row, [0, 1), NaN for no opinion. Pure: nothing is learned or kept."""
        if not self._slots:
            nothing = np.full(frame.height, np.nan)
            return nothing, nothing
        values = self._squash.of(frame)
        slot = self._slot_of(frame)
        return self._banks[0].rank(values, slot), self._banks[1].rank(values, slot)

    def collect(self, frame: pl.DataFrame, partitions: Collection[int] | None = None) -> None:
        """Offer the rows of a frame (of these partitions; None: of all) for sampling. Score them first.

        A row must not be of a later epoch than the last ``advance`` of its partition opened: ValueError.
        """
        group = self._groups(frame)
        keep = group >= 0
        partition = frame.get_column("partition").cast(pl.Int64).to_numpy()
        if partitions is not None:
            keep &= np.isin(partition, np.array(sorted(partitions), np.int64))
        if not keep.any():
            return
        chosen = np.flatnonzero(keep)
        partition, code = partition[chosen], group[chosen].astype(np.uint8)
        tick = frame.get_column("tick").to_numpy()[chosen]
        epoch = tick * self._options.tick_s // self._options.epoch_s
        self._open(partition, epoch)
        subject = subject_keys(frame.get_column("subject")[chosen], self._anomaly.seed)
        self._sketch.offer(
            partition, epoch, code, subject, tick,
            lambda at: self._raw(frame, chosen[at]), lambda _p, _g: self._anomaly.sketch_per_epoch,
        )  # fmt: skip
        values = self._squash.of(frame)[chosen]
        fit = np.zeros(len(chosen), np.bool_)
        for start, width in self._layout.spans:
            fit |= (~np.isnan(values[:, start : start + width])).sum(axis=1) >= needed(width)
        at_fit = np.flatnonzero(fit)
        self._sample.offer(
            partition[at_fit], epoch[at_fit], code[at_fit], subject[at_fit], tick[at_fit],
            lambda at: values[at_fit[at]], lambda p, g: self._parts[p].cap(g),
        )  # fmt: skip

    def advance(
        self, partition: int, epoch: int, suspects: Collection[str] = (), *, accept_drift: bool = False
    ) -> None:
        """Open ``epoch`` in a partition: learn what has waited its time, of subjects that are not suspect now.

        ``accept_drift`` promotes the challengers whatever the bounds say (an operator's word, at this boundary), as
        does passing ``accept_drift_epoch`` of the options.
        Going back is a ValueError: epochs are event time.
        """
        models = self._models(partition)
        if models.epoch is not None and epoch < models.epoch:
            raise ValueError(f"partition {partition} is in epoch {models.epoch}: it cannot go back to {epoch}")
        said = self._anomaly.accept_drift_epoch
        accept_drift |= said is not None and models.epoch is not None and models.epoch < said <= epoch
        self._packed.pop(partition, None)
        keys = np.unique(subject_keys(suspects, self._anomaly.seed))
        sampled, sketched = self._sample.take(partition, epoch), self._sketch.take(partition, epoch)
        if models.advance(epoch, sampled, sketched, keys, accept_drift):
            self._publish(partition)

    def quantile(self, partition: int, feature: str, client_class: int, value: float) -> float | None:
        """Share of the class's sampled rows of the last weeks with a smaller value (equal ones count half), 0 to 1.

        None where the class has fewer than ``sketch_min`` rows that know the feature, or the class is unknown.
        """
        models, group = self._parts.get(partition), int(self._group_of[client_class])
        if models is None or group < 0 or feature not in self._names or value != value:
            return None
        column = models.sketches[group].rows[:, self._names.index(feature)]
        known = column[~np.isnan(column)]
        if len(known) < self._anomaly.sketch_min:
            return None
        wanted = np.float32(value)  # as the sample is stored, so that equal stays equal
        return float((np.sum(known < wanted) + 0.5 * np.sum(known == wanted)) / len(known))

    def status(self) -> dict[int, PartitionStatus]:
        """Figures of each partition."""
        return {
            number: PartitionStatus(
                models.quarantined,
                models.excluded,
                {
                    (name, kind): duel.standing()
                    for name, duels in zip(MODEL_CLASSES, models.duels, strict=True)
                    for kind, duel in zip(KINDS, duels, strict=True)
                },
            )
            for number, models in sorted(self._parts.items())
        }

    def dump(self, partition: int) -> bytes:
        """The partition's state, the epoch in progress included."""
        models = self._models(partition)
        if partition not in self._packed:  # 1.4 MB that change at a boundary only
            self._packed[partition] = pack(models.dump())
        body = {
            "shape": self._shape,
            "epoch": models.epoch,
            "models": self._packed[partition],
            "sample": [rows.dump() for rows in self._sample.of(partition)],
            "sketch": [rows.dump() for rows in self._sketch.of(partition)],
        }
        return pack(body)

    def load(self, partition: int, blob: bytes) -> None:
        """Take a partition over. Raises StateUnreadable for bytes that are no such state; state of other settings or of
        another catalogue is left aside, and ``cold_starts`` says so."""
        body = unpack(blob)
        self.drop(partition)
        if body.get("shape") != self._shape:
            self.cold_starts[partition] = "the saved models are of other settings or features: they warm up again"
            return
        models = PartitionModels(partition, self._layout, self._anomaly)
        try:
            models.load(unpack(body["models"]))
            models.epoch = body["epoch"]
            sample = [Rows.load(part, self._layout.width) for part in body["sample"]]
            sketch = [Rows.load(part, len(self._names)) for part in body["sketch"]]
        except (KeyError, TypeError) as error:
            raise BadBlob("a part is missing") from error
        self._parts[partition] = models
        self._sample.restore(partition, sample)
        self._sketch.restore(partition, sketch)
        self._publish(partition)

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        self._parts.pop(partition, None)
        self._packed.pop(partition, None)
        self.cold_starts.pop(partition, None)
        self._sample.drop(partition)
        self._sketch.drop(partition)
        slot = self._slots.pop(partition, None)
        if slot is not None:
            for bank in self._banks:
                for group in range(len(MODEL_CLASSES)):
                    bank.put(slot + group, None, np.empty(0))

    @property
    def _shape(self) -> str:
        return f"{self._anomaly.shape}:{self._options.tick_s}:{self._options.epoch_s}:{self._catalogue_hash}"

    def _models(self, partition: int) -> PartitionModels:
        if partition not in self._parts:
            self._parts[partition] = PartitionModels(partition, self._layout, self._anomaly)
        return self._parts[partition]

    def _open(self, partition: I64, epoch: I64) -> None:
        for number in np.unique(partition).tolist():
            models, mine = self._models(number), epoch[partition == number]
            if models.epoch is None:
                models.epoch = int(mine.min())
            if mine.max() > models.epoch:
                raise ValueError(
                    f"partition {number} has rows of epoch {mine.max()} but is in {models.epoch}: call advance first"
                )

    def _publish(self, partition: int) -> None:
        """Put a partition's champions where rows are scored."""
        duels = self._parts[partition].duels
        if partition not in self._slots and not any(d.champion for pair in duels for d in pair):
            return
        if partition not in self._slots:
            taken, slot = set(self._slots.values()), 0
            while slot in taken:
                slot += len(MODEL_CLASSES)
            self._slots[partition] = slot
        for group, pair in enumerate(duels):
            for bank, duel in zip(self._banks, pair, strict=True):
                snapshot = duel.champion.snapshot if duel.champion else None
                bank.put(self._slots[partition] + group, snapshot, duel.scores)

    def _groups(self, frame: pl.DataFrame) -> I64:
        column = frame.get_column("client_class")
        code = (column.fill_null(255) if column.null_count() else column).to_numpy()
        groups: I64 = self._group_of[code]
        return groups

    def _slot_of(self, frame: pl.DataFrame) -> I64:
        group = self._groups(frame)
        partition = frame.get_column("partition").cast(pl.Int64).to_numpy()
        slot = np.full(len(partition), -1, np.int64)
        for number in np.unique(partition).tolist():
            base = self._slots.get(number)
            if base is not None:
                mine = (partition == number) & (group >= 0)
                slot[mine] = base + group[mine]
        return slot

    def _raw(self, frame: pl.DataFrame, at: I64) -> F32:
        """Every catalogue feature of a few rows, NaN where null, for the sketches."""
        out = np.full((len(at), len(self._names)), np.nan, np.float32)
        have = set(frame.columns)
        few = frame[at]  # one eager gather: through Polars' expressions it costs 2 ms a call, a column 5 ms
        for i, name in enumerate(self._names):
            if name in have:
                out[:, i] = few.get_column(name).to_numpy()
        return out
