"""Settings of what people use: evidence that is handed on, the log of who read what, the console and its API."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr

from .base import Section, Text, split
from .connections import Port

REQUEST_ID = "{request_id}"
_TOKEN = 32


def _too_short(secret: SecretStr | None) -> bool:
    return secret is not None and len(secret.get_secret_value()) < _TOKEN


class EvidenceSettings(Section):
    """Reports on a case: how they are signed, where their request ids lead, and who is noted to have read them."""

    viewer_url: Text | None = Field(
        default=None,
        description="Your own request viewer, with {request_id} where the id goes; null: ids without a link.",
    )
    signing_key: SecretStr | None = Field(
        default=None, description="Key that signs reports (HMAC-SHA256); better in a file. Null: unsigned."
    )
    signing_key_file: Path | None = Field(default=None, description="File that holds the key.")
    signing_key_id: Text = Field(
        default="e1", max_length=64, pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the key, written in reports."
    )
    audit: Literal["redis", "file", "off"] = Field(
        default="redis", description="Where each reading of a case is noted: a stream in Redis, or a file."
    )
    audit_file: Path | None = Field(default=None, description="The file of `audit: file`, a JSON object a line.")
    audit_maxlen: int = Field(
        default=1_000_000, ge=1_000, le=100_000_000, description="Entries that the stream keeps, about."
    )
    keep_days: float = Field(
        default=400.0, ge=1, le=3_660, description="Life of decisions, holds and the log of readings in Redis."
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """A template without its place, a key that is guessed, a log without a file."""
        if self.viewer_url is not None:
            if REQUEST_ID not in self.viewer_url:
                yield "viewer_url", f"has no {REQUEST_ID}: write where the id goes"
            if urlsplit(self.viewer_url).scheme not in {"http", "https"}:
                yield "viewer_url", "must begin with http:// or https://"
        if _too_short(self.signing_key):
            yield "signing_key", "is shorter than 32 characters: make one with `openssl rand -hex 32`"
        if self.audit == "file" and self.audit_file is None:
            yield "audit_file", "is needed by `audit: file`"


class ConsoleSettings(Section):
    """`monitor serve`: verdicts for gateways, the JSON API and the pages. A process of its own."""

    host: Text = Field(default="127.0.0.1", description="Address to listen on; anything but loopback needs a token.")
    port: Port = Field(default=9465, description="Port; 0 takes a free one.")
    token: SecretStr | None = Field(
        default=None, description="Opens pages and API, and is needed to decide; better in a file."
    )
    token_file: Path | None = Field(default=None, description="File that holds the token.")
    gateway_token: SecretStr | None = Field(
        default=None, description="Opens verdicts only, for gateways; better in a file. Null: `token` does."
    )
    gateway_token_file: Path | None = Field(default=None, description="File that holds the gateways' token.")
    session_h: float = Field(default=8.0, gt=0, le=168, description="How long a person stays signed in.")
    secure_cookie: bool = Field(
        default=False, description="Whether the session is sent over TLS alone: set it behind a TLS proxy."
    )
    deny: Annotated[tuple[Literal["review", "restrict", "block"], ...], BeforeValidator(split)] = Field(
        default=(), description="Verdicts that /v1/authz answers with 403; empty: it advises and denies nobody."
    )
    account_header: Text = Field(
        default="x-account-id",
        pattern=r"^[a-z0-9-]+$",
        description="Header that holds the account in calls of /v1/authz; the gateway must set it itself.",
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """An open door, or a key that is guessed."""
        for name, secret in (("token", self.token), ("gateway_token", self.gateway_token)):
            if _too_short(secret):
                yield name, "is shorter than 32 characters: make one with `openssl rand -hex 32`"
        if self.token is None and self.token_file is None and not _loopback(self.host):
            yield "token_file", f"is needed to listen on {self.host}: what is served names accounts"


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
