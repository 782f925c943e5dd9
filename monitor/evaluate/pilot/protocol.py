"""The whole protocol in order: bank, windows, shape, known families, evasions, own history, population, shortcuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from monitor.pooled import ShapeModel
from monitor.pooled.conformal import RESIDUAL_EDGES
from monitor.pooled.shape import F64, KEPT

from ..mmd_table import SHARES as MMD_SHARES
from ..mmd_table import embed_bytes, mmd_table
from .bank import ATTACK, HUMAN, SIDE_A, Bank, Sketching, build, role_of
from .history_test import history_rows
from .known_test import TAUGHT, Taught, shaped_rows, signed_rows, taught_rows, teach
from .shape_test import Row, judge, row_of, train
from .tenants import KINDS, Side
from .windows import SHARES, Windows, draw, evading, human_rates

Frames = Sequence[tuple[str, pl.DataFrame]]
Step = Callable[[int, int, str], None]
KIN: Final = ("distill_gpt4llm_demo",)
"""Left out: its prompts are those of two other sources, so no source would be unseen beside it."""
LEFT_OUT: Final = "shape, source left out"
SHORT, LONG = 15, 180
"""Characters of prompts in the variant with lengths matched."""


@dataclass(frozen=True)
class Plan:
    """How many windows of each sort. The defaults take five minutes of one core, and far longer on a busy machine."""

    size: int = 300
    null: tuple[int, int] = (1500, 2000)
    """Tenants of sides A and B."""
    cells: tuple[int, int] = (120, 160)
    """Windows of each attack and share, on sides A and B."""
    matched: float = 0.5
    """Windows of the variant with matched lengths, as a share of the others; 0 leaves it out."""
    history: tuple[int, int] = (400, 40)
    """Tenants, and windows of each attack and share, of the own-history test."""
    population: tuple[int, int, int] = (1500, 400, 100)
    """Window, null windows and trials of MMD on one population; a window of 0 leaves it out."""


@dataclass(frozen=True)
class PilotReport:
    """Every figure of a run. ``caught`` of a row is by ``shares``."""

    seed: int
    plan: Plan
    prompts: dict[str, int]
    rows: list[Row]
    kept: dict[str, tuple[float, float, float]]
    """Share of requests kept, 5 %, median and 95 %, by kind of tenant and by attack at full share."""
    history_z: float
    shares: tuple[float, ...] = SHARES
    notes: dict[str, Any] = field(default_factory=dict)

    def of(self, test: str) -> list[Row]:
        """Rows of one test."""
        return [r for r in self.rows if r.test == test]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": "pilot/v1", **asdict(self)}


def _quantiles(values: F64) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return float(low), float(middle), float(high)


def _kept(windows: Windows, attacks: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    share, null = windows.features[:, KEPT], windows.null(side_a=False)
    found = {kind: _quantiles(share[null & (windows.kind == k)]) for k, kind in enumerate(KINDS)}
    return found | {a: _quantiles(share[windows.cell(a, 1.0)]) for a in attacks}


def _left_out_rows(windows: Windows, attacks: Sequence[str], test: str) -> tuple[list[Row], list[str]]:
    """A row a source with the model of the others, and which sources have text left without their templates.

    Only those teach: what is left of the others is nothing, or what is left of any pipeline.
    """
    share = windows.features[:, KEPT]
    plain = [a for a in attacks if np.median(share[windows.cell(a, 1.0, side_a=True)]) >= RESIDUAL_EDGES[0]]
    rows = []
    for name in attacks:
        teachers = [a for a in plain if a != name]
        label = test if name in plain else f"{test}, new family"
        if teachers:
            rows.append(judge(label, train(windows, teachers), windows, name))
    return rows, plain


def _matched(frames: Frames) -> list[tuple[str, pl.DataFrame]]:
    """Lower-cased, and people and attackers within one range of lengths: what case and length alone gave is gone."""
    short = pl.col("prompt").str.len_chars().is_between(SHORT, LONG)
    pipeline = pl.col("kind").cast(pl.String).str.contains("pipeline")
    lower = pl.col("prompt").cast(pl.String).str.to_lowercase()
    return [(name, made) for name, f in frames if len(made := f.filter(short | pipeline).with_columns(lower))]


def run_pilot(
    frames: Frames, sketching: Sketching, plan: Plan | None = None, seed: int = 1,
    shipped: ShapeModel | None = None, progress: Step = lambda done, total, note: None,
) -> PilotReport:  # fmt: skip
    """Run everything; the same frames, plan and seed give the same figures. ``shipped`` is judged beside the others."""
    plan = plan or Plan()
    frames = [(name, frame) for name, frame in frames if name not in KIN]
    done = 0

    def step(note: str) -> None:
        nonlocal done
        done += 1
        progress(done, total, note)

    total = 1
    bank = build(frames, sketching, seed)
    attacks = bank.names(ATTACK)
    total = 12 + 4 * len(attacks)
    step("prompts sketched")
    rng = np.random.default_rng([seed, 1])
    sides = Side(bank, True), Side(bank, False)
    windows = draw(bank, sides, attacks, plan.size, plan.null, plan.cells, rng, step)
    rows, plain = _left_out_rows(windows, attacks, LEFT_OUT)
    if shipped is not None:
        rows += [judge("shape, as shipped", shipped, windows, a) for a in attacks]
    taught = teach(bank, windows, plain, seed) if plain else None
    rows += taught_rows(taught, windows, plain) if taught is not None else []
    rows += shaped_rows(windows, plain)
    # a stream of its own: the other figures are as they were without this test
    again = np.random.default_rng([seed, 5])
    rows += signed_rows(bank, sides[1], bank.signed, attacks, plan.size, plan.null[1], plan.cells[1], again)
    rows += _evasions(bank, sides[1], windows, plain, taught, plan, rng)
    step("evasions")
    history, limit = history_rows(bank, sides[1], attacks, *plan.history, rng, step)
    rows += history
    if plan.population[0]:
        rows += _population(frames, sketching, plan, seed)
        step("one population")
    if plan.matched:
        rows += _without_shortcuts(frames, sketching, plan, seed, step)
    counts = {s: int((bank.source == i).sum()) for i, s in enumerate(bank.sources)}
    return PilotReport(seed, plan, counts, rows, _kept(windows, attacks), limit)


def _evasions(
    bank: Bank, side: Side, windows: Windows, plain: Sequence[str], taught: Taught | None, plan: Plan,
    rng: np.random.Generator,
) -> list[Row]:  # fmt: skip
    """What it costs the models when the attacker knows them: rates of people, and a wrapper around every prompt."""
    people = np.concatenate([bank.rows(n, False) for n in bank.names(HUMAN)])
    ways = {
        "evasion: asks and addresses as people do": human_rates(bank, people, command=False),
        "evasion: and opens as people do": human_rates(bank, people, command=True),
        "evasion: one wrapper around each prompt": None,
    }
    rows, known = [], []
    own = taught.score(windows) if taught is not None else None
    for name in plain:
        teachers = [a for a in plain if a != name]
        if not teachers:
            continue
        model = train(windows, teachers)
        for test, change in ways.items():
            cells = evading(bank, side, name, plan.size, max(plan.cells[1] // 2, len(KINDS)), rng, change)
            rows.append(judge(test, model, windows, name, cells))
            if taught is not None and own is not None:
                known.append(row_of(f"{TAUGHT}, {test}", windows, own, name, cells, taught.score_changed(cells)))
    return rows + known


def _without_shortcuts(
    frames: Frames, sketching: Sketching, plan: Plan, seed: int, step: Callable[[str], None]
) -> list[Row]:
    """The shape model and the reader of families where neither letter case nor length can help them."""
    bank = build(_matched(frames), sketching, seed)
    rng = np.random.default_rng([seed, 2])
    null = tuple(max(len(KINDS), round(n * plan.matched)) for n in plan.null)
    cells = tuple(max(len(KINDS), round(n * plan.matched)) for n in plan.cells)
    attacks = bank.names(ATTACK)
    sides = Side(bank, True), Side(bank, False)
    windows = draw(bank, sides, attacks, plan.size, (null[0], null[1]), (cells[0], cells[1]), rng, step)
    label = "lower case, lengths matched"
    rows, plain = _left_out_rows(windows, attacks, label)
    rows = [r for r in rows if r.source in plain]
    if plain:
        rows += taught_rows(teach(bank, windows, plain, seed), windows, plain, f"{TAUGHT}, {label}")
    return rows


def _population(frames: Frames, sketching: Sketching, plan: Plan, seed: int) -> list[Row]:
    """MMD against people of one source alone, as published: bytes hashed, and shape scalars.

    Drawn as the pilot drew, each prompt once a window, and again with prompts that may come twice. The first flatters:
    a window of 1,500 of 1,700 prompts is nearly the population itself, whatever is drawn, so the null hardly varies.
    """
    window, null, trials = plan.population
    roles = {name: role_of(str(frame["kind"][0])) for name, frame in frames}
    name, frame = max(((n, f) for n, f in frames if roles[n] == HUMAN), key=lambda p: len(p[1]))
    attacks = {n: f["prompt"].cast(pl.String).head(3000).to_list() for n, f in frames if roles[n] == ATTACK}
    encoders = {
        "bytes": embed_bytes,
        "shape scalars": lambda texts: sketching.scalars(texts.to_list()).astype(np.float64) / 255.0,
    }
    rows = []
    for label, encoder in encoders.items():
        for twice, how in ((False, ""), (True, ", prompts may come twice")):
            table = mmd_table({name: frame["prompt"].cast(pl.String).to_list()}, attacks, window=window, null=null,
                              trials=trials, seed=seed, encoder=encoder, protocols=("one population",),
                              reference=SIDE_A, twice=twice)  # fmt: skip
            for row in table:
                # the table's shares rise, ours fall
                caught = tuple(row.caught[MMD_SHARES.index(s)] for s in SHARES)
                rows.append(Row(f"MMD, one population, {label}{how}", row.attack, caught, row.false_positives))
    return rows
