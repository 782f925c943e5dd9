"""The one loop over requests of the features stage, compiled: events into panes, windows out of panes.

Rows come sorted by (account, tick, time, request). For each account and tick the events are added up, joined
to the open minute, hour and day, and the windows that end with the tick are summed by walking the account's
panes. Everything is an integer; whatever is derived from it is a Polars expression elsewhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.features.aggregates import TEMPLATE_BUCKETS as BUCKETS
from monitor.features.pages import PAGE, give_back, page_of
from monitor.features.panes import INT32_MAX, LevelView, day_of, find_or_begin, unlink
from monitor.features.recent import judge, remember
from monitor.features.shapes import (
    EXEMPLAR_BYTES,
    EXEMPLARS,
    MINHASH_BYTES,
    MODELS,
    NEAR_BINS,
    RING,
    TOTALS,
    Accounts,
    Columns,
    Events,
    Rings,
    Room,
    Windows,
)
from monitor.features.windows import clear, window
from monitor.jit import njit


@njit
def _reset(s: int, accounts: Accounts, rings: Rings, minute: LevelView, hour: LevelView, day: LevelView) -> None:
    """Start account ``s`` afresh: it is new, or it was silent for longer than any window."""
    accounts.first_ms[s] = -1
    accounts.last_ms[s] = -1
    accounts.tick_at[s] = -1
    accounts.ring_at[s] = 0
    for c in range(TOTALS):
        accounts.totals[s, c] = 0
    for c in range(accounts.tick_n.shape[1]):
        accounts.tick_n[s, c] = 0
    for c in range(RING):
        accounts.ring_exact[s, c] = 0
    for c in range(EXEMPLARS):
        accounts.exemplar_day[s, c] = -1
        accounts.exemplar_key[s, c] = 0
        for b in range(EXEMPLAR_BYTES):
            accounts.exemplar_id[s, c, b] = 0
    for c in range(MODELS):
        accounts.models[s, c] = -1
    give_back(s, rings.recent)
    give_back(s, rings.minhash)
    accounts.recent_n[s] = 0
    accounts.judged_n[s] = -1
    accounts.judged_ms[s] = -1
    for c in range(accounts.opinion.shape[1]):
        accounts.opinion[s, c] = np.nan
    unlink(s, minute)
    unlink(s, hour)
    unlink(s, day)


@njit
def _remember_first_turn(
    s: int, exact: np.uint64, minhash: npt.NDArray[np.uint8], accounts: Accounts, rings: Rings
) -> int:
    """0 new, 1 equal to one of the last first turns, 2 near one; the turn itself is remembered."""
    found = 0
    for j in range(RING):
        old = accounts.ring_exact[s, j]
        if old == 0:
            continue
        if old == exact:
            found = 1
            break
        if found == 0:
            same = 0
            page = rings.minhash.of[s, j // PAGE]
            for b in range(MINHASH_BYTES):
                if rings.minhash.data[page, j % PAGE, b] == minhash[b]:
                    same += 1
            if same >= NEAR_BINS:
                found = 2
    at = int(accounts.ring_at[s])
    accounts.ring_exact[s, at] = exact
    page = page_of(s, at, rings.minhash)
    for b in range(MINHASH_BYTES):
        rings.minhash.data[page, at % PAGE, b] = minhash[b]
    accounts.ring_at[s] = (at + 1) % RING
    return found


@njit
def _remember_example(s: int, day: int, key: np.uint64, request_id: npt.NDArray[np.uint8], accounts: Accounts) -> None:
    """Keep the smallest keyed hashes of the current and the previous day: a sample that no order can sway."""
    worst = -1
    for j in range(EXEMPLARS):
        if accounts.exemplar_day[s, j] < day - 1:  # empty or too old
            worst = j
            break
        if worst < 0 or accounts.exemplar_key[s, j] > accounts.exemplar_key[s, worst]:
            worst = j
    if accounts.exemplar_day[s, worst] < day - 1 or key < accounts.exemplar_key[s, worst]:
        accounts.exemplar_day[s, worst] = day
        accounts.exemplar_key[s, worst] = key
        for b in range(EXEMPLAR_BYTES):
            accounts.exemplar_id[s, worst, b] = request_id[b]


@njit
def _remember_model(s: int, model: int, accounts: Accounts) -> None:
    for j in range(MODELS):
        if accounts.models[s, j] == model:
            return
        if accounts.models[s, j] < 0:
            accounts.models[s, j] = model
            return


@njit
def _log2_eighths(value_ms: int) -> np.int64:
    """log2 of a gap in milliseconds, plus one, in eighths: an integer."""
    return np.int64(np.rint(np.log2(np.float64(value_ms + 1)) * 8.0))


@njit
def _count_sketch(value: np.uint64, narrow: npt.NDArray[np.int64], first: int) -> None:
    """Add one value to a signed bucket: three bits choose it, a fourth the sign. 0 is not known."""
    if value != 0:
        sign = 1 if (value >> np.uint64(4)) & np.uint64(1) else -1
        narrow[first + np.int64(value & np.uint64(BUCKETS - 1))] += sign


@njit
def _add(
    level: LevelView,
    p: int,
    narrow: npt.NDArray[np.int64],
    wide: npt.NDArray[np.int64],
    bits: npt.NDArray[np.uint64],
) -> None:
    for c in range(level.narrow.shape[1]):
        total = np.int64(level.narrow[p, c]) + narrow[c]
        level.narrow[p, c] = np.int32(min(max(total, -INT32_MAX), INT32_MAX))
    for c in range(level.wide.shape[1]):
        level.wide[p, c] += wide[c]
    for c in range(level.bits.shape[1]):
        level.bits[p, c] |= bits[c]


@njit
def fold(
    events: Events,
    accounts: Accounts,
    rings: Rings,
    minute: LevelView,
    hour: LevelView,
    day: LevelView,
    sizes: npt.NDArray[np.int64],
    cols: Columns,
    tick_ms: int,
    idle_ms: int,
    room: Room,
    out: Windows,
) -> int:
    """Fold sorted ``events`` into the panes and write one row of ``out`` for each (account, tick); returns the rows.

    ``sizes`` int64 [3] holds the sizes of the three levels, before and after. ``out`` must be zeroed and have
    room for as many rows as there are events. ``room`` is anew for each call.
    """
    n_events = len(events.slot)
    ticks_a_minute = accounts.tick_n.shape[1]
    narrow, wide, bits = room.of_tick.narrow, room.of_tick.wide, room.of_tick.bits
    one = np.uint64(1)
    # Of one type throughout, not a literal at first: or numba compiles what they are passed to twice, 2 s each.
    i = int(np.int64(0))
    r = int(np.int64(0))
    while i < n_events:
        s = int(events.slot[i])
        k = int(events.tick[i])
        if accounts.last_ms[s] < 0 or k * tick_ms - accounts.last_ms[s] > idle_ms:
            _reset(s, accounts, rings, minute, hour, day)
            accounts.first_ms[s] = k * tick_ms
        accounts.dirty[s] = 1
        today = day_of(k * tick_ms, accounts.first_ms[s])
        clear(room.of_tick)
        while i < n_events and events.slot[i] == s and events.tick[i] == k:
            for c in range(len(narrow)):
                narrow[c] += events.narrow[i, c]
            for c in range(len(wide)):
                wide[c] += events.wide[i, c]
            for c in range(len(bits)):
                value = events.bits[i, c]
                if value != 0:
                    bits[c] |= one << (value >> np.uint64(58))
            _count_sketch(events.opening[i], narrow, cols.template)
            _count_sketch(events.closing[i], narrow, cols.template + BUCKETS)
            narrow[cols.model + np.int64(events.bits[i, cols.bits_models] & np.uint64(7))] += 1
            t = events.t_ms[i]
            last = accounts.last_ms[s]
            gap = np.int64(-1)
            if last >= 0 and events.narrow[i, cols.batch] == 0:
                gap = _log2_eighths(max(t - last, 0))
                narrow[cols.gap_n] += 1
                narrow[cols.gap] += gap
                wide[cols.gap2] += gap * gap
            accounts.last_ms[s] = max(last, t)
            if events.created_ms[i] >= 0:
                accounts.created_ms[s] = events.created_ms[i]
            found = -1
            if events.first[i]:
                found = _remember_first_turn(s, events.exact[i], events.minhash[i], accounts, rings)
                narrow[cols.first] += 1
                narrow[cols.exact] += found == 1
                narrow[cols.near] += found == 2
            remember(
                s, events.vector[i], found, int(gap), cols.novelty, cols.vector_gap, rings.recent, accounts.recent_n
            )
            if events.request_id[i, 0] != 0:
                _remember_example(s, today, events.key[i], events.request_id[i], accounts)
            if events.model[i] >= 0:
                _remember_model(s, events.model[i], accounts)
            i += 1

        start = k * tick_ms
        gone = k - accounts.tick_at[s] if accounts.tick_at[s] >= 0 else ticks_a_minute
        for j in range(min(gone, ticks_a_minute)):
            accounts.tick_n[s, (k - j) % ticks_a_minute] = 0
        accounts.tick_at[s] = k
        accounts.tick_n[s, k % ticks_a_minute] += np.int32(narrow[cols.n])
        accounts.totals[s, 0] += narrow[cols.n]
        accounts.totals[s, 1] += wide[0]
        accounts.totals[s, 2] += wide[1]
        accounts.totals[s, 3] += wide[3]
        accounts.totals[s, 4] += wide[5]

        p, sizes[0] = find_or_begin(s, start // 60_000, sizes[0], minute)
        _add(minute, p, narrow, wide, bits)
        p, sizes[1] = find_or_begin(s, start // 3_600_000, sizes[1], hour)
        _add(hour, p, narrow, wide, bits)
        p, sizes[2] = find_or_begin(s, today, sizes[2], day)
        _add(day, p, narrow, wide, bits)
        day.hours[p, (start // 3_600_000) % 24] += np.int32(narrow[cols.n])

        out.slot[r] = s
        out.tick[r] = k
        out.t_ms[r] = events.t_ms[i - 1]
        window(r, s, tick_ms, ticks_a_minute, k, accounts, minute, hour, day, cols, room, out)
        judge(
            r, s, tick_ms, k, rings.recent, accounts.recent_n, accounts.judged_n, accounts.judged_ms,
            out.set_end, out.due, out.sets,
        )  # fmt: skip
        r += 1
    return r
