"""A world as daily account rows instead of requests: what a week of a million accounts looks like to a linker.

Accounts come from the same :class:`people.People` as a request log, and how busy a day is from the same outlines,
presence and growth; requests of a day are then one draw (sessions over-dispersed as the account's gaps are, turns
geometric), link values those that its conversations would have shown. Drawn by columns: memory holds the accounts
and one day. Knows nothing of single requests, nor of who reads the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from .arrivals import DAY, Outlines, day_factor
from .draws import F64, I64, U64, Bools, mix, salt, stream
from .log import account_ids, monday_of
from .people import People
from .population import asn_of, pick_tasks
from .rows import CAPPED, STREAM, TOOLS, Profiles
from .scenario import TASKS, Scenario, background, loaded_of
from .text import FAMILY_WORDINGS, PREAMBLES, TEMPLATED
from .world import FAMILIES, START_TS

_TEMPLATED = [TASKS.index(t) for t in sorted(TEMPLATED)]
LINKS = ("payment", "org", "prefix", "asn", "ja4", "client", "user_agent", "system", "template", "tool_schema",
         "referral", "contact", "creation")  # fmt: skip
"""Kinds of link; the number in a row's ``kind`` is the position here."""
PROVIDER_LINKS = ("payment", "org", "creation")
"""Those that the provider itself attests; the others the client chooses, or its network does."""
CREATION_S = 3600.0
"""A creation value is the hour in which the account was made: cohorts of two to eight hours share few of them."""
CONVERSATIONS = 4
"""Conversations of an account-day whose network and template are drawn: more show little that four do not."""

BATCH = 100_000
"""Accounts whose links are made at once: a million together took 2.8 GB."""
TASK_COLUMNS = tuple(f"task_{name}" for name in TASKS)
CONDUCT: dict[str, int] = {"tools": TOOLS, "capped": CAPPED, "streamed": STREAM}
"""Counts of requests by a parameter of theirs, and its bit."""
_COUNTS = ("requests", "sessions", "failed", "templated", "human", *CONDUCT, *TASK_COLUMNS)
_NO_LINKS = pl.DataFrame(schema={"account": pl.UInt64, "kind": pl.UInt8, "value": pl.UInt64})


class DayRows(NamedTuple):
    """One day. ``links``: account u64, kind u8 (position in :data:`LINKS`), value u64; each at most once.

    ``accounts``, one row an account that sent anything: account u64, day u32 (from the run's first); counts u32 of
    requests: requests, sessions (those that begin one), failed, templated, human (worded as people do), those of
    :data:`CONDUCT` and :data:`TASK_COLUMNS`; input_tokens, output_tokens u64; created_s f64 (epoch seconds), billing
    (contract 1), casual (a person who types without marks), agreed (the provider was told of a sanctioned use).
    ``account`` is the index in :attr:`DailyWorld.account_ids`.
    """

    links: pl.DataFrame
    accounts: pl.DataFrame


class DailyWorld:
    """``days`` whole days of ``accounts`` ordinary accounts with ``scenarios``; iterating gives :class:`DayRows`.

    A stolen account is one account: the thief's rows add to its owner's. Iterating again gives the same rows.
    Raises ``BadInput`` for scenarios that are none.
    """

    def __init__(
        self,
        scenarios: Sequence[str | Scenario] = (),
        accounts: int = 1_000_000,
        days: int = 7,
        seed: int = 1,
        start_ts: float = START_TS,
        *,
        base: Scenario | None = None,
        heavy_cap: float | None = None,
    ):
        loaded = loaded_of(scenarios)
        everyone = [base if base is not None else background(), *loaded]
        self.seed, self.days, self.start_ts = seed, days, start_ts
        self.monday = monday_of(start_ts)
        self.people = People(everyone, accounts, float(days), seed, start_ts - self.monday, heavy_cap)
        a = self.people.accounts
        # numbered in the order of the (hashed) ids, so that an index says nothing of who was made first
        _, self._first, index = np.unique(a.account.view(np.uint64), return_index=True, return_inverse=True)
        self.index: I64 = index.astype(np.int64)
        self._profiles = Profiles(self.people.groups, self.people.hostile)
        self._billings = pl.Series(self.people.billings)
        self._agreed = np.zeros(len(a.account), np.bool_)
        for cast in self.people.casts:
            if cast.scenario.agreement is not None:
                self._agreed[cast.rows] = True

    def __len__(self) -> int:
        """Accounts, ordinary and of scenarios."""
        return len(self._first)

    @cached_property
    def account_ids(self) -> pl.Series:
        """Contract ids of the accounts, by index."""
        return account_ids(self.people.accounts).gather(self._first)

    def __iter__(self) -> Iterator[DayRows]:
        people, outlines = self.people, Outlines()
        for day in range(self.days):
            rows, sessions, requests = self._volumes(outlines, day)
            rng = stream(self.seed, "daily", day)
            group = people.accounts.group[rows]
            tasks = rng.multinomial(requests, np.diff(self._profiles.tasks, axis=1, prepend=0.0)[group])
            templated = np.where(people.accounts.family[rows] >= 0, tasks[:, _TEMPLATED].sum(axis=1), 0)
            failed = rng.binomial(requests, self._profiles.errors[group])
            inputs, outputs = self._tokens(rng, rows, requests, failed)
            counts = {"failed": failed, "templated": templated,
                      "human": rng.binomial(requests, self._profiles.human[group]),
                      **{name: rng.binomial(requests, self._profiles.flags[group, bit.bit_length() - 1])
                         for name, bit in CONDUCT.items()},
                      **{name: tasks[:, k] for k, name in enumerate(TASK_COLUMNS)}}  # fmt: skip
            frame = pl.DataFrame({
                "account": self.index[rows].astype(np.uint64), "day": np.full(len(rows), day, np.uint32),
                "requests": requests.astype(np.uint32), "sessions": sessions.astype(np.uint32),
                **{name: of.astype(np.uint32) for name, of in counts.items()},
                "input_tokens": inputs, "output_tokens": outputs,
                "created_s": self.monday + people.accounts.created_s[rows],
                "billing": self._billings.gather(people.accounts.billing[rows]),
                "casual": people.accounts.casual[rows], "agreed": self._agreed[rows],
            })  # fmt: skip
            links = [self._links(rng, day, rows[lo:hi], sessions[lo:hi]) for lo, hi in self._batches(rows)]
            yield DayRows(pl.concat(links) if links else _NO_LINKS.clone(), _one_row_each(frame))

    def truth(self) -> pl.DataFrame:
        """One row an account of a scenario: account u64, account_id, actor, also, scenario, campaign, first_s, last_s.

        ``first_s`` and ``last_s`` (epoch seconds) bound its life within the run.
        """
        a, out = self.people.accounts, []
        for cast in self.people.casts:
            s = cast.scenario
            for i in cast.rows.tolist():
                actor = self.people.actor_of(cast, i)
                hostile = actor != "benign"
                out.append((int(self.index[i]), actor, s.also if hostile and actor == s.actor else [], s.id,
                            cast.name if s.campaign and hostile else None,
                            self.monday + max(float(a.start_s[i]), self.people.first_s),
                            self.monday + min(float(a.end_s[i]), self.people.end_s)))  # fmt: skip
        schema: dict[str, Any] = {
            "account": pl.UInt64, "actor": pl.String, "also": pl.List(pl.String), "scenario": pl.String,
            "campaign": pl.String, "first_s": pl.Float64, "last_s": pl.Float64,
        }  # fmt: skip
        frame = pl.DataFrame(out, schema=schema, orient="row")
        ids = self.account_ids.gather(frame["account"]).alias("account_id")
        return frame.with_columns(ids)

    def bans(self) -> pl.DataFrame:
        """Accounts banned in the run: account u64, at_s (epoch seconds)."""
        rows = np.array([i for i, _ in self.people.bans], np.int64)
        at = np.array([t for _, t in self.people.bans], np.float64)
        return pl.DataFrame({"account": self.index[rows].astype(np.uint64), "at_s": self.monday + at})

    def _volumes(self, outlines: Outlines, day: int) -> tuple[I64, I64, I64]:
        """Rows of the table that call on ``day``, by index, their sessions and requests."""
        a, p, people = self.people.accounts, self._profiles, self.people
        lo = people.first_s + day * DAY
        begin, finish = np.maximum(lo, a.start_s), np.minimum(lo + DAY, a.end_s)
        when = [g.arrivals for g in p.groups]
        active, sigma = (np.array([getattr(w, n) for w in when])[a.group] for n in ("active_days", "day_sigma"))
        growth = np.array([g.rate.growth for g in p.groups])[a.group]
        factor = day_factor(self.seed, int(lo // DAY), active, sigma, growth)
        live = np.flatnonzero((begin < finish) & (factor > 0) & (a.rate > 0))
        shape, offset, group = a.shape[live], a.offset_s[live], a.group[live]
        span = outlines.forward(shape, finish[live] + offset) - outlines.forward(shape, begin[live] + offset)
        synced = np.array([w.kind == "sync" for w in when])[group]
        # a burst that all of a group fire in knows no outline and no day off
        mean = np.where(synced, a.rate[live] * (finish - begin)[live] / DAY,
                        a.rate[live] / p.turns[group] * factor[live] * span)  # fmt: skip
        rng = stream(self.seed, "daily volume", day)
        # counts of a renewal process: variance is the mean times the squared CV of its gaps
        excess = np.where(synced, 0.0, np.maximum(a.cv[live] ** 2 - 1.0, 0.0))
        scale = np.maximum(excess, 1e-9)
        level = np.where(excess > 0, rng.gamma(np.maximum(mean, 1e-9) / scale, scale), mean)
        sessions = rng.poisson(level)
        calls = np.flatnonzero(sessions)
        calls = calls[np.argsort(self.index[live[calls]], kind="stable")]
        live, sessions, turns = live[calls], sessions[calls], p.turns[group[calls]]
        more = rng.negative_binomial(sessions, np.minimum(1.0 / turns, 1.0 - 1e-12))
        return live, sessions.astype(np.int64), (sessions + np.where(turns > 1.0, more, 0)).astype(np.int64)

    def _batches(self, rows: I64) -> Iterator[tuple[int, int]]:
        """Slices of ``rows`` (ordered by index) of some ``BATCH`` accounts, none of them cut in two."""
        edges = np.searchsorted(self.index[rows], np.arange(0, len(self) + BATCH, BATCH))
        yield from ((int(lo), int(hi)) for lo, hi in pairwise(edges) if hi > lo)

    def _tokens(self, rng: np.random.Generator, rows: I64, requests: I64, failed: I64) -> tuple[U64, U64]:
        """Tokens of a day: the mean of the group's log-normal times the requests, with the spread of such a sum."""
        group, p, out = self.people.accounts.group[rows], self._profiles, []
        for curve, count in ((p.input, requests), (p.output, requests - failed)):
            mu, sigma = curve[group, 0], curve[group, 1]
            spread = np.sqrt(np.log1p((np.exp(sigma**2) - 1.0) / np.maximum(count, 1)))
            noise = np.exp(spread * rng.standard_normal(len(rows)) - spread**2 / 2)
            out.append((count * np.exp(mu + sigma**2 / 2) * noise).astype(np.uint64))
        return out[0], out[1]

    def _links(self, rng: np.random.Generator, day: int, rows: I64, sessions: I64) -> pl.DataFrame:
        a, p = self.people.accounts, self._profiles
        parts: list[pl.DataFrame] = []

        def add(kind: str, of: I64, values: I64, keep: Bools | None = None) -> None:
            number = LINKS.index(kind)
            if keep is not None:
                of, values = of[keep], values[keep]
            parts.append(pl.DataFrame({
                "account": self.index[of].astype(np.uint64), "kind": np.full(len(of), number, np.uint8),
                "value": mix(values, salt(self.seed, "daily link", kind)),
            }))  # fmt: skip

        shown = ~(p.hidden[a.group[rows]] & (a.channel[rows] > 0))
        add("payment", rows, a.payment[rows], shown)
        add("org", rows, a.org[rows])
        add("ja4", rows, a.ja4[rows], shown)
        for kind in ("client", "user_agent"):
            add(kind, rows, a.build[rows])
        for kind, column in (("system", a.system), ("referral", a.referral), ("contact", a.contact)):
            add(kind, rows, column[rows], column[rows] != -1)
        tools = p.flags[a.group[rows], TOOLS.bit_length() - 1]
        add("tool_schema", rows, a.tool_schema[rows], rng.random(len(rows)) < 1.0 - (1.0 - tools) ** sessions)
        add("creation", rows, np.floor((self.monday + a.created_s[rows]) / CREATION_S).astype(np.int64))
        for k in range(CONVERSATIONS):
            talk = np.flatnonzero(sessions > k)
            of = rows[talk]
            spice = rng.random(len(talk))
            prefix = a.network[of, (spice * 101 % 1 * a.network.shape[1]).astype(np.int64)] >> 8
            seen = shown[talk]
            add("prefix", of, prefix, seen)
            add("asn", of, asn_of(prefix, self.seed, self.people.own_asn), seen)
            task = self._tasks(rng, day, of)
            value, known = self._templates(rng, of, task, spice)
            add("template", of, value, known)
        return pl.concat(parts).unique(maintain_order=False).sort("account", "kind", "value")

    def _tasks(self, rng: np.random.Generator, day: int, of: I64) -> I64:
        a, lo = self.people.accounts, self.people.first_s + day * DAY
        at = np.full(len(of), lo + DAY / 2)
        if self._profiles.phased:
            return self._profiles.tasks_at(rng, a.group[of], at, a.start_s[of], rng.random(len(of)))
        return pick_tasks(self._profiles.tasks, a.group[of], rng.random(len(of)))

    def _templates(self, rng: np.random.Generator, of: I64, task: I64, spice: F64) -> tuple[I64, Bools]:
        """The template that a conversation shows: task, family and wording, as :mod:`text` joins them."""
        a, p = self.people.accounts, self._profiles
        known = np.isin(task, _TEMPLATED) & (a.family[of] >= 0)
        family = a.family[of] + (spice * 13 % 1 * a.family_span[of]).astype(np.int64)
        reworded = rng.random(len(of)) < p.paraphrase[a.group[of]]
        wording = np.where(reworded, rng.integers(FAMILY_WORDINGS, size=len(of)), 0)
        preamble = (mix(family, 5) % np.uint64(PREAMBLES)).astype(np.int64)
        words = ((task * FAMILIES + family % FAMILIES) * FAMILY_WORDINGS + wording) * PREAMBLES + preamble
        return words, known


def daily_rows(
    scenarios: Sequence[str | Scenario] = (), accounts: int = 1_000_000, days: int = 7, seed: int = 1
) -> Iterator[DayRows]:
    """Day after day of :class:`DailyWorld`; make one yourself where the truth is wanted too."""
    yield from DailyWorld(scenarios, accounts, days, seed)


def write_daily(world: DailyWorld, folder: Path) -> int:
    """``links-DAY.parquet``, ``accounts-DAY.parquet`` of each day and ``truth.parquet``; how many account-days."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for day, (links, accounts) in enumerate(world):
        links.write_parquet(folder / f"links-{day:03}.parquet")
        accounts.write_parquet(folder / f"accounts-{day:03}.parquet")
        count += len(accounts)
    world.truth().write_parquet(folder / "truth.parquet")
    return count


def _one_row_each(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows ordered by account; those of one account (its owner's and a thief's) added up."""
    frame = frame.sort("account", "requests")
    if not frame["account"].is_duplicated().any():
        return frame
    return frame.group_by("account", maintain_order=True).agg(
        pl.col("day").first(),
        *(pl.col(c).sum() for c in (*_COUNTS, "input_tokens", "output_tokens")),
        pl.col("created_s", "billing", "casual").first(),
        pl.col("agreed").any(),
    )
