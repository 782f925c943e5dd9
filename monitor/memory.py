"""How the C library hands memory back, and what Python's collector need not look at. Knows no step.

By default glibc keeps an arena a thread, and after the first large array is freed takes the next ones, up to 32 MB,
from there: they end up between small objects that live on. A million requests of 66,000 accounts then stand at
2.4 GB, with these settings at 1.7 GB, for the same processor time.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress
from typing import Final

_SETTINGS: Final = {
    "MALLOC_ARENA_MAX": (-8, 2), "MALLOC_MMAP_THRESHOLD_": (-3, 1 << 20), "MALLOC_TRIM_THRESHOLD_": (-1, 32 << 20),
}  # fmt: skip
"""mallopt(3), by the variable that says otherwise: arenas; bytes from which an array is memory of its own, which goes
back when it is freed; free bytes at the end of the heap that go back."""


def settle() -> bool:
    """Apply the settings to this process, where its C library is glibc; whether they were taken. Harmless twice.

    What the environment says itself is left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        taken = [mallopt(*setting) == 1 for name, setting in _SETTINGS.items() if name not in os.environ]
        return all(taken)
    return False


_THRESHOLDS: Final = 50_000, 20, 50
_aside = False


def set_aside() -> None:
    """Take what there is now out of the sight of Python's cyclic collector, and have it look less often; once a
    process, a second call does nothing.

    Modules, classes and plans live as long as the process, and each full collection walked all of them: 2 of 83 us of
    processor time a request. A batch makes some hundred thousand lists and tuples that end with it: by Python's own
    thresholds (700, 10, 10) the collector took 14 % of the time of requests without text, with these 2 %.
    """
    global _aside
    if not _aside:
        _aside = True
        gc.collect()  # or garbage of the start would stay for good
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)
