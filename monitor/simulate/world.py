"""The world: ordinary accounts, scenarios beside them, and their requests chunk after chunk in event time.

Memory holds the accounts and one chunk (about ``CHUNK_ROWS`` requests) with what it carries over: it does
not grow with the length of the run. Same seed and arguments, same bytes (same versions of numpy and polars).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from .arrivals import DAY, Outlines, Renewal, Timing, sessions
from .draws import F64, I64, mix, salt, stream
from .log import Log, monday_of
from .people import People
from .replay import read_prompts, read_trace
from .rows import Climate, Profiles, RowMaker, Rows
from .scenario import Scenario, background, loaded_of
from .text import Grammar, grammar

START_TS = 1_767_571_200.0
"""Default start: Monday 5 January 2026, 00:00 UTC."""
CHUNK_ROWS = 50_000
FAMILIES, SYSTEMS = 400, 3000
_CHUNKS_S = (86_400, 43_200, 21_600, 10_800, 7_200, 3_600, 1_800, 900, 600, 300, 120, 60, 30, 10)


@dataclass(frozen=True)
class Chunk:
    """Requests of one stretch of event time [start, end), sorted by it (``event_s``, epoch seconds)."""

    start_ts: float
    end_ts: float
    rows: Rows
    log: Log

    @cached_property
    def frame(self) -> pl.DataFrame:
        """Contract 1's columns."""
        return self.log.frame(self.rows)

    @property
    def event_s(self) -> F64:
        """Event time of each request."""
        return self.rows.done

    def head(self, count: int) -> Chunk:
        """The first ``count`` requests."""
        return Chunk(self.start_ts, self.end_ts, self.rows.take(np.arange(min(count, len(self.rows)))), self.log)

    def ndjson(self) -> bytes:
        """The chunk as NDJSON, one request a line."""
        return self.log.ndjson(self.rows)

    def messages(self) -> Iterator[tuple[bytes, bytes, int]]:
        """(key, value, event time in ms) of each request, as a Kafka producer takes them."""
        keys = self.log.account_id.gather(self.rows.account).to_list()
        for key, line, at in zip(keys, self.ndjson().splitlines(), self.event_s.tolist(), strict=True):
            yield key.encode(), line, round(at * 1000)


class Simulator:
    """A run of ``days`` days over ``accounts`` ordinary accounts with ``scenarios`` (ids, paths or loaded ones).

    Iterating gives :class:`Chunk` after chunk; :meth:`context` and :meth:`truth` say what happened beside the
    log. ``heavy_cap`` bounds the requests a day of a heavy ordinary account (small worlds need it: one
    account at the published 99th percentile makes 1.2 million a day). ``silent``: ordinary accounts exist, to
    scale by and share with, but send nothing (for an overlay on a real log). ``absent_count``: as :class:`People` says.
    Raises ``BadInput`` for bad scenarios.
    """

    def __init__(
        self,
        scenarios: Sequence[str | Scenario] = (),
        accounts: int = 2000,
        days: float = 3.0,
        seed: int = 1,
        start_ts: float = START_TS,
        *,
        heavy_cap: float | None = None,
        base: Scenario | None = None,
        prompts: Sequence[str | Path] = (),
        trace: Sequence[str | Path] = (),
        silent: bool = False,
        absent_count: bool = False,
    ):
        loaded = loaded_of(scenarios)
        self.seed, self.days, self.population, self.start_ts = seed, days, accounts, start_ts
        self.monday = monday_of(start_ts)
        self._first_s = start_ts - self.monday
        self._end_s = self._first_s + days * DAY
        self.base = base if base is not None else background()
        self._everyone = [self.base, *loaded]
        people = People(self._everyone, accounts, days, seed, self._first_s, heavy_cap, absent_count)
        self.people, self.accounts, self.casts, self.bans = people, people.accounts, people.casts, people.bans
        self._profiles = Profiles(people.groups, people.hostile)
        self._trace = read_trace(trace) if trace else None
        text = read_prompts(prompts) if prompts else None
        self._release = next((s.release for s in loaded if s.release), self.base.release)
        self.climate = self._climate()
        if silent:
            self.accounts.rate[self.accounts.group < len(self.base.groups)] = 0.0
        given = (seed, FAMILIES, SYSTEMS)
        self._grammar = Grammar(*given, text) if text is not None else grammar(*given)
        self._log = Log(seed, self.accounts, self._profiles, self._grammar, self.monday, self.new_model,
                        people.channels, people.plans, people.billings, people.own_asn)  # fmt: skip
        n = len(self.accounts)
        self.requests, self._seen_first, self._seen_last = 0, np.full(n, np.inf), np.full(n, -np.inf)
        self.requests_of = np.zeros(n, np.int64)

    @property
    def new_model(self) -> str:
        """The model released during the run."""
        return self._release.model if self._release else "atlas-5"

    def _climate(self) -> Climate:
        rng = stream(self.seed, "outages")
        count = int(rng.poisson(self.days / 9.0))
        starts = np.sort(self._first_s + rng.random(count) * self.days * DAY)
        outages = tuple((float(s), float(s + 60 * rng.uniform(8, 50)), float(rng.uniform(0.3, 0.9))) for s in starts)
        if self._release is None:
            return Climate(np.inf, 0.0, outages)
        return Climate(self._first_s + self._release.at * self.days * DAY, self._release.moved_24h, outages)

    def __iter__(self) -> Iterator[Chunk]:
        """Chunks in order of event time. A second iteration starts the same run again."""
        a, p = self.accounts, self._profiles
        self.requests, self.requests_of[:] = 0, 0
        self._seen_first[:], self._seen_last[:] = np.inf, -np.inf
        synced = np.array([g.arrivals.kind == "sync" for g in p.groups])
        rate = np.where(synced[a.group], 0.0, a.rate / p.turns[a.group])
        fields = [
            np.array([getattr(g.arrivals, name) for g in p.groups])[a.group] for name in ("active_days", "day_sigma")
        ]
        growth = np.array([g.rate.growth for g in p.groups])[a.group]
        timing = Timing(rate, a.cv, a.shape, a.offset_s, a.start_s, a.end_s, fields[0], fields[1], growth)
        renewal = Renewal(timing, Outlines(), self.seed, self._trace)
        maker = RowMaker(self.seed, a, p, self._grammar, self.climate, self._trace)
        length = self._chunk_length()
        carried: list[Rows] = []
        lo, serial, conversations = self._first_s, 0, 0
        while lo < self._end_s or carried:
            inside = lo < self._end_s
            hi = min((np.floor(lo / length + 1e-9) + 1) * length, self._end_s) if inside else np.inf
            if inside:
                rng = stream(self.seed, "chunk", round(lo))
                rows = self._requests(rng, renewal, maker, lo, hi, conversations)
                rows.stamp(self.seed, self.monday, serial)
                conversations += len(rows)
                serial += len(rows)
                carried.append(rows)
            rows = Rows.join(*carried)
            rows = rows.take(np.lexsort((rows.request, rows.done)))
            edge = int(np.searchsorted(rows.done, self.monday + hi)) if inside else len(rows)
            now, later = rows.take(np.arange(edge)), rows.take(np.arange(edge, len(rows)))
            carried = [later] if len(later) else []
            if len(now):
                yield self._emit(now, self.monday + lo, self.monday + min(hi, self._end_s + 2 * DAY))
            lo = hi

    def share_done(self, chunk: Chunk) -> float:
        """How much of the run's event time is behind after ``chunk``, 0 to 1."""
        return float(min(1.0, max(0.0, (chunk.end_ts - self.start_ts) / (self.days * DAY))))

    def _emit(self, rows: Rows, start: float, end: float) -> Chunk:
        account, ts = rows.account, np.round(self.monday + rows.t, 3)
        np.minimum.at(self._seen_first, account, ts)
        np.maximum.at(self._seen_last, account, ts)
        self.requests_of += np.bincount(account, minlength=len(self.requests_of))
        self.requests += len(rows)
        return Chunk(start, end, rows, self._log)

    def _chunk_length(self) -> float:
        per_day = max(1.0, float(self.accounts.rate.sum()))
        for length in _CHUNKS_S:
            if per_day * length / DAY <= CHUNK_ROWS:
                return float(length)
        return float(_CHUNKS_S[-1])

    def _requests(
        self, rng: np.random.Generator, renewal: Renewal, maker: RowMaker, lo: float, hi: float, conversations: int
    ) -> Rows:
        a, p = self.accounts, self._profiles
        who, at = renewal.step(lo, hi, self._boost(lo))
        extra = [self._bursts(i, lo, hi) for i, g in enumerate(p.groups) if g.arrivals.kind == "sync"]
        who = np.concatenate([who, *(e[0] for e in extra)])
        at = np.concatenate([at, *(e[1] for e in extra)])
        order = np.lexsort((a.account[who], at))
        who, at = who[order], at[order]
        group = a.group[who]
        account, t, session, turn, turns = sessions(rng, who, at, p.turns[group], p.think[group], p.jitter[group])
        key = mix(conversations + session, salt(self.seed, "conversation")).astype(np.int64)
        alive = np.flatnonzero(t < self._end_s)
        return maker.make(rng, account[alive], t[alive], key[alive], turn[alive], turns[alive])

    def _boost(self, lo: float) -> F64 | None:
        """Those who just moved to a new model call more for a day and a half."""
        if not (self.climate.release_s <= lo < self.climate.release_s + 1.5 * DAY):
            return None
        return self._profiles.surge[self.accounts.group]

    def _bursts(self, group: int, lo: float, hi: float) -> tuple[I64, F64]:
        """Requests of a group whose accounts fire together, each within ``jitter_s`` of the burst."""
        a, when = self.accounts, self._profiles.groups[group].arrivals
        rng = stream(self.seed, "bursts", group, round(lo))
        times = lo + np.sort(rng.random(rng.poisson(when.bursts_per_day * (hi - lo) / DAY))) * (hi - lo)
        mine = np.flatnonzero(a.group == group)
        fires = rng.random((len(times), len(mine))) < np.minimum(a.rate[mine] / when.bursts_per_day, 1.0)
        burst, index = np.nonzero(fires)
        t = times[burst] + when.jitter_s * (2 * rng.random(len(burst)) - 1)
        who = mine[index]
        live = (t >= np.maximum(a.start_s[who], lo)) & (t < a.end_s[who])
        return who[live], t[live]

    def context(self) -> Iterator[dict[str, Any]]:
        """Contract 5 events of the run, ordered by time."""
        a, events = self.accounts, []
        ids, orgs = self._log.account_id.to_list(), self._log.org_id.to_list()
        for i in np.flatnonzero((a.created_s >= self._first_s - 30 * DAY) & (a.created_s < self._end_s)).tolist():
            events.append(self._event(a.created_s[i], "account_created", ids[i], orgs[i], {}))
        for i, at in self.bans:
            events.append(self._event(at, "account_banned", ids[i], orgs[i], {"reason": "terms"}))
        if self.climate.release_s < self._end_s:
            event = self._event(self.climate.release_s, "model_released", None, None, {})
            events.append({**event, "model": self.new_model})
        for start, end, share in self.climate.outages:
            events.append(self._event(start, "incident", None, None, {"until": self.monday + end, "share": share}))
        rng = stream(self.seed, "product")
        shown = np.array([g.links.product_seen for g in self._profiles.groups])[a.group]
        for i in np.flatnonzero(rng.random(len(a)) < shown).tolist():
            at = max(float(a.start_s[i]), self._first_s) + 600.0 * float(rng.random())
            events.append(self._event(at, "product_seen", ids[i], orgs[i], {}))
        for cast in self.casts:
            agreed = cast.scenario.agreement
            for i in cast.rows.tolist() if agreed else []:
                attrs = (
                    {"kind": agreed.kind, "owner": agreed.owner, "expires": self.monday + self._end_s + 90 * DAY}
                    if agreed
                    else {}
                )
                events.append(self._event(self._first_s, "agreement", ids[i], orgs[i], attrs))
        yield from sorted(events, key=lambda e: (e["ts"], e["type"], e.get("account_id", "")))

    def _event(
        self, at: float, kind: str, account: str | None, org: str | None, attrs: dict[str, Any]
    ) -> dict[str, Any]:
        event = {"ts": round(self.monday + float(at), 3), "type": kind, "attrs": attrs}
        if account is not None:
            event |= {"account_id": account, "org_id": org}
        return event

    def truth(self) -> Iterator[dict[str, Any]]:
        """Contract 4 lines of the accounts that appeared, after the run was iterated (first and last request)."""
        ids = self._log.account_id.to_list()
        for cast in self.casts:
            for i in cast.rows.tolist():
                if self.requests_of[i] == 0:
                    continue
                s = cast.scenario
                actor = self.people.actor_of(cast, i)
                line = {"account_id": ids[i], "actor": actor, "scenario": s.id}
                line |= {"also": s.also} if s.also and actor == s.actor else {}
                line |= {"campaign": cast.name} if s.campaign and actor != "benign" else {}
                yield {**line, "first_ts": float(self._seen_first[i]), "last_ts": float(self._seen_last[i])}


Progress = Callable[[float, int], None]
"""Called with (share of the run done, requests so far)."""
