"""Opaque reasoning blobs that come back: was this one seen in another conversation, or from another account?

A provider returns encrypted reasoning that a client may send back in the same conversation. The same blob in
a second conversation or account is the exact trace of a replay (Panfilov et al., arXiv 2608.09867). A retry or
a gateway's failover repeats it within its conversation, and is not counted. One partition sees only its own
accounts; what crosses partitions is the campaign stage's.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from monitor.arrow import to_arrow
from monitor.features.strings import coded, hashed
from monitor.keytable import KeyTable

_Bools = npt.NDArray[np.bool_]
_HORIZON_MS = 7 * 86_400_000


class BlobTable:
    """First owner and first conversation of each blob of the last 7 days, by partition."""

    def __init__(self, tick_ms: int) -> None:
        self._tick_ms = tick_ms
        self.owner = KeyTable(_HORIZON_MS)
        self.conversation = KeyTable(_HORIZON_MS)

    def flag(self, events: pl.DataFrame) -> pl.DataFrame:
        """``events`` with the columns ``blob_reuse`` and ``blob_foreign`` (Boolean, null without a blob)."""
        rows, blobs = _uses(events["blobs"])
        if not len(rows):
            nothing = np.zeros(len(events), np.bool_)
            return events.hstack(_flags(nothing, nothing, nothing))
        codes, names = coded(events["subject"].gather(rows))
        place = np.empty(len(names), np.int64)
        place[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        partitions, ticks, times = (events[name].to_numpy()[rows] for name in ("partition", "tick", "t_ms"))
        keys, talks = (events[name].fill_null(0).to_numpy()[rows] for name in ("request_key", "conversation"))
        order = np.lexsort((blobs, keys, times, place[codes], ticks, partitions))
        rows, blobs, talks = rows[order], blobs[order], talks[order]
        partitions, ticks = partitions[order], ticks[order]
        owners = hashed(codes[order], names).to_numpy()
        # A blob of an unknown conversation says nothing about conversations.
        told = np.where(talks == 0, np.uint64(0), blobs)
        # A tick's start, not the event's own time: it only rises within a partition.
        now = ticks * self._tick_ms
        foreign, reuse, known = (np.zeros(len(events), np.bool_) for _ in range(3))
        known[rows] = True
        cuts = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), len(rows)]
        for begin, end in pairwise(cuts):
            at, partition = slice(begin, end), int(partitions[begin])
            owner = self.owner.probe(partition, blobs[at], owners[at], now[at])
            foreign[rows[at][(owner.seen == 1) & (owner.value != owners[at])]] = True
            talk = self.conversation.probe(partition, told[at], talks[at], now[at])
            reuse[rows[at][(talk.seen == 1) & (talk.value != talks[at])]] = True
        return events.hstack(_flags(reuse, foreign, known))


def _flags(reuse: _Bools, foreign: _Bools, known: _Bools) -> list[pl.Series]:
    made = {"blob_reuse": pa.array(reuse, mask=~known), "blob_foreign": pa.array(foreign, mask=~known)}
    return [pl.Series(name, array) for name, array in made.items()]


def _uses(lists: pl.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Row and blob of each use: int64 and uint64 [uses]."""
    array = to_arrow(lists)
    rows, blobs = pc.list_parent_indices(array), pc.list_flatten(array)
    told = blobs.is_valid().to_numpy(zero_copy_only=False)
    return rows.to_numpy()[told], blobs.fill_null(0).to_numpy()[told]
