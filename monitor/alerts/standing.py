"""Open episodes as the stage keeps them: which firings change nothing, and when time alone changes something.

Both are derived from the episodes and kept beside the state, never in it. With 10,000 accounts that all fire in most
of their ticks, looking at each firing in full and at each open episode after each batch was 59 % of the pipeline's
time on metadata.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import polars as pl

from monitor.alerts.episodes import Episode
from monitor.records import Alert

MODES = ("alert", "shadow")
_KINDS_MAX = 65_536
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Firing:
    """Rules that fire in a row, by mode and sorted, and which of the columns behind rules are not null in it."""

    rules: Mapping[str, Sequence[str]]
    known: frozenset[str]


class Firings:
    """One :class:`Firing` for all rows that are alike in it: who has seen it once has seen them all."""

    def __init__(self, modes: Mapping[str, str], columns: Sequence[str]):
        """``modes``: rule -> mode; ``columns``: what facts and evidence of these rules are read from."""
        self._modes = dict(sorted(modes.items()))
        self._place = {rule: i for i, rule in enumerate(self._modes)}
        self._columns = columns
        self._kinds: dict[bytes, Firing] = {}

    def of(self, frame: pl.DataFrame, firings: pl.DataFrame) -> dict[int, Firing]:
        """Row of ``frame`` -> what fires in it."""
        if firings.is_empty():
            return {}
        rows, at = np.unique(firings["row"].to_numpy(), return_inverse=True)
        bits = np.zeros((len(rows), len(self._place) + len(self._columns)), np.bool_)
        bits[at, [self._place[rule] for rule in firings["rule"].to_list()]] = True
        for j, name in enumerate(self._columns, len(self._place)):
            if name in frame.columns:
                column = frame[name]
                nulls = column.null_count()
                if nulls != len(column):
                    bits[:, j] = True if not nulls else column.is_not_null().to_numpy()[rows]
        if len(self._kinds) > _KINDS_MAX:
            self._kinds.clear()
        packed = np.packbits(bits, axis=1)
        whole, width = packed.tobytes(), packed.shape[1]
        kinds = [self._kind(whole[i : i + width]) for i in range(0, len(whole), width)]
        return dict(zip(rows.tolist(), kinds, strict=True))

    def _kind(self, key: bytes) -> Firing:
        """The one for these bits: a rule each, then a column each."""
        if (kind := self._kinds.get(key)) is None:
            bits = np.unpackbits(np.frombuffer(key, np.uint8), count=len(self._place) + len(self._columns)).tolist()
            fired = [rule for rule, bit in zip(self._modes, bits, strict=False) if bit]
            known = zip(self._columns, bits[len(self._place) :], strict=True)
            by_mode = {mode: tuple(r for r in fired if self._modes[r] == mode) for mode in MODES}
            kind = self._kinds[key] = Firing(by_mode, frozenset(name for name, bit in known if bit))
        return kind


@dataclass(slots=True, eq=False)
class Standing:
    """An open episode. A firing in ``said`` leaves all but its totals and last tick as they are, in rows before
    ``until_ms`` (event time of the row) whose ticks begin before ``settles_ms``. 0: nothing is known."""

    episode: Episode
    said: set[Firing] = field(default_factory=set)
    until_ms: int = 0
    settles_ms: int = 0
    due_ms: int = _NEVER
    """When it is looked at next: kept by :class:`Agenda`."""

    def is_old(self, firing: Firing | None, begins_ms: int, now_ms: int) -> bool:
        """Whether a row changes nothing but the totals, and by what fires in it the last tick."""
        if begins_ms >= self.settles_ms:
            return False
        return firing is None or (now_ms < self.until_ms and firing in self.said)

    def unsettle(self) -> None:
        """It was changed."""
        self.said.clear()
        self.until_ms = self.settles_ms = 0


class Agenda:
    """When time alone may change something of the open episodes of a partition; each is looked at when that comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Standing]] = []
        self._order = count()

    def note(self, standing: Standing, due_ms: int) -> None:
        """Look at it by ``due_ms``. A later time than was noted is found out when that one comes."""
        if due_ms < standing.due_ms:
            standing.due_ms = due_ms
            heapq.heappush(self._heap, (due_ms, next(self._order), standing))

    def take(self, by_ms: int) -> Iterator[Standing]:
        """What is due by then, closed ones too, each to be noted again where it goes on."""
        while self._heap and self._heap[0][0] <= by_ms:
            due_ms, _, standing = heapq.heappop(self._heap)
            if due_ms == standing.due_ms:
                standing.due_ms = _NEVER
                yield standing


class Closed:
    """Last revisions of closed alerts of a partition, until they are too old to be written again."""

    def __init__(self, alerts: Sequence[Alert] = ()):
        self._order = count()
        self._heap = [(alert.revised_at, next(self._order), alert) for alert in alerts]
        heapq.heapify(self._heap)

    def add(self, alert: Alert) -> None:
        """Keep it."""
        heapq.heappush(self._heap, (alert.revised_at, next(self._order), alert))

    def keep_after(self, seconds: float) -> None:
        """Forget those whose last revision is of ``seconds`` (event time) or before."""
        while self._heap and self._heap[0][0] <= seconds:
            heapq.heappop(self._heap)

    @property
    def alerts(self) -> list[Alert]:
        """All of them, in no order."""
        return [alert for _, _, alert in self._heap]
