"""From settings to kafka-python's own words, and finding out whether a broker is there at all.

Shared by the consumer, the producer and the readers of dead letters. Knows no topic's content.
"""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.sasl.oauth import AbstractTokenProvider

from monitor.errors import BadInput, DependencyDown, MonitorError, Problem
from monitor.settings import KafkaSettings

Client = TypeVar("Client")

REFUSED = (AuthorizationError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError)
"""A broker answered and said no: trying again helps nobody."""


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python ships no types
    """OAUTHBEARER token out of a file that something else renews; read at each login."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def token(self) -> str:
        """The token, without the newline at its end."""
        return self.path.read_text(encoding="ascii").strip()


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """Connection, TLS and SASL settings in the words of every kafka-python client.

    BadInput where the password or the token file cannot be read.
    """
    config: dict[str, Any] = {
        "bootstrap_servers": list(settings.brokers),
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": settings.request_timeout_ms,
        "connections_max_idle_ms": max(540_000, 2 * settings.request_timeout_ms),
        "reconnect_backoff_max_ms": 5_000,
    }
    if settings.security_protocol in ("SSL", "SASL_SSL"):
        config["ssl_check_hostname"] = settings.ssl_check_hostname
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            path: Path | None = getattr(settings, name)
            if path is not None:
                config[name] = str(path)
    if settings.security_protocol.startswith("SASL_"):
        config["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            assert settings.oauth_token_file is not None  # checked by the settings
            _read("kafka.oauth_token_file", settings.oauth_token_file)
            config["sasl_oauth_token_provider"] = TokenFile(settings.oauth_token_file)
        else:
            config["sasl_plain_username"] = settings.sasl_username
            config["sasl_plain_password"] = _password(settings)
    return config


def consumer_config(settings: KafkaSettings, group: str) -> dict[str, Any]:
    """A group member's settings in kafka-python's words: manual commits, the rebalance protocol of the settings."""
    s = settings
    cooperative = s.assignor == "cooperative"
    return {
        "group_id": group,
        "group_instance_id": s.group_instance_id,
        "partition_assignment_strategy": [CooperativeStickyAssignor() if cooperative else RangePartitionAssignor()],
        "enable_auto_commit": False,
        "auto_offset_reset": s.auto_offset_reset,
        "isolation_level": s.isolation_level,
        "session_timeout_ms": s.session_timeout_ms,
        "heartbeat_interval_ms": s.heartbeat_interval_ms,
        "max_poll_interval_ms": s.max_poll_interval_ms,
        "max_poll_records": s.max_poll_records,
        "max_partition_fetch_bytes": s.max_partition_fetch_bytes,
        "fetch_max_wait_ms": s.fetch_max_wait_ms,
        "client_rack": s.client_rack or "",
        "allow_auto_create_topics": False,
        "bootstrap_timeout_ms": 10_000,
        "metadata_max_age_ms": 60_000,  # a changed number of partitions is seen within a minute
    }


def _password(settings: KafkaSettings) -> str:
    if settings.sasl_password is not None:
        return settings.sasl_password.get_secret_value()
    assert settings.sasl_password_file is not None  # checked by the settings
    return _read("kafka.sasl_password_file", settings.sasl_password_file)


def _read(field: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise BadInput([Problem(str(path), 0, f"cannot be read: {error.strerror}", field)]) from error


def missing_codecs() -> list[str]:
    """What kafka-python would do slowly or not at all here, each with its remedy; empty when all is there."""
    found = []
    if importlib.util.find_spec("crc32c") is None:
        found.append("crc32c is missing: reading is 12 times slower; pip install 'kafka-python[crc32c]'")
    for module, extra in (("lz4", "lz4"), ("snappy", "snappy"), ("zstandard", "zstd")):
        if importlib.util.find_spec(module) is None:
            found.append(
                f"{module} is missing: records compressed so can't be read; pip install 'kafka-python[{extra}]'"
            )
    return found


def anyone_listens(settings: KafkaSettings, timeout_s: float = 1.0) -> bool:
    """Whether some broker accepts connections.

    Asked before a client is made: a client's first call costs its whole time-out where nobody listens.
    """
    for broker in settings.brokers:
        host, port = broker.rsplit(":", 1)
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s):
                return True
        except OSError:
            continue
    return False


def connect(settings: KafkaSettings, make: Callable[..., Client], **config: Any) -> Client:
    """Make a client; DependencyDown (say what to check) where no broker answers.

    kafka-python starts its I/O thread before it knows whether a broker is there and leaves it behind when
    none is, so the client's network half is kept here and closed in that case.
    """
    brokers = ", ".join(settings.brokers)
    if not anyone_listens(settings):
        raise DependencyDown(f"no Kafka broker accepts connections at {brokers}")
    halves: list[Any] = []

    def network(**options: Any) -> Any:
        halves.append(KafkaNetClient(**options))
        return halves[-1]

    try:
        return make(kafka_client=network, **client_config(settings), **config)
    except KafkaError as error:
        for half in halves:
            half.close()
        raise said_no(error, settings) from error


def said_no(error: KafkaError, settings: KafkaSettings) -> MonitorError:
    """What to tell a person about an error of the library."""
    brokers = ", ".join(settings.brokers)
    if isinstance(error, REFUSED):
        name = type(error).__name__
        return BadInput(
            [Problem("kafka", 0, f"{brokers} refused ({name}): check the user, its password and its ACLs on topic"
                     f" {settings.topic} and group {settings.group}")]
        )  # fmt: skip
    return DependencyDown(
        f"a broker listens at {brokers}, but the handshake failed ({type(error).__name__}): check"
        f" kafka.security_protocol ({settings.security_protocol}) and the TLS and SASL settings"
    )


@contextmanager
def reader(settings: KafkaSettings) -> Iterator[Any]:
    """A consumer outside any group, for reading single records again."""
    consumer = connect(
        settings,
        KafkaConsumer,
        bootstrap_timeout_ms=10_000,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=settings.isolation_level,
        allow_auto_create_topics=False,
        max_poll_records=1000,
    )
    try:
        yield consumer
    finally:
        consumer.close(autocommit=False)
