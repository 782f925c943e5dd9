"""Tenants composed of prompts: people in conversation, people of all kinds, pipelines, and both in one account."""

from __future__ import annotations

from typing import Final

import numpy as np

from monitor.pooled.shape import F64, I64

from .bank import ATTACK, HUMAN, PIPELINE, Bank

KINDS: Final = ("chat", "mixed human", "pipeline", "hybrid")
TILT: Final = 6.0
"""Human tenants lean toward a random topic, with a weight up to e to this power on similarity."""


class Side:
    """One side of the bank, and how a tenant of it is drawn. ``rng`` decides everything."""

    def __init__(self, bank: Bank, side_a: bool):
        self.bank = bank
        self._people = {n: rows for n in bank.names(HUMAN) if len(rows := bank.rows(n, side_a))}
        self._sessions: dict[str, list[I64]] = {}
        for name, rows in self._people.items():
            order = rows[np.lexsort((bank.turn[rows], bank.session[rows]))]
            cuts = np.flatnonzero(np.diff(bank.session[order])) + 1
            self._sessions[name] = np.split(order, cuts)
        longest = {n: len(self._people[n]) / len(s) for n, s in self._sessions.items()}
        self._chat = max(longest, key=lambda n: longest[n])
        templates = np.concatenate([bank.rows(n, side_a) for n in bank.names(PIPELINE)])
        self._templates = [templates[bank.group[templates] == g] for g in np.unique(bank.group[templates])]
        self._attack = {n: bank.rows(n, side_a) for n in bank.names(ATTACK)}

    def _draw(self, name: str, size: int, topic: F64, rng: np.random.Generator) -> I64:
        """Whole sessions of a source in order of their pull toward ``topic``, up to ``size`` prompts."""
        sessions = self._sessions[name]
        pull = self.bank.topic[[s[0] for s in sessions]] @ topic + rng.gumbel(size=len(sessions))
        out, count = [], 0
        for i in np.argsort(-pull):
            if count >= size:
                break
            out.append(sessions[i])
            count += len(sessions[i])
        return np.concatenate(out)[:size] if out else np.zeros(0, np.int64)

    def _topic(self, rng: np.random.Generator) -> F64:
        direction = rng.standard_normal(self.bank.topic.shape[1])
        return np.asarray(direction / np.linalg.norm(direction) * rng.uniform(0, TILT))

    def _mixed(self, size: int, rng: np.random.Generator) -> I64:
        names, topic = list(self._people), self._topic(rng)
        parts = rng.multinomial(size, rng.dirichlet(np.full(len(names), 0.6)))
        drawn = [self._draw(n, int(k), topic, rng) for n, k in zip(names, parts, strict=True)]
        have = np.concatenate(drawn)
        if len(have) < size:  # a small source ran out: the rest from everybody
            rest = np.setdiff1d(np.concatenate(list(self._people.values())), have)
            drawn.append(rng.permutation(rest)[: size - len(have)])
        return interleave(drawn)

    def _pipeline(self, size: int, rng: np.random.Generator) -> I64:
        count = int(rng.integers(1, 6))
        chosen = rng.permutation(len(self._templates))[:count]
        parts = rng.multinomial(size, rng.dirichlet(np.full(len(chosen), 2.0)))
        return interleave([rng.permutation(self._templates[t])[:k] for t, k in zip(chosen, parts, strict=True)])

    def tenant(self, kind: int, size: int, rng: np.random.Generator) -> I64:
        """Rows of a tenant of ``KINDS[kind]`` in the order in which it sends them; fewer where its rows run out."""
        if kind == 0:
            return self._draw(self._chat, size, self._topic(rng), rng)
        if kind == 1:
            return self._mixed(size, rng)
        if kind == 2:
            return self._pipeline(size, rng)
        own = round(size * rng.uniform(0.1, 0.9))
        return interleave([self._pipeline(own, rng), self.tenant(int(rng.integers(2)), size - own, rng)])

    def attackers(self, name: str, size: int, rng: np.random.Generator) -> I64:
        """Rows of one attacker: one generator's template, 3 or more subjects of a benchmark, or any of a plain set."""
        rows = self._attack[name]
        groups = np.unique(self.bank.group[rows])
        if 1 < len(groups) <= 5:
            rows = rows[self.bank.group[rows] == rng.choice(groups)]
        elif len(groups) > 5:
            some = rng.permutation(groups)[: int(rng.integers(3, len(groups)))]
            rows = rows[np.isin(self.bank.group[rows], some)]
        return np.asarray(rng.choice(rows, size, replace=len(rows) < size))

    def window(self, kind: int, size: int, rng: np.random.Generator, attack: str = "", share: float = 0.0) -> I64:
        """Rows of a tenant of which ``share`` was replaced by an attacker's."""
        host = self.tenant(kind, size, rng)
        if not attack:
            return host
        hostile = round(size * share)
        kept = rng.permutation(host)[: size - hostile]
        return np.concatenate([kept, self.attackers(attack, hostile, rng)])


def interleave(parts: list[I64]) -> I64:
    """Parts mixed evenly, each in its own order: nobody sends all of one kind of work first."""
    place = np.concatenate([(np.arange(len(p)) + 0.5) / max(len(p), 1) for p in parts])
    return np.concatenate(parts)[np.argsort(place, kind="stable")]
