"""ONNX Runtime: one session on the wanted providers, run in batches of a few fixed sizes. onnxruntime lives here.

Knows tensors by name, and nothing of manifests, features or columns.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from importlib import metadata
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from monitor.errors import BadInput, DependencyDown, Problem
from monitor.score.options import ClassifierOptions

if TYPE_CHECKING:
    import onnxruntime as ort  # type: ignore[import-untyped]  # ships no types

Array = npt.NDArray[Any]

PROVIDERS: Mapping[str, str] = {
    "tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider",
}  # fmt: skip
CPU_BATCH = 64
"""Largest batch on a CPU: beyond it the activations leave the cache (34,000 sets a second at 64 against 16,000 at
4,096 for 128 vectors of 32 bytes)."""
TIMINGS = 4_096
"""Newest batches whose time is kept until it is taken out."""
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


def provider_of(names: Sequence[str]) -> str | None:
    """Our word for the first of ONNX Runtime's provider names; None where there is none, or one we don't know."""
    ours = {theirs: name for name, theirs in PROVIDERS.items()}
    return ours.get(names[0]) if names else None


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
    raise DependencyDown(
        "a classifier is configured, but ONNX Runtime is not installed: pip install onnxruntime, or set "
        "score.classifier.model_dir to none"
    )


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its binding makes a class of each status code, without a common base of its own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[import-untyped]  # ships no types

    found = (getattr(state, name) for name in dir(state))
    return tuple(c for c in found if isinstance(c, type) and issubclass(c, Exception))


class Runner:
    """A model on the provider that was found, in batches of a few sizes; a CPU beside a GPU takes what is small.

    ``fallback`` says why the provider is not the first one asked for. ``gpu_from``: the fewest rows of a call that go
    to a GPU, where ``small``, a session on the CPU, is there for the others.
    """

    def __init__(
        self, session: ort.InferenceSession, fallback: str | None, buckets: Sequence[int],
        small: ort.InferenceSession | None = None, gpu_from: int = 1,
    ):  # fmt: skip
        self.session, self.fallback = session, fallback
        self._large = _Lane(session, buckets)
        self._small = _Lane(small, buckets) if small is not None and self._large.device is not None else None
        self._gpu_from = gpu_from
        self.timings: deque[tuple[str, int, float]] = deque(maxlen=TIMINGS)
        """Provider, rows and seconds of the newest batches, for whoever takes them out."""

    @property
    def buckets(self) -> tuple[int, ...]:
        """The sizes of its batches; of those on a GPU, where there is one."""
        return self._large.buckets

    def run(self, feed: Mapping[str, Array], pad: Mapping[str, Array]) -> dict[str, Array]:
        """Output by name for inputs [n, ...] by name; ``pad`` gives a row for the rest of a batch.

        Always whole batches: shapes stay few, and a row's result cannot depend on a batch's odd size. Raises
        :func:`runtime_errors`.
        """
        n = len(next(iter(feed.values())))
        lane = self._small if self._small is not None and n < self._gpu_from else self._large
        parts: dict[str, list[Array]] = {name: [] for name in lane.outputs}
        at = 0
        while at < n:
            size = lane.size(n - at)
            batch = {name: _filled(rows[at : at + size], size, pad[name]) for name, rows in feed.items()}
            began = time.perf_counter()
            answers = lane.run(batch, size)
            if lane.provider is not None:
                self.timings.append((lane.provider, min(size, n - at), time.perf_counter() - began))
            for name, answer in zip(lane.outputs, answers, strict=True):
                parts[name].append(np.asarray(answer)[: n - at])
            at += size
        return {name: np.concatenate(found) if found else np.empty(0) for name, found in parts.items()}


class _Lane:
    """A session and its batch sizes. On a GPU inputs and outputs of each size stay at one place in its memory
    (IOBinding), so that nothing is allocated while it serves; on an H200 that is no quicker than to feed arrays (0.41
    against 0.33 ms a batch of 16, 10.2 against 9.0 of 16,384: the copy is what takes time)."""

    def __init__(self, session: ort.InferenceSession, buckets: Sequence[int]):
        self._session = session
        self.provider = provider_of(session.get_providers())
        self.device = None if self.provider == "cpu" else "cuda"
        fitting = [b for b in buckets if self.device is not None or b <= CPU_BATCH]
        self.buckets = tuple(fitting or buckets[:1])
        self.outputs = [output.name for output in session.get_outputs()]
        self.bound: dict[int, _Bound] = {}

    def size(self, left: int) -> int:
        """Size of the next batch: the one that holds all that is left, unless it would be less than half full."""
        holds = next((b for b in self.buckets if b >= left), self.buckets[-1])
        full = max((b for b in self.buckets if b <= left), default=holds)
        return holds if 2 * left >= holds else full

    def run(self, batch: dict[str, Array], size: int) -> list[Array]:
        """The outputs of one whole batch, in order."""
        if self.device is None:
            answers: list[Array] = self._session.run(self.outputs, batch)
            return answers
        if size not in self.bound:
            self.bound[size] = _Bound(self._session, batch, self.outputs, self.device)
        return self.bound[size].run(batch)


class _Bound:
    """Inputs and outputs of one batch size, at fixed places in a device's memory."""

    def __init__(self, session: ort.InferenceSession, batch: Mapping[str, Array], outputs: Sequence[str], device: str):
        import onnxruntime as ort

        self._session, self._binding = session, session.io_binding()
        # allocated, not made of the first batch: on a CPU that would be the caller's own array
        place = ort.OrtValue.ortvalue_from_shape_and_type
        self._inputs = {name: place(rows.shape, rows.dtype.type, device, 0) for name, rows in batch.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in outputs:
            self._binding.bind_output(name, device)

    def run(self, batch: Mapping[str, Array]) -> list[Array]:
        for name, rows in batch.items():
            self._inputs[name].update_inplace(rows)
        self._session.run_with_iobinding(self._binding)
        answers: list[Array] = self._binding.copy_outputs_to_cpu()
        return answers


def _filled(rows: Array, size: int, pad: Array) -> Array:
    if len(rows) == size:
        return np.ascontiguousarray(rows)
    batch = np.empty((size, *rows.shape[1:]), rows.dtype)
    batch[: len(rows)] = rows
    batch[len(rows) :] = pad
    return batch


def open_model(model: bytes, path: str, options: ClassifierOptions) -> Runner:
    """A session on the wanted providers. ONNX Runtime falls back to the CPU with a log line only, so what the
    session says is compared with what was asked. Raises BadInput, naming ``path``."""
    import onnxruntime as ort

    available = ort.get_available_providers()
    wanted = [PROVIDERS[p] for p in options.providers]
    usable = [p for p in wanted if p in available]
    if PROVIDERS["cuda"] in usable:
        _load_cuda()
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
    refusals: tuple[type[Exception], ...] = (*runtime_errors(), ValueError, RuntimeError)
    try:
        session = ort.InferenceSession(model, settings, providers=[_told(p) for p in usable or [PROVIDERS["cpu"]]])
        small = None
        if session.get_providers()[0] != PROVIDERS["cpu"] and options.gpu_from > 1 and not options.require_gpu:
            small = ort.InferenceSession(model, settings, providers=[PROVIDERS["cpu"]])
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
    return Runner(session, fallback, options.buckets, small, options.gpu_from)


def _told(provider: str) -> str | tuple[str, dict[str, str]]:
    """A provider with what it must be told: no TensorFloat-32, whose ten bits are too few for the same scores."""
    return (provider, {"use_tf32": "0"}) if provider == PROVIDERS["cuda"] else provider


@cache
def _load_cuda() -> None:
    """Find CUDA's libraries where ``pip install onnxruntime-gpu[cuda,cudnn]`` puts them, which the loader doesn't know.

    What is not there is not said here (ONNX Runtime prints it): the session's fall-back is.
    """
    import onnxruntime as ort

    with redirect_stdout(StringIO()):
        ort.preload_dlls()
