"""Families that were seen before: requests that read like one, the shape of the pool, and generators' signatures.

A family that leaves text without its templates is told by its requests or by the pool's shape, one that is all template
by the signature of the program that wrote it. What taught a family is other prompts of it, on side A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.pooled import FamilyReader, fit_family
from monitor.pooled.shape import F64, Bools

from .bank import PIPELINE, Bank
from .shape_test import NOMINAL, Row, judge, row_of, train
from .tenants import KINDS, Side
from .windows import SHARES, Windows

TAUGHT, SHAPED, SIGNED = "known family", "shape, family among its teachers", "known generator, by its signature"
_OFTEN = 0.95
"""Quantile of how often a harmless prompt was drawn, up to which that is its weight: the commonest must not be all."""


@dataclass(frozen=True)
class Taught:
    """A reader of families, and its reading of each row of the bank: on side A by one that the row did not teach."""

    bank: Bank
    reader: FamilyReader
    readings: F64

    def score(self, windows: Windows) -> F64:
        """Share of each window's kept requests that read like a family (m,)."""
        return np.array([self.reader.share(self.readings[rows]) for rows in windows.rows])

    def score_changed(self, windows: Windows) -> F64:
        """The same of side B's windows whose scalars are not the bank's."""
        of = zip(windows.rows, windows.scalars, strict=True)
        return np.array([self.reader.share(self.reader.read(x, self.bank.turn[rows] > 0)) for rows, x in of])


def teach(bank: Bank, windows: Windows, plain: Sequence[str], seed: int) -> Taught:
    """All of ``plain`` on side A, each family with the same weight, against what is left of side A's tenants."""
    null = windows.null(side_a=True)
    kept = np.concatenate([rows for rows, of in zip(windows.rows, null, strict=True) if of])
    drawn = np.bincount(kept, minlength=len(bank))
    weight = np.minimum(drawn, np.quantile(drawn[drawn > 0], _OFTEN)).astype(np.float64)
    hostile = np.zeros(len(bank), np.bool_)
    for name in plain:
        rows = bank.rows(name, True)
        hostile[rows], weight[rows] = True, 1.0 / len(rows)
    rows = np.flatnonzero(weight > 0)
    # numbers of sessions and of templates are apart
    unit = np.where(bank.role == PIPELINE, bank.group, bank.session + int(bank.group.max()) + 1)
    reader, apart = fit_family(
        bank.scalars[rows], bank.turn[rows] > 0, hostile[rows], weight[rows], unit[rows], seed
    )  # fmt: skip
    readings = reader.read(bank.scalars, bank.turn > 0)
    readings[rows] = apart
    return Taught(bank, reader, readings)


def taught_rows(taught: Taught, windows: Windows, plain: Sequence[str], name: str = TAUGHT) -> list[Row]:
    """A row for each of ``plain``."""
    score = taught.score(windows)
    return [row_of(name, windows, score, source, windows, score) for source in plain]


def shaped_rows(windows: Windows, plain: Sequence[str]) -> list[Row]:
    """A row for each of ``plain`` with one shape model of all of them."""
    model = train(windows, plain) if plain else None
    return [judge(SHAPED, model, windows, name) for name in plain if model is not None]


def signed_rows(
    bank: Bank, side: Side, signed: Bools, attacks: Sequence[str], size: int, null: int, cells: int,
    rng: np.random.Generator,
) -> list[Row]:  # fmt: skip
    """A row for each source: windows whose share of ``signed`` prompts (bank's rows) is above 1 - ``NOMINAL`` of
    ``null`` harmless tenants of the same side. No family is learnt, so there is no other side to take it from."""

    def shares(count: int, attack: str = "", share: float = 0.0) -> F64:
        drawn = (side.window(i % len(KINDS), size, rng, attack, share) for i in range(count))
        return np.fromiter((signed[rows].mean() for rows in drawn), np.float64, count)

    limit = float(np.quantile(shares(null), 1 - NOMINAL, method="higher"))
    return [
        Row(SIGNED, name, tuple(float((shares(cells, name, s) > limit).mean()) for s in SHARES)) for name in attacks
    ]
