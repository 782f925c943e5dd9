"""Backtests as a function: from paths and settings to a summary. The command, the evaluation and tests call it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor import partwise, wiring
from monitor.alerts import FileSink
from monitor.backtest import backtest
from monitor.context import ContextEvent, read_context
from monitor.engines import Engine, Local
from monitor.errors import BadInput
from monitor.partwise import Work, make_pipeline
from monitor.pipeline import Pipeline
from monitor.settings import Settings, load_settings
from monitor.sketch import Keyring, Sketcher
from monitor.sketch.kernel import SCALARS, texts_of
from monitor.source.readers import read_blocks

_CONTEXT_LINE = 1 << 16
"""Longest context event, in bytes."""


def backtest_files(
    logs: Sequence[Path],
    alerts: Path,
    *,
    context: Sequence[Path] = (),
    format: str | None = None,
    config: Path | None = None,
    settings: Settings | None = None,
    rules: Path | None = None,
    warmup: Sequence[Path] = (),
    partitions: int | None = None,
    seed: int = 1,
    progress: Callable[[int, int], None] = lambda events, raised: None,
    prepare: Callable[[Pipeline], None] | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Run ``logs`` and write ``alerts`` (NDJSON); returns the summary of contract 3.

    Without a key in the settings the sketches are keyed by ``seed``: the same input gives the same bytes.
    ``format`` is that of the logs, the settings' where None. ``prepare`` sees the pipeline before its first record.
    ``engine``: cut by partitions, see :mod:`monitor.partwise`; None or a local one: one pipeline, in one pass.
    Raises BadInput for paths, formats, settings or rules that cannot be used, NothingReadable for logs without one.
    """
    settings = settings or load_settings(config)
    partitions = partitions or settings.features.partitions
    work = Work(
        settings, tuple(logs), tuple(warmup), tuple(context_events(context)), (rules,) if rules is not None else (),
        format, seed, partitions, frozenset(range(partitions)),
    )  # fmt: skip
    with closing(FileSink(alerts)) as sink:
        if engine is not None and not isinstance(engine, Local):
            assert prepare is None, "a pipeline in another process can't be prepared here"
            return partwise.backtest(engine, work, sink, progress).values
        reader = wiring.reader(settings, format)
        pipeline = make_pipeline(work)
        if prepare is not None:
            prepare(pipeline)
        return backtest(
            pipeline, logs, sink, warmup=warmup, partitions=partitions, max_bytes=settings.decode.max_bytes,
            reader=reader, progress=progress,
        ).values  # fmt: skip


@dataclass(frozen=True, slots=True)
class Detector:
    """A backtest as the evaluation calls one: (log, context, alerts to write) to the summary. Can be pickled."""

    settings: Settings
    rules: Path | None = None
    seed: int = 1

    def __call__(self, log: Path, context: Path, alerts: Path) -> Mapping[str, Any]:
        """Run; an earlier ``alerts`` goes. Raises BadInput, NothingReadable."""
        alerts.unlink(missing_ok=True)
        alerts.touch()
        return backtest_files(
            [log], alerts, context=[context], settings=self.settings, rules=self.rules, seed=self.seed
        )

    def stamp(self) -> str:
        """A hash of everything that decides what it says of a log: the package's files, settings, rules and seed."""
        digest = hashlib.blake2b(f"{self.settings.hash} {self.seed}".encode(), digest_size=16)
        digest.update(wiring.load(self.settings, (self.rules,) if self.rules is not None else ()).hash.encode())
        package = Path(__file__).parent
        for file in sorted(f for f in package.rglob("*") if f.is_file() and "__pycache__" not in f.parts):
            digest.update(f"\0{file.relative_to(package)}\0".encode())
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def without(self, *path: str) -> Detector:
        """The same with a switch of the settings off: ``without("score", "anomaly", "enabled")``."""
        return Detector(_off(self.settings, path), self.rules, self.seed)


class PromptSketches:
    """Sketches of bare prompts, as the evaluation's protocols ask for them; the key is made from ``seed``."""

    def __init__(self, seed: int):
        self._sketcher = Sketcher(Keyring.from_seed(seed))

    def scalars(self, texts: Sequence[str]) -> npt.NDArray[np.uint8]:
        """The 24 shape scalars of each text, (n, 24)."""
        made = self._sketcher.sketch_texts(texts_of(texts), None, np.zeros(len(texts), np.int64), want=SCALARS)
        return made.shape

    def signed(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each text bears a known generator's signature, (n,)."""
        made = self._sketcher.sketch_texts(texts_of(texts), None, np.zeros(len(texts), np.int64), want=SCALARS)
        return made.generator > 0

    def grams(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint64]]:
        """Every 4-word gram once a text: its row, rising, and its keyed hash. To be counted at once, not kept."""
        held = texts_of(texts)
        if held is None:
            return np.empty(0, np.int32), np.empty(0, np.uint64)
        return self._sketcher.grams(held, 0)


def _off(section: Any, path: Sequence[str]) -> Any:
    name, *rest = path
    value = _off(getattr(section, name), rest) if rest else (None if name.endswith("dir") else False)
    return section.model_copy(update={name: value})


def context_events(paths: Sequence[Path]) -> list[ContextEvent]:
    """All events of context files. Raises BadInput with every line that is none."""
    events: list[ContextEvent] = []
    problems = []
    for path in paths:
        lines = (line for block in read_blocks(path, _CONTEXT_LINE) for line in block)
        good, bad = read_context(enumerate(lines, 1), str(path))
        events += good
        problems += bad
    if problems:
        raise BadInput(problems)
    return events
