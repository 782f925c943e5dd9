"""Jobs in processes of this machine.

Each is started anew, never forked: threads of Polars and of ours live in the caller, and a fork would copy their locks.
A process that dies in a job (out of memory, say) costs what the job had done: it is done again, alone.
"""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from typing import Any

from monitor.errors import WorkerLost

from . import Job, Result
from .worker import DONE, FAILED, serve

_LOG = logging.getLogger(__name__)
_ENV = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""A process has one processor: threads beyond it would only take turns. What the environment says itself stands."""
_END_S = 5.0
"""For a process to end by itself, or on SIGTERM, before it is killed."""


def processors() -> int:
    """How many processors this process may use, 1 or more."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class Processes:
    """``count`` processes (None: one for each processor), that live as long as a call of :meth:`stream` or :meth:`run`.

    A job whose process dies is done again once no other runs: what memory there is is then its own. Raises WorkerLost
    where it dies again, and what a job raises. Whoever stops taking results, by Ctrl-C say, ends all processes; they
    end by themselves where the caller was killed.
    """

    jobs_a_slot = 1

    def __init__(self, count: int | None = None):
        self._count = count or processors()

    def slots(self) -> int:
        """See :class:`monitor.engines.Engine`."""
        return self._count

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """See :class:`monitor.engines.Engine`."""
        early: dict[int, Result] = {}
        taken = 0
        with closing(self.stream(partial(_only, function), jobs)) as results:
            for number, result in results:
                early[number] = result
                while taken in early:
                    yield early.pop(taken)
                    taken += 1

    def stream(
        self, function: Callable[[Job], Iterable[Result]], jobs: Sequence[Job]
    ) -> Generator[tuple[int, Result], None, None]:
        """See :class:`monitor.engines.Engine`."""
        fresh, lost, again = deque(range(len(jobs))), deque[int](), set[int]()
        given = [0] * len(jobs)
        busy: dict[Connection, _Worker] = {}
        try:
            while fresh or lost or busy:
                while fresh and len(busy) < self._count:
                    _begin(busy, _Worker(), fresh.popleft(), function, jobs, given)
                if not busy:
                    _begin(busy, _Worker(), lost.popleft(), function, jobs, given)
                for pipe in connection.wait([*busy]):
                    assert isinstance(pipe, Connection)
                    worker = busy[pipe]
                    number = worker.number
                    try:
                        kind, value = pipe.recv()
                    except (EOFError, OSError):
                        busy.pop(pipe)
                        how = worker.died()
                        if number in again:
                            raise WorkerLost(_LOST.format(how, self._count)) from None
                        again.add(number)
                        lost.append(number)
                        _LOG.warning("%s: its work is done again%s", how, " once the others are done" if busy else "")
                        continue
                    if kind == FAILED:
                        raise value
                    if kind == DONE:
                        busy.pop(pipe)
                        if fresh:
                            _begin(busy, worker, fresh.popleft(), function, jobs, given)
                        else:
                            worker.end()
                        continue
                    given[number] += 1
                    yield number, value
        finally:
            for worker in busy.values():
                worker.process.terminate()
            for worker in busy.values():
                worker.end()


_LOST = (
    "{0}, the second time at the same work. If memory ran short (the kernel's log says so), run fewer beside each other"
    " than the {1} here: --engine processes:N; or on more partitions, each of which then holds less: --partitions"
)


def _only(function: Callable[[Job], Result], job: Job) -> tuple[Result]:
    return (function(job),)


def _begin(
    busy: dict[Connection, _Worker], worker: _Worker, number: int, function: Callable[[Any], Any], jobs: Sequence[Any],
    given: Sequence[int],
) -> None:  # fmt: skip
    """Hand a job over; what it gave already is not given twice."""
    busy[worker.pipe] = worker
    worker.number = number
    with suppress(BrokenPipeError, ConnectionResetError):  # it died: what is read of it next says so
        worker.pipe.send((function, jobs[number], given[number]))


class _Worker:
    """A process that waits for jobs, and the job that it has."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.pipe, its = context.Pipe()
        self.number = -1
        self.process = context.Process(target=serve, args=(its,), name="engine", daemon=True)
        with _environment():
            self.process.start()
        its.close()  # its end is its own: where it dies, ours says so

    def end(self) -> None:
        """No more jobs; and it is gone."""
        self.pipe.close()
        self.process.join(_END_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()

    def died(self) -> str:
        """How, in words."""
        self.end()
        code = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return f"process {self.process.pid} of the engine {how}"


@contextmanager
def _environment() -> Iterator[None]:
    """What a process reads when it starts, so before any code of ours there could set it."""
    ours = {name: value for name, value in _ENV.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
