"""A member of a consumer group as a process of its own, for tests that kill it.

Keeps per partition how many records it saw and a digest over them, in a directory all members share: what a
checkpoint is to the monitor. Prints an event a line, as JSON. Arguments: one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

from monitor.settings import KafkaSettings
from monitor.source.kafka_source import KafkaSource


def say(event: str, **what: object) -> None:
    print(json.dumps({"event": event, **what}), flush=True)


class Member:
    def __init__(self, options: dict[str, object], folder: Path):
        self.folder = folder
        self.state: dict[int, dict[str, object]] = {}
        self.source = KafkaSource(KafkaSettings(**options), self, on_state=lambda s: say("state", text=s))
        self.stopping = False

    def on_assign(self, partitions: frozenset[int], generation: int) -> None:
        for p in partitions:
            path = self.folder / f"{p}.json"
            self.state[p] = json.loads(path.read_text()) if path.exists() else {"next": 0, "seen": 0, "digest": ""}
            self.source.seek(p, int(self.state[p]["next"]))
        say("assign", partitions=sorted(partitions), generation=generation)

    def on_revoke(self, partitions: frozenset[int]) -> None:
        for p in partitions:
            self.write(p)
        self.source.commit({p: int(self.state.pop(p)["next"]) for p in partitions})
        say("revoke", partitions=sorted(partitions))

    def on_lost(self, partitions: frozenset[int]) -> None:
        for p in partitions:
            self.state.pop(p)
        say("lost", partitions=sorted(partitions))

    def write(self, partition: int) -> None:
        path = self.folder / f"{partition}.{os.getpid()}.tmp"
        path.write_text(json.dumps(self.state[partition]))
        path.replace(self.folder / f"{partition}.json")

    def run(self) -> None:
        while not self.stopping:
            batch = self.source.poll(200, 0.2)
            for value, p in zip(batch.values, batch.partition.tolist(), strict=True):
                state = self.state[p]
                state["seen"] = int(state["seen"]) + 1
                state["digest"] = hashlib.sha256(str(state["digest"]).encode() + (value or b"")).hexdigest()
            for p, offset in batch.next_offsets.items():
                self.state[p]["next"] = offset
                self.write(p)
            if batch.next_offsets:
                self.source.commit(batch.next_offsets)
                say("read", records=len(batch), partitions=sorted(batch.next_offsets))
        self.source.close()
        say("left")


def main() -> None:
    arguments = json.loads(sys.argv[1])
    member = Member(arguments["settings"], Path(arguments["folder"]))

    def stop(*_: object) -> None:
        member.stopping = True

    signal.signal(signal.SIGTERM, stop)
    member.run()


main()
