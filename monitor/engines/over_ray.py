"""Jobs as tasks of a Ray cluster; the one place that imports Ray.

Whoever calls must be on a node of the cluster, and every node must have this package and see the files that a job
names, under the same paths. Ray sends usage statistics unless it is told not to; a cluster that is started here is.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from monitor.errors import BadInput, DependencyDown, Problem

from . import Job, Result

ANSWER_S = 10.0
_ENV = {"POLARS_MAX_THREADS": "1"}
"""A task has one processor: threads of Polars beyond it would only take turns."""


def installed() -> bool:
    """Whether the extra `cluster` is there."""
    return importlib.util.find_spec("ray") is not None


class Ray:
    """A cluster by the address of its head, ``HOST:PORT``; None: what ``RAY_ADDRESS`` names, else one of this machine
    that lives as long as the call. Raises BadInput where Ray is not installed."""

    jobs_a_slot = 2  # jobs are not equally long: with more than slots a slow one is waited for less

    def __init__(self, address: str | None = None):
        if not installed():
            why = "needs Ray: pip install 'api-abuse-monitor[cluster]'"
            raise BadInput([Problem("arguments", 0, why, "--engine")])
        self._address = address

    def slots(self) -> int:
        """See :class:`monitor.engines.Engine`. Raises DependencyDown where the cluster does not answer."""
        with self._joined() as ray:
            return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """See :class:`monitor.engines.Engine`: each job a task of one CPU. Raises DependencyDown."""
        with self._joined() as ray:
            task = ray.remote(num_cpus=1, runtime_env={"env_vars": _ENV})(function)
            references = [task.remote(job) for job in jobs]
            while references:
                # let go of what was taken: the cluster then needs to keep, or make again, no result that is here
                yield ray.get(references.pop(0))

    def stream(
        self, function: Callable[[Job], Iterable[Result]], jobs: Sequence[Job]
    ) -> Generator[tuple[int, Result], None, None]:
        """See :class:`monitor.engines.Engine`: what a job gives comes when it has ended."""

        def whole(job: Job) -> list[Result]:
            return list(function(job))

        for number, results in enumerate(self.run(whole, jobs)):
            for result in results:
                yield number, result

    @contextmanager
    def _joined(self) -> Iterator[Any]:
        import ray

        started = not ray.is_initialized()
        if started:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            if self._address is not None:
                _knock(self._address)
            ray.init(address=self._address, log_to_driver=False, configure_logging=False)
        try:
            yield ray
        finally:
            if started:
                ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself goes on trying for minutes, and then ends the process."""
    parts = urlsplit(f"//{address}")
    try:
        socket.create_connection((parts.hostname or "", parts.port or 6379), ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise DependencyDown(f"no Ray cluster answers at {address}: {error}") from error
