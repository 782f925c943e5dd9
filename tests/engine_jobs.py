"""What jobs of the engines' tests do, in a module that another process can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from monitor.errors import BadInput, Problem


def square(number: int) -> int:
    return number * number


def slow_first(number: int) -> int:
    time.sleep(0.3 if number == 0 else 0.0)
    return number


def large(size: int) -> bytes:
    return b"x" * size


def several(job: tuple[str, int]) -> Iterator[str]:
    name, count = job
    for at in range(count):
        yield f"{name}{at}"


def bad_input(file: str) -> None:
    raise BadInput([Problem(file, 3, "is no log"), Problem(file, 1, "is no log either")])


class Odd(Exception):
    """One that no pickle brings back."""

    def __init__(self, what: str, why: str):
        super().__init__(f"{what}: {why}")


def odd(what: str) -> None:
    raise Odd(what, "because")


def dies_once(job: tuple[Path, int]) -> Iterator[int]:
    """As if memory had run out, after two of its items; done again it gives them all."""
    mark, count = job
    for at in range(count):
        if at == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield at


def dies(_: object) -> Iterator[int]:
    yield 1
    os.kill(os.getpid(), signal.SIGKILL)


def environment(name: str) -> str | None:
    return os.environ.get(name)


def tells_and_waits(file: Path) -> None:
    """Leaves its process id, and would go on for long."""
    part = file.with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.replace(file)
    time.sleep(100)
