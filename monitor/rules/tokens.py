"""Splits the text of a CEL condition into tokens. Knows neither grammar nor names.

The literals are CEL's (https://github.com/google/cel-spec, "Lexical analysis"): decimal and hexadecimal integers,
doubles, strings in either quote with CEL's escapes, and raw strings. Byte strings, triple quotes and unsigned
integers are refused, because no column is of their type.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Literal

MAX_CHARS = 4096
"""Longest condition. The longest rule of ours has 600 characters; the bound keeps compiling cheap."""

TokenKind = Literal["number", "string", "name", "op", "end"]

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n]|//[^\n]*)+)
      | (?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+\.[0-9]+|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?)(?P<suffix>[A-Za-z_]\w*)?
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<op>\|\||&&|==|!=|<=|>=|[-+*/%!<>?:()\[\],.])""",
    re.VERBOSE,
)
_RAW = re.compile(r"""[rR](?:"[^"\n]*"|'[^'\n]*')""")
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\?\"'`])|[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2}))"
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_REMEDY = {
    "=": "write == to compare",
    "&": "write && for and",
    "|": "write || for or",
    '"': "the string is not closed",
    "'": "the string is not closed",
    "{": "maps are not supported",
    ";": "a condition is one expression",
}


class CelError(ValueError):
    """A condition that can't be compiled: ``position`` counts characters from 0."""

    def __init__(self, message: str, position: int):
        super().__init__(message)
        self.message = message
        self.position = position


@dataclass(frozen=True, slots=True)
class Token:
    """``value`` is a float for numbers, the decoded text for strings, otherwise the characters themselves."""

    kind: TokenKind
    value: str | float
    position: int


def tokenize(source: str) -> list[Token]:
    """Tokens of ``source``, closed by one of kind ``end``. Raises :class:`CelError` at the first bad character."""
    if len(source) > MAX_CHARS:
        raise CelError(f"is {len(source)} characters long, {MAX_CHARS} are allowed: move parts into macros", MAX_CHARS)
    tokens: list[Token] = []
    at = 0
    while at < len(source):
        match = _RAW.match(source, at) or _TOKEN.match(source, at)
        if match is None:
            raise CelError(f"unexpected {source[at]!r}: {_REMEDY.get(source[at], 'not part of a condition')}", at)
        if match.re is _RAW:
            tokens.append(Token("string", match[0][2:-1], at))
        elif match["number"] is not None:
            tokens.append(Token("number", _number(match["number"], match["suffix"], at), at))
        elif match["string"] is not None:
            tokens.append(Token("string", _unescape(match["string"][1:-1], at), at))
        elif match["name"] is not None:
            if match["name"].lower() in ("b", "rb", "br") and source[match.end() : match.end() + 1] in ('"', "'"):
                raise CelError("byte strings are not supported: write a plain string", at)
            tokens.append(Token("name", match["name"], at))
        elif match["op"] is not None:
            tokens.append(Token("op", match["op"], at))
        at = match.end()
    for left, right in itertools.pairwise(tokens):
        if left.kind == right.kind == "string" and right.position - left.position == 2:
            raise CelError("triple quotes are not supported: write a plain string", left.position)
    tokens.append(Token("end", "the end", len(source)))
    return tokens


def _number(text: str, suffix: str | None, at: int) -> float:
    if suffix:
        what = "unsigned integers are not supported" if suffix in ("u", "U") else f"{text}{suffix} is not a number"
        raise CelError(f"{what}: write {text}", at)
    try:
        value = float(int(text, 16)) if text[:2] in ("0x", "0X") else float(text)
    except OverflowError:
        value = math.inf
    if value == math.inf:
        raise CelError("the number is too large", at)
    return value


def _unescape(body: str, at: int) -> str:
    parts: list[str] = []
    done = 0
    for found in re.finditer(r"\\", body):
        start = found.start()
        if start < done:
            continue
        match = _ESCAPE.match(body, start)
        if match is None:
            shown = body[start : start + 2]
            raise CelError(f"unknown escape {shown}: write \\\\ for a backslash, or a raw string r'...'", at)
        parts += (body[done:start], _character(match, at))
        done = match.end()
    return "".join((*parts, body[done:]))


def _character(match: re.Match[str], at: int) -> str:
    simple, byte, short, long, octal = match.groups()
    if simple is not None:
        return _SIMPLE.get(simple, simple)
    code = int(octal, 8) if octal is not None else int(byte or short or long, 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise CelError(f"{match[0]} is not a character", at)
    return chr(code)
