"""monitor.jit: kernels compile whatever the disk allows, and a warm-up runs each once."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
import pytest

from monitor import jit

REPO = Path(jit.__file__).parents[1]

KERNEL = """
    import sys
    sys.modules["polars"] = None
    from monitor.jit import CACHE_DIR, njit

    @njit
    def double(x: int) -> int:
        return 2 * x

    print(double(21), CACHE_DIR)
"""


def run(tmp_path: Path, **env: str) -> str:
    script = tmp_path / "kernel.py"
    script.write_text(textwrap.dedent(KERNEL))
    base = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
    base |= {"PYTHONPATH": str(REPO), "HOME": str(tmp_path / "home"), **env}
    done = subprocess.run([sys.executable, str(script)], env=base, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_cache_goes_to_the_users_directory_named_by_the_sources_digest(tmp_path: Path) -> None:
    answer, cache = run(tmp_path).split(" ", 1)
    assert answer == "42"
    assert Path(cache).parent == tmp_path / "home/.cache/api-abuse-monitor/numba"
    assert list(Path(cache).rglob("*.nbi")), "the compiled kernel was not written"


def test_given_directory_is_respected(tmp_path: Path) -> None:
    _, cache = run(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "given")).split(" ", 1)
    assert Path(cache).parent == tmp_path / "given/api-abuse-monitor"
    assert not (tmp_path / "home").exists()


def test_no_writable_directory_still_compiles(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert run(tmp_path, NUMBA_CACHE_DIR=str(blocker / "below")) == "42 None"


def test_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    assert jit._usable(shared, False) is (not shared.stat().st_mode & 0o022)
    shared.chmod(0o777)
    assert not jit._usable(shared, False)
    assert jit._usable(shared, True), "a person chose it"


def test_digest_follows_files_that_define_kernels_only(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("from monitor.jit import njit\n")
    (tmp_path / "other.py").write_text("x = 1\n")
    first = jit._sources_digest(tmp_path)
    (tmp_path / "other.py").write_text("x = 2\n")
    assert jit._sources_digest(tmp_path) == first
    (tmp_path / "kernel.py").write_text("from monitor.jit import njit  # changed\n")
    assert jit._sources_digest(tmp_path) != first


def test_old_caches_are_pruned_but_never_the_current_one(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i:02}").mkdir()
        (tmp_path / f"{i:02}" / "leaf").write_text("x")
        os.utime(tmp_path / f"{i:02}", (i, i))
    jit._prune(tmp_path, tmp_path / "00")
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"00"} | {f"{i:02}" for i in range(4, 12)}


def test_warm_all_runs_each_function_once_from_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_warmups", {})
    monkeypatch.setattr(jit, "_done", set())
    ran: list[int] = []

    @jit.warmup
    def mine() -> None:
        ran.append(1)

    threads = [threading.Thread(target=jit.warm_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ran == [1]
    assert jit.warm_all() == ()
    assert mine.__name__ == "mine"


def test_njit_keeps_other_runtime_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> object:
        raise RuntimeError("something else")

    monkeypatch.setattr(jit.numba, "njit", broken)
    with pytest.raises(RuntimeError, match="something else"):
        jit.njit(lambda x: x)


def kernels() -> dict[tuple[str, str], ast.FunctionDef]:
    """Every kernel of the package, by module and name."""
    found = {}
    for path in sorted((REPO / "monitor").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any("njit" in ast.unparse(d) for d in node.decorator_list):
                found[str(path), node.name] = node
    return found


def returns_arrays(kernel: ast.FunctionDef) -> bool:
    """By its annotation: every array type here is named like ``I64``, ``U8Array`` or ``npt.NDArray[...]``."""
    told = ast.unparse(kernel.returns) if kernel.returns is not None else ""
    return bool(re.search(r"NDArray|\b[UIF]\d+(Array)?\b", told))


def test_only_kernels_that_count_references_return_arrays_or_are_given_any() -> None:
    """Without counts an array that a kernel returns belongs to nobody, and one that it is given back is never freed."""
    found = kernels()
    counting = {at for at, k in found.items() if any("makes_arrays" in ast.unparse(d) for d in k.decorator_list)}
    made = {at for at, k in found.items() if returns_arrays(k)}
    assert {"_numbered", "gather", "_longer"} <= {name for _, name in made}
    for (module, name), kernel in found.items():
        called = {c.func.id for c in ast.walk(kernel) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)}
        given = any(n in called and (m == module or (module, n) not in found) for m, n in made)
        assert (module, name) in counting or not (returns_arrays(kernel) or given), (module, name)
    assert len(counting) < len(found) / 4


def test_a_kernel_that_makes_an_array_must_say_so() -> None:
    def ones(n: int) -> npt.NDArray[np.float64]:
        return np.ones(n)

    def twos(n: int) -> npt.NDArray[np.float64]:
        return np.full(n, 2.0)

    assert jit.njit(makes_arrays=True)(ones)(3).tolist() == [1.0, 1.0, 1.0]
    # another function: the cache on disk knows a kernel by its code, and would give the one above
    with pytest.raises(numba.TypingError):
        jit.njit(twos)(3)
