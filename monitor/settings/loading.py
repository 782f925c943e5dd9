"""YAML file + environment + secret files -> :class:`Settings`, or every problem at once. Quotes no secret.

Precedence: environment over file over default. ``MONITOR__KAFKA__TOPIC=x`` sets ``kafka.topic``; a list is written
with commas, a mapping or list of mappings as YAML flow; an empty variable is as if it were not there.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from .. import yamlfile
from ..errors import BadInput, Problem
from ..yamlfile import Key, Node, dotted
from .base import CHECKS, FORM, Section
from .root import Settings

ENV_PREFIX = "MONITOR__"
_SECRET_BYTES = 64 * 1024


def load_settings(
    path: Path | str | None = None, env: Mapping[str, str] | None = None, *, read_secrets: bool = True
) -> Settings:
    """Settings from a file (None: none) and the environment (None: this process's).

    With ``read_secrets`` false the files that ``*_file`` settings name are not opened: a configuration can be checked
    where its secrets are not. Raises :class:`BadInput` with all problems.
    """
    loader = _Loader(path, dict(os.environ if env is None else env))
    if read_secrets:
        loader.read_secrets()
    return loader.settings()


def masked(settings: Settings) -> dict[str, Any]:
    """The resolved tree as JSON values, each secret that is set as ``**********``."""
    return settings.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """JSON Schema of the settings file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}


class _Loader:
    def __init__(self, path: Path | str | None, env: Mapping[str, str]) -> None:
        self.node = yamlfile.load(path) if path is not None else Node("settings", 0, None, {})
        self.problems: list[Problem] = []
        self._from_env: dict[tuple[Key, ...], str] = {}
        data = self.node.data
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise BadInput([self.node.problem("must be a mapping of sections, such as `kafka:`")])
        self.data: dict[str, Any] = data
        for name in sorted(env):
            if name.startswith(ENV_PREFIX) and env[name] != "":
                self._override(name, env[name])

    def settings(self) -> Settings:
        """Validate; on problems take out what was wrong and look again, so that one field hides no other's problem."""
        reported: set[tuple[Key, ...]] = set()
        tainted: set[tuple[Key, ...]] = set()
        while True:
            try:
                settings = Settings.model_validate(self.data)
            except ValidationError as error:
                found: list[tuple[Key, ...]] = []
                for detail in error.errors(include_url=False):
                    where = _path(detail)
                    if detail["type"] == CHECKS and where in tainted:
                        continue  # a field that it reads was taken out: what it says may not be so
                    if detail["type"] not in {CHECKS, "extra_forbidden"}:
                        tainted.update(where[:end] for end in range(len(where)))
                    for path, message in self._explain(detail, where):
                        found.append(path)
                        if path not in reported:
                            self.problems.append(self._problem(path, message))
                reported.update(found)
                if sum(_remove(self.data, path) for path in found):
                    continue
            else:
                if not self.problems:
                    return settings
            raise BadInput(dict.fromkeys(self.problems))

    def _override(self, name: str, value: str) -> None:
        path = tuple(name[len(ENV_PREFIX) :].lower().split("__"))
        annotation, known = _annotation(path)
        if annotation is None:
            self.problems.append(Problem("environment", 0, f"is not a setting{_hint_env(path, known)}", name))
            return
        parsed: Any = value
        if _is_container(annotation) and value.lstrip()[:1] in {"[", "{"}:
            try:
                parsed = yamlfile.parse(value, "environment").data
            except BadInput:
                self.problems.append(Problem("environment", 0, "is not a YAML list or mapping", name))
                return
        elif value == "null" and _allows_none(annotation) and not _holds(annotation, SecretStr):
            parsed = None
        target = self.data
        for step in path[:-1]:
            inner = target.get(step)
            if inner is None:
                inner = target[step] = {}
            if not isinstance(inner, dict):
                return  # the file has something else there: reported by the validation
            target = inner
        target[path[-1]] = parsed
        self._from_env[path] = name

    def read_secrets(self) -> None:
        """Put what each ``X_file`` names into the secret ``X`` beside it."""
        for path, section, values in _sections(self.data, Settings, ()):
            for name, field in section.model_fields.items():
                file = values.get(f"{name}_file")
                if not _holds(field.annotation, SecretStr) or file is None:
                    continue
                where = (*path, f"{name}_file")
                if values.get(name) is not None:
                    self._add(where, f"and {name} are both set: keep one")
                elif isinstance(file, str | Path):
                    secret = self._secret(where, Path(file))
                    if secret is not None:
                        values[name] = secret

    def _secret(self, where: tuple[Key, ...], file: Path) -> str | None:
        try:
            with open(file, "rb") as stream:
                raw = stream.read(_SECRET_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a name with a null byte
            self._add(where, f"{str(file)!r} can't be read: {getattr(error, 'strerror', None) or error}")
            return None
        try:
            text = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            self._add(where, f"{str(file)!r} is not UTF-8 text: write the secret as text, e.g. hex")
            return None
        if not text or len(raw) > _SECRET_BYTES:
            self._add(where, f"{str(file)!r} is {'over 64 KiB' if text else 'empty'}")
            return None
        return text

    def _explain(self, detail: ErrorDetails, path: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], str]]:
        if detail["type"] == CHECKS:
            for name, message in detail.get("ctx", {})["found"]:
                yield (*path, *name.split(".")), message
            return
        annotation, siblings = _annotation(path)
        message = detail["msg"]
        if detail["type"] == "extra_forbidden":
            message = f"is not a setting{_hint(path, siblings)}"
        elif detail["type"] == "missing":
            message = "is missing"
        elif detail["type"] == "too_short":  # pydantic counts what is left after the items that it refused
            if isinstance(detail["input"], list | tuple) and len(detail["input"]):
                return
            message = "must not be empty"
        elif detail["type"] != FORM:
            message = (message[0].lower() + message[1:]).replace("tuple", "list")
            if annotation is not None and not _holds(annotation, SecretStr) and _plain(detail["input"]):
                message += f", not {detail['input']!r}"
            if detail["type"] == "literal_error":
                message += _did_you_mean(str(detail["input"]), [str(v) for v in _literals(annotation)])
        yield path, message

    def _add(self, path: tuple[Key, ...], message: str) -> None:
        self.problems.append(self._problem(path, message))

    def _problem(self, path: tuple[Key, ...], message: str) -> Problem:
        for end in range(len(path), 0, -1):
            name = self._from_env.get(path[:end])
            if name is not None:
                return Problem("environment", 0, message, name)
        return Problem(self.node.file, self.node.line_of(*path), message, dotted(path) or None)


def _path(detail: ErrorDetails) -> tuple[Key, ...]:
    return tuple(step for step in detail["loc"] if isinstance(step, int | str))


def _remove(data: dict[str, Any], path: tuple[Key, ...]) -> bool:
    """Take the value at a path out (a whole list, where the path leads into one); whether there was one."""
    target: Any = data
    for i, step in enumerate(path):
        if not isinstance(target, dict) or step not in target:
            return False
        if i == len(path) - 1 or not isinstance(target[step], dict):
            del target[step]
            return True
        target = target[step]
    return False


def _sections(
    data: dict[str, Any], section: type[Section], path: tuple[Key, ...]
) -> Iterator[tuple[tuple[Key, ...], type[Section], dict[str, Any]]]:
    """Every mapping in the data that belongs to a section, with its path and class."""
    yield path, section, data
    for name, field in section.model_fields.items():
        inner, value = section_of(field.annotation), data.get(name)
        if inner is None:
            continue
        if isinstance(value, dict):
            yield from _sections(value, inner, (*path, name))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _sections(item, inner, (*path, name, i))


def _annotation(path: tuple[Key, ...]) -> tuple[Any, list[str]]:
    """``(annotation, [])`` of the setting at a path, or ``(None, names known where the path leaves the tree)``."""
    section: type[Section] | None = Settings
    annotation: Any = None
    for step in path:
        if isinstance(step, int):
            continue
        if section is None:
            return None, []
        field = section.model_fields.get(step)
        if field is None:
            return None, list(section.model_fields)
        annotation = field.annotation
        section = section_of(annotation)
    return annotation, []


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    if get_origin(annotation) is not None:
        for part in get_args(annotation):
            yield from _parts(part)


def section_of(annotation: Any) -> type[Section] | None:
    """The section that an annotation is, or holds (a list of them), or None."""
    for part in _parts(annotation):
        if isinstance(part, type) and issubclass(part, Section):
            return part
    return None


def _holds(annotation: Any, kind: type) -> bool:
    return any(part is kind for part in _parts(annotation))


def _literals(annotation: Any) -> list[Any]:
    return [part for part in _parts(annotation) if isinstance(part, str | int)]


def _is_container(annotation: Any) -> bool:
    return (
        any(get_origin(part) in {tuple, list, dict} for part in _parts(annotation))
        or section_of(annotation) is not None
    )


def _allows_none(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _allows_none(get_args(annotation)[0])
    return get_origin(annotation) in {Union, UnionType} and type(None) in get_args(annotation)


def _plain(value: Any) -> bool:
    return value is None or (isinstance(value, str | int | float) and len(str(value)) <= 80)


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _hint(path: tuple[Key, ...], siblings: list[str]) -> str:
    """A near name among the siblings; else where a setting of this very name is."""
    word = str(path[-1]) if path else ""
    near = _did_you_mean(word, siblings)
    if near:
        return near
    elsewhere = [dotted(found) for found in _paths(Settings, ()) if found[-1] == word]
    return (
        f"; did you mean {elsewhere[0]!r}?" if elsewhere else f"; known here: {', '.join(siblings)}" if siblings else ""
    )


def _hint_env(path: tuple[str, ...], siblings: list[str]) -> str:
    names = {ENV_PREFIX + "__".join(str(s) for s in found).upper() for found in _paths(Settings, ())}
    return _did_you_mean(ENV_PREFIX + "__".join(path).upper(), sorted(names)) or _hint(path, siblings)


def _paths(section: type[Section], path: tuple[Key, ...]) -> Iterator[tuple[Key, ...]]:
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is None:
            yield (*path, name)
        else:
            yield from _paths(inner, (*path, name))
