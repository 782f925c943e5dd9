"""Every prompt of the protocol once: where it is from, on which side it is, its scalars and its keyed 4-word grams.

Files are read by their columns (``kind``, ``group``, ``session_id``, ``turn``, ``prompt``). A keyed gram is only
counted within one window and kept nowhere else. Knows how to make a sketch by the callable that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.errors import BadInput, Problem
from monitor.pooled.shape import F64, I64, U8, Bools

HUMAN, PIPELINE, ATTACK = 0, 1, 2
SIDE_A: Final = 0.4
"""Share of sessions, of pipelines' data sets and of single prompts that are on side A: reference and training."""
CAP: Final = 14_000
"""Most prompts of an attack's file: more change no window of 1,500."""
TOPICS: Final = 64
_COLUMNS = ("kind", "group", "session_id", "turn", "lang", "prompt")


class Sketching(Protocol):
    """What the protocol needs of the sketch step."""

    def scalars(self, texts: Sequence[str]) -> U8:
        """The 24 shape scalars of each text, (n, 24)."""

    def grams(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint64]]:
        """Every 4-word gram once a text: its row, rising, and its keyed hash."""

    def signed(self, texts: Sequence[str]) -> Bools:
        """Whether each text bears the signature of a generator of training data that the product knows, (n,)."""


@dataclass(frozen=True)
class Bank:
    """Prompts as columns of length n. ``source`` indexes ``sources``, ``side`` is true on side A."""

    sources: tuple[str, ...]
    texts: pl.Series
    source: I64
    role: I64
    group: I64
    session: I64
    turn: I64
    side: Bools
    scalars: U8
    gram_at: I64
    grams: npt.NDArray[np.uint64]
    topic: F64
    signed: Bools

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, source: str, side_a: bool) -> I64:
        """Rows of one source on one side."""
        return np.flatnonzero((self.source == self.sources.index(source)) & (self.side == side_a))

    def names(self, role: int) -> list[str]:
        """Sources of a role, by name."""
        return [self.sources[i] for i in np.unique(self.source[self.role == role]).tolist()]

    def gram_counts(self, rows: I64) -> tuple[I64, I64]:
        """Of a window's prompts: the place of each gram's prompt in it, and how many of its prompts hold that gram."""
        sizes = self.gram_at[rows + 1] - self.gram_at[rows]
        owner = np.repeat(np.arange(len(rows)), sizes)
        at = np.repeat(self.gram_at[rows] - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
        _, which, counts = np.unique(self.grams[at], return_inverse=True, return_counts=True)
        return owner, counts[which]


def read(folder: Path) -> list[tuple[str, pl.DataFrame]]:
    """The files ``prompts_*.parquet`` of a folder, by short name. Raises ``BadInput``."""
    found = sorted(folder.glob("prompts_*.parquet"))
    frames, problems = [], []
    for path in found:
        try:
            frames.append((path.stem.removeprefix("prompts_"), pl.read_parquet(path)))
        except (OSError, pl.exceptions.PolarsError) as e:
            problems.append(Problem(str(path), 0, f"cannot be read as Parquet ({type(e).__name__})"))
    if not found:
        problems.append(Problem(str(folder), 0, "--pilot needs a folder of prompts_*.parquet (kind, group, prompt)"))
    if problems:
        raise BadInput(problems)
    return frames


def role_of(kind: str) -> int:
    """Attack, pipeline or people, by the ``kind`` of a file's rows."""
    if kind.startswith(("distill", "sweep", "benchmark", "attack")):
        return ATTACK
    return PIPELINE if "pipeline" in kind else HUMAN


def _one(name: str, frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """A file as the bank's columns; human files are parted by language where a tenth or more is Chinese."""
    absent = [pl.lit(None).alias(c) for c in _COLUMNS if c not in frame.columns]
    frame = frame.with_columns(absent).filter(pl.col("prompt").str.len_chars() > 0)
    role = role_of(str(frame["kind"][0] if len(frame) else ""))
    if role == ATTACK and len(frame) > CAP:
        frame = frame.sample(CAP, seed=seed)
    chinese = (pl.col("lang").cast(pl.String) == "zh").fill_null(False)
    mixed = role == HUMAN and 0.1 < float(frame.select(chinese.mean()).item() or 0) < 0.9
    source = pl.when(chinese & mixed).then(pl.lit(f"{name}, zh")).otherwise(pl.lit(name))
    row = pl.concat_str(pl.lit("row "), pl.int_range(pl.len()).cast(pl.String))
    return frame.select(
        source.alias("source"), pl.lit(role).alias("role"),
        pl.concat_str(pl.lit(f"{name}/"), pl.col("group").cast(pl.String).fill_null("")).alias("group"),
        pl.concat_str(pl.lit(f"{name}/"), pl.coalesce(pl.col("session_id").cast(pl.String), row)).alias("session"),
        pl.col("turn").cast(pl.Int64).fill_null(0), pl.col("prompt").cast(pl.String),
    )  # fmt: skip


def _units(keys: pl.Series, rng: np.random.Generator) -> F64:
    """A number in [0, 1) for each row, the same for equal keys."""
    _, of = np.unique(keys.to_numpy(), return_inverse=True)
    return np.asarray(rng.random(int(of.max(initial=-1)) + 1)[of])


def build(frames: Sequence[tuple[str, pl.DataFrame]], sketching: Sketching, seed: int) -> Bank:
    """Sketch every prompt and put it on a side: whole sessions, and whole data sets of templates."""
    rng = np.random.default_rng(seed)
    rows = pl.concat([_one(name, frame, seed) for name, frame in frames])
    role = rows["role"].to_numpy()
    # a template's data set is the first word of its name: its templates share their slots' text
    data_set = pl.col("group").str.extract(r"/([^_]*)")
    key = pl.when(pl.col("role") == PIPELINE).then(data_set).otherwise(pl.col("session")).alias("key")
    side = _units(rows.select(key)["key"], rng) < SIDE_A
    texts = rows["prompt"]
    scalars = sketching.scalars(texts.to_list())
    owner, grams = sketching.grams(texts.to_list())
    topic = np.zeros((len(rows), TOPICS))
    places = (grams & np.uint64(TOPICS - 1)).astype(np.int64)
    np.add.at(topic, (owner, places), np.where((grams >> np.uint64(20)) & np.uint64(1), 1.0, -1.0))
    topic /= np.maximum(np.linalg.norm(topic, axis=1, keepdims=True), 1e-9)

    def codes(name: str) -> tuple[list[Any], I64]:
        values, of = np.unique(rows[name].to_numpy(), return_inverse=True)
        return values.tolist(), of.astype(np.int64)

    sources, source = codes("source")
    return Bank(
        tuple(map(str, sources)), texts, source, role.astype(np.int64), codes("group")[1], codes("session")[1],
        rows["turn"].to_numpy(), side, scalars, np.searchsorted(owner, np.arange(len(rows) + 1)).astype(np.int64),
        grams, topic, sketching.signed(texts.to_list()),
    )  # fmt: skip
