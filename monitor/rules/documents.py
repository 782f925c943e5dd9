"""The shape of every document in a rules directory, and how a mistake in one becomes a line and a remedy.

These models are the one source for the loader's checks and for the JSON Schema that editors use. They know
the form of a document only: names, types and bounds against the catalogue are the builder's business.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from ..errors import Problem
from ..fields import FAMILIES, HYPOTHESES, ROOTS, SEVERITIES
from ..yamlfile import Key, Node
from .check import suggestion

ID_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
DURATION_PATTERN = r"^[0-9]+(s|m|h|d)$"
DAY_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
LINK_PATTERN = r"^https://[^\s]+$"
LIST_PATTERN = r"^lists\.[a-z][a-z0-9_]*$"
_LOOKS = {
    ID_PATTERN: "lower-case words joined by '-', like key-on-many-networks",
    NAME_PATTERN: "lower-case letters, digits and _, like min_requests",
    DURATION_PATTERN: "a number and s, m, h or d, like 10m",
    DAY_PATTERN: "a day, like 2027-01-31",
    LINK_PATTERN: "a link that starts with https://",
    LIST_PATTERN: "a list of values, or lists.name",
}

Id = Annotated[str, Field(pattern=ID_PATTERN, max_length=64)]
Word = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
Duration = Annotated[str, Field(pattern=DURATION_PATTERN)]
Day = Annotated[str, Field(pattern=DAY_PATTERN)]
Prose = Annotated[str, Field(min_length=10, max_length=4000)]
Line = Annotated[str, Field(min_length=1, max_length=300)]
ListRef = Annotated[str, Field(pattern=LIST_PATTERN)]
Subject = Literal["account_id", "subject", "client_class"]
Family = Literal["linkage", "client", "timing", "history", "pivot", "volume", "template", "corpus", "shape", "content",
                 "replay", "intel", "anomaly", "classifier"]  # fmt: skip
Severity = Literal["info", "low", "medium", "high", "critical"]
Hypothesis = Literal["distillation", "resale", "account_farm", "stolen_key", "evaluation", "automation", "unknown"]
Root = Literal["identity", "behaviour", "content", "exact"]
Mode = Literal["alert", "shadow", "off"]
# typing wants literals, contract 2 wants one list: these lines fail at import where they part
assert set(FAMILIES) == set(get_args(Family))
assert (HYPOTHESES, SEVERITIES, tuple(ROOTS)) == tuple(get_args(x) for x in (Hypothesis, Severity, Root))


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class ParamDoc(_Document):
    """A number that an operator may edit, within bounds."""

    value: float = Field(description="the value in force", allow_inf_nan=False)
    min: float = Field(description="smallest value that makes sense", allow_inf_nan=False)
    max: float = Field(description="largest value that makes sense", allow_inf_nan=False)
    unit: Line | None = Field(default=None, description="unit of the value")
    help: Line = Field(description="what it decides, and where the figure comes from")


class ExceptionDoc(_Document):
    """Whom a rule leaves alone: all keys of ``match`` must hold, one value of each is enough."""

    name: Id = Field(description="stable name; hits are counted under it")
    match: dict[Subject, list[Line] | ListRef] = Field(min_length=1, description="key: values, or key: lists.name")
    reason: Prose = Field(description="why it is right to leave them alone")
    owner: Line = Field(description="who answers for it")
    expires: Day = Field(description="last day (UTC, of event time) on which it holds")


class CaseDoc(_Document):
    """One example: features that are not given are unknown."""

    name: Line = Field(description="what the example shows")
    given: dict[str, float | bool | str | None] = Field(description="feature: value; null or absent: unknown")
    alert: bool | Literal["unknown"] = Field(description="true, false or unknown")


class RuleDoc(_Document):
    """A detection over the feature rows of one account, or over the candidate campaigns of a step."""

    schema_: Literal["monitor.rule/v1"] = Field(alias="schema", description="monitor.rule/v1")
    id: Id = Field(description="the file's name without .yaml; also the metric label, so never change it")
    title: Line = Field(description="one line for the alert list")
    over: Literal["account", "campaign"] = Field(default="account", description="what a row is: features are of one")
    family: Family = Field(description="family of the main evidence, and the folder of the file")
    families: list[Family] = Field(default=[], description="all families whose evidence holds when it fires")
    hypothesis: Hypothesis = Field(description="what it points to")
    severity: Severity = Field(description="before the policy's caps")
    confidence: float = Field(ge=0, le=1, description="declared chance that a firing is abuse, until labels tell")
    status: Literal["experimental", "test", "stable", "deprecated"] = Field(description="experimental can't alert")
    mode: Mode = Field(description="alert, shadow (evaluated and counted only) or off")
    version: int = Field(ge=1, description="add one with every change of meaning")
    params: dict[Word, ParamDoc] = Field(default={}, description="every number of the condition")
    when: Annotated[str, Field(min_length=1)] = Field(description="CEL condition; fires on true alone")
    for_: Duration = Field(default="0s", alias="for", description="event time it must hold on every row of an account")
    cooldown: Duration = Field(description="event time without a firing that ends an episode")
    exceptions: list[ExceptionDoc] = Field(default=[], description="whom to leave alone, until when")
    evidence: list[Word] = Field(min_length=1, max_length=12, description="features that the alert shows")
    why: Prose = Field(description="what abuse looks like here, with the source of the claim")
    blind_spots: Prose = Field(description="abuse that it can't see")
    false_positives: Prose = Field(description="honest traffic that may fire it, and measured firings")
    runbook: list[Line] = Field(min_length=1, description="what to check and do, in order")
    tags: list[str] = Field(min_length=1, description="ATLAS, OWASP and AISVS ids of monitor/rules/tags.yaml")
    references: list[Annotated[str, Field(pattern=LINK_PATTERN)]] = Field(default=[], description="sources")
    tests: list[CaseDoc] = Field(min_length=3, description="at least one true, one false and one unknown")


class ListDoc(_Document):
    """Named strings for ``x in lists.name``; empty once expired."""

    schema_: Literal["monitor.list/v1"] = Field(alias="schema", description="monitor.list/v1")
    id: Word = Field(description="the file's name without .yaml; lists.<id> in conditions")
    owner: Line = Field(description="who answers for it")
    reason: Prose = Field(description="what its members share")
    expires: Day = Field(description="last day (UTC, of event time) on which it holds")
    items: list[Line] | None = Field(default=None, max_length=100_000, description="the members")
    file: Line | None = Field(default=None, description="or a text file beside this one, a member a line")


class MacroDoc(_Document):
    """A named part of conditions, ``macros.<id>``."""

    schema_: Literal["monitor.macro/v1"] = Field(alias="schema", description="monitor.macro/v1")
    id: Word = Field(description="the file's name without .yaml; macros.<id> in conditions")
    help: Prose = Field(description="what it means")
    expression: Annotated[str, Field(min_length=1)] = Field(description="CEL; no params, as rules have their own")


class OverrideDoc(_Document):
    """An operator's changes to one rule, kept beside it so that the rule can be upgraded."""

    schema_: Literal["monitor.override/v1"] = Field(alias="schema", description="monitor.override/v1")
    target: Id = Field(description="id of the rule")
    reason: Prose = Field(description="why")
    owner: Line = Field(description="who answers for it")
    mode: Mode | None = Field(default=None, description="instead of the rule's")
    severity: Severity | None = Field(default=None, description="instead of the rule's")
    params: dict[Word, float] = Field(default={}, description="param: value, within the rule's bounds")
    exceptions: list[ExceptionDoc] = Field(default=[], description="added to the rule's")


class PolicyDoc(_Document):
    """What an alert's severity may rest on (contract 2)."""

    schema_: Literal["monitor.policy/v1"] = Field(alias="schema", description="monitor.policy/v1")
    roots: dict[Root, list[Family]] = Field(min_length=2, description="root: families that count for it")
    never_high: list[Family | Literal["geography"]] = Field(description="what never counts toward HIGH")
    attested: list[Word] = Field(min_length=1, description="families, features or fields that the provider attests")
    exact: list[Family] = Field(description="families whose match is exact")
    min_roots: int = Field(ge=2, le=4, description="roots that HIGH needs")
    account_cap: Severity = Field(description="highest severity of a lone account while nothing is calibrated")
    volume_cap: Severity = Field(description="highest severity of what rests on volume alone")


Document = RuleDoc | ListDoc | MacroDoc | OverrideDoc | PolicyDoc
MODELS: dict[str, type[RuleDoc] | type[ListDoc] | type[MacroDoc] | type[OverrideDoc] | type[PolicyDoc]] = {
    "monitor.rule/v1": RuleDoc,
    "monitor.list/v1": ListDoc,
    "monitor.macro/v1": MacroDoc,
    "monitor.override/v1": OverrideDoc,
    "monitor.policy/v1": PolicyDoc,
}


def validate(node: Node) -> tuple[Document | None, list[Problem]]:
    """The document in ``node`` by its ``schema``; None and every problem where it has another form."""
    if not isinstance(node.value, dict):
        return None, [node.problem("is not a document: begin with `schema: monitor.rule/v1`")]
    name = node.data.get("schema")
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None:
        near = suggestion(str(name), MODELS) or f": one of {', '.join(MODELS)}"
        what = "is required" if "schema" not in node.value else f"{name!r} is unknown"
        return None, [node.problem(what + near, "schema")]
    try:
        return model.model_validate(node.data), []
    except ValidationError as error:
        told = [_problem(detail, node, model) for detail in error.errors(include_url=False)]
        return None, sorted(set(told))


def _problem(detail: ErrorDetails, node: Node, model: type[BaseModel]) -> Problem:
    path: tuple[Key, ...] = ()
    for step in detail["loc"]:  # steps that the file doesn't have are pydantic's names for a union's branches
        if node.at(*path, step) is not None:
            path = (*path, step)
    kind, given = detail["type"], detail.get("input")
    context: dict[str, Any] = detail.get("ctx", {})
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "missing":
        help_text = next((f.description for n, f in model.model_fields.items() if last == (f.alias or n)), None)
        return node.problem("is required" + (f": {help_text}" if help_text and not path else ""), *path, last)
    if kind == "extra_forbidden":
        known = _known(model, path[:-1])
        return node.problem(f"is not a field here{suggestion(last, known) or ': one of ' + ', '.join(known)}", *path)
    if kind == "literal_error":
        choices = [c.strip("'") for c in str(context.get("expected", "")).replace(" or ", ", ").split(", ")]
        return node.problem(f"{given!r} is not one of {', '.join(choices)}{suggestion(str(given), choices)}", *path)
    if kind == "string_pattern_mismatch":
        return node.problem(f"{given!r} should be {_LOOKS[context['pattern']]}", *path)
    message = detail["msg"]
    return node.problem(message[0].lower() + message[1:], *path)


def _known(model: type[BaseModel], path: tuple[Key, ...]) -> list[str]:
    """Fields that the mapping at ``path`` may have."""
    nested: dict[str, type[BaseModel]] = {"params": ParamDoc, "exceptions": ExceptionDoc, "tests": CaseDoc}
    target: type[BaseModel] = nested.get(str(path[0]), model) if path else model
    return [f.alias or n for n, f in target.model_fields.items()]
