"""The score stage as the pipeline sees it: columns in, columns out, and state by partition.

Order of calls for a partition: ``advance`` when an epoch opens, then ``score`` and ``collect`` for frames of that
epoch's rows, any number of times and cut in any way. ``score`` changes nothing; ``collect`` only samples; what has
been sampled changes scores at an epoch boundary at the earliest, a day later by default. Reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from monitor.errors import Problem
from monitor.score.classifier import Classifier, ClassifierStatus
from monitor.score.options import ANOMALY_COLUMNS, SCORE_COLUMNS, ScoreOptions, Vocabulary
from monitor.score.population import PartitionStatus, Population
from monitor.vectors import VectorLayout


@dataclass(frozen=True, slots=True)
class ScorerStatus:
    """What runs and how well: ``inactive`` says, by score column, why it is null everywhere; ``ready`` counts the
    models (partition and class) of each anomaly column that give opinions, ``models`` how many there are."""

    partitions: dict[int, PartitionStatus]
    classifier: ClassifierStatus
    ready: dict[str, int]
    models: int
    inactive: dict[str, str]
    cold_starts: dict[int, str]


class Scorer:
    """Every detector that gives a number. Raises BadInput for unknown features or a model that is unfit."""

    def __init__(self, options: ScoreOptions, catalogue: Vocabulary, layout: VectorLayout | None = None):
        self._options = options
        self._population = Population(options, catalogue)
        self._classifier = Classifier(options.classifier, catalogue, layout)

    @property
    def classifier(self) -> Classifier:
        """The network, for sets that are no row's (a campaign's pool)."""
        return self._classifier

    def score(self, frame: pl.DataFrame) -> pl.DataFrame:
        """``frame`` (ROW_KEYS and features, any partitions and ticks) with SCORE_COLUMNS added: Float64 in [0, 1],
        null for no opinion. The frame itself and all state stay as they are."""
        columns = self._classifier.score(frame)
        if self._options.anomaly.enabled:
            columns.update(zip(ANOMALY_COLUMNS, self._population.score(frame), strict=True))
        added = [
            pl.Series(name, columns[name], nan_to_null=True)
            if name in columns
            else pl.Series(name, [None], dtype=pl.Float64).new_from_index(0, frame.height)
            for name in SCORE_COLUMNS
        ]
        return frame.drop(SCORE_COLUMNS, strict=False).hstack(added)

    def collect(self, scored: pl.DataFrame, partitions: Collection[int] | None = None) -> None:
        """Sample rows that were scored, of these partitions (None: all), for learning and for quantiles.

        ValueError where a row's epoch has not been opened by :meth:`advance`.
        """
        if self._options.anomaly.enabled and scored.height:
            self._population.collect(scored, partitions)
        self._classifier.compare(scored)

    def advance(
        self, partition: int, epoch: int, suspects: Collection[str] = (), *, accept_drift: bool = False
    ) -> None:
        """Open ``epoch`` (event time // epoch_s): learn what has waited, of subjects that are not among ``suspects``,
        and freeze what scores until the next boundary. ``accept_drift``: see :class:`Population`."""
        if self._options.anomaly.enabled:
            self._population.advance(partition, epoch, suspects, accept_drift=accept_drift)

    def refresh(self) -> tuple[bool, tuple[Problem, ...]]:
        """Look for another classifier; at an epoch boundary. See :meth:`Classifier.refresh`."""
        return self._classifier.refresh()

    def quantile(self, partition: int, feature: str, client_class: int, value: float) -> float | None:
        """Where ``value`` lies among the class's accounts of the last weeks, 0 to 1; None where that is not known."""
        return self._population.quantile(partition, feature, client_class, value)

    def status(self) -> ScorerStatus:
        """What runs, what is ready, and why what is not is not."""
        partitions, classifier = self._population.status(), self._classifier.status()
        ready = dict.fromkeys(ANOMALY_COLUMNS, 0)
        for part in partitions.values():
            for (_, kind), standing in part.models.items():
                ready[f"anomaly_{kind}"] += standing.ready
        inactive = {}
        for name in SCORE_COLUMNS:
            if name in ready:
                if not self._options.anomaly.enabled:
                    inactive[name] = "switched off (score.anomaly.enabled)"
                elif not ready[name]:
                    inactive[name] = "warming up: no class of client has learned two windows and calibrated yet"
            elif classifier.inactive:
                inactive[name] = classifier.inactive
            elif name not in self._classifier.columns:
                inactive[name] = "the model gives no such score"
        models = sum(len(part.models) for part in partitions.values()) // len(ANOMALY_COLUMNS)
        return ScorerStatus(partitions, classifier, ready, models, inactive, dict(self._population.cold_starts))

    def dump(self, partition: int) -> bytes:
        """The partition's state."""
        return self._population.dump(partition)

    def load(self, partition: int, blob: bytes) -> None:
        """Take the partition over from :meth:`dump`. Raises StateUnreadable."""
        self._population.load(partition, blob)

    def drop(self, partition: int) -> None:
        """Forget the partition."""
        self._population.drop(partition)
