"""The webhook against a real HTTP server on loopback: signature, retry, order, back-pressure, TLS."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from alert_rows import an_alert
from http_receiver import Receiver

from monitor.alerts import WebhookSink, key_of
from monitor.alerts.webhook import SIGNATURE, sign, verify
from monitor.errors import BadInput, SinkBusy

SECRET = b"not-a-real-secret"
NOW = 1_700_000_000.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def receiver(stack: ExitStack, answer: Callable[[int], tuple[int, dict[str, str]]] = lambda n: (200, {})) -> Receiver:
    made = Receiver(answer)
    stack.callback(made.stop)
    return made


def sink(stack: ExitStack, url: str, **options: Any) -> WebhookSink:
    options = {"backoff_s": 0.01, "backoff_max_s": 0.05, "flush_timeout_s": 5.0, **options}
    made = WebhookSink(url, SECRET, lambda: NOW, **options)
    stack.callback(made.close)
    return made


def test_each_alert_is_one_signed_post_with_its_key(stack: ExitStack) -> None:
    far = receiver(stack)
    hook = sink(stack, far.url)
    hook.send([an_alert(0), an_alert(1, 4)])
    hook.flush()
    assert [json.loads(got.body)["alert_id"] for got in far.got] == [an_alert(0).alert_id, an_alert(1).alert_id]
    got = far.got[1]
    assert got.path == "/hook?team=abuse"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["idempotency-key"] == key_of(an_alert(1, 4)) == f"{1:032x}:4"
    header = got.headers[SIGNATURE.lower()]
    assert verify(SECRET, got.body, header, NOW)
    assert header.startswith("t=1700000000,v1=")
    assert hook.delivered == 2


@pytest.mark.parametrize(
    ("secret", "body", "header", "now"),
    [
        (b"other", b"{}", sign(SECRET, b"{}", int(NOW)), NOW),
        (SECRET, b"{ }", sign(SECRET, b"{}", int(NOW)), NOW),
        (SECRET, b"{}", sign(SECRET, b"{}", int(NOW)).replace("t=17", "t=18"), NOW + 1e8),
        (SECRET, b"{}", sign(SECRET, b"{}", int(NOW)), NOW + 301),
        (SECRET, b"{}", sign(SECRET, b"{}", int(NOW)), NOW - 301),
        (SECRET, b"{}", "", NOW),
        (SECRET, b"{}", "t=abc,v1=00", NOW),
    ],
)
def test_a_wrong_or_old_signature_is_refused(secret: bytes, body: bytes, header: str, now: float) -> None:
    assert verify(SECRET, b"{}", sign(SECRET, b"{}", int(NOW)), NOW + 299)
    assert not verify(secret, body, header, now)


@pytest.mark.parametrize("status", [500, 503, 429, 404, 401, 301])
def test_whatever_is_not_2xx_is_tried_again_in_order(stack: ExitStack, status: int) -> None:
    far = receiver(stack, lambda n: (status if n in {0, 1, 3} else 202, {}))
    hook = sink(stack, far.url, attempts=2)
    alerts = [an_alert(n) for n in range(3)]
    hook.send(alerts)
    hook.flush()
    assert [json.loads(body)["alert_id"] for body in far.bodies()] == [a.alert_id for a in alerts]
    assert (hook.delivered, hook.failures, hook.given_up) == (3, 3, 0)
    assert len(far.got) == 6


def test_a_body_called_unacceptable_is_given_up_and_the_next_one_goes(stack: ExitStack) -> None:
    far = receiver(stack, lambda n: (422 if n < 3 else 200, {}))
    hook = sink(stack, far.url, attempts=3)
    hook.send([an_alert(0), an_alert(1)])
    hook.flush()
    assert [json.loads(body)["alert_id"] for body in far.bodies()] == [an_alert(1).alert_id]
    assert (hook.delivered, hook.given_up) == (1, 1)


def test_retry_after_is_heeded_within_our_own_limit(stack: ExitStack) -> None:
    far = receiver(stack, lambda n: (503 if n == 0 else 200, {"Retry-After": "3600"}))
    hook = sink(stack, far.url)
    hook.send([an_alert(0)])
    hook.flush()  # an hour would exceed the timeout; backoff_max_s bounds it
    assert hook.delivered == 1


def test_a_receiver_that_is_down_fills_the_queue_then_we_are_busy_and_nothing_is_lost(stack: ExitStack) -> None:
    far = receiver(stack)
    port = far.port
    far.stop()
    hook = sink(stack, f"http://127.0.0.1:{port}/", queue_max=10, flush_timeout_s=0.1)
    alerts = [an_alert(n) for n in range(14)]
    hook.send(alerts[:6])
    hook.send(alerts[6:10])
    with pytest.raises(SinkBusy, match=f"10 alerts wait for the webhook at 127.0.0.1:{port}"):
        hook.send(alerts[10:])
    with pytest.raises(SinkBusy):
        hook.flush()
    again = Receiver(port=port)
    stack.callback(again.stop)
    again.wait(10)
    for _ in range(50):
        try:
            hook.send(alerts[10:])
            break
        except SinkBusy:
            again.wait(len(again.got), 0.1)
    again.wait(14)
    assert [json.loads(body)["alert_id"] for body in again.bodies()] == [a.alert_id for a in alerts]


def test_a_batch_larger_than_the_queue_can_still_be_sent(stack: ExitStack) -> None:
    far = receiver(stack)
    hook = sink(stack, far.url, queue_max=2)
    hook.send([an_alert(n) for n in range(9)])
    hook.flush()
    assert len(far.bodies()) == 9


def test_flush_means_answered_not_queued(stack: ExitStack) -> None:
    gate = threading.Event()

    def answer(n: int) -> tuple[int, dict[str, str]]:
        gate.wait(5)
        return 200, {}

    far = receiver(stack, answer)
    hook = sink(stack, far.url, flush_timeout_s=0.1)
    hook.send([an_alert(0)])
    with pytest.raises(SinkBusy):
        hook.flush()
    gate.set()
    far.wait(1)
    hook.flush()
    assert hook.delivered == 1


def test_a_kept_alive_connection_that_was_closed_is_no_failure(stack: ExitStack) -> None:
    far = receiver(stack, lambda n: (200, {"Connection": "close"}))
    hook = sink(stack, far.url)
    for n in range(4):
        hook.send([an_alert(n)])
        hook.flush()
    assert (hook.delivered, hook.failures) == (4, 0)


def test_a_receiver_that_never_answers_costs_one_timeout_and_is_tried_again(stack: ExitStack) -> None:
    release = threading.Event()

    def answer(n: int) -> tuple[int, dict[str, str]]:
        if n == 0:
            release.wait(5)
        return 200, {}

    far = receiver(stack, answer)
    # The first request hangs inside the server's lock: free it once the client has given up on it.
    hook = sink(stack, far.url, timeout_s=0.2)
    hook.send([an_alert(0)])
    threading.Timer(0.5, release.set).start()
    hook.flush()
    assert hook.delivered == 1
    assert hook.failures >= 1


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "not a url"])
def test_a_url_that_is_none_is_refused_at_start(url: str) -> None:
    with pytest.raises(BadInput, match=r"alerts\.webhook\.url"):
        WebhookSink(url, SECRET, lambda: NOW)


def test_no_message_holds_the_path_which_is_often_the_secret(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    far = receiver(stack, lambda n: (400, {}))
    hook = sink(stack, far.url.replace("hook", "hook-s3cr3t"), attempts=1)
    hook.send([an_alert(0)])
    hook.flush()
    far2 = receiver(stack)
    far2.stop()
    busy = sink(stack, far2.url.replace("hook", "hook-s3cr3t"), flush_timeout_s=0.05)
    busy.send([an_alert(0)])
    with pytest.raises(SinkBusy) as error:
        busy.flush()
    assert caplog.messages
    assert "s3cr3t" not in caplog.text + str(error.value)


def test_https_with_an_own_authority_and_not_without(stack: ExitStack, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        url = f"https://localhost:{server.server_port}/"
        trusted = sink(stack, url, ca_file=cert)
        trusted.send([an_alert(0)])
        trusted.flush()
        assert len(bodies) == 1
        stranger = sink(stack, url, flush_timeout_s=0.2)
        stranger.send([an_alert(1)])
        with pytest.raises(SinkBusy):
            stranger.flush()
        assert len(bodies) == 1
        assert stranger.failures >= 1
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
