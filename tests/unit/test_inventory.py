"""The inventory is the README's: every place is in its table, every life is a setting that exists."""

from __future__ import annotations

import re
from pathlib import Path

from monitor.settings import Settings
from monitor.store.inventory import ELSEWHERE, REDIS

TEXT = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")


def test_every_life_is_a_setting() -> None:
    for kept in (k for k in REDIS if k.life != "three days"):
        section, _, name = kept.life.partition(".")
        assert name in type(getattr(Settings(), section)).model_fields, kept


def test_every_place_is_in_the_readme_s_table() -> None:
    table = TEXT[TEXT.index("## Privacy") :].split("\n\n")[1]
    for kept in ELSEWHERE:
        words = {"checkpoint.path": "checkpoints"}.get(kept.where, kept.where)
        for word in re.split(r", (?:alerts topic, )?", words):
            assert word.strip() in table, kept
    for life in {k.life for k in REDIS} - {"redis.verdict_ttl_s", "three days"}:
        assert f"`{life}`" in table, life
