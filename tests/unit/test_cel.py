"""Every operator and function of the condition language, its nulls, its errors and what hostile text does to it."""

from __future__ import annotations

import math

import polars as pl
import pytest

from monitor.rules.cel import Column, Compiled, ListValue, Scope, compile_cel
from monitor.rules.check import check
from monitor.rules.outcomes import FrameSpans

SCOPE = Scope(
    columns={
        "x": Column("number"),
        "y": Column("number"),
        "share": Column("number", low=0.0, high=1.0),
        "s": Column("string"),
        "b": Column("bool"),
        "kind": Column("code", values=("new", "chat", "batch")),
    },
    params={"limit": 2.5},
    lists={"known": ListValue(("a", "é")), "until": ListValue(("a",), expires_ms=1000), "none": ListValue(())},
    macros={
        "big": "x > 10.0",
        "twice": "macros.big || y > 10.0",
        "sum": "x + y",
        "here": "macros.there",
        "there": "macros.here",
        "wrong": "nothing > 1",
    },
)


def compiled(source: str) -> Compiled:
    result, errors = compile_cel(source, SCOPE)
    assert result is not None, [e.message for e in errors]
    return result


def value(source: str, **row: object) -> object:
    names = {"x": pl.Float64, "y": pl.Float64, "share": pl.Float64, "s": pl.String, "b": pl.Boolean, "kind": pl.UInt8}
    columns = [pl.Series(name, [row.get(name)], dtype=dtype) for name, dtype in names.items()]
    frame = pl.DataFrame([*columns, pl.Series("t_ms", [row.get("t_ms", 0)], dtype=pl.Int64)])
    return frame.select(compiled(source).expr).item()


@pytest.mark.parametrize("divisor", ["100.0", "3.0", "params.limit", "(1.0 + 2.0)", "(y > 1.0 ? 7.0 : 3.0)"])
def test_a_quotient_does_not_depend_on_the_rows_beside_it(divisor: str) -> None:
    xs = [float(x) for x in range(1, 400)]
    by = {"100.0": 100.0, "params.limit": 2.5}.get(divisor, 3.0)
    for op, exact in (("/", [x / by for x in xs]), ("%", [math.fmod(x, by) for x in xs])):
        # what is true of a row alone holds among others, and is IEEE's: each against its own value
        for rows in (xs, xs[68:69], xs[6:8]):
            expr = compiled(f"x {op} {divisor} == share").expr
            told = [exact[int(x) - 1] for x in rows]
            frame = pl.DataFrame({"x": rows, "y": [0.0] * len(rows), "share": told})
            assert frame.select(expr).to_series().all(), (op, len(rows))


def messages(source: str) -> str:
    result, errors = compile_cel(source, SCOPE)
    assert result is None
    assert all(0 <= e.position <= len(source) for e in errors)
    return "; ".join(e.message for e in errors)


@pytest.mark.parametrize(
    ("source", "row", "expected"),
    [
        ("x > 2", {"x": 3}, True),
        ("x > 2", {"x": 2}, False),
        ("x >= 2", {"x": 2}, True),
        ("x >= 2", {"x": 1.9}, False),
        ("x < 2", {"x": 2}, False),
        ("x < 2", {"x": 1}, True),
        ("x <= 2", {"x": 2}, True),
        ("x <= 2", {"x": 3}, False),
        ("x == 2", {"x": 2}, True),
        ("x == 2", {"x": 3}, False),
        ("x != 2", {"x": 3}, True),
        ("x != 2", {"x": 2}, False),
        ("x + y == 5", {"x": 2, "y": 3}, True),
        ("x - y == -1", {"x": 2, "y": 3}, True),
        ("x * y == 6", {"x": 2, "y": 3}, True),
        ("1 / 2 == 0.5", {}, True),
        ("x / y == 0.5", {"x": 1, "y": 2}, True),
        ("x % y == -1", {"x": -7, "y": 3}, True),
        ("x % y == 1", {"x": 7, "y": -3}, True),
        ("x % y == 1.5", {"x": 7.5, "y": 2}, True),
        ("-x == 2", {"x": -2}, True),
        ("- -x == 2", {"x": 2}, True),
        ("!b", {"b": False}, True),
        ("!!b", {"b": True}, True),
        ("b == (x > 1)", {"b": True, "x": 2}, True),
        ("2 + 3 * 4 == 14", {}, True),
        ("(2 + 3) * 4 == 20", {}, True),
        ("10 - 3 - 2 == 5", {}, True),
        ("8 / 4 / 2 == 1", {}, True),
        ("true || b && false", {"b": True}, True),
        ("!b && b", {"b": True}, False),
        ("b ? x > 1 : y > 1", {"b": True, "x": 2, "y": 0}, True),
        ("b ? x > 1 : y > 1", {"b": False, "x": 2, "y": 0}, False),
        ("(x > 1 ? 10 : 20) == 20", {"x": 0}, True),
        ("x > 5 ? true : x > 2 ? true : false", {"x": 3}, True),
        ("x in [1, 2.5, -3]", {"x": -3}, True),
        ("x in [1, params.limit]", {"x": 2.5}, True),
        ("x in [1]", {"x": 2}, False),
        ("s in ['a', 'b']", {"s": "b"}, True),
        ("s in lists.known", {"s": "é"}, True),
        ("s in []", {"s": "a"}, False),
        ("!(s in lists.none)", {"s": "a"}, True),
        ("kind == 'batch'", {"kind": 2}, True),
        ("kind != 'new'", {"kind": 0}, False),
        ("'chat' == kind", {"kind": 1}, True),
        ("kind in ['new', 'batch']", {"kind": 1}, False),
        ("kind in ['new', 'batch']", {"kind": 2}, True),
        ("s == 'é€😀'", {"s": "é€😀"}, True),
        (r"s == '\u00e9\x41\U0001F600\n'", {"s": "éA😀\n"}, True),
        (r"s == r'a\d'", {"s": r"a\d"}, True),
        (r"s == '\''", {"s": "'"}, True),
        ("s < 'b'", {"s": "a"}, True),
        ("size(s) == 2", {"s": "é😀"}, True),
        ("size([1, 2, 3]) == 3", {}, True),
        ("s.startsWith('ab')", {"s": "abc"}, True),
        ("s.endsWith('bc')", {"s": "abc"}, True),
        ("s.contains('.')", {"s": "abc"}, False),
        ("s.contains('b')", {"s": "abc"}, True),
        ("s.matches('^a.c$')", {"s": "abc"}, True),
        ("s.matches('^b')", {"s": "abc"}, False),
        ("min(x, y, 3) == 1", {"x": 2, "y": 1}, True),
        ("max(x, y, 3) == 3", {"x": 2, "y": 1}, True),
        ("abs(x) == 2", {"x": -2}, True),
        ("log2(x) == 3", {"x": 8}, True),
        ("has(x)", {"x": 0}, True),
        ("macros.big", {"x": 11}, True),
        ("macros.twice && true", {"x": 1, "y": 11}, True),
        ("macros.sum > 3", {"x": 2, "y": 2}, True),
        ("x > params.limit", {"x": 2.6}, True),
        ("0x10 == 16", {}, True),
        (".5 == 0.5", {}, True),
        ("1e3 == 1000", {}, True),
        ("true // and a comment\n && b", {"b": True}, True),
    ],
)
def test_values(source: str, row: dict[str, object], expected: bool) -> None:
    assert value(source, **row) is expected


UNKNOWN = [
    "x > 1", "!(x > 1)", "x == 1", "x != 1", "x + 1 > 0", "-x > 0", "x in [1]", "!(x in [1])", "s in lists.known",
    "s == 'a'", "s.matches('a')", "size(s) > 0", "kind == 'new'", "kind in ['new']", "b", "!b", "b == b",
    "b && true", "true && b", "b || false", "b ? true : false", "true ? x > 1 : true", "min(x, 1) < 5", "max(1, x) > 0",
    "abs(x) >= 0", "log2(x) > 0", "x > 1 || x <= 1", "x % 2 == 0", "x in []", "s in lists.none",
]  # fmt: skip


@pytest.mark.parametrize("source", UNKNOWN)
def test_unknown_in_unknown_out(source: str) -> None:
    assert value(source) is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("b && false", False),
        ("false && b", False),
        ("x > 1 && false", False),
        ("b || true", True),
        ("true || b", True),
        ("x > 1 || true", True),
        ("has(x)", False),
        ("!has(x)", True),
        ("has(s)", False),
        ("has(kind)", False),
        ("has(b)", False),
        ("has(x) && x > 1", False),
        ("!has(x) || x > 1", True),
        ("false ? x > 1 : true", True),
    ],
)
def test_what_is_known_despite_an_unknown(source: str, expected: bool) -> None:
    assert value(source) is expected


@pytest.mark.parametrize(
    "source",
    [
        "1 / 0 > 1",
        "x / y > 0",
        "x % y == 0",
        "0 / 0 == 0",
        "log2(y) < 0",
        "log2(-1) < 0",
        "1 / (1 / y) == 0",
        "x * 1e308 * 1e308 > 1",
        "(x * 1e308 * 10 - x * 1e308 * 10) > -1",
        "min(1e308 * 10, x) < 9",
        "1e308 * 10 in [1]",
    ],
)
def test_undefined_arithmetic_is_unknown(source: str) -> None:
    assert value(source, x=7, y=0) is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_unknown(number: float) -> None:
    """Polars orders NaN above everything, so a broken feature would fire every rule with >."""
    assert value("x > 5", x=number) is None
    assert value("has(x)", x=number) is False
    assert value("x == x", x=number) is None


def test_lists_end_in_event_time() -> None:
    assert value("s in lists.until", s="a", t_ms=999) is True
    assert value("s in lists.until", s="a", t_ms=1000) is False
    assert value("s in lists.until", s=None, t_ms=999) is None


@pytest.mark.parametrize(("source", "expected"), [("true", True), ("2 > 3", False), ("1 / 0 > 1", None)])
def test_a_constant_has_a_value_for_every_row(source: str, expected: bool | None) -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0, 3.0]})
    assert frame.select(compiled(source).expr.alias("r"))["r"].to_list() == [expected] * 3
    assert frame.clear().select(compiled(source).expr.alias("r")).height == 0


def test_the_names_used_are_told() -> None:
    made = compiled("x > params.limit && s in lists.known && macros.twice && has(b)")
    assert made.columns == {"x", "y", "s", "b"}
    assert (made.params, made.lists, made.macros) == ({"limit"}, {"known"}, {"twice", "big"})


@pytest.mark.parametrize(
    ("source", "missing", "possible"),
    [
        ("x > 1 && y > 1", {"y"}, False),
        ("x > 1 || y > 1", {"y"}, True),
        ("x > 1 || y > 1", {"x", "y"}, False),
        ("!(x > 1)", {"x"}, False),
        ("!has(x)", {"x"}, True),
        ("has(x)", {"x"}, False),
        ("b", {"b"}, False),
        ("has(x) ? x > 1 : y > 1", {"x"}, True),
        ("has(x) ? y > 1 : false", {"x"}, False),
        ("x + y > 1", {"x"}, False),
        ("x in [1]", {"x"}, False),
        ("true", set(), True),
        ("false", set(), False),
        ("b ? true : false", {"b"}, False),
        ("!(has(x) && y > 1)", {"x"}, True),
        ("x > 1 || !(y > 1 && false)", {"x", "y"}, True),
    ],
)
def test_whether_it_can_fire_without(source: str, missing: set[str], possible: bool) -> None:
    assert compiled(source).can_fire(frozenset(missing)) is possible


@pytest.mark.parametrize(
    ("source", "possible"),
    [
        ("few >= 3.0", True), ("few > 3.0", False), ("few < 1.0", False), ("few <= 1.0", True), ("2.0 < few", True),
        ("few + 1.0 >= 4.0", True), ("few - none >= 9.0", False), ("few > 5.0 || few > 2.0", True),
        ("!(few > 5.0)", True), ("!(few > 0.5)", False), ("none > 0.0", False), ("nan > 0.0", False),
        ("endless > 9.0", True), ("endless - endless > 9.0", True), ("few > endless", True), ("-few >= -1.0", True),
        ("-few > -1.0", False), ("few > 2.5 && none > 0.0", False), ("has(none)", False), ("abs(few) > 9.0", True),
        ("few == 9.0", True),
    ],
)  # fmt: skip
def test_whether_it_can_hold_on_any_of_some_rows(source: str, possible: bool) -> None:
    """``few`` is 1 to 3. Where it is not told apart it may hold: only what cannot is left out."""
    rows = pl.DataFrame(
        {"few": [1.0, None, 3.0], "none": [None] * 3, "nan": [math.nan] * 3, "endless": [1.0, -math.inf, math.inf]},
        schema=dict.fromkeys(("few", "none", "nan", "endless"), pl.Float64),
    )
    made, errors = compile_cel(source, Scope({name: Column("number") for name in rows.columns}))
    assert made is not None, errors
    assert made.may_hold(FrameSpans(rows)) is possible
    assert possible or True not in rows.select(made.expr.alias("r"))["r"].to_list()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("z > 1", "unknown name 'z'"),
        ("shares > 0.5", "did you mean 'share'?"),
        ("limit > 1", "write params.limit"),
        ("params.limits > 1", "did you mean 'limit'?"),
        ("s in lists.know", "did you mean 'known'?"),
        ("macros.bigg", "did you mean 'big'?"),
        ("macros.here", "macros go round: here -> there -> here"),
        ("macros.wrong", "in macros.wrong: unknown name 'nothing'"),
        ("x > 's'", "compares a number with a string"),
        ("x == b", "compares a number with a bool"),
        ("b < b", "no meaning between conditions"),
        ("s + s == s", "+ is for numbers"),
        ("x", "is a number, not a condition"),
        ("s", "is a string, not a condition"),
        ("kind", "is a code, not a condition"),
        ("x && b", "&& joins conditions"),
        ("!x", "! negates a condition"),
        ("-b", "- negates a number"),
        ("1 < x < 2", "comparisons do not chain"),
        ("x == y == b", "comparisons do not chain"),
        ("x = 1", "write =="),
        ("x & y", "write &&"),
        ("x | y", "write ||"),
        ("x > 1 and y > 1", "write &&"),
        ("x > 1 or y > 1", "write ||"),
        ("not b", "write !"),
        ("x == null", "write has(x)"),
        ("kind == 'chatt'", "did you mean 'chat'?"),
        ("kind in ['old']", "one of new, chat, batch"),
        ("kind < 'new'", "by == or !="),
        ("kind == s", "by == or !="),
        ("share > 5", "outside the range of share (0 to 1)"),
        ("share < -1", "outside the range"),
        ("x in y", "after 'in' comes a list"),
        ("x in [y]", "numbers, strings and params only"),
        ("x in [1, 'a']", "not both"),
        ("x in ['a']", "looks for a number in a list of strings"),
        ("b in [true]", "numbers, strings and params only"),
        ("x in lists.known", "looks for a number in a list of strings"),
        ("lists.known", "may only stand after 'in'"),
        ("[1] == [1]", "a list may only stand"),
        ("x[0] > 1", "nothing can be indexed"),
        ("x.y > 1", "'x' has no fields"),
        ("b ? 1 : 'a'", "both sides need one type"),
        ("b ? x : y", "not a condition"),
        ("x ? b : b", "? follows a condition"),
        ("has(x + 1)", "has() asks"),
        ("has(params.limit)", "has() asks"),
        ("has()", "takes 1 arguments"),
        ("min(x) > 1", "takes 2 or more"),
        ("mox(x, 1) > 1", "did you mean 'max'?"),
        ("s.startWith('a')", "did you mean 'startsWith'?"),
        ("matches(s, 'a')", "is a method"),
        ("s.contains(s)", "one string literal"),
        ("s.contains('a', 'b')", "one string literal"),
        ("x.contains('a')", "is for strings"),
        ("kind.contains('a')", "a closed list of names"),
        ("size(x) > 1", "size() is for strings"),
        ("s.matches('(?=a)')", "look-around"),
        ("s.matches('[')", "can't use this pattern"),
        ("s.matches('(a{1000}){1000}')", "size limit"),
        ("(x > 1", "expected ')'"),
        ("x >", "found the end"),
        ("", "found the end"),
        ("x > 1)", "expected an operator"),
        ("x > 1 y", "expected an operator"),
        ("s == 'a", "not closed"),
        ("s == '''a'''", "triple quotes"),
        ("s == b'a'", "byte strings"),
        ("1u > x", "unsigned"),
        ("1x > x", "is not a number"),
        (r"s == '\q'", "unknown escape"),
        (r"s == '\ud800'", "is not a character"),
        ("1e999 > x", "too large"),
        ("{} == x", "maps are not supported"),
        ("x > 1;", "one expression"),
        ("x @ 1", "unexpected '@'"),
    ],
)
def test_errors_say_what_to_do(source: str, said: str) -> None:
    assert said in messages(source)


def test_every_error_is_told_at_once() -> None:
    assert messages("z > 1 && q > 2 && x > 's' && params.no > 1").count(";") == 3


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os').system('true')",
        "x.map_elements('a')",
        "pl.read_csv('a')",
        "x.__class__ > 1",
        "().__class__",
        "eval('1')",
        "lambda: x",
        "x if b else y",
        "lists.known.append('a')",
        "params.__dict__ > 1",
        "macros.__init__",
        "s.matches('(?P<a>')",
        "\x00",
        "x > 1\x00",
        "x > ￿",
        "s == '\n'",
        "🙂",
        "x > 1 -- drop",
        "(" * 65 + "b" + ")" * 65,
        "!" * 65 + "b",
        "-" * 66 + "x > 1",
        "[" * 200,
        "b?" * 100 + "b" + ":b" * 100,
        "+".join(["x"] * 80) + " > 1",
        "x" * 4097,
        "0x" + "f" * 4000 + " > x",
        "abs(" * 70 + "x" + ")" * 70 + " > 1",
        "min(" * 30 + "x" + ",1)" * 30 + " > 1",
        "x%" * 14 + "y > 1",
    ],
)
def test_hostile_text_is_refused(source: str) -> None:
    assert messages(source)


def test_long_but_flat_conditions_compile() -> None:
    assert value("||".join(["b"] * 900), b=True) is True
    assert value("!" * 60 + "b", b=True) is True
    assert value("(" * 60 + "b" + ")" * 60, b=True) is True
    assert value(" && ".join(["s.contains('a')"] * 200), s="a") is True


def test_a_backtracking_bomb_is_no_bomb() -> None:
    assert value("s.matches('^(a+)+$')", s="a" * 30_000 + "b") is False


def test_macros_may_be_of_any_kind() -> None:
    assert check("macros.sum", SCOPE, condition=False)[1] == []
