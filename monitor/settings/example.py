"""Writes the settings file that shows every knob: its meaning as a comment, its default as the value."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from .base import Section
from .loading import masked, section_of
from .root import Settings

_WIDTH = 118
_HEAD = """\
# Every setting of the monitor with its default; `monitor config example` writes this file. Keep what you change.
# Any of it can come from the environment: MONITOR__KAFKA__TOPIC=x sets kafka.topic, a list is written with commas.
# A secret belongs in a file: name it in the *_file setting beside. Paths are relative to the working directory.
"""


def example_yaml() -> str:
    """The file's text. Loading it gives ``Settings()``."""
    return _HEAD + "\n".join(_section(Settings, masked(Settings()), 0)) + "\n"


def _section(section: type[Section], values: dict[str, Any], indent: int) -> Iterator[str]:
    pad = "  " * indent
    for name, field in section.model_fields.items():
        if indent == 0:
            yield ""
        yield from _comment(_describe(section, name, field.description or ""), pad)
        value = values[name]
        inner = section_of(field.annotation)
        if inner is not None and isinstance(value, dict):
            yield f"{pad}{name}:"
            yield from _section(inner, value, indent + 1)
            continue
        yield f"{pad}{name}: {_scalar(value)}"
        if inner is not None:
            for i, (key, entry) in enumerate(inner.model_fields.items()):
                lead = "- " if i == 0 else "  "
                yield from _comment(entry.description or "", f"{pad}#     ")
                yield f"{pad}#   {lead}{key}: {_hint(key)}"


def _describe(section: type[Section], name: str, description: str) -> str:
    schema = section.model_json_schema()["properties"][name]
    items = schema.get("items", {}).get("enum")
    options = items or schema.get("enum") or next((a["enum"] for a in schema.get("anyOf", ()) if "enum" in a), None)
    if not options or len(options) == 1:
        return description
    return f"{description} {'Any' if items else 'One'} of {', '.join(str(option) for option in options)}."


def _comment(text: str, pad: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH - len(pad)):
        yield f"{pad}# {line}"


def _hint(key: str) -> str:
    hints = {"id": "k1", "secret_file": "/run/secrets/monitor-key", "active_from": "2026-01-01T00:00:00Z"}
    return hints.get(key, "null")


def _scalar(value: Any) -> str:
    """JSON, which YAML contains; a string without quotes where none are needed."""
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    if isinstance(value, str) and value.replace("-", "").replace("_", "").replace(".", "").isalpha():
        return value
    return json.dumps(value)
