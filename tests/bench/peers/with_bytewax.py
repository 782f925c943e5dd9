"""The rule on Bytewax: a keyed stream, ``stateful_map``, as its documentation has it.

    python -m bytewax.recovery FOLDER 1
    BROKER=… TOPIC=… OUT=… REPORT=… python -m bytewax.run with_bytewax:flow -r FOLDER -s 30 -b 180

One worker, batches of 1,000, a recovery store with a snapshot every 30 s. With ``tail=False`` it ends
at the end of the topic.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import os
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from last_hour import State, fresh, take
from stopwatch import Stopwatch

watch = Stopwatch()
brokers = [os.environ["BROKER"]]


def record_of(message: Any) -> dict[str, Any]:
    watch.tick()
    return dict(orjson.loads(message.value))


def judge(state: State | None, record: dict[str, Any]) -> tuple[State, dict[str, Any] | None]:
    held = state or fresh()
    found = take(held, record)
    return held, None if found is None else {"account": record["account_id"], **found}


flow = Dataflow("peers")
source = kop.input("requests", flow, brokers=brokers, topics=[os.environ["TOPIC"]], tail=False, batch_size=1000)
records = op.map("parse", source.oks, record_of)
keyed = op.key_on("by account", records, lambda record: record["account_id"])
judged = op.stateful_map("last hour", keyed, judge)
found = op.filter("reported", judged, lambda pair: pair[1] is not None)
messages = op.map("message", found, lambda pair: KafkaSinkMessage(pair[0].encode(), orjson.dumps(pair[1])))
kop.output("alerts", messages, brokers=brokers, topic=os.environ["OUT"])


@atexit.register
def report() -> None:
    watch.mark()
    watch.write(
        os.environ["REPORT"], {"bytewax": importlib.metadata.version("bytewax")},
        {"workers": 1, "batch_size": 1000, "recovery": "SQLite, snapshot every 30 s", "json": "orjson"},
    )  # fmt: skip
