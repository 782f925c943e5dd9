"""Health, readiness and metrics over real sockets, and what a hostile client can't do."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from monitor.errors import BadInput
from monitor.service import Health, HttpService
from monitor.service import http as service_http
from monitor.settings import HttpSettings
from monitor.telemetry import Telemetry


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(CollectorRegistry())


@pytest.fixture
def health(clock: Clock, telemetry: Telemetry) -> Health:
    return Health(["kafka", "rules"], stall_s=30, on_change=telemetry.ready.set, clock=clock)


@pytest.fixture
def service(health: Health, telemetry: Telemetry) -> Iterator[HttpService]:
    with HttpService(HttpSettings(port=0), health, telemetry.registry) as running:
        yield running


def ask(service: HttpService, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def raw(service: HttpService, sent: bytes) -> bytes:
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        sock.sendall(sent)
        received = b""
        while chunk := sock.recv(65_536):
            received += chunk
        return received


def test_it_listens_on_loopback_only_by_default(service: HttpService) -> None:
    assert service.url.startswith("http://127.0.0.1:")


def test_alive_while_the_main_loop_goes_round(service: HttpService, health: Health, clock: Clock) -> None:
    assert ask(service, "/healthz")[0] == 200
    clock.now += 31
    status, _, body = ask(service, "/healthz")
    assert (status, json.loads(body)) == (503, {"alive": False, "silent_s": 31.0})
    health.beat()
    assert ask(service, "/healthz")[0] == 200


def test_ready_when_every_check_holds_and_else_says_why(service: HttpService, health: Health) -> None:
    status, headers, body = ask(service, "/readyz")
    assert (status, headers["Content-Type"]) == (503, "application/json")
    assert json.loads(body)["checks"]["rules"] == {"ok": False, "reason": "starting"}
    health.set("kafka", ok=True)
    health.set("rules", ok=False, reason="rules/a.yaml:3: is odd\x1b[31m\n")
    assert json.loads(ask(service, "/readyz")[2]) == {
        "ready": False,
        "checks": {
            "kafka": {"ok": True, "reason": ""},
            "rules": {"ok": False, "reason": "rules/a.yaml:3: is odd\\x1b[31m\\n"},
        },
    }
    health.set("rules", ok=True)
    assert ask(service, "/readyz")[0] == 200
    assert health.ready


def test_a_check_that_was_not_named_at_the_start_is_an_error(health: Health) -> None:
    with pytest.raises(KeyError):
        health.set("redis", ok=True)
    assert set(health.checks()) == {"kafka", "rules"}


def test_a_change_of_readiness_is_told_once(telemetry: Telemetry) -> None:
    told: list[bool] = []
    health = Health(["a"], on_change=told.append)
    health.set("a", ok=False, reason="other words")
    health.set("a", ok=True)
    health.set("a", ok=True)
    health.set("a", ok=False)
    assert told == [True, False]


def test_metrics_in_both_formats(service: HttpService, telemetry: Telemetry) -> None:
    telemetry.records.inc(7)
    status, headers, body = ask(service, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert families["abusemon_records_consumed"].samples[0].value == 7
    _, headers, body = ask(service, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert b"_created{" not in body
    assert b"_created " not in body


def test_head_gives_the_headers_alone(service: HttpService) -> None:
    status, headers, body = ask(service, "/metrics", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1_000


def test_unknown_paths_and_methods_echo_nothing(service: HttpService) -> None:
    status, headers, body = ask(service, "/<script>canary")
    assert status == 404
    assert b"canary" not in body
    assert headers["Server"].strip() == "abusemon"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(service, "/metrics", "POST")[0] == 501
    assert ask(service, "/metrics?name[]=canary")[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"canary\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /" + b"canary" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /" + b"c" * 5_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: canary\r\n" % i for i in range(200)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\xff\xfe\x00 /metrics HTTP/1.1\r\n\r\n",
    ],
)
def test_bad_requests_get_a_status_and_no_echo(service: HttpService, sent: bytes) -> None:
    try:
        answer = raw(service, sent)
    except ConnectionResetError:
        answer = b""
    assert b"canary" not in answer
    assert b" 200 " not in answer
    assert ask(service, "/healthz")[0] == 200


def test_silent_connections_are_bounded_and_cut(service: HttpService, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 that say nothing block the 17th until their time is up; then the probe is answered again."""
    monkeypatch.setattr(service_http, "DEADLINE_S", 1.0)
    parts = urlsplit(service.url)
    idle = [socket.create_connection((parts.hostname, parts.port), timeout=10) for _ in range(service_http.CONNECTIONS)]
    try:
        deadline = time.monotonic() + 30
        refused, answered = False, False
        while time.monotonic() < deadline and not (refused and answered):
            try:
                answered = ask(service, "/healthz")[0] == 200 and refused
            except (ConnectionError, http.client.HTTPException):
                refused = True
            time.sleep(0.05)
        assert refused, "more connections than the limit were served"
        assert answered, "silent connections were never cut"
    finally:
        for sock in idle:
            sock.close()


def test_a_taken_port_says_what_to_do(service: HttpService, health: Health, telemetry: Telemetry) -> None:
    port = urlsplit(service.url).port
    assert port is not None
    with pytest.raises(BadInput, match=rf"http\.port: can't listen on 127\.0\.0\.1:{port}"):
        HttpService(HttpSettings(port=port), health, telemetry.registry).start()
    with pytest.raises(BadInput, match=r"can.t listen on no-such-host\.invalid"):
        HttpService(HttpSettings(host="no-such-host.invalid", port=0), health, telemetry.registry).start()


def test_off_is_off_and_stop_is_repeatable(health: Health, telemetry: Telemetry) -> None:
    off = HttpService(HttpSettings(enabled=False), health, telemetry.registry).start()
    assert off.url == ""
    off.stop()
    on = HttpService(HttpSettings(port=0), health, telemetry.registry).start()
    netloc = urlsplit(on.url)
    on.stop()
    on.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((netloc.hostname, netloc.port), timeout=5)


def test_ipv6(health: Health, telemetry: Telemetry) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        with pytest.raises(BadInput):
            HttpService(HttpSettings(host="::1", port=0), health, telemetry.registry).start()
        return
    with HttpService(HttpSettings(host="::1", port=0), health, telemetry.registry) as service:
        assert service.url.startswith("http://[::1]:")
        assert ask(service, "/healthz")[0] == 200
