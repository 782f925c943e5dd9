"""Where a value lies in a foreign record: ``metadata/user_api_key_hash``, ``$request/messages``, ``ai/?/usage/cost``.

A path is steps joined by ``/`` (``~1`` stands for a slash within a key, because attribute names are full of dots).
A step is a key of an object, or a number for an item of an array (negative from its end). ``*`` collects what
all children give, ``?`` is the first child that gives anything. A step into a string reads it as JSON: gateways
log bodies so. ``$request`` and ``$response`` at the start name the bodies that the mapping found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from monitor.decode.tolerant import mend

ROOTS = ("$request", "$response")
EACH, ANY = "*", "?"
_NESTED_BYTES = 1 << 24

read_plain = msgspec.json.Decoder().decode
"""One JSON value, not mended. Raises ValueError or RecursionError."""

Roots = Mapping[str, Any]
"""Item (under ``""``) and the bodies (under their names) of one record."""
Getter = Callable[[Roots], Any]


def read_json(value: bytes | str) -> Any:
    """One JSON value, mended where its bytes or escapes are no text. Raises ValueError or RecursionError."""
    try:
        return read_plain(value)
    except msgspec.DecodeError:
        raw = value.encode("utf-8", "replace") if isinstance(value, str) else value
        return read_plain(mend(raw))
    except UnicodeError:
        raw = value.encode("utf-8", "replace") if isinstance(value, str) else value
        return read_plain(mend(raw))


def parse(path: str) -> tuple[str, tuple[str, ...]]:
    """Root and steps of a path; ValueError with the remedy where it is none."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")]
    if not all(steps):
        raise ValueError("has an empty step: write keys joined by '/', without one at either end")
    root = ""
    if steps[0].startswith("$"):
        root = steps.pop(0)
        if root not in ROOTS:
            raise ValueError(f"begins with {root}: there are {' and '.join(ROOTS)}")
        if not steps:
            raise ValueError("names a whole body: say what in it")
    return root, tuple(steps)


def getter(path: str) -> Getter:
    """A function from the roots of a record to the value at ``path``; None where there is none."""
    root, steps = parse(path)
    if len(steps) == 1 and steps[0] not in (EACH, ANY):
        key = steps[0]

        def one(roots: Roots) -> Any:
            node = roots[root]
            return node.get(key) if type(node) is dict else walk(node, steps)

        return one
    if len(steps) == 2 and not {EACH, ANY}.intersection(steps):
        outer, key = steps

        def two(roots: Roots) -> Any:  # most paths are so, and a mapping tries a hundred of them for each record
            node = roots[root]
            if type(node) is dict:
                node = node.get(outer)
                if type(node) is dict:
                    return node.get(key)
                if node is None:
                    return None
            return walk(roots[root], steps)

        return two
    return lambda roots: walk(roots[root], steps)


def walk(node: Any, steps: tuple[str, ...]) -> Any:
    """The value at the end of ``steps`` from ``node``; None where a step leads nowhere."""
    for i, step in enumerate(steps):
        if type(node) is dict and step in node:
            node = node[step]
            continue
        node = opened(node)
        if step == EACH:
            found = [value for child in _children(node) if (value := walk(child, steps[i + 1 :])) is not None]
            return found or None
        if step == ANY:
            following = steps[i + 1 :]
            return next((value for child in _children(node) if (value := walk(child, following)) is not None), None)
        if type(node) is dict:
            node = node.get(step)
        elif type(node) is list:
            node = _item(node, step)
        else:
            return None
        if node is None:
            return None
    return node


def opened(node: Any) -> Any:
    """A string that holds a JSON object or array as that; anything else as it is."""
    if type(node) is str and node[:1] in ("{", "[") and len(node) <= _NESTED_BYTES:
        try:
            return read_json(node)
        except (ValueError, RecursionError):
            return node
    return node


def _children(node: Any) -> list[Any]:
    if type(node) is dict:
        return list(node.values())
    return node if type(node) is list else []


def _item(items: list[Any], step: str) -> Any:
    if not step.removeprefix("-").isdecimal() or len(step) > 6:
        return None
    index = int(step)
    return items[index] if -len(items) <= index < len(items) else None


def without(record: Any, steps: tuple[str, ...]) -> None:
    """Take what lies at ``steps`` out of ``record`` in place."""
    if not steps:
        return
    step, *rest = steps
    if step in (EACH, ANY):
        for child in _children(record):
            without(child, tuple(rest))
        if not rest and type(record) in (dict, list):
            record.clear()
        return
    if type(record) is dict and step in record:
        if rest:
            without(record[step], tuple(rest))
        else:
            del record[step]
    elif type(record) is list and rest and (child := _item(record, step)) is not None:
        without(child, tuple(rest))
