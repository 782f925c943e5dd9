"""Notices that rule files changed and makes a new set beside the running one. Knows neither clock nor pipeline.

The caller polls as often as it likes and swaps sets at an epoch boundary; a broken set is told once and the
old one goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, Problem
from .load import content_hash, load_rules
from .model import RuleSet, Vocabulary


@dataclass(frozen=True, slots=True)
class Reload:
    """What a change came to: a new set, or the problems that keep the old one running."""

    hash: str
    rules: RuleSet | None
    problems: tuple[Problem, ...] = ()

    @property
    def successful(self) -> bool:
        """The value of the metric ``rules_last_reload_successful``."""
        return self.rules is not None


class Reloader:
    """Watches the files of a set by content, so that a swapped symbolic link (ConfigMap) is seen as well."""

    def __init__(
        self, paths: Sequence[Path | str], catalogue: Vocabulary, classes: Sequence[str] = (),
        policy: Path | str | None = None, current: RuleSet | None = None,
    ):  # fmt: skip
        self._paths = tuple(paths)
        self._catalogue = catalogue
        self._classes = tuple(classes)
        self._policy = policy
        self._seen = current.hash if current else None

    def poll(self) -> Reload | None:
        """None while nothing changed since the last answer. Compiles everything and runs the in-file tests."""
        files = (*self._paths, self._policy) if self._policy else self._paths
        found = content_hash(files)
        if found == self._seen:
            return None
        try:
            rules = load_rules(self._paths, self._catalogue, self._classes, self._policy)
        except BadInput as error:
            if content_hash(files) != found:
                return None  # the files are being written: look again
            self._seen = found
            return Reload(found, None, error.problems)
        if not rules.hash == found == content_hash(files):
            return None
        self._seen = found
        return Reload(found, rules)
