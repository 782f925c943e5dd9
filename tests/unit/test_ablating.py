"""The campaign steps alone say what a whole run says of campaigns; taking out of a blob is taking out of the log."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from monitor.ablating import NAME, RUNS, StepsAlone, blobs_of, variants, without
from monitor.campaigns import StepBlob
from monitor.cli.evaluate import _variants
from monitor.evaluate.ablation import GROUPS, rewrite
from monitor.evaluate.ablation import without as without_fields
from monitor.evaluate.suite import jobs_of
from monitor.offline import Detector
from monitor.settings import load_settings
from monitor.simulate import api


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = tmp_path_factory.mktemp("ablating") / "log.ndjson"
    api.simulate(["S1", "S8", "B6"], log, accounts=40, days=0.5, seed=4, heavy_cap=40)
    return log


@pytest.fixture(scope="module")
def detector() -> Detector:
    settings = load_settings(None)
    return Detector(settings).without("score", "anomaly", "enabled").without("score", "classifier", "model_dir")


def blobs(detector: Detector, log: Path) -> list[StepBlob]:
    context = log.with_name("log.context.ndjson")
    return blobs_of(StepsAlone(detector)._work(log, context))


@pytest.fixture(scope="module")
def whole(detector: Detector, world: Path) -> list[StepBlob]:
    return blobs(detector, world)


def test_the_runs_are_those_of_a_suite(detector: Detector) -> None:
    assert list(variants(detector)) == [NAME, *(f"{NAME}, {name}" for name in RUNS)]
    assert set(RUNS) <= set(GROUPS)


@pytest.mark.parametrize("name", [name for name in RUNS if name not in ("no payment", "no egress", "no links at all")])
def test_out_of_a_blob_is_out_of_the_log(name: str, detector: Detector, world: Path, whole: list[StepBlob]) -> None:
    log = world.with_name(f"without-{RUNS.index(name)}.ndjson")
    rewrite(world, log, without_fields(GROUPS[name]))
    log.with_name("log.context.ndjson").touch()
    there, made = blobs(detector, log), [without(b, GROUPS[name]) for b in whole]
    assert [(b.step, b.partition) for b in made] == [(b.step, b.partition) for b in there]
    same = [a.encode() == b.encode() for a, b in zip(made, there, strict=True)]
    if name != "no client":
        assert all(same)
    else:
        # a request whose tools were told by their schema alone
        for a, b in zip(made, there, strict=True):
            assert (b.accounts["n_tools"] <= a.accounts["n_tools"]).all()
            assert a.accounts.drop("n_tools").equals(b.accounts.drop("n_tools"))
            assert a.links.equals(b.links)
    assert not all(a.encode() == b.encode() for a, b in zip(made, whole, strict=True))


def test_what_is_said_of_campaigns_is_what_a_whole_run_says(detector: Detector, world: Path, tmp_path: Path) -> None:
    context = world.with_name("log.context.ndjson")
    detector(world, context, tmp_path / "whole.ndjson")
    StepsAlone(detector)(world, context, tmp_path / "steps.ndjson")
    of_campaigns = [x for x in (tmp_path / "whole.ndjson").read_text().splitlines() if '"kind":"campaign"' in x]
    assert of_campaigns
    assert (tmp_path / "steps.ndjson").read_text().splitlines() == of_campaigns
    # the blobs that lie there serve the next variant, which must not be the same
    kept = list(world.parent.glob("steps-*.blobs"))
    assert len(kept) == 1
    StepsAlone(detector, frozenset(GROUPS["no links at all"]))(world, context, tmp_path / "none.ndjson")
    assert (tmp_path / "none.ndjson").read_text() == ""
    assert list(world.parent.glob("steps-*.blobs")) == kept


def test_text_is_taken_out_whole(whole: list[StepBlob]) -> None:
    bare = pl.concat([without(b, GROUPS["metadata only"]).accounts for b in whole])
    assert pl.concat([b.accounts for b in whole])["n_text"].sum() > 0
    assert bare.select("n_text", "n_harvest", "question", "lex_reasoning").sum().row(0) == (0, 0, 0, 0)


def test_a_suite_that_is_asked_for_them_runs_them_and_nothing_else(detector: Detector, tmp_path: Path) -> None:
    off = _variants(detector, [NAME])
    jobs = jobs_of("standard", [3], tmp_path, detector, switched_off=off, runs=[NAME])
    assert [job.name for job in jobs] == list(variants(detector))
    assert all(job.backtest == off[job.name] for job in jobs)
    assert not any(name.startswith(NAME) for name in _variants(detector, ["detector"]))
