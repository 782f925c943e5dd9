"""When requests come: a renewal process in operational time, bent into the week by each account's outline.

Operational time is the integral of an account's intensity; gaps between sessions are gamma there, so the
coefficient of variation and the outline of the week are set apart (the two that ServeGen, arXiv 2505.09999,
measured apart). State is one number an account: what is left until its next session.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .draws import F64, I64, stream
from .replay import Trace

DAY = 86_400.0
BIN = 300.0
"""Seconds of one bin of the week's outlines: cron jobs need minutes, a finer bin gains nothing."""
_WEEK_BINS = int(7 * DAY / BIN)
SHAPES = ("flat", "office", "evening", "day", "hourly", "nightly")
DUTIES = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6)
"""Shares of the day in which a ``duty`` client works, one daily block each; its start is the account's offset."""


def _outline(name: str) -> F64:
    hour = (np.arange(_WEEK_BINS) * BIN / 3600.0) % 24
    weekday = (np.arange(_WEEK_BINS) * BIN // DAY) % 7 < 5
    if name == "flat":
        return np.ones(_WEEK_BINS)
    if name == "office":
        w = np.exp(-(((hour - 10.5) / 2.2) ** 2)) + 0.9 * np.exp(-(((hour - 15.0) / 2.4) ** 2)) + 0.03
        return np.asarray(w * np.where(weekday, 1.0, 0.18))
    if name == "evening":
        gap = np.minimum(np.abs(hour - 20.5), 24 - np.abs(hour - 20.5))
        return np.asarray(np.exp(-((gap / 3.0) ** 2)) + 0.25 * np.exp(-(((hour - 12.5) / 2.0) ** 2)) + 0.04)
    if name == "day":
        return np.asarray((np.exp(-(((hour - 14.0) / 4.5) ** 2)) + 0.08) * np.where(weekday, 1.0, 0.6))
    if name == "hourly":
        return np.where(np.arange(_WEEK_BINS) % 12 == 0, 1.0, 0.01)
    return np.where((hour >= 2.0) & (hour < 4.0), 1.0, 0.0)


class Outlines:
    """Cumulative intensity of every outline over a week, one day of operational time a day on average."""

    def __init__(self) -> None:
        rows = [_outline(name) for name in SHAPES]
        rows += [((np.arange(_WEEK_BINS) * BIN % DAY) < max(duty * DAY, BIN)).astype(np.float64) for duty in DUTIES]
        weights = np.array(rows)
        self._density = weights * (7.0 / weights.sum(axis=1, keepdims=True))
        self._edges = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(self._density, axis=1)], axis=1)
        # 8 > 7: rows laid end to end stay sorted, so one searchsorted inverts all outlines at once
        self._flat = (self._edges + 8.0 * np.arange(len(rows))[:, None]).ravel()

    def forward(self, shape: I64, local_s: F64) -> F64:
        """Operational days at local time ``local_s`` (seconds since a Monday midnight, never before)."""
        week, rest = np.divmod(local_s, 7 * DAY)
        position = rest / BIN
        cell = np.minimum(position.astype(np.int64), _WEEK_BINS - 1)
        return np.asarray(week * 7.0 + self._edges[shape, cell] + (position - cell) * self._density[shape, cell])

    def inverse(self, shape: I64, days: F64) -> F64:
        """Local seconds at operational ``days``: inverse of :meth:`forward`, never inside a dead bin."""
        week, rest = np.divmod(days, 7.0)
        cell = np.searchsorted(self._flat, rest + 8.0 * shape, side="right") - 1 - shape * (_WEEK_BINS + 1)
        cell = np.clip(cell, 0, _WEEK_BINS - 1)
        density = self._density[shape, cell]
        part = np.where(density > 0, (rest - self._edges[shape, cell]) / np.where(density > 0, density, 1.0), 0.0)
        return np.asarray(week * 7 * DAY + (cell + np.clip(part, 0.0, 1.0)) * BIN)


@dataclass(frozen=True, slots=True)
class Timing:
    """Per account: sessions a day, gamma CV, outline, offset and life (seconds from the world's Monday)."""

    sessions_per_day: F64
    cv: F64
    shape: I64
    offset_s: F64
    start_s: F64
    end_s: F64
    active_days: F64
    day_sigma: F64
    growth: F64


def least_attendance(seed: int, days: range, accounts: int) -> F64:
    """Of each account the smallest of its daily draws: it comes on some of ``days`` if ``active_days`` is more."""
    least = np.ones(accounts)
    for day in days:
        np.minimum(least, stream(seed, "day", day).random(accounts), out=least)
    return least


def day_factor(seed: int, day: int, active_days: F64, day_sigma: F64, growth: F64) -> F64:
    """How busy each account is on ``day`` (from the world's Monday): mean 1 over days, 0 where it stays away."""
    rng = stream(seed, "day", day)
    present = rng.random(len(active_days)) < active_days
    level = np.exp(day_sigma * rng.standard_normal(len(active_days)) - day_sigma**2 / 2)
    return np.asarray(np.where(present, level / active_days, 0.0) * (1.0 + growth) ** day)


class Renewal:
    """Session starts of many accounts, chunk after chunk; memory is one number an account."""

    def __init__(self, timing: Timing, outlines: Outlines, seed: int, trace: Trace | None = None):
        self._t, self._outlines, self._seed, self._trace = timing, outlines, seed, trace
        rng = stream(seed, "renewal")
        shape = 1.0 / timing.cv**2
        # The run opens in mid-traffic: what is left of a gap seen at a random moment is a uniform part of a
        # length-biased one (gamma with shape + 1). An ordinary gap instead makes short runs 20 % too busy.
        self._due = rng.gamma(shape + 1.0, 1.0 / shape) * rng.random(len(timing.cv))
        self._day, self._factor = -1, np.ones(len(timing.cv))

    def _gaps(self, rng: np.random.Generator, cv2: F64) -> F64:
        """Gaps of mean 1: gamma with squared CV ``cv2``, or those of a trace."""
        if self._trace is not None:
            return self._trace.draw_gaps(rng, len(cv2))
        return rng.gamma(1.0 / cv2, cv2)

    def _day_factor(self, day: int) -> F64:
        if day != self._day:
            t = self._t
            self._factor = day_factor(self._seed, day, t.active_days, t.day_sigma, t.growth)
            self._day = day
        return self._factor

    def step(self, lo_s: float, hi_s: float, boost: F64 | None = None) -> tuple[I64, F64]:
        """Accounts and times (s) of sessions starting in [lo, hi), which must lie within one day.

        ``boost`` multiplies each account's intensity within the step.
        """
        t = self._t
        factor = self._day_factor(int(lo_s // DAY)) * (1.0 if boost is None else boost)
        begin, finish = np.maximum(lo_s, t.start_s), np.minimum(hi_s, t.end_s)
        live = np.flatnonzero((begin < finish) & (factor > 0) & (t.sessions_per_day > 0))
        shape, offset = t.shape[live], t.offset_s[live]
        at_begin = self._outlines.forward(shape, begin[live] + offset)
        speed = t.sessions_per_day[live] * factor[live]
        budget = (self._outlines.forward(shape, finish[live] + offset) - at_begin) * speed
        due = self._due[live]
        rng = stream(self._seed, "gaps", round(lo_s))
        who, where = [], []
        work = np.flatnonzero(due < budget)
        self._due[live] = due - budget
        while len(work):
            who.append(work)
            where.append(due[work])
            cv2 = t.cv[live[work]] ** 2
            left = budget[work] - due[work]
            count = np.ceil(left + 3.0 * np.sqrt(cv2 * left) + 2.0 * np.sqrt(cv2)).astype(np.int64)
            owner = np.repeat(np.arange(len(work)), count)
            gaps = self._gaps(rng, cv2[owner])
            ends = np.cumsum(count)
            total = np.cumsum(gaps)
            before = np.concatenate([[0.0], total[ends[:-1] - 1]])
            position = due[work][owner] + total - before[owner]
            over = position >= budget[work][owner]
            keep = ~over
            who.append(work[owner[keep]])
            where.append(position[keep])
            # the first gap that passes the budget is what is left over; an account with none goes on
            first = np.full(len(work), -1)
            late = np.flatnonzero(over)
            seen, index = np.unique(owner[late], return_index=True)
            first[seen] = late[index]
            done = first >= 0
            self._due[live[work[done]]] = position[first[done]] - budget[work[done]]
            rest = np.flatnonzero(~done)
            due[work[rest]] = position[ends[rest] - 1]
            last_kept = work[rest]
            if len(rest):
                cv2 = t.cv[live[last_kept]] ** 2
                due[last_kept] += self._gaps(rng, cv2)
                spent = due[last_kept] >= budget[last_kept]
                self._due[live[last_kept[spent]]] = due[last_kept[spent]] - budget[last_kept[spent]]
                work = last_kept[~spent]
            else:
                work = rest
        if not who:
            return np.zeros(0, np.int64), np.zeros(0)
        w, p = np.concatenate(who), np.concatenate(where)
        seconds = self._outlines.inverse(shape[w], at_begin[w] + p / speed[w]) - offset[w]
        return live[w], np.clip(seconds, begin[live[w]], np.nextafter(finish[live[w]], -np.inf))


def sessions(
    rng: np.random.Generator, who: I64, start_s: F64, turns_mean: F64, think_s: F64, jitter_s: F64
) -> tuple[I64, F64, I64, I64, I64]:
    """Session starts as requests: (account, time, session number, turn, turns of the session).

    Turns are geometric with mean ``turns_mean`` (cut at 60), pauses log-normal around ``think_s`` seconds.
    """
    size = np.minimum(rng.geometric(1.0 / turns_mean), 60).astype(np.int64)
    session = np.repeat(np.arange(len(who)), size)
    ends = np.cumsum(size)
    turn = np.arange(len(session)) - np.repeat(ends - size, size)
    pause = np.where(turn > 0, think_s[session] * np.exp(0.8 * rng.standard_normal(len(session))), 0.0)
    total = np.cumsum(pause)
    at = start_s[session] + total - np.repeat(total[ends - size], size) if len(session) else start_s[session]
    at = at + jitter_s[session] * rng.random(len(session))
    return who[session], at, session, turn, size[session]
