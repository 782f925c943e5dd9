"""Contract 1 as one typed struct: the fast path of the decoder.

The struct is made from ``monitor.fields``, so that it cannot say something else. It reads a record of
1.2 KB with 46 fields in 4.9 us; whatever it refuses goes to ``monitor.decode.tolerant``, which gives the
same answer for a good record and a reason for a bad one. Knows nothing of batches, frames or policies.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from monitor.fields import FIELDS, ID_LENGTH, TIME_MAX_S, TIME_MIN_S, Field, Kind

NO_SKETCH = Raw(b"")
"""What a record without ``sketch`` holds there."""

Row = Any
"""An instance of :data:`Wire`: one attribute for each field of the contract, None where it is not known.
Times are epoch seconds (float), or an aware ``datetime`` until the stage has settled it."""


def wire_type(field: Field) -> Any:
    """The msgspec type that accepts exactly the good values of ``field``, null aside."""
    match field.kind:
        case Kind.TIME:
            seconds = Annotated[float, Meta(ge=float(TIME_MIN_S), le=float(TIME_MAX_S))]
            return seconds | Annotated[datetime, Meta(tz=True)]
        case Kind.ID:
            return Annotated[str, Meta(min_length=1, max_length=ID_LENGTH)]
        case Kind.STRING | Kind.TEXT | Kind.CODE:
            return str
        case Kind.INTEGER:
            # msgspec can bound 64 bits only; `seed` may be any integer, for only its presence is kept.
            return int if math.isinf(field.high) else Annotated[int, Meta(ge=int(field.low), le=int(field.high))]
        case Kind.NUMBER:
            return Annotated[float, Meta(ge=float(field.low), le=float(field.high))]
        case Kind.BOOLEAN:
            return bool
        case Kind.STRINGS:
            return list[str]
        case Kind.OBJECT:
            return Raw


def _members() -> list[Any]:
    members: list[Any] = []
    for field in sorted(FIELDS.values(), key=lambda f: not f.required):
        wire = wire_type(field)
        if field.required:
            members.append((field.name, wire))
        elif field.kind is Kind.OBJECT:
            members.append((field.name, wire, msgspec.field(default=NO_SKETCH)))
        else:
            members.append((field.name, wire | None, None))
    return members


# gc=False: a row holds strings and numbers, so no cycle, and the collector need not walk 20,000 of them.
Wire = msgspec.defstruct("Wire", _members(), gc=False)

MEMBERS: tuple[str, ...] = Wire.__struct_fields__
"""Names of the struct's members, in its order."""

read_row = msgspec.json.Decoder(Wire).decode
"""Bytes to a :data:`Row`; raises ``ValueError`` (msgspec's and Unicode's are) or ``RecursionError``."""

read_members = msgspec.json.Decoder(dict[str, Raw]).decode
"""Bytes to the members of an object, their values unread. Of a repeated name the last one counts, as in Wire."""

read_any = msgspec.json.Decoder(Raw).decode
"""Accepts whatever is one JSON value."""

read_field = {f.name: msgspec.json.Decoder(wire_type(f)).decode for f in FIELDS.values()}
"""One decoder a field, for a value on its own."""

read_float = msgspec.json.Decoder(float).decode
read_string = msgspec.json.Decoder(str).decode

__all__ = [
    "MEMBERS", "NO_SKETCH", "Row", "Wire", "read_any", "read_field", "read_float", "read_members", "read_row",
    "read_string", "wire_type",
]  # fmt: skip
