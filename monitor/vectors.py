"""One request as a fixed row of bytes: what the classifier reads of it. The layout's single source of truth.

A vector is a pure function of one event after the sketch step, but for its last two bytes, which the features stage
fills from the account's own past. It holds quantised scalars only: no text, no hash, no id. Country, network, script
and the hour are left out on purpose: no score may depend on where a request comes from or on the phase of a day.

Bytes are in one of four codes, 0 to 255 each:

* ``scalar``: a shape scalar as the sketch made it; 0 without text.
* ``flag``: 0 no, 128 not known, 255 yes.
* ``log``: 0 not known, else 1 + 8 x log2(1 + value), at most 255.
* ``level``: named steps, 0 not known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

U8 = npt.NDArray[np.uint8]

SET_SIZE = 32
"""Vectors kept of an account, its last: what the classifier reads of it. 1.5 KB an account."""
POOL_SIZE = 128
"""Most vectors of a campaign's pool."""
UNKNOWN_FLAG = 128

_LEXICON: Mapping[str, tuple[str, ...]] = {
    name: (name,)
    for name in (
        "reasoning_elicitation", "step_by_step", "rubric_grading", "preference_pair", "dataset_generation",
        "rewriting", "code_request", "score_only", "multiple_choice", "wrapper",
    )
}  # fmt: skip
"""Byte -> the lexicon's flags that set it."""
FLAGS_READ = tuple(flag for flags in _LEXICON.values() for flag in flags)
"""Flags that the lexicon must have."""
_LOGS = ("input_tokens", "output_tokens", "reasoning_tokens")
_FLAGS = ("stream", "tools", "json", "capped", "follow_up", "ok", "batch")
NOVELTY, GAP = "novelty", "gap"
"""Filled from the account's past. ``novelty`` of a first turn: 64 equal to one of the account's last 32, 128 a near
repeat, 255 neither, 0 not known. ``gap``: 1 + 8 x log2(1 + ms) since the account's last request; 0 for batches."""
REPEAT_CODES = (255, 64, 128)
"""Byte of ``novelty`` for: new, equal, near."""


@dataclass(frozen=True, slots=True)
class VectorLayout:
    """Which byte is what. ``shape`` and ``lexicon`` name the sketch's scalars and flag bits, in its order."""

    shape: tuple[str, ...]
    lexicon: tuple[str, ...]

    def __post_init__(self) -> None:
        strange = set(FLAGS_READ) - set(self.lexicon)
        if strange:
            raise ValueError(f"the lexicon has no flag {', '.join(sorted(strange))}: a vector cannot hold it")

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """(name, code) of each byte."""
        return (
            *((f"shape_{name}", "scalar") for name in self.shape),
            ("text", "flag"),
            *((f"lex_{name}", "flag") for name in _LEXICON),
            *((name, "log") for name in _LOGS),
            *((name, "flag") for name in _FLAGS),
            ("temperature", "level"),
            (NOVELTY, "level"),
            (GAP, "log"),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each byte."""
        return tuple(name for name, _ in self.fields)

    @property
    def width(self) -> int:
        """Bytes of a vector."""
        return len(self.fields)

    @property
    def hash(self) -> str:
        """Hash of names, codes and order: a model that was trained on another layout is refused."""
        text = "\n".join(f"{name}|{code}" for name, code in self.fields)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def index(self, name: str) -> int:
        """Place of a byte."""
        return self.names.index(name)

    def pack(self, events: pl.DataFrame, codes: Mapping[str, int]) -> U8:
        """Vectors of events (EVENT_SCHEMA): uint8 [events, width], ``novelty`` and ``gap`` 0.

        ``codes`` gives the vocabulary's codes that matter: ``batch``, ``length``, ``json`` and ``json_schema``.
        """
        out = np.zeros((events.height, self.width), np.uint8)
        told = events["shape"].is_not_null().to_numpy()
        shapes = len(self.shape)
        if told.any():
            out[told, :shapes] = events["shape"].drop_nulls().to_numpy()
        out[:, shapes] = np.where(told, 255, UNKNOWN_FLAG)
        at = shapes + 1
        lexicon = events["lexicon"].fill_null(0).to_numpy()
        read = events["lexicon"].is_not_null().to_numpy()
        for flags in _LEXICON.values():
            mask = np.uint32(sum(1 << self.lexicon.index(flag) for flag in flags))
            out[:, at] = np.where(read, np.where(lexicon & mask, 255, 0), UNKNOWN_FLAG)
            at += 1
        rest = events.select(
            *(_log(pl.col(name)).alias(name) for name in _LOGS),
            *(_flag(condition).alias(name) for name, condition in zip(_FLAGS, _conditions(codes), strict=True)),
            _temperature().alias("temperature"),
        )
        for name in rest.columns:
            out[:, at] = rest[name].to_numpy()
            at += 1
        return out


def _conditions(codes: Mapping[str, int]) -> Sequence[pl.Expr]:
    """Of each flag, true, false or null, in the order of ``_FLAGS``."""
    status = pl.col("status")
    cut = (pl.col("output_tokens") * 50 >= pl.col("max_tokens") * 49, pl.col("finish_reason") == codes["length"])
    return (
        pl.col("stream"),
        pl.col("n_tools") > 0,
        pl.col("response_format").is_in([codes["json"], codes["json_schema"]]),
        pl.max_horizontal(cut),  # null where neither is known
        pl.coalesce(pl.col("turn_index") > 0, pl.col("n_messages") > 2),
        (status >= 200) & (status < 300),
        pl.col("delivery") == codes["batch"],
    )


def _flag(condition: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(255).when(condition.is_null()).then(UNKNOWN_FLAG).otherwise(0).cast(pl.UInt8)


def _log(tokens: pl.Expr) -> pl.Expr:
    eighths = ((tokens.clip(0, None) + 1).log(2.0) * 8).round() + 1
    return eighths.clip(0, 255).fill_null(0).cast(pl.UInt8)


def _temperature() -> pl.Expr:
    """Tenths of temperature in steps of 12, from 1; 2.0 is 241."""
    return (pl.col("temperature_milli").clip(0, 2_100) // 100 * 12 + 1).fill_null(0).cast(pl.UInt8)


def unpack(sets: pl.Series, width: int, size: int) -> tuple[U8, U8]:
    """A column of sets (Binary: up to ``size`` vectors one after the other) as events uint8 [n, size, width] and mask
    uint8 [n, size]. No set may be null."""
    held = sets.to_arrow().cast(pa.large_binary())
    offsets = np.frombuffer(held.buffers()[1], np.int64)[held.offset : held.offset + len(held) + 1]
    data = held.buffers()[2]
    flat = np.frombuffer(data if data is not None else b"", np.uint8)[offsets[0] : offsets[-1]].reshape(-1, width)
    counts = np.diff(offsets) // width
    if (counts == size).all():  # not copied
        return flat.reshape(-1, size, width), np.ones((len(sets), size), np.uint8)
    held_at = np.arange(size) < counts[:, None]
    events = np.zeros(held_at.size, np.dtype((np.void, width)))  # a vector as one item: copied at once
    events[held_at.ravel()] = flat.view(events.dtype).ravel()
    return events.view(np.uint8).reshape(len(sets), size, width), held_at.view(np.uint8)
