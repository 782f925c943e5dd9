"""What the score stage is told: settings as a plain frozen value, and the vocabulary it is given.

Knows nothing of where settings come from, nor of how features are computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from monitor.fields import CLASSIFIED

POPULATION = "anomaly_population"
CHANGE = "anomaly_change"
ANOMALY_COLUMNS = (POPULATION, CHANGE)
"""Columns of the river detectors, in the order of the catalogue's scores."""
CLASSIFIER_COLUMNS = tuple(f"classifier_{name}" for name in CLASSIFIED)
"""Columns of the ONNX classifier, in the order of the catalogue's scores."""
SCORE_COLUMNS = (*ANOMALY_COLUMNS, *CLASSIFIER_COLUMNS)

MODEL_CLASSES = ("new", "chat", "app", "automated")
"""Classes with a forest of their own. Four, not one a client class: a forest needs 1,000 cleared rows before it
says anything, and pipelines and batches are both templated."""
CLASS_OF: Mapping[str, str] = {
    "new": "new",
    "chat": "chat",
    "app": "app",
    "pipeline": "automated",
    "batch": "automated",
}
"""Client class -> model class; a client class that is not named here counts as ``app``."""


class FeatureLike(Protocol):
    """What this stage reads of a feature of the catalogue."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def window(self) -> str | None: ...  # noqa: D102
    @property
    def low(self) -> float | None: ...  # noqa: D102
    @property
    def high(self) -> float | None: ...  # noqa: D102


class Vocabulary(Protocol):
    """The catalogue of features, as this stage is given it."""

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def hash(self) -> str: ...  # noqa: D102
    def __iter__(self) -> Iterator[FeatureLike]: ...
    def __contains__(self, name: object) -> bool: ...
    def __getitem__(self, name: str) -> FeatureLike: ...


@dataclass(frozen=True, slots=True)
class AnomalyOptions:
    """The river detectors. Rates are shares of rows; epochs are hours unless ``epoch_s`` says otherwise.

    ``level_features`` feed the population forest; the change forest takes every feature of window ``past``.
    A row needs half of a forest's features, else it gets null.
    """

    enabled: bool = True
    trees: int = 10
    height: int = 6
    window: int = 256
    quarantine_h: float = 24.0
    sample_per_s: float = 10.0
    seed: int = 1
    level_features: tuple[str, ...] = (
        "requests_24h", "active_hours_24h", "gap_log_mean_24h", "gap_log_sd_24h", "day_entropy_7d",
        "input_tokens_mean_24h", "output_tokens_mean_24h", "input_log_sd_24h", "output_log_sd_24h",
        "follow_up_share_24h", "template_concentration_24h", "model_concentration_24h",
    )  # fmt: skip
    cold_rows: int = 128
    """Rows kept of an epoch for a class whose forests are not ready, one a subject: the warm-up takes hours."""
    warm_rows: int = 16
    """The same once they are ready. river learns a row in 11 us: with 16 the two forests of 4 classes cost
    1 ms an epoch and partition, which 500 quiet accounts fill with 500 rows; and a window is about a day."""
    learn_epochs: int = 6
    """Cleared rows are learned at every sixth boundary: a boundary's fixed cost is a millisecond a partition."""
    calibration_rows: int = 1_024
    calibration_min: int = 200
    calibration_half_life_h: float = 168.0
    trim: float = 0.005
    contamination: float = 0.10
    alarm_level: float = 0.05
    promote_epochs: int = 24
    promote_ratio: float = 1.5
    anchor_epochs: int = 672
    sketch_rows: int = 256
    sketch_per_epoch: int = 16
    sketch_min: int = 30
    accept_drift_epoch: int | None = None
    """The epoch at whose opening challengers are promoted whatever the bounds say: an operator's word, in event time,
    so that a replay hears it at the same place."""

    def __post_init__(self) -> None:
        if not 1 <= self.height <= 12 or self.trees < 1 or self.window < 10:
            raise ValueError("a forest needs trees >= 1, height 1 to 12 and a window of 10 rows at least")
        if self.quarantine_h < 0 or not 0 <= self.trim < 0.5 or not 0 < self.alarm_level < 0.5:
            raise ValueError("quarantine_h must not be negative; trim and alarm_level are shares below a half")
        if (
            len(self.level_features) > 64
            or min(self.cold_rows, self.warm_rows, self.calibration_min, self.learn_epochs) < 1
        ):
            raise ValueError("at most 64 level features, and at least one row an epoch, in calibration and to learn")

    @property
    def shape(self) -> str:
        """Hash of what must not change for saved forests to go on (16 hex digits)."""
        kept = {k: v for k, v in asdict(self).items() if k in _SHAPING}
        return hashlib.sha256(msgspec.json.encode(sorted(kept.items()))).hexdigest()[:16]


_SHAPING = {"trees", "height", "window", "seed", "level_features"}


@dataclass(frozen=True, slots=True)
class ClassifierOptions:
    """The ONNX model. ``model_dir`` holds versions and ``CURRENT``, or one model; null: inactive. Of ``buckets`` a
    CPU uses those up to 64. Fewer rows at once than ``gpu_from`` are the CPU's also where a GPU is."""

    model_dir: Path | None = None
    providers: tuple[str, ...] = ("cuda", "cpu")
    require_gpu: bool = False
    buckets: tuple[int, ...] = (8, 64, 256, 1_024, 4_096, 16_384)
    threads: int = 1
    gpu_from: int = 32

    def __post_init__(self) -> None:
        if not self.buckets or sorted(set(self.buckets)) != list(self.buckets) or self.buckets[0] < 1:
            raise ValueError("buckets must be positive and rise")


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """Everything the stage is told. ``tick_s`` and ``epoch_s`` in seconds of event time."""

    tick_s: int = 10
    epoch_s: int = 3_600
    client_classes: tuple[str, ...] = ("new", "chat", "app", "pipeline", "batch")
    anomaly: AnomalyOptions = field(default_factory=AnomalyOptions)
    classifier: ClassifierOptions = field(default_factory=ClassifierOptions)

    def __post_init__(self) -> None:
        if self.tick_s < 1 or self.epoch_s % self.tick_s:
            raise ValueError("epoch_s must be a multiple of tick_s")
