"""Numbers between 0 and 1 beside each feature row, null where there is no opinion.

:class:`Scorer` is all that other packages use. Two kinds of detector stand behind it: river's half-space trees on
each class of client and on each account's change (:mod:`.population`), and an ONNX classifier (:mod:`.classifier`).
river and onnxruntime are imported in this package only.
"""

from monitor.score.classifier import Classifier, ClassifierStatus
from monitor.score.manifest import packaged_model
from monitor.score.options import (
    ANOMALY_COLUMNS,
    CLASSIFIER_COLUMNS,
    SCORE_COLUMNS,
    AnomalyOptions,
    ClassifierOptions,
    ScoreOptions,
)
from monitor.score.runtime import provider_of
from monitor.score.scorer import Scorer, ScorerStatus

__all__ = [
    "ANOMALY_COLUMNS",
    "CLASSIFIER_COLUMNS",
    "SCORE_COLUMNS",
    "AnomalyOptions",
    "Classifier",
    "ClassifierOptions",
    "ClassifierStatus",
    "ScoreOptions",
    "Scorer",
    "ScorerStatus",
    "packaged_model",
    "provider_of",
]
