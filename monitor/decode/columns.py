"""Rows to columns: one list a field, then one typed Polars series; only fields that occur.

Knows the names and types of the decoded frame. A column that nobody sent is not built, because most logs
send half of the contract and 65 columns cost twice what 30 do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from msgspec.structs import astuple

from monitor.decode.wire import MEMBERS, NO_SKETCH, Row
from monitor.fields import ALIASES, FIELDS, TABLES, Field, Kind, code, spelling
from monitor.records import EVENT_SCHEMA

Column = Sequence[Any]

PASSED = frozenset({"", "allow", "allowed", "none", "ok", "pass", "passed", "log", "logged"})
"""Actions of ``category:action`` that let the request through; any other one makes it ``moderated``."""

SCALE: Final[Mapping[str, int]] = {"temperature": 1_000, "top_p": 1_000, "cost_usd": 1_000_000, "latency_ms": 1}
"""Numbers are kept as integers from here on: sums of floats depend on their order."""


def spellings(field: str) -> dict[str, int]:
    """Word -> code for one closed table, in the spellings that occur; what clients write is not collected here."""
    table = TABLES[field]
    codes: dict[str, int] = {}
    for word in (*table, *ALIASES.get(field, {})):
        for spelled in (word, word.upper(), word.capitalize(), word.replace("_", "-")):
            codes[spelled] = code(table, spelling(field, word)) or 0
    return codes


def _with_null(codes: Mapping[str, int]) -> dict[str | None, int | None]:
    return {None: None} | dict(codes.items())


_CODES = {name: _with_null(spellings(name)) for name in TABLES}


def codes_of(field: str, values: Column) -> list[int | None]:
    """Codes of a closed field's words: ``other`` for a word outside the table, null for null."""
    known = _CODES[field]
    try:
        return list(map(known.__getitem__, values))
    except KeyError:
        return [known[v] if v in known else code(TABLES[field], spelling(field, v)) for v in values]


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """One list a field, in row order.

    One flat list and a stride for each field: 1.1 us a row, where reading 65 attributes one by one takes 2.6.
    """
    flat = list(chain.from_iterable(map(astuple, rows)))
    return {name: flat[i :: len(MEMBERS)] for i, name in enumerate(MEMBERS)}


def seconds_to_ms(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Epoch seconds to milliseconds, rounded half to even. No NaN."""
    return np.rint(seconds * 1000.0).astype(np.int64)


def contract_series(columns: Mapping[str, Column]) -> list[pl.Series]:
    """The series of every field that occurs, in the contract's order; ``ts`` and ``completed_at`` aside.

    Required fields are always there, also for no rows at all. Times are epoch seconds.
    """
    series: list[pl.Series] = []
    for field in FIELDS.values():
        if field.name in ("ts", "completed_at"):
            continue
        values = columns[field.name]
        if field.required or _occurs(values, NO_SKETCH if field.kind is Kind.OBJECT else None):
            series += _series(field, values)
    return series


def _occurs(values: Column, missing: object) -> bool:
    # The first value decides for most columns; count() compares by identity first, 5 ns a value where all match.
    return bool(values) and (values[0] is not missing or values.count(missing) != len(values))


def _series(field: Field, values: Column) -> list[pl.Series]:
    name = field.columns[0]
    match field.kind:
        case Kind.CODE:
            return [pl.Series(name, codes_of(field.name, values), dtype=pl.UInt8)]
        case Kind.TIME:
            seconds = pl.Series(name, values, dtype=pl.Float64)
            return [(seconds * 1000.0).round(mode="half_to_even").cast(pl.Int64)]
        case Kind.NUMBER:
            numbers = pl.Series(name, values, dtype=pl.Float64)
            return [(numbers * SCALE[field.name]).round(mode="half_to_even").cast(EVENT_SCHEMA[name])]
        case Kind.BOOLEAN:
            return [pl.Series(name, values, dtype=pl.Boolean)]
        case Kind.OBJECT:
            return [pl.Series(name, [None if v is NO_SKETCH else bytes(v) for v in values], dtype=pl.Binary)]
        case Kind.INTEGER if field.name == "seed":
            return [pl.Series(name, [None if v is None else True for v in values], dtype=pl.Boolean)]
        case Kind.INTEGER:
            dtype = pl.Int64() if field.client_chosen else EVENT_SCHEMA[name]
            return [pl.Series(name, values, dtype=dtype)]
        case Kind.STRINGS if field.name == "moderation":
            return [pl.Series(name, list(map(moderated, values)), dtype=pl.Boolean)]
        case Kind.STRINGS:
            # pl.Series takes 4.6 us for a row of strings, Arrow 0.3.
            lists = pl.Series(name, pa.array(values, pa.large_list(pa.large_string())))
            if "n_tools" not in field.columns:
                return [lists]
            return [lists, lists.list.len().cast(EVENT_SCHEMA["n_tools"]).alias("n_tools")]
        case _:
            return [pl.Series(name, values, dtype=pl.String)]


def moderated(entries: list[str] | None) -> bool | None:
    """Whether an action of ``category:action`` did not let the request through; null for null."""
    if entries is None:
        return None
    return any(entry.rpartition(":")[2].strip().lower() not in PASSED for entry in entries)


def available_fields(frame: pl.DataFrame) -> frozenset[str]:
    """Contract fields of which ``frame`` (decoded, or after the sketch step) knows at least one value.

    A detector whose needs are not among them is inactive. After the sketch step the first of a field's columns tells:
    the others may be made of several fields. ``sketch`` counts as the texts it was made of after
    the sketch step; in the decoded frame it is itself. ``completed_at`` counts where event time is not ``ts``.
    ``corpora`` is no field: it is there where prompts were looked up in known corpora.
    """
    known = {c for c in frame.columns if frame.get_column(c).null_count() < frame.height}
    found = {f.name for f in FIELDS.values() if known.intersection((*f.columns, *f.event_columns[:1]))}
    if "completed_at" in found and not (frame.get_column("t_ms") != frame.get_column("ts_ms")).any():
        found.remove("completed_at")
    found |= {"corpora"} if "corpus" in known else set()
    return frozenset(found)
