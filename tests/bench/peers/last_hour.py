"""The features and the rule that every engine of the comparison computes, as a plain function of one account's state.

Requests, input and output tokens of the last 60 minutes, the current one included, and the share of requests that were
answered 429; an account is reported once, in the minute in which it first has ``REQUESTS`` requests and ``TOKENS``
output tokens. The standard library only: it runs in the peers' environment.
"""

from __future__ import annotations

from typing import Any

REQUESTS = 12
TOKENS = 3_000
MINUTES = 60

State = dict[str, Any]
"""``minutes``: [minute, requests, input, output, limited] each, oldest first; ``told``: reported already. JSON."""


def fresh() -> State:
    """The state of an account that sent nothing."""
    return {"minutes": [], "told": False}


def event_s(record: dict[str, Any]) -> float:
    """Event time of a request, epoch seconds."""
    return float(record.get("completed_at") or record["ts"])


def take(state: State, record: dict[str, Any]) -> dict[str, float] | None:
    """Add a request to its account's state; what is to be reported, if anything."""
    minutes, minute = state["minutes"], int(event_s(record) // 60)
    if not minutes or minutes[-1][0] != minute:
        minutes.append([minute, 0, 0, 0, 0])
        while minutes[0][0] <= minute - MINUTES:
            del minutes[0]
    last = minutes[-1]
    last[1] += 1
    last[2] += record["input_tokens"]
    last[3] += record["output_tokens"]
    last[4] += record["status"] == 429
    requests = sum(m[1] for m in minutes)
    output = sum(m[3] for m in minutes)
    if state["told"] or requests < REQUESTS or output < TOKENS:
        return None
    state["told"] = True
    return {
        "minute_end": (minute + 1) * 60, "requests_1h": requests, "output_tokens_1h": output,
        "input_tokens_1h": sum(m[2] for m in minutes),
        "rate_limited_share_1h": sum(m[4] for m in minutes) / requests,
    }  # fmt: skip
