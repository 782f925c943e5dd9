"""Runs of a suite over a Ray cluster, where Ray is installed; local processes do otherwise.

Jobs go to whatever ``RAY_ADDRESS`` names, else to a cluster of this machine that lives as long as the suite. Their
folder must be one that every node sees: give ``--work`` a shared directory.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import BadInput, Problem


def ray_installed() -> bool:
    """Whether the extra `cluster` is there."""
    return importlib.util.find_spec("ray") is not None


def spread_of(asked: bool | None) -> Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]] | None:
    """How to spread runs: over Ray if ``asked``, or where it is installed if not said; None: local processes.

    Raises ``BadInput`` where Ray is asked for and absent.
    """
    if asked and not ray_installed():
        raise BadInput([Problem("arguments", 0, "--ray needs the extra: pip install 'api-abuse-monitor[cluster]'")])
    return _over_ray if (ray_installed() if asked is None else asked) else None


def _over_ray(run: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
    """``map(run, jobs)``, each job a Ray task of one CPU; results in the order of the jobs."""
    ray: Any = importlib.import_module("ray")

    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, configure_logging=False)
    try:
        task = ray.remote(num_cpus=1)(run)
        for reference in [task.remote(job) for job in jobs]:
            yield ray.get(reference)
    finally:
        if started:
            ray.shutdown()
