"""What offline work runs on: this process, or a Ray cluster. Knows functions and jobs, nothing of the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from monitor.errors import BadInput, Problem

Job = TypeVar("Job")
Result = TypeVar("Result")
Spread = Callable[[Callable[[Job], Result], Sequence[Job]], Iterator[Result]]

LOCAL = "local"
_RAY = "ray"


class Engine(Protocol):
    """Where jobs run that need nothing of each other."""

    def slots(self) -> int:
        """How many jobs may run at once, 1 or more; asks the cluster."""

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """``map(function, jobs)``: results in the order of the jobs. A job whose node dies is done again."""


class Local:
    """This process, one job after the other."""

    def slots(self) -> int:
        """See :class:`Engine`."""
        return 1

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """See :class:`Engine`."""
        return map(function, jobs)


def engine_of(text: str) -> Engine:
    """``local``; ``ray``: what ``RAY_ADDRESS`` names, else a cluster of this machine; ``ray://HOST:PORT``: the address
    that ``ray start --head`` printed. Raises BadInput for anything else, and for Ray where it is not installed.
    """
    if text == LOCAL:
        return Local()
    parts = urlsplit(text)
    if text != _RAY and (parts.scheme != _RAY or not parts.hostname or parts.path.strip("/")):
        raise BadInput([Problem("arguments", 0, f"is local, ray or ray://HOST:PORT, not {text!r}", "--engine")])
    from . import over_ray

    return over_ray.Ray(parts.netloc or None)
