"""Classes of ASCII counted by the word, against a count of one byte after another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.sketch import scan
from monitor.sketch.classes import count_ascii
from monitor.sketch.codepoints import ASCII_CLASS, LATIN

BY_CLASS = (
    (scan.LETTERS, scan.SCRIPT0 + LATIN), (scan.LETTERS, scan.SCRIPT0 + LATIN, scan.UPPER), (scan.DIGITS,),
    (scan.SPACES,), (scan.NEWLINES,), (scan.PUNCTS,), (scan.CODES,), (),
)  # fmt: skip


def slowly(data: bytes) -> list[int]:
    count = [0] * scan.COUNTS
    for byte in data:
        count[scan.CHARS] += byte & 0xC0 != 0x80
        count[scan.NON_ASCII] += byte >= 0xC0
        for place in BY_CLASS[ASCII_CLASS[byte]] if byte < 0x80 else ():
            count[place] += 1
    return count


def counted(data: bytes, begin: int, end: int) -> list[int]:
    count = np.zeros(scan.COUNTS, np.int64)
    room = np.full(8, 0x41, np.uint8)
    count_ascii(np.frombuffer(bytearray(data) or bytearray(1), np.uint8), begin, end, count, room)
    return [int(n) for n in count]


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_at_each_place_of_a_word(byte: int) -> None:
    for before in range(8):
        data = b"a" * before + bytes([byte]) + b"0" * (7 - before)
        assert counted(data, 0, 8) == slowly(data)


@given(st.binary(max_size=200), st.integers(0, 20), st.integers(0, 20))
@example(b"", 0, 0)
@example(b"\xff" * 9 + "é€".encode(), 1, 2)
def test_any_bytes_from_anywhere_to_anywhere(data: bytes, begin: int, less: int) -> None:
    begin = min(begin, len(data))
    end = max(begin, len(data) - less)
    assert counted(data, begin, end) == slowly(data[begin:end])


@pytest.mark.parametrize("byte", [b"a", b"Z", b" ", b"\n", b"~", b".", b"\x00", b"\xc3", b"\x80"])
def test_more_of_one_class_than_a_byte_counts(byte: bytes) -> None:
    data = byte * 20_011
    assert counted(data, 3, len(data)) == slowly(data[3:])
