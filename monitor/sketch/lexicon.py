"""Word lists and phrase lists (``words.toml``, ``phrases.toml``) as one hash table for a key. Knows no request.

A phrase is looked up by the keyed hashes of its words, in the same pass that makes every other sketch, so the tables
are made once for each key. A pattern holds alternatives in brackets, ``(show|print) (all |)steps``; it stands for
each combination.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from monitor.jit import njit
from monitor.siphash import ONE, ZERO, U8Array, U64Array

from .scan import CACHE, COUNTS, I64Array, scan_rows
from .shape import (
    ASK,
    ASK_FIRST,
    COMMAND,
    COMMAND_FIRST,
    FIRST,
    FIRST_BITS,
    HAS_MORE,
    LATER_BITS,
    MAX_PHRASE,
    POLITE,
    SECOND,
    STOP,
    I32Array,
    chain,
    first_bit,
    later_bit,
)  # fmt: skip
from .vocabulary import LEXICON_FLAGS

_KINDS: Final[Mapping[str, int]] = {
    "stop": STOP, "first": FIRST, "second": SECOND, "polite": POLITE, "ask_first": ASK_FIRST, "ask": ASK,
    "command_first": COMMAND_FIRST, "command": COMMAND,
}  # fmt: skip
_GROUP = re.compile(r"\(([^()]*)\)")
MAX_COMBINATIONS: Final = 5_000


@dataclass(frozen=True)
class Tables:
    """What ``shape.match`` reads, for one key. ``table`` alternates keys and values; a value is the lexicon's flags
    (32 bits), the entry's number (16 bits, 0: none) and whether a longer phrase begins so.
    """

    begins: U64Array
    table: U64Array
    entry_at: I32Array
    entry_language: U8Array
    entry_kinds: U8Array
    languages: int


def expand(pattern: str) -> Iterator[str]:
    """Every phrase that a pattern stands for.

    >>> list(expand("(all |)steps of (it|them)"))
    ['all steps of it', 'all steps of them', 'steps of it', 'steps of them']
    """
    parts = _GROUP.split(pattern)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_COMBINATIONS or "(" in "".join(parts[::2]) or ")" in "".join(parts[::2]):
        raise ValueError(f"pattern {pattern!r}: nested brackets, or more than {MAX_COMBINATIONS} combinations")
    for combination in itertools.product(*choices):
        yield " ".join("".join(combination).split())


@lru_cache(maxsize=1)
def phrases() -> tuple[dict[str, tuple[int, tuple[tuple[int, int], ...]]], tuple[str, ...]]:
    """Each phrase with the lexicon's flags and its (language, kinds); and the codes of the languages."""
    words, lists = _load("words.toml"), _load("phrases.toml")
    flags: dict[str, int] = {}
    kinds: dict[str, dict[int, int]] = {}
    for number, language in enumerate(words["language"]):
        for kind, entries in language.items():
            if kind != "code":
                for entry in entries:
                    for phrase in expand(entry):
                        found = kinds.setdefault(phrase.lower(), {})
                        found[number] = found.get(number, 0) | _KINDS[kind]
    for flag, languages in lists.items():
        bit = 1 << LEXICON_FLAGS.index(flag)
        for entries in languages.values():
            for entry in entries:
                for phrase in expand(entry):
                    flags[phrase.lower()] = flags.get(phrase.lower(), 0) | bit
    every = sorted(flags.keys() | kinds.keys())
    return (
        {p: (flags.get(p, 0), tuple(sorted(kinds.get(p, {}).items()))) for p in every},
        tuple(language["code"] for language in words["language"]),
    )


def _load(name: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def build(keys: U64Array, more: Mapping[str, int] = MappingProxyType({})) -> Tables:
    """The tables under the derived ``keys`` of one key (about 60 ms); ``more`` phrases with their bits are added."""
    own, languages = phrases()
    none: tuple[int, tuple[tuple[int, int], ...]] = (0, ())
    listed = {p: (own.get(p, none)[0] | more.get(p, 0), own.get(p, none)[1]) for p in sorted(own.keys() | more.keys())}
    values: dict[int, int] = {}
    entries: list[tuple[tuple[int, int], ...]] = [()]
    numbers: dict[tuple[tuple[int, int], ...], int] = {(): 0}
    begins = np.zeros((FIRST_BITS + LATER_BITS) // 64, np.uint64)
    made, sizes = _states(list(listed), keys)
    begin_bits(made, sizes, begins)
    states, lengths = made.tolist(), sizes.tolist()
    at = 0
    for (flags, kinds), length in zip(listed.values(), lengths, strict=True):
        steps, at = states[at : at + length], at + length
        if kinds not in numbers:
            numbers[kinds] = len(entries)
            entries.append(kinds)
        for state in steps[:-1]:
            values[state] = values.get(state, 0) | int(HAS_MORE)
        last = values.get(steps[-1], 0)
        # two spellings may fold to one phrase; then the first entry stays and the flags add up
        number = numbers[kinds] if not last >> 32 & 0xFFFF else last >> 32 & 0xFFFF
        values[steps[-1]] = last & ~(0xFFFF << 32) | flags | number << 32
    size = 1 << (len(values) * 3 // 2).bit_length()  # at most two thirds full: the smaller, the more of it is cached
    slots: list[int] = [0] * (2 * size)
    for state, value in values.items():
        place = (state >> 33) & (size - 1)
        while slots[2 * place]:
            place = (place + 1) & (size - 1)
        slots[2 * place], slots[2 * place + 1] = state, value
    flat = [pair for entry in entries for pair in entry]
    return Tables(
        begins,
        np.array(slots, np.uint64),
        np.cumsum([0, *(len(entry) for entry in entries)], dtype=np.int32),
        np.array([language for language, _ in flat] or [0], np.uint8),
        np.array([kind for _, kind in flat] or [0], np.uint8),
        len(languages),
    )


def _states(texts: list[str], keys: U64Array) -> tuple[U64Array, I64Array]:
    """For all phrases in a row, the chained hash after each word; and how many words each has."""
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(bytearray().join(encoded), np.uint8)
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    n, room = len(texts), len(data) + 4 * len(texts)
    hashes, other = np.empty(room, np.uint64), np.empty(room, np.uint64)
    flags, more_flags = np.empty(room, np.uint8), np.empty(room, np.uint8)
    span, more_span, w_at, m_at = (np.zeros(size, np.int64) for size in (room, room, n + 1, n + 1))
    counts, cache = np.zeros((n, COUNTS), np.int64), np.zeros(CACHE, np.uint64)
    scan_rows(
        data, offsets, np.ones(n, np.uint8), keys, hashes, flags, span, w_at, other, more_flags, more_span, m_at,
        counts, cache,
    )  # fmt: skip
    states = np.empty(w_at[-1], np.uint64)
    chain_rows(hashes, w_at, keys, states)
    lengths = np.diff(w_at)
    for text, length in zip(texts, lengths.tolist(), strict=True):
        if not 1 <= length <= MAX_PHRASE:
            raise ValueError(
                f"phrase {text!r} has {length} words (or characters that stand alone), not 1 to {MAX_PHRASE}"
            )
    return states, lengths


@njit
def chain_rows(hashes: U64Array, at: I64Array, keys: U64Array, states: U64Array) -> None:
    """The chained hash at each word of each row."""
    for r in range(len(at) - 1):
        state = ZERO
        for i in range(at[r], at[r + 1]):
            state = chain(state, hashes[i], keys)
            states[i] = state


@njit
def begin_bits(states: U64Array, lengths: I64Array, begins: U64Array) -> None:
    """Set the bits of every phrase's beginnings, which ``shape.match`` asks before it looks one up."""
    at = 0
    for length in lengths:
        for k in range(length):
            bit = first_bit(states[at]) if k == 0 else later_bit(states[at])
            begins[bit >> 6] |= ONE << np.uint64(bit & 63)
            at += 1
