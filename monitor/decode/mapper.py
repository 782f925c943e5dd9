"""One mapping, compiled: a message of a foreign log in, records of contract 1 as JSON out. Never raises on input.

What comes out goes through the same decoder as a native record, so a mapping can neither accept what the contract
refuses nor say something else about a type. Only fields that the mapping names come out: nothing else of a message,
least of all a credential.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from monitor.decode import otlp
from monitor.decode.chat import read_answer, read_conversation
from monitor.decode.documents import Condition, ValueDoc
from monitor.decode.paths import Getter, getter, opened, parse, read_json, without
from monitor.decode.values import PER_SECOND, converter, seconds, word
from monitor.fields import FIELDS, Kind
from monitor.records import Refused

_write = msgspec.json.Encoder().encode
_FAILED = 400


class Message(NamedTuple):
    """What one message held: records (or :class:`Refused`), the item each was, and how many items are no requests.

    A message without any item counts as one that is none.
    """

    events: list[bytes]
    places: list[int]
    ignored: int = 0


def refused(reason: str) -> Message:
    """A message that could not be read."""
    return Message([Refused(reason)], [0])


@dataclass(frozen=True, slots=True)
class Plan:
    """A mapping with what it inherits: what :class:`Mapper` compiles."""

    id: str
    title: str
    envelope: str
    items: Sequence[str] = ()
    detect: Condition | None = None
    requests: Condition | None = None
    absent: Sequence[str] = ()
    drop: Sequence[str] = ()
    request_body: Sequence[str] = ()
    response_body: Sequence[str] = ()
    conversation: Sequence[str] = ()
    answer: Sequence[str] = ()
    failed: Mapping[str, Any] | None = None
    fields: Mapping[str, Sequence[ValueDoc]] | None = None


class Mapper:
    """A compiled :class:`Plan`. ``account`` are paths that are tried first for ``account_id``."""

    def __init__(self, plan: Plan, account: Sequence[str] = ()):
        fields = dict(plan.fields or {})
        if account:
            fields["account_id"] = [ValueDoc.model_validate({"from": [*account]}), *fields.get("account_id", ())]
        self.plan = plan
        self.name = plan.id
        self._absent = frozenset(("", *plan.absent))
        self._drop = [parse(path)[1] for path in plan.drop]
        self._items = [getter(path) for path in plan.items]
        self._requests = _condition(plan.requests)
        self._detect = _condition(plan.detect) if plan.detect is not None else None
        self._bodies = [
            (name, [getter(path) for path in paths])
            for name, paths in (("$request", plan.request_body), ("$response", plan.response_body))
        ]
        self._readers = (
            ([getter(p) for p in plan.conversation], read_conversation),
            ([getter(p) for p in plan.answer], read_answer),
        )
        self._fields = [(name, [self._value(name, doc) for doc in docs]) for name, docs in fields.items()]

    @property
    def fields(self) -> frozenset[str]:
        """Fields of the contract that the mapping can give."""
        made = {name for name, _ in self._fields} | {"request_id"}
        if self.plan.conversation:
            made |= {"prompt", "system", "n_messages", "turn_index", "input_kind"}
        return frozenset(made | ({"response", "finish_reason", "refused"} if self.plan.answer else set()))

    def detects(self, record: Any) -> bool:
        """Whether a message that was read as JSON (an object, or the first of an array) is of this format."""
        return self._detect is not None and type(record) is dict and self._detect(_roots(record))

    def read(self, value: bytes, made_id: str) -> Message:
        """The records of a message. One without an id gets ``made_id``, a slash and the item's index."""
        if not value.strip():
            return refused("empty")
        if self.plan.envelope == "otlp" and value[:1] == otlp.FIRST:
            with suppress(otlp.NotOtlp):  # JSON that begins with an empty line, after all
                return self._message(otlp.read_protobuf(value), made_id)
        try:
            found: Any = read_json(value)
        except RecursionError:
            return refused("too_deep")
        except (ValueError, UnicodeError):
            return refused("not_json" if self.plan.envelope == "otlp" or _is_utf8(value) else "not_utf8")
        return self.read_parsed(found, made_id)

    def read_parsed(self, found: Any, made_id: str) -> Message:
        """:meth:`read` of a message that was read as JSON already; ``found`` may be changed."""
        records = found if type(found) is list else [found]
        items: list[Any] = []
        for record in records:
            if type(record) is not dict:
                items.append(record)
            elif self.plan.envelope == "otlp":
                items += otlp.read_json(record)
            else:
                items += self._opened(record)
        return self._message(items, made_id)

    def _opened(self, record: dict[str, Any]) -> list[Any]:
        for get in self._items:
            inner = get(_roots(record))
            if inner is not None:
                return [opened(item) for item in inner] if type(inner) is list else [opened(inner)]
        return [record]

    def _message(self, items: Sequence[Any], made_id: str) -> Message:
        events: list[bytes] = []
        places: list[int] = []
        for i, item in enumerate(items):
            if type(item) is not dict:
                events.append(Refused("not_object"))
            elif (record := self._record(item)) is None:
                continue
            else:
                record.setdefault("request_id", f"{made_id}/{i}")
                try:
                    events.append(_write(record))
                except (UnicodeError, RecursionError):
                    events.append(Refused("not_utf8"))
            places.append(i)
        return Message(events, places, max(1, len(items)) - len(events))

    def _record(self, item: dict[str, Any]) -> dict[str, Any] | None:
        """The item as a record of contract 1; None where it is no request."""
        for steps in self._drop:
            without(item, steps)
        roots = _roots(item)
        if not self._requests(roots):
            return None
        for name, bodies in self._bodies:
            for get in bodies:
                body = opened(get(roots))
                if type(body) in (dict, list):
                    roots[name] = body
                    break
        record: dict[str, Any] = {}
        for name, values in self._fields:
            for give in values:
                value = give(roots)
                if value is not None:
                    record[name] = value
                    break
        for getters, read in self._readers:
            for get in getters:
                given = get(roots)
                if given is None or self._is_absent(given):
                    continue
                derived = read(given)
                texts = [derived.get(name) for name in ("prompt", "system", "response")]
                if derived and not any(self._is_absent(text) for text in texts if text is not None):
                    for key, value in derived.items():
                        record.setdefault(key, value)
                    break
        if record.get("end_user_id") == record.get("account_id"):
            record.pop("end_user_id", None)  # whom the account's own name names is no user of its
        status = record.get("status")
        if self.plan.failed and isinstance(status, int) and status >= _FAILED:
            for name, value in self.plan.failed.items():
                record.setdefault(name, value)
        return record

    def _is_absent(self, value: Any) -> bool:
        return type(value) is str and value.strip() in self._absent

    def _value(self, name: str, doc: ValueDoc) -> Callable[[Mapping[str, Any]], Any]:
        if doc.value is not None:
            constant = doc.value
            return lambda roots: constant
        getters = [getter(path) for path in doc.from_ or ()]
        minus = [getter(path) for path in doc.minus or ()]
        field = FIELDS[name]
        convert = converter(field, doc.as_, doc.unit, doc.zone, doc.scale)
        words, otherwise = doc.map or {}, doc.otherwise
        mapped = doc.map is not None or otherwise is not None
        # A number among words that `map` has not may be what is wanted (an error code that is a status), a word is not.
        closed = otherwise is not None and field.kind is Kind.CODE
        keep = field.kind not in (Kind.ID, Kind.STRING, Kind.TEXT) and doc.as_ is None and otherwise is None

        def give(roots: Mapping[str, Any]) -> Any:
            odd: Any = None
            for get in getters:
                given = get(roots)
                if given is None or self._is_absent(given):
                    continue
                if mapped:
                    key = word(given)
                    if key is not None and key in words:
                        return words[key]
                if closed:
                    return otherwise
                value = convert(_less(given, minus, doc, roots) if minus else given)
                if value is not None and value != "":
                    return value
                if otherwise is not None:
                    return otherwise
                odd = given if odd is None else odd
            # What no conversion takes goes on as it is where decode will count it as of a wrong type.
            return odd if keep and not mapped and type(odd) in (str, int, float, bool) else None

        return give


def _less(value: Any, minus: Sequence[Getter], doc: ValueDoc, roots: Mapping[str, Any]) -> Any:
    """``value`` less the first of ``minus`` that is a number or a time; None where none is, or it is the larger."""
    per_second = PER_SECOND.get(doc.unit or "s")
    whole = seconds(value, per_second, doc.zone)
    for get in minus:
        part = seconds(get(roots), per_second, doc.zone)
        if whole is not None and part is not None:
            return round(whole - part, 6) if whole >= part else None
    return None


def _roots(item: dict[str, Any]) -> dict[str, Any]:
    return {"": item, "$request": None, "$response": None}


def _condition(doc: Condition | None) -> Callable[[Mapping[str, Any]], bool]:
    if doc is None:
        return lambda roots: True
    every, some = [getter(p) for p in doc.all], [getter(p) for p in doc.any]
    among = [(getter(p), {word(v) for v in values}) for p, values in doc.values.items()]
    never = [(getter(p), {word(v) for v in values}) for p, values in doc.none.items()]

    def holds(roots: Mapping[str, Any]) -> bool:
        if any(get(roots) is None for get in every) or (some and all(get(roots) is None for get in some)):
            return False
        for get, values in among:
            if (given := get(roots)) is not None and word(given) not in values:
                return False
        return not any((given := get(roots)) is not None and word(given) in values for get, values in never)

    return holds


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
