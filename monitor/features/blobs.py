"""Opaque reasoning blobs that come back: was this one seen in another conversation, or from another account?

A provider returns encrypted reasoning that a client may send back in the same conversation. The same blob in
a second conversation or account is the exact trace of a replay (Panfilov et al., arXiv 2608.09867). A retry or
a gateway's failover repeats it within its conversation, and is not counted. One partition sees only its own
accounts; what crosses partitions is the campaign stage's.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl

from monitor.features.strings import stable_hash
from monitor.keytable import KeyTable

_HORIZON_MS = 7 * 86_400_000


class BlobTable:
    """First owner and first conversation of each blob of the last 7 days, by partition."""

    def __init__(self, tick_ms: int) -> None:
        self._tick_ms = tick_ms
        self.owner = KeyTable(_HORIZON_MS)
        self.conversation = KeyTable(_HORIZON_MS)

    def flag(self, events: pl.DataFrame) -> pl.DataFrame:
        """``events`` with the columns ``blob_reuse`` and ``blob_foreign`` (Boolean, null without a blob)."""
        unknown = pl.lit(None, pl.Boolean)
        if events["blobs"].list.len().sum() == 0:
            return events.with_columns(blob_reuse=unknown, blob_foreign=unknown)
        events = events.with_row_index("_row")
        uses = (
            events.select("_row", "partition", "tick", "t_ms", "subject", "request_key", "conversation", blob="blobs")
            .explode("blob", empty_as_null=False)
            .drop_nulls("blob")
            .sort("partition", "tick", "subject", "t_ms", "request_key", "blob")
        )
        owners, blobs = stable_hash(uses["subject"]).to_numpy(), uses["blob"].to_numpy()
        talks = uses["conversation"].fill_null(0).to_numpy()
        # A blob of an unknown conversation says nothing about conversations.
        told = np.where(talks == 0, np.uint64(0), blobs)
        # A tick's start, not the event's own time: it only rises within a partition.
        now, partitions = uses["tick"].to_numpy() * self._tick_ms, uses["partition"].to_numpy()
        foreign, reuse = np.zeros(len(uses), np.bool_), np.zeros(len(uses), np.bool_)
        cuts = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), len(uses)]
        for begin, end in pairwise(cuts):
            at, partition = slice(begin, end), int(partitions[begin])
            owner = self.owner.probe(partition, blobs[at], owners[at], now[at])
            foreign[at] = (owner.seen == 1) & (owner.value != owners[at])
            talk = self.conversation.probe(partition, told[at], talks[at], now[at])
            reuse[at] = (talk.seen == 1) & (talk.value != talks[at])
        flags = (
            uses.select("_row", foreign=pl.Series(foreign), reuse=pl.Series(reuse))
            .group_by("_row")
            .agg(blob_reuse=pl.col("reuse").any(), blob_foreign=pl.col("foreign").any())
        )
        return events.join(flags, on="_row", how="left", maintain_order="left").drop("_row")
