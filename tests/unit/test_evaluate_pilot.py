"""The pilot's protocol on invented text: what is found, what is not, and that the two sides share nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pilot_text
import polars as pl
import pytest
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.errors import BadInput
from monitor.evaluate.pilot import PilotReport, Plan, report, run_pilot
from monitor.evaluate.pilot.bank import ATTACK, HUMAN, PIPELINE, Bank, read
from monitor.evaluate.pilot.bank import build as build_bank
from monitor.evaluate.pilot.licensed import fit_shipped, licensed, seed_tasks
from monitor.evaluate.pilot.tenants import KINDS, Side, interleave
from monitor.evaluate.pilot.windows import HEAVY_SHARE, whole
from monitor.offline import PromptSketches
from monitor.sketch import HeavyGrams, Keyring, Sketcher
from monitor.sketch.sketcher import texts_of

SMALL = Plan(size=120, null=(100, 100), cells=(8, 8), matched=0.0, history=(24, 4), population=(150, 40, 10))
TINY = Plan(size=60, null=(16, 16), cells=(4, 4), matched=0.0, history=(8, 4), population=(0, 0, 0))


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build_bank(pilot_text.frames(1), PromptSketches(1), 1)


@pytest.fixture(scope="module")
def made() -> PilotReport:
    return run_pilot(pilot_text.frames(1), PromptSketches(1), SMALL, 1)


def caught(made: PilotReport, test: str, source: str) -> tuple[float, ...]:
    return next(r.caught for r in made.of(test) if r.source == source)


def test_no_prompt_session_or_data_set_is_on_both_sides(bank: Bank) -> None:
    a, b = bank.side, ~bank.side
    assert 0.2 < a.mean() < 0.6
    for codes in (bank.session[bank.role == HUMAN], bank.group[bank.role == PIPELINE]):
        assert len(codes)
    human, pipeline = bank.role == HUMAN, bank.role == PIPELINE
    assert not set(bank.session[human & a]) & set(bank.session[human & b])
    assert not set(bank.group[pipeline & a]) & set(bank.group[pipeline & b])


def test_tenants_are_what_they_are_called(bank: Bank) -> None:
    rng, side = np.random.default_rng(2), Side(bank, False)
    roles = [set(bank.role[side.tenant(kind, 100, rng)].tolist()) for kind in range(len(KINDS))]
    assert roles == [{HUMAN}, {HUMAN}, {PIPELINE}, {HUMAN, PIPELINE}]
    chat = side.tenant(0, 100, rng)
    assert (np.diff(bank.turn[chat])[np.diff(bank.session[chat]) == 0] == 1).all()
    mixed = side.window(1, 100, rng, "first", 0.25)
    assert (bank.role[mixed] == ATTACK).sum() == 25
    assert not bank.side[mixed].any()


def test_a_window_drops_what_the_product_calls_heavy(bank: Bank) -> None:
    """The protocol counts grams itself; the sketch step, given the same heavy grams, must say the same."""
    rng, side, sketcher = np.random.default_rng(3), Side(bank, False), Sketcher(Keyring.from_seed(1))
    key = sketcher.keyring.keys[0].id
    some = False
    for kind in range(len(KINDS)):
        rows = side.tenant(kind, 150, rng)
        texts = texts_of(bank.texts.gather(rows).to_list())
        assert texts is not None
        values, counts = np.unique(sketcher.grams(texts, 0)[1], return_counts=True)
        heavy = HeavyGrams(key, values[counts >= max(5, HEAVY_SHARE * len(rows))])
        residual = sketcher.sketch_texts(texts, None, np.zeros(len(rows), np.int64), heavy).residual_share
        assert residual is not None
        assert np.array_equal(whole(bank, rows), residual == 255)
        some |= bool((residual < 255).any())
    assert some


def test_interleaving_keeps_each_order() -> None:
    mixed = interleave([np.arange(4), np.arange(100, 102)])
    assert mixed.tolist() == [0, 100, 1, 2, 101, 3]


def test_instructions_are_found_and_templates_are_not_taken_for_them(made: PilotReport) -> None:
    shape = {r.source: r for r in made.of("shape, source left out")}
    assert set(shape) == {"first", "second"}
    for row in shape.values():
        assert row.caught[0] == 1.0
        assert row.caught[1] > 0.8
        assert row.false_positives is not None
        assert row.false_positives < 0.25  # one kind of tenant of four taken for campaigns
    # a sweep in one template leaves nothing to look at
    assert caught(made, "shape, source left out, new family", "sweep")[0] < 0.1
    assert made.kept["pipeline"][1] < 0.1
    assert made.kept["chat"][1] > 0.9


def test_an_attacker_who_talks_like_people_is_missed(made: PilotReport) -> None:
    for source in ("first", "second"):
        assert caught(made, "evasion: and opens as people do", source)[0] < 0.3
        assert caught(made, "evasion: one wrapper around each prompt", source)[0] < 0.3


def test_own_history_needs_no_attack_label(made: PilotReport) -> None:
    rows = made.of("own history")
    assert {r.source for r in rows} == {"first", "second", "sweep"}
    assert all(r.caught[1] > 0.9 for r in rows)
    assert made.history_z < 8


def test_one_population(made: PilotReport) -> None:
    assert all(r.caught[0] == 1.0 for r in made.of("MMD, one population, bytes"))


def test_a_family_that_was_seen_is_found_at_a_quarter(made: PilotReport) -> None:
    for source in ("first", "second"):
        assert caught(made, "known family", source)[:3] == (1.0, 1.0, 1.0)
    assert {r.source for r in made.of("known family")} == {"first", "second"}  # a sweep leaves no shape to learn


def test_a_generator_is_told_by_its_signature_and_nobody_else_is() -> None:
    frames = pilot_text.frames(1)
    head = "Come up with a list of 12 new tasks like this:"
    asks = [f"{head} {prompt}" for prompt in frames[3][1]["prompt"]]
    frames.append(("generator", pl.DataFrame({"kind": ["distill"] * len(asks), "prompt": asks})))
    made = run_pilot(frames, PromptSketches(1), TINY, 1)
    name = "known generator, by its signature"
    assert caught(made, name, "generator") == (1.0, 1.0, 1.0, 1.0)
    assert caught(made, name, "first") == (0.0, 0.0, 0.0, 0.0)


def test_the_same_seed_gives_the_same_figures() -> None:
    one, again, other = (run_pilot(pilot_text.frames(1, 400, 20), PromptSketches(1), TINY, s) for s in (1, 1, 2))
    assert again.as_dict() == one.as_dict()
    assert other.kept != one.kept


def test_what_is_written(made: PilotReport, tmp_path: Path) -> None:
    report.write(made, tmp_path / "p.json", tmp_path / "p.md")
    assert json.loads((tmp_path / "p.json").read_text())["schema"] == "pilot/v1"
    lines = (tmp_path / "p.md").read_text().splitlines()
    assert any("shape, source left out | worst source | 1.00" in line for line in lines)
    assert "| known family | asked of the mean | 0.99 | 0.98 | 0.90 | 0.45 | - |" in lines
    assert len(report.tables(made)) == 3


def test_seed_tasks_are_read_from_generators() -> None:
    listed = "Come up with a series of tasks:\n1. Name three rivers of the north.\n2."
    asked = (
        "List of 20 tasks:\n###\n1. Instruction: Sort these\n1. Input:\nb\na\n1. Output:\na b\n###\n"
        "2. Instruction: Rhyme.\n2. Input:\n<noinput>\n2. Output:\nx\n"
    )
    assert seed_tasks([listed, asked, listed]) == ["Name three rivers of the north.", "Sort these\nb\na", "Rhyme."]


def test_only_rows_that_may_be_shipped_train_the_model_that_ships() -> None:
    free = [(n, f.with_columns(ship_ok=pl.int_range(pl.len()) % 2 == 0)) for n, f in pilot_text.frames(2)]
    assert [n for n, _ in licensed(free)] == ["sessions", "people"]
    lists = [f"Tasks:\n{i}. {p}" for i, p in enumerate(free[3][1]["prompt"])]
    quoting = pl.DataFrame({"prompt": lists}).with_columns(kind=pl.lit("distill"), ship_ok=True)
    taken = licensed([*free[:1], ("generator", quoting)])
    assert len(taken[0][1]) == len(free[0][1]) // 2
    assert taken[1][0] == "generator, seed tasks"
    with pytest.raises(ValueError, match="ship_ok"):
        fit_shipped(free, PromptSketches(1))


def test_a_folder_without_prompts_and_a_mix_of_modes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="prompts_"):
        read(tmp_path)
    run = CliRunner().invoke(build(), ["evaluate", "--pilot", str(tmp_path), "--suite", "smoke"])
    assert run.exit_code == 2
    (tmp_path / "prompts_x.parquet").write_text("no parquet")
    assert CliRunner().invoke(build(), ["evaluate", "--pilot", str(tmp_path)]).exit_code == 2
