"""A small vocabulary, and rule files on disk, for the tests of the rules stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from monitor.features.catalogue import Catalogue, Feature
from monitor.rules import RuleSet, load_rules

CLASSES = ("new", "app", "batch")
CATALOGUE = Catalogue((
    Feature("volume_1h", "volume", "1h", "requests", "how many", raw=("ts",)),
    Feature("regular_1h", "timing", "1h", "share", "how regular", high=1.0, needs=("latency_ms",), raw=("ts",)),
    Feature("template_1h", "template", "1h", "share", "how templated", high=1.0, needs=("prompt",)),
    Feature("networks_1h", "linkage", "1h", "prefixes", "how spread", needs=("ip",)),
))  # fmt: skip

RULE: dict[str, Any] = {
    "schema": "monitor.rule/v1", "id": "steady", "title": "Steady", "family": "timing", "hypothesis": "automation",
    "severity": "low", "confidence": 0.5, "status": "stable", "mode": "alert", "version": 1,
    "params": {"level": {"value": 0.5, "min": 0.1, "max": 1, "help": "how regular"}},
    "when": "regular_1h > params.level", "cooldown": "1h", "evidence": ["regular_1h"],
    "why": "Machines are regular.", "blind_spots": "Jitter hides it.", "false_positives": "Any cron job.",
    "runbook": ["look"], "tags": ["AML.T0040"],
    "tests": [
        {"name": "more", "given": {"regular_1h": 0.6}, "alert": True},
        {"name": "level", "given": {"regular_1h": 0.5}, "alert": False},
        {"name": "cold", "given": {}, "alert": "unknown"},
    ],
}  # fmt: skip
POLICY: dict[str, Any] = {
    "schema": "monitor.policy/v1", "min_roots": 2, "account_cap": "medium", "volume_cap": "low",
    "roots": {"identity": ["linkage", "client"], "behaviour": ["timing", "history", "pivot", "volume"],
              "content": ["template", "corpus", "shape", "content"], "exact": ["replay", "intel"]},
    "never_high": ["anomaly", "classifier", "volume", "geography"], "attested": ["ip"], "exact": ["replay"],
}  # fmt: skip


@dataclass
class Folder:
    """A directory of rules that a test fills; ``load`` reads it with the small vocabulary."""

    path: Path

    def write(self, name: str, document: Any) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
        return file

    def rule(self, name: str = "timing/steady.yaml", **changes: Any) -> Path:
        document = RULE | {"id": Path(name).stem} | changes
        return self.write(name, {k: v for k, v in document.items() if v is not None})

    def load(self, **options: Any) -> RuleSet:
        return load_rules([self.path], CATALOGUE, CLASSES, **options)


def folder(path: Path) -> Folder:
    """A directory with the policy and nothing else."""
    made = Folder(path)
    made.write("policy.yaml", POLICY)
    return made


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    """Feature rows; keys not given: partition 0, tick 0, class app, event time of the tick, features unknown."""
    columns: dict[str, tuple[Any, Any]] = {
        "subject": (pl.String, "a"), "partition": (pl.Int32, 0), "tick": (pl.Int64, 0), "t_ms": (pl.Int64, None),
        "client_class": (pl.UInt8, 1), **dict.fromkeys(CATALOGUE.names, (pl.Float64, None)),
    }  # fmt: skip
    made = [{"t_ms": row.get("tick", 0) * 10_000} | row for row in rows]
    return pl.DataFrame(
        {n: pl.Series([r.get(n, default) for r in made], dtype=t) for n, (t, default) in columns.items()}
    )
