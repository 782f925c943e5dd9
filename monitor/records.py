"""The type on every arrow of the pipeline. Imports no sibling but the messages.

=================  ======================================================================================
source -> decode   :class:`RawBatch`: bytes and coordinates
decode -> sketch   :class:`Decoded`: one column a field, text included, and :class:`Reject`
sketch -> features a frame with :data:`EVENT_SCHEMA`: no text from here on
features -> score  a frame with :data:`ROW_KEYS` and the catalogue's columns, one row per subject and tick
rules -> alerts    a frame with :data:`FIRING_SCHEMA`
alerts -> sinks    :class:`Alert`
=================  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.messages import Messages

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

MINHASH_BINS = 64
"""Bins of the one-permutation MinHash, 8 bits each."""
SHAPE_SCALARS = 24
"""Quantised shape scalars of one prompt, 0 to 255 each; their names are in ``monitor.sketch.vocabulary``."""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Records as a source gives them, in record order within each partition.

    ``values[i]`` came from ``partition[i]`` at ``offset[i]``. ``timestamp_ms`` is the record's own Kafka
    timestamp, -1 where there is none (files). ``next_offsets`` is where each partition goes on after this
    batch; it may move without a record (compaction, transaction markers). ``trusted_clock[i]`` is true
    where the broker, not the producer, set the timestamp (LogAppendTime).
    """

    values: Sequence[bytes | None]
    partition: Int32Array
    offset: Int64Array
    timestamp_ms: Int64Array
    next_offsets: Mapping[int, int]
    trusted_clock: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        values = self.values
        return values.nbytes if isinstance(values, Messages) else sum(map(len, filter(None, values)))

    def forget(self) -> None:
        """Give the bytes of the values back, where they lie together: what is known of the records stays."""
        if isinstance(self.values, Messages):
            self.values.forget()

    def take(self, rows: Int64Array, next_offsets: Mapping[int, int]) -> RawBatch:
        """The records at ``rows``, with other ``next_offsets``."""
        values = self.values
        return replace(
            self, values=values.take(rows) if isinstance(values, Messages) else [values[i] for i in rows.tolist()],
            partition=self.partition[rows],
            offset=self.offset[rows], timestamp_ms=self.timestamp_ms[rows], next_offsets=next_offsets,
        )  # fmt: skip


class Refused(bytes):
    """Stands among a batch's values for what a log format's mapping could not read: no bytes, but the reason.

    Empty, so that decode's fast path refuses it without being asked; ``reason`` is one of ``fields.REJECT_REASONS``.
    """

    reason: str
    field: str | None

    def __new__(cls, reason: str, field: str | None = None) -> Refused:
        """``reason`` and the contract's field that did it."""
        made = super().__new__(cls)
        made.reason, made.field = reason, field
        return made


@dataclass(frozen=True, slots=True)
class Expanded:
    """The events of a batch of messages of another format: each a record of contract 1, or :class:`Refused`.

    ``batch`` has their coordinates, which those of one message share. Event ``i`` is item ``index[i]`` of message
    ``origin[i]`` of the batch that was read. ``ignored`` counts items, and messages without any, that hold no request:
    ``len(batch) + ignored`` is the number of items of all messages, one without any counting as one.
    """

    batch: RawBatch
    origin: Int64Array
    index: Int32Array
    ignored: int


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is not a request: its coordinates, a reason of ``fields.REJECT_REASONS``, no payload.

    ``digest`` is a keyed BLAKE2b of the value (hex, 16 bytes), so that two equal bad records can be told
    from two different ones without keeping either. ``index`` is the item of a message of several events.
    """

    partition: int
    offset: int
    reason: str
    length: int
    digest: str
    field: str | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """The accepted records of one batch as columns, and what was rejected.

    ``frame`` has ``partition, offset, record_ms, t_ms, ts_ms`` and one column for each contract field that
    occurs in the batch (text included, so it must go no further than the sketch step). ``wrong_types``
    counts optional fields that were nulled by name; ``unknown_fields`` counts fields outside the contract;
    ``mended`` counts rows with a string that was mended (not UTF-8, a lone surrogate, an odd client-chosen id).
    ``ignored`` counts items of messages of another format that are no requests (see :class:`Expanded`).
    ``partly`` are coordinates of messages of which some events were rejected and others were not.
    """

    frame: pl.DataFrame
    rejects: tuple[Reject, ...] = ()
    wrong_types: Mapping[str, int] = field(default_factory=dict)
    unknown_fields: int = 0
    mended: int = 0
    ignored: int = 0
    partly: frozenset[tuple[int, int]] = frozenset()


_U64 = pl.UInt64()

EVENT_SCHEMA: dict[str, pl.DataType] = {
    # coordinates and time (event time: completed_at, else ts)
    "partition": pl.Int32(), "offset": pl.Int64(), "t_ms": pl.Int64(), "ts_ms": pl.Int64(),
    # ids that the provider gave; `subject` is the scored entity
    "subject": pl.String(), "account_id": pl.String(), "request_id": pl.String(), "org_id": pl.String(),
    "project_id": pl.String(), "api_key_id": pl.String(), "billing_account_id": pl.String(),
    # what
    "model": pl.String(), "model_served": pl.String(), "plan": pl.String(), "channel": pl.String(),
    "billing_type": pl.UInt8(), "operation": pl.UInt8(), "delivery": pl.UInt8(), "input_kind": pl.UInt8(),
    "finish_reason": pl.UInt8(), "response_format": pl.UInt8(), "reasoning_effort": pl.UInt8(),
    "account_created_ms": pl.Int64(), "status": pl.Int32(),
    "input_tokens": pl.Int64(), "output_tokens": pl.Int64(), "cached_tokens": pl.Int64(),
    "reasoning_tokens": pl.Int64(), "latency_ms": pl.Int64(), "cost_microusd": pl.Int64(),
    "stream": pl.Boolean(), "refused": pl.Boolean(), "moderated": pl.Boolean(),
    # how
    "temperature_milli": pl.Int32(), "top_p_milli": pl.Int32(), "max_tokens": pl.Int32(), "n": pl.Int32(),
    "seed_set": pl.Boolean(), "logprobs": pl.Boolean(), "top_logprobs": pl.Int32(), "logit_bias": pl.Boolean(),
    "n_messages": pl.Int32(), "turn_index": pl.Int32(), "n_tools": pl.Int32(),
    # keyed 64-bit identifiers (null: not known)
    "request_key": _U64, "dedup_key": _U64, "batch_key": _U64, "conversation": _U64, "end_user": _U64,
    "tools": _U64, "tool_schema": _U64, "ip": _U64, "net": _U64, "asn": _U64, "country": _U64,
    "user_agent": _U64, "client": _U64, "client_name": _U64, "ja4": _U64, "payment": _U64, "referral": _U64,
    "contact": _U64, "marketplace_account": _U64, "reseller": _U64, "blobs": pl.List(pl.UInt64()),
    # the text's sketch (null: no text)
    "prompt_exact": _U64, "prompt_skeleton": _U64, "prompt_prefix": _U64, "prompt_tail": _U64,
    "system_exact": _U64, "system_skeleton": _U64, "simhash": _U64,
    "minhash": pl.Array(pl.UInt8, MINHASH_BINS), "shape": pl.Array(pl.UInt8, SHAPE_SCALARS),
    "lexicon": pl.UInt32(), "script": pl.UInt8(),
    "prompt_chars": pl.Int32(), "system_chars": pl.Int32(), "response_chars": pl.Int32(),
    # known corpora: bits of those that the prompt is an item of (null: no prompt, or no corpus is known), and the item
    "corpus": pl.UInt32(), "corpus_item": _U64,
    # the shape without the grams that were heavy in the partition the epoch before, and the words left, of 255
    # (null: no text, or no table yet)
    "residual": pl.Array(pl.UInt8, SHAPE_SCALARS), "residual_share": pl.UInt8(),
    # bits of the generator families whose signature the prompt or the system prompt has
    "generator": pl.UInt32(),
}  # fmt: skip
"""Columns of an event after the sketch step, always all of them, null where the log does not say."""

ROW_KEYS: dict[str, pl.DataType] = {
    "subject": pl.String(), "partition": pl.Int32(), "tick": pl.Int64(), "t_ms": pl.Int64(),
    "client_class": pl.UInt8(),
}  # fmt: skip
"""Keys of a feature row. ``tick`` is event time // tick length; ``t_ms`` the row's last event."""

REQUEST_SET = "request_set"
"""Column beside them: the account's last requests as vectors of :mod:`monitor.vectors`, one after the other (Binary);
null where the classifier need not look anew."""

FIRING_SCHEMA: dict[str, pl.DataType] = {"row": pl.UInt32(), "rule": pl.String()}
"""Rules that hold: ``row`` indexes the feature frame; only true fires, after ``for`` and exceptions."""


class Member(msgspec.Struct, frozen=True):
    """An account's place in a campaign: tier ``core``, ``likely`` or ``peripheral``."""

    tier: str
    membership: float
    roots: list[str]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Contract 2, version 1. Times are event time in epoch seconds. No text in any field."""

    schema: str = "alert/v1"
    alert_id: str
    revision: int
    revised_at: float
    state: str
    merged_into: str | None = None
    kind: str
    subject: str
    subject_type: str
    accounts: list[str]
    accounts_total: int | None = None
    members_ref: str | None = None
    members: dict[str, Member]
    hypothesis: str
    hypotheses: dict[str, float]
    severity: str
    score: float | None
    expected_false_per_week: float | None
    uncalibrated: bool
    mode: str
    families: list[str]
    rules: list[str]
    window: dict[str, float]
    raised_at: float
    exposure: dict[str, Any]
    exemplars: list[str]
    evidence: dict[str, Any]
    versions: dict[str, str]


def trimmed(alert: Alert, limit: int = 1_000) -> Alert:
    """The alert with at most ``limit`` accounts and members, as Redis, Kafka and webhooks carry it.

    Core members first, then by membership, then by id, so that a revision keeps the same ones. The total and
    a reference (``members:<alert id>``, a key beside the alert in Redis) say what was left out.
    """
    if len(alert.accounts) <= limit and len(alert.members) <= limit:
        return alert
    tiers = {"core": 0, "likely": 1, "peripheral": 2}
    order = sorted(alert.members, key=lambda a: (tiers.get(alert.members[a].tier, 3), -alert.members[a].membership, a))
    return msgspec.structs.replace(
        alert,
        accounts=alert.accounts[:limit],
        members={account: alert.members[account] for account in order[:limit]},
        accounts_total=len(alert.accounts),
        members_ref=f"members:{alert.alert_id}",
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """What an alert's severity may rest on; data of ``rules/policy.yaml``, so that no threshold is in code.

    ``roots`` maps each root of evidence to its families. HIGH and above needs families of ``min_roots``
    different roots, none of them in ``never_high``, and a fact that the provider ``attested`` (names of
    families, features or contract fields) or a family that is ``exact``. ``account_cap`` bounds an alert on a
    lone account while nothing is calibrated; ``volume_cap`` one that rests on volume alone.
    """

    roots: Mapping[str, tuple[str, ...]]
    never_high: tuple[str, ...]
    attested: tuple[str, ...]
    exact: tuple[str, ...]
    account_cap: str = "medium"
    min_roots: int = 2
    volume_cap: str = "low"


Offsets = Mapping[int, int]
"""Partition -> next offset to read."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of one partition and the offset it reflects: written together or not at all.

    ``parts`` maps a component (``ticks``, ``features``, ...) to its blobs in the order they must be loaded:
    one full blob, then the deltas since. A store may already hold earlier blobs: see ``keep``.
    ``keep`` maps a component to how many of the blobs the store holds stay in front of ``parts``
    (0: ``parts`` replaces all). ``generation`` fences: a store refuses a lower one than it has seen.
    """

    partition: int
    next_offset: int
    generation: int
    parts: Mapping[str, Sequence[bytes]]
    keep: Mapping[str, int] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
