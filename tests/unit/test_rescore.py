"""What the classifier read is kept day by day, and a model asked again says what it said, or what it would say now."""

from __future__ import annotations

import json
import os
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import set_models
from campaign_world import FIRST, STEP_MS, Act, blob
from typer.testing import CliRunner

from monitor import wiring
from monitor.__main__ import build as cli
from monitor.archive import LAYOUT, SCORES, Archive, Reads, days_of, forget, scan
from monitor.engines import engine_of
from monitor.errors import BadInput
from monitor.offline import backtest_files
from monitor.records import REQUEST_SET
from monitor.rescoring import THEN, rescore
from monitor.score import CLASSIFIER_COLUMNS, ClassifierOptions
from monitor.settings import Settings
from monitor.simulate.api import simulate

DAY = 144
"""Steps of a day."""


def keeper(path: Path, layout: str = wiring.VECTORS.hash, told: Any = lambda lost, why: None) -> Archive:
    return Archive(path, STEP_MS, told=told, reads=Reads(path, STEP_MS, set_models.FEATURES, layout))


def rows_of(step: int, sets: Any, then: float | None = None, partition: int = 0) -> pl.DataFrame:
    """Rows of the last tick of a step, account i with set i."""
    events, mask, features = sets
    held = [e[m == 1].tobytes() for e, m in zip(events, mask, strict=True)]
    columns = dict(zip(set_models.FEATURES, features.T.astype(np.float64), strict=True))
    n = len(held)
    return pl.DataFrame(
        {
            "subject": [f"a{i}" for i in range(n)], "partition": pl.Series([partition] * n, dtype=pl.Int32),
            "t_ms": [(FIRST + step + 1) * STEP_MS] * n, REQUEST_SET: pl.Series(held, dtype=pl.Binary), **columns,
            **({} if then is None else {CLASSIFIER_COLUMNS[0]: [then] * n}),
        },
        nan_to_null=True,
    )  # fmt: skip


def closed(step: int, partition: int = 0) -> Any:
    return blob(step, [Act("a0")], partition)


def options(path: Path, seed: int = 0) -> ClassifierOptions:
    return ClassifierOptions(model_dir=set_models.write(path, seed), providers=("cpu",), buckets=(8, 64))


def kept(path: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(f) for _, files in scan(path, kind="r") for f in files])


def test_the_last_reading_of_a_day_is_kept_and_asked_about(tmp_path: Path) -> None:
    archive, path = keeper(tmp_path / "kept"), tmp_path / "kept"
    drawn = [set_models.drawn(20, seed=s) for s in range(4)]
    for step, sets in zip((0, 5, DAY, DAY + 1), drawn, strict=True):
        archive.scored(rows_of(step, sets, then=0.25))
        archive.put([closed(step)])
    first, second = days_of(path, "r")
    assert [f.name for f in (path / first.isoformat()).glob("r*")] == ["r0.parquet"]
    done = rescore(path, options(tmp_path / "model"), above=0.0)
    assert (done.days, done.rows, done.silent, done.foreign) == (2, 60, 0, 0)
    for day, at in ((first, [1]), (second, [2, 3])):
        got = done.found.filter(pl.col("day") == day).sort("account", *CLASSIFIER_COLUMNS)
        said = [set_models.reference(*(np.asarray(x) for x in drawn[i])) for i in at]
        wanted = pl.concat(
            pl.DataFrame({"account": [f"a{i}" for i in range(20)], **dict(zip(CLASSIFIER_COLUMNS, s.T, strict=True))})
            for s in said
        ).sort("account", *CLASSIFIER_COLUMNS)
        assert np.allclose(got.select(CLASSIFIER_COLUMNS).to_numpy(), wanted.select(CLASSIFIER_COLUMNS).to_numpy(),
                           atol=1e-5)  # fmt: skip
        assert got[THEN[0]].to_list() == [64 / 255] * len(got)
        assert got[THEN[1]].null_count() == len(got)


@pytest.mark.parametrize("engine", ["threads", "local", "processes:2", pytest.param("ray", marks=pytest.mark.cluster)])
def test_every_engine_finds_the_same(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    archive, path = keeper(tmp_path / "kept"), tmp_path / "kept"
    for step in range(3):
        for partition in range(3):
            archive.scored(rows_of(step, set_models.drawn(30, seed=step * 3 + partition), 0.9, partition))
            archive.put([closed(step, partition)])
    model = options(tmp_path / "model")
    expected = rescore(path, model, above=0.7)
    on = None if engine == "threads" else engine_of(engine)
    done = rescore(path, model, on, above=0.7, threads=3)
    assert done.rows == expected.rows == 9 * 30
    order = ["account", *CLASSIFIER_COLUMNS]
    assert done.found.sort(order).equals(expected.found.sort(order))
    assert set(done.providers) == {"cpu"}


def test_who_is_named_now_and_who_was_then(tmp_path: Path) -> None:
    archive, path = keeper(tmp_path / "kept"), tmp_path / "kept"
    sets = set_models.drawn(40, seed=3)
    highest = set_models.reference(*sets).max(axis=1)
    above = float(np.median(highest))
    archive.scored(rows_of(0, sets).with_columns(
        pl.when(pl.int_range(pl.len()) % 2 == 0).then(1.0).otherwise(None).alias(CLASSIFIER_COLUMNS[1])))  # fmt: skip
    archive.put([closed(0)])
    found = rescore(path, options(tmp_path / "model"), above=above).accounts(above)
    named = dict(found.select("account", "named").iter_rows())
    for i in range(40):
        now, then = highest[i] >= above, i % 2 == 0
        wanted = {(True, True): "still", (True, False): "new", (False, True): "no longer"}.get((bool(now), then))
        assert named.get(f"a{i}") == wanted
    row = found.row(0, named=True)
    top = int(np.argmax(highest))
    assert row["account"] == f"a{top}"
    assert CLASSIFIER_COLUMNS[int(set_models.reference(*sets)[top].argmax())] == f"classifier_{row['hypothesis']}"
    assert (row["days"], row["since"]) == (1, days_of(path, "r")[0])


def test_what_does_not_wait_in_memory_is_written_as_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.archive.reads.SPILL_ROWS", 50)
    archive, path = keeper(tmp_path), tmp_path
    for seed in range(6):
        archive.scored(rows_of(0, set_models.drawn(20, seed=seed)))
    archive.put([closed(0)])
    held = kept(path)
    assert len(held) < 120, "an account's rows of one step are its last one, also in memory"
    archive.put([closed(DAY)])
    (file,) = next(files for _, files in scan(path, kind="r"))
    assert file.name == "r0.parquet"
    last = pl.read_parquet(file)
    assert last["account"].to_list() == sorted(f"a{i}" for i in range(20))
    events, mask, _ = set_models.drawn(20, seed=5)
    wanted = {f"a{i}": e[m == 1].tobytes() for i, (e, m) in enumerate(zip(events, mask, strict=True))}
    assert dict(last.select("account", REQUEST_SET).iter_rows()) == wanted


def test_a_restart_that_reads_again_changes_no_day(tmp_path: Path) -> None:
    for again in range(2):
        archive = keeper(tmp_path)
        for step in range(DAY + 2) if again else range(DAY // 2):
            archive.scored(rows_of(step, set_models.drawn(3, seed=step)))
            archive.put([closed(step)])
    once = keeper(tmp_path / "once")
    for step in range(DAY + 2):
        once.scored(rows_of(step, set_models.drawn(3, seed=step)))
        once.put([closed(step)])
    first = days_of(tmp_path, "r")[0].isoformat()
    whole = pl.read_parquet(tmp_path / first / "r0.parquet")
    assert whole.equals(pl.read_parquet(tmp_path / "once" / first / "r0.parquet"))


def test_a_set_in_another_layout_is_not_read_as_one(tmp_path: Path) -> None:
    other = keeper(tmp_path / "kept", layout="another")
    other.scored(rows_of(0, set_models.drawn(5)))
    other.put([closed(0)])
    done = rescore(tmp_path / "kept", options(tmp_path / "model"), above=0.0)
    assert (done.rows, done.foreign, len(done.found)) == (0, 5, 0)


def test_a_full_disk_is_said_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, str]] = []
    monkeypatch.setattr("monitor.archive.reads.SPILL_ROWS", 10)
    (tmp_path / "kept").write_text("no folder")
    archive = keeper(tmp_path / "kept", told=lambda lost, why: said.append((lost, why)))
    archive.scored(rows_of(0, set_models.drawn(20)))
    assert said[-1][0] == 1
    assert "archive.path" in said[-1][1]
    archive.scored(rows_of(0, set_models.drawn(5)))
    archive.put([closed(0)])
    assert said[-1][0] == 1
    (tmp_path / "kept").unlink()
    archive.put([closed(0)])
    assert said[-1] == (0, "")
    assert len(kept(tmp_path / "kept")) == 5


def test_an_account_is_forgotten_in_what_was_read_too(tmp_path: Path) -> None:
    archive = keeper(tmp_path)
    archive.scored(rows_of(0, set_models.drawn(5)))
    archive.put([closed(0)])
    assert forget(tmp_path, "a3") == 1
    assert sorted(kept(tmp_path)["account"]) == ["a0", "a1", "a2", "a4"]
    (file,) = next(files for _, files in scan(tmp_path, kind="r"))
    assert pl.read_parquet_metadata(file)[LAYOUT] == wiring.VECTORS.hash, "else it would count as another layout"


def test_without_what_it_needs_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"archive\.reads"):
        rescore(tmp_path, options(tmp_path / "model"))
    with pytest.raises(BadInput, match="--model"):
        rescore(tmp_path, ClassifierOptions())
    result = CliRunner().invoke(cli(), ["rescore", "--archive", str(tmp_path), "--until", "soon"])
    assert result.exit_code == 2
    assert "--until" in result.output


def test_the_model_that_served_says_the_same_again(tmp_path: Path) -> None:
    """The archive as a backtest writes it, and the command with the model that ships."""
    log, path = tmp_path / "log.ndjson.zst", tmp_path / "archive"
    simulate(["S1", "B5"], log, accounts=60, days=1.2, heavy_cap=40)
    settings = Settings.model_validate({"archive": {"path": str(path), "reads": True}})
    backtest_files([log], tmp_path / "alerts.ndjson", settings=settings)
    asked = ["rescore", "--archive", str(path), "--above", "0.05"]
    result = CliRunner().invoke(cli(), [*asked, "--json", "--out", str(tmp_path / "found.parquet")])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["rows"] == len(kept(path)) > 60
    assert said["no_opinion"] == 0
    assert {a["named"] for a in said["accounts"]} == {"still"}
    found = pl.read_parquet(tmp_path / "found.parquet")
    assert len(found) > 20
    off = [(found[now] - found[then]).abs().max() for now, then in zip(SCORES, THEN, strict=True)]
    assert max(float(o) for o in off if o is not None) <= 0.5 / 255 + 1e-6
    assert date.fromisoformat(said["accounts"][0]["since"]) - days_of(path, "r")[0] <= timedelta(days=2)
    shown = CliRunner().invoke(cli(), [*asked, "--limit", "3"])
    assert "0 new" in shown.output
    assert "account-days of" in shown.output
