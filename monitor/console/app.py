"""The server of `monitor serve`: which address gives what, and to whom.

Verdicts are answered on the loop itself, one GET each; everything else works with Redis on a few threads, so that a
page never waits in front of a gateway. Where Redis is away a verdict is 503 and a decision to let pass (fail open).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from monitor.casework import Desk, Reader
from monitor.errors import BadInput, DependencyDown, MonitorError, Problem
from monitor.evidence import render
from monitor.evidence.style import CSS
from monitor.settings import Settings
from monitor.store.redis_link import RedisOptions
from monitor.store.verdict_reader import VerdictReader

from . import api, pages, site, tables
from .access import Access, Visitor
from .http import BadRequest, Request, Response, Server

_NOTHING = {"verdict": "none", "severity": None, "alert_id": None, "until": None}
_FOREVER = (("Cache-Control", "public, max-age=31536000, immutable"),)
_THREADS = 4


class Console:
    """Serves between :meth:`start` and :meth:`stop`, on the running loop. ``clock`` gives epoch seconds."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time):
        self._settings = settings
        self._clock = clock
        self._access = Access(settings.console, clock)
        self._desk = Desk(settings, clock)
        self._verdicts = VerdictReader(RedisOptions.of(settings.redis), self._desk.keys)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="page")
        self._server = Server(self._answer, settings.console.host, settings.console.port)
        self._deny = frozenset(settings.console.deny)

    async def start(self) -> str:
        """Listen; the URL. Raises BadInput where the address is taken or not ours, or the rules can't be used."""
        self._desk.rule_notes()
        try:
            return await self._server.start()
        except (OSError, OverflowError) as error:
            place = f"{self._settings.console.host}:{self._settings.console.port}"
            message = f"can't listen on {place} ({getattr(error, 'strerror', None) or 'not an address'})"
            raise BadInput([Problem("settings", 0, f"{message}: choose another", "console.port")]) from None

    async def stop(self) -> None:
        """Stop listening, give connections back."""
        await self._server.stop()
        await self._verdicts.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._desk.close()

    async def _answer(self, request: Request) -> Response:
        parts = request.parts
        if parts[:2] == ("v1", "authz"):
            return await self._authz(request)
        if request.method not in ("GET", "HEAD", "POST"):
            raise BadRequest(405, "there are GET, HEAD and POST")
        if request.method == "POST":
            return await self._post(request)
        if parts[:2] == ("v1", "verdict") and len(parts) == 3:
            return await self._asked(request, self._verdicts.get, {"account": parts[2], **_NOTHING}, parts[2])
        if parts[:2] == ("v1", "decision") and len(parts) == 3:
            return await self._asked(request, self._verdicts.enforced, {"action": "none"}, parts[2])
        if len(parts) == 1 and (fixed := self._fixed(request.path)) is not None:
            return fixed
        if parts == ("readyz",):
            await self._verdicts.get("-")
            return Response(200, b"ready\n")
        visitor = self._access.visitor(request)
        if visitor is None or visitor.role == "gateway":
            return _refused(request)
        return await self._threaded(self._get, request, visitor)

    async def _threaded(
        self, work: Callable[[Request, Visitor], Response], request: Request, visitor: Visitor
    ) -> Response:
        def run() -> Response:
            try:
                return work(request, visitor)
            except BadRequest as error:
                return _failed(request, error.status, "That can't be", str(error), visitor)
            except DependencyDown as error:
                return _failed(request, 503, "Redis does not answer", str(error), visitor)
            except MonitorError as error:
                status = 409 if request.method == "POST" else 404
                return _failed(request, status, "That can't be", str(error), visitor)

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    # ------------------------------------------------------------------------------------------------ gateways

    async def _asked(
        self, request: Request, ask: Callable[[str], Awaitable[bytes | None]], nothing: dict[str, Any], account: str
    ) -> Response:
        if not self._access.may_ask(self._access.visitor(request)):
            return _json(401, {"error": "send a token: Authorization: Bearer …"}, (("WWW-Authenticate", "Bearer"),))
        try:
            held = await ask(account)
        except DependencyDown as error:
            return _json(503, {"error": str(error), "advice": "let the request pass"}, (("Retry-After", "1"),))
        return _json(200, nothing) if held is None else Response(200, held, "application/json")

    async def _authz(self, request: Request) -> Response:
        """For Envoy's ext_authz and the like: the account in a header, the answer in the status and a header."""
        if not self._access.may_ask(self._access.visitor(request)):
            return Response(401, b"send a token\n")
        account = request.headers.get(self._settings.console.account_header, "")
        if not account:
            return Response(200, b"", headers=(("X-Abuse-Verdict", "unknown"),))
        try:
            held = await self._verdicts.get(account)
        except DependencyDown:
            return Response(200, b"", headers=(("X-Abuse-Verdict", "unknown"),))
        said = str(json.loads(held)["verdict"]) if held is not None else "none"
        return Response(403 if said in self._deny else 200, b"", headers=(("X-Abuse-Verdict", said),))

    # -------------------------------------------------------------------------------------------------- people

    def _fixed(self, path: str) -> Response | None:
        if path == site.STYLE:
            return Response(200, CSS.encode(), "text/css; charset=utf-8", _FOREVER)
        if path == "/icon.svg":
            return Response(200, site.ICON, "image/svg+xml", _FOREVER)
        if path == "/healthz":
            return Response(200, b"alive\n")
        if path == "/login":
            return site.sign_in(False, "/")
        return None

    def _get(self, request: Request, visitor: Visitor) -> Response:
        match request.parts:
            case ("v1", *rest):
                return self._api(tuple(rest), request.query, Reader(visitor.name or visitor.role, "api"))
            case ("reports", name):
                return self._report(name, Reader(visitor.name or visitor.role, "page"))
        title, body, at = self._page(request, visitor)
        refresh = 30 if request.query.get("refresh") == "30" else None
        token = self._access.form_token(visitor)
        return site.page(title, *body, visitor=visitor, at=at, form_token=token, refresh=refresh)

    def _page(self, request: Request, visitor: Visitor) -> tuple[str, list[Any], str]:
        reader = Reader(visitor.name or visitor.role, "page")
        match request.parts:
            case ():
                return *pages.alerts(self._desk, request.query), "/"
            case ("campaigns",):
                return *pages.campaigns(self._desk), "/campaigns"
            case ("alerts", name):
                return *pages.case(self._desk, reader, name, visitor, self._access.form_token(visitor)), ""
            case ("accounts", name):
                return *pages.account(self._desk, reader, name), ""
            case ("rules",):
                return *pages.rules(self._desk), "/rules"
            case ("rules", name) if name in self._desk.rule_notes():
                return *pages.rule(self._desk, self._desk.rule_notes()[name]), ""
            case ("readings",):
                return *pages.readings(self._desk), "/readings"
        raise MonitorError("there is no such page")

    def _api(self, parts: tuple[str, ...], query: Mapping[str, str], reader: Reader) -> Response:
        match parts:
            case ("alerts",):
                api.only(query, *api.FILTERS)
                return _json(200, {"alerts": api.rows(self._desk, api.filters(query), api.limit(query))})
            case ("campaigns",):
                api.only(query, *api.FILTERS)
                asked = api.filters(query) | {"kind": "campaign"}
                return _json(200, {"campaigns": api.rows(self._desk, asked, api.limit(query))})
            case ("accounts",):
                api.only(query, "limit")
                return _json(200, {"accounts": tables.accounts(self._desk, api.limit(query))})
            case ("rules",):
                return _json(200, {"rules": tables.rules(self._desk)})
            case ("quality",):
                api.only(query, "weeks")
                return _json(200, tables.quality(self._desk, tables.weeks(query), self._clock()))
            case ("alerts", name):
                return _json(200, api.one(self._desk, reader, name))
            case ("accounts", name):
                return _json(200, api.account(self._desk, reader, name))
        raise MonitorError(
            "there are /v1/verdict, /v1/decision and /v1/accounts/{account}, /v1/accounts, /v1/alerts, "
            "/v1/alerts/{id}, /v1/campaigns, /v1/rules and /v1/quality"
        )

    def _report(self, name: str, reader: Reader) -> Response:
        alert_id, dot, ending = name.rpartition(".")
        if not dot or ending not in ("html", "json"):
            raise MonitorError("a report ends in .html or .json")
        bundle = self._desk.bundle(reader, "report", self._desk.find(alert_id))
        attached = (("Content-Disposition", f'attachment; filename="{bundle["incident"]}.{ending}"'),)
        if ending == "html":
            return Response(200, render(bundle).encode(), "text/html; charset=utf-8", attached)
        text = json.dumps(bundle, ensure_ascii=False, indent=1) + "\n"
        return Response(200, text.encode("utf-8", "surrogatepass"), "application/json", attached)

    async def _post(self, request: Request) -> Response:
        if request.parts == ("login",):
            return await self._login(request)
        visitor = self._access.visitor(request)
        if visitor is None or not visitor.decides:
            return _failed(request, 403, "You can't decide here", "Sign in first: a decision has a name.", visitor)
        try:
            self._access.check_form(request, visitor, request.form().get("form", ""))
        except BadRequest as error:
            return _failed(request, error.status, "That can't be", str(error), visitor)
        if request.parts == ("logout",):
            return Response(303, headers=(("Location", "/login"), ("Set-Cookie", self._access.sign_out())))
        return await self._threaded(self._decide, request, visitor)

    async def _login(self, request: Request) -> Response:
        form = request.form()
        cookie = self._access.sign_in(form.get("name", ""), form.get("token", ""))
        after = form.get("after", "/")
        if cookie is None:
            await asyncio.sleep(0.5)
            return site.sign_in(True, after)
        place = after if after.startswith("/") and not after.startswith(("//", "/\\")) else "/"
        return Response(303, headers=(("Location", quote(place, safe="/?=&%-._~")), ("Set-Cookie", cookie)))

    def _decide(self, request: Request, visitor: Visitor) -> Response:
        match request.parts:
            case ("alerts", name, "decide"):
                form, reader = request.form(), Reader(visitor.name or "", "page")
                alert_id = self._desk.find(name)
                at = round(self._clock(), 3)
                self._desk.decide(reader, alert_id, form.get("state", ""), why=form.get("why", ""), at=at)
                return Response(303, headers=(("Location", f"/alerts/{quote(alert_id, safe='')}"),))
        raise MonitorError("there is no such form")


def _json(status: int, value: Any, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(
        status, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), "application/json", headers
    )


def _failed(request: Request, status: int, title: str, said: str, visitor: Visitor | None) -> Response:
    if request.parts[:1] == ("v1",):
        return _json(status, {"error": said})
    return site.failed(status, title, said, visitor)


def _refused(request: Request) -> Response:
    if request.parts[:1] == ("v1",):
        return _json(401, {"error": "send a token: Authorization: Bearer …"}, (("WWW-Authenticate", "Bearer"),))
    return site.sign_in(False, request.path)
