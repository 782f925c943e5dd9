"""A backtest cut by partitions gives what one process gives; and what can't be cut, or can't run, is said."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alert_rows import an_alert

from monitor.backtest import Tally
from monitor.engines import Local, engine_of
from monitor.errors import BadInput, NothingReadable
from monitor.offline import backtest_files
from monitor.settings import Settings
from monitor.simulate import api

Given = Generator[tuple[int, Any], None, None]
PARTITIONS = 5
CHANGES_WITH_THE_CLOCK = ("seconds", "events_per_second", "peak_rss_mb", "peak_rss_mb_all")


class Cut:
    """Tasks in this process, the last one first: none may need another. What they give comes in turns."""

    jobs_a_slot = 2

    def __init__(self, slots: int = 1) -> None:
        self.jobs: list[Any] = []
        self._slots = slots

    def slots(self) -> int:
        return self._slots

    def run(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        raise AssertionError("a backtest takes what tasks give as they go")

    def stream(self, function: Callable[[Any], Iterable[Any]], jobs: Sequence[Any]) -> Given:
        self.jobs += jobs
        packed = [travelled(job) for job in jobs]
        given = [(number, travelled(list(function(packed[number])))) for number in reversed(range(len(jobs)))]
        for turn in zip_longest(*(items for _, items in given)):
            yield from ((number, item) for (number, _), item in zip(given, turn, strict=True) if item is not None)


def travelled(job: Any) -> Any:
    """As it comes out at the other end of a wire."""
    return pickle.loads(pickle.dumps(job))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in two files; with the first as warm-up there are campaigns that were open when the second begins."""
    folder = tmp_path_factory.mktemp("world")
    api.simulate(["S1", "S10"], folder / "log.ndjson", accounts=120, days=0.7, seed=5, heavy_cap=40)
    lines = (folder / "log.ndjson").read_bytes().splitlines(keepends=True)
    (folder / "early.ndjson").write_bytes(b"".join(lines[: len(lines) // 2]))
    (folder / "late.ndjson").write_bytes(b"".join(lines[len(lines) // 2 :]))
    return folder


def run(world: Path, out: Path, engine: Any = None, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    summary = backtest_files(
        [world / "late.ndjson"], out, warmup=[world / "early.ndjson"], context=[world / "log.context.ndjson"],
        partitions=PARTITIONS, engine=engine, **options,
    )  # fmt: skip
    return [msgspec.json.decode(line) for line in out.read_bytes().splitlines()], summary


def key(alert: dict[str, Any]) -> tuple[str, int]:
    return alert["alert_id"], alert["revision"]


def test_tasks_give_the_alerts_and_the_summary_of_one_process(world: Path, tmp_path: Path) -> None:
    whole, said = run(world, tmp_path / "whole.ndjson")
    cut = Cut(2)
    told: list[tuple[int, int]] = []
    parts, summary = run(world, tmp_path / "parts.ndjson", cut, progress=lambda *at: told.append(at))
    assert {a["kind"] for a in whole} == {"account", "campaign"}
    assert sorted(parts, key=key) == sorted(whole, key=key)
    assert [a["revised_at"] for a in parts] == sorted(a["revised_at"] for a in parts)
    assert len(cut.jobs) == 2 * Cut.jobs_a_slot
    assert sorted(p for job in cut.jobs for p in job.mine) == list(range(PARTITIONS))
    assert told[-1][0] == said["events"]
    assert {k: v for k, v in summary.items() if k not in CHANGES_WITH_THE_CLOCK} == {
        k: v for k, v in said.items() if k not in CHANGES_WITH_THE_CLOCK
    }
    # the summary counts what the file's newest revisions say
    newest = {a["alert_id"]: a for a in sorted(whole, key=key)}
    assert said["alerts"]["total"] == len(newest)
    assert said["alerts"]["severity"] == Counter(a["severity"] for a in newest.values())
    assert said["alerts"]["hypothesis"] == Counter(a["hypothesis"] for a in newest.values())
    # the warm-up was mute in every task, and for the campaigns
    begins = msgspec.json.decode((world / "late.ndjson").read_bytes().split(b"\n")[0])["ts"]
    assert min(a["revised_at"] for a in parts if a["kind"] == "account") >= begins - 60
    assert min(a["revised_at"] for a in parts if a["kind"] == "campaign") >= begins - 60


def test_an_alert_that_opened_low_and_ended_high_counts_as_high() -> None:
    tally = Tally()
    tally.add([an_alert(0, 2, severity="high"), an_alert(0, 1, severity="low"), an_alert(1, 1, severity="low")])
    assert (len(tally), tally.revisions, tally.severity) == (2, 3, {"high": 1, "low": 1})


def test_what_cannot_be_cut_is_refused(world: Path, tmp_path: Path) -> None:
    archived = Settings.model_validate({"archive": {"path": str(tmp_path / "archive")}})
    with pytest.raises(BadInput, match=r"archive\.path"):
        run(world, tmp_path / "out", Cut(), settings=archived)
    with pytest.raises(BadInput, match="cannot be read"):
        backtest_files([tmp_path / "none.ndjson"], tmp_path / "out", engine=Cut())
    (tmp_path / "bad.ndjson").write_text("nothing\n" * 3)
    with pytest.raises(NothingReadable, match="none of 3 records"):
        backtest_files([tmp_path / "bad.ndjson"], tmp_path / "out", engine=Cut())


def test_what_a_task_cannot_use_comes_back_as_a_problem(world: Path, tmp_path: Path) -> None:
    class LostFile(Cut):
        """A node that does not see the log."""

        def stream(self, function: Callable[[Any], Iterable[Any]], jobs: Sequence[Any]) -> Given:
            (world / "copy.ndjson").unlink()
            return super().stream(function, jobs)

    (world / "copy.ndjson").write_bytes((world / "log.ndjson").read_bytes())
    with pytest.raises(BadInput, match=r"copy\.ndjson: cannot be read"):
        backtest_files([world / "copy.ndjson"], tmp_path / "out", engine=LostFile())


def test_engines_by_name() -> None:
    assert isinstance(engine_of("local"), Local)
    assert list(Local().run(abs, [-1, 2])) == [1, 2]
    for text in ("spark", "ray:/x", "ray://", "http://host:1", "ray://host:1/path"):
        with pytest.raises(BadInput, match="--engine: is local, processes"):
            engine_of(text)
