"""Reading an account's windows at the end of a tick: sums over its panes, as one row of :class:`Windows`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.features.frozen import thaw
from monitor.features.panes import LevelView, day_of
from monitor.features.shapes import EXEMPLAR_BYTES, EXEMPLARS, MODELS, TOTALS, Accounts, Columns, Room, Sums, Windows
from monitor.jit import njit

NO_PANE = -1
NEVER = -(1 << 40)


@njit
def clear(sums: Sums) -> None:
    """Begin at zero."""
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
def _add_cold(
    s: int, p: int, after: int, level: LevelView, known: Sums, cold: npt.NDArray[np.int64], sums: Sums
) -> int:
    """Add the frozen panes from ``p`` of a chain on that are later than ``after``; returns how many.

    By what ``known`` holds of the row before where ``cold`` says that these are the same panes: an account's requests
    come in sessions, and nine rows of one hour read the same ones.
    """
    if cold[0] != s or cold[1] != p or after < cold[2] or after >= cold[3]:
        clear(known)
        cold[0], cold[1], cold[2], cold[3], cold[4] = s, p, NEVER, -NEVER, 0
        while p <= -2:
            f = -2 - p
            if level.frozen_time[f] <= after:
                cold[2] = level.frozen_time[f]
                break
            thaw(level.frozen_start[f], level.frozen, known.narrow, known.wide, known.bits, known.hours)
            cold[3] = level.frozen_time[f]
            cold[4] += 1
            p = level.frozen_prev[f]
    if cold[4] > 0:
        for c in range(len(sums.narrow)):
            sums.narrow[c] += known.narrow[c]
        for c in range(len(sums.wide)):
            sums.wide[c] += known.wide[c]
        for c in range(len(sums.bits)):
            sums.bits[c] |= known.bits[c]
        for c in range(len(sums.hours)):
            sums.hours[c] += known.hours[c]
    return int(cold[4])


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
    room: Room,
    out: Windows,
) -> None:
    """Sum the windows of account ``s`` that end with tick ``k`` into row ``r``."""
    of_day, of_week = room.of_day, room.of_week
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
    clear(of_day)
    t = start // 3_600_000
    active = 0
    p = hour.head[s]
    while p >= 0 and hour.time[p] > t - 24:
        _add_pane(p, hour, of_day)
        active += 1
        p = hour.prev[p]
    active += _add_cold(s, p, t - 24, hour, room.cold_day, room.cold[:5], of_day)
    for c in range(len(of_day.narrow)):
        out.day_narrow[c, r] = of_day.narrow[c]
    for c in range(len(of_day.wide)):
        out.day_wide[c, r] = of_day.wide[c]
    for c in range(len(of_day.bits)):
        out.day_bits[c, r] = of_day.bits[c]
    out.day_hours[r] = active

    clear(of_week)
    first_ms = accounts.first_ms[s]
    t = day_of(start, first_ms)
    first_day = day_of(first_ms, first_ms)
    out.past_days[r] = min(max(t - first_day, 0), 6)
    p = day.head[s]
    today = NO_PANE
    if p >= 0 and day.time[p] >= t:
        today = p
        p = day.prev[p]
    while p >= 0 and day.time[p] > t - 7:
        _add_pane(p, day, of_week)
        p = day.prev[p]
    _add_cold(s, p, t - 7, day, room.cold_week, room.cold[5:], of_week)
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
