"""HTML and SVG by construction: whatever is a plain string is escaped, whatever is markup was made here.

Ids come from outside and may hold anything. Besides the escaping, characters that can't be seen or that turn the
direction of writing are replaced, so that an id can't look like another one.
"""

from __future__ import annotations

import html
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Markup(str):
    """Text that is markup already. Only this module and constants make one."""

    __slots__ = ()


Child = Any
"""A string, a number, :class:`Markup`, None (nothing), or a list of these."""


def clean(text: str) -> str:
    """The text with control, invisible and direction characters replaced."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def escaped(child: Child) -> str:
    """A child as markup."""
    if child is None or child is False:
        return ""
    if isinstance(child, Markup):
        return str(child)
    if isinstance(child, (list, tuple)):
        return "".join(map(escaped, child))
    return html.escape(clean(str(child)), quote=True)


def el(tag: str, *children: Child, **attributes: Any) -> Markup:
    """An element. ``class_`` is ``class``, ``aria_label`` is ``aria-label``; None and False leave an attribute out."""
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        word = name.rstrip("_").replace("_", "-")
        parts.append(word if value is True else f'{word}="{escaped(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if tag in VOID else f"{opening}{escaped(list(children))}</{tag}>")


def join(*children: Child) -> Markup:
    """Children one after another."""
    return Markup(escaped(list(children)))


def path(*parts: str) -> str:
    """A path of this site: each part percent-encoded as a whole."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def when(seconds: float | None) -> str:
    """Event time in UTC to the second; what is out of range is said so."""
    if seconds is None:
        return "not known"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "out of range"


def number(value: Any) -> str:
    """A value for a person: thousands set apart, four digits of a fraction, a dash for what is not known."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def table(columns: list[str], rows: list[list[Child]], *, caption: str, numeric: tuple[int, ...] = ()) -> Markup:
    """A table with a caption for screen readers; ``numeric`` columns are set to the right."""
    kinds = ["n" if i in numeric else None for i in range(len(columns))]
    head = [el("th", name, scope="col", class_=kind) for name, kind in zip(columns, kinds, strict=True)]
    body = [el("tr", [el("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)]) for row in rows]
    made = el("table", el("caption", caption, class_="sr"), el("thead", el("tr", head)), el("tbody", body))
    return el("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def definitions(pairs: list[tuple[str, Child]]) -> Markup:
    """A list of names and values."""
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in pairs], class_="facts")


def prose(text: str) -> Markup:
    """Text with what stands between backticks as code."""
    return join(*(el("code", part) if i % 2 else part for i, part in enumerate(text.split("`"))))


def card(title: str, *children: Child, id_: str | None = None, note: str | None = None, class_: str = "card") -> Markup:
    """A section with a heading."""
    return el(
        "section",
        el("h2", title),
        el("p", prose(note), class_="note") if note else None,
        *children,
        class_=class_,
        id=id_,
    )


def badge(word: str, kind: str = "plain") -> Markup:
    """A word in a coloured frame; the word alone says it, the colour helps."""
    return el("span", word, class_=f"badge {kind}")


def severity(word: str) -> Markup:
    """A severity as a badge."""
    known = word in {"info", "low", "medium", "high", "critical"}
    return badge(word, f"s-{word}" if known else "plain")
