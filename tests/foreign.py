"""Golden samples of other log formats, and the native log of the same traffic cut down to what each one carries."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from feature_rows import engine

from monitor.decode import NATIVE, DecodeOptions, Formats, Reader, decode, expander, load_formats
from monitor.fields import REQUIRED
from monitor.records import Decoded, RawBatch
from monitor.sketch import Keyring, Sketcher
from monitor.sketch.frame import sketch_frame

HERE = Path(__file__).parent / "formats"
SECRET = b"sk-canary-credential"
_CHAT = {"prompt", "system", "n_messages", "turn_index", "input_kind"}
_ANSWER = {"response", "finish_reason"}
_BODY = {
    "temperature", "top_p", "max_tokens", "seed", "logprobs", "top_logprobs", "response_format", "reasoning_effort",
    "tools", "stream", "n", "logit_bias",
}  # fmt: skip
_OTLP = {
    "completed_at", "latency_ms", "model_served", "cached_tokens", "reasoning_tokens", "temperature", "top_p",
    "max_tokens", "seed", "stream", "delivery", "operation", "conversation_id", "ip", "user_agent", "tools", "n",
}  # fmt: skip

CARRIES: dict[str, set[str]] = {
    "otlp": _OTLP | _CHAT | _ANSWER,
    "otlp_litellm": _OTLP | _CHAT | _ANSWER | {
        "org_id", "api_key_id", "end_user_id", "cost_usd", "reasoning_effort", "response_format", "logprobs",
        "top_logprobs", "country", "ja4",
    },
    "otlp_logs": (_OTLP | _CHAT | _ANSWER) - {"completed_at", "latency_ms"},
    "otlp_old": {
        "completed_at", "latency_ms", "model_served", "temperature", "top_p", "max_tokens", "seed", "response",
    } | _CHAT,
    "otlp_flat": {
        "completed_at", "latency_ms", "model_served", "temperature", "stream", "delivery", "operation",
    } | _CHAT | _ANSWER,
    "otlp_openinference": {
        "completed_at", "latency_ms", "cached_tokens", "reasoning_tokens", "operation", "conversation_id", "response",
    } | _CHAT,
    "litellm": {
        "completed_at", "latency_ms", "org_id", "project_id", "api_key_id", "end_user_id", "model_served", "operation",
        "delivery", "cached_tokens", "reasoning_tokens", "cost_usd", "conversation_id", "ip", "user_agent",
    } | _CHAT | _ANSWER | _BODY,
    "litellm_spend": {
        "completed_at", "latency_ms", "org_id", "api_key_id", "end_user_id", "model_served", "operation", "cost_usd",
        "conversation_id", "ip",
    },
    "envoy_aigw": {
        "latency_ms", "model_served", "operation", "conversation_id", "ip", "user_agent", "org_id", "api_key_id",
        "end_user_id", "cached_tokens", "reasoning_tokens", "cost_usd",
    },
    "bedrock": {
        "latency_ms", "org_id", "operation", "delivery", "stream", "cached_tokens", "temperature", "top_p",
        "max_tokens", "tools", "end_user_id", "region",
    } | _CHAT | _ANSWER,
    "kong": {
        "latency_ms", "org_id", "api_key_id", "end_user_id", "model_served", "operation", "delivery", "cached_tokens",
        "reasoning_tokens", "cost_usd", "ip", "user_agent",
    } | _CHAT | _ANSWER | _BODY,
    "portkey": {
        "latency_ms", "org_id", "api_key_id", "conversation_id", "end_user_id", "model_served",
        "operation", "delivery", "cached_tokens", "reasoning_tokens", "cost_usd",
    } | _CHAT | _ANSWER | _BODY,
    "helicone": {
        "completed_at", "latency_ms", "api_key_id", "end_user_id", "model_served", "operation", "cached_tokens",
        "reasoning_tokens", "cost_usd", "conversation_id", "org_id", "country",
    } | _CHAT | _ANSWER | _BODY,
    "helicone_kafka": {
        "org_id", "country",
        "completed_at", "latency_ms", "api_key_id", "operation", "stream", "delivery", "conversation_id",
    },
    "cloudflare_aig": {"latency_ms", "end_user_id", "operation", "cost_usd"},
    "cloudflare_aig_whole": {
        "latency_ms", "end_user_id", "operation", "cost_usd", "model_served", "project_id", "country", "user_agent",
        "cached_tokens", "reasoning_tokens",
    } | _CHAT | _ANSWER | _BODY,
    "sglang": {
        "completed_at", "latency_ms", "cached_tokens", "temperature", "top_p", "max_tokens", "logprobs",
        "top_logprobs", "stream", "delivery", "prompt", "response", "finish_reason", "n", "seed", "logit_bias",
        "response_format", "reasoning_tokens", "end_user_id",
    },
}  # fmt: skip
"""Sample -> the optional fields that it carries."""
FORMAT_OF = {
    name: name.split("_")[0] if name.startswith(("otlp", "helicone")) else name.removesuffix("_whole")
    for name in CARRIES
}
IGNORED = {"otlp": 2, "otlp_logs": 1, "envoy_aigw": 1, "kong": 1, "sglang": 1}
"""Sample -> items in it that are no request."""
FAILED: dict[str, dict[str, Any]] = {
    "otlp_flat": {"status": 500}, "otlp_openinference": {"status": 500}, "bedrock": {"latency_ms": None},
    "kong": {"cost_usd": None}, "portkey": {"model_served": None}, "cloudflare_aig_whole": {"model_served": None},
    "sglang": {"finish_reason": "abort"},
}  # fmt: skip
"""Sample -> what it says otherwise of the one request that failed."""

SAYS: dict[str, dict[str, tuple[Any, ...]]] = {
    "otlp": {"n": (4,)}, "otlp_logs": {"n": (4,)}, "sglang": {"response_format": ("json_schema",)},
}  # fmt: skip
"""Sample -> field -> the only values that the format writes: the conventions leave out a count of one."""


@cache
def formats() -> Formats:
    return load_formats()


def lines(sample: str) -> list[bytes]:
    return [line for line in (HERE / f"{sample}.ndjson").read_bytes().split(b"\n") if line]


def native_of(sample: str) -> list[bytes]:
    """The native log of the traffic with the fields that ``sample`` carries."""
    keep = {*REQUIRED, *CARRIES[sample]}
    out = []
    for line in lines("native"):
        record = json.loads(line)
        if record["status"] == 429:
            record |= FAILED.get(sample, {})
        for name, values in SAYS.get(sample, {}).items():
            if record.get(name) not in values:
                record.pop(name, None)
        out.append(json.dumps({k: v for k, v in record.items() if k in keep}).encode())
    return out


def batch(values: Sequence[bytes | None], partition: int = 0, first: int = 0) -> RawBatch:
    n = len(values)
    offsets = np.arange(first, first + n, dtype=np.int64)
    return RawBatch(values, np.full(n, partition, np.int32), offsets, np.full(n, -1, np.int64), {partition: first + n})


@cache
def reader(name: str) -> Reader:
    """The compiled reader of a packaged format."""
    return formats().reader(name)


def decoded(name: str, values: Sequence[bytes | None], known: Formats | Reader | None = None) -> Decoded:
    """``known``: formats other than the packaged ones, or what reads this one."""
    chosen = reader(name) if known is None else known.reader(name) if isinstance(known, Formats) else known
    expand = None if name == NATIVE else expander(chosen, "requests", 1 << 20)
    return decode(batch(values), DecodeOptions(digest_key=b"tests", expand=expand))


def events_of(frame: pl.DataFrame) -> pl.DataFrame:
    """Decoded rows after the sketch step, with ticks by their own time; coordinates aside."""
    events, _ = sketch_frame(frame, Sketcher(Keyring.from_seed(1)))
    return events.with_columns(
        partition=pl.lit(0, pl.Int32), offset=pl.int_range(pl.len(), dtype=pl.Int64), tick=pl.col("t_ms") // 10_000
    )


def features_of(frame: pl.DataFrame) -> pl.DataFrame:
    """Feature rows of decoded rows."""
    events = events_of(frame)
    rows = engine().update(events, {0: int(str(events["t_ms"].max())) + 20_000})
    return rows.drop("origin").sort("tick", "subject")


def same(a: pl.DataFrame, b: pl.DataFrame, but: Callable[[str], bool] = lambda name: False) -> list[str]:
    """Columns in which two frames differ, a column that one lacks counting as null there."""
    names = [name for name in dict.fromkeys((*a.columns, *b.columns)) if not but(name)]
    columns = [[f[n].to_list() if n in f.columns else [None] * len(f) for n in names] for f in (a, b)]
    return [name for name, x, y in zip(names, *columns, strict=True) if x != y]
