"""Signatures of known generator families: data that say by which phrases and flags a family is told. Knows no text.

The built-in ones are ``generators.toml``; a user adds more as files of the same form, one family each, as YAML or TOML
(:func:`read_generators`). Phrases go into the same table as the lexicon's, each group of them under a bit of its own,
so that a signature costs nothing in the pass over the text.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.errors import BadInput, Problem

from .lexicon import expand
from .vocabulary import GENERATOR_BITS, LEXICON_FLAGS

FIRST_GROUP: Final = 16
"""First bit of the kernel's lexicon that stands for a group of phrases; those below are the lexicon's own flags."""
MOST_GROUPS: Final = 32 - FIRST_GROUP
OWN_BITS: Final = range(8, GENERATOR_BITS)
"""Bits of users' families; those below are the package's."""
_MEMBERS: Final = {"name", "bit", "group", "schema"}

U32Array = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Group:
    """Any of these flags of the lexicon, or of these phrases (expanded)."""

    flags: int
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A generator family: it holds where every group does. ``bit`` is its place in the column ``generator``."""

    name: str
    bit: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Generators:
    """All families in force. ``phrases`` maps each phrase to the bits of its groups, for ``lexicon.build``."""

    families: tuple[Family, ...]
    phrases: Mapping[str, int] = field(init=False)
    _needs: tuple[tuple[int, tuple[int, ...]], ...] = field(init=False)

    def __post_init__(self) -> None:
        phrases: dict[str, int] = {}
        needs = []
        at = FIRST_GROUP
        for family in self.families:
            masks = []
            for group in family.groups:
                mask = group.flags
                if group.phrases:
                    mask |= 1 << at
                    for phrase in group.phrases:
                        phrases[phrase] = phrases.get(phrase, 0) | 1 << at
                    at += 1
                masks.append(mask)
            needs.append((family.bit, tuple(masks)))
        problems = []
        if at > 32:
            problems.append(f"{at - FIRST_GROUP} groups of phrases are too many, {MOST_GROUPS} have room: join some")
        for what, taken in (("name", [f.name for f in self.families]), ("bit", [str(f.bit) for f in self.families])):
            twice = sorted({v for v in taken if taken.count(v) > 1})
            problems += [f"two families have the {what} {v!r}" for v in twice]
        if problems:
            raise BadInput([Problem("generators", 0, text) for text in problems])
        object.__setattr__(self, "phrases", phrases)
        object.__setattr__(self, "_needs", tuple(needs))

    def split(self, made: U32Array) -> tuple[U32Array, U32Array]:
        """What the kernel made as the lexicon's flags, and the families that hold as bits of ``generator``."""
        held = np.zeros_like(made)
        for bit, masks in self._needs:
            holds = np.ones(len(made), bool)
            for mask in masks:
                holds &= made & np.uint32(mask) != 0
            held |= holds.astype(np.uint32) << np.uint32(bit)
        return made & np.uint32((1 << FIRST_GROUP) - 1), held

    @property
    def versions(self) -> dict[str, str]:
        """What an alert says of them: nothing where they are the package's own."""
        if len(self.families) == len(builtin().families):
            return {}
        return {"generators": hashlib.sha256(repr(self.families).encode()).hexdigest()[:16]}

    @property
    def names(self) -> Mapping[int, str]:
        """Names by bit."""
        return {f.bit: f.name for f in self.families}


@lru_cache(maxsize=1)
def builtin() -> Generators:
    """The families of the package."""
    listed = tomllib.loads(files(__package__).joinpath("generators.toml").read_text(encoding="utf-8"))["family"]
    return Generators(tuple(_family(entry, range(OWN_BITS.start)) for entry in listed))


def read_generators(directory: Path | None, read_yaml: Callable[[Path], Any] | None = None) -> Generators:
    """The package's families and those of a directory (None: none), one file each, by name of the file.

    ``read_yaml`` reads ``*.yaml``; without it only ``*.toml`` is read, so that a gateway needs no YAML. Raises BadInput
    with every problem of every file.
    """
    families = list(builtin().families)
    problems: list[Problem] = []
    if directory is not None and not directory.is_dir():
        raise BadInput([Problem(str(directory), 0, "is no directory of generator families: make it, or unset it")])
    for path in sorted(directory.iterdir()) if directory is not None else ():
        if path.suffix not in ((".toml", ".yaml", ".yml") if read_yaml else (".toml",)):
            continue
        try:
            raw = read_yaml(path) if read_yaml and path.suffix != ".toml" else tomllib.loads(path.read_text("utf-8"))
            families.append(_family(raw, OWN_BITS))
        except BadInput as error:
            problems += error.problems
        except (OSError, ValueError) as error:  # also TOML's and Unicode's
            problems.append(Problem(str(path), 0, str(error)))
    if problems:
        raise BadInput(problems)
    return Generators(tuple(families))


def _family(raw: Any, allowed: Sequence[int]) -> Family:
    """A family of plain values. Raises ValueError with what is wrong."""
    if not isinstance(raw, Mapping) or not {"name", "bit", "group"} <= raw.keys() <= _MEMBERS:
        raise ValueError("a family has name, bit and group (a list), and nothing else")
    name, bit, groups = raw["name"], raw["bit"], raw["group"]
    if not isinstance(name, str) or not name.isidentifier() or len(name) > 64:
        raise ValueError("name is 1 to 64 letters, digits and underscores")
    if isinstance(bit, bool) or not isinstance(bit, int) or bit not in allowed:
        raise ValueError(f"bit is a number from {allowed[0]} to {allowed[-1]}")
    if not isinstance(groups, list) or not groups:
        raise ValueError("group is a list of at least one group of phrases or flags")
    return Family(name, bit, tuple(_group(g) for g in groups))


def _group(raw: Any) -> Group:
    if not isinstance(raw, Mapping) or not raw or not raw.keys() <= {"phrases", "flags"}:
        raise ValueError("a group has phrases (by language), or flags, or both")
    flags, by_language = raw.get("flags", []), raw.get("phrases", {})
    unknown = [f for f in _strings(flags) if f not in LEXICON_FLAGS]
    if unknown:
        raise ValueError(f"no flag is called {', '.join(unknown)}; they are {', '.join(LEXICON_FLAGS)}")
    if not isinstance(by_language, Mapping):
        raise ValueError("phrases is a table of lists by language: phrases: {en: [...]}")
    phrases: list[str] = []
    for patterns in by_language.values():
        for pattern in _strings(patterns):
            phrases += [phrase.lower() for phrase in expand(pattern)]
    if not phrases and not flags:
        raise ValueError("a group has at least one phrase or flag")
    if "" in phrases:
        raise ValueError("a pattern stands for an empty phrase: each needs a word outside its brackets")
    return Group(sum(1 << LEXICON_FLAGS.index(f) for f in flags), tuple(dict.fromkeys(phrases)))


def _strings(value: Any) -> Iterable[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ValueError("phrases and flags are lists of strings")
    return value
