"""The rule on Faust: an agent over a topic of records, a table for the state, as its documentation has it.

    BROKER=… TOPIC=… OUT=… REPORT=… PARTITIONS=… FOLDER=… RECORDS=N python with_faust.py worker -l warn

Its defaults: table in memory with a changelog topic, commits every 2.8 seconds. A windowed table is not used: its
windows grow stale by the wall clock, which would drop a topic of the past. It has no end of input, so it stops itself
after ``RECORDS``.
"""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

import faust
from last_hour import fresh, take
from stopwatch import Stopwatch

watch = Stopwatch()
app = faust.App(
    "faust-peer", broker=f"kafka://{os.environ['BROKER']}", topic_partitions=int(os.environ["PARTITIONS"]),
    datadir=os.environ["FOLDER"], web_enabled=False,
)  # fmt: skip
total = int(os.environ["RECORDS"])


class Request(faust.Record, serializer="json"):
    """What the rule reads of a request."""

    account_id: str
    ts: float
    input_tokens: int
    output_tokens: int
    status: int
    completed_at: float | None = None


requests = app.topic(os.environ["TOPIC"], key_type=bytes, value_type=Request)
alerts = app.topic(os.environ["OUT"], value_serializer="json")
hours = app.Table("hours", default=fresh)


@app.agent(requests)
async def judge(stream: Any) -> None:
    """Every request, one by one."""
    async for request in stream:
        watch.tick()
        state = hours[request.account_id]
        found = take(state, request.asdict())
        hours[request.account_id] = state
        if found is not None:
            await alerts.send(key=request.account_id, value={"account": request.account_id, **found})
        if watch.records == total:
            watch.mark()
            await app.producer.flush()
            watch.write(
                os.environ["REPORT"],
                {"faust-streaming": importlib.metadata.version("faust-streaming"),
                 "aiokafka": importlib.metadata.version("aiokafka")},
                {"table": "memory, changelog topic", "broker_commit_interval_s": app.conf.broker_commit_interval},
            )  # fmt: skip
            # stopping from inside an agent waits for that agent
            os._exit(0)


if __name__ == "__main__":
    app.main()
