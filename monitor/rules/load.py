"""Reads directories of rules into one compiled set, or says everything that is wrong with them at once.

A set is every ``*.yaml`` file below the paths given: rules, lists, macros, overrides and the policy, told apart
by their ``schema``. Hidden directories are left out, because a mounted ConfigMap keeps its versions in them
(``..data``). A rule lies in the folder of its family, or at the top (a ConfigMap has no folders).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ..errors import BadInput, Problem
from ..fields import FIELDS
from ..records import Policy
from ..yamlfile import Node, load
from .build import RuleBuilder, Source, build_policy, columns_of, end_of_day_ms
from .cel import ListValue, Scope, suggestion
from .check import check
from .documents import Document, ListDoc, MacroDoc, OverrideDoc, PolicyDoc, RuleDoc, validate
from .infile import run_tests
from .model import RuleSet, Vocabulary

MAX_FILES = 5_000
LIST_FILE_BYTES = 16 << 20
_COUNTED = frozenset({"tenants", "accounts", "requests", "groups", "pairs"})
"""Units of features that count."""


def packaged_rules() -> Path:
    """The rules that came with this package: ``rules/`` of a source checkout, ``monitor/_rules`` of a wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_rules"
    return inside if inside.is_dir() else package.parent / "rules"


def load_rules(
    paths: Sequence[Path | str],
    catalogue: Vocabulary,
    classes: Sequence[str] = (),
    policy: Path | str | None = None,
    tests: bool = True,
) -> RuleSet:
    """Read, check, compile and test every rule below ``paths``.

    ``classes`` are the client classes in order of their codes. ``policy`` names the policy's file; else it is the
    one among ``paths``, else the package's. With ``tests``, a failing in-file test is a problem like any other.
    Raises :class:`BadInput` with every problem, in order of file and line.
    """
    return _Loader(catalogue, classes, tests).load([Path(p) for p in paths], Path(policy) if policy else None)


def content_hash(paths: Sequence[Path | str]) -> str:
    """Hash of every file that :func:`load_rules` would read below ``paths``; the same wherever they lie."""
    digest = hashlib.sha256()
    for index, root in enumerate(Path(p) for p in paths):
        for path in sorted(p for p in _walk(root) if p.is_file()):
            name = path.name if path == root else path.relative_to(root).as_posix()
            try:
                body = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                body = f"unreadable: {error.strerror}"
            digest.update(f"{index}\0{name}\0{body}\n".encode())
    return digest.hexdigest()[:16]


def _walk(root: Path) -> list[Path]:
    """Files of a set: YAML and the text files that lists may name. Links to files count, hidden folders don't."""
    if root.is_file():
        return [root]
    found = (p for pattern in ("*.yaml", "*.yml", "*.txt", "*.csv") for p in root.rglob(pattern))
    return [p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts)]


class _Loader:
    def __init__(self, catalogue: Vocabulary, classes: Sequence[str], tests: bool):
        self.catalogue = catalogue
        self.tests = tests
        self.columns = columns_of(catalogue, classes)
        self.problems: list[Problem] = []
        self.documents: list[tuple[Document, Source]] = []

    def load(self, roots: list[Path], policy_file: Path | None) -> RuleSet:
        for root in roots:
            self._read_root(root)
        policy = self._policy(policy_file)
        lists, macros = self._lists(), self._macros()
        scope = Scope(self.columns, {}, lists, macros)
        self._check_macros(scope)
        overrides = self._overrides()
        builder = RuleBuilder(scope, self.catalogue, policy, self.problems)
        built = [
            builder.build(doc, source, overrides[doc.id])
            for doc, source in self.documents if isinstance(doc, RuleDoc)
        ]  # fmt: skip
        rules = {rule.id: rule for rule in sorted((r for r in built if r), key=lambda r: r.id)}
        if self.tests:
            self.problems += [result.problem for result in run_tests(rules.values(), self.columns) if result.problem]
        if not built and not self.problems:
            self.problems.append(Problem(", ".join(map(str, roots)), 0, "holds no rule: name a directory of rules"))
        if self.problems or policy is None:
            raise BadInput(self.problems)
        used = set().union(*(r.when.lists | r.when.macros for r in rules.values()))
        files = (*roots, policy_file) if policy_file else tuple(roots)
        return RuleSet(
            rules=rules, policy=policy, hash=content_hash(files),
            needs={name: feature.needs for name, feature in self.catalogue.by_name.items()},
            ranges={name: (feature.low, feature.high) for name, feature in self.catalogue.by_name.items()},
            whole=frozenset(name for name, feature in self.catalogue.by_name.items() if feature.unit in _COUNTED),
            files=tuple(str(source.path) for _, source in self.documents),
            warnings=tuple(self._unused(used)),
        )  # fmt: skip

    def _read_root(self, root: Path) -> None:
        if not root.exists():
            self.problems.append(Problem(str(root), 0, "does not exist: check rules.dirs"))
            return
        files = sorted(p for p in _walk(root) if p.suffix in (".yaml", ".yml"))
        if len(files) > MAX_FILES:
            self.problems.append(
                Problem(str(root), 0, f"holds {len(files)} files, {MAX_FILES} at most: wrong directory?")
            )
            return
        for path in files:
            folder = "" if path == root else path.relative_to(root).parent.name
            self._read(path, folder)

    def _read(self, path: Path, folder: str) -> Document | None:
        try:
            node = load(path)
        except BadInput as error:
            self.problems += error.problems
            return None
        document, problems = validate(node)
        self.problems += problems
        if document is not None:
            self.documents.append((document, Source(node, path, folder)))
        return document

    def _named(self, kind: type[RuleDoc] | type[ListDoc] | type[MacroDoc]) -> None:
        """Ids are unique, and for lists and macros the file's name."""
        first: dict[str, Source] = {}
        for doc, source in self.documents:
            if not isinstance(doc, kind):
                continue
            name = doc.id
            if name in first:
                other = first[name].node
                self.problems.append(source.node.problem(f"{name!r} is already in {other.file}: rename one", "id"))
            first.setdefault(name, source)
            if not isinstance(doc, RuleDoc) and name != source.path.stem:
                message = f"{name!r} is not the file's name: rename the file to {name}.yaml"
                self.problems.append(source.node.problem(message, "id"))

    def _policy(self, path: Path | None) -> Policy | None:
        found = [(d, s) for d, s in self.documents if isinstance(d, PolicyDoc)]
        if path is None and not found:
            path = packaged_rules() / "policy.yaml"
        if path is not None:
            document = self._read(path, "")
            if document is not None and not isinstance(document, PolicyDoc):
                self.problems.append(Problem(str(path), 1, "is not a policy: begin with `schema: monitor.policy/v1`"))
            found = [(d, s) for d, s in self.documents[-1:] if isinstance(d, PolicyDoc)]
        for _, extra in found[1:]:
            self.problems.append(extra.node.problem(f"is a second policy, after {found[0][1].path}: keep one"))
        if not found:
            return None
        names = tuple(FIELDS)
        return build_policy(found[0][0], found[0][1].node, self.catalogue, names, self.problems)

    def _lists(self) -> dict[str, ListValue]:
        self._named(RuleDoc)
        self._named(ListDoc)
        lists: dict[str, ListValue] = {}
        for doc, source in self.documents:
            if not isinstance(doc, ListDoc):
                continue
            items = self._items(doc, source)
            try:
                lists[doc.id] = ListValue(tuple(dict.fromkeys(items)), end_of_day_ms(doc.expires))
            except (ValueError, OverflowError):
                self.problems.append(source.node.problem(f"{doc.expires!r} is not a day of the calendar", "expires"))
                lists[doc.id] = ListValue(tuple(items))
        return lists

    def _items(self, doc: ListDoc, source: Source) -> list[str]:
        if (doc.items is None) == (doc.file is None):
            self.problems.append(source.node.problem("needs either items or file", "items"))
        if doc.file is None:
            return list(doc.items or [])
        path = source.path.parent / doc.file
        if Path(doc.file).name != doc.file:
            self.problems.append(source.node.problem("must be a file beside this one, without a folder", "file"))
            return []
        try:
            with path.open("rb") as stream:
                raw = stream.read(LIST_FILE_BYTES + 1)
            lines = raw.decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            self.problems.append(source.node.problem(f"{path.name} can't be read: {reason}", "file"))
            return []
        if len(raw) > LIST_FILE_BYTES:
            self.problems.append(source.node.problem(f"{path.name} is over {LIST_FILE_BYTES} bytes", "file"))
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def _macros(self) -> dict[str, str]:
        self._named(MacroDoc)
        return {doc.id: doc.expression for doc, _ in self.documents if isinstance(doc, MacroDoc)}

    def _check_macros(self, scope: Scope) -> None:
        for doc, source in self.documents:
            if isinstance(doc, MacroDoc):
                for error in check(doc.expression, scope, condition=False)[1]:
                    self.problems.append(source.node.problem(error.message, "expression"))

    def _overrides(self) -> dict[str, list[tuple[OverrideDoc, Node]]]:
        known = {doc.id for doc, _ in self.documents if isinstance(doc, RuleDoc)}
        by_target: dict[str, list[tuple[OverrideDoc, Node]]] = defaultdict(list)
        for doc, source in self.documents:
            if not isinstance(doc, OverrideDoc):
                continue
            if doc.target not in known:
                message = f"no rule {doc.target!r}{suggestion(doc.target, known)}"
                self.problems.append(source.node.problem(message, "target"))
            for other, node in by_target[doc.target]:
                for name in _sets(other) & _sets(doc):
                    message = f"{doc.target}: {name} is set in {node.file} too: keep one"
                    self.problems.append(source.node.problem(message, *name.split(".")))
            by_target[doc.target].append((doc, source.node))
        return by_target

    def _unused(self, used: set[str]) -> list[Problem]:
        kinds = {ListDoc: "list", MacroDoc: "macro"}
        return [
            source.node.problem(f"no rule uses this {kinds[type(doc)]}", "id")
            for doc, source in self.documents
            if isinstance(doc, (ListDoc, MacroDoc)) and doc.id not in used
        ]


def _sets(doc: OverrideDoc) -> set[str]:
    fields = {name for name in ("mode", "severity") if getattr(doc, name) is not None}
    return fields | {f"params.{name}" for name in doc.params}
