"""Reading an account's windows at the end of a tick: sums over its panes, as one row of :class:`Windows`."""

from __future__ import annotations

import numpy as np

from monitor.features.frozen import thaw
from monitor.features.panes import LevelView
from monitor.features.shapes import EXEMPLAR_BYTES, EXEMPLARS, MODELS, TOTALS, Accounts, Columns, Sums, Windows
from monitor.jit import njit

NO_PANE = -1


@njit
def _clear(sums: Sums) -> None:
    for c in range(len(sums.narrow)):
        sums.narrow[c] = 0
    for c in range(len(sums.wide)):
        sums.wide[c] = 0
    for c in range(len(sums.bits)):
        sums.bits[c] = 0
    for c in range(len(sums.hours)):
        sums.hours[c] = 0


@njit
def _add_pane(p: int, level: LevelView, sums: Sums) -> None:
    for c in range(level.narrow.shape[1]):
        sums.narrow[c] += level.narrow[p, c]
    for c in range(level.wide.shape[1]):
        sums.wide[c] += level.wide[p, c]
    for c in range(level.bits.shape[1]):
        sums.bits[c] |= level.bits[p, c]
    for c in range(level.hours.shape[1]):
        sums.hours[c] += level.hours[p, c]


@njit
def _add_frozen(p: int, after: int, level: LevelView, sums: Sums) -> int:
    """Add the frozen panes from ``p`` of a chain on that are later than ``after``; returns how many."""
    n = int(np.int64(0))
    while p <= -2:
        f = -2 - p
        if level.frozen_time[f] <= after:
            break
        thaw(level.frozen_start[f], level.frozen, sums.narrow, sums.wide, sums.bits, sums.hours)
        n += 1
        p = level.frozen_prev[f]
    return n


@njit
def window(
    r: int,
    s: int,
    tick_ms: int,
    ticks_a_minute: int,
    k: int,
    accounts: Accounts,
    minute: LevelView,
    hour: LevelView,
    day: LevelView,
    cols: Columns,
    of_day: Sums,
    of_week: Sums,
    out: Windows,
) -> None:
    """Sum the windows of account ``s`` that end with tick ``k`` into row ``r``. ``of_day`` and ``of_week`` are room."""
    start = k * tick_ms
    last_minute = 0
    for j in range(ticks_a_minute):
        last_minute += accounts.tick_n[s, j]
    out.minute[r] = last_minute

    t = start // 60_000
    peak = 0
    p = minute.head[s]
    while p >= 0 and minute.time[p] > t - 60:
        for c in range(cols.minute_narrow):
            out.hour_narrow[c, r] += minute.narrow[p, c]
        for c in range(cols.minute_wide):
            out.hour_wide[c, r] += minute.wide[p, c]
        peak = max(peak, minute.narrow[p, cols.n])
        p = minute.prev[p]
    out.hour_peak[r] = peak

    # Columns of a row lie far apart in `out`: sums are made here and written once.
    _clear(of_day)
    t = start // 3_600_000
    active = 0
    p = hour.head[s]
    while p >= 0 and hour.time[p] > t - 24:
        _add_pane(p, hour, of_day)
        active += 1
        p = hour.prev[p]
    active += _add_frozen(p, t - 24, hour, of_day)
    for c in range(len(of_day.narrow)):
        out.day_narrow[c, r] = of_day.narrow[c]
    for c in range(len(of_day.wide)):
        out.day_wide[c, r] = of_day.wide[c]
    for c in range(len(of_day.bits)):
        out.day_bits[c, r] = of_day.bits[c]
    out.day_hours[r] = active

    _clear(of_week)
    t = start // 86_400_000
    first_day = accounts.first_ms[s] // 86_400_000
    out.past_days[r] = min(max(t - first_day, 0), 6)
    p = day.head[s]
    today = NO_PANE
    if p >= 0 and day.time[p] >= t:
        today = p
        p = day.prev[p]
    while p >= 0 and day.time[p] > t - 7:
        _add_pane(p, day, of_week)
        p = day.prev[p]
    _add_frozen(p, t - 7, day, of_week)
    for c in range(cols.day_narrow):
        out.past_narrow[c, r] = of_week.narrow[c]
    for c in range(cols.day_wide):
        out.past_wide[c, r] = of_week.wide[c]
    if today >= 0:
        _add_pane(today, day, of_week)
    out.week_n[r] = of_week.narrow[cols.n]
    out.week_output[r] = of_week.wide[1]
    for c in range(len(of_week.bits)):
        out.week_bits[c, r] = of_week.bits[c]
    for c in range(24):
        out.week_hours[c, r] = of_week.hours[c]
    for c in range(TOTALS):
        out.totals[c, r] = accounts.totals[s, c]
    # As they are at this tick: an alert must not depend on what else the batch holds.
    for c in range(EXEMPLARS):
        out.exemplar_key[r, c] = accounts.exemplar_key[s, c]
        for b in range(EXEMPLAR_BYTES):
            out.exemplar_id[r, c, b] = accounts.exemplar_id[s, c, b]
    for c in range(MODELS):
        out.models[r, c] = accounts.models[s, c]
