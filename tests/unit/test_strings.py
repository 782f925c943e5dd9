"""Strings as numbers: the same whatever else is in the batch."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.features.strings import coded, hashed, stable_hash

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


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 64, 127, 128, 129, 255, 256, 257, 1000])
def test_strings_of_any_length_are_hashed_as_hashlib_does(size: int) -> None:
    texts = ["".join(chr(33 + (7 * i + shift) % 90) for i in range(size)) for shift in (0, 3)]
    codes = np.arange(2, dtype=np.int32)
    assert stable_hash(pl.Series(texts)).to_list() == hashed(codes, texts).to_list() == [*map(_blake2b, texts)]


def _blake2b(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
