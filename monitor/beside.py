"""Campaign steps in a thread of their own, beside the batches that follow: one pass at a time.

Polars and the compiled loops release the interpreter's lock, and a pass touches nothing that the other steps do: blobs
that were published go in, alerts come out. Whoever begins a pass waits for it before the next is begun and before state
is written. A step is worked once it is whole, in its turn, so what comes out does not depend on the clock; when, beside
the alerts on accounts, does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from monitor.errors import DependencyDown, SinkBusy
from monitor.records import Alert

Pass = Callable[[], Sequence[Alert]]


class Beside:
    """At most one pass. Not thread-safe: whoever calls waits for what it began."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="campaigns")
        self._work: Future[Sequence[Alert]] | None = None
        self._pass: Pass | None = None

    @property
    def busy(self) -> bool:
        """Whether there is a pass that was not asked for yet."""
        return self._pass is not None

    @property
    def idle(self) -> bool:
        """Whether no pass is being worked: there is none, or it is done and can be asked for."""
        return self._work is None or self._work.done()

    def begin(self, work: Pass) -> None:
        """Begin a pass; the one before must have been waited for."""
        assert self._work is None
        self._pass, self._work = work, self._thread.submit(work)

    def result(self) -> Sequence[Alert]:
        """Wait for the pass: its alerts, none where there is none.

        Raises what the pass raised; where a store or sink was away, the next call makes the pass again.
        """
        if self._pass is None:
            return ()
        try:
            alerts = self._pass() if self._work is None else self._work.result()
        except (SinkBusy, DependencyDown):
            self._work = None
            raise
        except BaseException:
            self._work = self._pass = None
            raise
        self._work = self._pass = None
        return alerts

    def forget(self) -> None:
        """Wait for the pass and drop what it made: another member works the steps again."""
        if self._work is not None:
            self._work.exception()
        self._work = self._pass = None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
