"""The frame around every page: head, navigation, policy. Works without scripts, because there are none."""

from __future__ import annotations

import hashlib

from monitor.evidence.markup import Child, Markup, card, el, join, prose
from monitor.evidence.style import CSS

from .access import Visitor
from .http import Response

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("Content-Security-Policy", POLICY),
    ("Referrer-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
STYLE = f"/style-{hashlib.sha256(CSS.encode()).hexdigest()[:12]}.css"
"""Where the style sheet is; its name changes with it, so it may be kept for ever."""

_PLACES = (("/", "Alerts"), ("/campaigns", "Campaigns"), ("/rules", "Rules"), ("/readings", "Readings"))


def page(
    title: str,
    *body: Child,
    visitor: Visitor,
    at: str = "",
    form_token: str = "",
    status: int = 200,
    refresh: int | None = None,
) -> Response:
    """A whole page as an answer. ``at``: the place in the navigation; ``refresh``: reload after so many seconds."""
    links = [el("a", name, href=path, aria_current="page" if path == at else None) for path, name in _PLACES]
    navigation = el("nav", links, aria_label="Main")
    head = join(
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="refresh", content=str(refresh)) if refresh else None,
        el("title", f"{title} · API abuse monitor"),
        el("link", rel="stylesheet", href=STYLE),
        el("link", rel="icon", href="/icon.svg", type="image/svg+xml"),
    )
    made = join(
        el("a", "To the content", href="#content", class_="skip"),
        el(
            "header",
            el("div", el("strong", "API abuse monitor"), navigation, _who(visitor, form_token)),
            class_="top",
        ),
        el("main", el("h1", title), *body, id="content"),
        el("footer", "The monitor advises; people decide. No text of a request is kept or shown here."),
    )
    text = f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{made}</body></html>\n'
    return Response(status, text.encode("utf-8", "replace"), "text/html; charset=utf-8", HEADERS)


def _who(visitor: Visitor, form_token: str) -> Markup:
    if visitor.session is None:
        return el("div", "read only: no token is set" if visitor.role == "visitor" else "", class_="who")
    leave = el(
        "form",
        el("input", type="hidden", name="form", value=form_token),
        el("button", "Sign out", class_="second"),
        method="post",
        action="/logout",
    )
    return el("div", el("span", visitor.name), leave, class_="who")


def failed(status: int, title: str, said: str, visitor: Visitor | None) -> Response:
    """An error as a page: what happened and what to do."""
    back = el("p", el("a", "Back to the alerts", href="/"))
    return page(
        title, card("What happened", el("p", prose(said)), back), visitor=visitor or Visitor("nobody"), status=status
    )


def sign_in(wrong: bool, after: str) -> Response:
    """The form that asks who you are."""
    form = el(
        "form",
        el("p", "Your name is written beside each decision and each reading.", class_="note"),
        el("p", "Name or token is not right: try again.", class_="bad", role="alert") if wrong else None,
        el("label", "Your name", for_="name"),
        el("input", id="name", name="name", required=True, maxlength="100", autocomplete="username"),
        el("label", "Token (console.token_file)", for_="token"),
        el("input", id="token", name="token", type="password", required=True, autocomplete="current-password"),
        el("input", type="hidden", name="after", value=after),
        el("div", el("button", "Sign in"), class_="buttons"),
        method="post",
        action="/login",
    )
    made = card("Who are you?", form, class_="card narrow")
    return page("Sign in", made, visitor=Visitor("nobody"), status=403 if wrong else 401)


ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1f5fae"/>'
    b'<g stroke="#fff" stroke-width="2"><path d="M16 16 7 8M16 16l9-7M16 16l-8 8M16 16l9 7"/></g>'
    b'<circle cx="16" cy="16" r="5" fill="#fff"/></svg>'
)
