"""Between kafka-python's rebalance callbacks and ours: another thread, so that heartbeats go on.

kafka-python 3 calls its listener on its I/O thread while ``poll`` waits. There a blocking call (commit)
raises, and long work stops the heartbeats until the group thinks us dead. So the work is done on a thread
of its own and the I/O thread's coroutine waits for it without blocking. The thread that called ``poll`` or
``close`` is blocked all the while: the listener never runs beside the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future as Work
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kafka import AsyncConsumerRebalanceListener
from kafka.future import Future

Handler = Callable[[frozenset[int]], None]


class Bridge(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """Hands each callback to a handler on its own thread and awaits it.

    ``error`` holds what a handler raised: kafka-python logs it and raises a KafkaError in its place.
    """

    def __init__(self, assigned: Handler, revoked: Handler, lost: Handler):
        self._assigned = assigned
        self._revoked = revoked
        self._lost = lost
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rebalance")
        self.network: Any = None  # the consumer's event loop, once there is one
        self.error: BaseException | None = None

    async def on_partitions_assigned(self, assigned: set[Any]) -> None:
        """New partitions, or in eager mode all of them."""
        await self._hand_over(self._assigned, assigned)

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """Partitions that another member gets when this returns."""
        await self._hand_over(self._revoked, revoked)

    async def on_partitions_lost(self, lost: set[Any]) -> None:
        """Partitions that another member has already."""
        await self._hand_over(self._lost, lost)

    async def _hand_over(self, handler: Handler, partitions: set[Any]) -> None:
        if not partitions:
            return
        done = Future()
        work = self._thread.submit(handler, frozenset(tp.partition for tp in partitions))

        def wake(_: Work[None]) -> None:
            def resolve() -> None:
                done.success(None)

            # The loop sleeps in select(): setting the future from this thread would not wake it.
            self.network.call_soon_threadsafe(resolve)

        work.add_done_callback(wake)
        await done
        self.error = work.exception()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)
