"""Compiles a CEL condition to one Polars expression over feature rows. Knows no rule files and keeps no state.

Values follow CEL (https://github.com/google/cel-spec), with four differences that missing data forces:

* **null means "don't know"**, as in Kleene's strong three-valued logic: whatever is computed from null is null,
  except ``null && false`` = false, ``null || true`` = true and ``has(x)``, which is never null. A rule fires on true
  alone, so neither ``x > 5`` nor ``!(x > 5)`` fires while x is unknown.
* every number is a double: ``1 / 2`` is 0.5, and 1 equals 1.0;
* a division by zero, a logarithm of what isn't positive, and a result that overflows are null, not errors;
* infinite and NaN inputs are null: Polars orders NaN above every number, so ``x > 5`` would fire on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import polars as pl

from .check import Checked, Column, ListValue, Scope, Typed, check, suggestion
from .outcomes import ANYTHING, Spans, outcomes
from .tokens import CelError

__all__ = ["CelError", "Column", "Compiled", "ListValue", "Scope", "compile_cel", "suggestion"]

TIME = "t_ms"
"""The column of event time (ms) that lists expire by."""

_F64 = pl.Float64()
_COMPARE: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip
_METHOD: Mapping[str, Callable[[pl.Expr, str], pl.Expr]] = {
    "startsWith": lambda s, x: s.str.starts_with(x), "endsWith": lambda s, x: s.str.ends_with(x),
    "contains": lambda s, x: s.str.contains(x, literal=True), "matches": lambda s, x: s.str.contains(x),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compiled:
    """A condition that is ready to run: ``expr`` gives one Boolean or null a row, also where it is constant.

    ``columns`` are the names it reads, without :data:`TIME`; ``params``, ``lists`` and ``macros`` those it uses.
    """

    source: str
    expr: pl.Expr
    tree: Typed
    columns: frozenset[str]
    params: frozenset[str]
    lists: frozenset[str]
    macros: frozenset[str]

    def can_fire(self, missing: frozenset[str]) -> bool:
        """Whether the condition can be true while the columns ``missing`` are null on every row."""
        return self.may_hold(lambda column: None if column in missing else ANYTHING)

    def may_hold(self, spans: Spans) -> bool:
        """Whether the condition can be true of any row whose columns lie within ``spans``."""
        return True in outcomes(self.tree, spans)


def compile_cel(source: str, scope: Scope) -> tuple[Compiled | None, list[CelError]]:
    """Compile ``source``; None and every problem where it can't be."""
    checked, errors = check(source, scope)
    if errors:
        return None, errors
    return _compiled(source, checked), []


def _compiled(source: str, checked: Checked) -> Compiled:
    expr = _expr(checked.tree)
    if not expr.meta.root_names():  # a constant is one row in Polars, not one for each row of the frame
        expr = pl.repeat(pl.select(expr).item(), pl.len(), dtype=pl.Boolean)
    return Compiled(
        source, expr, checked.tree, frozenset(checked.columns), frozenset(checked.params),
        frozenset(checked.lists), frozenset(checked.macros),
    )  # fmt: skip


def retuned(compiled: Compiled, params: Mapping[str, float]) -> Compiled:
    """The same condition with other values of some params. What is in a list or within size() keeps its value."""

    def changed(node: Typed) -> Typed:
        if node.label in params:
            return replace(node, value=float(params[node.label]))
        return replace(node, args=tuple(map(changed, node.args))) if node.args else node

    tree = changed(compiled.tree)
    return replace(compiled, tree=tree, expr=_expr(tree))


def expression(node: Typed) -> pl.Expr:
    """A part of a condition as Polars sees it where it is compared: a number that is not finite is null."""
    return _guarded(node) if node.kind == "number" else _expr(node)


def _expr(node: Typed) -> pl.Expr:
    op = node.op
    if op == "literal":
        return pl.lit(node.value, dtype=_F64 if node.kind == "number" else None)
    if op == "code":
        return pl.lit(node.value, dtype=pl.UInt8)
    if op == "column":
        column = pl.col(str(node.value))
        return _finite(column.cast(_F64)) if node.kind == "number" else column
    if op == "has":
        column = pl.col(str(node.args[0].value))
        known = column.cast(_F64).is_finite() if node.args[0].kind == "number" else column.is_not_null()
        return known.fill_null(False)
    if op in ("&&", "||"):
        return _balanced([_expr(a) for a in node.args], (lambda a, b: a & b) if op == "&&" else (lambda a, b: a | b))
    if op in _COMPARE:
        return _COMPARE[op](_guarded(node.args[0]), _guarded(node.args[1]))
    if op in _METHOD:
        return _METHOD[op](_expr(node.args[0]), str(node.value))
    return _other(node)


def _other(node: Typed) -> pl.Expr:
    match node.op:
        case "in":
            assert isinstance(node.value, ListValue)
            return _member(_guarded(node.args[0]), node.value, node.args[0].kind)
        case "!":
            return ~_expr(node.args[0])
        case "?":
            test, yes, no = (_expr(a) for a in node.args)
            return pl.when(test).then(yes).when(~test).then(no)
        case "size":
            return _expr(node.args[0]).str.len_chars().cast(_F64)
        case "min":
            return _balanced([_guarded(a) for a in node.args], lambda a, b: pl.when(a <= b).then(a).when(a > b).then(b))
        case "max":
            return _balanced([_guarded(a) for a in node.args], lambda a, b: pl.when(a >= b).then(a).when(a < b).then(b))
        case "abs":
            return _guarded(node.args[0]).abs()
        case "log2":
            number = _guarded(node.args[0])
            return pl.when(number > 0).then(number.log(2))
    return _arithmetic(node)


def _arithmetic(node: Typed) -> pl.Expr:
    a = _expr(node.args[0])
    if node.op == "neg":
        return -a
    b = _expr(node.args[1])
    if node.op in "/%" and a.meta.root_names():
        # By one number Polars multiplies with its reciprocal where a frame has two rows or more, and divides where it
        # has one: 69 / 100.0 is 0.69 or 0.6900000000000001, and a rule would fire by what else a batch holds. What
        # came out the same for all rows it takes for one number too, unless it was reckoned row by row.
        b = b + a * 0.0
    match node.op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return pl.when(b != 0).then(a / b)
    # C's remainder has the sign of the dividend; Polars' has the divisor's (-7 % 3: -1 against 2).
    return pl.when(b != 0).then(pl.when(a < 0).then(-(a.abs() % b.abs())).otherwise(a.abs() % b.abs()))


def _finite(number: pl.Expr) -> pl.Expr:
    return pl.when(number.is_finite()).then(number)


def _guarded(node: Typed) -> pl.Expr:
    expr = _expr(node)
    return expr if node.finite else _finite(expr)


def _member(value: pl.Expr, items: ListValue, kind: str) -> pl.Expr:
    dtype: pl.DataType = pl.UInt8() if kind == "code" else pl.String() if kind == "string" else _F64
    if items.items:
        wanted = pl.Series("", list(items.items), dtype=_F64 if kind == "code" else dtype).cast(dtype)
        found = value.is_in(wanted.implode())
    else:
        found = pl.when(value.is_not_null()).then(pl.lit(False))
    return found if items.expires_ms is None else found & (pl.col(TIME) < items.expires_ms)


def _balanced(terms: list[pl.Expr], join: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> pl.Expr:
    """Fold as a balanced tree: a chain of 1,000 terms is 10 deep, not 1,000."""
    while len(terms) > 1:
        pairs = [join(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(pairs) * 2 :]
    return terms[0]
