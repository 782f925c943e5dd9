"""Rows of a log as the rules see them, in a directory: made by one backtest, read as often as one likes.

``meta.json`` says what they are, ``rows-*.parquet`` hold the accounts' rows (keys, features, scores, totals) and
``step-*.zst`` the candidates of campaign steps. Account and request ids, numbers and keyed hashes; no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import zstandard

from monitor.campaigns.members import Findings
from monitor.campaigns.stage import Candidates
from monitor.errors import BadInput, Problem
from monitor.known import Known
from monitor.offline import backtest_files
from monitor.pipeline import Pipeline
from monitor.records import REQUEST_SET
from monitor.settings import Settings

SCHEMA = "monitor.rows/v1"
AGREED = "agreed"
"""Column that is true where a sanctioned use was in force; left out where no agreement is known."""
A_FRAME = 200_000
"""Rows judged at once: a call costs 15 ms however few it has."""
_META = "meta.json"


class Meta(msgspec.Struct):
    """What the rows are. Times are event time in ms; ``from_ms`` and ``to_ms`` 0: no such end."""

    schema: str
    tick_ms: int
    step_ms: int
    entity: str
    from_ms: int
    to_ms: int
    rows: int
    steps: int
    versions: dict[str, str]
    summary: dict[str, Any]


class Step(msgspec.Struct):
    """Candidates of one campaign step: a row of statistics each, what was found of them, which merged."""

    step: int
    values: list[dict[str, float | str | None]]
    findings: dict[str, Findings]
    merged: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Rows:
    """A directory of rows. Opening one that is none raises BadInput."""

    directory: Path
    meta: Meta

    @classmethod
    def open(cls, directory: Path) -> Rows:
        """The rows that lie there."""
        try:
            meta = msgspec.json.decode((directory / _META).read_bytes(), type=Meta)
        except OSError as error:
            why = f"holds no rows ({error.strerror}): make them with --input LOG --rows {directory}"
            raise BadInput([Problem(str(directory), 0, why)]) from None
        except msgspec.MsgspecError as error:
            raise BadInput([Problem(str(directory / _META), 0, f"is not of rows: {error}")]) from None
        if meta.schema != SCHEMA:
            raise BadInput([Problem(str(directory / _META), 0, f"is {meta.schema!r}, not {SCHEMA!r}: make them anew")])
        return cls(directory, meta)

    def frames(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """The accounts' rows in the order of the run, some ``A_FRAME`` at a time; only ``columns`` that are there."""
        held: list[pl.DataFrame] = []
        for path in sorted(self.directory.glob("rows-*.parquet")):
            known = pl.read_parquet_schema(path)
            wanted = None if columns is None else [c for c in known if c in set(columns)]
            held.append(pl.read_parquet(path, columns=wanted))
            if sum(map(len, held)) >= A_FRAME:
                yield pl.concat(held, how="diagonal_relaxed")
                held = []
        if held:
            yield pl.concat(held, how="diagonal_relaxed")

    def of(self, subject: str) -> pl.DataFrame:
        """All rows of one subject, in order."""
        files = sorted(self.directory.glob("rows-*.parquet"))
        mine = [pl.scan_parquet(f).filter(pl.col("subject") == subject) for f in files]
        return pl.concat(pl.collect_all(mine), how="diagonal_relaxed") if mine else pl.DataFrame()

    def steps(self) -> Iterator[Step]:
        """Campaign steps with candidates or merges, in order."""
        decode = msgspec.msgpack.Decoder(Step).decode
        for path in sorted(self.directory.glob("step-*.zst")):
            yield decode(zstandard.ZstdDecompressor().decompress(path.read_bytes()))


@dataclass(slots=True)
class Recorder:
    """Writes what a pipeline sees between ``from_ms`` and ``to_ms`` (event time; 0: no end)."""

    directory: Path
    from_ms: int = 0
    to_ms: int = 0
    rows: int = 0
    steps: int = 0
    subject: str | None = None
    _files: int = 0
    _pipeline: list[Pipeline] = field(default_factory=list)

    def attach(self, pipeline: Pipeline) -> None:
        """Listen to this pipeline."""
        self._pipeline = [pipeline]
        pipeline.seen = self._rows
        pipeline.campaigns.seen = self._step

    def finish(self, summary: Mapping[str, Any]) -> Rows:
        """Write what the rows are, last: a directory without it is not taken for one."""
        pipeline = self._pipeline[0]
        meta = Meta(
            SCHEMA, pipeline.tick_ms, pipeline.campaigns.step_ms, pipeline.decode_options.entity, self.from_ms,
            self.to_ms, self.rows, self.steps, dict(pipeline.versions), dict(summary),
        )  # fmt: skip
        (self.directory / _META).write_bytes(msgspec.json.encode(meta))
        return Rows(self.directory, meta)

    def _rows(self, scored: pl.DataFrame) -> None:
        pipeline = self._pipeline[0]
        begins = pl.col("tick") * pipeline.tick_ms
        mine = (begins >= self.from_ms) & ((begins < self.to_ms) | (self.to_ms == 0))
        kept = scored.drop("origin", REQUEST_SET).filter(mine)
        if self.subject is not None:
            kept = kept.filter(pl.col("subject") == self.subject)
        if kept.is_empty():
            return
        agreed = _agreed(kept, pipeline.known)
        if agreed is not None:
            kept = kept.with_columns(agreed)
        self._files += 1
        self.rows += len(kept)
        kept.write_parquet(self.directory / f"rows-{self._files:06d}.parquet", compression="zstd", compression_level=1)

    def _step(self, step: int, found: Candidates | None) -> None:
        end = (step + 1) * self._pipeline[0].campaigns.step_ms
        if found is None or end < self.from_ms or (self.to_ms and end > self.to_ms):
            return
        if not len(found.rows) and not found.merged:
            return
        made = Step(step, found.rows.to_dicts(), found.findings, found.merged)
        body = zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(made))
        (self.directory / f"step-{step:09d}.zst").write_bytes(body)
        self.steps += 1


def _agreed(rows: pl.DataFrame, known: Known) -> pl.Series | None:
    """Which rows a sanctioned use covers; None where no agreement is known at all."""
    if "agreement" not in known.state.known_types:
        return None
    every = pl.DataFrame({"row": pl.Series(range(len(rows)), dtype=pl.UInt32)})
    kept, _ = known.without_agreed(rows, every)
    return pl.Series(AGREED, ~every["row"].is_in(kept["row"].implode()))


def record(
    logs: Sequence[Path],
    directory: Path,
    *,
    settings: Settings,
    rules: Path | None = None,
    context: Sequence[Path] = (),
    format: str | None = None,
    warmup: Sequence[Path] = (),
    seed: int = 1,
    from_ms: int = 0,
    to_ms: int = 0,
    subject: str | None = None,
    progress: Callable[[int, int], None] = lambda events, raised: None,
) -> Rows:
    """Run a backtest of ``logs`` and keep its rows in ``directory``, made anew; only those of ``subject`` if given.

    What lies before ``from_ms`` fills the baselines. Raises BadInput (also where ``directory`` holds something else)
    and NothingReadable.
    """
    directory.mkdir(parents=True, exist_ok=True)
    strange = [p.name for p in directory.iterdir() if not _ours(p.name)]
    if strange:
        raise BadInput([Problem(str(directory), 0, f"holds {min(strange)!r}, which is not of rows: name an empty one")])
    for old in directory.iterdir():
        old.unlink()
    recorder = Recorder(directory, from_ms, to_ms, subject=subject)
    settings = settings.model_copy(update={"archive": settings.archive.model_copy(update={"path": None})})
    summary = backtest_files(
        logs, directory / "alerts.ndjson", context=context, format=format, settings=settings, rules=rules,
        warmup=warmup, seed=seed, progress=progress, prepare=recorder.attach,
    )  # fmt: skip
    return recorder.finish(summary)


def _ours(name: str) -> bool:
    made = name.startswith(("rows-", "step-")) and name.endswith((".parquet", ".zst"))
    return made or name in (_META, "alerts.ndjson")
