"""Stage 1: bytes to columns. A record is a row of the frame or a reject with a reason; nothing raises, nothing is lost.

Knows contract 1 (``monitor.fields``) and no server, no key but that of the digest, no feature. Other log formats are
mappings, data under ``mappings/``: a message of theirs becomes records of contract 1, which are then decoded as any.
"""

from __future__ import annotations

from monitor.decode.columns import available_fields
from monitor.decode.formats import AUTO, NATIVE, Formats, Reader, expander, load_formats, read_message
from monitor.decode.stage import DecodeOptions, decode

__all__ = [
    "AUTO", "NATIVE", "DecodeOptions", "Formats", "Reader", "available_fields", "decode", "expander", "load_formats",
    "read_message",
]  # fmt: skip
