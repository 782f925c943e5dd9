"""The ONNX classifier: one checked model, run in bulk, with a second one in its shadow. onnxruntime lives here.

Inactive, and saying why, until a model is configured: the columns are null then. Knows the manifest and matrices;
what a feature means, and when a reload may take effect (an epoch boundary), is its caller's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.errors import BadInput, DependencyDown, Problem
from monitor.score.manifest import MANIFEST, MODEL, Manifest, ModelFiles, locate, read
from monitor.score.options import CLASSIFIER_COLUMNS, ClassifierOptions, Vocabulary

if TYPE_CHECKING:
    import onnxruntime as ort  # type: ignore[import-untyped]  # ships no types

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

PROVIDERS: Mapping[str, str] = {
    "tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider",
}  # fmt: skip
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_DISAGREE = 0.1


def installed_runtimes() -> tuple[str, ...]:
    """Which distributions of ONNX Runtime are installed."""
    found = []
    for name in _DISTRIBUTIONS:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return tuple(found)


def check_runtimes(installed: Collection[str]) -> None:
    """Raises DependencyDown unless exactly one distribution is there: two overwrite each other's files, and which
    one then answers (most often the one without a GPU) is chance."""
    if len(installed) == 1:
        return
    if installed:
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one you want"
        raise DependencyDown(f"onnxruntime and onnxruntime-gpu are both installed and overwrite each other: {remedy}")
    raise DependencyDown("a classifier is configured, but ONNX Runtime is not installed: pip install onnxruntime")


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
    session: ort.InferenceSession
    fallback: str | None
    defaults: F32 = field(init=False)

    def __post_init__(self) -> None:
        self.defaults = np.array(self.manifest.nulls.defaults, np.float32)

    @property
    def manifest(self) -> Manifest:
        return self.files.manifest

    def infer(self, rows: F32, buckets: Sequence[int]) -> dict[str, F64]:
        """Column -> one value a row of [n, F] (NaN: not known); NaN where a row knows too little."""
        manifest, known = self.manifest, ~np.isnan(rows)
        judged = np.flatnonzero(known.mean(axis=1) >= manifest.nulls.min_known) if len(rows) else np.empty(0, np.int64)
        out = {c: np.full(len(rows), np.nan) for c in manifest.columns}
        filled = np.where(known, rows, self.defaults).astype(np.float32)
        at = 0
        while at < len(judged):
            # Always a whole bucket: shapes stay few, and a row's result cannot depend on a batch's odd size.
            left = len(judged) - at
            size = next((b for b in buckets if b >= left), buckets[-1])
            chosen = judged[at : at + size]
            for column, values in self._run(filled[chosen], known[chosen], size).items():
                out[column][chosen] = values[: len(chosen)]
            at += size
        return out

    def _run(self, rows: F32, known: npt.NDArray[np.bool_], size: int) -> dict[str, F64]:
        manifest = self.manifest
        batch = np.tile(self.defaults, (size, 1))
        batch[: len(rows)] = rows
        feed = {manifest.input("aggregates"): batch}
        mask_name = manifest.input("mask")
        if mask_name is not None:
            mask = np.zeros_like(batch)
            mask[: len(rows)] = known
            feed[mask_name] = mask
        answers = self.session.run([o.name for o in manifest.outputs], feed)
        out = {}
        for output, answer in zip(manifest.outputs, answers, strict=True):
            table = np.asarray(answer, np.float64).reshape(size, len(output.columns))
            for i, column in enumerate(output.columns):
                if column:
                    values = table[:, i]
                    # not a probability: no opinion (a graph's own rounding at the ends is let through)
                    sane = np.isfinite(values) & (values >= -1e-6) & (values <= 1 + 1e-6)
                    out[column] = np.where(sane, np.clip(values, 0.0, 1.0), np.nan)
        return out


class Classifier:
    """The configured model, or none. A model that is not fit to serve is refused: BadInput, all problems."""

    def __init__(self, options: ClassifierOptions, catalogue: Vocabulary):
        self._options, self._catalogue = options, catalogue
        self._active: _Model | None = None
        self._shadow: _Model | None = None
        self._inactive: str | None = "no model is configured (score.classifier.model_dir)"
        self._failures = self._shadow_rows = self._shadow_differs = 0
        if options.model_dir is not None:
            check_runtimes(installed_runtimes())
            self._active, self._shadow = self._load()
            self._inactive = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the active model fills."""
        return self._active.manifest.columns if self._active else ()

    def refresh(self) -> tuple[bool, tuple[Problem, ...]]:
        """Look at ``CURRENT`` and ``SHADOW`` again: whether another model serves now, and why not where one that
        was chosen is unfit (the one that serves goes on). Call at an epoch boundary."""
        if self._options.model_dir is None:
            return False, ()
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
            try:
                out.update(self._active.infer(_matrix(frame, self._active.manifest.features), self._options.buckets))
                self._inactive = None
            except _runtime_errors() as error:  # a GPU that ran out of memory, say: null, counted, and said
                self._failures += 1
                self._inactive = f"inference of {self._active.manifest.label} failed ({type(error).__name__})"
        return out

    def compare(self, frame: pl.DataFrame) -> None:
        """Run the shadow model on a frame that was scored, and count where it disagrees."""
        if self._shadow is None or not frame.height:
            return
        differs = np.zeros(frame.height, np.bool_)
        try:
            answers = self._shadow.infer(_matrix(frame, self._shadow.manifest.features), self._options.buckets)
        except _runtime_errors():
            self._failures += 1
            return
        for name, values in answers.items():
            if name in frame.columns:
                theirs = frame.get_column(name).cast(pl.Float64).to_numpy()
                differs |= np.abs(values - theirs) > _DISAGREE
        self._shadow_rows += frame.height
        self._shadow_differs += int(differs.sum())

    def status(self) -> ClassifierStatus:
        """What runs now."""
        active, shadow = self._active, self._shadow
        return ClassifierStatus(
            active.manifest.label if active else None,
            shadow.manifest.label if shadow else None,
            tuple(active.session.get_providers()) if active else (),
            active.fallback if active else None,
            self._inactive, self._failures, self._shadow_rows, self._shadow_differs,
        )  # fmt: skip

    def _load(self) -> tuple[_Model, _Model | None]:
        assert self._options.model_dir is not None
        active_dir, shadow_dir = locate(self._options.model_dir)
        active = self._one(active_dir, self._active)
        return active, self._one(shadow_dir, self._shadow) if shadow_dir else None

    def _one(self, directory: Any, loaded: _Model | None) -> _Model:
        files = read(directory, self._catalogue)
        if loaded is not None and loaded.files.digest == files.digest:
            return loaded
        model = _open(files, self._options)
        _check_shapes(model)
        _check_golden(model, self._options.buckets)
        return model


def _digest(model: _Model | None) -> str | None:
    return model.files.digest if model else None


def _matrix(frame: pl.DataFrame, names: Sequence[str]) -> F32:
    have = set(frame.columns)
    out = np.full((frame.height, len(names)), np.nan, np.float32)
    for i, name in enumerate(names):
        if name in have:
            out[:, i] = frame.get_column(name).cast(pl.Float32).to_numpy()
    out[~np.isfinite(out)] = np.nan
    return out


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its binding makes a class of each status code, without a common base of its own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[import-untyped]  # ships no types

    found = (getattr(state, name) for name in dir(state))
    return tuple(c for c in found if isinstance(c, type) and issubclass(c, Exception))


def _open(files: ModelFiles, options: ClassifierOptions) -> _Model:
    """A session on the wanted providers. ONNX Runtime falls back to the CPU with a log line only, so what the
    session says is compared with what was asked."""
    import onnxruntime as ort

    path = str(files.directory / MODEL)
    available = ort.get_available_providers()
    wanted = [PROVIDERS[p] for p in options.providers]
    usable = [p for p in wanted if p in available]
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads  # the default takes every core, and fights with Polars
    settings.inter_op_num_threads = 1
    # The fall-back is said below, once, and not as coloured lines of C++ (the provider's go to the default logger).
    settings.log_severity_level = 4
    ort.set_default_logger_severity(4)
    if options.require_gpu:
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        usable = [p for p in usable if p != PROVIDERS["cpu"]]
        if not usable:
            have = ", ".join(available)
            raise BadInput([Problem(path, 0, f"require_gpu is set, but this ONNX Runtime has only {have}")])
    refusals: tuple[type[Exception], ...] = (*_runtime_errors(), ValueError, RuntimeError)
    try:
        session = ort.InferenceSession(files.model, settings, providers=usable or [PROVIDERS["cpu"]])
    except refusals as error:
        remedy = "see `monitor doctor` for the GPU" if options.require_gpu else "export it anew with opset 18"
        raise BadInput([Problem(path, 0, f"ONNX Runtime refuses it ({type(error).__name__}): {remedy}")]) from error
    got = session.get_providers()
    if options.require_gpu and got[0] == PROVIDERS["cpu"]:
        message = "require_gpu is set, but the session runs on the CPU: see `monitor doctor` for the driver and CUDA"
        raise BadInput([Problem(path, 0, message)])
    fallback = None
    if got[0] != wanted[0]:
        why = "is not in this ONNX Runtime" if wanted[0] not in available else "could not be started (driver or CUDA)"
        fallback = f"{wanted[0]} {why}: running on {got[0]}"
    return _Model(files, session, fallback)


def _check_shapes(model: _Model) -> None:
    """The graph's inputs and outputs are those of the manifest, by name, type and shape."""
    manifest, path = model.manifest, str(model.files.directory / MANIFEST)
    problems = []
    graph_in = {i.name: (i.type, list(i.shape)) for i in model.session.get_inputs()}
    graph_out = {o.name: (o.type, list(o.shape)) for o in model.session.get_outputs()}
    width = len(manifest.features)
    if set(graph_in) != {i.name for i in manifest.inputs}:
        problems.append(Problem(path, 0, f"the graph reads {sorted(graph_in)}", "inputs"))
    for name in (i.name for i in manifest.inputs if i.name in graph_in):
        kind, shape = graph_in[name]
        if kind != "tensor(float)" or len(shape) != 2 or isinstance(shape[0], int) or shape[1] != width:
            problems.append(Problem(path, 0, f"{name} is {kind} {shape}, needed: float [B, {width}]", "inputs"))
    for output in manifest.outputs:
        kind, shape = graph_out.get(output.name, ("missing", []))
        width = len(output.columns)
        fits = (len(shape) == 2 and shape[1] == width) or (len(shape) == 1 and width == 1)
        if kind != "tensor(float)" or not fits:
            problems.append(Problem(path, 0, f"{output.name} is {kind} {shape}, needed: float [B, {width}]", "outputs"))
    if problems:
        raise BadInput(problems)


def _check_golden(model: _Model, buckets: Sequence[int]) -> None:
    """The golden rows give what training saw: the check that sees features in another order, or another scaler."""
    golden, path = model.manifest.golden, str(model.files.directory / MANIFEST)
    rows = np.array([[row[name] for name in model.manifest.features] for row in golden.rows], np.float32)
    try:
        answers = model.infer(rows, buckets)
    except _runtime_errors() as error:
        message = f"the graph cannot run the golden rows ({type(error).__name__})"
        raise BadInput([Problem(path, 0, message, "golden")]) from error
    problems = []
    for column, expected in golden.expected.items():
        off = np.abs(answers[column] - np.array(expected))
        if not (off <= golden.tolerance).all():  # NaN is not within anything
            worst = "no opinion" if np.isnan(off).any() else f"off by {off.max():.3g}"
            problems.append(Problem(path, 0, f"{column}: {worst}, tolerance {golden.tolerance:g}", "golden"))
    if problems:
        raise BadInput(problems)
