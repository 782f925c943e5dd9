"""JSON lines of the request log with their text stripped to sketches: ``monitor rekey --sketch``. Knows no broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .sketcher import Sketcher

_read = msgspec.json.Decoder(dict[str, Any]).decode
_write = msgspec.json.Encoder().encode


def sketch_json_lines(values: Sequence[bytes | None], sketcher: Sketcher) -> list[bytes | None]:
    """Each record with ``sketch`` in place of its text and of the client's strings; provider fields stay.

    None where a value is not one JSON object (for the dead letters: it can't be known to hold no text).
    """
    events: list[dict[str, Any]] = []
    places: list[int] = []
    for i, value in enumerate(values):
        try:
            event = _read(value or b"")
        except (ValueError, RecursionError):
            continue
        events.append(event)
        places.append(i)
    out: list[bytes | None] = [None] * len(values)
    for i, event in zip(places, sketcher.sketch_many(events), strict=True):
        out[i] = _write(event)
    return out
