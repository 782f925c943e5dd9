"""What every engine must do, for each of them; then what is only true of processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import engine_jobs as jobs
import pytest

from monitor import wiring
from monitor.alerts import FileSink
from monitor.engines import Engine, Local, engine_of
from monitor.engines.processes import Processes, processors
from monitor.errors import BadInput, WorkerLost
from monitor.offline import backtest_files, context_events
from monitor.partwise import Work, backtest
from monitor.settings import load_settings
from monitor.simulate import api
from monitor.tuning import Alone, Rows, judged_alone, parse_sweep, record, replay, sweep

PARTITIONS = 5


@pytest.fixture(params=["local", "processes:2", pytest.param("ray", marks=pytest.mark.cluster)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return engine_of(request.param)


def test_results_come_in_the_order_of_the_jobs(engine: Engine) -> None:
    assert engine.slots() >= 1
    assert list(engine.run(jobs.square, range(5))) == [0, 1, 4, 9, 16]
    assert list(engine.run(jobs.slow_first, [0, 1, 2])) == [0, 1, 2]
    assert list(engine.run(jobs.square, [])) == []
    assert [len(result) for result in engine.run(jobs.large, [3 << 20, 0])] == [3 << 20, 0]


def test_what_a_job_gives_comes_once_and_in_its_order(engine: Engine) -> None:
    with closing(engine.stream(jobs.several, [("a", 3), ("b", 0), ("c", 2)])) as given:
        found = list(given)
    assert [item for number, item in found if number == 0] == ["a0", "a1", "a2"]
    assert [item for number, item in found if number == 2] == ["c0", "c1"]
    assert len(found) == 5
    with closing(engine.stream(jobs.several, [("a", 3), ("b", 3)])) as given:
        assert next(given)[1] in ("a0", "b0")  # and no more is wanted


def test_what_a_job_raises_is_raised(engine: Engine) -> None:
    with pytest.raises(BadInput) as caught:
        list(engine.run(jobs.bad_input, ["x.ndjson"]))
    assert [problem.line for problem in caught.value.problems] == [1, 3]
    with pytest.raises(Exception, match="log: because"):
        list(engine.run(jobs.odd, ["log"]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    api.simulate(["S1", "S10"], folder / "log.ndjson", accounts=120, days=0.7, seed=5, heavy_cap=40)
    backtest_files(
        [folder / "log.ndjson"], folder / "whole.ndjson", context=[folder / "log.context.ndjson"], partitions=PARTITIONS
    )
    return folder


def test_a_backtest_gives_what_one_pass_gives(engine: Engine, world: Path, tmp_path: Path) -> None:
    whole = (world / "whole.ndjson").read_bytes().splitlines()
    context = tuple(context_events([world / "log.context.ndjson"]))
    work = Work(load_settings(None), (world / "log.ndjson",), (), context, (), None, 1, PARTITIONS, frozenset())
    with closing(FileSink(tmp_path / "cut.ndjson")) as sink:
        said = backtest(engine, work, sink).values
    assert any(b'"kind":"campaign"' in line for line in whole)
    assert sorted((tmp_path / "cut.ndjson").read_bytes().splitlines()) == sorted(whole)
    assert 0 < said["peak_rss_mb"] <= said["peak_rss_mb_all"]


@pytest.fixture(scope="module")
def rows(world: Path) -> Rows:
    return record([world / "log.ndjson"], world / "rows", settings=load_settings(None))


def test_stored_rows_are_judged_again_as_in_one_pass(engine: Engine, rows: Rows) -> None:
    rules = wiring.load(load_settings(None))
    asked = parse_sweep("campaign-linked.tenants=3:30:4", rules)
    curve = sweep(rows, rules, asked, (), engine.run, 3)
    assert curve == sweep(rows, rules, asked)
    assert len({point.fired for point in curve.points}) > 1, "the values differ"
    tried = replace(rules, rules={**rules.rules, asked.rule: rules.rules[asked.rule].retuned({asked.param: 30})})
    runs = list(engine.run(judged_alone, [Alone(rows, rules), Alone(rows, tried)]))
    assert [run.alerts for run in runs] == [run.alerts for run in replay(rows, [rules, tried])]
    assert runs[0].fired != runs[1].fired


def test_a_job_whose_process_is_killed_is_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = [(tmp_path / "a", 4), (tmp_path / "b", 3)]
    with closing(Processes(2).stream(jobs.dies_once, work)) as given:
        found = list(given)
    assert [item for number, item in found if number == 0] == [0, 1, 2, 3]
    assert [item for number, item in found if number == 1] == [0, 1, 2]
    assert len(caplog.records) == 2
    assert all("was killed by SIGKILL: its work is done again" in record.message for record in caplog.records)


def test_work_that_kills_twice_is_given_up_with_what_to_do() -> None:
    with pytest.raises(WorkerLost, match=r"killed by SIGKILL, the second time .*--engine processes:N"):
        list(Processes(1).stream(jobs.dies, [0]))


def test_a_process_has_one_thread_of_polars_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    assert list(Processes(1).run(jobs.environment, ["POLARS_MAX_THREADS"])) == ["1"]
    assert "POLARS_MAX_THREADS" not in os.environ
    monkeypatch.setenv("POLARS_MAX_THREADS", "3")
    assert list(Processes(1).run(jobs.environment, ["POLARS_MAX_THREADS"])) == ["3"]


def test_what_cannot_travel_is_said() -> None:
    with pytest.raises(Exception, match=r"pickle|local object"):
        list(Processes(1).run(lambda job: job, [1]))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_caller(sent: signal.Signals, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; import engine_jobs; from monitor.engines.processes import Processes\n"
        f"list(Processes(2).run(engine_jobs.tells_and_waits, [Path({str(tmp_path)!r}) / n for n in 'ab']))"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    caller = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, stderr=-3)
    try:
        _wait(lambda: all((tmp_path / name).exists() for name in "ab") or caller.poll() is not None)
        assert caller.poll() is None
        workers = [int((tmp_path / name).read_text()) for name in "ab"]
        assert all(map(_alive, workers))
        caller.send_signal(sent)
        assert caller.wait(240) != 0
        _wait(lambda: not any(map(_alive, workers)))
    finally:
        caller.kill()
        caller.wait()


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 240
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_by_name() -> None:
    assert engine_of("processes:3").slots() == 3
    assert engine_of("processes").slots() == processors() >= 1
    assert isinstance(engine_of("local"), Local)
    for text in ("processes:", "processes:0", "processes:-1", "processes:x", "processes://h:1"):
        with pytest.raises(BadInput, match=r"--engine: is local, processes\[:N\] or ray\[://HOST:PORT\]"):
            engine_of(text)
