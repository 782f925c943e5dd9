"""Every log format there is: those of the package, those of the operator, ``native`` and ``auto``.

A directory holds one mapping or part a file. All of them are read, checked and compiled at once, or everything that
is wrong with them is said at once, each with file and line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import Field, TypeAdapter

from monitor.decode.documents import Document, MappingDoc, PartDoc, ValueDoc, validate
from monitor.decode.mapper import Mapper, Message, Plan, refused
from monitor.decode.otlp import FIRST
from monitor.decode.paths import parse, read_json, read_plain
from monitor.errors import BadInput, Problem
from monitor.fields import REQUIRED
from monitor.records import Expanded, RawBatch, Refused
from monitor.yamlfile import Node, load

NATIVE, AUTO = "native", "auto"
_ENOUGH = 4
"""Required fields that an object must have to be native: none of the foreign formats has more than two of them."""
_INHERITED = (
    "envelope", "items", "requests", "absent", "drop", "request_body", "response_body", "conversation", "answer",
    "failed", "parts",
)  # fmt: skip
_ADAPTER: TypeAdapter[Document] = TypeAdapter(Annotated[Document, Field(discriminator="schema_")])


class Reader(Protocol):
    """What reads messages of one format (or, for ``auto``, of any)."""

    name: str

    def read(self, value: bytes, made_id: str) -> Message:
        """The records of one message; one without an id gets ``made_id``, a slash and its item's index."""


class Native:
    """Contract 1: a message is its own record."""

    name = NATIVE

    def read(self, value: bytes, made_id: str) -> Message:
        """The value, as it is."""
        return Message([value], [0])


class Auto:
    """Each message by what it looks like: native first, then the mappings in order of their names, else native.

    What nothing knows is handed to the decoder as native, which says what is wrong with it. ``seen`` counts.
    """

    name = AUTO

    def __init__(self, mappers: Sequence[Mapper]):
        self._mappers = mappers
        self._binary = next((m for m in mappers if m.plan.envelope == "otlp"), None)
        self.seen: dict[str, int] = {}

    def read(self, value: bytes, made_id: str) -> Message:
        """The records of one message."""
        name, found = self._found(value)
        mapper = next((m for m in self._mappers if m.name == name), None)
        if mapper is None:
            message = Message([value], [0])
        elif found is None:
            message = mapper.read(value, made_id)
            if any(isinstance(event, Refused) for event in message.events):  # no OTLP after all
                name, message = NATIVE, Message([value], [0])
        else:
            message = mapper.read_parsed(found, made_id)
        self.seen[name] = self.seen.get(name, 0) + 1
        return message

    def detect(self, value: bytes) -> str:
        """Name of the format of one message."""
        return self._found(value)[0]

    def _found(self, value: bytes) -> tuple[str, Any]:
        binary = self._binary is not None and value[:1] == FIRST
        try:
            found = read_plain(value) if binary else read_json(value)
        except (ValueError, RecursionError):
            return (self._binary.name if self._binary is not None and binary else NATIVE), None
        record = found[0] if type(found) is list and found else found
        if type(record) is dict and sum(name in record for name in REQUIRED) < _ENOUGH:
            for mapper in self._mappers:
                if mapper.detects(record):
                    return mapper.name, found
        return NATIVE, found


@dataclass(frozen=True, slots=True)
class Formats:
    """A loaded set. ``hash`` changes with every mapping; ``files`` are where they were read."""

    plans: Mapping[str, Plan]
    account: Sequence[str] = ()
    hash: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that may be given, ``native`` and ``auto`` first."""
        return (NATIVE, AUTO, *sorted(self.plans))

    def reader(self, name: str, where: str = "--format") -> Reader:
        """The reader of a format. BadInput for a name that there is not; ``where`` names the setting or option."""
        if name == NATIVE:
            return Native()
        if name == AUTO:
            return Auto([self.mapper(n) for n in sorted(self.plans) if self.plans[n].detect is not None])
        if name not in self.plans:
            raise BadInput([Problem(where, 0, f"{name!r} is not known: one of {', '.join(self.names)}")])
        return self.mapper(name)

    def mapper(self, name: str) -> Mapper:
        """The compiled mapping of that name."""
        return Mapper(self.plans[name], self.account)


def packaged_mappings() -> Path:
    """The mappings that come with the package."""
    return Path(__file__).resolve().parent / "mappings"


def load_formats(directories: Sequence[Path] = (), account: Sequence[str] = ()) -> Formats:
    """Every mapping of the package and below ``directories``; a later one of the same id takes the earlier's place.

    ``account`` are paths tried first for ``account_id``, whatever the format. BadInput with every problem.
    """
    return _Loader().load([packaged_mappings(), *directories], account)


class _Loader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.mappings: dict[str, tuple[MappingDoc, Node]] = {}
        self.parts: dict[str, PartDoc] = {}

    def load(self, directories: Sequence[Path], account: Sequence[str]) -> Formats:
        digest = hashlib.sha256(json.dumps([*account]).encode())
        for directory in directories:
            for path in self._files(directory):
                self._read(path, packaged=directory == directories[0])
                digest.update(path.read_bytes() if path.is_file() else b"")
        for path_text in account:
            try:
                parse(path_text)
            except ValueError as error:
                self.problems.append(Problem("settings", 0, f"{path_text!r} {error}", "decode.account_from"))
        plans = {name: plan for name in self.mappings if (plan := self._plan(name)) is not None}
        if self.problems:
            raise BadInput(self.problems)
        files = {name: node.file for name, (_, node) in self.mappings.items()}
        return Formats(plans, tuple(account), digest.hexdigest()[:16], files)

    def _files(self, directory: Path) -> list[Path]:
        if directory.is_file():
            return [directory]
        if not directory.is_dir():
            self.problems.append(Problem(str(directory), 0, "is no directory of mappings: see decode.mappings"))
            return []
        found = [p for pattern in ("*.yaml", "*.yml") for p in directory.rglob(pattern)]
        return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(directory).parts))

    def _read(self, path: Path, packaged: bool) -> None:
        try:
            node = load(path)
        except BadInput as error:
            self.problems += error.problems
            return
        document, problems = validate(node)
        self.problems += problems
        if document is None:
            return
        if document.id != path.stem:
            self.problems.append(node.problem(f"is {document.id!r} in {path.name}: the file is named for it", "id"))
        elif isinstance(document, PartDoc):
            self.parts[document.id] = document
        elif document.id in (NATIVE, AUTO):
            self.problems.append(node.problem(f"{document.id!r} is taken: choose another", "id"))
        else:
            earlier = self.mappings.get(document.id)
            if earlier is not None and not packaged and Path(earlier[1].file).parent != packaged_mappings():
                self.problems.append(node.problem(f"{document.id!r} is also in {earlier[1].file}: keep one", "id"))
            self.mappings[document.id] = (document, node)

    def _plan(self, name: str, heirs: tuple[str, ...] = ()) -> Plan | None:
        doc, node = self.mappings[name]
        base: Plan | None = None
        if doc.extends is not None:
            if doc.extends in (*heirs, name):
                self.problems.append(node.problem("extends itself: name another mapping", "extends"))
                return None
            if doc.extends not in self.mappings:
                known = ", ".join(sorted(n for n in self.mappings if n != name))
                self.problems.append(node.problem(f"{doc.extends!r} is not known: one of {known}", "extends"))
                return None
            base = self._plan(doc.extends, (*heirs, name))
            if base is None:
                return None
        fields: dict[str, list[ValueDoc]] = {}
        for key, given in doc.fields.items():
            docs = self._values(given)
            for i, value in enumerate(docs):
                if (value.from_ is None) == (value.value is None):
                    place = ("fields", key, i) if isinstance(given, list) else ("fields", key)
                    self.problems.append(node.problem("needs either `from` or `value`", *place))
            fields[key] = docs
        if base is not None:
            fields = {**{k: [*v] for k, v in (base.fields or {}).items()}, **fields}
        for part in doc.parts or ():
            if part not in self.parts:
                known = ", ".join(sorted(self.parts))
                self.problems.append(node.problem(f"{part!r} is no part: one of {known}", "parts"))
                continue
            for key, given in self.parts[part].fields.items():
                fields.setdefault(key, [])
                fields[key] = [*fields[key], *self._values(given)]
        inherited: dict[str, Any] = {}
        for key in _INHERITED:
            own = getattr(doc, key)
            if key != "parts" and (own is not None or base is not None):
                inherited[key] = own if own is not None else getattr(base, key)
        if base is not None and doc.drop is not None:
            inherited["drop"] = [*base.drop, *doc.drop]  # what was a credential stays one
        inherited.setdefault("envelope", "json")
        self._check_credentials(doc, node, inherited.get("drop") or (), fields)
        self._check_complete(node, fields)
        return Plan(id=doc.id, title=doc.title, detect=doc.detect, fields=fields, **inherited)

    @staticmethod
    def _values(given: Any) -> list[ValueDoc]:
        if isinstance(given, ValueDoc):
            return [given]
        if isinstance(given, list) and given and isinstance(given[0], ValueDoc):
            return given
        return [ValueDoc.model_validate({"from": [given] if isinstance(given, str) else given})]

    def _check_credentials(
        self, doc: MappingDoc, node: Node, drop: Sequence[str], fields: Mapping[str, Sequence[ValueDoc]]
    ) -> None:
        dropped = {parse(path)[1] for path in drop}
        for key in doc.fields:
            for value in fields[key]:
                for path in (*(value.from_ or ()), *(value.minus or ())):
                    root, steps = parse(path)
                    if not root and any(steps[: len(gone)] == gone for gone in dropped):
                        message = f"reads {path!r}, which `drop` removes as a credential: read an id instead"
                        self.problems.append(node.problem(message, "fields", key))

    def _check_complete(self, node: Node, fields: Mapping[str, Sequence[ValueDoc]]) -> None:
        missing = [name for name in REQUIRED if name not in fields and name != "request_id"]
        if missing:
            message = f"lacks {', '.join(missing)}: contract 1 requires them, so every record would be rejected"
            self.problems.append(node.problem(message, "fields"))


def expander(reader: Reader, origin: str, max_bytes: int) -> Callable[[RawBatch], Expanded]:
    """A function from a batch of messages to their events; ``origin`` (a topic's name) begins the ids that are made."""

    def expand(batch: RawBatch) -> Expanded:
        values: list[bytes | None] = []
        origins: list[int] = []
        index: list[int] = []
        ignored = 0
        places = zip(batch.values, batch.partition.tolist(), batch.offset.tolist(), strict=True)
        for i, (value, partition, offset) in enumerate(places):
            message = read_message(reader, value, f"{origin}/{partition}/{offset}", max_bytes)
            values += message.events
            index += message.places
            origins += [i] * len(message.events)
            ignored += message.ignored
        rows = np.array(origins, np.int64)
        events = RawBatch(
            values=values,
            partition=np.asarray(batch.partition, np.int32)[rows],
            offset=np.asarray(batch.offset, np.int64)[rows],
            timestamp_ms=np.asarray(batch.timestamp_ms, np.int64)[rows],
            next_offsets=batch.next_offsets,
            trusted_clock=batch.trusted_clock,
        )
        return Expanded(events, rows, np.array(index, np.int32), ignored)

    return expand


def read_message(reader: Reader, value: bytes | None, made_id: str, max_bytes: int) -> Message:
    """The events of one message, an over-long or missing one refused."""
    if not value:
        return refused("empty")
    return refused("oversize") if len(value) > max_bytes else reader.read(value, made_id)


def json_schema() -> dict[str, Any]:
    """JSON Schema of mappings and parts (2020-12), for editors that complete and check as one types."""
    schema = _ADAPTER.json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Log format mappings of the API abuse monitor"
    return schema
