"""The rule on Quix Streams: stateful processing of a keyed topic, as its documentation has it.

    python with_quix.py BROKER TOPIC OUT REPORT FOLDER

JSON by its own deserializer, state in RocksDB with a changelog topic, at least once, a checkpoint every five seconds:
its defaults. It has no end of input, so it stops when nothing came for ten seconds.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

from last_hour import fresh, take
from quixstreams import Application, State
from stopwatch import Stopwatch

QUIET_S = 10.0


def main() -> None:
    broker, topic, out, report, folder = sys.argv[1:]
    watch = Stopwatch()
    app = Application(
        broker_address=broker, consumer_group="quix", auto_offset_reset="earliest", state_dir=folder, loglevel="WARNING"
    )

    def judge(record: dict[str, Any], state: State) -> dict[str, Any] | None:
        watch.tick()
        held = state.get("hour") or fresh()
        found = take(held, record)
        state.set("hour", held)
        return None if found is None else {"account": record["account_id"], **found}

    requests = app.topic(topic, value_deserializer="json")
    alerts = app.topic(out, value_serializer="json")
    frame = app.dataframe(requests)
    frame = frame.apply(judge, stateful=True)
    frame = frame.filter(lambda found: found is not None)
    frame.to_topic(alerts)
    app.run(timeout=QUIET_S)
    watch.write(
        report, {"quixstreams": importlib.metadata.version("quixstreams")},
        {"state": "RocksDB, changelog topic", "processing": "at least once", "commit_interval_s": 5.0},
    )  # fmt: skip


if __name__ == "__main__":
    main()
