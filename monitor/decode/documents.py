"""The shape of a mapping's file, and how a mistake in one becomes a line and a remedy.

These models are the one source for the loader's checks and for the JSON Schema that editors use. They know the form
and the paths; that a mapping reads no credential, and what it inherits, is the loader's business.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from monitor.decode.paths import parse
from monitor.decode.values import As, Unit
from monitor.errors import Problem
from monitor.fields import FIELDS
from monitor.yamlfile import Key, Node

ID_PATTERN = r"^[a-z][a-z0-9]*([_-][a-z0-9]+)*$"
ZONE_PATTERN = r"^(Z|[+-][0-9]{2}:[0-9]{2})$"
_LOOKS = {ID_PATTERN: "lower-case words joined by _ or -, like my_gateway", ZONE_PATTERN: "a zone, like Z or +02:00"}


def _path(value: str) -> str:
    try:
        parse(value)
    except ValueError as error:
        raise PydanticCustomError("path", "{problem}", {"problem": f"{value!r} {error}"}) from None
    return value


def _contract_field(value: str) -> str:
    if value not in FIELDS:
        close = difflib.get_close_matches(value, FIELDS, n=1, cutoff=0.6)
        hint = f": did you mean {close[0]!r}?" if close else ": `monitor fields` lists them"
        raise PydanticCustomError("path", "{problem}", {"problem": f"{value!r} is no field of contract 1{hint}"})
    return value


Id = Annotated[str, Field(pattern=ID_PATTERN, max_length=64)]
Path = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_path)]
Paths = Annotated[list[Path], Field(min_length=1, max_length=40)]
Scalar = str | int | float | bool
Prose = Annotated[str, Field(min_length=10, max_length=4000)]
Line = Annotated[str, Field(min_length=1, max_length=300)]
ContractField = Annotated[str, AfterValidator(_contract_field)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class ValueDoc(_Document):
    """Where a field comes from and how it is converted: the first path whose value converts."""

    from_: Paths | None = Field(default=None, alias="from", description="paths, the first that gives a value counts")
    value: Scalar | None = Field(default=None, description="a constant instead of paths")
    minus: Paths | None = Field(default=None, description="subtract this (two times: a duration)")
    unit: Unit | None = Field(default=None, description="unit of a time or duration in the log: s, ms, us or ns")
    zone: Annotated[str, Field(pattern=ZONE_PATTERN)] | None = Field(
        default=None, description="zone of times that are written without one"
    )
    scale: float | None = Field(default=None, gt=0, description="multiply by this (cents to dollars: 0.01)")
    as_: As | None = Field(default=None, alias="as", description="a named conversion instead of the field's own")
    map: dict[str, Scalar] | None = Field(default=None, description="word in the log: value of the contract")
    otherwise: Scalar | None = Field(default=None, description="value for a word that `map` has not")


class Condition(_Document):
    """A test of one record; every part that is given must hold."""

    all: list[Path] = Field(default=[], description="each of these is there")
    any: list[Path] = Field(default=[], description="at least one of these is there")
    values: dict[Path, list[Scalar]] = Field(default={}, description="path: values; where it is there it has one")
    none: dict[Path, list[Scalar]] = Field(default={}, description="path: values that it must not have")


FieldDoc = Path | list[Path] | ValueDoc | list[ValueDoc]


class MappingDoc(_Document):
    """One log format: how messages open into items, which items are requests, and where each field lies."""

    schema_: Literal["monitor.mapping/v1"] = Field(alias="schema", description="monitor.mapping/v1")
    id: Id = Field(description="the file's name without .yaml: what decode.format and --format name")
    title: Line = Field(description="the gateway or product, in a line")
    help: Prose | None = Field(default=None, description="how its log reaches the monitor, and what it lacks")
    references: list[Annotated[str, Field(pattern=r"^https://[^\s]+$")]] = Field(
        default=[], description="documentation that this was written from"
    )
    extends: Id | None = Field(default=None, description="id of a mapping to start from; what is given here wins")
    parts: list[Id] | None = Field(default=None, description="parts whose fields are tried after these")
    envelope: Literal["json", "otlp"] | None = Field(
        default=None, description="json: objects or arrays of them; otlp: OTLP as JSON or protobuf"
    )
    items: list[Path] | None = Field(
        default=None, description="paths to the items of a message; the first there counts"
    )
    detect: Condition | None = Field(default=None, description="how format auto knows it; absent: only by name")
    requests: Condition | None = Field(default=None, description="which items are requests; the others are ignored")
    absent: list[str] | None = Field(default=None, description="texts that stand for nothing: redaction, a dash")
    drop: list[Path] | None = Field(default=None, description="credentials: removed before anything is read")
    request_body: Paths | None = Field(default=None, description="paths to the request body: $request of other paths")
    response_body: Paths | None = Field(default=None, description="paths to the response body: $response")
    conversation: Paths | None = Field(
        default=None, description="messages sent: prompt, system, n_messages, turn_index, input_kind"
    )
    answer: Paths | None = Field(default=None, description="the answer: response, finish_reason, refused")
    failed: dict[ContractField, Scalar] | None = Field(
        default=None, description="field: value where it is not known and status is 400 or more"
    )
    fields: dict[ContractField, FieldDoc] = Field(default={}, description="field of contract 1: path, paths or more")


class PartDoc(_Document):
    """Fields that several mappings share."""

    schema_: Literal["monitor.mapping-part/v1"] = Field(alias="schema", description="monitor.mapping-part/v1")
    id: Id = Field(description="the file's name without .yaml")
    help: Prose = Field(description="what these fields are read from")
    fields: dict[ContractField, FieldDoc] = Field(description="field of contract 1: path, paths or more")


Document = MappingDoc | PartDoc
MODELS: dict[str, type[MappingDoc] | type[PartDoc]] = {
    "monitor.mapping/v1": MappingDoc,
    "monitor.mapping-part/v1": PartDoc,
}


def validate(node: Node) -> tuple[Document | None, list[Problem]]:
    """The document in ``node`` by its ``schema``; None and every problem where it has another form."""
    if not isinstance(node.value, dict):
        return None, [node.problem("is not a mapping: begin with `schema: monitor.mapping/v1`")]
    name = node.data.get("schema")
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None:
        what = "is required" if "schema" not in node.value else f"{name!r} is unknown"
        return None, [node.problem(f"{what}: one of {', '.join(MODELS)}", "schema")]
    try:
        return model.model_validate(node.data), []
    except ValidationError as error:
        told = {_problem(detail, node, model) for detail in error.errors(include_url=False) if _told(detail, node)}
        return None, sorted(told)


def _told(detail: ErrorDetails, node: Node) -> bool:
    """Whether this branch of a field's union is the one that the file means: a string, a list or an object."""
    loc = detail["loc"]
    if len(loc) < 3 or loc[0] != "fields" or not isinstance(loc[1], str):
        return True
    given = node.at("fields", loc[1])
    branch = str(loc[2])
    if given is None or branch == "[key]":
        return True
    if isinstance(given.value, dict):
        return branch == "ValueDoc"
    if isinstance(given.value, list):
        objects = any(isinstance(item.value, dict) for item in given.value)
        return branch.startswith("list[") and ("ValueDoc" in branch) == objects
    return branch.startswith(("constrained-str", "function-after", "str"))


def _problem(detail: ErrorDetails, node: Node, model: type[BaseModel]) -> Problem:
    path: tuple[Key, ...] = ()
    for step in detail["loc"]:  # steps that the file doesn't have are pydantic's names for a union's branches
        if node.at(*path, step) is not None:
            path = (*path, step)
    kind, last = detail["type"], str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "missing":
        help_text = next((f.description for n, f in model.model_fields.items() if last == (f.alias or n)), None)
        return node.problem("is required" + (f": {help_text}" if help_text and not path else ""), *path, last)
    if kind == "extra_forbidden":
        inside: dict[Key, type[BaseModel]] = {"fields": ValueDoc, "detect": Condition, "requests": Condition}
        target = inside.get(path[0], model) if len(path) > 1 else model
        known = [f.alias or n for n, f in target.model_fields.items()]
        close = difflib.get_close_matches(last, known, n=1, cutoff=0.6)
        hint = f": did you mean {close[0]!r}?" if close else ": one of " + ", ".join(known)
        return node.problem(f"is not a field here{hint}", *path)
    if kind == "string_pattern_mismatch":
        wanted = _LOOKS.get(str(detail.get("ctx", {}).get("pattern")), "a link that starts with https://")
        return node.problem(f"{detail.get('input')!r} should be {wanted}", *path)
    message: Any = detail["msg"]
    return node.problem(message[0].lower() + message[1:] if kind != "path" else message, *path)
