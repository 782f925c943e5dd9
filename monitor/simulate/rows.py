"""From (account, time) to requests: what each asks, its parameters, lengths, cost and fate, as columns.

Everything is drawn for all rows of a chunk at once from tables indexed by the account's group. Knows
nothing of when the next chunk comes or where the log goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrivals import DAY
from .draws import F64, I64, Bools, choose, mix, salt, unit
from .population import Accounts, pick_tasks, task_table
from .replay import Trace
from .scenario import TASKS, Group
from .text import Ask, Grammar

MODELS = ("atlas-4", "atlas-4-mini", "atlas-4-reason", "embed-2")
CAP = 8192
"""Largest ``max_tokens`` the models take."""
_T = {name: i for i, name in enumerate(TASKS)}
_JSON = np.isin(np.arange(len(TASKS)), [_T["extract"], _T["classify"], _T["rubric"]])
_PRICE = np.array([[3.0, 15.0], [0.3, 1.2], [5.0, 25.0], [0.05, 0.0], [4.0, 20.0]])
"""Dollars a million tokens in and out, by model (the last: released during the run)."""


@dataclass(slots=True)
class Rows:
    """Requests as columns of equal length; ``t`` in seconds from the world's Monday, ``done`` in epoch seconds.

    ``request`` and ``done`` (its number, and the event time) are set by :meth:`stamp`, once the retries are there too.
    """

    account: I64
    t: F64
    conversation: I64
    turn: I64
    turns: I64
    group: I64
    task: I64
    language: I64
    model: I64
    parts: I64
    system: I64
    input: I64
    output: I64
    cached: I64
    reasoning: I64
    status: I64
    latency_ms: I64
    batch: Bools
    flags: I64
    blob: I64
    network: I64
    schema: I64
    end_user: I64
    key: I64
    request: I64
    done: F64

    def take(self, rows: I64) -> Rows:
        """The rows at the given indices."""
        return Rows(*(getattr(self, f)[rows] for f in Rows.__slots__))

    @staticmethod
    def join(*blocks: Rows) -> Rows:
        """Rows of all, in order."""
        return Rows(*(np.concatenate([getattr(b, f) for b in blocks]) for f in Rows.__slots__))

    def stamp(self, seed: int, monday: float, serial: int) -> None:
        """Number the requests, the first of them ``serial``, and say when each was done: a batch half a day on."""
        unique = mix(np.arange(serial, serial + len(self)), salt(seed, "request"))
        wait = np.where(self.batch, 600.0 + 40_000.0 * unit(unique), self.latency_ms / 1000.0)
        self.request = unique.view(np.int64)
        self.done = np.round(np.round(monday + self.t, 3) + wait, 3)

    def __len__(self) -> int:
        return len(self.t)


LOGPROBS, MANY, CAPPED, SEED, JSON, STREAM, EFFORT, TOOLS, BIAS, REFUSED = (1 << i for i in range(10))
"""Bits of :attr:`Rows.flags`."""


class Profiles:
    """Each group's parameters as arrays, so that rows look them up by group number."""

    def __init__(self, groups: list[Group], attack: list[bool]):
        self.groups, self.attack = groups, np.array(attack, np.int64)
        tokens, p = [g.tokens for g in groups], [g.parameters for g in groups]
        self.input = np.array([(np.log(t.input.median), t.input.sigma) for t in tokens])
        self.output = np.array([(np.log(t.output.median), t.output.sigma) for t in tokens])
        self.reasoning = np.array([t.reasoning for t in tokens])
        self.cached = np.array([t.cached for t in tokens])
        self.flags = np.array([[x.logprobs, x.n_share, x.max_tokens_at_cap, x.seed, x.json_output, x.stream,
                                x.effort_high, x.tools, x.logit_bias, x.refusals] for x in p])  # fmt: skip
        self.n = np.array([x.n for x in p])
        self.batch = np.array([x.batch for x in p])
        self.errors = np.array([x.errors for x in p])
        pick = [g.evasion.paraphrase if g.evasion.paraphrase is not None else g.text.paraphrase for g in groups]
        self.paraphrase = np.array(pick)
        human = [g.evasion.human if g.evasion.human is not None else g.text.human for g in groups]
        self.human = np.array(human)
        self.tasks = task_table(groups)
        self.turns = np.array([g.arrivals.turns for g in groups])
        self.think = np.array([g.arrivals.think_s for g in groups])
        self.jitter = np.array([g.evasion.jitter_s for g in groups])
        self.pivot = np.array([g.pivot if g.pivot is not None else np.nan for g in groups])
        self.blobs = np.array([g.links.blobs for g in groups])
        self.hidden = np.array([g.links.no_network_channel is not None for g in groups])
        self.resellers = [g.links.reseller for g in groups]
        self.surge = np.array([g.surge for g in groups])
        self.phased = [i for i, g in enumerate(groups) if g.phases]
        self.swapped = np.array([g.text.swap_pairs for g in groups])
        self.grid = [i for i, g in enumerate(groups) if g.text.grid]
        models = np.zeros((len(groups), len(MODELS)))
        for i, x in enumerate(p):
            for name, weight in (x.models or {"atlas-4": 0.5, "atlas-4-mini": 0.35, "atlas-4-reason": 0.15}).items():
                models[i, MODELS.index(name)] = weight
        self.models = np.cumsum(models / models.sum(axis=1, keepdims=True), axis=1)

    def tasks_at(self, rng: np.random.Generator, group: I64, t: F64, start: F64, u: F64) -> I64:
        """Tasks by the group's mix, and by the phase it is in at ``t``."""
        task = pick_tasks(self.tasks, group, u)
        for i in self.phased:
            mine = np.flatnonzero(group == i)
            day = (t[mine] - start[mine]) / DAY
            for phase in self.groups[i].phases:
                ramp = np.clip((day - phase.from_day) / max(phase.ramp_days, 1e-9), 0.0, 1.0)
                moved = mine[rng.random(len(mine)) < ramp]
                names, weights = list(phase.tasks), np.array(list(phase.tasks.values()))
                task[moved] = np.array([_T[n] for n in names])[choose(u[moved], weights)]
        return task


@dataclass(frozen=True, slots=True)
class Climate:
    """What the provider does to everyone: the released model, and outages as (start, end, share failing)."""

    release_s: float
    moved_24h: float
    outages: tuple[tuple[float, float, float], ...]


def adoption(accounts: Accounts, profiles: Profiles, climate: Climate) -> F64:
    """Time at which each account moves to the released model (seconds; infinity without a release)."""
    share = np.where(np.isnan(profiles.pivot), climate.moved_24h, profiles.pivot)[accounts.group]
    u = accounts.adopts
    late = DAY + (u - share) / np.maximum(1 - share, 1e-9) * 20 * DAY
    return np.asarray(climate.release_s + np.where(u < share, DAY * u / np.maximum(share, 1e-9), late))


class RowMaker:
    """Makes :class:`Rows` of arrivals. The grid counters are its only state."""

    def __init__(
        self, seed: int, accounts: Accounts, profiles: Profiles, grammar: Grammar, climate: Climate, trace: Trace | None
    ):
        self._trace = trace
        self._seed, self._a, self._p, self._g, self._climate = seed, accounts, profiles, grammar, climate
        self._adopts = adoption(accounts, profiles, climate)
        self._grid = dict.fromkeys(profiles.grid, 0)
        self._pool_blobs = {
            i: mix(np.arange(g.links.blob_pool), salt(seed, "blob", i)).astype(np.int64)
            for i, g in enumerate(profiles.groups) if g.links.blob_pool
        }  # fmt: skip

    def make(self, rng: np.random.Generator, account: I64, t: F64, session: I64, turn: I64, turns: I64) -> Rows:
        """Requests of the given arrivals (retries of failed ones included, so there may be more)."""
        a, p, n = self._a, self._p, len(account)
        group = a.group[account]
        draw = rng.random((n, 6))
        # one conversation keeps its subject, language and task
        spice = np.asarray(unit(mix(session, salt(self._seed, "subject"))))
        task = p.tasks_at(rng, group, t, a.start_s[account], spice)
        other = draw[:, 0] < 0.08
        task = np.where(other, p.tasks_at(rng, group, t, a.start_s[account], draw[:, 1]), task)
        language = np.where((spice * 31) % 1 < 0.93, a.language[account], 0)
        domain = (a.domain[account] + np.where(spice * 17 % 1 < 0.6, 0, (spice * 977).astype(np.int64))) % 16
        self._sweep(group, language, domain)
        family = a.family[account] + (spice * 13 % 1 * a.family_span[account]).astype(np.int64)
        ask = Ask(task, language, domain, family, turn, draw[:, 2] < p.paraphrase[group],
                  draw[:, 3] < p.human[group], a.casual[account])  # fmt: skip
        # an account that lives on templates keeps to its own corner of the templated text
        settled = (a.family_span[account] <= 4) & (p.attack[group] == 0)
        corner = np.asarray(unit(mix(a.account[account], salt(self._seed, "corner")))) * 0.995 + 0.005 * spice
        given = self._g.replay(np.where(settled, corner, spice), turn, np.where(settled, 1, 2 * p.attack[group]))
        parts = self._g.compose(rng, ask) if given is None else given[0]
        if given is None:
            self._swap(parts, account, t, group, task)
        system = self._g.system_of(a.system[account])
        if given is not None:
            system = np.where(given[1] >= 0, given[1], system)
        model = self._models(rng, account, group, task, t)
        flags = self._flags(rng, group, task)
        inputs, output, cached, reasoning = self._lengths(rng, group, task, turn, parts, system, flags, model)
        batch = draw[:, 4] < p.batch[group]
        status = self._fate(rng, group, t, draw[:, 5])
        failed = status >= 400
        output, reasoning = np.where(failed, 0, output), np.where(failed, 0, reasoning)
        speed = 9.0 * np.exp(0.35 * rng.standard_normal(n))
        latency = np.where(failed, 40 + 400 * draw[:, 5], 250 + output * speed).astype(np.int64)
        place = (spice * 101 % 1 * a.network.shape[1]).astype(np.int64)
        rows = Rows(
            account, t, session, turn, turns, group, task, language, model, parts, system, inputs, output, cached,
            reasoning, status, latency, batch, flags, self._blobs(rng, group, task, session, turn),
            a.network[account, place], np.where((flags & TOOLS) > 0, a.tool_schema[account], -1),
            self._end_users(spice, account), (draw[:, 1] * a.key_count[account]).astype(np.int64),
            np.zeros(n, np.int64), np.zeros(n),
        )  # fmt: skip
        return self._retries(rng, rows)

    def _sweep(self, group: I64, language: I64, domain: I64) -> None:
        for i, at in self._grid.items():
            mine = np.flatnonzero(group == i)
            order = at + np.arange(len(mine))
            domain[mine], language[mine] = order % 16, (order // 16) % len(self._p.groups[i].text.languages)
            self._grid[i] = at + len(mine)

    def _swap(self, parts: I64, account: I64, t: F64, group: I64, task: I64) -> None:
        """Every second comparison of a pair-swapping client is the one before with the answers exchanged."""
        mine = np.flatnonzero(self._p.swapped[group] & (task == _T["rubric"]))
        order = mine[np.lexsort((t[mine], account[mine]))]
        first, second = order[:-1:2], order[1::2]
        same = account[first] == account[second]
        first, second = first[same], second[same]
        parts[second] = parts[first]
        parts[second, 2:4], parts[second, 4:6] = parts[first, 4:6], parts[first, 2:4]

    def _models(self, rng: np.random.Generator, account: I64, group: I64, task: I64, t: F64) -> I64:
        habit = np.asarray(unit(mix(self._a.account[account], salt(self._seed, "model"))))
        u = np.where(rng.random(len(t)) < 0.85, habit, rng.random(len(t)))
        model = (u[:, None] >= self._p.models[group]).sum(axis=1)
        model = np.where(task == _T["embedding"], 3, np.minimum(model, 2))
        moved = (t >= self._adopts[account]) & (model != 3) & (rng.random(len(t)) < 0.85)
        return np.where(moved, len(MODELS), model)

    def _flags(self, rng: np.random.Generator, group: I64, task: I64) -> I64:
        shares = self._p.flags[group]
        shares[:, 4] = np.where(_JSON[task], np.maximum(shares[:, 4], 0.7), shares[:, 4])
        hits = rng.random(shares.shape, dtype=np.float32) < shares
        return np.asarray(hits @ (1 << np.arange(shares.shape[1])))

    def _lengths(
        self,
        rng: np.random.Generator,
        group: I64,
        task: I64,
        turn: I64,
        parts: I64,
        system: I64,
        flags: I64,
        model: I64,
    ) -> tuple[I64, I64, I64, I64]:
        p, n = self._p, len(group)
        context = np.exp(p.input[group, 0] + p.input[group, 1] * rng.standard_normal(n))
        output = np.exp(p.output[group, 0] + p.output[group, 1] * rng.standard_normal(n))
        text = self._g.chars[parts].sum(axis=1) + np.where(system >= 0, self._g.chars[np.maximum(system, 0)], 0)
        inputs = (text / 3.8 + context * (1.0 + 0.5 * turn)).astype(np.int64)
        if self._trace is not None:
            pair = self._trace.draw_tokens(rng, n)
            inputs, output = pair[:, 0], pair[:, 1].astype(np.float64)
        output = np.where((flags & CAPPED) > 0, output * 1.3, output)
        output = np.where(task == _T["embedding"], 0, np.clip(output, 1, CAP)).astype(np.int64)
        cached = (inputs * np.where(rng.random(n) < p.cached[group], 0.6, 0.0)).astype(np.int64)
        thinks = (model == 2) | ((flags & EFFORT) > 0)
        reasoning = (output * np.where(thinks, np.maximum(p.reasoning[group], 0.4), p.reasoning[group] * 0.3)).astype(
            np.int64
        )
        return np.clip(inputs, 1, 900_000), output, cached, reasoning

    def _fate(self, rng: np.random.Generator, group: I64, t: F64, u: F64) -> I64:
        bad = u < self._p.errors[group]
        kind = np.array([429, 400, 500, 529])[choose(rng.random(len(t)), np.array([0.5, 0.3, 0.12, 0.08]))]
        status = np.where(bad, kind, 200)
        for start, end, share in self._climate.outages:
            down = (t >= start) & (t < end) & (u < share)
            status = np.where(down, 503, status)
        return status

    def _blobs(self, rng: np.random.Generator, group: I64, task: I64, session: I64, turn: I64) -> I64:
        """The opaque reasoning that the client sends back: its own last one, or one of the group's pool."""
        sends = rng.random(len(group)) < np.maximum(self._p.blobs[group], np.where(turn > 0, 0.12, 0.0))
        blob = np.where(turn > 0, mix(session + turn - 1, salt(self._seed, "own blob")).astype(np.int64), -1)
        for i, pool in self._pool_blobs.items():
            mine = np.flatnonzero((group == i) & sends)
            blob[mine] = pool[rng.integers(len(pool), size=len(mine))]
        return np.where(sends, blob, -1)

    def _end_users(self, spice: F64, account: I64) -> I64:
        count = self._a.end_users[account]
        number = (spice * 7919 % 1 * np.maximum(count, 1)).astype(np.int64)
        return np.where(count > 0, mix(self._a.account[account] + number).astype(np.int64), -1)

    def _retries(self, rng: np.random.Generator, rows: Rows) -> Rows:
        """Clients send a failed request again after a pause, with the same content."""
        again = np.flatnonzero((rows.status >= 429) & (rng.random(len(rows)) < 0.8))
        if not len(again):
            return rows
        retry = rows.take(again)
        retry.t = retry.t + 1.0 + rng.exponential(8.0, len(again))
        out = np.maximum(1, (self._p.output[retry.group, 0] * 40)).astype(np.int64)
        retry.status, retry.output = np.full(len(again), 200), np.where(retry.task == _T["embedding"], 0, out)
        retry.latency_ms = 250 + retry.output * 9
        return Rows.join(rows, retry)


def price_microusd(model: I64, inputs: I64, output: I64, cached: I64, batch: Bools) -> I64:
    """List price in micro-dollars; cached input at a tenth, batches at half."""
    price = _PRICE[model]
    total = (inputs - 0.9 * cached) * price[:, 0] + output * price[:, 1]
    return np.asarray(np.where(batch, 0.5, 1.0) * total).astype(np.int64)
