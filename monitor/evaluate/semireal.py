"""Semi-real worlds: the suite's cast with text and timing from files, each source of attack text on its own.

A world takes every benign file and ONE attack file, so that a detector tuned on the others meets a source it has
not seen; beside the simulated world its figures show the drop. What is composed so is called semi-real: no public
source joins account, time and text. Knows the columns of the files, not the detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from monitor.errors import BadInput, Problem

from .mmd_table import MmdRow, mmd_table

PREFIX = "text "
_HOSTILE = ("distill", "sweep", "benchmark", "attack")


@dataclass(frozen=True, slots=True)
class Sources:
    """Files of prompts by what they are, and of timing. ``attacks`` maps a source's short name to its file."""

    benign: tuple[Path, ...] = ()
    attacks: Mapping[str, Path] | None = None
    trace: tuple[Path, ...] = ()

    @property
    def worlds(self) -> dict[str, tuple[Path, ...]]:
        """Name of each world, and its files of prompts: all benign ones and one source of attacks."""
        return {f"{PREFIX}{name}": (*self.benign, path) for name, path in (self.attacks or {}).items()}


def sources(prompts: Sequence[Path], trace: Sequence[Path]) -> Sources:
    """Sort files of prompts by their ``kind``; a folder stands for the ``prompts_*.parquet`` in it.

    Raises ``BadInput`` for files that are none, or no two sides.
    """
    benign, attacks, problems = [], {}, []
    for path in (file for given in prompts for file in _files(given)):
        try:
            first = pl.scan_parquet(path).select(pl.col("kind").cast(pl.String)).head(1).collect()["kind"].to_list()
        except (OSError, pl.exceptions.PolarsError) as e:
            problems.append(Problem(str(path), 0, f"is no Parquet of prompts with a column kind ({type(e).__name__})"))
            continue
        if str(first[0] if first else "").startswith(_HOSTILE):
            attacks[path.stem.removeprefix("prompts_")] = path
        else:
            benign.append(path)
    if not problems and prompts and not (benign and attacks):
        problems.append(
            Problem("arguments", 0, "--prompts of a suite needs a benign file and a hostile one, by `kind`")
        )
    if not problems and trace and not prompts:
        problems.append(Problem("arguments", 0, "--trace of a suite goes with --prompts"))
    if problems:
        raise BadInput(problems)
    return Sources(tuple(benign), attacks, tuple(trace))


def _files(given: Path) -> list[Path]:
    return sorted(given.glob("prompts_*.parquet")) if given.is_dir() else [given]


def mmd_rows(real: Sources, window: int = 1500, per_group: int = 300) -> list[MmdRow]:
    """The published MMD test on one population, and on tenants made of all benign groups.

    The population is the benign file with most prompts of no ``group`` (the first where all have one). A group is
    a file, or a template of a file that has them, of at most ``per_group`` prompts (a population: ten times as
    many). Few prompts make windows overlap, which flatters a window of 1,500.
    """
    if not real.attacks:
        return []
    attacks = {name: _texts(path, 10 * per_group)[""] for name, path in sorted(real.attacks.items())}
    free = {path: _texts(path, 10 * per_group, by_group=True).get("", []) for path in real.benign}
    population = {"": max(free.values(), key=len) or _texts(real.benign[0], 10 * per_group)[""]}
    tenants: dict[str, list[str]] = {}
    for path in real.benign:
        for group, texts in _texts(path, per_group, by_group=True).items():
            tenants[f"{path.stem}/{group}"] = texts
    one = [row for row in mmd_table(population, attacks, window=window) if row.protocol == "one population"]
    many = [row for row in mmd_table(tenants, attacks, window=window) if row.protocol == "many tenants"]
    return one + many


def _texts(path: Path, most: int, by_group: bool = False) -> dict[str, list[str]]:
    """Up to ``most`` prompts of each group, spread evenly over the file; one group "" unless ``by_group``."""
    frame = pl.read_parquet(path).filter(pl.col("prompt").str.len_chars() > 0)
    named = by_group and "group" in frame.columns
    group = pl.col("group").cast(pl.String).fill_null("") if named else pl.lit("")
    out = {}
    for (name,), rows in frame.select("prompt", group.alias("of")).group_by("of", maintain_order=True):
        out[str(name)] = rows["prompt"].cast(pl.String).gather_every(max(1, len(rows) // most)).head(most).to_list()
    return out
