"""Compiled kernels: numba's ``njit`` with a cache that is always safe to use. Knows nothing of what a kernel does.

Two hazards of ``numba.njit(cache=True)`` are handled here, once:

* On a read-only root without a home directory numba raises "no locator available" at import. Here the cache is a
  directory of the user's own; where none can be written, kernels compile in memory and nothing fails.
* numba invalidates a cached kernel by its own file only: a kernel that calls a kernel of another file keeps the
  old callee after an upgrade. Here the directory's name carries a digest of every file of this package that
  imports this module, so a change in any of them starts a fresh cache.

A cached kernel is loaded by unpickling, so a cache directory that another user could write is never used.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast, overload

import numba
import numpy as np
import numpy.typing as npt

_F = TypeVar("_F", bound=Callable[..., Any])
_Number = TypeVar("_Number", bound=np.generic)
_APP: Final = "api-abuse-monitor"
_KEPT_CACHES: Final = 8  # old digests left beside the current one; a cache of all kernels is about 5 MB


def _sources_digest(root: Path) -> str:
    """A digest of the files below ``root`` that define kernels (those that name this module), 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        body = path.read_bytes()
        if b"monitor.jit" in body or path.name == "jit.py":
            digest.update(str(path.relative_to(root)).encode() + b"\0" + body + b"\0")
    return digest.hexdigest()


def _candidates() -> Iterator[tuple[Path, bool]]:
    """Directories to try, and whether each was chosen by a person (and is theirs to keep safe)."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(given) / _APP, True
        return
    if base := os.environ.get("XDG_CACHE_HOME"):
        yield Path(base) / _APP / "numba", False
    with suppress(RuntimeError):  # no home directory
        yield Path.home() / ".cache" / _APP / "numba", False
    user = os.getuid() if hasattr(os, "getuid") else 0
    yield Path(tempfile.gettempdir()) / f"{_APP}-{user}" / "numba", False


def _usable(path: Path, chosen: bool) -> bool:
    """Make ``path``; true if this process can write there and, unless a person chose it, no other user can."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in () if chosen else (path, path.parent):
            info = part.lstat()
            if not stat.S_ISDIR(info.st_mode):
                return False
            if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & 0o022):
                return False
        probe = path / f".probe-{os.getpid()}-{threading.get_ident()}"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _prune(parent: Path, keep: Path) -> None:
    """Leave the newest caches of earlier versions, so that a directory that is never cleaned stays small."""
    with suppress(OSError):
        old = sorted((p for p in parent.iterdir() if p.is_dir() and p != keep), key=lambda p: p.stat().st_mtime)
        for stale in old[:-_KEPT_CACHES]:
            for leaf in sorted(stale.rglob("*"), reverse=True):
                leaf.rmdir() if leaf.is_dir() else leaf.unlink()
            stale.rmdir()


def _choose_cache() -> Path | None:
    digest = _sources_digest(Path(__file__).parent)
    for parent, chosen in _candidates():
        if _usable(parent, chosen) and _usable(parent / digest, chosen):
            _prune(parent, parent / digest)
            return parent / digest
    return None


CACHE_DIR: Final[Path | None] = _choose_cache()
"""Where compiled kernels are kept (below ``NUMBA_CACHE_DIR`` where that is set); None: each process compiles anew."""

if CACHE_DIR is not None:
    # Set on numba itself, not in the environment: a child process would nest its directory below ours.
    vars(numba.config)["CACHE_DIR"] = str(CACHE_DIR)


@overload
def njit(function: _F, /) -> _F: ...
@overload
def njit(
    *, makes_arrays: bool = ..., inline: str = ..., boundscheck: bool | None = ..., error_model: str = ...
) -> Callable[[_F], _F]: ...
def njit(
    function: _F | None = None, /, *, makes_arrays: bool = False, inline: str = "never",
    boundscheck: bool | None = None, error_model: str = "numpy",
) -> _F | Callable[[_F], _F]:  # fmt: skip
    """``numba.njit`` with the GIL released and the cache where it can be written; keeps the function's type.

    ``makes_arrays``: it makes arrays or returns any. All others count no references: whoever calls them from Python
    holds their arrays, and to pass a hundred on to another kernel would take two hundred locked instructions. Without
    it a kernel that makes an array does not compile, and one that returns its argument would return what nobody holds.

    ``error_model`` is numpy's (x / 0 is inf, x // 0 is 0: kernels test their divisors), which lets loops vectorise.
    There is no ``fastmath`` and no ``parallel`` here on purpose: both let the order of a float sum vary.
    """

    def wrap(fn: _F) -> _F:
        options: dict[str, Any] = {"nogil": True, "inline": inline, "error_model": error_model, "_nrt": makes_arrays}
        if boundscheck is not None:
            options["boundscheck"] = boundscheck
        try:
            return cast(_F, numba.njit(cache=CACHE_DIR is not None, **options)(fn))
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            return cast(_F, numba.njit(cache=False, **options)(fn))

    return wrap if function is None else wrap(function)


def sealed(array: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """A contiguous view that can't be written: a kernel that only reads is compiled once, whoever made the array."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


_warmups: dict[str, Callable[[], None]] = {}
_done: set[str] = set()
_lock = threading.Lock()


def warmup(function: Callable[[], None]) -> Callable[[], None]:
    """Register a function that calls each kernel of its module once, on tiny inputs of the real types."""
    _warmups[f"{function.__module__}.{function.__qualname__}"] = function
    return function


def warm_all(*, backwards: bool = False) -> tuple[str, ...]:
    """Compile (or load from the cache) every kernel of the modules imported so far; the names run by this call.

    ``backwards``: the last first, for two processes that share one cache and the work.

    Safe from any thread: a second caller waits for the first and then finds the work done. Calls of kernels in other
    threads stay correct meanwhile; they wait for numba's compiler lock only where they need a kernel not yet compiled.
    """
    ran = []
    with _lock:
        for name, function in list(_warmups.items())[:: -1 if backwards else 1]:
            if name not in _done:
                function()
                _done.add(name)
                ran.append(name)
    return tuple(ran)
