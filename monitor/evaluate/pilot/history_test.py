"""The own-history test under the protocol: a tenant's earlier prompts against its recent ones, some an attacker's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from monitor.pooled import change_z
from monitor.pooled.shape import F64, I64

from .bank import Bank
from .shape_test import NOMINAL, Row
from .tenants import KINDS, Side
from .windows import SHARES

PAST, RECENT = 600, 300


def _split(session: I64, recent: int) -> int:
    """Where the recent part begins: at the first prompt of a session, with at most ``recent`` prompts after it."""
    first = np.flatnonzero(np.diff(session, prepend=-1))
    return int(first[min(int(np.searchsorted(first, len(session) - recent)), len(first) - 1)])


def _one(bank: Bank, side: Side, kind: int, rng: np.random.Generator, attack: str, share: float, seed: int) -> float:
    rows = side.tenant(kind, PAST + RECENT, rng)
    # a third is recent, also of a tenant that has fewer than 900
    cut = _split(bank.session[rows], min(RECENT, len(rows) // 3))
    past, recent = rows[:cut], rows[cut:]
    if attack:
        hostile = round(len(recent) * share)
        kept = np.sort(rng.permutation(len(recent))[: len(recent) - hostile])
        recent = np.concatenate([recent[kept], side.attackers(attack, hostile, rng)])
    return change_z(bank.scalars[past], bank.session[past], bank.scalars[recent], bank.session[recent], seed=seed)


def history_rows(
    bank: Bank, side: Side, attacks: Sequence[str], null: int, cells: int, rng: np.random.Generator,
    step: Callable[[str], None] = lambda note: None,
) -> tuple[list[Row], float]:  # fmt: skip
    """A row for each source, and the threshold of z at ``NOMINAL`` over ``null`` tenants."""
    calm = np.array([_one(bank, side, i % len(KINDS), rng, "", 0.0, i) for i in range(null)])
    limit = float(np.quantile(np.nan_to_num(calm, nan=-np.inf), 1 - NOMINAL, method="higher"))
    step("own history: tenants")

    def values(attack: str, share: float) -> Iterator[float]:
        for i in range(cells):
            yield _one(bank, side, i % len(KINDS), rng, attack, share, i)

    rows = []
    for attack in attacks:
        caught = []
        for share in SHARES:
            z: F64 = np.fromiter(values(attack, share), np.float64)
            caught.append(float((z > limit).mean()))
        rows.append(Row("own history", attack, tuple(caught)))
        step(f"own history: {attack}")
    return rows, limit
