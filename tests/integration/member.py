"""One member of the monitor's group as a process of its own, for tests that kill it from outside.

Argument: a JSON file with ``settings`` (of the monitor), ``steps`` (a file that gets the name of each step of the
loop, appended by one write), ``finish`` (a file whose existence says that nothing more is produced: the member then
reads to the end, closes the open ticks and leaves), ``counts`` (where it writes what it counted, at the end),
``linger_s`` (rest after each step, so that a killer outside can hit every one of them) and ``defect``.

``defect: swapped`` plants the classic mistake: offsets are written down, with the state as it is, before the records
that they speak of were processed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from monitor import live, wiring
from monitor.pipeline import Pipeline
from monitor.runner import Runner
from monitor.service import Signals, configure_logging
from monitor.settings import Settings
from monitor.source.kafka_source import KafkaSource
from monitor.source.protocol import Source


class OffsetsFirst(Runner):
    """The planted defect: the checkpoint is made between the poll and the work on it."""

    __slots__ = ()

    def _turn(self) -> None:
        batch = self.source.poll(self.options.max_records, 0.2)
        self._next.update({p: o for p, o in batch.next_offsets.items() if p in self.source.assigned})
        if time.monotonic() - self._rounds.ended >= self.options.checkpoint_s:
            self.checkpoint(self._next)
        if len(batch):
            outcome = self.pipeline.process(batch)
            self.step("processed")
            self._deliver(outcome.alerts)
            self.step("delivered")
            self._reject(batch, outcome.rejects, outcome.partly)


def count_what_arrived(pipeline: Pipeline) -> list[int]:
    """Gets, when the last ticks are closed, the requests that the accounts' own state has counted."""
    found: list[int] = []

    class Counting(Pipeline):
        __slots__ = ()

        def finish(self):
            outcome = Pipeline.finish(self)
            accounts = self.features.accounts.arrays
            found.append(int(accounts.totals[accounts.partition >= 0, 0].sum()))
            assert not self.ticks.waiting
            return outcome

    pipeline.__class__ = Counting
    return found


def main() -> None:
    options = json.loads(Path(sys.argv[1]).read_text())
    settings = Settings.model_validate(options["settings"])
    configure_logging(settings.log)
    steps = os.open(options["steps"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    finish, linger_s = Path(options["finish"]), float(options["linger_s"])

    def step(name: str) -> None:
        os.write(steps, name.encode() + b"\n")
        time.sleep(linger_s)

    def done(source: Source) -> bool:
        return finish.exists() and isinstance(source, KafkaSource) and source.caught_up()

    if options["defect"] == "swapped":
        live.Runner = OffsetsFirst
    with Signals() as signals:
        service = live.service(
            settings,
            keys=wiring.keyring(settings),
            rules=wiring.load(settings),
            rule_paths=wiring.rule_paths(settings),
            signals=signals,
            step=step,
            done=done,
        )
        pipeline = service.runner.pipeline
        in_rows = count_what_arrived(pipeline)
        service.run()
    counts = pipeline.observe.counts
    Path(options["counts"]).write_text(
        json.dumps(
            {
                "events": counts.events, "decoded": counts.decoded, "duplicates": counts.duplicates,
                "dropped": counts.dropped, "late": counts.late, "rows": counts.rows, "rejects": counts.rejects,
                "id_reuse": counts.id_reuse, "in_rows": sum(in_rows),
            }
        )
    )  # fmt: skip


main()
