"""The ONNX classifier: one checked model, run in bulk, with a second one in its shadow.

A model reads aggregates alone, or aggregates and a set of requests (an account's last 32, or up to 128 of a
campaign's pool, by the same weights). Inactive, and saying why, where none is configured: the columns are null then.
Knows the manifest and matrices; what a feature means, when a row brings a set, and when a reload may take effect (an
epoch boundary), is its caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.errors import BadInput, Problem
from monitor.records import REQUEST_SET
from monitor.score.manifest import MANIFEST, MODEL, POOL, Manifest, ModelFiles, locate, read, stamp_of
from monitor.score.options import CLASSIFIER_COLUMNS, ClassifierOptions, Vocabulary
from monitor.score.runtime import Runner, check_runtimes, installed_runtimes, open_model, runtime_errors
from monitor.vectors import VectorLayout, unpack

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

_DISAGREE = 0.1
_MANY = 4_096
"""Rows from which on Polars makes the matrix: 16,384 by 73 take its threads 2 ms on 16 cores and one 14, column by
column, under the interpreter's lock. Of fewer, handing the work out costs more than it saves."""


@dataclass(frozen=True, slots=True)
class ClassifierStatus:
    """What runs: ``providers`` as the session answered, ``fallback`` why they are not those asked for,
    ``inactive`` why there is no opinion. Shadow figures: rows compared, and rows where a column differs by 0.1."""

    active: str | None
    shadow: str | None
    providers: tuple[str, ...]
    fallback: str | None
    inactive: str | None
    failures: int
    shadow_rows: int
    shadow_differs: int


@dataclass(slots=True)
class _Model:
    files: ModelFiles
    runner: Runner
    pool: Runner | None
    defaults: F32 = field(init=False)

    def __post_init__(self) -> None:
        self.defaults = np.array(self.manifest.nulls.defaults, np.float32)

    @property
    def manifest(self) -> Manifest:
        return self.files.manifest

    def infer(self, rows: F32, events: U8 | None = None, mask: U8 | None = None) -> dict[str, F64]:
        """Column -> one value a row of aggregates [n, F] (not finite: not known) and, where the model reads them,
        events [n, K, D] with their mask [n, K]; NaN where a row knows too little."""
        manifest, known = self.manifest, np.isfinite(rows)
        least = manifest.nulls.min_known
        enough = known.mean(axis=1) >= least if least > 0 else np.ones(len(rows), np.bool_)
        runner = self.runner
        feed: dict[str, npt.NDArray[Any]] = {}
        pad: dict[str, npt.NDArray[Any]] = {}
        if manifest.sets is not None:
            assert events is not None
            assert mask is not None
            enough &= mask.sum(axis=1) >= manifest.sets.min_events
            if events.shape[1] > manifest.sets.size:
                assert self.pool is not None
                runner = self.pool
            events, mask = _widened(events, mask, manifest.sets.size if runner is self.runner else manifest.sets.pool)
            feed = {manifest.name_of("events"): events, manifest.name_of("events_mask"): mask}
            pad = {name: np.zeros(1, np.uint8) for name in feed}
        judged = np.flatnonzero(enough) if len(rows) else np.empty(0, np.int64)
        out = {c: np.full(len(rows), np.nan) for c in manifest.columns}
        if not len(judged):
            return out
        if len(judged) < len(rows):  # else nothing is copied: 1.5 KB a row
            feed = {name: array[judged] for name, array in feed.items()}
            rows, known = rows[judged], known[judged]
        feed[manifest.name_of("aggregates")] = np.where(known, rows, self.defaults)
        pad[manifest.name_of("aggregates")] = self.defaults
        if manifest.input("mask") is not None:
            feed[manifest.name_of("mask")] = known.astype(np.float32)
            pad[manifest.name_of("mask")] = np.zeros(1, np.float32)
        answers = runner.run(feed, pad)
        for output in manifest.outputs:
            table = np.asarray(answers[output.name], np.float64).reshape(len(judged), len(output.columns))
            # not a probability: no opinion (a graph's own rounding at the ends is let through)
            sane = (table >= -1e-6) & (table <= 1 + 1e-6)
            table = np.where(sane, np.clip(table, 0.0, 1.0), np.nan)
            for i, column in enumerate(output.columns):
                if column:
                    out[column][judged] = table[:, i]
        return out

    def of_frame(self, frame: pl.DataFrame) -> dict[str, F64]:
        """:meth:`infer` of rows; a model that reads sets has no opinion of a row without one."""
        manifest = self.manifest
        if manifest.sets is None:
            return self.infer(_matrix(frame, manifest.features))
        out = {c: np.full(frame.height, np.nan) for c in manifest.columns}
        if REQUEST_SET not in frame.columns:
            return out
        at = np.flatnonzero(frame[REQUEST_SET].is_not_null().to_numpy())
        if len(at):
            part = frame[at] if len(at) < frame.height else frame  # the sets themselves are 1.5 KB a row
            events, mask = unpack(part[REQUEST_SET], manifest.sets.width, manifest.sets.size)
            for column, values in self.infer(_matrix(part, manifest.features), events, mask).items():
                out[column][at] = values
        return out


class Classifier:
    """The configured model, or none. A model that is not fit to serve is refused: BadInput, all problems.

    ``layout`` is that of the vectors in the rows' sets; without it models that read sets are refused.
    """

    def __init__(self, options: ClassifierOptions, catalogue: Vocabulary, layout: VectorLayout | None = None):
        self._options, self._catalogue, self._layout = options, catalogue, layout
        self._active: _Model | None = None
        self._shadow: _Model | None = None
        self._inactive: str | None = "no model is configured (score.classifier.model_dir)"
        self._stamp: tuple[tuple[str, int, int], ...] = ()
        self._failures = self._shadow_rows = self._shadow_differs = 0
        if options.model_dir is not None:
            check_runtimes(installed_runtimes())
            self._stamp = stamp_of(options.model_dir)
            self._active, self._shadow = self._load()
            self._inactive = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the active model fills."""
        return self._active.manifest.columns if self._active else ()

    @property
    def features(self) -> tuple[str, ...]:
        """The aggregates that the active model reads, in the order of the columns of :meth:`score_sets`."""
        return tuple(self._active.manifest.features) if self._active else ()

    @property
    def reads_sets(self) -> bool:
        """Whether only rows with a set get an opinion."""
        return self._active is not None and self._active.manifest.sets is not None

    def refresh(self) -> tuple[bool, tuple[Problem, ...]]:
        """Look at ``CURRENT`` and ``SHADOW`` again: whether another model serves now, and why not where one that
        was chosen is unfit (the one that serves goes on). Call at an epoch boundary."""
        if self._options.model_dir is None:
            return False, ()
        stamp = stamp_of(self._options.model_dir)
        if stamp == self._stamp:  # once an epoch: a backtest of weeks has a thousand
            return False, ()
        self._stamp = stamp
        try:
            active, shadow = self._load()
        except BadInput as error:
            return False, error.problems
        changed = [_digest(active), _digest(shadow)] != [_digest(self._active), _digest(self._shadow)]
        self._active, self._shadow, self._inactive = active, shadow, None
        if changed:
            self._shadow_rows = self._shadow_differs = 0
        return changed, ()

    def score(self, frame: pl.DataFrame) -> dict[str, F64]:
        """Every classifier column, [rows], 0 to 1, NaN for no opinion. Pure."""
        out = {name: np.full(frame.height, np.nan) for name in CLASSIFIER_COLUMNS}
        if self._active is not None and frame.height:
            out.update(self._tried(lambda model: model.of_frame(frame)))
        return out

    def score_sets(self, events: U8, mask: npt.NDArray[Any], aggregates: F32) -> dict[str, F64]:
        """Every classifier column of sets that are no account's: a campaign's pool.

        ``events`` uint8 [n, K, D] are vectors of the layout, K up to 128; ``mask`` [n, K] is true where one is there;
        ``aggregates`` float32 [n, F] are the members' :attr:`features`, averaged as the caller sees fit, NaN where not
        known. Values 0 to 1, NaN for no opinion. Raises ValueError for other shapes. Pure.
        """
        out = {name: np.full(len(events), np.nan) for name in CLASSIFIER_COLUMNS}
        if self._active is None or self._active.manifest.sets is None or not len(events):
            return out
        sets = self._active.manifest.sets
        n, size, width = events.shape
        if width != sets.width or size > sets.pool or mask.shape != (n, size):
            raise ValueError(f"sets are at most {sets.pool} vectors of {sets.width} bytes, with a mask of each")
        if aggregates.shape != (n, len(self.features)):
            raise ValueError(f"aggregates must be [{n}, {len(self.features)}], in the order of `features`")
        rows = np.asarray(aggregates, np.float32)
        flags = (np.asarray(mask) > 0).astype(np.uint8)
        out.update(self._tried(lambda model: model.infer(rows, np.asarray(events, np.uint8), flags)))
        return out

    def _tried(self, ask: Any) -> Mapping[str, F64]:
        assert self._active is not None
        try:
            answers: Mapping[str, F64] = ask(self._active)
        except runtime_errors() as error:  # a GPU that ran out of memory, say: null, counted, and said
            self._failures += 1
            self._inactive = f"inference of {self._active.manifest.label} failed ({type(error).__name__})"
            return {}
        self._inactive = None
        return answers

    def take_timings(self) -> list[tuple[str, int, float]]:
        """Provider, rows and seconds of each batch of the active model since the last call; for metrics alone."""
        runners = (self._active.runner, self._active.pool) if self._active is not None else ()
        found = []
        for runner in runners:
            while runner is not None and runner.timings:
                found.append(runner.timings.popleft())
        return found

    def compare(self, frame: pl.DataFrame) -> None:
        """Run the shadow model on a frame that was scored, and count where it disagrees."""
        if self._shadow is None or not frame.height:
            return
        differs = np.zeros(frame.height, np.bool_)
        try:
            answers = self._shadow.of_frame(frame)
        except runtime_errors():
            self._failures += 1
            return
        for name, values in answers.items():
            if name in frame.columns:
                theirs = frame.get_column(name).cast(pl.Float64).to_numpy()
                differs |= np.abs(values - theirs) > _DISAGREE
        due = frame[REQUEST_SET].is_not_null().sum() if self._shadow.manifest.sets is not None else frame.height
        self._shadow_rows += int(due)
        self._shadow_differs += int(differs.sum())

    def status(self) -> ClassifierStatus:
        """What runs now."""
        active, shadow = self._active, self._shadow
        return ClassifierStatus(
            active.manifest.label if active else None,
            shadow.manifest.label if shadow else None,
            tuple(active.runner.session.get_providers()) if active else (),
            active.runner.fallback if active else None,
            self._inactive, self._failures, self._shadow_rows, self._shadow_differs,
        )  # fmt: skip

    def _load(self) -> tuple[_Model, _Model | None]:
        assert self._options.model_dir is not None
        active_dir, shadow_dir = locate(self._options.model_dir)
        active = self._one(active_dir, self._active)
        return active, self._one(shadow_dir, self._shadow) if shadow_dir else None

    def _one(self, directory: Any, loaded: _Model | None) -> _Model:
        files = read(directory, self._catalogue, self._layout)
        if loaded is not None and loaded.files.digest == files.digest:
            return loaded
        pool = None
        if files.pool:
            pool = open_model(files.pool, str(files.directory / POOL), self._options)
        model = _Model(files, open_model(files.model, str(files.directory / MODEL), self._options), pool)
        _check_shapes(model)
        _check_golden(model)
        return model


def _digest(model: _Model | None) -> str | None:
    return model.files.digest if model else None


def _matrix(frame: pl.DataFrame, names: Sequence[str]) -> F32:
    """[rows, names], not finite where not known."""
    have = set(frame.columns)
    if frame.height >= _MANY:
        unknown = pl.repeat(None, pl.len(), dtype=pl.Float32)
        columns = [pl.col(name).cast(pl.Float32) if name in have else unknown.alias(name) for name in names]
        return frame.select(columns).to_numpy(order="c")
    out = np.empty((frame.height, len(names)), np.float32)
    for i, name in enumerate(names):
        out[:, i] = frame.get_column(name).to_numpy() if name in have else np.nan  # rounds as Polars' cast does
    return out


def _widened(events: U8, mask: U8, size: int) -> tuple[U8, U8]:
    """Sets of ``size`` vectors: empty ones behind."""
    missing = ((0, 0), (0, size - events.shape[1]))
    return (np.pad(events, (*missing, (0, 0))), np.pad(mask, missing)) if missing[1][1] else (events, mask)


def _check_shapes(model: _Model) -> None:
    """The graphs' inputs and outputs are those of the manifest, by name, type and shape."""
    manifest, path = model.manifest, str(model.files.directory / MANIFEST)
    problems = []
    sets = manifest.sets
    graphs = [(model.runner, sets.size if sets else 0)]
    if model.pool is not None and sets is not None:
        graphs.append((model.pool, sets.pool))
    for runner, size in graphs:
        wanted: dict[str, tuple[str, list[int]]] = {}
        for given in manifest.inputs:
            wanted[given.name] = ("float", [len(manifest.features)])
            if sets is not None and given.role in ("events", "events_mask"):
                wanted[given.name] = ("uint8", [size, sets.width] if given.role == "events" else [size])
        graph_in = {i.name: (i.type, list(i.shape)) for i in runner.session.get_inputs()}
        graph_out = {o.name: (o.type, list(o.shape)) for o in runner.session.get_outputs()}
        if set(graph_in) != set(wanted):
            problems.append(Problem(path, 0, f"the graph reads {sorted(graph_in)}", "inputs"))
        for name in (n for n in wanted if n in graph_in):
            (kind, shape), (type_, rest) = graph_in[name], wanted[name]
            if kind != f"tensor({type_})" or not shape or isinstance(shape[0], int) or shape[1:] != rest:
                needed = f"{type_} [B, {', '.join(map(str, rest))}]"
                problems.append(Problem(path, 0, f"{name} is {kind} {shape}, needed: {needed}", "inputs"))
        for output in manifest.outputs:
            kind, shape = graph_out.get(output.name, ("missing", []))
            width = len(output.columns)
            fits = (len(shape) == 2 and shape[1] == width) or (len(shape) == 1 and width == 1)
            if kind != "tensor(float)" or not fits:
                message = f"{output.name} is {kind} {shape}, needed: float [B, {width}]"
                problems.append(Problem(path, 0, message, "outputs"))
    if problems:
        raise BadInput(problems)


def _check_golden(model: _Model) -> None:
    """The golden rows give what training saw: the check that sees features in another order, or another scaler."""
    golden, path = model.manifest.golden, str(model.files.directory / MANIFEST)
    rows = np.array([[row[name] for name in model.manifest.features] for row in golden.rows], np.float32)
    problems = []
    try:
        for answers, expected, of in _golden_answers(model, rows):
            for column, wanted in expected.items():
                off = np.abs(answers[column] - np.array(wanted))
                if not (off <= golden.tolerance).all():  # NaN is not within anything
                    worst = "no opinion" if np.isnan(off).any() else f"off by {off.max():.3g}"
                    message = f"{column}{of}: {worst}, tolerance {golden.tolerance:g}"
                    problems.append(Problem(path, 0, message, "golden"))
    except runtime_errors() as error:
        message = f"the graph cannot run the golden rows ({type(error).__name__})"
        raise BadInput([Problem(path, 0, message, "golden")]) from error
    if problems:
        raise BadInput(problems)


def _golden_answers(model: _Model, rows: F32) -> Sequence[tuple[dict[str, F64], Mapping[str, list[float]], str]]:
    golden, sets = model.manifest.golden, model.manifest.sets
    if sets is None:
        return [(model.infer(rows), golden.expected, "")]
    made = golden.sets(sets.width, sets.size)
    found = [(model.infer(rows, *made), golden.expected, "")]
    if model.pool is not None:
        # the same sets with empty vectors behind: the pool's graph must say the same of them
        found.append((model.infer(rows, *_widened(*made, sets.pool)), golden.expected, " (pool)"))
    return found
