"""The spool: nothing acknowledged is lost, whatever is cut, full or removed; offsets go on."""

from __future__ import annotations

import os
import threading

import pytest

from monitor.errors import BadInput, DependencyDown, SinkBusy
from monitor.source.spool import Layout, Row, SpoolWriter, frame, frames
from monitor.source.spool_source import SpoolSource

ROOM = 1 << 30


def rows(first: int, count: int) -> list[Row]:
    return [Row(f"acc-{n % 7}", 1_700_000_000_000 + n, b"value %d" % n) for n in range(first, first + count)]


def fill(writer):
    for start in range(0, 1_000, 10):
        writer.append(rows(start, 10))


def read_all(root, partitions=2, commit=False):
    source = SpoolSource(root, partitions)
    try:
        found = []
        while len(batch := source.poll(97, 0.0)):
            found += zip(batch.partition.tolist(), batch.offset.tolist(), batch.values, strict=True)
            if commit:
                source.commit(batch.next_offsets)
        return found
    finally:
        source.close()


def test_what_was_appended_is_read_in_order_with_its_arrival_time(tmp_path):
    writer = SpoolWriter(tmp_path, 2, ROOM, segment_bytes=500)
    for start in range(0, 300, 30):
        writer.append(rows(start, 30))
    source = SpoolSource(tmp_path, 2)
    batch = source.poll(1_000, 0.0)
    assert sorted(batch.values) == sorted(r.value for r in rows(0, 300))
    assert sorted(batch.timestamp_ms.tolist()) == [r.stamp_ms for r in rows(0, 300)]
    writer.append(rows(300, 10))
    assert len(source.poll(1_000, 0.0)) == 10, "a reader follows the writer"
    assert sum(source.lag().values()) == 0
    source.close()
    writer.close()


@pytest.mark.parametrize("cut", [1, 9, 20])
def test_a_torn_tail_is_taken_off_and_writing_goes_on(tmp_path, cut):
    writer = SpoolWriter(tmp_path, 1, ROOM)
    writer.append(rows(0, 5))
    writer.close()
    segment = Layout(tmp_path, 1).segment(0, 0)
    with segment.open("ab") as handle:
        handle.write(frame(1, b"half written")[:cut])
    writer = SpoolWriter(tmp_path, 1, ROOM)
    writer.append(rows(5, 5))
    writer.close()
    found = read_all(tmp_path, 1)
    assert [o for _, o, _ in found] == list(range(10))
    assert [v for _, _, v in found] == [r.value for r in rows(0, 10)]


def test_a_reader_sees_only_what_is_durable(tmp_path):
    writer = SpoolWriter(tmp_path, 1, ROOM)
    writer.append(rows(0, 3))
    with Layout(tmp_path, 1).segment(0, 0).open("ab") as handle:
        handle.write(frame(1, b"written but not synced"))
    assert len(read_all(tmp_path, 1)) == 3
    writer.close()


def test_offsets_go_on_past_what_was_read_even_if_it_is_gone(tmp_path):
    """A power cut may take what was never acknowledged, or a disk what was: no offset is given twice."""
    writer = SpoolWriter(tmp_path, 1, ROOM)
    writer.append(rows(0, 10))
    writer.close()
    read_all(tmp_path, 1, commit=True)
    os.truncate(Layout(tmp_path, 1).segment(0, 0), 0)
    writer = SpoolWriter(tmp_path, 1, ROOM)
    writer.append(rows(10, 5))
    writer.close()
    assert [(o, v) for _, o, v in read_all(tmp_path, 1)] == [(n, r.value) for n, r in enumerate(rows(10, 5), 10)]


def test_committed_segments_are_removed_and_reading_goes_on_from_the_commit(tmp_path):
    writer = SpoolWriter(tmp_path, 1, ROOM, segment_bytes=300)
    for start in range(0, 200, 10):
        writer.append(rows(start, 10))
    before = len(Layout(tmp_path, 1).segments(0))
    source = SpoolSource(tmp_path, 1)
    assert len(source.poll(105, 0.0)) == 105
    source.commit({0: 105})
    generation = source.generation
    source.close()
    assert 1 < len(Layout(tmp_path, 1).segments(0)) < before
    again = SpoolSource(tmp_path, 1)
    assert again.generation == generation + 1
    assert again.poll(1_000, 0.0).offset.tolist() == list(range(105, 200))
    again.close()
    writer.close()


def test_a_full_spool_is_busy_until_it_was_read(tmp_path, monkeypatch):
    monkeypatch.setattr("monitor.source.spool._SIZE_S", -1.0)
    writer = SpoolWriter(tmp_path, 1, 2_000, segment_bytes=400)
    with pytest.raises(SinkBusy, match="full"):
        fill(writer)
    taken = len(read_all(tmp_path, 1, commit=True))
    assert 10 <= taken < 100
    writer.append(rows(5_000, 10))
    assert [v for _, _, v in read_all(tmp_path, 1)] == [r.value for r in rows(5_000, 10)]
    writer.close()


def test_a_disk_that_refuses_takes_nothing_half(tmp_path, monkeypatch):
    writer = SpoolWriter(tmp_path, 2, ROOM)
    writer.append(rows(0, 20))
    real = SpoolWriter._write

    def second_fails(self, tail, made):
        real(self, tail, made[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SpoolWriter, "_write", second_fails)
    with pytest.raises(SinkBusy, match="No space"):
        writer.append(rows(20, 20))
    monkeypatch.setattr(SpoolWriter, "_write", real)
    writer.append(rows(40, 20))
    writer.close()
    assert sorted(v for _, _, v in read_all(tmp_path)) == sorted(r.value for r in [*rows(0, 20), *rows(40, 20)])


def test_many_threads_append_at_once(tmp_path):
    writer = SpoolWriter(tmp_path, 3, ROOM, segment_bytes=4_000)
    threads = [
        threading.Thread(target=lambda n=n: [writer.append(rows(n * 1_000 + i * 10, 10)) for i in range(20)])
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    found = read_all(tmp_path, 3)
    assert sorted(v for _, _, v in found) == sorted(r.value for n in range(6) for r in rows(n * 1_000, 200))
    for partition in range(3):
        assert [o for p, o, _ in found if p == partition] == list(range(sum(p == partition for p, _, _ in found)))


def test_one_writer_one_reader_one_shape(tmp_path):
    writer = SpoolWriter(tmp_path, 2, ROOM)
    with pytest.raises(DependencyDown, match="writes"):
        SpoolWriter(tmp_path, 2, ROOM)
    source = SpoolSource(tmp_path, 2)
    with pytest.raises(DependencyDown, match="reads"):
        SpoolSource(tmp_path, 2)
    with pytest.raises(BadInput, match="was made with 2"):
        SpoolSource(tmp_path, 3)
    source.close()
    writer.close()


def test_a_flipped_bit_ends_what_is_read(tmp_path):
    data = b"".join(frame(n, b"x" * 10) for n in range(3))
    assert len(frames(data)[0]) == 3
    broken = bytearray(data)
    broken[len(data) // 2] ^= 1
    assert len(frames(bytes(broken))[0]) == 1


def test_nothing_is_acknowledged_or_shown_that_was_not_synced(tmp_path, monkeypatch):
    writer = SpoolWriter(tmp_path, 1, ROOM)
    writer.append(rows(0, 3))
    monkeypatch.setattr("monitor.source.spool.os.fsync", lambda handle: (_ for _ in ()).throw(OSError(5, "I/O error")))
    with pytest.raises(SinkBusy, match="durable"):
        writer.append(rows(3, 3))
    monkeypatch.undo()
    assert len(read_all(tmp_path, 1)) == 3
    writer.append(rows(6, 1))
    assert len(read_all(tmp_path, 1)) == 7, "what waited is synced with the next, and may be a duplicate by then"
    writer.close()
