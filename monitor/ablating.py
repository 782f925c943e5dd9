"""The campaign steps alone, with kinds of link or the text taken out of what they read: what each is worth, cheaply.

A log is read once, up to the blobs of its campaign steps; each variant works the steps from these, which is a tenth of
a whole run. What is taken out is what a log without the fields would not have brought: a test compares the two byte for
byte. Alerts on single accounts, and what the classifier and the anomaly models say, are not there.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from monitor import offline, wiring
from monitor.alerts import FileSink
from monitor.backtest import translator
from monitor.campaigning import LEADER
from monitor.campaigns import StepBlob
from monitor.campaigns.kinds import KINDS
from monitor.campaigns.sums import SHAPE
from monitor.evaluate.ablation import GROUPS
from monitor.offline import Detector
from monitor.partwise import Work, make_pipeline
from monitor.source.files import FileSource
from monitor.store.links import bytes_of

NAME: Final = "campaign steps"
"""The run with everything; with something taken out it is called ``campaign steps, no payment``."""
RUNS: Final = ("metadata only", "no payment", "no egress", "no client", "no creation", "no sign-up links", "no blobs",
               "no links at all")  # fmt: skip
_OF_TEXT: Final = (
    "n_text", "question", "lex_reasoning", "lex_rubric", "lex_dataset", "lex_rewrite", "lex_benchmark", "lex_wrapper",
    "n_harvest", "n_human", *SHAPE,
)  # fmt: skip
"""Sums of an account that its prompts alone add to."""
_OF_FIELD: Final[Mapping[str, tuple[str, ...]]] = {"prompt": _OF_TEXT, "reasoning_blob_fp": ("n_blob",)}
_RECORDS: Final = 20_000


def without(blob: StepBlob, gone: Collection[str]) -> StepBlob:
    """The blob as it would be had the log not the fields ``gone`` (contract 1).

    Two things a blob can't tell: a tenant without an organisation is the account, never its billing account, and a
    request is taken to have offered tools though only their schema said so.
    """
    kinds = [code for code, kind in enumerate(KINDS) if kind.field in gone]
    accounts = blob.accounts
    zero = [name for field, names in _OF_FIELD.items() if field in gone for name in names]
    columns = [pl.lit(0, accounts.schema[name]).alias(name) for name in zero]
    if "account_created_at" in gone:
        columns.append(pl.lit(None, accounts.schema["created_ms"]).alias("created_ms"))
    if "org_id" in gone:
        columns.append(pl.col("account").alias("tenant"))
    links = blob.links.filter(~pl.col("kind").is_in(kinds))
    kept = () if "prompt" in gone else (blob.items, blob.looked)
    return StepBlob(blob.step, blob.partition, accounts.with_columns(columns), links, blob.models, *kept)


@dataclass(frozen=True, slots=True)
class StepsAlone:
    """A run as the evaluation calls one: (log, context, alerts to write) to a summary. Can be pickled.

    The blobs lie beside the log once they are made, for the next variant; those of other code or settings are left
    alone.
    """

    detector: Detector
    gone: frozenset[str] = frozenset()

    def __call__(self, log: Path, context: Path, alerts: Path) -> Mapping[str, Any]:
        """Run; an earlier ``alerts`` goes. Raises BadInput."""
        work = self._work(log, context)
        file = log.with_name(f"steps-{self.detector.stamp()[:16]}.blobs")
        if not file.exists():
            part = file.with_suffix(f".{os.getpid()}")
            part.write_bytes(msgspec.msgpack.encode([blob.encode() for blob in blobs_of(work)]))
            part.replace(file)
        blobs = [StepBlob.decode(body) for body in msgspec.msgpack.decode(file.read_bytes(), type=list[bytes])]
        pipeline = make_pipeline(work)
        end = max((blob.step for blob in blobs), default=-1) + 1
        kept = [(blob.step, blob.partition, without(blob, self.gone)) for blob in blobs]
        pipeline.campaigns.store.put(kept, {LEADER: end})
        raised = pipeline.work_campaigns()
        alerts.unlink(missing_ok=True)
        with closing(FileSink(alerts)) as sink:
            sink.send(raised)
            sink.flush()
        return {"alerts": len({alert.alert_id for alert in raised}), "steps": end}

    def _work(self, log: Path, context: Path) -> Work:
        settings, rules = self.detector.settings, self.detector.rules
        partitions = settings.features.partitions
        return Work(
            settings, (log,), (), tuple(offline.context_events([context])), (rules,) if rules is not None else (),
            None, self.detector.seed, partitions, frozenset(range(partitions)),
        )  # fmt: skip


def blobs_of(work: Work) -> list[StepBlob]:
    """Every blob of the logs, in order of step and partition: decode, sketch and ticks, and nothing of each account."""
    pipeline, settings = make_pipeline(work), work.settings
    campaigns, most = pipeline.campaigns, settings.decode.max_bytes
    reader = wiring.reader(settings, work.format)
    source = FileSource(list(work.logs), work.partitions, max_bytes=most, translate=translator(reader, most))
    while not source.finished:
        batch = source.poll(_RECORDS, 0.0)
        if not len(batch):
            continue
        prepared = pipeline.prepare(batch)
        pipeline.heavy.commit(prepared.counted)
        closed, _ = pipeline.ticks.push(prepared.decoded.frame, batch.trusted_clock)
        campaigns.collect(closed)
        campaigns.close(pipeline.ticks.watermarks_ms)
    campaigns.collect(pipeline.ticks.flush())
    campaigns.close(None)
    campaigns.publish()
    store = campaigns.store
    places = [at for of in store.steps({}, max(store.marks().values(), default=0)).values() for at in of]
    return [body if isinstance(body, StepBlob) else StepBlob.decode(bytes_of(body)) for body in store.read(places)]


def variants(detector: Detector) -> dict[str, StepsAlone]:
    """The runs of a suite, by name: everything, and each of ``RUNS`` taken out."""
    out = {NAME: StepsAlone(detector)}
    return out | {f"{NAME}, {name}": StepsAlone(detector, frozenset(GROUPS[name])) for name in RUNS}
