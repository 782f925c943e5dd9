"""Verdicts for gateways: many questions at once, each one GET, in one round trip. Asynchronous; for `monitor serve`.

Questions that arrive while an answer is under way wait for the next pipeline, so the busier it is, the fewer round
trips a question costs. Nothing is kept: a verdict is taken back the moment its key is gone.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from monitor.errors import DependencyDown
from monitor.store.alert_keys import AlertKeys
from monitor.store.redis_link import RedisOptions, arguments, remedy

_AT_ONCE = 512


class VerdictReader:
    """Reads verdict keys on the running loop; opens its connection with the first question."""

    def __init__(self, options: RedisOptions, keys: AlertKeys):
        self._client: Any = Redis.from_url(options.url, **arguments(options), retry=Retry(NoBackoff(), 0))
        self._keys = keys
        self._waiting: list[tuple[str, asyncio.Future[bytes | None]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._place = options.place

    async def get(self, account: str) -> bytes | None:
        """The verdict's JSON as it was written, None where nothing is held against the account.

        Raises DependencyDown with the remedy where the server can't answer.
        """
        return await self._ask(self._keys.verdict(account))

    async def enforced(self, account: str) -> bytes | None:
        """The decision that people have put in force on the account, None where there is none; as :meth:`get`."""
        return await self._ask(self._keys.enforce(account))

    async def _ask(self, key: str) -> bytes | None:
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def close(self) -> None:
        """Give the connections back."""
        if self._worker is not None:
            self._worker.cancel()
        await self._client.aclose()

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            try:
                pipe = self._client.pipeline(transaction=False)
                for key, _ in batch:
                    pipe.get(key)
                values = await pipe.execute(raise_on_error=False)
            except (RedisError, OSError) as error:
                values = [error] * len(batch)
            for (_, answer), value in zip(batch, values, strict=True):
                if answer.done():  # whoever asked has gone
                    continue
                if isinstance(value, BaseException):
                    what = remedy(value) if isinstance(value, (RedisError, OSError)) else None
                    said = f"Redis at {self._place}: {what or 'see its log'} ({type(value).__name__})"
                    answer.set_exception(DependencyDown(said))
                else:
                    answer.set_result(value)
