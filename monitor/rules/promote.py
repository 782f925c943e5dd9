"""Changes the mode of a rule in its file, and nothing else: comments, order and spacing stay as they were written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, Problem
from ..yamlfile import Node, load
from .load import load_rules
from .model import RuleSet, Vocabulary

_MODE = re.compile(r"(\bmode:\s*)(['\"]?)(alert|shadow|off)\2(?=[\s,}]|$)")


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was changed: the file and line that held the mode in force, and the mode before and after."""

    rule: str
    path: Path
    line: int
    before: str
    after: str


def promote(
    rule_id: str, rules: RuleSet, paths: Sequence[Path], catalogue: Vocabulary, classes: Sequence[str],
    policy: Path | None = None, mode: str = "alert", dry: bool = False,
) -> Promotion:  # fmt: skip
    """Set the mode of a rule of ``rules`` (loaded from ``paths``) where it stands: in its override, else in its file.

    The set is loaded again afterwards, and the file put back if it no longer loads. Raises BadInput: no such rule,
    the mode it has already, an experimental rule, or a mode written in a way that cannot be changed safely.
    """
    rule = rules.rules.get(rule_id)
    if rule is None:
        raise BadInput([Problem(rule_id, 0, f"no such rule; there are {', '.join(rules.rules)}")])
    path, node = _place(rule_id, rule.file, rules.files)
    line = node.line_of("mode")
    if rule.mode == mode:
        raise BadInput([Problem(str(path), line, f"{rule_id} is in mode {mode} already", "mode")])
    if rule.status == "experimental" and mode == "alert":
        why = "is experimental, which may not alert: set `status: test` first, when its firings are understood"
        raise BadInput([Problem(rule.file, load(rule.file).line_of("status"), why, "status")])
    done = Promotion(rule_id, path, line, rule.mode, mode)
    if not dry:
        _rewrite(path, line, rule.mode, mode)
        try:
            after = load_rules(paths, catalogue, classes, policy).rules[rule_id].mode
            if after != mode:
                raise BadInput([Problem(str(path), line, f"the mode in force is still {after!r}", "mode")])
        except BadInput:
            _rewrite(path, line, mode, rule.mode)
            raise
    return done


def _place(rule_id: str, file: str, files: Sequence[str]) -> tuple[Path, Node]:
    """The file whose ``mode`` is in force: that of the override which sets it, else the rule's own."""
    for name in files:
        node = load(name)
        held = node.data
        if isinstance(held, dict) and held.get("target") == rule_id and held.get("mode") is not None:
            return Path(name), node
    return Path(file), load(file)


def _rewrite(path: Path, line: int, before: str, after: str) -> None:
    """Exchange the word in that line, in one step: a running monitor reads the old file or the new one."""
    with path.open(encoding="utf-8", newline="") as stream:
        lines = stream.read().splitlines(keepends=True)
    found = [m for m in _MODE.finditer(lines[line - 1]) if m[3] == before]
    if len(found) != 1:
        why = f"does not say `mode: {before}` once on this line: change it by hand"
        raise BadInput([Problem(str(path), line, why, "mode")])
    start, end = found[0].span(3)
    lines[line - 1] = lines[line - 1][:start] + after + lines[line - 1][end:]
    part = path.with_name(f".{path.name}.part")
    part.write_text("".join(lines), "utf-8", newline="")
    part.replace(path)
