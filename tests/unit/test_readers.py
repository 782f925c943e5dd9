"""Files of every kind, whole and damaged: the same values, bounded memory, and a problem that names the place."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import os
import subprocess
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import BadInput
from monitor.source.readers import CHUNK, DamagedFile, _Lines, kind_of, read_blocks

LINES = [json.dumps({"account_id": f"a{i}", "n": i, "pad": os.urandom(40).hex()}).encode() for i in range(30_000)]
TEXT = b"\n".join(LINES) + b"\n"


def read(path, max_bytes=1 << 20):
    return [v for block in read_blocks(path, max_bytes) for v in block]


def read_until_damage(path):
    values, problem = [], None
    try:
        for block in read_blocks(path, 1 << 20):
            values.extend(block)
    except DamagedFile as error:
        problem = error.problem
    assert problem is not None, "the damage was not seen"
    return values, problem


def zstd_frames(data, frames=1):
    cut = len(data) // frames + 1
    packer = zstandard.ZstdCompressor(write_checksum=True)  # without one, zstd itself can't tell damage from text
    return b"".join(packer.compress(data[i : i + cut]) for i in range(0, len(data), cut))


PACKED = {
    "plain": TEXT,
    "gzip": gzip.compress(TEXT),
    "zstd": zstd_frames(TEXT),
    "gzip of two members with zero padding": gzip.compress(TEXT[:1_000_001])
    + gzip.compress(TEXT[1_000_001:])
    + b"\0" * 512,
    "zstd of five frames": zstd_frames(TEXT, 5),
    "plain with a byte order mark and CRLF": b"\xef\xbb\xbf" + TEXT.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("packing", PACKED)
def test_every_packing_gives_the_same_lines(tmp_path, packing):
    path = tmp_path / "any.name"
    path.write_bytes(PACKED[packing])
    assert [line.rstrip(b"\r") for line in read(path)] == LINES


@pytest.mark.parametrize("packing", ["gzip", "zstd", "gzip of two members with zero padding", "zstd of five frames"])
def test_a_cut_archive_gives_whole_lines_and_names_the_place(tmp_path, packing):
    path = tmp_path / "cut"
    path.write_bytes(PACKED[packing][: len(PACKED[packing]) * 2 // 3])
    values, problem = read_until_damage(path)
    assert 1000 < len(values) < len(LINES)
    assert values == LINES[: len(values)]
    assert problem.file == str(path)
    assert problem.line == len(values) + 1
    assert "ends early" in problem.message


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_corrupt_archive_gives_what_came_before(tmp_path, packing):
    data = bytearray(PACKED[packing])
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path = tmp_path / "corrupt"
    path.write_bytes(data)
    values, problem = read_until_damage(path)
    assert values[:1000] == LINES[:1000]
    assert "corrupt" in problem.message or "ends early" in problem.message


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 40))
def test_lines_do_not_depend_on_how_the_file_is_cut_into_chunks(data, cuts, max_bytes):
    data = data.replace(b"\x07", b"\n").replace(b"\x08", b"\n")
    whole, parts = _Lines(max_bytes), _Lines(max_bytes)
    expected = [*whole.feed(data), *whole.rest()]
    found, at = [], 0
    while at < len(data):
        size = cuts[at % len(cuts)]
        found.extend(parts.feed(data[at : at + size]))
        at += size
    found.extend(parts.rest())
    plain = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert expected == [p[: max_bytes + 1] for p in plain if p[: max_bytes + 1] and not p[: max_bytes + 1].isspace()]
    if not data.startswith(b"\xef"):
        assert found == expected


def test_a_long_line_is_cut_to_what_decode_rejects(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(LINES[0] + b"\n" + b"x" * (5 * CHUNK) + b"\n" + LINES[1])
    assert [len(v) for v in read(path, 1000)] == [len(LINES[0]), 1001, len(LINES[1])]


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["gzip", "zstd", "plain"])
def test_a_bomb_of_one_endless_line_stays_in_bounded_memory(tmp_path, packing):
    path = tmp_path / "bomb"
    size = 1 << 30
    if packing == "gzip":
        with gzip.open(path, "wb", compresslevel=1) as f:
            for _ in range(size >> 20):
                f.write(bytes(1 << 20))
    elif packing == "zstd":
        with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as f:
            for _ in range(size >> 20):
                f.write(bytes(1 << 20))
    else:
        with path.open("wb") as f:
            f.truncate(size)
    code = (
        "import sys; from pathlib import Path; from monitor.source.readers import read_blocks\n"
        f"n = [len(v) for b in read_blocks(Path({str(path)!r}), 1 << 20) for v in b]\n"
        "status = open('/proc/self/status').read()\n"
        "print(n, int(status.split('VmHWM:')[1].split()[0]) // 1024)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lengths, megabytes = out.rsplit(" ", 1)
    assert lengths == f"[{(1 << 20) + 1}]"
    assert int(megabytes) < 400, "one endless line of 1 GiB must not be held"


def test_parquet_rows_become_records(tmp_path):
    path = tmp_path / "log.parquet"
    when = datetime.datetime(2026, 3, 1, 12, 0, 0, 250_000)  # noqa: DTZ001 -- a column without a zone is meant
    table = pa.table(
        {
            "ts": pa.array([when, None], pa.timestamp("ns")),
            "completed_at": pa.array([when, when], pa.timestamp("ms", tz="Europe/Paris")),
            "account_id": ["a1", "a2"],
            "cost_usd": pa.array([Decimal("0.10"), None], pa.decimal128(9, 2)),
            "temperature": [0.5, float("nan")],
            "tools": [["search"], None],
            "sketch": [{"v": 1}, None],
        }
    )
    pq.write_table(table, path)
    first, second = (json.loads(v) for v in read(path))
    assert datetime.datetime.fromisoformat(first["ts"]) == when.replace(tzinfo=datetime.UTC)
    assert datetime.datetime.fromisoformat(second["completed_at"]) == when.replace(tzinfo=datetime.UTC)
    assert first["cost_usd"] == 0.1
    assert first["tools"] == ["search"]
    assert first["sketch"] == {"v": 1}
    assert "ts" not in second, "null is absent"


def test_a_cut_parquet_file_is_a_problem(tmp_path):
    whole = io.BytesIO()
    pq.write_table(pa.table({"account_id": [f"a{i}" for i in range(1000)]}), whole)
    path = tmp_path / "cut.parquet"
    path.write_bytes(whole.getvalue()[:-40])
    values, problem = read_until_damage(path)
    assert values == []
    assert "no whole Parquet file" in problem.message


def test_what_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        kind_of(tmp_path / "absent")
    with pytest.raises(BadInput, match="directory"):
        kind_of(tmp_path)
