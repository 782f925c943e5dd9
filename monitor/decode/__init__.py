"""Stage 1: bytes to columns. A record is a row of the frame or a reject with a reason; nothing raises, nothing is lost.

Knows contract 1 (``monitor.fields``) and no server, no key but that of the digest, no feature.
"""

from __future__ import annotations

from monitor.decode.columns import available_fields
from monitor.decode.stage import DecodeOptions, decode

__all__ = ["DecodeOptions", "available_fields", "decode"]
