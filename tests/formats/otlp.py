"""The requests as OpenTelemetry spans and events, in every generation of attribute names."""

from __future__ import annotations

import json
from typing import Any

from traffic import SECRET, START, TOOLS, ids


def value(v: Any) -> dict[str, Any]:
    match v:
        case bool():
            return {"boolValue": v}
        case int():
            return {"intValue": str(v)}
        case float():
            return {"doubleValue": v}
        case list():
            return {"arrayValue": {"values": [value(x) for x in v]}}
        case dict():
            return {"kvlistValue": {"values": pairs(v)}}
        case _:
            return {"stringValue": str(v)}


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": k, "value": value(v)} for k, v in attributes.items() if v is not None]


def nanos(seconds: float) -> str:
    return str(round(seconds * 1000) * 1_000_000)


def span(i: int, c: dict[str, Any], attributes: dict[str, Any], events: list[dict[str, Any]] | None = None) -> Any:
    failed = c["answer"] is None
    return {
        "traceId": f"{i:032x}", "spanId": f"{i + 1:016x}", "name": f"chat {c['model']}", "kind": 3,
        "startTimeUnixNano": nanos(c["at"]), "endTimeUnixNano": nanos(c["at"] + c["latency"]),
        "attributes": pairs(attributes), "events": events or [], "status": {"code": 2} if failed else {},
    }  # fmt: skip


def traces(spans: list[Any]) -> dict[str, Any]:
    resource = {"attributes": pairs({"service.name": "gateway"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "gw"}, "spans": spans}]}]}


OTHER = {
    "traceId": "f" * 32, "spanId": "f" * 16, "name": "GET /health", "kind": 2, "startTimeUnixNano": nanos(START),
    "endTimeUnixNano": nanos(START + 1), "attributes": pairs({"http.route": "/health"}),
}  # fmt: skip


def parts(messages: list[tuple[str, str]], finish: str | None = None) -> str:
    out = []
    for role, text in messages:
        part = {"type": "tool_call_response", "id": "t1", "response": text} if role == "tool" else {
            "type": "text", "content": text,
        }  # fmt: skip
        out.append({"role": role, "parts": [part]} | ({"finish_reason": finish} if finish else {}))
    return json.dumps(out, ensure_ascii=False)


def current(i: int, c: dict[str, Any]) -> dict[str, Any]:
    """The conventions of 2026."""
    chat = [m for m in c["messages"] if m[0] != "system"]
    failed = c["answer"] is None
    return {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": c["model"],
        "gen_ai.response.model": c["served"], "gen_ai.response.id": ids(i), "gen_ai.request.stream": c["stream"],
        "gen_ai.usage.input_tokens": None if failed else c["in"],
        "gen_ai.usage.output_tokens": None if failed else c["out"],
        "gen_ai.usage.cache_read.input_tokens": c["cached"], "gen_ai.usage.reasoning.output_tokens": c["reasoning"],
        "gen_ai.request.temperature": c["temperature"], "gen_ai.request.top_p": c["top_p"],
        "gen_ai.request.max_tokens": c["max"], "gen_ai.request.seed": c["seed"],
        "gen_ai.response.finish_reasons": [c["finish"]] if c["finish"] else None,
        "gen_ai.input.messages": parts(chat), "gen_ai.conversation.id": c["conversation"],
        "gen_ai.output.messages": None if failed else parts([("assistant", c["answer"])], c["finish"]),
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": c["messages"][0][1]}])
        if c["messages"][0][0] == "system" else None,
        "gen_ai.tool.definitions": json.dumps(TOOLS) if c["tools"] else None, "user.id": c["account"],
        "http.response.status_code": c["status"], "error.type": "rate_limit_exceeded" if failed else None,
        "client.address": c["ip"], "user_agent.original": c["agent"], "api_key": SECRET,
        "http.request.header.authorization": [f"Bearer {SECRET}"],
        "gen_ai.request.choice.count": None if c["n"] == 1 else c["n"],  # as the conventions have it
    }  # fmt: skip


def of_litellm(i: int, c: dict[str, Any]) -> dict[str, Any]:
    """LiteLLM's spans: the conventions, and names of its own for who called and what it cost."""
    other = ("user.id", "gen_ai.response.id", "gen_ai.request.choice.count")
    return {k: v for k, v in current(i, c).items() if k not in other} | {
        "litellm.call_id": ids(i), "litellm.team.id": c["account"],
        "litellm.organization.id": f"org-{c['account'][-1]}",
        "litellm.api_key.hash": f"key-{c['account'][-1]}", "litellm.end_user.id": c["end_user"],
        "litellm.cost.total": c["cost"], "gen_ai.request.n": c["n"], "gen_ai.request.reasoning_effort": c["effort"],
        "gen_ai.openai.request.response_format": c["format"], "litellm.api_key": SECRET,
        "gen_ai.request.logprobs": c["logprobs"], "gen_ai.request.top_logprobs": c["top_logprobs"],
        "client.geo.country_iso_code": c["country"], "tls.client.ja4": c["ja4"],
        "gen_ai.output.messages": None if c["answer"] is None else parts([("assistant", c["answer"])]),
    }  # fmt: skip


def old(i: int, c: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first generation, as vLLM and older SDKs still write it: content in events of the span."""
    failed = c["answer"] is None
    attributes = {
        "gen_ai.system": "openai", "gen_ai.request.model": c["model"], "gen_ai.response.model": c["served"],
        "gen_ai.request.id": ids(i), "gen_ai.usage.prompt_tokens": None if failed else c["in"],
        "gen_ai.usage.completion_tokens": None if failed else c["out"], "enduser.id": c["account"],
        "gen_ai.request.temperature": c["temperature"], "gen_ai.request.top_p": c["top_p"],
        "gen_ai.request.max_tokens": c["max"], "gen_ai.openai.request.seed": c["seed"],
        "http.status_code": c["status"],
    }  # fmt: skip
    messages = [{"role": r, "content": t} for r, t in c["messages"]]
    events = [{"name": "gen_ai.content.prompt", "attributes": pairs({"gen_ai.prompt": json.dumps(messages)})}]
    if not failed:
        answer = [{"role": "assistant", "content": c["answer"]}]
        events.append(
            {"name": "gen_ai.content.completion", "attributes": pairs({"gen_ai.completion": json.dumps(answer)})}
        )
    return attributes, events


def flat(i: int, c: dict[str, Any]) -> dict[str, Any]:
    """OpenLLMetry: messages flattened into numbered attributes."""
    failed = c["answer"] is None
    attributes: dict[str, Any] = {
        "llm.request.type": "chat", "gen_ai.system": "OpenAI", "gen_ai.request.model": c["model"],
        "gen_ai.response.model": c["served"], "gen_ai.response.id": ids(i), "llm.is_streaming": c["stream"],
        "gen_ai.usage.prompt_tokens": None if failed else c["in"],
        "gen_ai.usage.completion_tokens": None if failed else c["out"], "user.id": c["account"],
        "gen_ai.request.temperature": c["temperature"], "traceloop.span.kind": None,
    }  # fmt: skip
    for n, (role, text) in enumerate(c["messages"]):
        attributes |= {f"gen_ai.prompt.{n}.role": role, f"gen_ai.prompt.{n}.content": text}
    if not failed:
        attributes |= {
            "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": c["answer"],
            "gen_ai.completion.0.finish_reason": c["finish"],
        }  # fmt: skip
    return attributes


def openinference(i: int, c: dict[str, Any]) -> dict[str, Any]:
    """OpenInference, which Envoy AI Gateway writes by default."""
    failed = c["answer"] is None
    attributes: dict[str, Any] = {
        "openinference.span.kind": "LLM", "llm.model_name": c["model"], "user.id": c["account"],
        "session.id": c["conversation"], "gen_ai.response.id": ids(i),
        "llm.token_count.prompt": None if failed else c["in"],
        "llm.token_count.completion": None if failed else c["out"],
        "llm.token_count.prompt_details.cache_read": c["cached"],
        "llm.token_count.completion_details.reasoning": c["reasoning"],
    }  # fmt: skip
    for n, (role, text) in enumerate(c["messages"]):
        key = f"llm.input_messages.{n}.message"
        attributes |= {f"{key}.role": role, f"{key}.content": text}
    if not failed:
        attributes["llm.output_messages.0.message.role"] = "assistant"
        attributes["llm.output_messages.0.message.content"] = c["answer"]
    return attributes


def events(i: int, c: dict[str, Any]) -> dict[str, Any]:
    """The event of a call, as a log record: its time is the call's end, for all that is known."""
    keep = {k: v for k, v in current(i, c).items() if k != "http.response.status_code"}
    keep["error.type"] = "429" if c["answer"] is None else None
    return {
        "timeUnixNano": nanos(c["at"]), "eventName": "gen_ai.client.inference.operation.details",
        "attributes": pairs(keep), "traceId": f"{i:032x}", "spanId": f"{i + 1:016x}",
    }  # fmt: skip
