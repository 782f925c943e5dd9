"""Alerts to an HTTP endpoint: signed, in order, at least once. Knows nothing of where alerts come from.

One POST an alert. Headers: ``Idempotency-Key: <alert_id>:<revision>`` and
``X-Monitor-Signature: t=<unix seconds>,v1=<hex>`` with v1 = HMAC-SHA256(secret, "<t>." + body); a receiver
compares in constant time and refuses a ``t`` more than some minutes old (see :func:`verify`).

A thread delivers from a bounded queue. Whatever is not a 2xx is tried again with growing waits, because a
refused alert is a lost one; only a body that the receiver calls unacceptable (400, 413, 415, 422) is given up
after ``attempts`` tries, counted and logged. Redirects are not followed: a signature is for one address.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import logging
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from monitor.alerts.sinks import key_of
from monitor.errors import BadInput, Problem, SinkBusy
from monitor.records import Alert, trimmed

_LOG = logging.getLogger(__name__)
_UNACCEPTABLE = frozenset({400, 413, 415, 422})
SIGNATURE = "X-Monitor-Signature"


def sign(secret: bytes, body: bytes, at_s: int) -> str:
    """The value of the signature header at that time (unix seconds)."""
    mac = hmac.new(secret, b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={mac}"


def verify(secret: bytes, body: bytes, header: str, now_s: float, tolerance_s: float = 300.0) -> bool:
    """What a receiver does: the signature is ours and young enough."""
    fields = dict(part.partition("=")[::2] for part in header.split(","))
    at = fields.get("t", "")
    if not at.isascii() or not at.isdigit() or abs(now_s - int(at)) > tolerance_s:
        return False
    return hmac.compare_digest(sign(secret, body, int(at)), header)


class WebhookSink:
    """See the module. ``clock`` gives unix seconds (the only place that needs them is the signature).

    ``queue_max`` bounds what waits in memory; ``send`` raises SinkBusy beyond it and takes nothing.
    """

    def __init__(
        self,
        url: str,
        secret: bytes,
        clock: Callable[[], float],
        *,
        timeout_s: float = 5.0,
        attempts: int = 6,
        backoff_s: float = 0.5,
        backoff_max_s: float = 30.0,
        queue_max: int = 1_000,
        flush_timeout_s: float = 10.0,
        max_accounts: int = 1_000,
        ca_file: Path | None = None,
    ):
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise BadInput([Problem("settings", 0, "needs an http:// or https:// URL", "alerts.webhook.url")])
        self._place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        self._parts = parts
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._secret = secret
        self._clock = clock
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._backoff = (backoff_s, backoff_max_s)
        self._queue_max = queue_max
        self._flush_timeout_s = flush_timeout_s
        self._max_accounts = max_accounts
        self._queue: deque[tuple[str, bytes]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._connection: http.client.HTTPConnection | None = None
        self.delivered = 0
        self.given_up = 0
        self.failures = 0
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def send(self, alerts: Sequence[Alert]) -> None:
        """Queue all of them, or none and raise SinkBusy."""
        items = [(key_of(a), msgspec.json.encode(trimmed(a, self._max_accounts))) for a in alerts]
        with self._changed:
            # More than fits at once is taken when the queue is empty, else it could never be sent.
            if self._queue and len(self._queue) + len(items) > self._queue_max:
                raise SinkBusy(f"{len(self._queue)} alerts wait for the webhook at {self._place}: is it up?", 1.0)
            self._queue.extend(items)
            self._changed.notify_all()

    def flush(self) -> None:
        """Return when everything accepted was answered with 2xx (or given up); SinkBusy after the timeout."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._queue, self._flush_timeout_s):
                raise SinkBusy(f"{len(self._queue)} alerts wait for the webhook at {self._place}: is it up?", 1.0)

    def close(self) -> None:
        """Wait for what is queued as ``flush`` does, then stop; what is left over is sent again after a restart."""
        try:
            self.flush()
        except SinkBusy as error:
            _LOG.warning("%s They are sent again after the restart, from the last checkpoint.", error)
        finally:
            with self._changed:
                self._stopping = True
                self._changed.notify_all()
            self._thread.join(self._timeout_s + 1.0)

    def _work(self) -> None:
        tries = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if self._stopping:
                    break
                key, body = self._queue[0]
            problem, wait_s = self._post(key, body)
            tries += 1
            if problem is not None and not (problem.isdigit() and int(problem) in _UNACCEPTABLE and
                                            tries >= self._attempts):  # fmt: skip
                self.failures += 1
                if tries == 1:
                    _LOG.warning("webhook at %s: %s; trying again until it takes the alert", self._place, problem)
                delay = min(max(self._backoff[0] * 2 ** min(tries - 1, 20), wait_s), self._backoff[1])
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, delay)
                continue
            if problem is not None:
                self.given_up += 1
                _LOG.error("webhook at %s refused alert %s with %s: given up", self._place, key, problem)
            else:
                self.delivered += 1
            tries = 0
            with self._changed:
                self._queue.popleft()
                self._changed.notify_all()
        self._hang_up()

    def _post(self, key: str, body: bytes) -> tuple[str | None, float]:
        """(None, 0) on 2xx; else what went wrong (a status or an error's name) and the wait asked for."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "api-abuse-monitor",
            "Idempotency-Key": key,
            SIGNATURE: sign(self._secret, body, int(self._clock())),
        }
        fresh = self._connection is None
        while True:
            try:
                if self._connection is None:
                    self._connection = self._dial()
                self._connection.request("POST", self._target, body, headers)
                answer = self._connection.getresponse()
                answer.read(65_536)
                if not answer.isclosed():  # a longer body than anybody needs: not worth reading to its end
                    self._hang_up()
                if 200 <= answer.status < 300:
                    return None, 0.0
                after = answer.headers.get("Retry-After", "")
                return str(answer.status), float(after) if after.isascii() and after.isdigit() else 0.0
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                if fresh:
                    return type(error).__name__, 0.0
                fresh = True  # a kept-alive connection that the other side has closed meanwhile: once more

    def _dial(self) -> http.client.HTTPConnection:
        host = self._parts.hostname or ""
        if self._tls is not None:
            return http.client.HTTPSConnection(host, self._parts.port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(host, self._parts.port, timeout=self._timeout_s)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
