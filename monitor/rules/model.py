"""Compiled rules, and their evaluation over a frame of feature rows. Knows no files, and keeps no state of its own.

One pass evaluates every condition over every row (all closed ticks of all partitions at once): Polars shares
what conditions have in common. Rules in shadow are evaluated like the others and marked by their ``mode``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from ..errors import Problem
from ..records import FIRING_SCHEMA, Policy
from .cel import TIME, Compiled, retuned, suggestion
from .hold import Held, HoldState
from .outcomes import FrameSpans


class FeatureLike(Protocol):
    """What the rules need to know of a feature of the catalogue."""

    @property
    def name(self) -> str: ...  # noqa: D102 - as in monitor.features.catalogue.Feature
    @property
    def family(self) -> str: ...  # noqa: D102
    @property
    def window(self) -> str | None: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def meaning(self) -> str: ...  # noqa: D102
    @property
    def low(self) -> float | None: ...  # noqa: D102
    @property
    def high(self) -> float | None: ...  # noqa: D102
    @property
    def needs(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def fields(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def scope(self) -> str: ...  # noqa: D102


class Vocabulary(Protocol):
    """The catalogue, as it is handed in: siblings do not import each other."""

    @property
    def by_name(self) -> Mapping[str, FeatureLike]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Exemption:
    """An exception of a rule: ``condition`` is true of whom it leaves alone, until it expires in event time."""

    name: str
    condition: pl.Expr
    columns: frozenset[str]
    reason: str
    owner: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Case:
    """An in-file test: what is given (the rest is unknown), and whether the rule is true, false or unknown (None)."""

    name: str
    given: Mapping[str, float | str | bool]
    expected: bool | None
    line: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One detection. Times are seconds of event time; ``raw_fields`` are the log's fields behind the condition.

    ``key`` names the rule together with all that decides when it is true, so that state kept for an older
    text is not taken for this one's.
    """

    id: str
    title: str
    family: str
    families: tuple[str, ...]
    hypothesis: str
    severity: str
    confidence: float
    status: str
    mode: str
    version: int
    when: Compiled
    for_s: int
    cooldown_s: int
    params: Mapping[str, float]
    exceptions: tuple[Exemption, ...]
    evidence: tuple[str, ...]
    features: tuple[str, ...]
    raw_fields: tuple[str, ...]
    why: str
    blind_spots: str
    false_positives: str
    runbook: tuple[str, ...]
    tags: tuple[str, ...]
    references: tuple[str, ...]
    tests: tuple[Case, ...]
    file: str
    key: str
    over: str = "account"
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Of each param the smallest and the largest value that its author allows."""

    def retuned(self, params: Mapping[str, float]) -> Rule:
        """This rule with other values of some params. Raises ValueError for a param it lacks or a value outside."""
        for name, value in params.items():
            if name not in self.bounds:
                near = suggestion(name, self.bounds) or f": it has {', '.join(self.bounds) or 'none'}"
                raise ValueError(f"rule {self.id!r} has no param {name!r}{near}")
            low, high = self.bounds[name]
            if not low <= value <= high:
                raise ValueError(f"{self.id}.{name}: {value:g} is not within the rule's bounds, {low:g} to {high:g}")
        values = {**self.params, **params}
        changed = ",".join(f"{name}={values[name]!r}" for name in sorted(values))
        return replace(self, params=values, when=retuned(self.when, params), key=f"{self.key}:{changed}")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of one pass.

    ``firings`` has FIRING_SCHEMA, in order of row and rule. ``true_counts`` counts rows on which each condition was
    true, before ``for`` and exceptions; ``exception_hits`` the firings that each (rule, exception) held back.
    """

    firings: pl.DataFrame
    true_counts: Mapping[str, int]
    exception_hits: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class RuleSet:
    """All rules of one version. ``hash`` covers every byte of the files; ``warnings`` stop nothing."""

    rules: Mapping[str, Rule]
    policy: Policy
    hash: str
    needs: Mapping[str, tuple[str, ...]] = field(repr=False)
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict, repr=False)
    whole: frozenset[str] = field(default=frozenset(), repr=False)
    """Features that count something: they move by one."""
    files: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.rules)

    @property
    def active(self) -> tuple[Rule, ...]:
        """Rules that are evaluated: mode alert or shadow."""
        return tuple(rule for rule in self.rules.values() if rule.mode != "off")

    def bounds(self, feature: str) -> tuple[float | None, float | None]:
        """Range of a feature as the catalogue has it, None for an open end."""
        return self.ranges.get(feature, (None, None))

    def of(self, over: str) -> tuple[Rule, ...]:
        """Rules that are evaluated over ``account`` or ``campaign`` rows."""
        return tuple(rule for rule in self.active if rule.over == over)

    def inactive(self, available: Collection[str], null_features: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
        """Rules that can't be true for want of data -> what is missing.

        ``available`` are the optional contract fields that the log has; ``null_features`` are features that are
        unknown for another reason, as a classifier's without a model. A rule that can still be true without
        the missing features (``a || b``) is not listed.
        """
        known = frozenset(available)
        missing = {name for name, needs in self.needs.items() if not known.issuperset(needs)} | set(null_features)
        out: dict[str, tuple[str, ...]] = {}
        for rule in self.active:
            absent = [f for f in rule.features if f in missing]
            if absent and not rule.when.can_fire(frozenset(absent)):
                decisive = [f for f in absent if not rule.when.can_fire(frozenset((f,)))] or absent
                wanted = [
                    n for f in decisive for n in ((f,) if f in null_features else self.needs[f]) if n not in known
                ]
                out[rule.id] = tuple(dict.fromkeys(wanted))
        return out

    def evaluate(
        self, frame: pl.DataFrame, hold: HoldState, entity: str = "account", over: str = "account"
    ) -> Evaluation:
        """Evaluate every active rule ``over`` such rows on every row of ``frame`` (ROW_KEYS and features).

        An absent column is unknown. ``entity`` is what ``subject`` names; where it is an account and the frame has no
        ``account_id``, they are one.
        """
        rules = self.of(over)
        rows = _complete(frame, rules, entity)
        true = _conditions(rows, rules)
        held = {
            rule.key: Held(true[i], rule.for_s * 1000)
            for i, rule in enumerate(rules) if rule.for_s
        }  # fmt: skip
        late = hold.advance(rows, held)
        hits: dict[tuple[str, str], int] = {}
        found: list[tuple[int, npt.NDArray[np.int64]]] = []
        for index, rule in enumerate(rules):
            at = late[rule.key] if rule.for_s else np.flatnonzero(true[index])
            found.append((index, self._without_exceptions(rule, rows, at, hits)))
        counts = true.sum(axis=1).tolist()
        return Evaluation(_firings(found, rules), {rule.id: n for rule, n in zip(rules, counts, strict=True)}, hits)

    @staticmethod
    def _without_exceptions(
        rule: Rule, rows: pl.DataFrame, at: npt.NDArray[np.int64], hits: dict[tuple[str, str], int]
    ) -> npt.NDArray[np.int64]:
        for exemption in rule.exceptions:
            if not len(at):
                return at
            concerned = rows.select(TIME, *sorted(exemption.columns))[at]
            leaves_alone = concerned.select(exemption.condition.fill_null(False)).to_series().to_numpy()
            count = int(leaves_alone.sum())
            if count:
                hits[rule.id, exemption.name] = count
            at = at[~leaves_alone]
        return at


def _conditions(rows: pl.DataFrame, rules: Sequence[Rule]) -> npt.NDArray[np.bool_]:
    """Whether each rule's condition is true (unknown: false): bool [rules, rows].

    One select and one matrix: a Polars call a rule costs 0.3 ms, which was a fifth of a backtest of quiet accounts. And
    no rule in it that can hold on none of these rows: to plan all of them was a twelfth.
    """
    true = np.zeros((len(rules), len(rows)), np.bool_)
    spans = FrameSpans(rows)
    able = [i for i, rule in enumerate(rules) if rule.when.may_hold(spans)] if len(rows) else []
    if able:
        true[able] = rows.select(rules[i].when.expr.fill_null(False).alias(rules[i].id) for i in able).to_numpy().T
    return true


def _complete(frame: pl.DataFrame, rules: Sequence[Rule], entity: str) -> pl.DataFrame:
    """``frame`` with a null column for each name that some rule reads and the frame lacks."""
    if "account_id" not in frame.columns and entity == "account":
        frame = frame.with_columns(pl.col("subject").alias("account_id"))
    text = {"account_id", "subject"}
    wanted = {TIME, *(c for rule in rules for c in rule.when.columns),
              *(c for rule in rules for e in rule.exceptions for c in e.columns)}  # fmt: skip
    missing = sorted(wanted.difference(frame.columns))
    null = {name: pl.String() if name in text else pl.UInt8() if name == "client_class" else pl.Float64()
            for name in missing}  # fmt: skip
    return frame.with_columns(pl.lit(None, dtype=dtype).alias(name) for name, dtype in null.items())


def _firings(found: Sequence[tuple[int, npt.NDArray[np.int64]]], rules: Sequence[Rule]) -> pl.DataFrame:
    row = np.concatenate([at for _, at in found]) if found else np.empty(0, np.int64)
    if not len(row):
        return pl.DataFrame(schema=FIRING_SCHEMA)
    rule = np.repeat(np.arange(len(rules)), [len(at) for _, at in found])
    order = np.lexsort((rule, row))
    names = pl.Series([r.id for r in rules], dtype=pl.String)
    return pl.DataFrame({"row": row[order], "rule": names.gather(rule[order])}).cast(pl.Schema(FIRING_SCHEMA))
