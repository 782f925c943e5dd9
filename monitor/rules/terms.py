"""A condition taken apart: what each term says of one row, and by how much it holds or fails.

Terms are those of the condition as it runs, macros expanded and params by value, so what is shown is what decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from .cel import TIME, expression
from .check import ListValue, Typed
from .model import Rule

_JOINS = ("&&", "||")
_COMPARES = ("==", "!=", "<", "<=", ">", ">=")
_SHOWN = 6
"""Items of a list that are written out."""
_CODES = "client_class"


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a condition on one row. ``depth`` 0 is the condition itself, terms of it follow at 1 and so on.

    ``outcome`` is true, false or None (unknown). A comparison of numbers has ``value`` and ``limit``, and a ``margin``
    in their unit: how far it holds (positive or zero) or fails (negative); None where nothing can be measured.
    """

    text: str
    outcome: bool | None
    depth: int
    value: float | str | bool | None = None
    limit: float | str | None = None
    margin: float | None = None

    @property
    def slack(self) -> float | None:
        """``margin`` as a share of the limit (of the value, where the limit is 0)."""
        if self.margin is None or not isinstance(self.limit, float) or not isinstance(self.value, float):
            return None
        scale = abs(self.limit) or abs(self.value)
        return self.margin / scale if scale else 0.0


def explain(rule: Rule, rows: pl.DataFrame, classes: Sequence[str] = ()) -> list[list[Term]]:
    """For each of ``rows`` (at least the columns that the rule reads) the condition and its terms, in reading order.

    ``classes`` are the client classes in order of their codes. A column that ``rows`` lacks is unknown.
    """
    parts = list(_parts(rule.when.tree, 0))
    asked: dict[str, pl.Expr] = {}
    for i, (node, _) in enumerate(parts):
        asked[f"{i}"] = expression(node)
        if node.op in (*_COMPARES, "in"):
            asked |= {f"{i}.{j}": expression(a) for j, a in enumerate(node.args)}
        elif node.op == "has":
            asked[f"{i}.0"] = pl.col(str(node.args[0].value))
    text = {"account_id", "subject"}
    missing = sorted({*rule.when.columns, TIME}.difference(rows.columns))
    null = {c: pl.String() if c in text else pl.UInt8() if c == _CODES else pl.Float64() for c in missing}
    given = rows.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in null.items())
    width = len(given)
    answers = given.select(_wide(e, width).alias(name) for name, e in asked.items()).to_dicts()
    return [[_term(i, node, depth, answer, classes) for i, (node, depth) in enumerate(parts)] for answer in answers]


def _wide(expr: pl.Expr, rows: int) -> pl.Expr:
    """A constant as a column of its own length."""
    return expr if expr.meta.root_names() else pl.repeat(pl.select(expr).item(), rows)


def shortfall(terms: Sequence[Term]) -> tuple[int, float]:
    """How far a row is from firing: terms at depth 1 that are not true, and their failing margins together.

    Rows compare by it: the smallest is the row that came nearest. A term without a margin counts as wholly failed.
    """
    top = [t for t in terms if t.depth == 1] or list(terms[:1])
    open_ = [t for t in top if t.outcome is not True]
    return len(open_), sum(min(1.0, abs(t.slack)) if t.slack is not None else 1.0 for t in open_)


def _parts(node: Typed, depth: int) -> Iterator[tuple[Typed, int]]:
    yield node, depth
    if node.op in _JOINS or node.op == "!":
        for part in node.args:
            yield from _parts(part, depth + 1)


def _term(i: int, node: Typed, depth: int, answer: Mapping[str, Any], classes: Sequence[str]) -> Term:
    outcome = answer[f"{i}"]
    text = text_of(node, classes)
    if node.op in _COMPARES:
        left, right = answer[f"{i}.0"], answer[f"{i}.1"]
        if node.args[0].kind == "number":
            return Term(text, outcome, depth, left, right, _margin(node.op, left, right))
        if node.args[0].kind == "code":
            return Term(text, outcome, depth, _class(left, classes), _class(right, classes))
        return Term(text, outcome, depth, left, None)
    if node.op in ("in", "has"):
        value = answer[f"{i}.0"]
        code = node.args[0].kind == "code"
        return Term(text, outcome, depth, _class(value, classes) if code else value)
    return Term(text, outcome, depth)


def _class(code: int | None, classes: Sequence[str]) -> str | None:
    if code is None:
        return None
    return classes[code] if code < len(classes) else str(code)


def _margin(op: str, left: float | None, right: float | None) -> float | None:
    if left is None or right is None or op in ("==", "!="):
        return None
    return left - right if op in (">", ">=") else right - left


def text_of(node: Typed, classes: Sequence[str] = (), outer: int = 0) -> str:
    """A condition as text again, with each param as ``name=value``; parentheses only where they are needed."""
    op = node.op
    if op == "literal":
        shown = _value(node.value)
        return f"{node.label}={shown}" if node.label else shown
    if op == "code":
        return repr(_class(node.value if isinstance(node.value, int) else None, classes))
    if op == "column":
        return str(node.value)
    parts = [text_of(a, classes, _BINDS.get(op, 9)) for a in node.args]
    if op == "in":
        assert isinstance(node.value, ListValue)
        coded = node.args[0].kind == "code"
        items = [repr(_class(int(x), classes)) if coded else _value(x) for x in node.value.items[:_SHOWN]]
        more = ", …" if len(node.value.items) > _SHOWN else ""
        made = f"{parts[0]} in [{', '.join(items)}{more}]"
    elif op == "!":
        return f"!{parts[0]}"
    elif op == "neg":
        return f"-{parts[0]}"
    elif op == "?":
        made = f"{parts[0]} ? {parts[1]} : {parts[2]}"
    elif op in _BINDS:
        made = f" {op} ".join(parts)
    elif node.value is not None:
        return f"{parts[0]}.{op}({_value(node.value)})"
    else:
        return f"{op}({', '.join(parts)})"
    return f"({made})" if _BINDS.get(op, 9) <= outer else made


_BINDS = {"?": 1, "||": 2, "&&": 3, **dict.fromkeys((*_COMPARES, "in"), 4), "+": 5, "-": 5, "*": 6, "/": 6, "%": 6,
          "!": 7, "neg": 7}  # fmt: skip
"""How tightly an operator binds, as in the parser."""


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else repr(value)
