"""Labelled logs to training sets: what the classifier would have been shown, beside what is true of the account.

The way is the pipeline's own: decode, sketch, ticks, features; a sample is a row with a set. Knows no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor import wiring
from monitor.decode import decode
from monitor.errors import BadInput, NothingReadable, Problem
from monitor.evaluate.inputs import Truth, read_truth
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.features.strings import stable_hash
from monitor.pipeline import Pipeline
from monitor.records import REQUEST_SET
from monitor.score import CLASSIFIER_COLUMNS
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.sketch.frame import sketch_frame
from monitor.source.files import FileSource
from monitor.vectors import SET_SIZE, unpack

HYPOTHESES = tuple(column.removeprefix("classifier_") for column in CLASSIFIER_COLUMNS)
"""What the network is asked, in the order of the score columns."""
ROLES = ("train", "calibrate", "test")
_SHARES = (0.6, 0.8)
_POLL = 20_000
_WINDOWS = ("24h", "7d", "past", None)
_LEFT_OUT = frozenset({"product_seen_age_hours", "blob_foreign_24h", "generator_share_24h"})
"""Needs context; depends on which accounts share a partition; knows the signatures that a provider adds."""
_FAMILIES_LEFT_OUT = frozenset({"volume", "corpus"})


def feature_names() -> tuple[str, ...]:
    """Aggregates that the network reads: no windows of an hour or less (a pool has none), no volume (a heavy customer
    is not a suspect), no error share of it, no known corpus (simulated logs know none: its weights would be those that
    training began with, and move the score of whoever asks an item of one)."""
    return tuple(
        f.name
        for f in ACCOUNT_FEATURES
        if f.window in _WINDOWS and f.family not in _FAMILIES_LEFT_OUT and f.name not in _LEFT_OUT
    )


@dataclass(frozen=True, slots=True)
class Samples:
    """Arrays [samples, ...]: ``events`` uint8 [n, 32, width], ``mask`` uint8 [n, 32], ``aggregates`` float32 [n, F]
    (NaN: not known), ``labels`` int8 [n, hypotheses] (1, 0, -1 not known), ``account`` and ``group`` int32: the tenant
    that a sample is of. A group is a campaign of one log, or an account alone: splits never cut one."""

    events: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    aggregates: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    account: npt.NDArray[np.int32]
    group: npt.NDArray[np.int32]
    scenario: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.account)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that training reads."""
        made = hashlib.sha256()
        for array in (self.events, self.mask, self.aggregates, self.labels, self.account, self.group):
            made.update(np.ascontiguousarray(array).tobytes())
        made.update("\n".join(self.scenario.tolist()).encode())
        return made.hexdigest()

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Samples:
        """Some of them."""
        return Samples(*(getattr(self, name)[chosen] for name in self.__slots__))


def read_samples(
    logs: Sequence[Path],
    truth: Sequence[Path],
    verdicts: Path | None = None,
    *,
    settings: Settings | None = None,
    per_account: int = 24,
    seed: int = 1,
    progress: Callable[[str], None] = lambda note: None,
) -> Samples:
    """Samples of ``logs``, at most ``per_account`` of one account, chosen by hash.

    ``truth`` (contract 4) labels them, and makes every account without a line benign; ``verdicts``, lines of the same
    form, overrule it. Without any truth only accounts with a verdict are used. Raises BadInput, NothingReadable.
    """
    if not logs or not (truth or verdicts):
        raise BadInput([Problem("arguments", 0, "at least one --log, and --truth or --verdicts, must be given")])
    known = {line.account_id: line for path in truth for line in read_truth(path)}
    known |= {line.account_id: line for line in (read_truth(verdicts) if verdicts is not None else [])}
    parts, accounts, groups = [], 0, 0
    for number, log in enumerate(logs):
        rows = _rows(log, settings or Settings(), per_account, seed)
        if not truth:
            rows = rows.filter(pl.col("subject").is_in(list(known)))
        if rows.height:
            part = _labelled(rows, known, number)
            parts.append(replace(part, account=part.account + accounts, group=part.group + groups))
            accounts += int(part.account.max()) + 1
            groups += int(part.group.max()) + 1
        progress(f"{log.name}: {rows.height:,} sets of {rows['subject'].n_unique():,} accounts")
    if not parts:
        raise NothingReadable("no account of the logs has eight requests: nothing to train on")
    return Samples(*(np.concatenate([getattr(p, name) for p in parts]) for name in Samples.__slots__))


def _rows(log: Path, settings: Settings, per_account: int, seed: int) -> pl.DataFrame:
    """Rows of a log that bring a set: subject, t_ms, the features and the set."""
    off = settings.score.model_copy(
        update={"classifier": settings.score.classifier.model_copy(update={"model_dir": None})}
    )
    settings = settings.model_copy(update={"score": off})
    pipeline = wiring.pipeline(settings, keys=Keyring.from_seed(seed), rules=wiring.load(settings))
    source = FileSource([log], settings.features.partitions, max_bytes=settings.decode.max_bytes)
    kept = []
    while not source.finished:
        batch = source.poll(_POLL, 0.0)
        if len(batch):
            decoded = decode(batch, pipeline.decode_options)
            events, _ = sketch_frame(decoded.frame, pipeline.sketcher, entity=pipeline.decode_options.entity)
            closed, _ = pipeline.ticks.push(events, batch.trusted_clock)
            kept.append(_due(pipeline, closed))
    kept.append(_due(pipeline, pipeline.ticks.flush()))
    rows = pl.concat(kept)
    # by hash, so that an account's samples are spread over its time and the same in every run
    mark = stable_hash(pl.select(pl.format("{}/{}", rows["subject"], rows["tick"])).to_series())
    rows = rows.with_columns(mark=mark).sort("subject", "mark")
    return rows.filter(pl.int_range(pl.len()).over("subject") < per_account).sort("subject", "tick").drop("mark")


def _due(pipeline: Pipeline, closed: pl.DataFrame) -> pl.DataFrame:
    rows = pipeline.features.update(closed, pipeline.ticks.watermarks_ms)
    due = rows.filter(pl.col(REQUEST_SET).is_not_null())
    return due.select("subject", "tick", "t_ms", *feature_names(), REQUEST_SET)


def _labelled(rows: pl.DataFrame, known: Mapping[str, Truth], log: int) -> Samples:
    events, mask = unpack(rows[REQUEST_SET], wiring.VECTORS.width, SET_SIZE)
    subjects, starts = rows["subject"].to_list(), rows["t_ms"].to_numpy() / 1000
    labels = np.zeros((rows.height, len(HYPOTHESES)), np.int8)
    scenarios, groups = [], []
    for i, (subject, at) in enumerate(zip(subjects, starts.tolist(), strict=True)):
        line = known.get(subject)
        # an account whose key was stolen later is its owner's until then
        abusive = line is not None and line.abusive and at >= line.first_ts
        scenarios.append(line.scenario if line is not None and (abusive or not line.abusive) else "")
        groups.append(f"{line.campaign or line.scenario}" if line is not None and scenarios[-1] else subject)
        for j, name in enumerate(HYPOTHESES):
            if line is not None and (abusive or not line.abusive):
                labels[i, j] = 1 if line.actor == name else (-1 if name in line.also else 0)
    return Samples(
        events=events,
        mask=mask,
        aggregates=rows.select(pl.col(n).cast(pl.Float32).fill_null(float("nan")) for n in feature_names()).to_numpy(),
        labels=labels,
        account=_numbered(subjects),
        group=_numbered([f"{log}/{g}" for g in groups]),
        scenario=np.array(scenarios, np.str_),
    )


def _numbered(names: Sequence[str]) -> npt.NDArray[np.int32]:
    _, number = np.unique(np.array(names), return_inverse=True)
    return number.astype(np.int32)


def split(samples: Samples, seed: int) -> npt.NDArray[np.int8]:
    """Role of each sample, as an index of ROLES: whole groups, six, two and two of ten within each scenario.

    A scenario with a single group is trained on and not measured. A background account is a group of its own.
    """
    rng = np.random.default_rng(seed)
    groups, first = np.unique(samples.group, return_index=True)
    role = np.zeros(int(groups.max()) + 1, np.int8)
    for scenario in np.unique(samples.scenario[first]):
        mine = rng.permutation(groups[samples.scenario[first] == scenario])
        n = len(mine)
        cut = [round(n * share) for share in _SHARES]
        if n >= 3:
            cut = [min(cut[0], n - 2), min(max(cut[1], cut[0] + 1), n - 1)]
        role[mine] = np.searchsorted(cut, np.arange(n), side="right")
    # an account that had a life of its own before an attack goes where its attack goes: no tenant is in two roles
    of_account = np.full(int(samples.account.max()) + 1, -1, np.int8)
    attack = samples.scenario != ""
    of_account[samples.account[attack]] = role[samples.group[attack]]
    own = role[samples.group]
    return np.where(of_account[samples.account] >= 0, of_account[samples.account], own).astype(np.int8)
