"""`monitor serve` on real sockets and a real Redis: who gets what, what a form may do, what hostile input can't."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import redis
from campaign_rows import START, campaign, lone
from serving import GATEWAY, TOKEN, Serving, bearer, settings

from monitor.errors import BadInput
from monitor.evidence import Key, verify
from monitor.records import Member
from monitor.settings import ConsoleSettings
from monitor.source.embedded import EmbeddedServer
from monitor.store import cases, readers
from monitor.store.alert_keys import AlertKeys
from monitor.store.cases import Life
from monitor.store.redis_link import RedisOptions, connect
from monitor.store.redis_sink import RedisSink

KEYS = AlertKeys()
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'&\u202e/../%2f"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(RedisOptions(url=redis_url)) as client:
        yield client


@pytest.fixture
def filled(redis_url: str, client: redis.Redis) -> str:
    sink = RedisSink(RedisOptions(url=redis_url))
    sink.send(
        [campaign(1), campaign(2), campaign(3), lone(1, 1), lone(1, 2, severity="low"), lone(1, 3, mode="shadow")]
    )
    sink.close()
    cases.add(client, KEYS, Life(), lone(1, 2).alert_id, "false_positive", by="mia", why="a harness", at=START)
    return redis_url


@pytest.fixture
def console(filled: str) -> Iterator[Serving]:
    with Serving(settings(filled)) as serving:
        yield serving


# -------------------------------------------------------------------------------------------------- gateways


def test_a_gateway_reads_a_verdict_as_it_was_written(console: Serving, client: redis.Redis) -> None:
    account = campaign(3).accounts[0]
    answer = console.ask(f"/v1/verdict/{account}", **bearer(GATEWAY))
    assert (answer.status, answer.body) == (200, client.get(KEYS.verdict(account)))
    none = console.ask("/v1/verdict/nobody", **bearer(TOKEN))
    assert json.loads(none.body) == {
        "account": "nobody", "verdict": "none", "severity": None, "alert_id": None, "until": None}  # fmt: skip
    assert json.loads(console.ask(f"/v1/decision/{account}", **bearer(GATEWAY)).body) == {"action": "none"}
    client.set(KEYS.enforce(account), b'{"action": "throttle"}')
    assert json.loads(console.ask(f"/v1/decision/{account}", **bearer(GATEWAY)).body) == {"action": "throttle"}
    assert console.ask(f"/v1/decision/{account}").status == 401
    odd = "a/b c%\u2028é"
    assert json.loads(console.ask(f"/v1/verdict/{quote(odd, safe='')}", **bearer(GATEWAY)).body)["account"] == odd
    for headers in ({}, bearer(GATEWAY[:-1]), bearer(""), {"Authorization": f"Basic {GATEWAY}"}):
        assert console.ask(f"/v1/verdict/{account}", **headers).status == 401
    for path in ("/v1/alerts", f"/v1/accounts/{account}", "/", "/rules"):  # a gateway reads verdicts and no more
        assert console.ask(path, **bearer(GATEWAY)).status == 401


def test_authz_advises_unless_it_is_told_to_deny(filled: str) -> None:
    account = campaign(3).accounts[0]
    for deny, status in (((), 200), (("block",), 200), (("restrict", "block"), 403)):
        with Serving(settings(filled, deny=deny)) as serving:
            for method in ("GET", "POST", "DELETE"):  # Envoy sends the client's own method and path
                answer = serving.ask(
                    "/v1/authz/v1/chat/completions?x=1", method, X_Account_Id=account, **bearer(GATEWAY)
                )
                assert (answer.status, answer.headers["x-abuse-verdict"]) == (status, "restrict")
            assert (
                serving.ask("/v1/authz/x", X_Account_Id="nobody", **bearer(GATEWAY)).headers["x-abuse-verdict"]
                == "none"
            )
            assert serving.ask("/v1/authz/x", **bearer(GATEWAY)).headers["x-abuse-verdict"] == "unknown"
            assert serving.ask("/v1/authz/x", X_Account_Id=account).status == 401


def test_without_redis_gateways_let_pass_and_people_are_told(redis_server: Callable[[], EmbeddedServer]) -> None:
    server = redis_server()
    with Serving(settings(server.url, deny=("block",))) as serving:
        assert serving.ask("/readyz").status == 200
        server.stop()
        answer = serving.ask("/v1/verdict/a-1", **bearer(GATEWAY))
        assert (answer.status, json.loads(answer.body)["advice"]) == (503, "let the request pass")
        answer = serving.ask("/v1/authz/x", X_Account_Id="a-1", **bearer(GATEWAY))
        assert (answer.status, answer.headers["x-abuse-verdict"]) == (200, "unknown")
        serving.sign_in()
        answer = serving.ask("/")
        assert answer.status == 503
        assert "start it or correct redis.url" in answer.text
        assert serving.ask("/healthz").status == 200


# ------------------------------------------------------------------------------------------------------- API


def test_the_api_gives_rows_and_whole_alerts(console: Serving, client: redis.Redis) -> None:
    def got(path: str) -> dict[str, object]:
        answer = console.ask(path, **bearer(TOKEN))
        assert answer.status == 200, answer.text
        found: dict[str, object] = json.loads(answer.body)
        return found

    def subjects(path: str) -> list[str]:
        return [r["subject"] for r in got(path)["alerts"]]  # type: ignore[attr-defined]

    assert sorted(subjects("/v1/alerts")) == ["a-1", "a-2", "camp-7f3a"]  # newest revisions, no shadow
    assert subjects("/v1/alerts?severity=high") == ["camp-7f3a"]
    assert subjects("/v1/alerts?case=false_positive") == ["a-2"]
    assert subjects("/v1/alerts?kind=account&case=open") == ["a-1"]
    assert len(subjects("/v1/alerts?limit=1")) == 1
    row = got("/v1/campaigns")["campaigns"][0]  # type: ignore[index]
    assert (row["accounts"], row["members"], row["requests"], row["severity"]) == (13, 40, 2_700, "high")
    whole = got("/v1/alerts/camp-7f3a")
    assert whole["alert"]["evidence"]["links"][0]["rarity"] == 12.5  # type: ignore[index]
    assert whole["alert"]["revision"] == 3  # type: ignore[index]
    last = campaign(3).members
    peripheral = next(n for n, m in last.items() if m.tier == "peripheral")
    known = got(f"/v1/accounts/{peripheral}")
    assert (known["verdict"], known["alerts"][0]["tier"]) == (None, "peripheral")  # type: ignore[index]
    assert {r.action for r in cases.readings(client, KEYS)} == {"api", "account"}
    for path, status in (("/v1/alerts?severity=huge", 400), ("/v1/alerts?limit=0", 400), ("/v1/alerts/nobody", 404),
                         ("/v1/alerts?severty=high", 400), ("/v1/quality?week=3", 400), ("/v1/accounts?kind=x", 400),
                         ("/v1/accounts/nobody", 404), ("/v1/nothing", 404)):  # fmt: skip
        answer = console.ask(path, **bearer(TOKEN))
        assert (answer.status, set(json.loads(answer.body))) == (status, {"error"})
    assert console.ask("/v1/alerts").status == 401


# -------------------------------------------------------------------------------------------------- people


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> set[str]:
        return {a["href"] or "" for t, a in self.tags if t == "a" and a.get("href")}


PATHS = (
    "/",
    "/campaigns",
    "/rules",
    "/rules/trace-harvest",
    "/readings",
    "/alerts/camp-7f3a",
    "/alerts/a-1",
    "/accounts/a-1",
)


def test_every_page_is_there_for_who_signed_in_and_for_nobody_else(console: Serving) -> None:
    for path in (*PATHS, f"/reports/{campaign().alert_id}.json"):
        answer = console.ask(path)
        assert answer.status == 401
        assert "Sign in" in answer.text
        assert "camp-7f3a" not in answer.text.replace(f'value="{path}"', "")
    assert console.sign_in(token="x" * 40).status == 403
    assert console.ask("/").status == 401
    answer = console.sign_in()
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
    for path in PATHS:
        answer = console.ask(path)
        assert answer.status == 200, path
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'")
        assert "unsafe" not in policy
        page = Page(answer.text)
        assert not {"script", "iframe", "object"} & {t for t, _ in page.tags}
        assert not [a for _, a in page.tags if "style" in a or any(n.startswith("on") for n in a)]
        assert [a for t, a in page.tags if t == "html"][0]["lang"] == "en"  # noqa: RUF015
        assert sum(t == "h1" for t, _ in page.tags) == 1
        labelled = {a.get("for") for t, a in page.tags if t == "label"}
        fields = [a for t, a in page.tags if t in ("select", "textarea", "input") and a.get("type") != "hidden"]
        assert all(a.get("id") in labelled for a in fields)
    for link in {link for path in PATHS for link in Page(console.ask(path).text).links() if link.startswith("/")}:
        assert console.ask(link).status == 200, link


def test_reloading_keeps_the_filter_and_says_how_much_is_shown(console: Serving) -> None:
    console.sign_in()
    page = Page(console.ask("/?severity=low&kind=account&limit=1").text)
    assert "These are the last 1, and all that is counted here" in page.text
    assert {"/?severity=low&kind=account&limit=1&refresh=30", "/?severity=low&kind=account&limit=1000"} <= page.links()
    assert "all that is counted here" not in console.ask("/?severity=low").text
    assert "/?severity=low" in Page(console.ask("/?severity=low&refresh=30").text).links()


def test_a_session_ends_and_can_not_be_made_up(filled: str) -> None:
    with Serving(settings(filled, session_h=0.0001)) as serving:
        serving.sign_in()
        held = serving.session
        time.sleep(0.5)
        assert serving.ask("/").status == 401
    with Serving(settings(filled)) as serving:
        serving.sign_in()
        good = serving.session
        packed, _, mark = good.partition(".")
        for bad in (
            held,
            packed,
            f"{packed}.",
            f"{packed[:-4]}AAAA.{mark}",
            f"{packed}.{mark[:-1]}0",
            "abm_session=x.y",
        ):
            if bad != good:
                assert serving.ask("/", Cookie=bad).status == 401
        assert serving.ask("/", Cookie=f"other=1; {good}").status == 200
    with Serving(settings(filled, token="another-token-0123456789abcdef-0123")) as serving:  # a new token ends sessions
        assert serving.ask("/", Cookie=good).status == 401


def form_of(serving: Serving, path: str) -> str:
    page = Page(serving.ask(path).text)
    found = [a["value"] for t, a in page.tags if t == "input" and a.get("name") == "form"]
    assert found[-1]
    return str(found[-1])


def test_a_decision_by_the_buttons(console: Serving, client: redis.Redis) -> None:
    console.sign_in("Mia Analyst")
    name = campaign().alert_id
    answer = console.post(f"/alerts/{name}/decide", {"form": form_of(console, f"/alerts/{name}"), "state": "confirmed",
                                                      "why": "read 12 <b>requests</b>"})  # fmt: skip
    assert (answer.status, answer.headers["location"]) == (303, f"/alerts/{name}")
    event = cases.case(client, KEYS, name).events[-1]
    assert (event.state, event.by, event.why, event.revision) == (
        "confirmed",
        "Mia Analyst",
        "read 12 <b>requests</b>",
        3,
    )
    page = console.ask(f"/alerts/{name}").text
    assert "read 12 &lt;b&gt;requests&lt;/b&gt;" in page
    fields = {"form": form_of(console, f"/alerts/{name}"), "state": "acknowledged", "why": "x"}
    again = console.post(f"/alerts/{name}/decide", fields)
    assert again.status == 409
    assert "it can become false_positive, appealed, closed" in again.text


def test_no_other_site_can_decide(console: Serving, client: redis.Redis) -> None:
    console.sign_in()
    name = campaign().alert_id
    path, fields = (
        f"/alerts/{name}/decide",
        {"state": "confirmed", "why": "because", "form": form_of(console, f"/alerts/{name}")},
    )
    refused = [
        console.post(path, fields, Origin="https://evil.example"),
        console.post(path, fields, Origin="null"),
        console.post(path, fields, Sec_Fetch_Site="cross-site"),
        console.post(path, fields, Sec_Fetch_Site="same-site"),
        console.post(path, fields | {"form": "0" * 64}),
        console.post(path, {k: v for k, v in fields.items() if k != "form"}),
        console.post(path, fields, Cookie=""),
        console.post(path, fields, Cookie="", **bearer(TOKEN)),  # a program has no name
        console.post("/logout", {}, Origin="https://evil.example"),
    ]
    assert [a.status for a in refused] == [403] * len(refused)
    other = Serving.__new__(Serving)
    other.url, other.session = console.url, ""
    other.sign_in("Noah")
    assert other.post(path, fields).status == 403  # a form of somebody else's session
    assert console.post(path, fields, Content_Type="text/plain").status in (403, 415)
    assert console.ask(path).status == 404  # a link decides nothing
    assert cases.case(client, KEYS, name).events == []
    assert console.post(path, fields).status == 303


def test_a_login_leads_nowhere_else(console: Serving) -> None:
    for after in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"):
        answer = console.post("/login", {"name": "Mia", "token": TOKEN, "after": after})
        assert answer.headers["location"] == "/"
    answer = console.post("/login", {"name": "Mia", "token": TOKEN, "after": "/x\r\nSet-Cookie: a=b"})
    assert "\n" not in answer.headers["location"]
    assert "a=b" not in answer.headers.get("set-cookie", "")
    assert console.post("/login", {"name": "M\u202eia", "token": TOKEN}).status == 403
    assert console.post("/login", {"name": "", "token": TOKEN}).status == 403


def test_a_report_of_the_console_verifies(console: Serving, tmp_path: Path) -> None:
    console.sign_in()
    answer = console.ask(f"/reports/{campaign().alert_id}.json")
    assert answer.headers["content-disposition"].startswith('attachment; filename="INC-')
    held = json.loads(answer.body)
    assert verify(held, {"e1": Key("e1", b"s" * 32)}).intact
    assert held["made"]["by"] == "Mia"
    assert "Evidence report" in console.ask(f"/reports/{campaign().alert_id}.html").text


def test_each_reading_of_a_case_is_noted_by_name(console: Serving, client: redis.Redis) -> None:
    console.sign_in("Mia Analyst")
    before = len(cases.readings(client, KEYS))
    console.ask("/")
    assert len(cases.readings(client, KEYS)) == before
    console.ask("/alerts/a-1")
    console.ask("/accounts/a-1")
    console.ask(f"/reports/{campaign().alert_id}.html")
    noted = cases.readings(client, KEYS)[: -before or None]
    assert [(r.by, r.action, r.case, r.via) for r in reversed(noted)] == [
        ("Mia Analyst", "page", lone(1, 1).alert_id, "page"), ("Mia Analyst", "account", "a-1", "page"),
        ("Mia Analyst", "report", campaign().alert_id, "page")]  # fmt: skip
    assert "Mia Analyst" in console.ask("/readings").text


def test_hostile_ids_are_text_and_lead_back_to_themselves(redis_url: str, client: redis.Redis) -> None:
    sink = RedisSink(RedisOptions(url=redis_url))
    odd = lone(1, 5, subject=HOSTILE, accounts=[HOSTILE], exemplars=[HOSTILE], rules=[HOSTILE, "trace-harvest"])
    within = campaign(1, accounts=[HOSTILE], members={HOSTILE: Member("core", 1.0, ["content"])}, subject=HOSTILE + "c")
    sink.send([odd, within])
    sink.close()
    with Serving(settings(redis_url)) as serving:
        serving.sign_in(name="<b>Mia</b>")
        for path in ("/", "/campaigns", "/rules", "/readings", f"/alerts/{odd.alert_id}", f"/alerts/{within.alert_id}",
                     f"/accounts/{quote(HOSTILE, safe='')}", f"/accounts/{quote('<script>', safe='')}",
                     f"/alerts/{quote('<script>x', safe='')}", "/<script>", "/?severity=<script>"):  # fmt: skip
            answer = serving.ask(path)
            page = Page(answer.text)
            assert not {"script", "img"} & {t for t, _ in page.tags}, path
            assert "<script" not in answer.text
            assert not [a for _, a in page.tags if any(n.startswith("on") for n in a)]
            assert "\u202e" not in answer.text
            for link in page.links():
                assert re.match(r"/|#|https://logs\.example/r/", link), link
        page = Page(serving.ask(f"/alerts/{within.alert_id}").text)
        back = next(link for link in page.links() if link.startswith("/accounts/"))
        assert serving.ask(back).status == 200
        assert (
            HOSTILE
            in json.loads(serving.ask(f"/v1/accounts/{quote(HOSTILE, safe='')}", **bearer(TOKEN)).body)["account"]
        )


def test_without_a_token_it_reads_on_loopback_names_and_decides_nothing(filled: str) -> None:
    with Serving(settings(filled, token=None, gateway_token=None)) as serving:
        assert serving.ask("/").status == 200
        assert serving.ask("/v1/verdict/a-1").status == 200
        port = urlsplit(serving.url).port
        assert serving.ask("/", Host=f"localhost:{port}").status == 200
        assert serving.ask("/", Host=f"evil.example:{port}").status == 421  # DNS rebinding
        assert serving.ask("/v1/alerts", Host="evil.example").status == 421
        assert "sign in to decide" in serving.ask("/alerts/a-1").text
        assert (
            serving.post(f"/alerts/{lone().alert_id}/decide", {"state": "confirmed", "why": "x", "form": "x"}).status
            == 403
        )
    with pytest.raises(ValueError, match="is needed to listen on"):
        ConsoleSettings(host="0.0.0.0")
    with Serving(settings(filled, token=None)) as serving:  # the gateways' token alone
        assert serving.ask("/v1/verdict/a-1").status == 401
        assert serving.ask("/v1/verdict/a-1", **bearer(GATEWAY)).status == 200


# ------------------------------------------------------------------------------------------------------ HTTP


def raw(serving: Serving, sent: bytes) -> bytes:
    parts = urlsplit(serving.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as sock:
        sock.sendall(sent)
        received = b""
        while chunk := sock.recv(65_536):
            received += chunk
        return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: b\r\n\r\n", 400),
        (b"POST /login HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /login HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /login HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /login HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /%ff HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nConnection: close\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_what_is_not_proper_http_is_refused_and_not_echoed(console: Serving, sent: bytes, status: int) -> None:
    received = raw(console, sent)
    assert received.startswith(b"HTTP/1.1 %d " % status), received[:200]
    assert b"xxxx" not in received


def test_one_connection_serves_many_and_a_head_has_no_body(console: Serving) -> None:
    auth = f"Authorization: Bearer {GATEWAY}\r\n".encode()
    received = raw(console, (b"GET /v1/verdict/a-1 HTTP/1.1\r\n" + auth + b"\r\n") * 3
                   + b"HEAD /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")  # fmt: skip
    assert received.count(b"HTTP/1.1 200 OK") == 4
    assert received.endswith(b"\r\n\r\n")
    assert b"alive" not in received


def test_an_address_that_is_taken_is_said_so(filled: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = settings(filled, port=taken.getsockname()[1])
        serving = Serving(given)
        with pytest.raises(BadInput, match="choose another"), serving:
            pass


def test_a_verdict_that_was_taken_back_is_gone_at_once(console: Serving, client: redis.Redis) -> None:
    def now() -> str:
        return str(json.loads(console.ask("/v1/verdict/a-1", **bearer(GATEWAY)).body)["verdict"])

    assert now() == "review"
    console.sign_in()
    name = lone(1, 1).alert_id
    fields = {"form": form_of(console, f"/alerts/{name}"), "state": "false_positive", "why": "a harness of ours"}
    assert console.post(f"/alerts/{name}/decide", fields).status == 303
    assert now() == "none"
    assert readers.verdict(client, KEYS, "a-1") is None
