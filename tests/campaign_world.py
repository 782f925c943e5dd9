"""Small populations of step blobs, made by hand: who did what in which step, without a log."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from monitor.campaigns import StepBlob
from monitor.campaigns.items import merged, of_prompts, renumbered, totalled
from monitor.campaigns.kinds import CODE
from monitor.campaigns.opinions import CODES, HYPOTHESES
from monitor.campaigns.sums import NAMES
from monitor.campaigns.tally import TOTALS

STEP_MS = 600_000
FIRST = 2_900_000
"""Number of the first step: some time in 2025."""


@dataclass
class Act:
    """One account in one step: its requests, sums by name (the rest 0), links by kind, opinions by hypothesis."""

    account: str
    requests: int = 4
    tenant: str | None = None
    created_days: float = 300.0
    billing: int = 4
    sums: dict[str, int] = field(default_factory=dict)
    links: dict[str, list[int]] = field(default_factory=dict)
    ticks: int = 1
    opinion: dict[str, float] = field(default_factory=dict)
    asks: list[tuple[int, str]] = field(default_factory=list)
    """Items of the corpus with bit 3, each with the model that it was put to."""
    looked: int | None = None
    """Prompts that were looked up in corpora; None: none is known."""


def blob(step: int, acts: list[Act], partition: int = 0) -> StepBlob:
    """The acts of one step, as a partition would publish them."""
    acts = sorted(acts, key=lambda a: a.account)
    at = (FIRST + step) * STEP_MS
    n = len(acts)
    columns: dict[str, pl.Series] = {
        "account": pl.Series([a.account for a in acts], dtype=pl.String),
        "tenant": pl.Series([a.tenant or a.account for a in acts], dtype=pl.String),
        "created_ms": pl.Series([at - round(a.created_days * 86_400_000) for a in acts], dtype=pl.Int64),
        "billing": pl.Series([a.billing for a in acts], dtype=pl.UInt8),
        "first_ms": pl.Series([at] * n, dtype=pl.Int64), "last_ms": pl.Series([at + 1000] * n, dtype=pl.Int64),
        "ticks": pl.Series([a.ticks for a in acts], dtype=pl.UInt64),
        "exemplar": pl.Series([f"r-{a.account}-{step}" for a in acts], dtype=pl.String),
    }  # fmt: skip
    for name in TOTALS:
        columns[name] = pl.Series([a.requests if name == "requests" else 0 for a in acts], dtype=pl.Int64)
    for name in NAMES:
        columns[name] = pl.Series([_sum(a, name) for a in acts], dtype=pl.Int32)
    for name, code in zip(HYPOTHESES, CODES, strict=True):
        said = [a.opinion.get(name) for a in acts]
        columns[code] = pl.Series([0 if p is None else 1 + round(250 * p) for p in said], dtype=pl.UInt8)
    links = [
        (i, CODE[kind], value, a.requests)
        for i, a in enumerate(acts) for kind, values in sorted(a.links.items()) for value in sorted(values)
    ]  # fmt: skip
    schema = {"account": pl.UInt32(), "kind": pl.UInt8(), "value": pl.UInt64(), "count": pl.Int32()}
    models = pl.DataFrame(
        {"account": list(range(n)), "model": ["m"] * n, "count": [a.requests for a in acts]},
        schema={"account": pl.UInt32(), "model": pl.String(), "count": pl.Int32()},
    )
    items, looked = (table.rename({"row": "account"}) for table in corpus_tables(acts))
    table = pl.DataFrame(links, schema=schema, orient="row")
    return StepBlob(FIRST + step, partition, pl.DataFrame(columns), table, models, items, looked)


def corpus_tables(acts: list[Act]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the acts asked of known corpora, by the code that reads events."""
    items, looked = [], []
    for i, act in enumerate(acts):
        if act.looked is None:
            continue
        asks = [*act.asks, *[(0, "m")] * max(0, act.looked - len(act.asks))]
        events = pl.DataFrame(
            {"corpus": [8 if item else 0 for item, _ in asks], "corpus_item": [item or None for item, _ in asks],
             "model": [model for _, model in asks]},
            schema={"corpus": pl.UInt32(), "corpus_item": pl.UInt64(), "model": pl.String()},
        )  # fmt: skip
        mine = [renumbered(table, np.full(len(asks), i)) for table in of_prompts(events)]
        items.append(mine[0])
        looked.append(mine[1])
    return merged(items), totalled(looked)


def _sum(act: Act, name: str) -> int:
    if name in act.sums:
        return act.sums[name]
    return act.requests if name in ("n_text", "n_ok", "n_turn") else 0


def people(count: int, first: int = 0) -> list[Act]:
    """Ordinary accounts: an address in four is shared by five of them, everything else is their own."""
    out = []
    for i in range(first, first + count):
        links = {
            "egress_prefix": [10_000 + i // 5 if i % 4 == 0 else 20_000 + i], "payment": [30_000 + i],
            "client_build": [40_000 + i % 7], "user_agent": [50_000 + i % 7], "template_opening": [60_000 + i],
        }  # fmt: skip
        sums = {"question": 2, "n_human": 3, "n_follow": 2}
        out.append(Act(f"p{i:04d}", links=links, sums=sums, created_days=20.0 + 3.1 * i))
    return out


def campaign(count: int, name: str = "c", base: int = 900_000, **change: object) -> list[Act]:
    """Accounts that share a card, an address, a client and a template, and ask for reasoning."""
    out = []
    for i in range(count):
        act = Act(
            f"{name}{i:04d}", created_days=9.0,
            links={"payment": [base], "egress_prefix": [base + 1], "client_build": [base + 2],
                   "template_opening": [base + 3]},
            sums={"n_harvest": 3, "lex_reasoning": 3},
        )  # fmt: skip
        for key, value in change.items():
            setattr(act, key, value)
        out.append(act)
    return out
