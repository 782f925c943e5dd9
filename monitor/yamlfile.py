"""Reads YAML that a person wrote, keeping the line of every key and value. Knows nothing of what it means.

The scalars are those of the YAML 1.2 core schema: only ``true`` and ``false`` are booleans, so that the
country ``no``, the key ``on`` and the time ``12:30`` stay what was written, and dates stay strings.
Duplicate keys, keys that are not strings, tags, several documents in one file, and files, nestings or alias
expansions over a cap are refused, each with its line: a config file is small, so these bounds cost nobody
anything, while nine nested aliases of nine items each are 387 million nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import BadInput, Problem

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 64

Key = str | int
"""One step of a path: a mapping's key or a sequence's index."""


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the implicit scalars of YAML 1.2's core schema (PyYAML's own are those of 1.1)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name


_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])
_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf)$|^\.nan$"),
    list("-+.0123456789"),
)
_SCALARS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands. ``value`` is a scalar, ``dict[str, Node]`` or ``list[Node]``; lines start at 1.

    ``key_lines`` holds the line of each key of a mapping (its value may begin on a later one).
    """

    file: str
    line: int
    value: Any
    key_lines: dict[str, int]

    @property
    def data(self) -> Any:
        """The value as plain dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.data for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.data for child in self.value]
        return self.value

    def at(self, *path: Key) -> Node | None:
        """The node at a path, or None."""
        node: Node | None = self
        for step in path:
            if node is None:
                return None
            if isinstance(node.value, dict) and isinstance(step, str):
                node = node.value.get(step)
            elif isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
                node = node.value[step]
            else:
                return None
        return node

    def line_of(self, *path: Key) -> int:
        """Line of the key at a path; where the path ends early, of the deepest part of it that exists."""
        node, line = self, self.line
        for step in path:
            if isinstance(node.value, dict) and isinstance(step, str) and step in node.value:
                line, node = node.key_lines[step], node.value[step]
            elif isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
                node = node.value[step]
                line = node.line
            else:
                break
        return line

    def problem(self, message: str, *path: Key) -> Problem:
        """A :class:`Problem` at a path of this node."""
        return Problem(self.file, self.line_of(*path), message, dotted(path) or None)

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and nodes of a mapping; nothing for any other value."""
        if isinstance(self.value, dict):
            yield from self.value.items()


def dotted(path: tuple[Key, ...]) -> str:
    """``("keys", 0, "id")`` as ``keys[0].id``."""
    out = ""
    for step in path:
        out += f"[{step}]" if isinstance(step, int) else (f".{step}" if out else step)
    return out


def load(path: Path | str) -> Node:
    """Read one YAML document. Raises :class:`BadInput` with every problem of its form, each with its line."""
    file = str(path)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput([Problem(file, 0, f"can't be read: {error.strerror or error}")]) from None
    if len(raw) > MAX_BYTES:
        raise BadInput([Problem(file, 0, f"is over {MAX_BYTES} bytes: split it, or check that it is the right file")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadInput([Problem(file, line, "is not UTF-8: save it as UTF-8")]) from None
    return parse(text, file)


def parse(text: str, file: str = "<text>") -> Node:
    """As :func:`load`, from a string. An empty document is a node whose value is None, on line 1."""
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = error.problem or error.context or "is not YAML"
        raise BadInput([Problem(file, mark.line + 1 if mark else 0, f"is not valid YAML: {message}")]) from None
    except yaml.YAMLError as error:  # an unprintable character has no mark, only a position
        position = getattr(error, "position", None)
        line = text[:position].count("\n") + 1 if isinstance(position, int) else 0
        raise BadInput([Problem(file, line, "has a character that YAML does not allow")]) from None
    except RecursionError:
        raise BadInput([Problem(file, 0, f"nests deeper than {MAX_DEPTH} levels")]) from None
    if root is None:
        return Node(file, 1, None, {})
    reader = _Reader(file)
    node = reader.convert(root, 0)
    if reader.problems:
        raise BadInput(reader.problems)
    return node


def _compose(text: str) -> yaml.Node | None:
    loader = _CoreLoader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._seen = 0
        self._full = False
        self._scalar = _CoreLoader("")

    def convert(self, node: yaml.Node, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._seen += 1
        if self._full:
            return Node(self.file, line, None, {})
        if depth > MAX_DEPTH or self._seen > MAX_NODES:
            self._full = True
            what = f"{MAX_DEPTH} levels deep" if depth > MAX_DEPTH else f"{MAX_NODES} values"
            self._bad(line, f"expands to more than {what}: write it without nested aliases")
            return Node(self.file, line, None, {})
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, line, depth)
        if isinstance(node, yaml.SequenceNode):
            return Node(self.file, line, [self.convert(child, depth + 1) for child in node.value], {})
        if node.tag not in _SCALARS:
            self._bad(line, f"has the tag {node.tag!r}: write a plain value")
            return Node(self.file, line, None, {})
        try:
            value = self._scalar.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            self._bad(line, f"is not of the type {node.tag.rsplit(':', 1)[-1]}")
            value = None
        return Node(self.file, line, value, {})

    def _mapping(self, node: yaml.MappingNode, line: int, depth: int) -> Node:
        children: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        for key, child in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "this"
                self._bad(at, f"the key {shown} is not a string: quote it")
                continue
            if key.value in children:
                self._bad(
                    at, f"the key {key.value!r} is written twice (first on line {key_lines[key.value]}): keep one"
                )
                continue
            key_lines[key.value] = at
            children[key.value] = self.convert(child, depth + 1)
        return Node(self.file, line, children, key_lines)

    def _bad(self, line: int, message: str) -> None:
        self.problems.append(Problem(self.file, line, message))
