"""ONNX Runtime: one session on the wanted providers, run in batches of a few fixed sizes. onnxruntime lives here.

Knows tensors by name, and nothing of manifests, features or columns.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache, partial
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
GRAPH_ROWS = 1_024
"""Largest batch that a captured graph runs. On an H200, in us with a graph and without: 147 and 342 of 8 rows, 173 and
515 of 64, 204 and 394 of 256, 473 and 838 of 1,024. Of 4,096 a graph would gain a tenth and hold 160 MiB more than a
plain run, of 16,384 nothing, and hold 640."""
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
    """What ONNX Runtime raises: its binding makes a class of each status code, without a common base of its own, and a
    bare RuntimeError of what runs by IOBinding, a GPU out of memory too."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[import-untyped]  # ships no types

    found = (getattr(state, name) for name in dir(state))
    return (*(c for c in found if isinstance(c, type) and issubclass(c, Exception)), RuntimeError)


class Runner:
    """A model on the provider that was found, in batches of a few sizes; a CPU beside a GPU takes what is small.

    ``fallback`` says why the provider is not the first one asked for. ``gpu_from``: the fewest rows of a call that go
    to a GPU, where ``small``, a session on the CPU, is there for the others. ``plain`` opens a session that captures no
    graphs; None: this one captures none. One call at a time: batches share their places in memory.
    """

    def __init__(
        self, session: ort.InferenceSession, fallback: str | None, buckets: Sequence[int],
        small: ort.InferenceSession | None = None, gpu_from: int = 1,
        plain: Callable[[], ort.InferenceSession] | None = None,
    ):  # fmt: skip
        self.fallback = fallback
        self._large = _Lane(session, buckets, plain)
        self._small = _Lane(small, buckets) if small is not None and self._large.device is not None else None
        self._gpu_from = gpu_from
        self.timings: deque[tuple[str, int, float]] = deque(maxlen=TIMINGS)
        """Provider, rows and seconds of the newest batches, for whoever takes them out."""

    @property
    def session(self) -> ort.InferenceSession:
        """What runs, on the provider that was found."""
        return self._large.session

    @property
    def graphs(self) -> bool:
        """Whether batches on a GPU are captured graphs."""
        return self._large.plain is not None

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


class _Gate:
    """Many run at once, or one captures. CUDA fails a capture, and with it the calls of every other thread of the
    process, where one of them allocates or copies meanwhile (cudaStreamCaptureModeGlobal; error 900)."""

    def __init__(self) -> None:
        self._free, self._inside, self._waiting = threading.Condition(), 0, 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._free:
                self._inside -= 1
                self._free.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._free:
            self._waiting += 1
            self._free.wait_for(lambda: not self._inside)
            try:
                yield
            finally:
                self._waiting -= 1
                self._free.notify_all()


_GATE = _Gate()


class _Lane:
    """A session and its batch sizes. On a GPU inputs and outputs of each size stay at one place in its memory
    (IOBinding), which gains nothing by itself, and up to GRAPH_ROWS the CUDA calls over them are captured once and
    replayed. Inputs by way of pinned memory gain nothing: 25 MB take 1.7 ms as they are, 2.0 to put there and 0.5 from
    there. ``plain`` opens a session without capture, for a model that cannot be captured; None where none is."""

    def __init__(
        self, session: ort.InferenceSession, buckets: Sequence[int],
        plain: Callable[[], ort.InferenceSession] | None = None,
    ):  # fmt: skip
        self.session = session
        self.provider = provider_of(session.get_providers())
        self.device = None if self.provider == "cpu" else "cuda"
        self.plain = plain if self.device is not None else None
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
            answers: list[Array] = self.session.run(self.outputs, batch)
            return answers
        bound = self.bound.get(size)
        captures = self.plain is not None and size <= GRAPH_ROWS
        if bound is not None and (bound.captured or not captures):
            with _GATE.shared():
                return bound.run(batch)
        with _GATE.alone():
            return self._first(batch, size, self.device, captures=captures)

    def _first(self, batch: Mapping[str, Array], size: int, device: str, *, captures: bool) -> list[Array]:
        """The first batch of a size, in this thread: what it runs by is made, alone."""
        if size not in self.bound:
            self.bound[size] = _Bound(self.session, batch, self.outputs, device)
        if captures and self.plain is not None:
            try:
                return self.bound[size].capture(batch, size)
            except _refusals():  # a kernel that waits for its answer, say; the session is spoilt
                self.session, self.plain = self.plain(), None
                self.bound = {size: _Bound(self.session, batch, self.outputs, device)}
        return self.bound[size].run(batch)


class _Uncaptured(RuntimeError):
    """A captured graph that says something else than the model."""


class _Bound:
    """Inputs and outputs of one batch size, at fixed places in a device's memory, and the graph captured over them.

    ONNX Runtime keeps a graph for the thread that captured it: another one captures its own.
    """

    def __init__(self, session: ort.InferenceSession, batch: Mapping[str, Array], outputs: Sequence[str], device: str):
        import onnxruntime as ort

        self._session, self._binding, self._outputs = session, session.io_binding(), outputs
        # allocated, not made of the first batch: on a CPU that would be the caller's own array
        place = ort.OrtValue.ortvalue_from_shape_and_type
        self._inputs = {name: place(rows.shape, rows.dtype.type, device, 0) for name, rows in batch.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in outputs:
            self._binding.bind_output(name, device)
        self._eager = _graph(-1)
        self._here = threading.local()

    @property
    def captured(self) -> bool:
        """Whether this thread has its graph."""
        return hasattr(self._here, "graph")

    def capture(self, batch: Mapping[str, Array], number: int) -> list[Array]:
        """The outputs, and from now on by a graph. Captured on zeros and tried on ``batch``, so that one which holds
        on to what it was captured on is found out: raises _Uncaptured."""
        wanted = self.run(batch)
        for name, value in zip(self._outputs, self._binding.get_outputs(), strict=True):
            self._binding.bind_ortvalue_output(name, value)
        graph = _graph(number)
        self._run({name: np.zeros_like(rows) for name, rows in batch.items()}, graph)  # warms up, and captures
        answers = self._run(batch, graph)
        for said, plain in zip(answers, wanted, strict=True):
            if not np.allclose(said, plain, rtol=1e-5, atol=1e-5, equal_nan=True):
                raise _Uncaptured
        self._here.graph = graph
        return answers

    def run(self, batch: Mapping[str, Array]) -> list[Array]:
        """The outputs, by this thread's graph if it has one."""
        return self._run(batch, getattr(self._here, "graph", self._eager))

    def _run(self, batch: Mapping[str, Array], options: ort.RunOptions) -> list[Array]:
        for name, rows in batch.items():
            self._inputs[name].update_inplace(rows)
        self._session.run_with_iobinding(self._binding, options)
        answers: list[Array] = self._binding.copy_outputs_to_cpu()
        return answers


def _graph(number: int) -> ort.RunOptions:
    """Options of a run by the graph of this number, captured where it is not yet; -1: by none."""
    import onnxruntime as ort

    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options


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
    elif PROVIDERS["cpu"] not in usable:
        usable.append(PROVIDERS["cpu"])
    try:
        session, plain = _opened(model, settings, usable)
        small = None
        if session.get_providers()[0] != PROVIDERS["cpu"] and options.gpu_from > 1 and not options.require_gpu:
            small = ort.InferenceSession(model, settings, providers=[PROVIDERS["cpu"]])
    except _refusals() as error:
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
    return Runner(session, fallback, options.buckets, small, options.gpu_from, plain)


def _refusals() -> tuple[type[Exception], ...]:
    return (*runtime_errors(), ValueError)


def _opened(
    model: bytes, settings: ort.SessionOptions, providers: Sequence[str]
) -> tuple[ort.InferenceSession, Callable[[], ort.InferenceSession] | None]:
    """A session on the first of these that can be started, and what opens one that captures no graphs where this one
    does: on the same provider, or it raises. ONNX Runtime's own fall-back is off: it prints, tells the next provider
    nothing, and does not see most of what a GPU raises."""
    import onnxruntime as ort

    def opened(names: Sequence[str], *, graphs: bool) -> ort.InferenceSession:
        told = [_told(p, graphs=graphs) for p in names]
        return ort.InferenceSession(model, settings, providers=told, enable_fallback=0)

    with _GATE.shared():
        if providers[0] == PROVIDERS["cuda"]:
            with suppress(*_refusals()):  # it captures no control flow, and nothing with a node on the CPU
                return opened(providers, graphs=True), partial(opened, providers, graphs=False)
        for at in range(len(providers) - 1):
            with suppress(*_refusals()):  # a GPU that is out of memory, say
                return opened(providers[at:], graphs=False), None
        return opened(providers[-1:], graphs=False), None


def _told(provider: str, *, graphs: bool) -> str | tuple[str, dict[str, str]]:
    """A provider with what it must be told: no TensorFloat-32, whose ten bits are too few for the same scores."""
    if provider != PROVIDERS["cuda"]:
        return provider
    return provider, {"use_tf32": "0", "enable_cuda_graph": "1" if graphs else "0"}


@cache
def _load_cuda() -> None:
    """Find CUDA's libraries where ``pip install onnxruntime-gpu[cuda,cudnn]`` puts them, which the loader doesn't know.

    What is not there is not said here (ONNX Runtime prints it): the session's fall-back is.
    """
    import onnxruntime as ort

    with redirect_stdout(StringIO()):
        ort.preload_dlls()
