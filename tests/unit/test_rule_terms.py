"""Conditions taken apart: what is said of a term is what the condition says; other params make another rule."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl
import pytest

from monitor.features.catalogue import CLIENT_CLASSES
from monitor.features.vocabulary import CATALOGUE
from monitor.rules import Rule, explain, load_rules, packaged_rules
from monitor.rules.build import columns_of
from monitor.rules.cel import compile_cel
from monitor.rules.check import Scope
from monitor.rules.terms import shortfall, text_of

COLUMNS = columns_of(CATALOGUE, CLIENT_CLASSES)
RULES = load_rules([packaged_rules()], CATALOGUE, CLIENT_CLASSES, None, False).rules


def rule(when: str, **params: float) -> Rule:
    """A packaged rule with another condition."""
    compiled, errors = compile_cel(when, Scope(COLUMNS, params))
    assert compiled is not None, errors
    base = next(iter(RULES.values()))
    return dataclasses.replace(base, when=compiled, params=params, bounds=dict.fromkeys(params, (0.0, 1e9)))


def given(r: Rule) -> pl.DataFrame:
    """The rule's own examples as rows."""
    kinds = {"number": pl.Float64(), "string": pl.String(), "bool": pl.Boolean(), "code": pl.UInt8()}
    names = sorted({name for case in r.tests for name in case.given})
    rows = [
        pl.Series(
            n,
            [CLIENT_CLASSES.index(str(v)) if COLUMNS[n].kind == "code" and v is not None else v
             for v in (case.given.get(n) for case in r.tests)],
            dtype=kinds[COLUMNS[n].kind],
        )
        for n in names
    ]  # fmt: skip
    return pl.DataFrame([*rows, pl.Series("t_ms", [0] * len(r.tests))])


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_is_taken_apart_into_what_its_own_examples_say(name: str) -> None:
    r = RULES[name]
    for case, terms in zip(r.tests, explain(r, given(r), CLIENT_CLASSES), strict=True):
        assert terms[0].outcome is case.expected, case.name
        top = [t for t in terms if t.depth == 1]
        if case.expected is True and r.when.tree.op == "&&":
            assert all(t.outcome is True for t in top)
            assert shortfall(terms) == (0, 0.0)
        if case.expected is False and r.when.tree.op == "&&":
            assert any(t.outcome is False for t in top)
            assert shortfall(terms)[0] >= 1
        for t in terms:
            if t.margin is not None:
                assert t.outcome is (t.margin > 0 or (t.margin == 0 and "=" in t.text.replace("==", "")))


@pytest.mark.parametrize("name", sorted(RULES))
def test_the_text_of_a_condition_compiles_to_the_same_condition(name: str) -> None:
    r = RULES[name]
    text = text_of(r.when.tree, CLIENT_CLASSES)
    for param, value in r.params.items():
        text = text.replace(f"{param}={value:g}", f"{value:g}")
    again, errors = compile_cel(text, Scope(COLUMNS))
    assert again is not None, (text, errors)
    rows = given(r)
    missing = [pl.lit(None, pl.Float64).alias(c) for c in again.columns if c not in rows.columns]
    expected = [case.expected for case in r.tests]
    assert rows.with_columns(missing).select(again.expr.alias("x"))["x"].to_list() == expected


def test_parentheses_stand_where_the_tree_needs_them() -> None:
    for text in ("(requests_1h + 1) * 2 > 5 && !(requests_1h > 9 || requests_24h > 1)",
                 "requests_1h - (requests_24h - 1) > 0", "max(requests_1h, 3) % 2 == 1",
                 "(requests_1h > 1 ? 2 : 3) > requests_24h"):  # fmt: skip
        r = rule(text)
        assert text_of(r.when.tree) == text


def test_margins_are_signed_in_the_unit_of_the_value_and_unknown_stays_unknown() -> None:
    r = rule("requests_1h >= params.least && error_share_24h < 0.5 && has(cost_usd_24h)", least=100)
    rows = pl.DataFrame({"requests_1h": [120.0, 60.0], "error_share_24h": [0.75, None], "t_ms": [0, 0]})
    first, second = explain(r, rows)
    assert [(t.text, t.outcome, t.value, t.limit, t.margin) for t in first[1:]] == [
        ("requests_1h >= least=100", True, 120.0, 100.0, 20.0),
        ("error_share_24h < 0.5", False, 0.75, 0.5, -0.25),
        ("has(cost_usd_24h)", False, None, None, None),
    ]
    assert second[2].outcome is None
    assert second[2].margin is None
    assert shortfall(second)[0] == 3
    assert shortfall(second)[1] == pytest.approx(0.4 + 1 + 1)


def test_a_rule_with_other_params_is_the_rule_loaded_with_them(tmp_path: Path) -> None:
    source = packaged_rules() / "volume" / "heavy-output.yaml"
    r = RULES["heavy-output"]
    name = next(iter(r.params))
    value = r.params[name]
    high = r.bounds[name][1]
    other = min(value * 2, high)
    (tmp_path / "o.yaml").write_text(
        f"schema: monitor.override/v1\ntarget: heavy-output\nreason: a test of other values\nowner: t\n"
        f"params: {{{name}: {other!r}}}\n"
    )
    loaded = load_rules([source, tmp_path / "o.yaml"], CATALOGUE, CLIENT_CLASSES, None, False).rules["heavy-output"]
    made = r.retuned({name: other})
    assert made.params == loaded.params
    assert made.when.tree == loaded.when.tree
    assert str(made.when.expr) == str(loaded.when.expr)
    assert made.key != r.key
    with pytest.raises(ValueError, match="not within"):
        r.retuned({name: high * 2 + 1})
    with pytest.raises(ValueError, match="no param 'nope'"):
        r.retuned({"nope": 1.0})
