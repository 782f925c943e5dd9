"""Writes the golden samples: the same eight requests in every format, as each one's documentation shows it.

    python tests/formats/write.py

Our own traffic and our own writing. ``native.ndjson`` holds all that any of them carries; which fields a format carries
is declared in ``tests/unit/test_formats.py``, not here. Every sample also holds what is no request, and credentials.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
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
    } | more  # fmt: skip


SYSTEM = ("system", "You label support tickets.")
FIRST = ("user", "Label this ticket: the printer is on fire.\nAnswer with one word.")
CALLS = [
    call(0, "team-a", [SYSTEM, FIRST], "Hardware"),
    call(20, "team-a", [SYSTEM, FIRST, ("assistant", "Let me look."), ("tool", "{\"open\": 3}")], "Three are open.",
         **{"in": 260, "out": 40, "latency": 2.25}),
    call(41, "team-a", [SYSTEM, ("user", "Résumé: « tout va bien » 🙂")], "Très bien.", stream=True, out=30,
         finish="length", temperature=1.0),
    call(62, "team-b", [("user", "Write a haiku about rain.")], "Rain on the tin roof", logprobs=False, top_logprobs=0,
         tools=False, format="text", ip="198.51.100.23", end_user="u-2"),
    call(63, "team-b", [("user", "Write a haiku about snow.")], None, status=429, out=0, cached=None, reasoning=None,
         cost=0.0, finish=None, **{"in": 0}),
    call(75, "team-b", [("user", "Write a haiku about wind."), ("assistant", "Wind in the grass"), ("user", "Again.")],
         "Wind over water", reasoning=0, tools=False, effort="low"),
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
        "reasoning_effort": c["effort"], "response_format": {"type": c["format"]}, "user": c["end_user"],
    }  # fmt: skip
    return body | ({"tools": TOOLS} if c["tools"] else {})


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
    if c["tools"]:
        record["tools"] = ["search", "python"]
    if c["answer"] is not None:
        record |= {"response": c["answer"], "finish_reason": c["finish"]}
    return {k: v for k, v in record.items() if v is not None}


# ------------------------------------------------------------------------------------------------------------ OTLP


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


# -------------------------------------------------------------------------------------------------------- gateways


def litellm(i: int, c: dict[str, Any]) -> dict[str, Any]:
    failed = c["answer"] is None
    parameters = {k: v for k, v in openai_request(c).items() if k not in ("model", "messages", "user", "stream")}
    return {
        "id": f"chatcmpl-{i}", "litellm_call_id": ids(i), "trace_id": f"t-{i}", "call_type": "acompletion",
        "stream": c["stream"], "response_cost": c["cost"], "status": "failure" if failed else "success",
        "custom_llm_provider": "openai", "total_tokens": c["in"] + c["out"], "prompt_tokens": c["in"],
        "completion_tokens": c["out"], "startTime": c["at"], "endTime": c["at"] + c["latency"],
        "completionStartTime": c["at"] + 0.2, "response_time": c["latency"], "model": c["served"],
        "model_group": c["model"], "model_id": "d1", "api_base": "https://upstream.example/v1", "cache_hit": None,
        "metadata": {
            "user_api_key_hash": f"key-{c['account'][-1]}", "user_api_key_alias": "prod",
            "user_api_key_team_id": c["account"], "user_api_key_org_id": f"org-{c['account'][-1]}",
            "user_api_key_user_id": "someone", "user_api_key": SECRET, "requester_ip_address": c["ip"],
            "usage_object": {
                "prompt_tokens_details": {"cached_tokens": c["cached"]},
                "completion_tokens_details": {"reasoning_tokens": c["reasoning"]},
            },
        },
        "end_user": c["end_user"], "requester_ip_address": c["ip"], "user_agent": c["agent"],
        "messages": [{"role": r, "content": t} for r, t in c["messages"]],
        "response": {} if failed else openai_response(c, i), "model_parameters": parameters | {"api_key": SECRET},
        "error_str": "RateLimitError" if failed else None,
        "error_information": {"error_code": "429", "error_class": "RateLimitError"} if failed else {"error_code": ""},
        "hidden_params": {"litellm_model_name": c["served"], "api_base": "https://upstream.example/v1"},
        "session_id": c["conversation"],
    }  # fmt: skip


def litellm_spend(i: int, c: dict[str, Any]) -> dict[str, Any]:
    failed = c["answer"] is None
    return {
        "request_id": ids(i), "call_type": "acompletion", "api_key": f"key-{c['account'][-1]}", "spend": c["cost"],
        "total_tokens": c["in"] + c["out"], "prompt_tokens": c["in"], "completion_tokens": c["out"],
        "startTime": iso(c["at"], ""), "endTime": iso(c["at"] + c["latency"], ""), "model": c["served"],
        "model_group": c["model"], "user": "someone", "team_id": c["account"],
        "organization_id": f"org-{c['account'][-1]}", "end_user": c["end_user"], "requester_ip_address": c["ip"],
        "metadata": json.dumps(
            {"error_information": {"error_code": "429"} if failed else None, "user_api_key": SECRET}
        ),
        "messages": "{}", "response": "{}", "status": "failure" if failed else "success",
        "session_id": c["conversation"],
    }  # fmt: skip


def envoy_aigw(i: int, c: dict[str, Any]) -> dict[str, Any]:
    failed = c["answer"] is None
    return {
        "start_time": iso(c["at"]), "method": "POST", "x-envoy-origin-path": "/v1/chat/completions",
        "response_code": c["status"], "duration": int(c["latency"] * 1000), "bytes_received": 300, "bytes_sent": 900,
        "user-agent": c["agent"], "x-request-id": ids(i), "x-forwarded-for": f"{c['ip']}, 10.0.0.1",
        "downstream_remote_address": "10.0.0.1:4711", "x-account-id": c["account"],
        "gen_ai.request.model": c["model"], "gen_ai.response.model": c["served"],
        "gen_ai.provider.name": "default/openai/route/r/rule/0", "session.id": c["conversation"],
        "gen_ai.usage.input_tokens": None if failed else c["in"],
        "gen_ai.usage.output_tokens": None if failed else c["out"], "authorization": f"Bearer {SECRET}",
    }  # fmt: skip


def bedrock(i: int, c: dict[str, Any]) -> dict[str, Any]:
    failed = c["answer"] is None
    messages = [
        {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": t}]}}]} if r == "tool"
        else {"role": r, "content": [{"text": t}]}
        for r, t in c["messages"] if r != "system"
    ]  # fmt: skip
    request: dict[str, Any] = {
        "messages": messages,
        "inferenceConfig": {"temperature": c["temperature"], "topP": c["top_p"], "maxTokens": c["max"]},
    }
    if c["messages"][0][0] == "system":
        request["system"] = [{"text": c["messages"][0][1]}]
    if c["tools"]:
        request["toolConfig"] = {"tools": [{"toolSpec": {"name": t["function"]["name"]}} for t in TOOLS]}
    stop = {"stop": "end_turn", "length": "max_tokens"}.get(c["finish"])
    response = {
        "output": {"message": {"role": "assistant", "content": [{"text": c["answer"]}]}}, "stopReason": stop,
        "metrics": {"latencyMs": int(c["latency"] * 1000)},
        "usage": {"inputTokens": c["in"], "outputTokens": c["out"], "cacheReadInputTokens": c["cached"]},
    }  # fmt: skip
    record: dict[str, Any] = {
        "timestamp": iso(c["at"]), "accountId": f"org-{c['account'][-1]}", "region": "eu-west-1",
        "identity": {"arn": "arn:aws:sts::1:assumed-role/gw/x"}, "requestId": ids(i),
        "operation": "ConverseStream" if c["stream"] else "Converse", "modelId": c["model"],
        "input": {"inputContentType": "application/json", "inputBodyJson": request, "inputTokenCount": c["in"]},
        "requestMetadata": {"account_id": c["account"]}, "schemaType": "ModelInvocationLog", "schemaVersion": "1.0",
    }  # fmt: skip
    if failed:
        del record["input"]["inputTokenCount"]
        return record | {"errorCode": "ThrottlingException"}
    record["output"] = {
        "outputContentType": "application/json", "outputBodyJson": response, "outputTokenCount": c["out"]
    }  # fmt: skip
    return record


def kong(i: int, c: dict[str, Any]) -> dict[str, Any]:
    failed = c["answer"] is None
    usage = {} if failed else {
        "prompt_tokens": c["in"], "completion_tokens": c["out"], "total_tokens": c["in"] + c["out"], "cost": c["cost"],
        "prompt_tokens_details": {"cached_tokens": c["cached"]},
        "completion_tokens_details": {"reasoning_tokens": c["reasoning"]},
    }  # fmt: skip
    meta = {
        "plugin_id": "p1", "provider_name": "openai", "request_model": c["model"], "response_model": c["served"],
        "request_mode": "stream" if c["stream"] else "oneshot", "llm_latency": int(c["latency"] * 1000) - 5,
    }  # fmt: skip
    payload: dict[str, Any] = {"request": json.dumps(openai_request(c))}
    if not failed:
        payload["response"] = json.dumps(openai_response(c, i))
    return {
        "ai": {"proxy": {"payload": payload, "usage": usage, "meta": meta}}, "client_ip": c["ip"],
        "started_at": round(c["at"] * 1000), "latencies": {"request": int(c["latency"] * 1000), "kong": 5},
        "workspace": f"org-{c['account'][-1]}", "workspace_name": "default",
        "consumer": {"id": c["account"], "username": "x"}, "authenticated_entity": {"id": f"key-{c['account'][-1]}"},
        "request": {
            "id": ids(i), "uri": "/v1/chat/completions", "method": "POST", "size": 300,
            "headers": {"user-agent": c["agent"], "authorization": f"Bearer {SECRET}", "apikey": SECRET},
        },
        "response": {"status": c["status"], "size": 900}, "upstream_uri": "/v1/chat/completions",
    }  # fmt: skip


def portkey(i: int, c: dict[str, Any]) -> dict[str, Any]:
    failed = c["answer"] is None
    return {
        "id": ids(i), "trace_id": f"t-{i}", "created_at": iso(c["at"]), "ai_org": "openai", "ai_model": c["model"],
        "req_units": c["in"], "res_units": c["out"], "total_units": c["in"] + c["out"], "cost": c["cost"] * 100,
        "cost_currency": "USD", "request_url": "https://api.openai.com/v1/chat/completions", "request_method": "POST",
        "response_status_code": c["status"], "response_time": int(c["latency"] * 1000), "is_success": int(not failed),
        "stream_mode": str(c["stream"]).upper(), "cache_status": "DISABLED",
        "metadata": {"_user": c["end_user"], "account_id": c["account"]},
        "request": {"headers": {"x-portkey-api-key": SECRET}, "body": openai_request(c)},
        "response": {"body": openai_response(c, i)},
    }  # fmt: skip


def helicone(i: int, c: dict[str, Any]) -> dict[str, Any]:
    return {
        "request_id": ids(i), "response_id": f"resp-{i}", "request_created_at": iso(c["at"]),
        "response_created_at": iso(c["at"] + c["latency"]), "request_path": "https://gw.example/v1/chat/completions",
        "request_user_id": c["account"], "request_model": c["model"], "response_model": c["served"],
        "response_status": c["status"], "delay_ms": int(c["latency"] * 1000), "prompt_tokens": c["in"],
        "completion_tokens": c["out"], "prompt_cache_read_tokens": c["cached"], "reasoning_tokens": c["reasoning"],
        "cost": c["cost"], "provider": "OPENAI", "request_properties": {"Helicone-Session-Id": c["conversation"]},
        "helicone_api_key_id": f"key-{c['account'][-1]}", "request_body": openai_request(c),
        "response_body": openai_response(c, i), "auth": SECRET,
    }  # fmt: skip


def helicone_kafka(i: int, c: dict[str, Any]) -> dict[str, Any]:
    failed = c["answer"] is None
    return {
        "authorization": f"Bearer {SECRET}", "heliconeMeta": {"posthogApiKey": SECRET, "omitRequestLog": False},
        "log": {
            "request": {
                "id": ids(i), "userId": c["account"], "path": "/v1/chat/completions", "isStream": c["stream"],
                "provider": "OPENAI", "requestCreatedAt": iso(c["at"]), "model": c["model"],
                "heliconeApiKeyId": f"key-{c['account'][-1]}",
                "properties": {"Helicone-Session-Id": c["conversation"]},
            },
            "response": {
                "id": f"resp-{i}", "status": c["status"], "delayMs": int(c["latency"] * 1000),
                "responseCreatedAt": iso(c["at"] + c["latency"]), "promptTokens": None if failed else c["in"],
                "completionTokens": None if failed else c["out"],
            },
        },
    }  # fmt: skip


def cloudflare_aig(i: int, c: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": ids(i), "created_at": iso(c["at"]), "provider": "openai", "model": c["model"],
        "path": "chat/completions", "duration": int(c["latency"] * 1000), "status_code": c["status"],
        "success": c["status"] == 200, "cached": False, "tokens_in": c["in"], "tokens_out": c["out"],
        "cost": c["cost"], "metadata": json.dumps({"account_id": c["account"], "end_user_id": c["end_user"]}),
    }  # fmt: skip


def sglang(i: int, c: dict[str, Any]) -> dict[str, Any]:
    reason: dict[str, Any] = {"type": c["finish"] or "abort"}
    if c["answer"] is None:
        reason["status_code"] = 429
    prompt = [t for r, t in c["messages"] if r != "system"][-1]
    return {
        "timestamp": iso(c["at"] + c["latency"], ""), "event": "request.finished", "rid": ids(i),
        "obj": {
            "text": prompt, "model": c["model"], "stream": c["stream"], "return_logprob": c["logprobs"],
            "top_logprobs_num": c["top_logprobs"], "custom_labels": {"account_id": c["account"]},
            "sampling_params": {"temperature": c["temperature"], "top_p": c["top_p"], "max_new_tokens": c["max"]},
        },
        "out": {
            "text": c["answer"],
            "meta_info": {
                "id": ids(i), "finish_reason": reason, "prompt_tokens": c["in"], "completion_tokens": c["out"],
                "cached_tokens": c["cached"], "e2e_latency": c["latency"],
            },
        },
    }  # fmt: skip


def lines(name: str, records: list[Any]) -> None:
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    (HERE / f"{name}.ndjson").write_text(text, "utf-8")


def main() -> None:
    every = list(enumerate(CALLS))
    lines("native", [native(i, c) for i, c in every])
    now = [span(i, c, current(i, c)) for i, c in every]
    lines("otlp", [traces([*now[:3], OTHER]), traces(now[3:]), traces([OTHER])])
    lines("otlp_old", [traces([span(i, c, *old(i, c)) for i, c in every])])
    lines("otlp_flat", [traces([span(i, c, flat(i, c)) for i, c in every])])
    lines("otlp_openinference", [traces([span(i, c, openinference(i, c)) for i, c in every])])
    other = {"timeUnixNano": nanos(START), "eventName": "gen_ai.user.message", "body": value({"content": "hi"})}
    logs = [events(i, c) for i, c in every]
    lines("otlp_logs", [
        {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": [*logs, other]}]}]},
    ])  # fmt: skip
    posted = [litellm(i, c) for i, c in every]
    lines("litellm", [posted[:5], *posted[5:]])  # the callback's json_array, then ndjson
    lines("litellm_spend", [litellm_spend(i, c) for i, c in every])
    other_route = {"start_time": iso(START), "response_code": 404, "gen_ai.request.model": "-", "duration": 1}
    lines("envoy_aigw", [*(envoy_aigw(i, c) for i, c in every), other_route])
    logged = [bedrock(i, c) for i, c in every]
    subscription = {
        "messageType": "DATA_MESSAGE", "logGroup": "/bedrock",
        "logEvents": [{"id": str(n), "timestamp": 0, "message": json.dumps(r)} for n, r in enumerate(logged[4:])],
    }  # fmt: skip
    lines("bedrock", [*logged[:4], subscription])
    kongs = [kong(i, c) for i, c in every]
    plain = {"started_at": 1, "request": {"uri": "/"}, "response": {"status": 200}, "client_ip": "192.0.2.1"}
    lines("kong", [[*kongs[:4], plain], *kongs[4:]])
    lines("portkey", [portkey(i, c) for i, c in every])
    lines("helicone", [helicone(i, c) for i, c in every])
    lines("helicone_kafka", [helicone_kafka(i, c) for i, c in every])
    lines("cloudflare_aig", [{"result": [cloudflare_aig(i, c) for i, c in every], "success": True}])
    received = {"timestamp": iso(START, ""), "event": "request.received", "rid": "x", "obj": {}}
    lines("sglang", [received, *(sglang(i, c) for i, c in every)])


if __name__ == "__main__":
    main()
