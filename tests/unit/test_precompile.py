"""Kernels are compiled by other processes, once; the one that serves only loads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_KERNELS = """
import os
from pathlib import Path
import numpy as np
from monitor.jit import njit, warmup

@njit
def first(values):
    return values.sum()

@njit
def second(values):
    return values.sum() * 2.0

def told(name, kernel):
    # whoever had to compile, rather than load, leaves its number
    if kernel.stats.cache_misses:
        with Path(os.environ["TOLD"]).open("a") as file:
            file.write(f"{os.getpid()} {name}\\n")

@warmup
def _warm_first():
    first(np.zeros(3))
    told("first", first)

@warmup
def _warm_second():
    second(np.zeros(3))
    told("second", second)
"""
_SERVES = """
import os, sys
import kernels_of_this_test
from monitor.precompile import precompile
print(os.getpid(), precompile("kernels_of_this_test", {going_on}), kernels_of_this_test.first.signatures != [])
"""


class Place:
    def __init__(self, folder: Path):
        (folder / "kernels_of_this_test.py").write_text(_KERNELS)
        self.told = folder / "told"
        self.told.touch()
        path = os.pathsep.join([str(folder), *sys.path])
        self.environment = {**os.environ, "PYTHONPATH": path, "TOLD": str(self.told), "NUMBA_CACHE_DIR": str(folder)}

    def serve(self, going_on: str = "lambda: True") -> list[str]:
        """Own process number, whether it loaded, whether a kernel is there to be called."""
        return subprocess.run(
            [sys.executable, "-c", _SERVES.format(going_on=going_on)], env=self.environment, text=True, check=True,
            stdout=subprocess.PIPE,
        ).stdout.split()  # fmt: skip

    def compiled_by(self) -> dict[str, set[str]]:
        """Which processes compiled which kernel."""
        made: dict[str, set[str]] = {}
        for line in self.told.read_text().splitlines():
            process, name = line.split()
            made.setdefault(name, set()).add(process)
        return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_others_compile_and_the_service_loads(place: Place) -> None:
    process, loaded, there = place.serve()
    assert (loaded, there) == ("True", "True")
    compiled = place.compiled_by()
    assert set(compiled) == {"first", "second"}
    assert process not in set.union(*compiled.values())
    place.told.write_text("")
    assert place.serve()[1:] == ["True", "True"]
    assert place.compiled_by() == {}


def test_a_stop_ends_the_compilers(place: Place) -> None:
    assert place.serve("lambda: False")[1:] == ["False", "False"]


def test_where_others_fail_they_are_compiled_here(place: Place) -> None:
    source = place.told.parent / "kernels_of_this_test.py"
    source.write_text(
        "import sys\nif sys.argv[0] == '-c' and 'backwards' in ' '.join(sys.orig_argv): raise SystemExit(3)\n"
        + _KERNELS
    )
    process, loaded, there = place.serve()
    assert (loaded, there) == ("True", "True")
    assert place.compiled_by() == {"first": {process}, "second": {process}}
