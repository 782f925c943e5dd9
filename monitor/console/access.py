"""Who may do what: bearer tokens for programs, a signed session for people, and forms that no other site can send.

=============  ===============================================================================
``gateway``    verdicts only
``analyst``    everything that reads; to decide, a person signs in with a name
``visitor``    where no token is set (on loopback alone): reads, and decides nothing
=============  ===============================================================================

Tokens are compared in constant time, as digests, so that not even their length shows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from monitor.settings import ConsoleSettings

from .http import BadRequest, Request

COOKIE = "abm_session"
NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. ``name`` is None for a program; ``session`` is the cookie's value where there is one."""

    role: str
    name: str | None = None
    session: str | None = None

    @property
    def decides(self) -> bool:
        """Whether this person may move a case."""
        return self.role == "analyst" and self.session is not None


class Access:
    """The door. ``clock`` gives epoch seconds."""

    def __init__(self, settings: ConsoleSettings, clock: Callable[[], float]):
        token, gateway = settings.token, settings.gateway_token
        self._token = None if token is None else _digest(token.get_secret_value())
        self._gateway = self._token if gateway is None else _digest(gateway.get_secret_value())
        self._key = hmac.digest(self._token or secrets.token_bytes(32), b"console session v1", "sha256")
        self._life_s = settings.session_h * 3_600
        self._secure = settings.secure_cookie
        self._clock = clock

    @property
    def open(self) -> bool:
        """Whether no token is set: reading needs none, deciding is not possible."""
        return self._token is None

    def may_ask(self, visitor: Visitor | None) -> bool:
        """Whether this visitor gets verdicts."""
        return visitor is not None and (visitor.role != "visitor" or self._gateway is None)

    def visitor(self, request: Request) -> Visitor | None:
        """Who asks, or None: unknown. Raises BadRequest where an open server is asked under a foreign name."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if given and scheme.lower() == "bearer" and self._gateway is not None:
            offered = _digest(given.strip())
            if self._token is not None and hmac.compare_digest(offered, self._token):
                return Visitor("analyst")
            if self._gateway is not None and hmac.compare_digest(offered, self._gateway):
                return Visitor("gateway")
            return None
        if self.open:
            if not _is_here(request.headers.get("host", "")):
                # Another site may point its name at loopback; a browser then sends that name.
                raise BadRequest(421, "without a token this is served on loopback names alone")
            return Visitor("visitor")
        session = _cookie(request.headers.get("cookie", ""))
        name = self._read(session) if session is not None else None
        return Visitor("analyst", name, session) if name is not None else None

    def sign_in(self, name: str, token: str) -> str | None:
        """The Set-Cookie value of a new session, None for a wrong token or no name."""
        name = name.strip()
        if self._token is None or not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
            return None
        if not hmac.compare_digest(_digest(token.strip()), self._token):
            return None
        body = json.dumps({"name": name, "until": self._clock() + self._life_s, "salt": secrets.token_hex(8)})
        packed = base64.urlsafe_b64encode(body.encode()).decode()
        return self._cookie(f"{packed}.{self._sign('session', packed)}", int(self._life_s))

    def sign_out(self) -> str:
        """The Set-Cookie value that ends a session."""
        return self._cookie("", 0)

    def form_token(self, visitor: Visitor) -> str:
        """What a form of this session must carry."""
        return self._sign("form", visitor.session or "")

    def check_form(self, request: Request, visitor: Visitor, given: str) -> None:
        """Raises BadRequest where the form was not made by this site for this session."""
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin")
        same = origin is None or urlsplit(origin).netloc == request.headers.get("host")
        wanted = self.form_token(visitor)
        if site != "same-origin" or not same or not hmac.compare_digest(given.encode(), wanted.encode()):
            raise BadRequest(403, "the form is not from this session: load the page again")

    def _read(self, session: str) -> str | None:
        packed, _, mark = session.partition(".")
        if not hmac.compare_digest(mark.encode(), self._sign("session", packed).encode()):
            return None
        try:
            body = json.loads(base64.urlsafe_b64decode(packed))
        except (ValueError, binascii.Error):
            return None
        return str(body["name"]) if body["until"] > self._clock() else None

    def _sign(self, purpose: str, value: str) -> str:
        return hmac.new(self._key, f"{purpose} {value}".encode(), hashlib.sha256).hexdigest()

    def _cookie(self, value: str, age: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{COOKIE}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _cookie(header: str) -> str | None:
    for part in header.split(";"):
        name, equals, value = part.strip().partition("=")
        if equals and name == COOKIE:
            return value
    return None


def _is_here(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname if host else None
    if name is None:
        return False
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
