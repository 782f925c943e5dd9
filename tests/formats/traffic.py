"""The eight requests of the golden samples, and what several formats share. Our own traffic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

START = 1_767_261_600.25  # 2026-01-01T10:00:00.25Z
SECRET = "sk-canary-credential"

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("search", "python")
]


def call(at: float, account: str, messages: list[tuple[str, str]], answer: str | None, **more: Any) -> dict[str, Any]:
    """One request: what was sent as (role, text), what came back (None: it failed), and the rest with defaults."""
    return {
        "at": START + at, "account": account, "messages": messages, "answer": answer, "status": 200, "in": 120,
        "out": 80, "cached": 16, "reasoning": 24, "latency": 1.5, "cost": 0.0125, "temperature": 0.5, "top_p": 0.75,
        "max": 512, "seed": 7, "stream": False, "finish": "stop", "logprobs": True, "top_logprobs": 3,
        "format": "json_schema", "effort": "high", "tools": True, "ip": "192.0.2.7", "agent": "sdk/1.4 python/3.12",
        "conversation": f"c-{account}", "end_user": "u-1", "model": "m-large", "served": "m-large-0901",
        "n": 1, "bias": False, "project": f"proj-{account[-1]}", "country": "PT", "region": "eu-west-1",
        "ja4": f"t13d1516h2_8daaf6152771_{account[-1] * 12}",
    } | more  # fmt: skip


SYSTEM = ("system", "You label support tickets.")
FIRST = ("user", "Label this ticket: the printer is on fire.\nAnswer with one word.")
CALLS = [
    call(0, "team-a", [SYSTEM, FIRST], "Hardware"),
    call(20, "team-a", [SYSTEM, FIRST, ("assistant", "Let me look."), ("tool", "{\"open\": 3}")], "Three are open.",
         **{"in": 260, "out": 40, "latency": 2.25}),
    call(41, "team-a", [SYSTEM, ("user", "Résumé: « tout va bien » 🙂")], "Très bien.", stream=True, out=30,
         finish="length", temperature=1.0, n=4),
    call(62, "team-b", [("user", "Write a haiku about rain.")], "Rain on the tin roof", logprobs=False, top_logprobs=0,
         tools=False, format="text", ip="198.51.100.23", end_user="u-2"),
    call(63, "team-b", [("user", "Write a haiku about snow.")], None, status=429, out=0, cached=None, reasoning=None,
         cost=0.0, finish=None, **{"in": 0}),
    call(75, "team-b", [("user", "Write a haiku about wind."), ("assistant", "Wind in the grass"), ("user", "Again.")],
         "Wind over water", reasoning=0, tools=False, effort="low", bias=True),
    call(90, "team-b", [("user", "Write a haiku about fog.")], "Fog outside", model="m-small", served="m-small-3"),
    call(131, "team-a", [SYSTEM, ("user", "Label this ticket: password lost.")], "Account", latency=0.75),
]  # fmt: skip


def ids(i: int) -> str:
    return f"req-{i:04d}"


def iso(seconds: float, zone: str = "Z") -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + zone


def openai_request(c: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": c["model"], "messages": [{"role": r, "content": t} for r, t in c["messages"]],
        "temperature": c["temperature"], "top_p": c["top_p"], "max_tokens": c["max"], "seed": c["seed"],
        "stream": c["stream"], "logprobs": c["logprobs"], "top_logprobs": c["top_logprobs"],
        "reasoning_effort": c["effort"], "response_format": {"type": c["format"]}, "user": c["end_user"], "n": c["n"],
    }  # fmt: skip
    return body | ({"tools": TOOLS} if c["tools"] else {}) | ({"logit_bias": {"50256": -100}} if c["bias"] else {})


def openai_response(c: dict[str, Any], i: int) -> dict[str, Any] | None:
    if c["answer"] is None:
        return {"error": {"message": "rate limit", "type": "rate_limit_error"}}
    return {
        "id": ids(i), "model": c["served"],
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": c["answer"]}, "finish_reason": c["finish"]}
        ],
        "usage": {
            "prompt_tokens": c["in"], "completion_tokens": c["out"],
            "prompt_tokens_details": {"cached_tokens": c["cached"]},
            "completion_tokens_details": {"reasoning_tokens": c["reasoning"]},
        },
    }  # fmt: skip


def native(i: int, c: dict[str, Any]) -> dict[str, Any]:
    chat = [m for m in c["messages"] if m[0] != "system"]
    record = {
        "ts": c["at"], "completed_at": c["at"] + c["latency"], "request_id": ids(i), "account_id": c["account"],
        "org_id": f"org-{c['account'][-1]}", "api_key_id": f"key-{c['account'][-1]}", "end_user_id": c["end_user"],
        "project_id": c["project"], "country": c["country"], "region": c["region"], "n": c["n"], "ja4": c["ja4"],
        "model": c["model"], "model_served": c["served"], "operation": "chat",
        "delivery": "stream" if c["stream"] else "sync", "stream": c["stream"], "input_tokens": c["in"],
        "output_tokens": c["out"], "cached_tokens": c["cached"], "reasoning_tokens": c["reasoning"],
        "latency_ms": c["latency"] * 1000, "cost_usd": c["cost"], "status": c["status"],
        "temperature": c["temperature"], "top_p": c["top_p"], "max_tokens": c["max"], "seed": c["seed"],
        "logprobs": c["logprobs"], "top_logprobs": c["top_logprobs"], "response_format": c["format"],
        "reasoning_effort": c["effort"], "n_messages": len(chat), "turn_index": sum(r == "assistant" for r, _ in chat),
        "input_kind": "tool_result" if chat[-1][0] == "tool" else "user", "prompt": chat[-1][1],
        "conversation_id": c["conversation"], "ip": c["ip"], "user_agent": c["agent"],
    }  # fmt: skip
    if chat is not c["messages"] and c["messages"][0][0] == "system":
        record["system"] = c["messages"][0][1]
    if c["bias"]:
        record["logit_bias"] = True
    if c["tools"]:
        record["tools"] = ["search", "python"]
    if c["answer"] is not None:
        record |= {"response": c["answer"], "finish_reason": c["finish"]}
    return {k: v for k, v in record.items() if v is not None}
