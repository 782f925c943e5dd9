"""A partition that a newer member has written is given up at once: batches under way, campaigns, readiness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import spine

from monitor import live, wiring
from monitor.alerts import MemorySink
from monitor.campaigning import LEADER
from monitor.dead_letters import NoDeadLetters
from monitor.runner import Runner
from monitor.service import Signals
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.source.files import FileSource
from monitor.source.protocol import Source
from monitor.store import MemoryStore
from monitor.store.links import MemoryLinkStore


def test_a_partition_that_another_has_written_is_given_up_with_all_that_is_under_way(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    records = spine.world(accounts=60, days=1.0)
    log.write_bytes(b"".join(r.value + b"\n" for r in records))
    store, committed, left = MemoryStore(), list[str](), list[int]()

    def step(name: str) -> None:
        if name == "committed":
            committed.append(name)
            if len(committed) == 2:
                store.claim(LEADER, 99)

    def files(runner: Runner) -> Source:
        return FileSource([log], 2, listener=runner)

    def done(source: Source) -> bool:
        if LEADER in runner._lost:
            left.append(len(runner.pipeline.features.accounts.of_partition(LEADER)))
        return isinstance(source, FileSource) and source._drained

    settings = Settings.model_validate({"http": {"enabled": False}})
    service = live.service(
        settings, keys=Keyring.from_seed(1), rules=wiring.load(settings), rule_paths=(), signals=Signals(),
        store=store, links=MemoryLinkStore(), sink=MemorySink(), dead_letters=NoDeadLetters(), source=files, step=step,
        done=done,
    )  # fmt: skip
    runner = service.runner
    runner.options = replace(runner.options, checkpoint_s=0.0, max_records=300)
    began: list[bool] = []
    begin = runner._beside.begin
    runner._beside.begin = lambda work: (began.append(LEADER in runner._lost), begin(work))[1]  # type: ignore[method-assign]
    service.run()
    assert left
    assert not any(left), "a batch under way brought it back"
    assert len(committed) > 4
    assert began
    assert not any(began), "campaigns are worked by whoever has the partition now"
    assert service.registry.get_sample_value("abusemon_fenced_total") == 1
