"""Errors a person or an operator meets, each of which says what to do next. Imports no sibling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class MonitorError(Exception):
    """Base of everything this project raises on purpose. ``exit_code`` is what the command returns."""

    exit_code = 1
    redis_use: str | None = None
    """What Redis was asked for where it was Redis that failed: a metric's label."""


_LONGEST = 1_000
"""Characters of a message that are said: some quote what the file holds, which may be anything."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a file that a person wrote: where, what, and the remedy."""

    file: str
    line: int
    message: str
    field: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        said = self.message if len(self.message) <= _LONGEST else f"{self.message[:_LONGEST]} ..."
        field = self.field[:_LONGEST] if self.field else ""
        return f"{place}: {field + ': ' if field else ''}{said}"


class BadInput(MonitorError):
    """Settings, rules, arguments or files that cannot be used: all problems at once."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(p) for p in self.problems))

    def __reduce__(self) -> tuple[type[BadInput], tuple[tuple[Problem, ...]]]:
        # an exception is pickled by its message, and would come back from another process with a problem a letter
        return type(self), (self.problems,)


class NothingReadable(MonitorError):
    """No record of the input could be read."""

    exit_code = 3


class DependencyDown(MonitorError):
    """A server that was needed did not answer in the time allowed."""

    exit_code = 3


class WorkerLost(MonitorError):
    """A process that worked for this one died, and so did the one that did its work again."""


class SinkBusy(MonitorError):
    """A sink cannot take alerts now: pause consumption, keep the group alive, try again."""

    def __init__(self, message: str, retry_after_s: float = 1.0):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Fenced(MonitorError):
    """Another member owns this partition now (a higher generation wrote): drop it without committing."""


class Reshaped(MonitorError):
    """The topic has another number of partitions than the state was made for."""

    exit_code = 2
