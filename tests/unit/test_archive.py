"""The archive of daily rows: the same however steps are put together, nothing lost on repetition, forgotten whole."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from campaign_world import STEP_MS, Act, blob

from monitor import live, wiring
from monitor.alerts import MemorySink
from monitor.archive import SCHEMA, SCORES, Archive, combined, days_of, forget, scan
from monitor.archive.rows import TEMPLATES_A_DAY, VALUES_A_DAY, kind_of
from monitor.campaigns import StepBlob
from monitor.campaigns.kinds import CODE
from monitor.dead_letters import NoDeadLetters
from monitor.errors import BadInput
from monitor.service import Signals
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.store import MemoryStore
from monitor.store.links import MemoryLinkStore

DAY = 144
"""Steps of a day."""
LINKS = {"payment": [0xA0], "egress_prefix": [0xB0, 0xC0], "template_opening": [0xD0]}


def steps(count: int, accounts: int = 5) -> list[StepBlob]:
    """Blobs of ``count`` steps; account i calls in every (i+1)-th."""
    return [
        blob(s, [Act(f"a{i}", requests=i + 1, sums={"n_text": i}, links=LINKS | {"client_build": [(s + 1) << 8]})
                 for i in range(accounts) if s % (i + 1) == 0])
        for s in range(count)
    ]  # fmt: skip


def rows(path: Path) -> pl.DataFrame:
    files = [f for _, files in scan(path) for f in files]
    return pl.concat([pl.read_parquet(f) for f in files])


def daily(path: Path) -> dict[str, pl.DataFrame]:
    return {day.isoformat(): combined(pl.concat([pl.scan_parquet(f) for f in files])) for day, files in scan(path)}


def test_a_day_is_the_same_however_its_steps_came(tmp_path: Path) -> None:
    made = steps(2 * DAY)
    for name, size in (("one", 1), ("many", 50)):
        archive = Archive(tmp_path / name, STEP_MS)
        for at in range(0, len(made), size):
            archive.put(made[at : at + size])
    one, many = daily(tmp_path / "one"), daily(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all(one[day].equals(many[day]) for day in one)
    assert one[min(one)].schema == pl.Schema(SCHEMA)
    total = pl.concat(one.values()).group_by("account").agg(pl.col("requests", "n_text").sum())
    expected = {f"a{i}": sum((i + 1) for s in range(2 * DAY) if s % (i + 1) == 0) for i in range(5)}
    assert dict(total.select("account", "requests").iter_rows()) == expected


def test_days_that_are_over_are_one_file_and_what_is_written_again_changes_nothing(tmp_path: Path) -> None:
    made, archive = steps(DAY + 40), Archive(tmp_path, STEP_MS)
    archive.put(made)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*.parquet")}
    over = days_of(tmp_path)[:-1]
    assert all([f.name for f in (tmp_path / d.isoformat()).iterdir()] == ["p0.parquet"] for d in over)
    Archive(tmp_path, STEP_MS).put(made)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*.parquet")} == before


def test_a_day_that_was_put_together_and_not_cleared_counts_once(tmp_path: Path) -> None:
    """Killed between the day's file and the removal of its steps."""
    made, archive = steps(DAY), Archive(tmp_path / "whole", STEP_MS)
    archive.put(made)
    expected = daily(tmp_path / "whole")
    day = max(expected)
    folder = tmp_path / "whole" / day
    expected[day].write_parquet(folder / "p0.parquet")
    assert len(list(folder.iterdir())) > 2
    assert daily(tmp_path / "whole")[day].equals(expected[day])


def test_links_of_a_kind_are_the_smallest_ones_and_keep_their_kind(tmp_path: Path) -> None:
    Archive(tmp_path, STEP_MS).put(steps(20, accounts=1))
    row = combined(pl.scan_parquet([f for _, files in scan(tmp_path) for f in files]))
    keys = row.select("links").explode("links", empty_as_null=True)["links"]
    kinds = pl.DataFrame({"key": keys}).select(kind_of(pl.col("key")))["key"].to_list()
    assert kinds.count(CODE["client_build"]) == VALUES_A_DAY
    builds = [k >> 4 << 4 for k, c in zip(keys, kinds, strict=True) if c == CODE["client_build"]]
    assert builds == [(s + 1) << 8 for s in range(VALUES_A_DAY)]
    assert kinds.count(CODE["template_opening"]) == 1 <= TEMPLATES_A_DAY
    assert kinds.count(CODE["egress_prefix"]) == 2


def test_the_highest_opinion_of_a_step_is_kept_also_when_it_is_put_again(tmp_path: Path) -> None:
    said: list[tuple[int, str]] = []
    made = steps(3, accounts=2)
    archive = Archive(tmp_path, STEP_MS, told=lambda lost, why: said.append((lost, why)))
    begin = made[0].step * STEP_MS
    scored = pl.DataFrame({
        "partition": pl.Series([0, 0, 1], dtype=pl.Int32), "t_ms": [begin + 1, begin + 2, begin + 2],
        "subject": ["a0", "a0", "a0"], SCORES[0]: [0.25, 0.5, 1.0],
    })  # fmt: skip
    archive.scored(scored)
    blocked = tmp_path / days_of_step(made[0]).isoformat()
    blocked.write_text("no folder")
    archive.put(made)
    blocked.unlink()
    archive.put(made)
    assert [lost for lost, _ in said] == [len(made), 0]
    assert "archive.path" in said[0][1]
    assert said[1] == (0, "")
    found = dict(rows(tmp_path).group_by("account").agg(pl.col(SCORES[0]).max()).iter_rows())
    assert found == {"a0": 128, "a1": None}


def test_a_damaged_step_is_set_aside_and_stops_nothing(tmp_path: Path) -> None:
    said: list[int] = []
    archive = Archive(tmp_path, STEP_MS, told=lambda lost, why: said.append(lost))
    for step, whole in ((0, True), (1, False), (DAY, True), (DAY + 1, True)):
        archive.put([blob(step, [Act("a")])])
        if not whole:
            max(tmp_path.rglob("*.parquet")).write_bytes(b"PAR1 and no more")
    assert said == [0, 0, 1, 0]
    assert [len(pl.read_parquet(f)) for _, files in scan(tmp_path) for f in files] == [1, 1, 1]
    assert len(list(tmp_path.rglob("*.damaged"))) == 1


def days_of_step(b: StepBlob) -> date:
    return date(1970, 1, 1) + timedelta(days=b.step * STEP_MS // 86_400_000)


def test_a_day_in_which_a_release_with_other_sums_came_in_is_put_together(tmp_path: Path) -> None:
    made, archive = steps(DAY + 40), Archive(tmp_path, STEP_MS)
    archive.put(made[:20])
    first = days_of(tmp_path)[0].isoformat()
    for file in (tmp_path / first).glob("p0-*.parquet"):
        pl.read_parquet(file).drop("n_whole").with_columns(gone=1).write_parquet(file)
    archive.put(made[20:])
    (file,) = (tmp_path / first).glob("*.parquet")
    read = pl.read_parquet(file)
    assert read.schema == pl.Schema(SCHEMA)
    assert read["n_whole"].sum() == 0, "none of these has a text"


def test_days_past_their_life_go(tmp_path: Path) -> None:
    archive = Archive(tmp_path, STEP_MS, days=2)
    for s in range(0, 6 * DAY, DAY // 2):
        archive.put([blob(s, [Act("a")])])
    kept = days_of(tmp_path)
    assert len(kept) == 2
    assert kept[-1] - kept[0] == timedelta(days=1)


def test_an_account_is_forgotten_everywhere_and_the_others_are_not(tmp_path: Path) -> None:
    Archive(tmp_path, STEP_MS).put(steps(DAY + 30))
    everybody = rows(tmp_path)
    gone = forget(tmp_path, "a2")
    assert gone == len(everybody.filter(pl.col("account") == "a2")) > 3
    assert rows(tmp_path).equals(everybody.filter(pl.col("account") != "a2"))
    assert all(f.name.startswith("p0") for f in tmp_path.rglob("*") if f.is_file())
    assert forget(tmp_path, "a2") == forget(tmp_path / "nowhere", "a1") == 0


def test_no_day_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(BadInput, match="holds no day"):
        list(scan(tmp_path))


def test_a_service_whose_archive_cannot_be_written_says_why_and_stays_ready_for_it(tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("no folder")
    settings = Settings.model_validate({"archive": {"path": str(tmp_path / "archive")}, "http": {"enabled": False}})
    service = live.service(
        settings, keys=Keyring.from_seed(1), rules=wiring.load(settings), rule_paths=(), signals=Signals(),
        store=MemoryStore(), links=MemoryLinkStore(), sink=MemorySink(), dead_letters=NoDeadLetters(),
    )  # fmt: skip
    campaigns, health = service.runner.pipeline.campaigns, service.runner.health
    assert campaigns.archive is not None
    campaigns.archive([blob(0, [Act("a")]), blob(1, [Act("a")])])
    assert health.checks()["archive"].ok
    assert "archive.path" in health.checks()["archive"].reason
    assert service.registry.get_sample_value("abusemon_archive_lost_total") == 2
    (tmp_path / "archive").unlink()
    campaigns.archive([blob(2, [Act("a")])])
    assert health.checks()["archive"].reason == ""
    assert len(rows(tmp_path / "archive")) == 1
