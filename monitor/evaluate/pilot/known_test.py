"""Families that were seen before: the shape model with the family among its teachers, and generators' signatures.

Two lanes know a family: one that leaves text without its templates by that text's shape, one that is all template by
the signature of the program that wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitor.pooled.shape import F64, Bools

from .bank import Bank
from .shape_test import NOMINAL, Row, judge, train
from .tenants import KINDS, Side
from .windows import SHARES, Windows

TAUGHT, SIGNED = "known family", "known generator, by its signature"


def taught_rows(windows: Windows, plain: Sequence[str]) -> list[Row]:
    """A row for each of ``plain`` with one model of all of them: other prompts of the family on side A taught it."""
    model = train(windows, plain) if plain else None
    return [judge(TAUGHT, model, windows, name) for name in plain if model is not None]


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
