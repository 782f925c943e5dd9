"""Settings of what the monitor talks to: Kafka, Redis, its own HTTP port, its log. Imports no client library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from .base import FORM, Section, Text, split

_BROKER = re.compile(r"^(?:\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):(?P<port>[0-9]{1,5})$")


def _broker(value: str) -> str:
    match = _BROKER.match(value)
    if match is None or not 0 < int(match["port"]) <= 65_535:
        raise PydanticCustomError(FORM, "{value} is not host:port", {"value": repr(value)})
    return value


def _redis_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise PydanticCustomError(FORM, "must begin with redis://, rediss:// or unix://")
    if parts.password is not None:
        raise PydanticCustomError(FORM, "holds a password, which would be shown and logged: use password_file")
    return value


Brokers = Annotated[tuple[Annotated[Text, AfterValidator(_broker)], ...], BeforeValidator(split)]
RedisUrl = Annotated[Text, AfterValidator(_redis_url)]
Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class KafkaSettings(Section):
    """The cluster that requests are read from, and the topics that the monitor reads and writes."""

    brokers: Brokers = Field(
        default=("localhost:9092",), min_length=1, description="Bootstrap brokers, host:port each."
    )
    topic: Text = Field(default="requests", description="Topic of the request log (contract 1), keyed by account_id.")
    context_topic: Text | None = Field(default=None, description="Topic of context events (contract 5); null: none.")
    dlq_topic: Text | None = Field(
        default=None, description="Topic of dead letters; null: the request topic's name with .dlq."
    )
    alerts_topic: Text | None = Field(default=None, description="Topic that alerts are also written to; null: none.")
    group: Text = Field(default="abuse-monitor", description="Consumer group. Every replica has the same.")
    group_instance_id: Text | None = Field(
        default=None, description="Static membership: a name of this replica that survives its restart; null: dynamic."
    )
    client_id: Text = Field(default="abuse-monitor", description="Name shown in the brokers' logs and quotas.")
    assignor: Literal["cooperative", "eager"] = Field(
        default="cooperative", description="Rebalance protocol. All members of a group must use the same one."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="Transport: with or without TLS, with or without SASL."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        default=None, description="Needed by the SASL_ protocols."
    )
    sasl_username: Text | None = Field(default=None, description="User name for PLAIN and SCRAM.")
    sasl_password: SecretStr | None = Field(default=None, description="Password for PLAIN and SCRAM; better in a file.")
    sasl_password_file: Path | None = Field(default=None, description="File that holds the password.")
    oauth_token_file: Path | None = Field(
        default=None, description="File that holds the bearer token for OAUTHBEARER; read again at each login."
    )
    ssl_cafile: Path | None = Field(default=None, description="PEM of the authorities to trust; null: the system's.")
    ssl_certfile: Path | None = Field(default=None, description="PEM of the client certificate.")
    ssl_keyfile: Path | None = Field(default=None, description="PEM of the client certificate's key.")
    ssl_check_hostname: bool = Field(default=True, description="Whether the broker's certificate must name its host.")
    session_timeout_ms: Milliseconds = Field(default=45_000, description="Silence after which a member counts as dead.")
    heartbeat_interval_ms: Milliseconds = Field(
        default=3_000, description="Time between heartbeats; a third of the session."
    )
    max_poll_interval_ms: Milliseconds = Field(default=300_000, description="Longest time between two polls.")
    max_poll_records: int = Field(default=16_000, ge=1, le=100_000, description="Most records of one poll.")
    max_partition_fetch_bytes: int = Field(
        default=1 << 20, ge=1 << 16, le=1 << 28, description="Most bytes a partition a fetch."
    )
    fetch_max_wait_ms: Milliseconds = Field(default=500, description="Longest time a broker waits for records to send.")
    request_timeout_ms: Milliseconds = Field(default=30_000, description="Longest wait for an answer of a broker.")
    auto_offset_reset: Literal["earliest", "latest"] = Field(
        default="earliest", description="Where a group without offsets begins."
    )
    isolation_level: Literal["read_committed", "read_uncommitted"] = Field(
        default="read_committed", description="Whether records of open or aborted transactions are skipped."
    )
    client_rack: Text | None = Field(
        default=None, description="Rack or zone of this replica: fetch from a follower there."
    )
    stall_s: float = Field(
        default=60.0,
        ge=1,
        le=86_400,
        description="A partition with records to read that does not move for so long is stalled.",
    )

    @property
    def dead_letters(self) -> str:
        """Name of the topic of dead letters."""
        return self.dlq_topic or f"{self.topic}.dlq"

    def checks(self) -> Iterator[tuple[str, str]]:
        """SASL and TLS settings that do not fit together, timeouts in the wrong order, one topic used twice."""
        if self.security_protocol.startswith("SASL_"):
            yield from self._sasl()
        elif self.sasl_mechanism is not None:
            yield "sasl_mechanism", f"has no effect with {self.security_protocol}: set security_protocol to SASL_SSL"
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            yield "ssl_certfile", "and ssl_keyfile go together: set both or neither"
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            yield "heartbeat_interval_ms", "must be at most a third of session_timeout_ms"
        if self.session_timeout_ms > self.max_poll_interval_ms:
            yield "session_timeout_ms", "must not be over max_poll_interval_ms"
        topics = [self.topic, self.context_topic, self.dead_letters, self.alerts_topic]
        names = [name for name in topics if name]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield "topic", f"{name!r} serves twice: requests, context, dead letters and alerts need a topic each"

    def _sasl(self) -> Iterator[tuple[str, str]]:
        if self.sasl_mechanism is None:
            yield "sasl_mechanism", f"is needed by {self.security_protocol}"
        elif self.sasl_mechanism == "OAUTHBEARER":
            if self.oauth_token_file is None:
                yield "oauth_token_file", "is needed by OAUTHBEARER"
        else:
            if self.sasl_username is None:
                yield "sasl_username", f"is needed by {self.sasl_mechanism}"
            if self.sasl_password is None and self.sasl_password_file is None:
                yield "sasl_password_file", f"is needed by {self.sasl_mechanism} (or sasl_password)"


class RedisSettings(Section):
    """The Redis 7 or Valkey 9 server that alerts and verdicts go to, and links and checkpoints if told so."""

    url: RedisUrl = Field(
        default="redis://localhost:6379/0", description="redis://, rediss:// (TLS) or unix://; no password in it."
    )
    username: Text | None = Field(default=None, description="ACL user; null: the default user.")
    password: SecretStr | None = Field(default=None, description="Password; better in a file.")
    password_file: Path | None = Field(default=None, description="File that holds the password.")
    protocol: Literal[2, 3] = Field(default=3, description="RESP version; 2 for proxies that do not know HELLO.")
    ssl_cafile: Path | None = Field(default=None, description="PEM of the authorities to trust; null: the system's.")
    ssl_certfile: Path | None = Field(default=None, description="PEM of the client certificate.")
    ssl_keyfile: Path | None = Field(default=None, description="PEM of the client certificate's key.")
    ssl_check_hostname: bool = Field(default=True, description="Whether the server's certificate must name its host.")
    connect_timeout_s: float = Field(default=5.0, gt=0, le=300, description="Longest wait for a connection.")
    socket_timeout_s: float = Field(default=5.0, gt=0, le=300, description="Longest wait for an answer.")
    key_prefix: Text = Field(
        default="abm", max_length=32, pattern=r"^[A-Za-z0-9_.-]+$", description="First part of every key."
    )
    stream: Text = Field(
        default="alerts", pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the stream of alerts, after the prefix."
    )
    maxlen: int = Field(
        default=1_000_000, ge=1_000, le=100_000_000, description="Entries that the stream keeps, about."
    )
    ttl_s: int = Field(
        default=30 * 86_400, ge=60, le=366 * 86_400, description="Life of an account's state after its last write."
    )
    verdict_ttl_s: int = Field(
        default=6 * 3_600,
        ge=10,
        le=30 * 86_400,
        description="Life of a verdict that a gateway reads; over the longest cooldown of a rule.",
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """TLS files that do not fit together, or have no effect."""
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            yield "ssl_certfile", "and ssl_keyfile go together: set both or neither"
        if not self.url.startswith("rediss:") and (self.ssl_cafile or self.ssl_certfile):
            yield "ssl_cafile" if self.ssl_cafile else "ssl_certfile", "has no effect without TLS: use rediss:// in url"


class HttpSettings(Section):
    """The port for health, readiness and metrics. It has no authentication: keep it on loopback or a pod network."""

    enabled: bool = Field(default=True, description="Whether to listen at all.")
    host: Text = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 in a container.")
    port: Port = Field(default=9464, description="Port; 0 takes a free one.")


class IngestSettings(Section):
    """``POST /v1/ingest/{format}``, by ``monitor ingest`` or within ``run``. Put TLS before it off the host."""

    enabled: bool = Field(default=False, description="Whether `monitor run` listens too; `monitor ingest` always does.")
    host: Text = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 in a container.")
    port: Port = Field(default=9466, description="Port; 0 takes a free one.")
    token: SecretStr | None = Field(default=None, description="Bearer token of the gateways; better in a file.")
    token_file: Path | None = Field(default=None, description="File that holds the token.")
    to: Literal["kafka", "spool"] = Field(
        default="kafka", description="kafka.topic, keyed by account and sketched, or a spool on disk that `run` reads."
    )
    spool: Path = Field(default=Path("spool"), description="Directory of the spool: one host, one writer, one reader.")
    partitions: int = Field(default=4, ge=1, le=1_024, description="Partitions of the spool, fixed when it is made.")
    max_body_bytes: int = Field(
        default=16 << 20, ge=1_024, le=1 << 30, description="Longest body, after decompression; a longer one gets 413."
    )
    max_requests: int = Field(
        default=8, ge=1, le=1_024, description="Bodies that are worked on at a time; more get 429 and Retry-After."
    )
    max_spool_bytes: int = Field(
        default=4 << 30, ge=1 << 20, le=1 << 44, description="A spool this large answers 503 until it was read."
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """A token that could be guessed, or none where one is needed."""
        if self.token is not None and len(self.token.get_secret_value()) < 16:
            yield "token", "is shorter than 16 characters: make one with `openssl rand -hex 32`"
        if self.enabled and self.token is None and self.token_file is None:
            yield "token_file", "is needed: a file with a token, e.g. from `openssl rand -hex 32`"


class LogSettings(Section):
    """What the monitor says on stderr. Never text of a request, never a key."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is written."
    )
    format: Literal["json", "text"] = Field(default="json", description="One JSON object a line, or text for a person.")
    repeat_s: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="Of one message 10 are written in so long, the rest counted; 0: all written.",
    )
