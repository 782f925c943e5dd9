"""Whatever a run compiles was compiled by ``warm_all``: a kernel that is not stops the stream for seconds, on a first
run, in the middle of its first batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_CHILD = """
import sys
from pathlib import Path

def compiled():
    # of every kernel, come from the cache or not
    kernels = {id(k): k for m in list(sys.modules.values()) if m.__name__.startswith("monitor")
               for k in vars(m).values() if hasattr(k, "signatures")}
    return {(k.py_func.__module__ + "." + k.__name__, str(s)) for k in kernels.values() for s in k.signatures}

import monitor.live
from monitor.jit import warm_all
from monitor.offline import Detector
from monitor.settings import load_settings
from monitor.simulate.api import build, write_ndjson

folder = Path(sys.argv[1])
write_ndjson(build(("D1", "D2", "B3"), 150, 1.5, 3, heavy_cap=300.0), folder / "log.ndjson")
if sys.argv[2] == "warm":
    warm_all()
before = compiled()
(folder / "context.ndjson").touch()
Detector(load_settings(None))(folder / "log.ndjson", folder / "context.ndjson", folder / "alerts.ndjson")
print(*sorted({name for name, _ in compiled() - before}))
"""


def _late(folder: Path, mode: str) -> list[str]:
    run = [sys.executable, "-c", _CHILD, str(folder), mode]
    return subprocess.run(run, stdout=subprocess.PIPE, check=True, text=True).stdout.split("\n")[-2].split()


def test_no_kernel_is_compiled_amid_a_run(tmp_path: Path) -> None:
    assert _late(tmp_path, "warm") == []


def test_what_is_not_warmed_would_be_told(tmp_path: Path) -> None:
    late = _late(tmp_path, "cold")
    assert "monitor.features.kernel.fold" in late
    assert "monitor.sketch.prints.print_rows" in late
