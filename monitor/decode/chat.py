"""Bodies of model APIs: the conversation that a request sends, and the answer, whichever provider's form it has.

Understood: OpenAI chat, completions, embeddings and responses, Anthropic messages, Bedrock converse and
invoke, Gemini, OpenTelemetry's messages with parts, and conversations that instrumentations flatten into
``gen_ai.prompt.0.role``. What is not understood gives nothing: null, not a guess. Never raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monitor.decode.paths import opened

_DEPTH = 8
_SYSTEM = frozenset({"system", "developer"})
_ASSISTANT = frozenset({"assistant", "model", "ai", "chatbot"})
_TOOL = frozenset({"tool", "function", "tool_result"})
_TOOL_PARTS = frozenset({"tool_result", "tool_call_response", "function_call_output", "toolResult", "functionResponse"})
_REASONING = frozenset({"reasoning", "thinking", "redacted_thinking"})
_CONTENT = ("content", "message.content", "parts", "text", "output", "message")

ROUTES = (
    ("embedding", "embedding"), ("rerank", "rerank"), ("moderation", "moderation"), ("count_tokens", "count_tokens"),
    ("counttokens", "count_tokens"), ("/images", "image"), ("/audio", "audio"), ("/videos", "video"),
    ("realtime", "realtime"), ("fine_tuning", "fine_tuning"), ("/files", "files"), ("chat/completions", "chat"),
    ("/messages", "chat"), ("/responses", "chat"), ("/converse", "chat"), ("generatecontent", "chat"),
    ("/chat", "chat"), ("/completions", "completion"), ("/complete", "completion"), ("/generate", "completion"),
)  # fmt: skip
"""What a path of an API holds -> the operation; the first that fits."""


_MESSAGE = frozenset({"role", "parts", "message.role", "delta"})
_REQUEST = frozenset({"messages", "input", "contents", "prompt", "inputText"})
_RESPONSE = frozenset(
    {"choices", "candidates", "results", "generation", "outputText", "stop_reason", "stopReason", "finish_reason"}
)


def _structure(value: Any, marks: frozenset[str]) -> Any:
    """A string that holds messages or a body as that; any other is text, also where its author wrote JSON."""
    found = opened(value)
    if found is value:
        return value
    if isinstance(found, dict):
        # What an API says when it failed is no answer of a model.
        error = found.get("error") if found.keys() <= {"error", "type", "request_id"} else None
        if isinstance(error, dict) and "message" in error:
            return found
        return found if found.keys() & (marks | _MESSAGE) else value
    messages = found and all(isinstance(item, dict) and item.keys() & _MESSAGE for item in found)
    return found if messages else value


def parts_of(value: Any) -> str | None:
    """:func:`text_of`, also of content parts that were written as JSON into a string."""
    found = opened(value) if isinstance(value, str) and value.startswith("[") else value
    parts = (
        isinstance(found, list) and found and all(isinstance(p, dict) and {"text", "content"} & p.keys() for p in found)
    )
    return text_of(found if parts else value)


def text_of(value: Any, depth: int = 0) -> str | None:
    """The text of a content in any of the forms, parts joined by newlines; None where it holds none."""
    if isinstance(value, str):
        return value
    if depth > _DEPTH:
        return None
    if isinstance(value, list):
        parts = [text for part in value if (text := text_of(part, depth + 1))]
        return "\n".join(parts) if parts else None
    if isinstance(value, dict):
        if _kind(value) in _REASONING:
            return None
        for key in ("text", "content", "message.content", "output", "response", "result", "parts"):
            found = value.get(key)
            if found is not None and (text := text_of(found, depth + 1)) is not None:
                return text
        for key in ("toolResult", "functionResponse"):
            if isinstance(value.get(key), dict):
                return text_of(value[key], depth + 1)
    return None


def read_conversation(value: Any) -> dict[str, Any]:
    """``prompt``, ``system``, ``n_messages``, ``turn_index`` and ``input_kind`` of what a request sends.

    ``prompt`` is the last input; messages count without the system's; the turn is the number of answers before it.
    """
    value = _structure(value, _REQUEST)
    if isinstance(value, dict):
        for key in ("messages", "input", "contents", "prompt", "inputText", "message"):
            if value.get(key) is not None:
                return read_conversation(value[key])
        return _of_messages([value]) if "role" in value else {}
    if isinstance(value, str):
        return {"prompt": value}
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return {"prompt": "\n".join(value)}
        if all(isinstance(item, dict) for item in value):
            return _of_messages(value)
    return {}


def _of_messages(messages: list[dict[str, Any]]) -> dict[str, Any]:
    system = [text for m in messages if _role(m) in _SYSTEM and (text := _body(m))]
    others = [m for m in messages if _role(m) not in _SYSTEM and _kind(m) not in _REASONING]
    found: dict[str, Any] = {"system": "\n".join(system)} if system else {}
    if not others:
        return found
    prefill = _role(others[-1]) in _ASSISTANT
    inputs = [m for m in others if _role(m) not in _ASSISTANT]
    found["n_messages"] = len(others)
    found["turn_index"] = len(others) - len(inputs) - prefill
    if inputs and (text := _body(inputs[-1])) is not None:
        found["prompt"] = text
    found["input_kind"] = "prefill" if prefill else "tool_result" if _is_tool(others[-1]) else "user"
    return found


def _kind(part: dict[str, Any]) -> str:
    found = part.get("type")
    return found if isinstance(found, str) else ""


def _role(message: dict[str, Any]) -> str:
    role = message.get("role", message.get("message.role"))
    if isinstance(role, str):
        return role.lower()
    kind = _kind(message)
    return "assistant" if kind in ("function_call", "tool_call") else "tool" if kind in _TOOL_PARTS else "user"


def _body(message: dict[str, Any]) -> str | None:
    for key in _CONTENT:
        if message.get(key) is not None:
            return text_of(message[key])
    return None


def _is_tool(message: dict[str, Any]) -> bool:
    if _role(message) in _TOOL:
        return True
    for key in ("content", "parts"):
        parts = message.get(key)
        if isinstance(parts, list):
            return any(isinstance(p, dict) and (_kind(p) in _TOOL_PARTS or _TOOL_PARTS & p.keys()) for p in parts)
    return False


def read_answer(value: Any) -> dict[str, Any]:
    """``response``, ``finish_reason`` and ``refused`` of an answer: a body, its choices, messages or stream chunks."""
    texts: list[str] = []
    found: dict[str, Any] = {}
    _answer(_structure(value, _RESPONSE), texts, found, 0)
    if texts:
        found["response"] = "".join(texts)
    return found


def _answer(value: Any, texts: list[str], found: dict[str, Any], depth: int) -> None:
    if depth > _DEPTH:
        return
    if isinstance(value, str):
        texts.append(value)
        return
    if isinstance(value, list):
        whole = all(isinstance(item, dict) and not _is_chunk(item) for item in value)
        for i, item in enumerate(value):
            if whole and i and texts and item.get("role"):
                texts.append("\n")
            if isinstance(item, dict | str):
                _answer(item, texts, found, depth + 1)
        return
    if not isinstance(value, dict) or _kind(value) in _REASONING:
        return
    for key in ("finish_reason", "stop_reason", "stopReason", "finishReason", "completionReason"):
        reason = value.get(key)
        if isinstance(reason, str) and reason:
            found["finish_reason"] = reason
    if "refusal" in value:
        found["refused"] = found.get("refused", False) or bool(value["refusal"])
    for key in _ANSWERS:
        inner = value.get(key)
        if inner is not None:
            _answer(inner, texts, found, depth + 1)
            if key not in ("delta", "messageStop", "message_stop"):
                return


_ANSWERS = (
    "delta", "messageStop", "contentBlockDelta", "choices", "candidates", "results", "message", "output", "content",
    "parts", "text", "outputText", "generation", "completion", "message.content",
)  # fmt: skip


def _is_chunk(item: dict[str, Any]) -> bool:
    return "delta" in item or str(item.get("type", "")).endswith("_delta")


def tool_names(value: Any) -> list[str] | None:
    """Names of the tools that a request offers; None where it is no list of tools."""
    value = opened(value)
    if isinstance(value, dict):
        value = value.get("tools")
    if not isinstance(value, list):
        return None
    return list(_names(value, 0))


def _names(tools: list[Any], depth: int) -> Iterator[str]:
    for tool in tools:
        if isinstance(tool, str):
            yield tool
        elif isinstance(tool, dict):
            inner = next((tool[k] for k in ("function", "toolSpec") if isinstance(tool.get(k), dict)), tool)
            many = tool.get("functionDeclarations")
            name = inner.get("name")
            if isinstance(many, list) and depth < 2:
                yield from _names(many, depth + 1)
            elif isinstance(name, str) and name:
                yield name
            elif isinstance(tool.get("type"), str):
                yield tool["type"]


def operation_of(route: str) -> str | None:
    """The operation that a path of an API stands for; None where it is not known."""
    path = route.partition("?")[0].lower()
    return next((word for part, word in ROUTES if part in path), None)
