"""The allocator's settings: a large array that is freed goes back to the system, whatever was freed before it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CHILD = """
import resource, sys
import numpy as np
from monitor import memory
taken = memory.settle() if sys.argv[1] == "settled" else None
# glibc raises its own threshold to the size of what is freed, 24 MB here
a = np.ones(3 << 20); del a
arrays = [np.ones(2 << 20) for _ in range(8)]
lives_on = bytearray(60_000)  # at the end of the heap: what is free below it can't be cut off
del arrays
with open("/proc/self/statm") as f:
    print(taken, int(f.read().split()[1]) * resource.getpagesize())
"""


def _standing(mode: str, **environment: str) -> tuple[str, int]:
    out = subprocess.run(
        [sys.executable, "-c", _CHILD, mode], stdout=subprocess.PIPE, check=True, env=environment, text=True
    ).stdout.split()
    return out[0], int(out[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the settings are glibc's")
def test_large_arrays_go_back_to_the_system() -> None:
    taken, settled = _standing("settled")
    assert taken == "True"
    _, as_it_comes = _standing("as it comes")
    assert settled < as_it_comes - 50_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the settings are glibc's")
def test_what_the_environment_says_is_left_alone() -> None:
    _, told = _standing("settled", MALLOC_MMAP_THRESHOLD_=str(32 << 20), MALLOC_TRIM_THRESHOLD_=str(1 << 30))
    _, settled = _standing("settled")
    assert told > settled


def test_what_is_there_is_set_aside_once_and_the_rest_is_looked_at_less_often() -> None:
    code = (
        "import gc\nfrom monitor import memory\n"
        "memory.set_aside()\nfirst = gc.get_freeze_count()\nassert first > 1_000, first\n"
        "later = [[i] for i in range(100_000)]\nmemory.set_aside()\nassert gc.get_freeze_count() <= first\n"
        "assert gc.get_threshold()[0] > 10_000\n"
        "class Ring:\n    def __init__(self):\n        self.me = self\n"
        "import weakref\nseen = [weakref.ref(Ring()) for _ in range(100_000)]\n"
        "assert sum(r() is not None for r in seen) < 100_000, 'nothing is collected any more'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
