"""Marked text, and a search for it in whatever was written, however it was packed."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import zstandard

CANARIES = {
    "prompt": "quetzal-prompt-5b1d9e", "system": "ocelot-system-77c0aa", "response": "narwhal-response-1f84c2",
    "ip": "203.0.113.77", "ipv6": "2001:db8:bead:77::5a5a", "tools": "pangolin_tool_90ab1c",
    "user_agent": "axolotl-agent/9.31.7", "contact_domain": "kakapo-contact.example",
    "end_user_id": "tuatara-user-3e3e70", "broken": "wombat-broken-c41c4f",
}  # fmt: skip
"""What no client's string may be found as; ``broken`` marks what is no request."""
_DEPTH = 8


def forms(marker: str) -> dict[str, bytes]:
    """Spellings in which a marker would still be the text: cases, UTF-16, hex, base64 at each phase, packed address."""
    raw = marker.encode()
    found = {
        "plain": raw, "upper": marker.upper().encode(), "utf-16": marker.encode("utf-16-le"),
        "hex": raw.hex().encode(), "reversed": raw[::-1],
    }  # fmt: skip
    for phase in range(3):
        coded = base64.b64encode(b"\0" * phase + raw)
        found[f"base64 {phase}"] = coded[4 if phase else 0 : len(coded) // 4 * 4 - 4]
    if ":" in marker:
        import ipaddress

        found["packed"] = ipaddress.ip_address(marker).packed
    return found


NEEDLES = [(name, form, raw) for name, marker in CANARIES.items() for form, raw in forms(marker).items()]


def unpacked(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """``data`` and everything that is in it: zstd, gzip, zlib, MessagePack, JSON, Arrow IPC, one in another."""
    yield data
    if depth >= _DEPTH or len(data) < 4:
        return
    for inner in _inner(data):
        yield from unpacked(inner, depth + 1)


def _inner(data: bytes) -> Iterator[bytes]:
    if data[:4] == b"\x28\xb5\x2f\xfd":
        yield zstandard.ZstdDecompressor().decompressobj().decompress(data)
    elif data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:6] == b"ARROW1":
        frame = pl.read_ipc(io.BytesIO(data))
        yield from (repr(frame[c].to_list()).encode() for c in frame.columns)
        yield repr(frame.columns).encode()
    elif data[:1] in b"\x78":
        try:
            yield zlib.decompress(data)
        except zlib.error:
            return
    elif data[:1] in b'{["':
        for line in data.splitlines():
            try:
                yield from _leaves(json.loads(line))
            except ValueError:
                continue
    else:
        try:
            yield from _leaves(msgspec.msgpack.decode(data))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return


def _leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(key)
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)


def found_in(data: bytes) -> set[str]:
    """``name (form)`` of each canary in ``data``, unpacked."""
    return {f"{name} ({form})" for part in unpacked(data) for name, form, raw in NEEDLES if raw in part}


def search(root: Path) -> dict[str, set[str]]:
    """What was found by file under ``root``, names of files included; and every file was read."""
    hits: dict[str, set[str]] = {}
    files = [path for path in root.rglob("*") if path.is_file()]
    assert files, "nothing was written, so nothing was searched"
    for path in files:
        found = found_in(path.read_bytes()) | found_in(str(path.relative_to(root)).encode())
        if found:
            hits[path.relative_to(root).parts[0]] = hits.get(path.relative_to(root).parts[0], set()) | found
    return hits
