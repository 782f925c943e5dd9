"""A member that takes partitions over publishes the campaign steps that had ended, though no record ever comes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spine

from monitor import live, wiring
from monitor.alerts import MemorySink
from monitor.dead_letters import NoDeadLetters
from monitor.runner import Runner
from monitor.service import Signals
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.source.files import FileSource
from monitor.source.protocol import Source
from monitor.store import MemoryStore
from monitor.store.links import MemoryLinkStore

TURNS = 6


class Killed(BaseException):
    """Nothing of what follows is done."""


def test_steps_that_had_ended_are_published_after_a_restart_though_nothing_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"".join(r.value + b"\n" for r in spine.world(accounts=60, days=1.0)))
    settings = Settings.model_validate({"http": {"enabled": False}})
    store, links = MemoryStore(), MemoryLinkStore()
    lives = list[Runner]()

    def ended() -> dict[int, int]:
        """By partition, the step that its event time is in."""
        pipeline = lives[-1].pipeline
        return {p: ms // pipeline.campaigns.step_ms for p, ms in pipeline.ticks.watermarks_ms.items()}

    def begin(signals: Signals, **how: Any) -> live.Service:
        service = live.service(
            settings, keys=Keyring.from_seed(1), rules=wiring.load(settings), rule_paths=(), signals=signals,
            store=store, links=links, sink=MemorySink(), dead_letters=NoDeadLetters(), **how,
        )  # fmt: skip
        lives.append(service.runner)
        service.runner.options = replace(service.runner.options, checkpoint_s=0.0, max_records=300)
        return service

    copied = dict[int, int]()

    def step(name: str) -> None:
        if name == "flushed":
            copied.update(ended())
        elif name == "delivered" and any(at > links.marks().get(p, 0) for p, at in copied.items()):
            lives[-1].checkpoints.wait()
            raise Killed

    with pytest.raises(Killed):
        begin(Signals(), source=lambda runner: FileSource([log], 2, listener=runner), step=step).run()
    before = dict(links.marks())

    signals, seen = Signals(), list[tuple[dict[int, int], dict[int, int]]]()

    def silent(runner: Runner) -> Source:
        source = FileSource([log], 2, listener=runner)
        source.pause()
        return source

    def done(source: Source) -> bool:
        seen.append((dict(links.marks()), ended()))
        if len(seen) == TURNS:
            signals.stop()
        return False

    begin(signals, source=silent, done=done).run()
    marks, ends = seen[-1]
    assert ends
    assert any(before.get(p, 0) < at for p, at in ends.items()), "the state has steps that ended and did not close"
    assert {p: marks.get(p, 0) for p in ends} == ends
