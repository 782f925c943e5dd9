"""Resolves names and types of a condition, and expands its macros: syntax tree in, typed tree out. Knows no frames.

Every problem is collected, not just the first, because a person corrects a file as a whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal as OneOf

import polars as pl

from .syntax import (
    COMPARISONS,
    MAX_DEPTH,
    Binary,
    Call,
    Conditional,
    ListLiteral,
    Literal,
    Logic,
    Name,
    Node,
    Unary,
    parse,
)  # fmt: skip
from .tokens import CelError

Kind = OneOf["number", "string", "bool", "code", "list of numbers", "list of strings", "unknown"]
"""``code`` is a column of a closed vocabulary, held as an index; ``unknown`` follows an error already told."""

MAX_SIZE = 20_000
"""Largest expression in Polars nodes: guards against null and infinity double their operand, so nesting is costly.
Planning one of this size takes 0.1 s; the largest rule of ours has 400."""

STRING_METHODS = ("startsWith", "endsWith", "contains", "matches")
FUNCTIONS = ("has", "size", "min", "max", "abs", "log2")


@dataclass(frozen=True, slots=True)
class Column:
    """A name that a condition may read: its kind, its closed ``values`` (kind ``code``), its range."""

    kind: Kind
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ListValue:
    """``lists.x``: strings or numbers, and the event time in ms from which it is empty."""

    items: tuple[str, ...] | tuple[float, ...]
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Everything that a condition may name."""

    columns: Mapping[str, Column]
    params: Mapping[str, float] = field(default_factory=dict)
    lists: Mapping[str, ListValue] = field(default_factory=dict)
    macros: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Typed:
    """A node with its kind. ``value`` is a literal's value, a column's name, a list's items or a method's argument.

    ``finite`` says that a number can be neither infinite nor NaN; ``size`` bounds the Polars nodes it becomes.
    ``label`` is the name of the param that a literal came from.
    """

    op: str
    kind: Kind
    args: tuple[Typed, ...] = ()
    value: object = None
    finite: bool = True
    size: int = 1
    depth: int = 1
    column: Column | None = None
    label: str = ""


_UNKNOWN = Typed("literal", "unknown", value=None)


def suggestion(name: str, known: Iterable[str]) -> str:
    """``": did you mean 'x'?"`` where a known name is close, otherwise nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f": did you mean {close[0]!r}?" if close else ""


@dataclass(slots=True)
class Checked:
    """A typed tree and the names it uses."""

    tree: Typed
    columns: set[str]
    params: set[str]
    lists: set[str]
    macros: set[str]


def check(source: str, scope: Scope, condition: bool = True) -> tuple[Checked, list[CelError]]:
    """The typed tree of ``source`` and every problem with it. A text that can't be parsed has one problem.

    ``condition`` demands a truth value; a macro may be of any kind.
    """
    checker = _Checker(scope)
    try:
        tree = checker.visit(parse(source))
    except CelError as error:
        checker.errors.append(error)
        tree = _UNKNOWN
    if condition and tree.kind not in ("bool", "unknown"):
        checker.errors.append(CelError(f"is a {tree.kind}, not a condition: compare it with something", 0))
    return Checked(tree, checker.columns, checker.params, checker.lists, checker.macros), checker.errors


class _Checker:
    def __init__(self, scope: Scope):
        self.scope = scope
        self.errors: list[CelError] = []
        self.columns: set[str] = set()
        self.params: set[str] = set()
        self.lists: set[str] = set()
        self.macros: set[str] = set()
        self._expanding: list[str] = []

    def bad(self, message: str, node: Node) -> Typed:
        self.errors.append(CelError(message, node.position))
        return _UNKNOWN

    def make(self, node: Node, op: str, kind: Kind, args: tuple[Typed, ...], *, value: object = None,
             finite: bool = True, weights: tuple[int, ...] = ()) -> Typed:  # fmt: skip
        if any(a.kind == "unknown" for a in args):
            return _UNKNOWN
        size = 2 + sum(a.size * w for a, w in zip(args, weights or (1,) * len(args), strict=True))
        depth = 1 + max((a.depth for a in args), default=0)
        if size > MAX_SIZE:
            return self.bad("is too large once expanded: shorten the arithmetic or the macros", node)
        if depth > 2 * MAX_DEPTH:
            return self.bad(f"nests deeper than {2 * MAX_DEPTH} levels once its macros are expanded", node)
        return Typed(op, kind, args, value, finite, size, depth)

    def visit(self, node: Node) -> Typed:
        match node:
            case Literal():
                return Typed("literal", _literal_kind(node.value), value=node.value)
            case Name():
                return self.name(node)
            case Unary():
                return self.unary(node)
            case Logic():
                terms = tuple(self.want("bool", t, f"{node.op} joins conditions") for t in node.terms)
                return self.make(node, node.op, "bool", terms)
            case Conditional():
                return self.conditional(node)
            case Call():
                return self.call(node)
            case ListLiteral():
                return self.bad("a list may only stand after 'in' or within size()", node)
            case Binary():
                pass
        if node.op == "in":
            return self.membership(node)
        return self.comparison(node) if node.op in COMPARISONS else self.arithmetic(node)

    def want(self, kind: Kind, node: Node, why: str) -> Typed:
        typed = self.visit(node)
        if typed.kind not in (kind, "unknown"):
            what = "a closed list of names" if typed.kind == "code" else f"a {typed.kind}"
            return self.bad(f"{why}, this is {what}", node)
        return typed

    def name(self, node: Name) -> Typed:
        scope = self.scope
        if node.space == "params":
            if node.name not in scope.params:
                return self.bad(f"no param {node.name!r}{suggestion(node.name, scope.params)}", node)
            self.params.add(node.name)
            return Typed("literal", "number", value=float(scope.params[node.name]), label=node.name)
        if node.space == "macros":
            return self.macro(node)
        if node.space == "lists":
            self.list_items(node)
            return self.bad(f"lists.{node.name} may only stand after 'in'", node)
        if node.space:
            return self.bad(f"{node.space!r} has no fields: only params, lists and macros do", node)
        column = scope.columns.get(node.name)
        if column is None:
            if node.name in scope.params:
                return self.bad(f"unknown name {node.name!r}: write params.{node.name}", node)
            near = suggestion(node.name, (*scope.columns, *FUNCTIONS))
            return self.bad(f"unknown name {node.name!r}{near or ': `monitor features list` shows all'}", node)
        self.columns.add(node.name)
        return Typed("column", column.kind, value=node.name, size=4, column=column)

    def macro(self, node: Name) -> Typed:
        source = self.scope.macros.get(node.name)
        if source is None:
            return self.bad(f"no macro {node.name!r}{suggestion(node.name, self.scope.macros)}", node)
        if node.name in self._expanding:
            return self.bad(f"macros go round: {' -> '.join((*self._expanding, node.name))}", node)
        self.macros.add(node.name)
        self._expanding.append(node.name)
        before = len(self.errors)
        try:
            typed = self.visit(parse(source))
        except CelError as error:
            self.errors.append(error)
            typed = _UNKNOWN
        self._expanding.pop()
        for index, bad in enumerate(self.errors[before:], before):
            if not bad.message.startswith(("macros go round", "in macros.")):
                self.errors[index] = CelError(f"in macros.{node.name}: {bad.message}", node.position)
        return typed

    def unary(self, node: Unary) -> Typed:
        if node.op == "!":
            return self.make(node, "!", "bool", (self.want("bool", node.operand, "! negates a condition"),))
        operand = self.want("number", node.operand, "- negates a number")
        return self.make(node, "neg", "number", (operand,), finite=operand.finite)

    def arithmetic(self, node: Binary) -> Typed:
        left = self.want("number", node.left, f"{node.op} is for numbers")
        right = self.want("number", node.right, f"{node.op} is for numbers")
        weights = {"/": (1, 2), "%": (3, 4)}.get(node.op, (1, 1))
        return self.make(node, node.op, "number", (left, right), finite=False, weights=weights)

    def comparison(self, node: Binary) -> Typed:
        left, right = self.visit(node.left), self.visit(node.right)
        kinds = {left.kind, right.kind}
        if "unknown" in kinds:
            return _UNKNOWN
        if "code" in kinds:
            return self.code_comparison(node, left, right)
        if len(kinds) > 1:
            return self.bad(f"compares a {left.kind} with a {right.kind}", node)
        if kinds == {"bool"} and node.op not in ("==", "!="):
            return self.bad(f"{node.op} has no meaning between conditions", node)
        self.in_range(left, right, node)
        self.in_range(right, left, node)
        weights = tuple(1 if a.finite else 2 for a in (left, right))
        return self.make(node, node.op, "bool", (left, right), weights=weights)

    def in_range(self, side: Typed, other: Typed, node: Node) -> None:
        column, value = side.column, other.value
        if column is None or other.op != "literal" or not isinstance(value, float):
            return
        if (column.high is not None and value > column.high) or (column.low is not None and value < column.low):
            low = "-inf" if column.low is None else f"{column.low:g}"
            high = "inf" if column.high is None else f"{column.high:g}"
            self.bad(f"{value:g} lies outside the range of {side.value} ({low} to {high})", node)

    def code_comparison(self, node: Binary, left: Typed, right: Typed) -> Typed:
        column, other = (left, right) if left.kind == "code" else (right, left)
        if node.op not in ("==", "!=") or other.op != "literal" or not isinstance(other.value, str):
            return self.bad(f"{column.value} is compared with a name by == or !=, or with 'in'", node)
        code = self.code(column, other.value, node)
        return self.make(node, node.op, "bool", (column, Typed("code", "code", value=code)))

    def code(self, typed: Typed, value: str, node: Node) -> int:
        values = typed.column.values if typed.column else ()
        if value in values:
            return values.index(value)
        known = suggestion(value, values) or f": one of {', '.join(values)}"
        self.bad(f"{typed.value} is never {value!r}{known}", node)
        return 0

    def membership(self, node: Binary) -> Typed:
        left = self.visit(node.left)
        found = self.list_items(node.right)
        if left.kind == "unknown" or found is None:
            return _UNKNOWN
        items = found.items
        wanted = "string" if left.kind == "code" else left.kind
        if wanted not in ("number", "string"):
            return self.bad(f"'in' looks for a number or a string, this is a {left.kind}", node)
        if items and _literal_kind(items[0]) != wanted:
            return self.bad(f"looks for a {wanted} in a list of {_literal_kind(items[0])}s", node)
        if left.kind == "code":
            items = tuple(float(self.code(left, str(item), node)) for item in items)
        weights = (1 if left.finite else 2,)
        return self.make(node, "in", "bool", (left,), value=ListValue(items, found.expires_ms), weights=weights)

    def list_items(self, node: Node) -> ListValue | None:
        """The items of a list literal or of ``lists.x``; None after an error."""
        if isinstance(node, Name) and node.space == "lists":
            if node.name not in self.scope.lists:
                self.bad(f"no list {node.name!r}{suggestion(node.name, self.scope.lists)}", node)
                return None
            self.lists.add(node.name)
            return self.scope.lists[node.name]
        if not isinstance(node, ListLiteral):
            self.bad("after 'in' comes a list: [a, b] or lists.x", node)
            return None
        typed = [self.visit(item) for item in node.items]
        if any(t.kind == "unknown" for t in typed):
            return None
        if any(t.op != "literal" or t.kind not in ("number", "string") for t in typed):
            self.bad("a list holds numbers, strings and params only", node)
            return None
        if len({t.kind for t in typed}) > 1:
            self.bad("a list holds numbers or strings, not both", node)
            return None
        return ListValue(tuple(t.value for t in typed))  # type: ignore[arg-type]  # one kind: just checked

    def conditional(self, node: Conditional) -> Typed:
        test = self.want("bool", node.test, "? follows a condition")
        yes, no = self.visit(node.yes), self.visit(node.no)
        if "unknown" in (yes.kind, no.kind):
            return _UNKNOWN
        if yes.kind != no.kind:
            return self.bad(f"gives a {yes.kind} or a {no.kind}: both sides need one type", node)
        if yes.kind == "code":
            return self.bad("can't choose between closed lists of names: compare first, then choose", node)
        finite = yes.finite and no.finite
        return self.make(node, "?", yes.kind, (test, yes, no), finite=finite, weights=(2, 1, 1))

    def call(self, node: Call) -> Typed:
        if node.target is not None:
            return self.method(node, node.target)
        if node.function in STRING_METHODS:
            return self.bad(f"{node.function} is a method: write x.{node.function}('...')", node)
        if node.function not in FUNCTIONS:
            return self.bad(f"unknown function {node.function!r}{suggestion(node.function, FUNCTIONS)}", node)
        wanted = {"min": "2 or more", "max": "2 or more"}.get(node.function, "1")
        if (len(node.args) != 1) if wanted == "1" else (len(node.args) < 2):
            return self.bad(f"{node.function}() takes {wanted} arguments, not {len(node.args)}", node)
        if node.function == "has":
            return self.has(node)
        if node.function == "size":
            return self.size(node)
        args = tuple(self.want("number", a, f"{node.function}() is for numbers") for a in node.args)
        weights = tuple((1 if a.finite else 2) * (2 * len(args) if len(args) > 1 else 2) for a in args)
        return self.make(node, node.function, "number", args, weights=weights)

    def has(self, node: Call) -> Typed:
        operand = node.args[0]
        if not isinstance(operand, Name) or operand.space:
            return self.bad("has() asks whether one column is known: write has(name)", node)
        return self.make(node, "has", "bool", (self.name(operand),))

    def size(self, node: Call) -> Typed:
        if isinstance(node.args[0], ListLiteral):
            found = self.list_items(node.args[0])
            return _UNKNOWN if found is None else Typed("literal", "number", value=float(len(found.items)))
        return self.make(node, "size", "number", (self.want("string", node.args[0], "size() is for strings"),))

    def method(self, node: Call, target: Node) -> Typed:
        if node.function not in STRING_METHODS:
            return self.bad(f"unknown method {node.function!r}{suggestion(node.function, STRING_METHODS)}", node)
        typed = self.want("string", target, f"{node.function}() is for strings")
        arg = node.args[0] if len(node.args) == 1 else None
        if not isinstance(arg, Literal) or not isinstance(arg.value, str):
            return self.bad(f"{node.function}() takes one string literal", node)
        if node.function == "matches":
            reason = bad_regex(arg.value)
            if reason:
                return self.bad(f"matches() can't use this pattern: {reason}", node)
        return self.make(node, node.function, "bool", (typed,), value=arg.value)


def bad_regex(pattern: str) -> str | None:
    """Why Rust's regex engine, which runs in linear time and so has no look-around, refuses a pattern."""
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.ComputeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return next((line.removeprefix("error: ") for line in lines if line.startswith("error:")), lines[0])
    return None


def _literal_kind(value: float | str | bool) -> Kind:
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else "number"
