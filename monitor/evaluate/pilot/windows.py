"""Windows of the protocol as the integer sums that pooled tests read: null tenants of both sides, and attack cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from monitor.pooled.shape import COLUMN, COUNTED, F64, I64, U8, WHOLE, Bools, Sums, pool_from_sums, sums_of

from .bank import Bank
from .tenants import KINDS, Side

SHARES: Final = (1.0, 0.5, 0.25, 0.1)
HEAVY_SHARE, HEAVY_LEAST = 0.03, 5
"""A 4-word gram of more of a window's prompts than this, and at least so many, is a template's. With 4 % some data sets
of pipelines keep a template (.71/.21 at 25/10 % attacker share), with 3 % .82/.36, with 2 % campaigns lose text."""
_ALIKE: Final = [COLUMN[n] for n in COUNTED[:-1]]

Change = Callable[[U8, np.random.Generator], U8]
"""What an evasion does to an attacker's scalars (k, 24)."""


@dataclass(frozen=True)
class Windows:
    """m windows: their features (m, 13), and of which side, attack ("" for none), share and kind of tenant.

    ``rows`` are the bank's rows of each window's kept requests, ``scalars`` (k, 24) what they show: the bank's, unless
    an evasion changed them.
    """

    features: F64
    rows: tuple[I64, ...]
    scalars: tuple[U8, ...]
    side_a: Bools
    attack: tuple[str, ...]
    share: F64
    kind: I64

    def null(self, side_a: bool) -> Bools:
        """Windows of tenants without an attacker."""
        return np.asarray(np.array([not a for a in self.attack]) & (self.side_a == side_a))

    def cell(self, attack: str, share: float, side_a: bool = False) -> Bools:
        """Windows of one attack at one share."""
        of = np.array([a == attack for a in self.attack])
        return np.asarray(of & (self.share == share) & (self.side_a == side_a))


def whole(bank: Bank, rows: I64) -> Bools:
    """Which of a window's prompts hold no gram that many of them share."""
    owner, counts = bank.gram_counts(rows)
    most = np.zeros(len(rows), np.int64)
    np.maximum.at(most, owner, counts)
    return most < max(HEAVY_LEAST, HEAVY_SHARE * len(rows))


class Drawn(NamedTuple):
    """A window: its sums, and the rows and scalars of its kept requests."""

    sums: Sums
    rows: I64
    scalars: U8


def drawn(bank: Bank, rows: I64, scalars: U8 | None = None, wrapped: I64 | None = None) -> Drawn:
    """A window of ``rows``; ``scalars`` instead of the bank's, ``wrapped`` places that a common wrapper makes heavy."""
    kept = whole(bank, rows)
    if wrapped is not None:
        kept[wrapped] = False
    x = bank.scalars[rows] if scalars is None else scalars
    added = sums_of(x, bank.turn[rows] > 0, x, np.where(kept, np.uint8(WHOLE), np.uint8(0)))
    return Drawn(added, rows[kept], x[kept])


def collect(jobs: Iterator[tuple[Drawn, bool, str, float, int]]) -> Windows:
    """Windows of (what was drawn, side, attack, share, kind)."""
    done = list(jobs)
    added = Sums(*(np.concatenate(column) for column in zip(*(d.sums for d, *_ in done), strict=True)))
    return Windows(
        pool_from_sums(*added), tuple(d[0].rows for d in done), tuple(d[0].scalars for d in done),
        np.array([d[1] for d in done]), tuple(d[2] for d in done), np.array([d[3] for d in done]),
        np.array([d[4] for d in done], np.int64),
    )  # fmt: skip


def draw(
    bank: Bank, sides: tuple[Side, Side], attacks: Sequence[str], size: int, null: tuple[int, int],
    cells: tuple[int, int], rng: np.random.Generator, step: Callable[[str], None] = lambda note: None,
) -> Windows:  # fmt: skip
    """``null`` tenants of sides (A, B) and ``cells`` windows of each attack and share, kinds of tenant in turn."""

    def jobs() -> Iterator[tuple[Drawn, bool, str, float, int]]:
        for side, side_a, count in zip(sides, (True, False), null, strict=True):
            for i in range(count):
                kind = i % len(KINDS)
                yield drawn(bank, side.window(kind, size, rng)), side_a, "", 0.0, kind
            step("tenants")
        for attack in attacks:
            for side, side_a, count in zip(sides, (True, False), cells, strict=True):
                for share in SHARES:
                    for i in range(count):
                        kind = i % len(KINDS)
                        yield drawn(bank, side.window(kind, size, rng, attack, share)), side_a, attack, share, kind
            step(attack)

    return collect(jobs())


def human_rates(bank: Bank, people: I64, command: bool) -> Change:
    """An evasion: attackers who ask, say I, you and please as people do; with ``command`` also open as they do."""
    columns = _ALIKE if command else _ALIKE[:-1]

    def change(scalars: U8, rng: np.random.Generator) -> U8:
        donors = bank.scalars[rng.choice(people, len(scalars))]
        out = scalars.copy()
        out[:, columns] = donors[:, columns]
        return out

    return change


def evading(
    bank: Bank, side: Side, attack: str, size: int, count: int, rng: np.random.Generator, change: Change | None
) -> Windows:
    """``count`` windows of each share on side B whose attacker evades: by ``change``, or (None) by a wrapper."""

    def jobs() -> Iterator[tuple[Drawn, bool, str, float, int]]:
        for share in SHARES:
            for i in range(count):
                rows = side.window(i % len(KINDS), size, rng, attack, share)
                hostile = np.arange(len(rows) - round(size * share), len(rows))
                if change is None:
                    made = drawn(bank, rows, wrapped=hostile)
                else:
                    scalars = bank.scalars[rows].copy()
                    scalars[hostile] = change(scalars[hostile], rng)
                    made = drawn(bank, rows, scalars)
                yield made, False, attack, share, i % len(KINDS)

    return collect(jobs())
