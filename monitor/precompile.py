"""Kernels compiled before the first record, by processes that end when they are done. Knows no kernel.

Compiled amid the first batches, kernels stop a new service for a minute, which looks like a stall, and what the
compiler used (330 MB) stays with the process for good. Two processes share the work, one from either end of the list;
what is left, the service loads from the cache in a second. They write only there, so nothing is lost when they die.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from numba.core.registry import cpu_target

from monitor import jit

_LOG = logging.getLogger(__name__)
_CHILD: Final = "import {module}; from monitor.jit import warm_all; warm_all(backwards={backwards})"
_LOOK_S: Final = 0.25
_lock = threading.Lock()


def precompile(module: str, going_on: Callable[[], bool] = lambda: True, *, here: bool = False) -> bool:
    """Load every kernel of ``module`` and of what it imports, after compiling what the cache lacks; whether it did.

    ``going_on`` is asked every quarter of a second while others compile; once it says no, they are ended and nothing
    is loaded. ``here``: this process does the share of one of them, which spares its start, 5 s of 40, and keeps the
    compiler's memory. Where no cache can be written, or they fail, kernels are compiled here. Safe from any thread: a
    second caller waits for the first.
    """
    while not _lock.acquire(timeout=_LOOK_S):
        if not going_on():
            return False
    try:
        return _precompile(module, going_on, here)
    finally:
        _lock.release()


def _precompile(module: str, going_on: Callable[[], bool], here: bool) -> bool:
    mark = _mark(module)
    if mark is not None and not mark.exists():
        began = time.monotonic()
        _LOG.info("compiling kernels, once a machine and release: about a minute")
        if not _apart(module, going_on, here):
            return False
        _LOG.info("kernels compiled in %.0f s", time.monotonic() - began)
    jit.warm_all()
    if mark is not None:
        with suppress(OSError):  # next time they are only looked at again
            mark.touch()
    return True


def _mark(module: str) -> Path | None:
    """A file that says the cache has them all, for this processor and these files: numba keeps them by both."""
    if jit.CACHE_DIR is None:
        return None
    machine = f"{module} {Path(jit.__file__)} {cpu_target.target_context.codegen().magic_tuple()}"
    return jit.CACHE_DIR / f"complete-{hashlib.blake2b(machine.encode(), digest_size=8).hexdigest()}"


def _apart(module: str, going_on: Callable[[], bool], here: bool) -> bool:
    """Processes for either end of the list, or this one for the first; False when ``going_on`` said no before."""
    ends = (True,) if here else (True, False)
    children = [
        # our own interpreter; what it prints is of no use to anybody
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _CHILD.format(module=module, backwards=backwards)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for backwards in ends
    ]  # fmt: skip
    try:
        if here:
            jit.warm_all()
            return True
        while any(child.poll() is None for child in children):
            if not going_on():
                return False
            time.sleep(_LOOK_S)
    finally:
        for child in children:
            child.kill()
            child.wait()
    if any(child.returncode for child in children):
        _LOG.warning("a process that compiles kernels failed: what is missing is compiled here, which takes memory")
    return True
