"""The alerts file: whole lines only, whatever happened to the process before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from alert_rows import an_alert

from monitor.alerts import FileSink
from monitor.records import Alert


def read(path: Path) -> list[Alert]:
    return [msgspec.json.decode(line, type=Alert) for line in path.read_bytes().splitlines()]


def test_half_a_line_of_a_crash_is_cut_off_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.ndjson"
    sink = FileSink(path)
    sink.send([an_alert(0), an_alert(1)])
    sink.close()
    with path.open("ab") as file:
        file.write(msgspec.json.encode(an_alert(2))[:40])
    again = FileSink(path)
    again.send([an_alert(1), an_alert(2)])
    again.close()
    assert read(path) == [an_alert(0), an_alert(1), an_alert(2)]
    assert "half a line" in caplog.text


def test_truncating_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    for n in range(2):
        sink = FileSink(path, append=False)
        sink.send([an_alert(0)])
        sink.close()
        assert len(read(path)) == 1, n


def test_a_strange_line_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"hello": 1}\n')
    sink = FileSink(path)
    sink.send([an_alert(0)])
    sink.close()
    assert path.read_bytes().startswith(b'{"hello": 1}\n{"schema":"alert/v1"')
    assert "not an alert" in caplog.text


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from alert_rows import an_alert
from monitor.alerts import FileSink
sink = FileSink(sys.argv[1])
print("ready", flush=True)
n = 0
while True:
    sink.send([an_alert(i) for i in range(n, n + 50)])
    sink.flush()
    n += 50
    print(n, flush=True)
"""


def test_a_writer_that_is_killed_leaves_nothing_out_and_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    acknowledged = 0
    for round_ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parents[1])], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1 + 0.05 * round_)
        os.kill(process.pid, signal.SIGKILL)
        lines = process.stdout.read().split()
        process.wait()
        acknowledged = max([acknowledged, *map(int, lines)])
    FileSink(path).close()
    found = read(path)
    assert found == [an_alert(n) for n in range(len(found))]
    assert len(found) >= acknowledged > 0
