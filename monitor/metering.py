"""How a metric is made: its description, its children from the start, and a histogram that takes arrays.

Knows Prometheus' client and no metric of ours; :mod:`monitor.telemetry` has them all.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

PREFIX = "abusemon_"
_UNITS = ("seconds", "bytes", "records", "rows", "ratio", "info")
_SCORE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)

Shown = Literal["dashboard", "internal"]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a metric is. ``labels`` maps a label to its closed values, or to what bounds them, in words."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    unit: str
    shown: Shown
    labels: Mapping[str, tuple[str, ...] | str] = field(default_factory=dict)


class ScoreHistogram(Collector):
    """A histogram that takes an array at a time: one pass of numpy, not a call for each score."""

    def __init__(self, name: str, help: str, label: str, values: Iterable[str], buckets: Sequence[float]) -> None:
        self._name, self._help, self._label = name, help, label
        self._edges = np.array(buckets, dtype=np.float64)
        self._lock = threading.Lock()
        self._counts = {value: np.zeros(len(self._edges) + 1, dtype=np.int64) for value in values}
        self._sums = dict.fromkeys(self._counts, 0.0)

    def observe(self, value: str, scores: npt.NDArray[np.floating[Any]]) -> int:
        """Count the scores that are not NaN under one label value; how many those were."""
        known = scores[~np.isnan(scores)].astype(np.float64, copy=False)
        counts = np.bincount(np.searchsorted(self._edges, known), minlength=len(self._edges) + 1)
        with self._lock:
            self._counts[value] += counts
            self._sums[value] += float(known.sum())
        return len(known)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The samples; called by the registry."""
        family = HistogramMetricFamily(self._name, self._help, labels=[self._label])
        with self._lock:
            for value, counts in self._counts.items():
                running = np.cumsum(counts)
                edges = [*(str(float(edge)) for edge in self._edges), "+Inf"]
                rows = [(edge, float(n)) for edge, n in zip(edges, running, strict=True)]
                family.add_metric([value], rows, self._sums[value])
        return [family]


class Maker:
    """Makes metrics on one registry and keeps what each is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.specs: list[Spec] = []

    def _spec(
        self, name: str, kind: Literal["counter", "gauge", "histogram"], help: str, shown: Shown,
        labels: Mapping[str, tuple[str, ...] | str],
    ) -> str:  # fmt: skip
        unit = next((u for u in _UNITS if name.removesuffix("_total").endswith(f"_{u}")), "1")
        self.specs.append(Spec(PREFIX + name, kind, help, unit, shown, dict(labels)))
        return PREFIX + name

    def counter(self, name: str, help: str, shown: Shown, **labels: tuple[str, ...] | str) -> Counter:
        """A counter: ``_total`` is put behind its name."""
        full = self._spec(f"{name}_total", "counter", help, shown, labels)
        return _children(Counter(full, help, list(labels), registry=self.registry), labels)

    def gauge(self, name: str, help: str, shown: Shown, **labels: tuple[str, ...] | str) -> Gauge:
        """A gauge."""
        full = self._spec(name, "gauge", help, shown, labels)
        return _children(Gauge(full, help, list(labels), registry=self.registry), labels)

    def histogram(
        self, name: str, help: str, shown: Shown, buckets: Sequence[float], **labels: tuple[str, ...] | str
    ) -> Histogram:
        """A histogram, fed a value at a time."""
        full = self._spec(name, "histogram", help, shown, labels)
        return _children(Histogram(full, help, list(labels), buckets=buckets, registry=self.registry), labels)

    def scores(self, name: str, help: str, shown: Shown, detectors: tuple[str, ...]) -> ScoreHistogram:
        """A histogram of scores, by detector."""
        full = self._spec(name, "histogram", help, shown, {"detector": detectors})
        made = ScoreHistogram(full, help, "detector", detectors, _SCORE)
        self.registry.register(made)
        return made


M = TypeVar("M", Counter, Gauge, Histogram)


def _children(metric: M, labels: Mapping[str, tuple[str, ...] | str]) -> M:
    """Make every child of a metric whose labels are all closed."""
    values = [allowed for allowed in labels.values() if isinstance(allowed, tuple)]
    if labels and len(values) == len(labels):
        for combination in itertools.product(*values):
            metric.labels(*combination)
    return metric


def label_values(metric: Counter | Gauge, *labels: str) -> list[tuple[str, ...]]:
    """Label values of a metric's children, in the order of its labels."""
    found = {tuple(sample.labels[name] for name in labels) for family in metric.collect() for sample in family.samples}
    return sorted(found)
