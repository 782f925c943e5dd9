"""Logs with something taken away or renamed, to measure what a detector owes to it.

A transform takes one request (contract 1, as a dict) and returns it changed; ``rewrite`` streams a log through
one. Knows the fields of the contract, not the detectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .inputs import _lines

Transform = Callable[[dict[str, Any]], dict[str, Any]]

_KINDS: Mapping[str, tuple[str, ...]] = {
    "metadata only": ("system", "prompt", "response", "sketch"),
    "no payment": ("payment_fp", "billing_account_id"),
    "no egress": ("ip", "asn", "country"),
    "no client": ("user_agent", "client_name", "client_version", "ja4", "tool_schema_fp"),
    "no creation": ("account_created_at",),
    "no sign-up links": ("referral_fp", "contact_domain", "org_id"),
    "no blobs": ("reasoning_blob_fp",),
}
_FINE: Mapping[str, tuple[str, ...]] = {
    "no client build": ("user_agent", "client_name", "client_version"),
    "no JA4": ("ja4",),
    "no tool schemas": ("tool_schema_fp",),
    "no referrals": ("referral_fp",),
    "no contact domains": ("contact_domain",),
    "no organisations": ("org_id",),
}
_LINKS = tuple(field for name, fields in _KINDS.items() if name != "metadata only" for field in fields)
COARSE = (*_KINDS, "no links at all")
"""The ablations of a suite that must end within half an hour: related kinds of link go together."""
GROUPS: Mapping[str, tuple[str, ...]] = {**_KINDS, "no links at all": _LINKS, **_FINE}
"""Ablations by removal: name, and the fields that go."""


def without(fields: Sequence[str]) -> Transform:
    """Requests without ``fields``: as if the provider did not log them."""
    gone = frozenset(fields)
    return lambda request: {k: v for k, v in request.items() if k not in gone}


def relabel_geography(key: str = "fairness") -> Transform:
    """Countries and ASNs renamed one to one: no score may change (invariant 8).

    ASNs are renamed by an affine bijection modulo a prime over 2**32, countries by a keyed code of three letters.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    prime, factor, shift = 4_294_967_311, int.from_bytes(digest[:4]) | 1, int.from_bytes(digest[4:])

    def rename(request: dict[str, Any]) -> dict[str, Any]:
        out = dict(request)
        if isinstance(out.get("asn"), int):
            out["asn"] = (out["asn"] * factor + shift) % prime % 1_000_000_000
        if isinstance(out.get("country"), str):
            out["country"] = f"X{hashlib.blake2b((key + out['country']).encode(), digest_size=4).hexdigest()}"
        return out

    return rename


def merge_asns() -> Transform:
    """All autonomous systems become one: scores must change, else the relabelling test can't fail.

    To make the two largest one is not enough: what so many have ties nobody, before or after.
    """
    return lambda request: {**request, "asn": 1} if request.get("asn") is not None else request


def shift_phase(hours: float) -> Transform:
    """The whole log moved by ``hours``: no score may depend on the phase of a day."""
    seconds = hours * 3600.0

    def move(request: dict[str, Any]) -> dict[str, Any]:
        times = {k: request[k] + seconds for k in ("ts", "completed_at", "account_created_at")
                 if isinstance(request.get(k), int | float)}  # fmt: skip
        return {**request, **times}

    return move


def rewrite(log: Path, out: Path, transform: Transform) -> int:
    """Stream ``log`` through ``transform`` into ``out`` (NDJSON); how many requests. Other lines pass unchanged."""
    count, decoder, encoder = 0, msgspec.json.Decoder(), msgspec.json.Encoder()
    with out.open("wb") as file:
        for _, line in _lines(log):
            try:
                request = decoder.decode(line)
            except msgspec.DecodeError:
                file.write(line)
                continue
            file.write(encoder.encode(transform(request) if isinstance(request, dict) else request) + b"\n")
            count += 1
    return count
