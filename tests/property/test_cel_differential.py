"""Compiled conditions against two other readings: Rust's CEL where nothing is null, a plain interpreter where it is.

The interpreter walks the syntax tree one row at a time with Python's own numbers: slow, and simple enough to be
right by inspection.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import cel as rust
import polars as pl
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from monitor.rules import syntax
from monitor.rules.cel import Column, Scope, compile_cel
from monitor.rules.outcomes import FrameSpans

NUMBERS = ("d1", "d2", "i1", "i2")
SCOPE = Scope({**{n: Column("number") for n in NUMBERS}, "s1": Column("string"), "s2": Column("string"),
               "b1": Column("bool"), "b2": Column("bool")})  # fmt: skip
TEXT = st.text("ab é😀.", max_size=4)
DOUBLE = st.integers(-40, 40).map(lambda n: n / 4)
INTEGER = st.integers(-9, 9)
ORDER = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _operation(kind: st.SearchStrategy[str], ops: list[str]) -> st.SearchStrategy[str]:
    return st.tuples(kind, st.sampled_from(ops), kind).map(lambda t: f"({t[0]} {t[1]} {t[2]})")


def _ternary(test: st.SearchStrategy[str], kind: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(test, kind, kind).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})")


def conditions(ours_only: bool) -> st.SearchStrategy[str]:
    """Conditions in which ints and doubles never meet, as CEL demands.

    ``ours_only`` adds has(), min(), max(), abs(), and size() of strings: the specification counts code points, as we
    do, and the Rust engine bytes.
    """
    doubles = st.recursive(
        st.sampled_from(["d1", "d2"]) | DOUBLE.map(lambda x: f"{x:.2f}"),
        lambda inner: _operation(inner, ["+", "-", "*", "/"]) | inner.map(lambda x: f"-({x})")
        | (st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})")
           | inner.map(lambda x: f"abs({x})") if ours_only else st.nothing()),
        max_leaves=5,
    )  # fmt: skip
    strings = st.sampled_from(["s1", "s2"])
    integers = st.recursive(
        st.sampled_from(["i1", "i2"])
        | INTEGER.map(str)
        | (strings.map(lambda s: f"size({s})") if ours_only else st.nothing()),
        lambda inner: _operation(inner, ["+", "-", "*", "%"]),
        max_leaves=4,
    )
    methods = st.tuples(strings, st.sampled_from(["startsWith", "endsWith", "contains"]), TEXT)
    leaves = (
        st.sampled_from(["b1", "b2", "true", "false"])
        | st.tuples(doubles, ORDER, doubles).map(" ".join)
        | st.tuples(integers, ORDER, integers).map(" ".join)
        | st.tuples(strings, ORDER, strings | TEXT.map(_quoted)).map(" ".join)
        | methods.map(lambda t: f"{t[0]}.{t[1]}({_quoted(t[2])})")
        | strings.map(lambda s: f"{s}.matches('^a.?b*$')")
        | st.tuples(integers, st.lists(INTEGER, max_size=4)).map(lambda t: f"{t[0]} in {t[1]}")
        | st.tuples(strings, st.lists(TEXT, min_size=1, max_size=3)).map(
            lambda t: f"{t[0]} in [{', '.join(map(_quoted, t[1]))}]")
    )  # fmt: skip
    if ours_only:
        leaves = leaves | st.sampled_from([*SCOPE.columns]).map(lambda n: f"has({n})")
    return st.recursive(
        leaves,
        lambda inner: st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})")
        | inner.map(lambda x: f"!({x})") | _ternary(inner, inner) | inner.map(lambda x: f"({x}) == b1"),
        max_leaves=8,
    )  # fmt: skip


def rows(null: bool) -> st.SearchStrategy[dict[str, Any]]:
    maybe = (lambda s: s | st.none()) if null else (lambda s: s)
    return st.fixed_dictionaries({
        "d1": maybe(DOUBLE), "d2": maybe(DOUBLE), "i1": maybe(INTEGER), "i2": maybe(INTEGER), "s1": maybe(TEXT),
        "s2": maybe(TEXT), "b1": maybe(st.booleans()), "b2": maybe(st.booleans()),
    })  # fmt: skip


def _frame(table: list[dict[str, Any]]) -> pl.DataFrame:
    dtypes = {"s1": pl.String, "s2": pl.String, "b1": pl.Boolean, "b2": pl.Boolean}
    return pl.DataFrame([
        pl.Series(n, [r[n] for r in table], dtype=dtypes.get(n, pl.Float64), strict=False) for n in SCOPE.columns
    ])  # fmt: skip


def ours(source: str, table: list[dict[str, Any]]) -> list[bool | None]:
    compiled, errors = compile_cel(source, SCOPE)
    assert compiled is not None, (source, [e.message for e in errors])
    return _frame(table).lazy().select(compiled.expr.alias("r")).collect()["r"].to_list()


@settings(max_examples=150, deadline=None)
@given(conditions(ours_only=False), st.lists(rows(null=False), min_size=1, max_size=4))
def test_as_rust_cel_where_both_have_a_value(source: str, table: list[dict[str, Any]]) -> None:
    got = ours(source, table)
    compared = 0
    for row, mine in zip(table, got, strict=True):
        if "/" not in source and "%" not in source:
            assert mine is not None, source
        if mine is None:
            continue
        try:
            theirs = rust.evaluate(source, row)
        except (ValueError, ArithmeticError):
            continue  # a remainder by zero, in a branch that decides nothing for us
        compared += 1
        assert mine is theirs, (source, row)
    event("compared" if compared else "nothing to compare")
    assume(compared)


def interpret(node: syntax.Node, row: dict[str, Any]) -> Any:
    """Kleene's logic by the book: None is unknown."""
    match node:
        case syntax.Literal():
            return node.value
        case syntax.Name():
            return row[node.name]
        case syntax.Unary():
            inner = interpret(node.operand, row)
            return None if inner is None else (not inner) if node.op == "!" else -inner
        case syntax.Logic():
            values = [interpret(t, row) for t in node.terms]
            decisive = node.op == "||"
            return decisive if decisive in values else None if None in values else not decisive
        case syntax.Conditional():
            test = interpret(node.test, row)
            return None if test is None else interpret(node.yes if test else node.no, row)
        case syntax.Call():
            return _call(node, row)
        case syntax.Binary():
            return _binary(node, row)
    raise AssertionError(node)


def _call(node: syntax.Call, row: dict[str, Any]) -> Any:
    args = [interpret(a, row) for a in node.args]
    if node.function == "has":
        return args[0] is not None
    if None in args or (node.target is not None and interpret(node.target, row) is None):
        return None
    if node.target is None:
        return {"min": min, "max": max, "abs": abs, "size": len}[node.function](*args)
    text = interpret(node.target, row)
    if node.function == "matches":
        import re

        return re.search(args[0].replace("$", r"\Z"), text) is not None
    return {"startsWith": text.startswith, "endsWith": text.endswith, "contains": text.__contains__}[node.function](
        args[0]
    )


def _binary(node: syntax.Binary, row: dict[str, Any]) -> Any:
    left = interpret(node.left, row)
    if node.op == "in":
        assert isinstance(node.right, syntax.ListLiteral)
        return None if left is None else left in [interpret(i, row) for i in node.right.items]
    right = interpret(node.right, row)
    if left is None or right is None:
        return None
    if node.op in ("/", "%"):
        return None if right == 0 else left / right if node.op == "/" else math.fmod(left, right)
    ops = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
           ">=": operator.ge, "+": operator.add, "-": operator.sub, "*": operator.mul}  # fmt: skip
    return ops[node.op](left, right)


@settings(max_examples=200, deadline=None)
@given(conditions(ours_only=True), st.lists(rows(null=True), min_size=1, max_size=5))
def test_as_kleene_by_the_book(source: str, table: list[dict[str, Any]]) -> None:
    tree = syntax.parse(source)
    assert ours(source, table) == [interpret(tree, row) for row in table], source


@settings(max_examples=100, deadline=None)
@given(
    conditions(ours_only=True),
    st.sets(st.sampled_from([*SCOPE.columns])),
    st.lists(rows(null=True), min_size=1, max_size=6),
)
def test_what_can_not_fire_never_does(source: str, missing: set[str], table: list[dict[str, Any]]) -> None:
    compiled, _ = compile_cel(source, SCOPE)
    assert compiled is not None
    without = [{n: None if n in missing else v for n, v in row.items()} for row in table]
    if not compiled.can_fire(frozenset(missing)):
        assert True not in ours(source, without)
    if not compiled.may_hold(FrameSpans(_frame(without))):
        assert True not in ours(source, without)


@settings(max_examples=300, deadline=None)
@given(st.text("()[]!-+*/%<>=&|?:.,'\"\\ \n0123456789exsbikndhalf_é", max_size=80))
def test_no_text_breaks_the_compiler(source: str) -> None:
    compiled, errors = compile_cel(source, SCOPE)
    assert (compiled is None) == bool(errors)
