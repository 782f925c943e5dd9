"""Which campaign a component is: ids that stay while a campaign grows, merges with another or falls apart.

A component takes over the campaign with which it shares most accounts. Two campaigns in one component merge: the
older keeps its id. Of a campaign that falls apart, the part with most of its accounts keeps the id, the rest are new.
An id is a hash of the step and the first account (by id) at its founding, so a replay gives the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

HISTORY = 64
"""Entries of (step, accounts, core) kept of a campaign, the newest: what a growth curve needs."""


class Campaign(msgspec.Struct):
    """A campaign: rows of its accounts now, when it was founded, and how it grew."""

    id: str
    founded: int
    accounts: list[int]
    history: list[tuple[int, int, int]] = []
    sync: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])
    """Pairs of accounts seen in one tick, and as many as chance would give."""
    together: list[int] = []
    """Rows of accounts that were active in one tick with two others."""
    core: list[int] = []
    """Rows of accounts that were core when last judged."""
    core_families: list[int] = []
    """What held of each of these (``members.code_of``)."""

    def cores(self) -> dict[int, int]:
        """Core rows, with what held of each."""
        return dict(zip(self.core, self.core_families, strict=False))


class Registry:
    """Campaigns that live, by id."""

    def __init__(self) -> None:
        self.campaigns: dict[str, Campaign] = {}

    def update(self, groups: Sequence[I64], names: Sequence[str], step: int) -> list[tuple[str, str]]:
        """Give each group of account rows its campaign; returns merges (id that ends, id that goes on)."""
        owner: dict[int, str] = {a: c.id for c in self.campaigns.values() for a in c.accounts}
        core = {a: code for c in self.campaigns.values() for a, code in c.cores().items()}
        claims: list[tuple[int, int, str, int]] = []
        for number, group in enumerate(groups):
            counts: dict[str, int] = {}
            for account in group.tolist():
                held = owner.get(account)
                if held is not None:
                    counts[held] = counts.get(held, 0) + 1
            claims += [(-n, self.campaigns[c].founded, c, number) for c, n in counts.items()]
        taken: dict[str, int] = {}
        claimed: dict[int, list[str]] = {}
        for _, _, campaign, number in sorted(claims):
            if campaign not in taken:
                taken[campaign] = number
                claimed.setdefault(number, []).append(campaign)
        merges: list[tuple[str, str]] = []
        living: dict[str, Campaign] = {}
        for number, group in enumerate(groups):
            mine = sorted(claimed.get(number, ()), key=lambda c: (self.campaigns[c].founded, c))
            if mine:
                kept = self.campaigns[mine[0]]
                merges += [(other, kept.id) for other in mine[1:]]
                for other in mine[1:]:
                    kept.sync = [a + b for a, b in zip(kept.sync, self.campaigns[other].sync, strict=True)]
            else:
                kept = Campaign(_id(step, min(names[a] for a in group.tolist())), step, [])
            kept.accounts = group.tolist()
            # whoever was core stays so in the campaign to which he belongs now, whatever became of the other
            kept.core = sorted(core.keys() & {*kept.accounts})
            kept.core_families = [core[a] for a in kept.core]
            living[kept.id] = kept
        self.campaigns = {c: living[c] for c in sorted(living, key=lambda c: (living[c].founded, c))}
        return merges

    def note(self, campaign: str, step: int, core: int) -> None:
        """Remember the size where it changed."""
        c = self.campaigns[campaign]
        entry = (step, len(c.accounts), core)
        if not c.history or c.history[-1][1:] != entry[1:]:
            c.history = [*c.history[-HISTORY + 1 :], entry]


def _id(step: int, account: str) -> str:
    text = msgspec.json.encode(("campaign", step, account))
    return "camp_" + hashlib.blake2b(text, digest_size=10).hexdigest()
