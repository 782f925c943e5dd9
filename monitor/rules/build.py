"""Turns valid documents into compiled rules: names, types, bounds and meaning. Knows no directories.

What can be told at load is told here, since a rule that can't fire looks just like a quiet day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl

from ..errors import Problem
from ..fields import SEVERITIES
from ..records import Policy
from ..yamlfile import Key, Node, load
from .cel import Column, Compiled, ListValue, Scope, compile_cel, suggestion
from .check import Kind
from .documents import ExceptionDoc, OverrideDoc, PolicyDoc, RuleDoc
from .model import Case, Exemption, Rule, Vocabulary

TEXT_COLUMNS = ("account_id", "subject")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_KINDS: Mapping[str, Kind] = {"float": "number", "string": "string", "bool": "bool"}


def columns_of(catalogue: Vocabulary, classes: Sequence[str]) -> dict[str, Column]:
    """Every name that a condition over accounts may read."""
    columns = {n: Column(_KINDS[f.kind], low=f.low, high=f.high) for n, f in catalogue.by_name.items()}
    columns["client_class"] = Column("code", values=tuple(classes))
    return columns | {name: Column("string") for name in TEXT_COLUMNS}


def seconds(duration: str) -> int:
    """``"10m"`` as 600."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def end_of_day_ms(day: str) -> int:
    """Event time (ms) at which a day is over in UTC: what expires on it still holds on it. ValueError: no such day."""
    return int((datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)).timestamp() * 1000)


@cache
def known_tags() -> Mapping[str, str]:
    """Tags that a rule may carry, with their titles."""
    read: dict[str, str] = load(Path(__file__).with_name("tags.yaml")).data
    return read


@dataclass(frozen=True, slots=True)
class Source:
    """A document and where it came from. ``folder`` is empty for a file at the top of the paths given."""

    node: Node
    path: Path
    folder: str


class RuleBuilder:
    """Builds one rule; every problem goes to ``problems`` and leaves the rule None."""

    def __init__(self, scope: Scope, catalogue: Vocabulary, policy: Policy | None, problems: list[Problem]):
        self._scope = scope
        self._catalogue = catalogue
        self._policy = policy
        self._problems = problems

    def build(self, doc: RuleDoc, source: Source, overrides: Sequence[tuple[OverrideDoc, Node]]) -> Rule | None:
        """The compiled rule with its overrides applied."""
        before = len(self._problems)
        node = source.node
        self._place(doc, source)
        params = self._params(doc, node, overrides)
        scope = Scope(self._scope.columns, params, self._scope.lists, self._scope.macros)
        when, errors = compile_cel(doc.when, scope)
        for error in errors:
            near = doc.when[error.position : error.position + 24].split("\n")[0].strip()
            self._bad(node, f"{error.message}{f' (at {near!r})' if near else ''}", "when")
        mode, severity = _last(doc.mode, [o.mode for o, _ in overrides]), _last(
            doc.severity, [o.severity for o, _ in overrides])  # fmt: skip
        exceptions = [self._exemption(e, node, ("exceptions", i)) for i, e in enumerate(doc.exceptions)]
        for override, place in overrides:
            exceptions += [self._exemption(e, place, ("exceptions", i)) for i, e in enumerate(override.exceptions)]
        self._unique([e.name for e in exceptions if e], node, "exceptions")
        cases = self._cases(doc, node)
        features = sorted(c for c in when.columns if c in self._catalogue.by_name) if when else []
        self._evidence(doc, node, features if when else doc.evidence)
        if when is not None:
            self._meaning(doc, node, when, features, severity)
        if doc.status == "experimental" and mode == "alert":
            self._bad(node, "an experimental rule may not alert: run it in shadow first", "mode")
        if len(self._problems) > before or when is None:
            return None
        fields = dict.fromkeys(x for f in features for x in self._catalogue.by_name[f].fields)
        text = repr((doc.id, when.source, sorted(params.items()), doc.for_,
                     sorted((m, self._scope.macros[m]) for m in when.macros)))  # fmt: skip
        return Rule(
            id=doc.id, title=doc.title, family=doc.family,
            families=tuple(dict.fromkeys((doc.family, *doc.families))), hypothesis=doc.hypothesis, severity=severity,
            confidence=doc.confidence, status=doc.status, mode=mode, version=doc.version, when=when,
            for_s=seconds(doc.for_), cooldown_s=seconds(doc.cooldown), params=params,
            exceptions=tuple(e for e in exceptions if e), evidence=tuple(doc.evidence), features=tuple(features),
            raw_fields=tuple(fields), why=doc.why, blind_spots=doc.blind_spots, false_positives=doc.false_positives,
            runbook=tuple(doc.runbook), tags=tuple(doc.tags), references=tuple(doc.references), tests=tuple(cases),
            file=node.file, key=f"{doc.id}@{hashlib.sha256(text.encode()).hexdigest()[:12]}", over=doc.over,
            bounds={name: (param.min, param.max) for name, param in doc.params.items()},
        )  # fmt: skip

    def _bad(self, node: Node, message: str, *path: Key) -> None:
        self._problems.append(node.problem(message, *path))

    def _unique(self, names: list[str], node: Node, *path: Key) -> None:
        for name in sorted({n for n in names if names.count(n) > 1}):
            self._bad(node, f"the name {name!r} occurs twice: give each its own", *path)

    def _place(self, doc: RuleDoc, source: Source) -> None:
        if doc.id != source.path.stem:
            self._bad(source.node, f"{doc.id!r} is not the file's name: rename the file to {doc.id}.yaml", "id")
        if source.folder and doc.family != source.folder:
            self._bad(source.node, f"{doc.family!r} is not the folder {source.folder!r}: move the file", "family")
        for index, tag in enumerate(doc.tags):
            if tag not in known_tags():
                near = suggestion(tag, known_tags()) or ": monitor/rules/tags.yaml has the list"
                self._bad(source.node, f"unknown tag {tag!r}{near}", "tags", index)

    def _params(self, doc: RuleDoc, node: Node, overrides: Sequence[tuple[OverrideDoc, Node]]) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, param in doc.params.items():
            values[name] = param.value
            if not param.min <= param.value <= param.max:
                self._bad(
                    node, f"{param.value:g} is not within {param.min:g} to {param.max:g}", "params", name, "value"
                )
        for override, place in overrides:
            for name, value in override.params.items():
                bounds = doc.params.get(name)
                if bounds is None:
                    near = suggestion(name, doc.params)
                    self._bad(place, f"rule {doc.id!r} has no param {name!r}{near}", "params", name)
                elif not bounds.min <= value <= bounds.max:
                    self._bad(place, f"{value:g} is not within {bounds.min:g} to {bounds.max:g}", "params", name)
                else:
                    values[name] = value
        return values

    def _meaning(self, doc: RuleDoc, node: Node, when: Compiled, features: list[str], severity: str) -> None:
        by_name = self._catalogue.by_name
        for name in sorted(set(doc.params) - when.params):
            self._bad(node, "is not used by the condition: remove it", "params", name)
        if not features:
            self._bad(node, "reads no feature, so it says the same of everybody", "when")
            return
        for name in (f for f in (*features, *doc.evidence) if f in by_name and by_name[f].scope != doc.over):
            self._bad(node, f"{name} is a feature of {by_name[name].scope}s, the rule is over {doc.over}s", "when")
        used = {by_name[f].family for f in features}
        for index, family in enumerate(doc.families):
            if family not in used:
                self._bad(node, f"the condition reads no feature of family {family!r}", "families", index)
        if doc.family not in used:
            self._bad(node, f"the condition reads no feature of family {doc.family!r}, only {', '.join(sorted(used))}",
                      "family")  # fmt: skip
        if self._policy and used == {"volume"} and _over(severity, self._policy.volume_cap):
            cap = self._policy.volume_cap
            self._bad(
                node, f"rests on volume alone, which the policy caps at {cap}: lower it, or add evidence", "severity"
            )

    def _evidence(self, doc: RuleDoc, node: Node, features: Sequence[str]) -> None:
        by_name = self._catalogue.by_name
        for index, name in enumerate(doc.evidence):
            if name not in by_name:
                self._bad(node, f"unknown feature {name!r}{suggestion(name, by_name)}", "evidence", index)
            elif self._policy and name not in features and self._attested(name):
                message = (
                    f"{name} is attested by the provider, so it would count toward HIGH: let the condition read it"
                )
                self._bad(node, message, "evidence", index)

    def _attested(self, name: str) -> bool:
        feature = self._catalogue.by_name[name]
        return self._policy is not None and bool({name, feature.family, *feature.fields} & set(self._policy.attested))

    def _exemption(self, doc: ExceptionDoc, node: Node, path: tuple[Key, ...]) -> Exemption | None:
        lists = dict(self._scope.lists)
        terms = []
        for key, values in doc.match.items():
            if isinstance(values, str):
                terms.append(f"{key} in {values}")
            else:
                name = f"match_{len(terms)}"
                lists[name] = ListValue(tuple(values))
                terms.append(f"{key} in lists.{name}")
        try:
            expires = end_of_day_ms(doc.expires)
        except (ValueError, OverflowError):
            self._bad(node, f"{doc.expires!r} is not a day of the calendar", *path, "expires")
            return None
        compiled, errors = compile_cel(" && ".join(terms), Scope(self._scope.columns, {}, lists))
        for error in errors:
            self._bad(node, error.message, *path, "match")
        if compiled is None:
            return None
        condition = compiled.expr & (pl.col("t_ms") < expires)
        return Exemption(doc.name, condition, compiled.columns, doc.reason, doc.owner, expires)

    def _cases(self, doc: RuleDoc, node: Node) -> list[Case]:
        cases = []
        self._unique([c.name for c in doc.tests], node, "tests")
        covered = {case.alert for case in doc.tests}
        for value, word in ((True, "true"), (False, "false"), ("unknown", "unknown")):
            if value not in covered:
                self._bad(node, f"no test with alert: {word}: add one", "tests")
        for index, case in enumerate(doc.tests):
            given = {}
            for name, known in case.given.items():
                problem = self._given(name, known)
                if problem:
                    self._bad(node, problem, "tests", index, "given", name)
                elif known is not None:
                    given[name] = known
            expected = None if isinstance(case.alert, str) else case.alert
            cases.append(Case(case.name, given, expected, node.line_of("tests", index)))
        return cases

    def _given(self, name: str, value: float | bool | str | None) -> str | None:
        column = self._scope.columns.get(name)
        if column is None:
            return f"unknown feature{suggestion(name, self._scope.columns)}"
        if value is None:
            return None
        if column.kind == "code":
            known = ", ".join(column.values)
            return None if value in column.values else f"{value!r} is not one of {known}"
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        if kind != column.kind:
            return f"{value!r} is a {kind}, the feature is a {column.kind}"
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if column.high is not None and value > column.high:
                return f"{value:g} is above the feature's range (at most {column.high:g})"
            if column.low is not None and value < column.low:
                return f"{value:g} is below the feature's range (at least {column.low:g})"
        return None


def build_policy(doc: PolicyDoc, node: Node, catalogue: Vocabulary, fields: Sequence[str],
                 problems: list[Problem]) -> Policy:  # fmt: skip
    """The frozen policy; what it names must exist, and a family counts for one root."""
    families = [f for members in doc.roots.values() for f in members]
    for family in sorted({f for f in families if families.count(f) > 1}):
        problems.append(node.problem(f"{family!r} stands under two roots: evidence counts once", "roots"))
    known = (*families, *doc.never_high, *catalogue.by_name, *fields)
    for index, name in enumerate(doc.attested):
        if name not in known:
            message = f"{name!r} is no family, feature or field of the log{suggestion(name, known)}"
            problems.append(node.problem(message, "attested", index))
    return Policy(
        roots={root: tuple(members) for root, members in doc.roots.items()}, never_high=tuple(doc.never_high),
        attested=tuple(doc.attested), exact=tuple(doc.exact), account_cap=doc.account_cap, min_roots=doc.min_roots,
        volume_cap=doc.volume_cap,
    )  # fmt: skip


def _last(value: str, changes: Sequence[str | None]) -> str:
    return next((c for c in reversed(changes) if c is not None), value)


def _over(severity: str, cap: str) -> bool:
    return SEVERITIES.index(severity) > SEVERITIES.index(cap)
