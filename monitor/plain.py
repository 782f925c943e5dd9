"""Text of others shown to a person: without what a terminal or Rich would obey. Knows no format of ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text


def clean(text: str) -> str:
    """Without control, direction and line characters, which a terminal would obey; each becomes U+FFFD."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def cell(value: object) -> Text:
    """A cell of a Rich table that is text: no markup, no ``:emoji:``, no control characters."""
    from rich.text import Text

    return Text(clean(str(value)))


def json_text(value: Any, indent: int | None = 2) -> str:
    """JSON that a terminal only shows: what is not printable is escaped, and readable letters of any language stay.

    The same value for a program; a line without ``indent``.
    """
    return json_shown(json.dumps(value, indent=indent, ensure_ascii=False))


def json_shown(text: str) -> str:
    """JSON text with all that is not printable, which can only stand inside its strings, as ``\\uXXXX``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
