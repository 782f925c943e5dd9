"""The spine: one batch of records through every step, in order. Knows no server and no clock.

::

    source -> decode -> sketch -> features -> score -> campaigns -> rules -> alerts

What learns or is configured changes only where a partition's event time enters a new epoch; within one, any
number of ticks and partitions pass through each step in one go.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Protocol

import numpy as np
import polars as pl

from monitor.alerts import AlertStage
from monitor.campaigning import Campaigns
from monitor.campaigns.options import KnownCorpus
from monitor.decode import DecodeOptions, available_fields, decode
from monitor.features.catalogue import STAND_INS
from monitor.features.engine import FeatureEngine
from monitor.features.vocabulary import CATALOGUE
from monitor.known import Known
from monitor.observe import Inactive, Observer
from monitor.records import REQUEST_SET, Alert, Decoded, RawBatch, Reject
from monitor.rules import HoldState, RuleSet
from monitor.score import CLASSIFIER_COLUMNS, Scorer
from monitor.sketch import Corpora, Sketcher
from monitor.sketch.frame import sketch_frame
from monitor.sketch.heavy import GramCounter, HeavyStage
from monitor.ticks import TickStage

_LOG = logging.getLogger(__name__)


class Component(Protocol):
    """What holds state of a partition."""

    def dump(self, partition: int) -> bytes:
        """All of it, as a blob."""

    def load(self, partition: int, blob: bytes) -> None:
        """Take a blob over."""

    def drop(self, partition: int) -> None:
        """Forget the partition."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch led to."""

    alerts: list[Alert]
    rejects: tuple[Reject, ...] = ()
    partly: frozenset[tuple[int, int]] = frozenset()
    """Coordinates of messages of which some events were good: they count toward no limit of bad records."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch after the steps without state: ``decoded.frame`` has the sketched events, ``present`` their fields,
    ``counted`` what is heavy once they are taken in, by partition."""

    batch: RawBatch
    decoded: Decoded
    present: frozenset[str]
    counted: Mapping[int, GramCounter]

    def without(self, partitions: Collection[int]) -> Prepared:
        """The same, less what came from these partitions."""
        if not set(partitions).intersection(self.batch.next_offsets):
            return self
        d, gone = self.decoded, list(partitions)
        kept = np.flatnonzero(~np.isin(self.batch.partition, gone))
        return replace(
            self,
            batch=self.batch.take(kept, {p: o for p, o in self.batch.next_offsets.items() if p not in gone}),
            decoded=replace(
                d,
                frame=d.frame.filter(~pl.col("partition").is_in(gone)),
                rejects=tuple(r for r in d.rejects if r.partition not in gone),
            ),
            counted={p: c for p, c in self.counted.items() if p not in gone},
        )


@dataclass(slots=True)
class Pipeline:
    """The steps, and the order of their work. All state is in the steps, by partition."""

    decode_options: DecodeOptions
    sketcher: Sketcher
    heavy: HeavyStage
    ticks: TickStage
    features: FeatureEngine
    scorer: Scorer
    rules: RuleSet
    hold: HoldState
    alerts: AlertStage
    campaigns: Campaigns
    observe: Observer
    tick_ms: int
    epoch_ms: int
    versions: dict[str, str]
    next_rules: RuleSet | None = None
    next_corpora: Corpora | None = None
    known: Known = field(default_factory=Known)
    seen: Callable[[pl.DataFrame], None] | None = None
    """Told each frame of rows as the rules see it, and REQUEST_SET, what the classifier read where a row was due:
    whoever wants to keep them."""
    _epochs: dict[int, int] = field(default_factory=dict)
    _without: dict[int, tuple[int, list[str]]] = field(default_factory=dict)
    """By partition: what was last heard of suspects in campaigns (its event time), and those of its accounts."""
    _origins: Callable[[], dict[tuple[int, str, int], int]] = dict
    _read: list[pl.DataFrame] = field(default_factory=list)
    _links: Executor = field(default_factory=partial(ThreadPoolExecutor, 1, "links"))

    def process(self, batch: RawBatch) -> Outcome:
        """One poll's records: what they raise, and what was no request."""
        return self.take(self.prepare(batch))

    def prepare(self, batch: RawBatch) -> Prepared:
        """Decode and sketch: another thread may do it beside :meth:`take` of the batch before.

        The one state they keep, what is heavy, waits for :meth:`take` before a checkpoint may write it.
        """
        with self.observe.stage("decode"):
            decoded = decode(batch, self.decode_options)
        present = available_fields(decoded.frame)
        with self.observe.stage("sketch"):
            events, _ = sketch_frame(decoded.frame, self.sketcher, self.heavy, entity=self.decode_options.entity)
        batch.forget()  # 17 MB of 10,000 records, of which some batches are ahead
        # What came as a sketch feeds what the text would: only now can it be told from one that is no use.
        return Prepared(batch, replace(decoded, frame=events), present | available_fields(events), self.heavy.planned())

    def take(self, prepared: Prepared) -> Outcome:
        """The steps that keep state: batch after batch, in the order of the records."""
        decoded = prepared.decoded
        self.heavy.commit(prepared.counted)
        self.observe.decoded(prepared.batch, decoded, prepared.present)
        closed, stats = self.ticks.push(decoded.frame, prepared.batch.trusted_clock)
        self.observe.ticked(stats, self.ticks.watermarks_ms)
        self.campaigns.begin_close()  # of the batch before, if nobody has published since
        # Neither reads what the other writes, and most of both is outside the interpreter's lock.
        links = self._links.submit(self._link, closed)
        try:
            alerts = self._judge(closed)
        finally:
            links.result()
        # Steps close once both the links and the opinions of what was read are there: a tenth of the loop's time, which
        # they take beside the next batch. Waited for at once, or before that batch, it was no faster.
        self._hand_opinions()
        self.close_later()
        return Outcome(alerts, decoded.rejects, decoded.partly)

    def close_later(self) -> None:
        """Campaign steps that have ended close beside the next batch, or when somebody publishes. After a restart the
        state may hold such steps, and a next batch may not come for long."""
        self.campaigns.close_later(partial(self._links.submit, self._close, dict(self.ticks.watermarks_ms)))

    def finish(self) -> Outcome:
        """The input ends: every open tick closes."""
        closed = self.ticks.flush()
        self.campaigns.settle()
        self._link(closed)
        alerts = self._judge(closed)
        self._hand_opinions()
        self._close(None)
        return Outcome(alerts)

    def publish_campaigns(self, *, closed: bool = False) -> None:
        """Hand this member's blobs over; with ``closed`` those of the batches before the last, whose steps close beside
        the next one. May raise what the store of links raises; nothing is lost, call it again."""
        with self.observe.stage("campaigns"):
            if closed:
                self.campaigns.publish_closed()
            else:
                self.campaigns.publish()

    def campaign_pass(self) -> Callable[[], list[Alert]]:
        """Work on the steps that are complete, for whoever owns partition 0: another thread may do it beside
        :meth:`prepare`, :meth:`take` and :meth:`publish_campaigns`, but nothing else here meanwhile. May raise what the
        store of links raises."""
        rules, versions, known = self.rules, self.versions, self.known
        corpora = {h.bit: KnownCorpus(h.name, h.items) for h in self.sketcher.corpora.headers}

        def work() -> list[Alert]:
            with self.observe.stage("campaigns"):
                return self.campaigns.work(rules, known, versions, corpora)

        return work

    def work_campaigns(self) -> list[Alert]:
        """Publish, and work the steps that are complete, at once: their alerts."""
        self.publish_campaigns()
        return self.campaigns_raised(self.campaign_pass()())

    def campaigns_raised(self, alerts: Sequence[Alert]) -> list[Alert]:
        """Count what a pass raised."""
        self.observe.raised(alerts)
        return list(alerts)

    @property
    def components(self) -> Mapping[str, Component]:
        """Everything with state, in the order in which it is restored."""
        return {
            "heavy": self.heavy,
            "ticks": self.ticks,
            "features": self.features,
            "score": self.scorer,
            "hold": self.hold,
            "alerts": self.alerts,
            "campaigns": self.campaigns,
        }

    def drop(self, partition: int) -> None:
        """Forget a partition altogether."""
        for component in self.components.values():
            component.drop(partition)
        self._epochs.pop(partition, None)
        self._without.pop(partition, None)

    def checkpoint_meta(self, partition: int) -> dict[str, object]:
        """What a checkpoint says beside the steps' state."""
        at_ms, accounts = self._without.get(partition, (-1, []))
        return {
            "versions": self.versions, "epoch": self._epochs.get(partition, -1), "tick_ms": self.tick_ms,
            "learned_without": {"at_ms": at_ms, "accounts": accounts},
        }  # fmt: skip

    def enter_restored(self, partition: int, meta: Mapping[str, object]) -> None:
        """A partition's state came from a checkpoint with this ``meta``: its epoch has been entered already."""
        epoch = meta.get("epoch", -1)
        if isinstance(epoch, int) and epoch >= 0:
            self._epochs[partition] = epoch
        match meta.get("learned_without"):
            case {"at_ms": int(at_ms), "accounts": list(accounts)} if at_ms >= 0:
                self._without[partition] = at_ms, [str(a) for a in accounts]

    def inactive(self, scores: Mapping[str, str] | None = None) -> Inactive:
        """Features, detectors and rules that the log seen so far cannot feed; ``scores``: detectors told otherwise."""
        present = frozenset(self.observe.counts.fields) | self.known.fields
        present |= {name for name, others in STAND_INS.items() if present.intersection(others)}
        scores = self.scorer.status().inactive if scores is None else scores
        return Inactive(CATALOGUE.inactive(present), scores, self.rules.inactive(present, scores))

    def open_alerts(self) -> list[Alert]:
        """Open alerts on accounts and on campaigns, as last written."""
        return [*self.alerts.open_alerts(), *self.campaigns.alerts.open_alerts()]

    def open_by_severity(self) -> dict[str, int]:
        """How many of them there are of each severity."""
        return dict(Counter(a.severity for a in self.open_alerts()))

    def measure(self) -> None:
        """Tell the metrics what stands now."""
        sizes = {"heavy": self.heavy.nbytes, "ticks": self.ticks.nbytes, "features": self.features.nbytes}
        self.observe.standing(len(self.features.accounts), sizes, self.inactive())
        self.observe.suspected(self.open_alerts(), *self.campaigns.judged)
        self.observe.models(self.scorer.status())

    def exemplars(self, partition: int, subject: str, until_ms: int) -> list[str]:
        """Request ids of a subject as of the row whose tick ends at ``until_ms``."""
        origin = self._origins().get((partition, subject, until_ms // self.tick_ms - 1))
        return [] if origin is None else self.features.exemplars(origin)

    def models(self, partition: int, subject: str, until_ms: int) -> list[str]:
        """Models that served a subject, as of the row whose tick ends at ``until_ms``."""
        origin = self._origins().get((partition, subject, until_ms // self.tick_ms - 1))
        return [] if origin is None else self.features.models(origin)

    def _link(self, closed: pl.DataFrame) -> None:
        with self.observe.stage("campaigns"):
            self.campaigns.collect(closed)

    def _hand_opinions(self) -> None:
        read, self._read = self._read, []
        self.campaigns.judge(read)

    def _close(self, watermarks_ms: Mapping[int, int] | None) -> None:
        with self.observe.stage("campaigns"):
            self.campaigns.close(watermarks_ms)

    def _judge(self, closed: pl.DataFrame) -> list[Alert]:
        with self.observe.stage("features"):
            rows = self.features.update(closed, self.ticks.watermarks_ms, self.known.product_seen)
        self.observe.rows(rows, self.tick_ms)
        alerts: list[Alert] = []
        for epoch, part in self._epochs_of(rows):
            self._enter(epoch, part)
            with self.observe.stage("score"):
                scored = self.scorer.score(part)
                self.scorer.collect(scored)
                self.observe.inferred(self.scorer.classifier.take_timings())
                self._read += self._opinions(scored)
                if self.scorer.classifier.reads_sets:
                    scored = self.features.carry(scored, CLASSIFIER_COLUMNS)
            if self.seen is not None:
                self.seen(scored)
            scored = scored.drop(REQUEST_SET)
            with self.observe.stage("rules"):
                held = self.rules.evaluate(scored, self.hold, self.decode_options.entity)
            with self.observe.stage("alerts"):
                firings, agreed = self.known.without_agreed(scored, held.firings)
                self._origins = _rows_by_tick(scored, firings["row"].unique())
                alerts += self.alerts.decide(scored, firings)
            self.observe.scored(scored)
            self.observe.judged(held, self.rules, agreed)
        for partition, ms in sorted(self.ticks.watermarks_ms.items()):
            alerts += self.alerts.advance(partition, ms // self.tick_ms * self.tick_ms)
        self.observe.raised(alerts)
        return alerts

    def _opinions(self, scored: pl.DataFrame) -> list[pl.DataFrame]:
        """Rows that the classifier read; none where what is scored is no account, which a campaign's members are."""
        if not self.scorer.classifier.columns or self.decode_options.entity != "account":
            return []
        # not the other way round: the sets themselves are 1.5 KB a row
        read = scored.select("subject", "partition", "tick", *CLASSIFIER_COLUMNS)
        return [read.filter(scored[REQUEST_SET].is_not_null())]

    def _epochs_of(self, rows: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows epoch by epoch: the only loop over time."""
        if rows.is_empty():
            return
        epoch = rows["tick"] * self.tick_ms // self.epoch_ms
        if epoch.n_unique() == 1:
            yield int(epoch[0]), rows
            return
        parts = rows.with_columns(_epoch=epoch).partition_by("_epoch", as_dict=True, include_key=False)
        for key in sorted(parts, key=lambda k: int(str(k[0]))):
            yield int(str(key[0])), parts[key]

    def _enter(self, epoch: int, rows: pl.DataFrame) -> None:
        """Partitions that reach a new epoch: new rules, learning from what was cleared, frozen models."""
        for partition in rows["partition"].unique().sort().to_list():
            if self._epochs.get(partition, -1) < epoch:
                if epoch > max(self._epochs.values(), default=-1):
                    self._use_next()
                    self._refresh_model()
                with self.observe.stage("score"):
                    suspects = self.alerts.suspects(partition, epoch * self.epoch_ms)
                    self.scorer.advance(partition, epoch, suspects | self._campaigners(partition, epoch))
                self._epochs[partition] = epoch

    def _campaigners(self, partition: int, epoch: int) -> set[str]:
        """Accounts of a partition that were suspected of a campaign one epoch ago: what was known later, members that
        are behind may not have heard yet, and all must learn from the same rows."""
        if not self.campaigns.leaves_out:
            return set()
        heard = self.campaigns.suspects((epoch - 1) * self.epoch_ms, partition)
        if heard is not None:
            at_ms, accounts = heard
            here = self.features.accounts
            mine = sorted(a for a in accounts if here.find(partition, a) is not None)
            self._without[partition] = at_ms, mine
        # none was heard since a restart: those of then
        return set(self._without.get(partition, (-1, []))[1])

    def _use_next(self) -> None:
        """Rules and corpora that came since the last epoch."""
        if self.next_rules is None and self.next_corpora is None:
            return
        if self.next_corpora is not None:
            self.sketcher.corpora, self.next_corpora = self.next_corpora, None
        self.rules, self.next_rules = self.next_rules or self.rules, None
        kept = {name: version for name, version in self.versions.items() if name != "corpora"}
        self.versions = {**kept, "rules": self.rules.hash, **self.sketcher.corpora.versions}
        self.alerts.use(self.rules.policy, self.rules.rules, self.versions)
        self.observe.rules_in_force(self.rules)

    def _refresh_model(self) -> None:
        """Take over another classifier where one was put in place; one that is unfit changes nothing, and is told."""
        changed, problems = self.scorer.refresh()
        if changed:
            model = self.scorer.status().classifier.active or "none"
            self.versions = {**self.versions, "model": model}
            self.alerts.use(self.rules.policy, self.rules.rules, self.versions)
        for problem in problems:
            _LOG.warning("the classifier that was put in place is unfit, %s serves on: %s", self.versions["model"],
                         problem)  # fmt: skip


def _rows_by_tick(rows: pl.DataFrame, fired: pl.Series) -> Callable[[], dict[tuple[int, str, int], int]]:
    """Where the feature stage finds the rows that fired, for the alert stage's lookups: made if an alert is written."""
    found = rows.select("partition", "subject", "tick", "origin")[fired]

    def by_tick() -> dict[tuple[int, str, int], int]:
        # a third of the time of iter_rows: with 10,000 accounts that all fire it was a tenth of the alert stage's
        *keys, origins = (column.to_list() for column in found)
        return dict(zip(zip(*keys, strict=True), origins, strict=True))

    return cache(by_tick)
