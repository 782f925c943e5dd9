"""A whole pipeline on simulated traffic for tests: one world a process, batches of records, alerts as bytes."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from unittest.mock import patch

import msgspec
import numpy as np

from monitor import wiring
from monitor.pipeline import Pipeline
from monitor.records import Alert, RawBatch
from monitor.rules import RuleSet
from monitor.score import AnomalyOptions
from monitor.settings import Settings
from monitor.simulate.api import build
from monitor.sketch import Keyring
from monitor.source.partitioner import Partitioner

PARTITIONS = 3
SCENARIOS = ("D1", "D2", "B3")
"""Two scrapers, so that there are alerts, and a nightly batch, so that there are late and batch events."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a log: its bytes, where it lies, its event time."""

    value: bytes
    partition: int
    offset: int
    t_ms: int


@functools.cache
def world(accounts: int = 60, days: float = 2.0, seed: int = 3, thin: int = 10) -> tuple[Record, ...]:
    """A log in record order; the same arguments give the same bytes.

    Of busy accounts every ``thin``-th request. Records come up to 3 s late, one in a hundred half an hour, one in a
    hundred twice.
    """
    place = Partitioner(PARTITIONS)
    rng = np.random.default_rng(seed)
    drawn: list[tuple[float, Record]] = []
    seen: Counter[bytes] = Counter()
    for chunk in build(SCENARIOS, accounts, days, seed, heavy_cap=60.0):
        for key, value, t_ms in chunk.messages():
            seen[key] += 1
            if seen[key] > 60 and seen[key] % thin:
                continue
            record = Record(value, place(key.decode()), 0, t_ms)
            late = 1_800_000 if rng.random() < 0.01 else 3_000
            drawn.append((t_ms + rng.random() * late, record))
            if rng.random() < 0.01:
                drawn.append((t_ms + rng.random() * 600_000, record))
    return tuple(numbered(record for _, record in sorted(drawn, key=lambda d: d[0])))


def numbered(records: Iterable[Record]) -> list[Record]:
    """The records with offsets that count up in each partition, as a broker would give them in this order."""
    following: dict[int, int] = {}
    made = []
    for r in records:
        at = following.get(r.partition, 0)
        following[r.partition] = at + 1
        made.append(Record(r.value, r.partition, at, r.t_ms))
    return made


def batch(records: Sequence[Record]) -> RawBatch:
    """Records as one poll, without Kafka timestamps."""
    return RawBatch(
        values=[r.value for r in records],
        partition=np.array([r.partition for r in records], np.int32),
        offset=np.array([r.offset for r in records], np.int64),
        timestamp_ms=np.full(len(records), -1, np.int64),
        next_offsets={r.partition: r.offset + 1 for r in records},
    )


SETTINGS = Settings()


@functools.cache
def _rules() -> RuleSet:
    return wiring.load(SETTINGS)


def pipeline(seed: int = 1) -> Pipeline:
    """A fresh pipeline with the rules that ship, keys by seed, and anomaly models that learn within two days."""
    quick = replace(
        wiring.score_options(SETTINGS),
        anomaly=AnomalyOptions(window=20, quarantine_h=3.0, learn_epochs=2, calibration_min=20, warm_rows=64),
    )
    with patch.object(wiring, "score_options", return_value=quick):
        return wiring.pipeline(SETTINGS, keys=Keyring.from_seed(seed), rules=_rules())


def polls(records: Sequence[Record], cuts: Iterable[int]) -> Iterator[Sequence[Record]]:
    """The records in polls that end at ``cuts`` (and at the end)."""
    begin = 0
    for end in [*sorted({c for c in cuts if 0 < c < len(records)}), len(records)]:
        yield records[begin:end]
        begin = end


def run(records: Sequence[Record], cuts: Iterable[int] = (), p: Pipeline | None = None) -> list[Alert]:
    """Every alert and revision that the records raise, in polls that end at ``cuts``."""
    p = p or pipeline()
    alerts: list[Alert] = []
    for poll in polls(records, cuts):
        alerts += p.process(batch(poll)).alerts
    return alerts + p.finish().alerts


def told(alerts: Iterable[Alert]) -> list[bytes]:
    """Alerts as the bytes that are written, in an order that does not know in which poll each was made."""
    return sorted(msgspec.json.encode(a) for a in alerts)


def stories(alerts: Iterable[Alert]) -> Mapping[str, list[int]]:
    """Revisions of each alert in the order in which they were made."""
    found: dict[str, list[int]] = {}
    for a in alerts:
        found.setdefault(a.alert_id, []).append(a.revision)
    return found
