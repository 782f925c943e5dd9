"""Files merged by time and spread over virtual partitions: the same stream whatever the order, the polls, the seeks."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import BadInput
from monitor.source.envelope import read_envelope
from monitor.source.files import FileSource
from monitor.source.partitioner import partition_of


def line(account, ts, n=0, **more):
    return json.dumps({"ts": ts, "account_id": account, "request_id": f"r{n}", **more}).encode()


def drain(source, size=1000):
    out = []
    while not source.finished:
        batch = source.poll(size)
        out.extend(zip(batch.partition.tolist(), batch.offset.tolist(), batch.values, strict=True))
    return out


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Three files that overlap in time, one with an absurd time in the middle and at its end of a block."""
    folder = tmp_path_factory.mktemp("logs")
    rng = random.Random(7)
    rows = sorted((1_700_000_000 + rng.random() * 5000, f"acc-{rng.randrange(60)}", n) for n in range(9000))
    shares = [[], [], []]
    for i, row in enumerate(rows):
        shares[0 if i % 3 else 1 if i < 6000 else 2].append(line(row[1], row[0], row[2]))
    shares[0][2047] = line("acc-1", 4_000_000_000, "future")
    shares[0][100] = line("acc-1", 4_000_000_000, "future too")
    shares[1][500] = line("acc-2", 0, "past")
    paths = []
    for i, share in enumerate(shares):
        path = folder / f"part-{i}.ndjson"
        path.write_bytes(b"\n".join(share) + b"\n")
        paths.append(path)
    return paths


def test_offsets_run_within_each_partition_and_partitions_are_kafkas(logs):
    rows = drain(FileSource(logs, 5))
    assert len(rows) == 9000
    for p in range(5):
        assert [o for q, o, _ in rows if q == p] == list(range(sum(q == p for q, _, _ in rows)))
    assert all(partition_of(json.loads(v)["account_id"].encode(), 5) == p for p, _, v in rows)


def test_some_partitions_alone_are_the_records_that_all_of_them_have_there(logs):
    rows = drain(FileSource(logs, 5))
    for mine in ({0, 3}, {1}, {2, 4}):
        source = FileSource(logs, 5, only=mine)
        assert source.assigned == mine
        assert drain(source, 777) == [row for row in rows if row[0] in mine]


def test_merged_by_time_and_an_absurd_time_holds_nothing_up(logs):
    times = np.array([json.loads(v)["ts"] for _, _, v in drain(FileSource(logs, 5))])
    sane = times[(times > 1_600_000_000) & (times < 2_000_000_000)]
    assert len(sane) == len(times) - 3
    assert np.max(np.maximum.accumulate(sane) - sane) == 0, "each file is in order, so the merged stream is"
    assert np.flatnonzero(times == 4_000_000_000)[-1] < len(times) - 1000, "the future record is not held to the end"


def test_any_order_of_files_gives_the_same_stream(logs):
    assert drain(FileSource(logs, 5)) == drain(FileSource(logs[::-1], 5))


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=5))
def test_how_it_is_cut_into_polls_changes_nothing(logs, sizes):
    source, rows, turn = FileSource(logs, 5), [], 0
    while not source.finished:
        batch = source.poll(sizes[turn % len(sizes)])
        turn += 1
        rows.extend(zip(batch.partition.tolist(), batch.offset.tolist(), batch.values, strict=True))
    assert rows == drain(FileSource(logs, 5))


def test_first_times_are_known_before_the_first_poll(logs):
    source = FileSource(logs, 5)
    first = min(t for t in source.starts.values() if t is not None)
    assert first == json.loads(drain(FileSource(logs, 5))[0][2])["ts"]


def test_a_damaged_file_among_others_is_a_problem_and_counts(tmp_path, logs):
    import gzip

    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(logs[0].read_bytes())[:-30_000])
    source = FileSource([cut, logs[1]], 5)
    rows = drain(source)
    assert 1000 < len(rows) < 9000
    (problem,) = source.problems
    assert problem.file == str(cut)
    source.seek(0, 0)
    drain(source)
    assert len(source.problems) == 1, "reading it again is the same problem, not another"


def test_every_bad_argument_is_named_at_once(tmp_path, logs):
    with pytest.raises(BadInput) as caught:
        FileSource([logs[0], logs[0], tmp_path / "absent", tmp_path])
    text = str(caught.value)
    assert all(word in text for word in ("twice", "absent", "directory"))
    with pytest.raises(BadInput, match="no file"):
        FileSource([])


@pytest.mark.parametrize(
    ("value", "account", "time"),
    [
        (b'{"account_id":"a","ts":5.5}', "a", 5.5),
        (b'{"account_id":"a","ts":5,"completed_at":7}', "a", 7.0),
        (b'{"account_id":"a","ts":"1970-01-01T00:01:00Z"}', "a", 60.0),
        (b'{"account_id":"a","ts":"1970-01-01T01:01:00+01:00"}', "a", 60.0),
        (b'{"account_id":"a","ts":true}', "a", None),
        (b'{"account_id":"a","ts":3,"completed_at":{}}', "a", 3.0),
        (b'{"account_id":"a","ts":"tomorrow"}', "a", None),
        (b'{"x":{"account_id":"b"},"account_id":"a","prompt":"\\"account_id\\":\\"c\\""}', "a", None),
        (b'{"account_id":"a","prompt":"\\ud800 \\\\ud800 \\ud83d\\ude00"}', "a", None),
        (b'{"account_id":"a","prompt":"\xff\xfe"}', "a", None),
        (b'{"account_id":"a\\ud800"}', "a\ufffd", None),
        (b'{"account_id":7,"ts":3}', None, 3.0),
        (b'{"account_id":"","ts":3}', None, 3.0),
        (b'{"account_id":null}', None, None),
        (b"[1]", None, None),
        (b"{", None, None),
        (b"[" * 100_000, None, None),
        (None, None, None),
    ],
)
def test_envelope_is_read_whatever_else_the_record_holds(value, account, time):
    assert read_envelope(value) == (account, time)


@given(st.binary(max_size=200))
def test_envelope_never_raises(value):
    read_envelope(value)
    read_envelope(b'{"account_id":' + value + b"}")
