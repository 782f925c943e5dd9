"""Text and timing from files instead of the grammar: ``--prompts`` and ``--trace`` (Parquet).

Prompts keep their sessions and turns, timing its gaps and its pairs of lengths. Benign and attack accounts
draw their timing from the same trace: what separates them must not be the trace. Results on such runs are
semi-real. Knows nothing of accounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from monitor.errors import BadInput, Problem

from .draws import F64, I64

_ATTACK_KINDS = ("distill", "sweep", "benchmark", "attack")


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts in (file, group, session, turn) order. ``start``/``length`` bound each session in them;
    ``bounds[bank]`` are the sessions of free benign text (0), of benign text with a ``group``, a template (1),
    and of attack text (2); a bank that no file fills is all of them.
    """

    system: list[str | None]
    prompt: list[str]
    start: I64
    length: I64
    bounds: tuple[tuple[int, int], ...]

    def row(self, session: F64, turn: I64, bank: I64) -> I64:
        """Row of the ``turn``-th prompt of the session at ``session`` in [0, 1); turns past the end wrap round."""
        low = np.array([b[0] for b in self.bounds])[bank]
        count = np.array([b[1] - b[0] for b in self.bounds])[bank]
        chosen = low + np.minimum((session * count).astype(np.int64), count - 1)
        return np.asarray(self.start[chosen] + turn % self.length[chosen])


def _scan(paths: Sequence[str | Path], needed: tuple[str, ...]) -> list[pl.DataFrame]:
    frames, problems = [], []
    for path in paths:
        try:
            frame = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as e:
            problems.append(Problem(str(path), 0, f"cannot be read as Parquet ({type(e).__name__})"))
            continue
        missing = [c for c in needed if c not in frame.columns]
        if missing or not len(frame):
            what = f"has no column {', '.join(missing)}" if missing else "has no rows"
            problems.append(Problem(str(path), 0, f"{what}; the columns are {', '.join(needed)}"))
            continue
        frames.append(frame)
    if problems:
        raise BadInput(problems)
    return frames


def read_prompts(paths: Sequence[str | Path]) -> Prompts:
    """Parquet with ``prompt`` and, where known, ``system``, ``session_id``, ``turn``, ``kind`` and ``group``.

    Rows whose ``kind`` begins with distill, sweep, benchmark or attack are attack text (a benchmark swept question by
    question is either; in a world it is sent by whoever attacks). Raises ``BadInput``.
    """
    parts = []
    for number, frame in enumerate(_scan(paths, ("prompt",))):
        absent = {c: pl.lit(None, pl.String).alias(c) for c in ("system", "session_id", "kind", "group")}
        frame = frame.with_columns([v for c, v in absent.items() if c not in frame.columns])
        if "turn" not in frame.columns:
            frame = frame.with_columns(pl.lit(0).alias("turn"))
        kind = pl.col("kind").cast(pl.String).fill_null("")
        attack = pl.any_horizontal([kind.str.starts_with(k) for k in _ATTACK_KINDS])
        own = pl.concat_str(pl.lit(f"{number}/"), pl.int_range(pl.len()).cast(pl.String))
        known = pl.concat_str(pl.lit(f"{number}:"), pl.col("session_id").cast(pl.String))
        parts.append(
            frame.filter(pl.col("prompt").str.len_chars() > 0).select(
                attack.alias("attack"), pl.coalesce(known, own).alias("session"),
                pl.col("turn").cast(pl.Int64).fill_null(0), pl.col("system").cast(pl.String),
                pl.col("prompt").cast(pl.String),
                # what people wrote has topics for groups, not templates
                pl.when(kind.str.contains("human")).then(pl.lit("")).otherwise(pl.col("group").cast(pl.String))
                .fill_null("").alias("group"),
            )
        )  # fmt: skip
    rows = pl.concat(parts).sort("attack", "group", "session", "turn", maintain_order=True)
    runs = rows["session"].rle_id().to_numpy()
    starts = np.flatnonzero(np.diff(runs, prepend=-1)).astype(np.int64)
    lengths = np.diff(np.append(starts, len(rows))).astype(np.int64)
    hostile, grouped = rows["attack"].to_numpy()[starts], (rows["group"] != "").to_numpy()[starts]
    free, benign = int((~hostile & ~grouped).sum()), int((~hostile).sum())
    cuts = ((0, free), (free, benign), (benign, len(starts)))
    bounds = tuple(cut if cut[0] < cut[1] else (0, len(starts)) for cut in cuts)
    return Prompts(rows["system"].to_list(), rows["prompt"].to_list(), starts, lengths, bounds)


@dataclass(frozen=True, slots=True)
class Trace:
    """Gaps between requests of one client, mean 1, and pairs of (input, output) tokens, in the trace's order."""

    gaps: F64
    tokens: I64

    def draw_gaps(self, rng: np.random.Generator, count: int) -> F64:
        """``count`` gaps, independent draws: the trace's burst lengths are kept, its order is not."""
        return np.asarray(self.gaps[rng.integers(len(self.gaps), size=count)])

    def draw_tokens(self, rng: np.random.Generator, count: int) -> I64:
        """``count`` pairs of token counts, (count, 2)."""
        return np.asarray(self.tokens[rng.integers(len(self.tokens), size=count)])


def read_trace(paths: Sequence[str | Path]) -> Trace:
    """Parquet with ``ts`` (seconds), ``input_tokens``, ``output_tokens`` and, where known, ``account_id``.

    Gaps are taken within an account (within the file where there is none) and scaled to mean 1 there, so
    that a heavy client's rate does not become everyone's. Raises ``BadInput``.
    """
    gaps, tokens = [], []
    for frame in _scan(paths, ("ts", "input_tokens", "output_tokens")):
        if "account_id" not in frame.columns:
            frame = frame.with_columns(pl.lit("all").alias("account_id"))
        frame = frame.sort("account_id", "ts")
        between = frame.with_columns(pl.col("ts").cast(pl.Float64).diff().over("account_id").alias("gap"))
        scaled = between.with_columns((pl.col("gap") / pl.col("gap").mean().over("account_id")).alias("gap"))
        few = scaled.filter(pl.col("gap").is_finite() & (pl.len().over("account_id") >= 20))
        gaps.append(few["gap"].to_numpy())
        tokens.append(frame.select("input_tokens", "output_tokens").drop_nulls().to_numpy().astype(np.int64))
    joined = np.concatenate(gaps)
    if not len(joined):
        raise BadInput([Problem(str(paths[0]), 0, "has no account with 20 requests or more, so no gaps to draw")])
    return Trace(joined / joined.mean(), np.concatenate(tokens))
