"""What offline work runs on: this process, several of this machine, or a Ray cluster. Knows functions and jobs,
nothing of the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from monitor.errors import BadInput, Problem

Job = TypeVar("Job")
Result = TypeVar("Result")
Spread = Callable[[Callable[[Job], Result], Sequence[Job]], Iterator[Result]]

LOCAL = "local"
_RAY = "ray"
_PROCESSES = "processes"


class Engine(Protocol):
    """Where jobs run that need nothing of each other."""

    jobs_a_slot: int
    """How many jobs a slot work is best cut into, where each costs something by itself, 1 or more."""

    def slots(self) -> int:
        """How many jobs may run at once, 1 or more; asks the cluster."""

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """``map(function, jobs)``: results in the order of the jobs. A job whose node or process dies is done again."""

    def stream(
        self, function: Callable[[Job], Iterable[Result]], jobs: Sequence[Job]
    ) -> Generator[tuple[int, Result], None, None]:
        """All that ``function`` gives of each job, with the job's number: in order for each job, at the earliest as it
        is made, at the latest when the job ends. ``function`` must give the same when it is done again: nothing comes
        twice. Close it where not all is taken."""


class Local:
    """This process, one job after the other."""

    jobs_a_slot = 1

    def slots(self) -> int:
        """See :class:`Engine`."""
        return 1

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """See :class:`Engine`."""
        return map(function, jobs)

    def stream(
        self, function: Callable[[Job], Iterable[Result]], jobs: Iterable[Job]
    ) -> Generator[tuple[int, Result], None, None]:
        """See :class:`Engine`."""
        for number, job in enumerate(jobs):
            for result in function(job):
                yield number, result


def engine_of(text: str) -> Engine:
    """``local``; ``processes``: one for each processor that this one may use, ``processes:N``: N; ``ray``: what
    ``RAY_ADDRESS`` names, else a cluster of this machine; ``ray://HOST:PORT``: the address that ``ray start --head``
    printed. Raises BadInput for anything else, and for Ray where it is not installed.
    """
    if text == LOCAL:
        return Local()
    kind, _, count = text.partition(":")
    if text == _PROCESSES or (kind == _PROCESSES and count.isdecimal() and int(count) > 0):
        from .processes import Processes

        return Processes(int(count or 0) or None)
    parts = urlsplit(text)
    if text != _RAY and (parts.scheme != _RAY or not parts.hostname or parts.path.strip("/")):
        why = f"is local, processes[:N] or ray[://HOST:PORT], not {text!r}"
        raise BadInput([Problem("arguments", 0, why, "--engine")])
    from . import over_ray

    return over_ray.Ray(parts.netloc or None)
