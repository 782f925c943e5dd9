"""Planted defects: each changes one line of what the rules stage does, and a check of its own must notice.

The checks are the ones that the other tests make, gathered so that each can be run with and without its defect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rule_files import RULE, Folder, folder, frame

from monitor.rules import HoldState, RuleSet, cel, hold, load, model
from monitor.rules.cel import Column, ListValue, Scope, compile_cel

SCOPE = Scope({"x": Column("number"), "y": Column("number"), "b": Column("bool"), "s": Column("string")},
              lists={"until": ListValue(("a",), 1000)})  # fmt: skip


def value(source: str, **row: Any) -> bool | None:
    compiled, _ = compile_cel(source, SCOPE)
    assert compiled is not None
    dtypes: dict[str, type[pl.DataType]] = {
        "x": pl.Float64,
        "y": pl.Float64,
        "b": pl.Boolean,
        "s": pl.String,
        "t_ms": pl.Int64,
    }
    result: bool | None = (
        pl.DataFrame({n: pl.Series([row.get(n)], dtype=t) for n, t in dtypes.items()}).select(compiled.expr).item()
    )
    return result


def threshold() -> None:
    assert value("x > 2", x=2) is False
    assert value("x >= 2", x=2) is True


def negation() -> None:
    assert value("!(x > 2)") is None


def disjunction() -> None:
    assert value("x > 2 || y > 2", y=1) is None
    assert value("x > 2 || y > 2", y=3) is True


def not_a_number() -> None:
    assert value("x > 2", x=float("nan")) is None


def division() -> None:
    assert value("1 / (x / y) == 0", x=1, y=0) is None


def remainder() -> None:
    assert value("x % y == -1", x=-7, y=3) is True


def expiry() -> None:
    assert value("s in lists.until", s="a", t_ms=1000) is False
    assert value("s in lists.until", s="a", t_ms=999) is True


def unknown_test() -> None:
    assert value("b ? x > 1 : x <= 1", x=2) is None


def _rules(tmp: Path, **changes: Any) -> RuleSet:
    made = folder(tmp)
    made.rule(**changes)
    return made.load()


def _fired(loaded: RuleSet, state: HoldState, *rows: tuple[int, float | None]) -> list[int]:
    made = frame(*({"tick": t, "regular_1h": v} for t, v in rows))
    return loaded.evaluate(made, state).firings["row"].to_list()


def duration(tmp: Path) -> None:
    loaded = _rules(tmp, **{"for": "1m"})
    assert _fired(loaded, HoldState(), (0, 0.9), (6, 0.9)) == [1]
    assert _fired(loaded, HoldState(), *((t, 0.9) for t in range(6))) == []


def broken_run(tmp: Path) -> None:
    assert _fired(_rules(tmp, **{"for": "1m"}), HoldState(), (0, 0.9), (3, None), (6, 0.9)) == []


def carried_over(tmp: Path) -> None:
    loaded, state = _rules(tmp, **{"for": "1m"}), HoldState()
    _fired(loaded, state, (0, 0.9))
    assert _fired(loaded, state, (6, 0.9)) == [0]


def restart(tmp: Path) -> None:
    loaded, state, other = _rules(tmp, **{"for": "1m"}), HoldState(), HoldState()
    _fired(loaded, state, (0, 0.9), (2, 0.9))
    other.load(0, state.dump(0))
    assert _fired(loaded, other, (6, 0.9)) == [0]


def exemption(tmp: Path) -> None:
    loaded = _rules(tmp, exceptions=[{"name": "partner", "match": {"account_id": ["a"]}, "reason": "contract with us",
                                      "owner": "jk", "expires": "1970-01-01"}])  # fmt: skip
    assert _fired(loaded, HoldState(), (0, 0.9)) == []
    assert _fired(loaded, HoldState(), (9000, 0.9)) == [0]


def shadow(tmp: Path) -> None:
    assert _fired(_rules(tmp, mode="shadow"), HoldState(), (0, 0.9)) == [0]


def in_file_tests(tmp: Path) -> None:
    made = Folder(tmp)
    folder(tmp)
    made.rule(tests=[*RULE["tests"], {"name": "wrong", "given": {"regular_1h": 0.2}, "alert": True}])
    with pytest.raises(load.BadInput, match="'wrong' should be true"):
        made.load()


@dataclass(frozen=True)
class Defect:
    name: str
    check: Callable[..., None]
    plant: Callable[[pytest.MonkeyPatch], None]


def _compare(op: str, made: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Callable[[pytest.MonkeyPatch], None]:
    table: Mapping[str, Any] = {**cel._COMPARE, op: made}
    return lambda patch: patch.setattr(cel, "_COMPARE", table)


def _rewrite(op: str, made: Callable[..., pl.Expr]) -> Callable[[pytest.MonkeyPatch], None]:
    original = cel._expr

    def changed(node: Any) -> pl.Expr:
        return made(*(changed(a) for a in node.args)) if node.op == op else original(node)

    return lambda patch: patch.setattr(cel, "_expr", changed)


def _since_by_row(self: HoldState, account: Any, tick: Any, *_: Any) -> Any:
    return tick - np.arange(len(tick))


def _since_over_breaks(self: HoldState, account: Any, tick: Any, *_: Any) -> Any:
    return np.full_like(tick, tick.min())


def _without_prior(patch: pytest.MonkeyPatch) -> None:
    original = hold.HoldState._since
    patch.setattr(hold.HoldState, "_since", lambda *a: original(*a[:-1], np.zeros_like(a[-1])))


def _last_as_since(patch: pytest.MonkeyPatch) -> None:
    original = hold.HoldState.load

    def load_wrong(self: HoldState, partition: int, blob: bytes) -> None:
        original(self, partition, blob)
        self._runs = self._runs.with_columns(since=pl.col("last"))

    patch.setattr(hold.HoldState, "load", load_wrong)


def _never_expires(patch: pytest.MonkeyPatch) -> None:
    original = cel._member
    patch.setattr(cel, "_member", lambda v, items, kind: original(v, replace(items, expires_ms=None), kind))


def _exceptions_for_ever(patch: pytest.MonkeyPatch) -> None:
    original = model.RuleSet._without_exceptions

    def wrong(rule: Any, rows: pl.DataFrame, at: Any, hits: Any) -> Any:
        return original(rule, rows.with_columns(t_ms=pl.lit(0, dtype=pl.Int64)), at, hits)

    patch.setattr(model.RuleSet, "_without_exceptions", staticmethod(wrong))


DEFECTS = [
    Defect(">= for >", threshold, _compare(">", lambda a, b: a >= b)),
    Defect("> for >=", threshold, _compare(">=", lambda a, b: a > b)),
    Defect("null as false in !", negation, _rewrite("!", lambda a: ~a.fill_null(False))),
    Defect("null as false in ||", disjunction, _rewrite("||", lambda a, b: a.fill_null(False) | b.fill_null(False))),
    Defect("null decides ||", disjunction, _rewrite("||", lambda a, b: pl.when(a.is_not_null()).then(a | b))),
    Defect("NaN is a number", not_a_number, lambda p: p.setattr(cel, "_finite", lambda e: e)),
    Defect("infinity from x / 0", division, _rewrite("/", lambda a, b: a / b)),
    Defect("floored remainder", remainder, _rewrite("%", lambda a, b: a % b)),
    Defect("lists never expire", expiry, _never_expires),
    Defect(
        "an unknown test takes the second branch",
        unknown_test,
        _rewrite("?", lambda t, y, n: pl.when(t).then(y).otherwise(n)),
    ),
    Defect("for by row count", duration, lambda p: p.setattr(hold.HoldState, "_since", _since_by_row)),
    Defect(
        "an unknown row does not end a run",
        broken_run,
        lambda p: p.setattr(hold.HoldState, "_since", _since_over_breaks),
    ),
    Defect("runs end with the frame", carried_over, _without_prior),
    Defect("runs begin anew after a restart", restart, _last_as_since),
    Defect("exceptions by another clock", exemption, _exceptions_for_ever),
    Defect(
        "shadow is not evaluated",
        shadow,
        lambda p: p.setattr(
            model.RuleSet, "active", property(lambda s: tuple(r for r in s.rules.values() if r.mode == "alert"))
        ),
    ),
    Defect(
        "in-file tests are not run", in_file_tests, lambda p: p.setattr(load, "run_tests", lambda rules, columns: [])
    ),
]


def _run(check: Callable[..., None], tmp_path: Path) -> None:
    check(tmp_path) if check.__code__.co_argcount else check()


@pytest.fixture
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_a_planted_defect_is_noticed(defect: Defect, tmp_path: Path, patched: pytest.MonkeyPatch) -> None:
    _run(defect.check, tmp_path / "sound")
    defect.plant(patched)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        _run(defect.check, tmp_path / "planted")
