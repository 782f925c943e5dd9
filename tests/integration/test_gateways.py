"""The example configurations for gateways: they parse, and what they would ask `monitor serve` it answers so."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from campaign_rows import lone
from serving import GATEWAY, Serving, bearer, settings

from monitor.settings import ConsoleSettings
from monitor.store.redis_link import RedisOptions
from monitor.store.redis_sink import RedisSink
from monitor.yamlfile import load

FILES = Path(__file__).resolve().parents[2] / "deploy" / "gateways"


@pytest.fixture
def console(redis_url: str) -> Iterator[Serving]:
    sink = RedisSink(RedisOptions(url=redis_url))
    sink.send([lone(1, 1), lone(1, 2, severity="critical")])
    sink.close()
    with Serving(settings(redis_url)) as serving:
        yield serving


def test_envoy_asks_where_it_is_answered_and_fails_open(console: Serving) -> None:
    document = load(FILES / "envoy.yaml").data
    (listener,) = document["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {f["name"].rsplit(".", 1)[1]: f["typed_config"] for f in manager["http_filters"]}
    assert list(filters) == ["jwt_authn", "ext_authz", "router"]  # who it is, before what is known of it
    authz = filters["ext_authz"]
    assert authz["failure_mode_allow"] is True
    header = filters["jwt_authn"]["providers"]["accounts"]["claim_to_headers"][0]["header_name"]
    assert header == ConsoleSettings().account_header == authz["allowed_headers"]["patterns"][0]["exact"]
    service = authz["http_service"]
    clusters = {c["name"] for c in document["static_resources"]["clusters"]}
    route = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    assert {service["server_uri"]["cluster"], route["cluster"]} <= clusters
    assert urlsplit(service["server_uri"]["uri"]).port == ConsoleSettings().port
    (added,) = service["authorization_request"]["headers_to_add"]
    sent = {added["key"]: added["value"].replace("GATEWAY_TOKEN", GATEWAY), header.replace("-", "_"): "a-2"}
    answer = console.ask(service["path_prefix"] + "/v1/chat/completions", "POST", **sent)
    passed = service["authorization_response"]["allowed_upstream_headers"]["patterns"][0]["exact"]
    assert (answer.status, answer.headers[passed]) == (200, "block")


def test_kong_asks_after_it_knows_the_consumer(console: Serving) -> None:
    document = load(FILES / "kong.yaml").data
    (service,) = document["services"]
    assert [p["name"] for p in service["plugins"]] == ["key-auth", "post-function"]
    (code,) = service["plugins"][1]["config"]["access"]
    url, token = re.search(r'"(http://[^"]+)" \.\.', code), re.search(r'authorization = "(Bearer \w+)"', code)
    assert url
    assert token
    parts = urlsplit(url[1])
    assert parts.port == ConsoleSettings().port
    answer = console.ask(f"{parts.path}a-1", Authorization=token[1].replace("GATEWAY_TOKEN", GATEWAY))
    assert b'"verdict":"review"' in answer.body
    assert code.count("(") == code.count(")")
    ends = len(re.findall(r"\bend\b", code))
    assert ends == len(re.findall(r"\bthen\b", code)) > 3
    modules = set(re.findall(r'require\("([\w.]+)"\)', code))
    allowed = re.search(r"untrusted_lua_sandbox_requires = (\S+)", (FILES / "kong.yaml").read_text())
    assert allowed
    assert modules == set(allowed[1].split(","))


class _Refused(Exception):
    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status


@pytest.fixture
def hook(console: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hook as LiteLLM loads it; of LiteLLM and FastAPI only the two names that it imports are put in place."""
    (tmp_path / "token").write_text(GATEWAY)
    monkeypatch.setenv("ABUSE_URL", console.url)
    monkeypatch.setenv("ABUSE_TOKEN_FILE", str(tmp_path / "token"))
    base, web = ModuleType("litellm.integrations.custom_logger"), ModuleType("fastapi")
    base.CustomLogger, web.HTTPException = object, _Refused  # type: ignore[attr-defined]
    for name, module in (("litellm", ModuleType("litellm")), ("litellm.integrations", ModuleType("x")),
                         (base.__name__, base), ("fastapi", web)):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("abuse_verdict", FILES / "litellm" / "abuse_verdict.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.WAIT_S = 20.0  # a test machine may be slow, and timings decide no test
    return module


def call(hook: Any, made: Any, **who: str | None) -> dict[str, Any]:
    key = SimpleNamespace(**{"team_id": None, "user_id": None, **who})
    found: dict[str, Any] = asyncio.run(made.async_pre_call_hook(key, None, {"model": "m"}, "completion"))
    return found


def test_litellm_notes_the_verdict_and_refuses_only_what_it_is_told_to(
    hook: Any, console: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = load(FILES / "litellm" / "config.yaml").data
    module, _, name = document["litellm_settings"]["callbacks"].partition(".")
    assert (module, hasattr(hook, name)) == ("abuse_verdict", True)
    assert call(hook, hook.verdicts, team_id="a-2")["metadata"] == {"abuse_verdict": "block"}
    assert call(hook, hook.verdicts, user_id="a-1")["metadata"] == {"abuse_verdict": "review"}
    assert call(hook, hook.verdicts, user_id="nobody/é")["metadata"] == {"abuse_verdict": "none"}
    assert "metadata" not in call(hook, hook.verdicts)
    monkeypatch.setenv("ABUSE_DENY", "block")
    strict = hook.Verdicts()
    with pytest.raises(_Refused, match="under review"):
        call(hook, strict, team_id="a-2")
    assert call(hook, strict, user_id="a-1")["metadata"] == {"abuse_verdict": "review"}
    monkeypatch.setenv("ABUSE_URL", "http://127.0.0.1:1")
    assert call(hook, hook.Verdicts(), team_id="a-2")["metadata"] == {"abuse_verdict": "unknown"}
    assert console.ask("/v1/verdict/a-2", **bearer(GATEWAY)).status == 200
