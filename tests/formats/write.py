"""Writes the golden samples: the same eight requests in every format, as each one's documentation shows it.

    python tests/formats/write.py

Our own traffic and our own writing. ``native.ndjson`` holds all that any of them carries; which fields a format carries
is declared in ``tests/foreign.py``, not here. Every sample also holds what is no request, and credentials.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from otlp import OTHER, current, events, flat, nanos, of_litellm, old, openinference, span, traces, value
from traffic import CALLS, SECRET, START, TOOLS, ids, iso, native, openai_request, openai_response

HERE = Path(__file__).parent


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
            "user_api_key_user_id": "someone", "user_api_key_project_id": c["project"], "user_api_key": SECRET,
            "requester_ip_address": c["ip"],
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
        # what the documentation's example has not, and an operator may add: headers, further counts, a cost in CEL
        "x-org-id": f"org-{c['account'][-1]}", "x-api-key-id": f"key-{c['account'][-1]}",
        "x-end-user-id": c["end_user"],
        "gen_ai.usage.cache_read.input_tokens": c["cached"], "gen_ai.usage.reasoning.output_tokens": c["reasoning"],
        "gen_ai.usage.cost": c["cost"],
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
        "timestamp": iso(c["at"]), "accountId": f"org-{c['account'][-1]}", "region": c["region"],
        "identity": {"arn": "arn:aws:sts::1:assumed-role/gw/x"}, "requestId": ids(i),
        "operation": "ConverseStream" if c["stream"] else "Converse", "modelId": c["model"],
        "input": {"inputContentType": "application/json", "inputBodyJson": request, "inputTokenCount": c["in"]},
        "requestMetadata": {"account_id": c["account"], "end_user_id": c["end_user"]},
        "schemaType": "ModelInvocationLog", "schemaVersion": "1.0",
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
        "metadata": {"_user": c["end_user"], "account_id": c["account"], "session_id": c["conversation"]},
        "organisation_id": f"org-{c['account'][-1]}", "api_key_id": f"key-{c['account'][-1]}",
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
        "response_body": openai_response(c, i), "auth": SECRET, "organization_id": f"org-{c['account'][-1]}",
        "country_code": c["country"],
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
                "properties": {"Helicone-Session-Id": c["conversation"]}, "countryCode": c["country"],
                "organizationId": f"org-{c['account'][-1]}",
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


def cloudflare_whole(i: int, c: dict[str, Any]) -> dict[str, Any]:
    """A log of the REST API with its bodies, which are fetched one by one."""
    metadata = {"account_id": c["account"], "country": c["country"]}
    return cloudflare_aig(i, c) | {
        "gateway_id": c["project"], "user_agent": c["agent"], "request": json.dumps(openai_request(c)),
        "response": json.dumps(openai_response(c, i)), "metadata": metadata,
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
            "top_logprobs_num": c["top_logprobs"],
            "custom_labels": {"account_id": c["account"], "end_user_id": c["end_user"]},
            "sampling_params": {
                "temperature": c["temperature"], "top_p": c["top_p"], "max_new_tokens": c["max"], "n": c["n"],
                "sampling_seed": c["seed"], "json_schema": "{}" if c["format"] == "json_schema" else None,
                "logit_bias": {"50256": -100} if c["bias"] else None,
            },
        },
        "out": {
            "text": c["answer"],
            "meta_info": {
                "id": ids(i), "finish_reason": reason, "prompt_tokens": c["in"], "completion_tokens": c["out"],
                "cached_tokens": c["cached"], "reasoning_tokens": c["reasoning"], "e2e_latency": c["latency"],
            },
        },
    }  # fmt: skip


def lines(name: str, records: list[Any]) -> None:
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    (HERE / f"{name}.ndjson").write_text(text, "utf-8")


def main() -> None:
    every = list(enumerate(CALLS))
    lines("native", [native(i, c) for i, c in every])
    lines("otlp_litellm", [traces([span(i, c, of_litellm(i, c)) for i, c in every])])
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
    lines("cloudflare_aig_whole", [cloudflare_whole(i, c) for i, c in every])
    received = {"timestamp": iso(START, ""), "event": "request.received", "rid": "x", "obj": {}}
    lines("sglang", [received, *(sglang(i, c) for i, c in every)])


if __name__ == "__main__":
    main()
