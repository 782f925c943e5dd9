"""The shape model that ships: trained on simulated pipelines and on rows whose licence allows it (``ship_ok``).

People are the rows of people. A campaign's text are the seed tasks that the prompts of open instruction generators
quote: what such a generator makes more of. Simulated people were tried and left out: the simulator's grammar repeats
itself, so that de-templating takes 60 % of what they say (.52 of windows at 50 % attacker share instead of .99). That
also holds for training on simulated text alone: it leaves no campaign to learn from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from monitor.pooled import ShapeModel, fit_shape
from monitor.simulate.scenario import LANGUAGES, TASKS
from monitor.simulate.text import Ask, Grammar

from .bank import ATTACK, Sketching, build
from .tenants import Side
from .windows import draw

Frames = list[tuple[str, pl.DataFrame]]
_SEED_TASK: Final = re.compile(
    r"^\d+\. Instruction: (?P<task>.+)\n\d+\. Input:\n(?P<input>(?:(?!\d+\. Output:).*\n)*)", re.MULTILINE
)
_LISTED: Final = re.compile(r"^\d+\. (?!Instruction:|Input:|Output:)(?P<task>.{15,400})$", re.MULTILINE)
_PIPELINES: Final = ("classify", "extract", "summarise", "translate", "data_analysis", "agentic_swe", "rubric")
FAMILIES, PER_FAMILY = 10, 120


def simulated_pipelines(seed: int) -> pl.DataFrame:
    """Prompts of 70 pipelines, each with a template of its own and the simulator's sentences in its slots.

    And of ten that send the slots alone, as many real ones do (the instruction is in the system prompt): without them
    the model takes any plain statement for a campaign's (.11 of windows at 50 % instead of .82 on code instructions).
    """
    rng, grammar = np.random.default_rng([seed, 3]), Grammar(seed, FAMILIES, 4)
    family = np.repeat(np.arange(FAMILIES), PER_FAMILY)
    n, no = len(family), np.zeros(len(family), bool)
    parts = []
    for task in _PIPELINES:
        language = np.where(rng.random(n) < 0.6, 0, rng.integers(len(LANGUAGES), size=n))
        domain = rng.integers(grammar.domains, size=n)
        ask = Ask(np.full(n, TASKS.index(task)), language, domain, family, np.zeros(n, np.int64), no, no, no)
        prompt = grammar.render(grammar.compose(rng, ask))
        names = [f"{task}{f}_{task}" for f in family]
        parts.append(pl.DataFrame({"prompt": prompt, "group": names}))
        if task == "extract":
            slots = prompt.str.split("\n").list.get(2, null_on_oob=True).str.strip_chars()
            bare = pl.DataFrame({"prompt": slots, "group": [f"bare{f}_bare" for f in family]})
            parts.append(bare.drop_nulls())
    return pl.concat(parts).with_columns(kind=pl.lit("benign_app_pipeline"))


def seed_tasks(prompts: Sequence[str]) -> list[str]:
    """The different tasks that prompts of instruction generators quote as examples: instruction, and input if any."""
    found: dict[str, None] = {}
    for prompt in prompts:
        for match in _SEED_TASK.finditer(prompt):
            given = match["input"].strip()
            found[match["task"].strip() + ("" if given in ("", "<noinput>") else f"\n{given}")] = None
        for match in _LISTED.finditer(prompt):
            found[match["task"].strip()] = None
    return list(found)


def licensed(frames: Sequence[tuple[str, pl.DataFrame]]) -> Frames:
    """Rows with ``ship_ok``: people as they are, and the seed tasks quoted by generators as a campaign's text."""
    out: Frames = []
    for name, frame in frames:
        if "ship_ok" not in frame.columns:
            continue
        free = frame.filter(pl.col("ship_ok").fill_null(False))
        kind = str(free["kind"][0]) if len(free) else ""
        if kind.startswith("benign") and "pipeline" not in kind:
            out.append((name, free))
        elif kind.startswith("distill"):
            tasks = seed_tasks(free["prompt"].cast(pl.String).to_list())
            if tasks:
                quoted = pl.DataFrame({"prompt": tasks}).with_columns(kind=pl.lit("distill"))
                out.append((f"{name}, seed tasks", quoted))
    return out


def fit_shipped(
    frames: Sequence[tuple[str, pl.DataFrame]], sketching: Sketching, seed: int = 1, null: int = 400, cells: int = 40,
    splits: int = 5,
) -> ShapeModel:  # fmt: skip
    """The model of the package from files of prompts; the same files and seed give the same model.

    Windows of several ``splits`` of the rows are pooled: with one, the luck of who fell where moved the figures of a
    source from .28 to .91 (50 % attacker share). Raises ``ValueError`` where the files lack people or generators'
    prompts that may be used.
    """
    found = licensed(frames)
    if len({str(frame["kind"][0])[:6] for _, frame in found}) < 2:
        raise ValueError("the shape model needs rows with ship_ok of people and of instruction generators")
    sources = [*found, ("simulated pipelines", simulated_pipelines(seed))]
    features, hostile = [], []
    for split in range(splits):
        bank = build(sources, sketching, seed + split)
        sides, attacks = (Side(bank, True), Side(bank, False)), bank.names(ATTACK)
        rng = np.random.default_rng([seed + split, 4])
        windows = draw(bank, sides, attacks, 300, (null, null), (cells, cells), rng)
        features.append(windows.features)
        hostile.append(np.array([a in attacks for a in windows.attack]))
    y = np.concatenate(hostile)
    about = {
        "rows": {name: len(frame) for name, frame in sources}, "seed": seed, "splits": splits,
        "windows": {"size": 300, "harmless": int((~y).sum()), "hostile": int(y.sum())},
        "licence": "rows marked ship_ok (Apache-2.0) and simulated text; the figures hold no text",
    }  # fmt: skip
    return fit_shape(np.concatenate(features), y, about)
