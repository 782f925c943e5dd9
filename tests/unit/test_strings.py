"""Strings as numbers: the same whatever else is in the batch."""

from __future__ import annotations

import hashlib

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from monitor.features.strings import coded, stable_hash

TEXTS = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=40)


@given(TEXTS)
def test_each_string_has_a_number_and_null_has_none(texts: list[str | None]) -> None:
    codes, names = coded(pl.Series(texts, dtype=pl.String))
    assert [None if code < 0 else names[code] for code in codes.tolist()] == texts
    assert len(names) == len(set(names))


@given(TEXTS, st.booleans())
def test_the_hash_of_a_string_is_its_own(texts: list[str | None], in_chunks: bool) -> None:
    series = pl.Series(texts, dtype=pl.String)
    if in_chunks:
        series = pl.concat([series[:7], series[7:]], rechunk=False)
    made = stable_hash(series)
    assert made.dtype == pl.UInt64
    assert made.to_list() == [None if text is None else _blake2b(text) for text in texts]


def _blake2b(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
