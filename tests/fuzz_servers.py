"""The three servers of the project on threads of this process, with the requests that each answers well."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

import foreign
import serving
from fuzzing import Target
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from monitor.decode import DecodeOptions
from monitor.ingest import IngestServer, Intake, SpoolTarget
from monitor.service import Health
from monitor.service.http import HttpService
from monitor.settings import HttpSettings, IngestSettings
from monitor.sketch import Keyring, Sketcher
from monitor.source.spool import SpoolWriter
from monitor.telemetry import Telemetry

TOKEN = "0123456789abcdef-token"


def head(line: str, *more: str) -> bytes:
    """A request without a body."""
    return "\r\n".join([line, "Host: localhost", "Connection: close", *more]).encode() + b"\r\n\r\n"


def ingest(stack: ExitStack, spool: Path) -> Target:
    """``monitor ingest`` into a spool."""
    writer = SpoolWriter(spool, 2, 1 << 30)
    stack.callback(writer.close)
    options = DecodeOptions(digest_key=b"k", max_bytes=1 << 20)
    intake = Intake(foreign.formats(), Sketcher(Keyring.from_seed(1)), options, SpoolTarget(writer))
    given = IngestSettings(port=0, token=SecretStr(TOKEN))
    server = IngestServer(given, intake, Telemetry(CollectorRegistry()), clock=time.time)
    server.start()
    stack.callback(server.stop, 1.0)
    now = time.time()
    record = {"ts": now, "request_id": "r", "account_id": "a", "model": "m", "input_tokens": 1, "output_tokens": 1,
              "status": 200, "prompt": "Explain it step by step."}  # fmt: skip
    requests = []
    for name, body in (("native", json.dumps(record).encode()), ("litellm", b"\n".join(foreign.lines("litellm")[:2])),
                       ("otlp", b"\n".join(foreign.lines("otlp")[:1]))):  # fmt: skip
        line = f"POST /v1/ingest/{name} HTTP/1.1"
        requests.append(head(line, f"Authorization: Bearer {TOKEN}", f"Content-Length: {len(body)}") + body)
    return Target(server.url, tuple(requests))


def console(stack: ExitStack, redis_url: str) -> Target:
    """``monitor serve``."""
    running = stack.enter_context(serving.Serving(serving.settings(redis_url)))
    token = f"Authorization: Bearer {serving.TOKEN}"
    paths = ("v1/alerts?limit=5", "v1/campaigns", "v1/accounts", "v1/rules", "v1/quality", "v1/verdict/a-1")
    return Target(running.url, tuple(head(f"GET /{path} HTTP/1.1", token) for path in paths))


def metrics(stack: ExitStack) -> Target:
    """The port of ``monitor run``."""
    telemetry = Telemetry(CollectorRegistry())
    health = Health((), stall_s=86_400)  # no loop goes round here
    service = stack.enter_context(HttpService(HttpSettings(port=0), health, telemetry.registry))
    return Target(service.url, tuple(head(f"GET {path} HTTP/1.1") for path in ("/healthz", "/metrics", "/readyz")))


def targets(stack: ExitStack, redis_url: str, spool: Path) -> list[Target]:
    """All three, until the stack closes."""
    return [ingest(stack, spool), console(stack, redis_url), metrics(stack)]
