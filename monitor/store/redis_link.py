"""The connection to Redis 7.0 or newer, or Valkey: options, scripts, and what an error means for us.

Only commands that Redis 7.0 and Valkey 9 share. Every script touches keys of one hash slot (one hash tag),
so that it is legal on a cluster. An error is either *down* (pause, try again, nothing is lost) or a fault of
ours, which is raised as it is; no message holds the URL's user or password.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from monitor.settings import RedisSettings

RIGHTS = (
    "+evalsha", "+script|load", "+ping", "+hello", "+select",
    "+get", "+set", "+getex", "+del", "+exists", "+expire", "+ttl", "+strlen", "+scan",
    "+hget", "+hset", "+hgetall", "+hdel", "+zadd", "+zrem", "+zremrangebyrank", "+zrevrange", "+zscore",
    "+xadd", "+xread", "+xrevrange", "+xreadgroup", "+xgroup|create", "+xautoclaim", "+xack",
)  # fmt: skip
"""All that an ACL user of ours needs, on keys ``~abm:*``; a test runs everything with no more."""

Reply = Any
"""What redis-py gives for a command: its own annotations are unions with the asynchronous client."""


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """How to reach the server. ``url``: ``redis://``, ``rediss://`` (TLS) or ``unix://``; times in seconds."""

    url: str = "redis://localhost:6379/0"
    username: str | None = None
    password: Callable[[], str] | str | None = None
    protocol: int = 3
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_check_hostname: bool = True
    connect_timeout_s: float = 5.0
    socket_timeout_s: float = 5.0
    health_check_s: int = 15

    @classmethod
    def of(cls, settings: RedisSettings) -> RedisOptions:
        """The section ``redis`` of the settings."""
        return cls(
            url=settings.url,
            username=settings.username,
            password=settings.password.get_secret_value() if settings.password is not None else None,
            protocol=settings.protocol,
            ssl_cafile=settings.ssl_cafile,
            ssl_certfile=settings.ssl_certfile,
            ssl_keyfile=settings.ssl_keyfile,
            ssl_check_hostname=settings.ssl_check_hostname,
            connect_timeout_s=settings.connect_timeout_s,
            socket_timeout_s=settings.socket_timeout_s,
        )

    @property
    def place(self) -> str:
        """Host and port, or the socket's path: what a message may show."""
        parts = urlsplit(self.url)
        return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def connect(options: RedisOptions) -> redis.Redis:
    """A client; nothing is sent yet. Replies are bytes. It does not retry: the caller does, and knows what to."""
    extra: dict[str, Any] = {}
    if options.username is not None:
        extra["username"] = options.username
    if options.password is not None:
        extra["password"] = options.password if isinstance(options.password, str) else options.password()
    if urlsplit(options.url).scheme == "rediss":
        extra["ssl_check_hostname"] = options.ssl_check_hostname
        for name, path in (
            ("ssl_ca_certs", options.ssl_cafile),
            ("ssl_certfile", options.ssl_certfile),
            ("ssl_keyfile", options.ssl_keyfile),
        ):
            if path is not None:
                extra[name] = str(path)
    if urlsplit(options.url).scheme != "unix":
        extra["socket_keepalive"] = True
        extra["socket_connect_timeout"] = options.connect_timeout_s
    return redis.Redis.from_url(
        options.url,
        protocol=options.protocol,
        decode_responses=False,
        socket_timeout=options.socket_timeout_s,
        health_check_interval=options.health_check_s,
        retry=Retry(NoBackoff(), 0),
        **extra,
    )


class Script:
    """A Lua script, called by its SHA-1 and loaded again where the server has forgotten it."""

    def __init__(self, text: str):
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: redis.Redis, keys: Sequence[str], args: Sequence[Any]) -> Reply:
        """One call. Raises what redis-py raises."""
        return self.run_many(client, [(keys, args)])[0]

    def run_many(self, client: redis.Redis, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Reply]:
        """Calls in order in one round trip. The first error is raised; those before it have taken effect.

        Each call must be safe to repeat: a server that lost its scripts gets the whole batch again.
        """
        for attempt in range(2):
            pipe = client.pipeline(transaction=False)
            for keys, args in calls:
                pipe.evalsha(self.sha, len(keys), *keys, *args)
            replies = pipe.execute(raise_on_error=False)
            error = next((r for r in replies if isinstance(r, Exception)), None)
            if error is None:
                return list(replies)
            if not isinstance(error, NoScriptError) or attempt:
                raise error
            client.script_load(self.text)
        raise AssertionError("unreachable")


def remedy(error: RedisError | OSError) -> str | None:
    """What to do where ``error`` means that the server can't serve us now; None where it is a fault of ours."""
    # The order matters: BusyLoading, Authentication and Authorization derive from ConnectionError.
    if isinstance(error, BusyLoadingError):
        return "it is loading its data: wait"
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        return "it refuses our user: check redis.username, redis.password_file and the ACL of README"
    if isinstance(error, TimeoutError):
        return "it did not answer in redis.socket_timeout_s: look for a slow command or a full disk there"
    if isinstance(error, (ConnectionError, OSError)):
        return "it can't be reached: start it or correct redis.url"
    if isinstance(error, OutOfMemoryError):
        return "its memory is full: raise maxmemory, with the policy noeviction"
    if isinstance(error, ReadOnlyError):
        return "it is a read-only replica: point redis.url at the primary"
    text = str(error)
    if "OOM" in text:  # raised inside a script, redis-py knows it as a plain ResponseError
        return "its memory is full: raise maxmemory, with the policy noeviction"
    if "READONLY" in text:
        return "it is a read-only replica: point redis.url at the primary"
    if isinstance(error, ResponseError) and text.startswith(
        ("MISCONF", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "BUSY")
    ):
        return f"it refuses writes ({text.split()[0]}): see its log"
    if "WRONGPASS" in text or "NOAUTH" in text or "NOPERM" in text:
        return "it refuses our user: check redis.username, redis.password_file and the ACL of README"
    return None
