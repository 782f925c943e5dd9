"""The vocabulary of the contracts, once: fields, closed values, reject reasons, context types.

Everything that names a field of the request log takes it from here: the decoder, the JSON Schemas, the
sketch step, the catalogue's ``needs``, the documentation. Imports nothing of the project, and knows
nothing of how a value is read, hashed or scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a field's value is on the wire, which is also how the decoder reads it."""

    TIME = "time"
    """Epoch seconds (a fraction allowed) or RFC 3339 with a zone."""
    ID = "id"
    """A string of 1 to 256 characters."""
    STRING = "string"
    """A string that is hashed before anything keeps it: no limit of its own."""
    TEXT = "text"
    """Content: read by the sketch step and gone after it."""
    CODE = "code"
    """A string of a closed table; others count as ``other``."""
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRINGS = "strings"
    """An array of strings."""
    OBJECT = "object"


class Origin(Enum):
    """Who chose the value, hence where it may be written."""

    PROVIDER_ID = "provider id"
    """Given by the provider: may be kept and shown as it is."""
    PLAIN = "plain"
    """A count, a flag or a label of the provider's: may be kept."""
    CLIENT = "client"
    """A string that the client chose or that points to a person: keyed hashes only."""
    NETWORK = "network"
    """Where the request came from: keyed hashes only."""
    CONTENT = "content"
    """Text of the request: sketches only."""


ID_LENGTH = 256
"""Longest id, in characters."""
INTEGER_MAX = 1_000_000_000
TIME_MIN_S, TIME_MAX_S = 946_684_800, 4_102_444_800
"""2000-01-01 and 2100-01-01 in epoch seconds: outside is a unit error (milliseconds) or a broken clock."""

# Closed tables. The code of a value is its index + 1 (UInt8); any other string has the code of "other",
# which stands last; null is not known. Append before "other" only with a new version of the checkpoint.
OPERATIONS = (
    "chat", "completion", "embedding", "rerank", "moderation", "image", "audio", "video", "realtime",
    "count_tokens", "files", "fine_tuning", "other",
)  # fmt: skip
DELIVERIES = ("sync", "stream", "batch", "realtime", "other")
INPUT_KINDS = ("user", "tool_result", "prefill", "other")
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "refusal", "error", "cancelled", "other")
RESPONSE_FORMATS = ("text", "json_object", "json_schema", "grammar", "other")
REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "max", "other")
BILLING_TYPES = ("free", "trial", "credit", "prepaid", "invoiced", "subscription", "internal", "other")
CONTENT_POLICIES = ("full", "sketch", "none", "other")
"""``other`` is read as ``none``: content that nobody is known to allow is not looked at."""

TABLES: Mapping[str, tuple[str, ...]] = {
    "operation": OPERATIONS,
    "delivery": DELIVERIES,
    "input_kind": INPUT_KINDS,
    "finish_reason": FINISH_REASONS,
    "response_format": RESPONSE_FORMATS,
    "reasoning_effort": REASONING_EFFORTS,
    "billing_type": BILLING_TYPES,
    "content_policy": CONTENT_POLICIES,
}

ALIASES: Mapping[str, Mapping[str, str]] = {
    "operation": {
        "chat.completions": "chat", "chat_completion": "chat", "chat_completions": "chat", "messages": "chat",
        "responses": "chat", "generate_content": "chat", "text_completion": "completion",
        "completions": "completion", "embeddings": "embedding",
    },
    "delivery": {"streaming": "stream", "websocket": "realtime"},
    "input_kind": {"tool": "tool_result", "function": "tool_result"},
    "finish_reason": {
        "end_turn": "stop", "stop_sequence": "stop", "eos": "stop", "max_tokens": "length",
        "max_output_tokens": "length", "tool_use": "tool_calls", "function_call": "tool_calls",
        "safety": "content_filter", "canceled": "cancelled", "abort": "cancelled",
    },
    "response_format": {"json": "json_object", "regex": "grammar"},
    "reasoning_effort": {"xhigh": "max", "off": "none"},
    "billing_type": {"pay_as_you_go": "prepaid", "enterprise": "invoiced"},
}  # fmt: skip
"""Spellings that providers write for the same thing, in lower case."""


def code(table: tuple[str, ...], value: str | None) -> int | None:
    """Code of ``value`` in a closed ``table``: 1 to ``len(table)``, ``other`` for a string not in it, null for null.

    >>> code(DELIVERIES, "batch"), code(DELIVERIES, "pigeon"), code(DELIVERIES, None)
    (3, 5, None)
    """
    if value is None:
        return None
    return table.index(value) + 1 if value in table else len(table)


def spelling(field: str, value: str) -> str:
    """The table's word for ``value`` of a coded ``field``: case, ``-`` and the known aliases are evened out."""
    word = value.strip().lower().replace("-", "_")
    return ALIASES.get(field, {}).get(word, word)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the request log.

    ``columns`` are its columns in the decoded frame, ``event_columns`` those after the sketch step.
    ``low`` and ``high`` bound numbers (both ends included); outside is a wrong value.
    """

    name: str
    group: str
    kind: Kind
    origin: Origin
    doc: str
    required: bool = False
    low: float = 0
    high: float = INTEGER_MAX
    columns: tuple[str, ...] = ()
    event_columns: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """The closed table of a coded field, else empty."""
        return TABLES.get(self.name, ())

    @property
    def is_text(self) -> bool:
        """Content, or made of content."""
        return self.origin is Origin.CONTENT

    @property
    def client_chosen(self) -> bool:
        """Must be hashed with a key before anything keeps it."""
        return self.origin in (Origin.CLIENT, Origin.NETWORK)

    @property
    def provider_id(self) -> bool:
        """May be written to state, logs of alerts and Redis as it is."""
        return self.origin is Origin.PROVIDER_ID


def _fields() -> Iterator[Field]:
    pid, plain, client, net, content = Origin.PROVIDER_ID, Origin.PLAIN, Origin.CLIENT, Origin.NETWORK, Origin.CONTENT

    def make(
        group: str, name: str, kind: Kind, origin: Origin, doc: str, event: str | tuple[str, ...] | None = None,
        column: str | tuple[str, ...] | None = None, required: bool = False, low: float = 0, high: float = INTEGER_MAX,
    ) -> Field:  # fmt: skip
        columns = (column,) if isinstance(column, str) else column or (name,)
        events = (event,) if isinstance(event, str) else columns if event is None else event
        return Field(name, group, kind, origin, doc, required, low, high, columns, events)

    t, i, s, x, c = Kind.TIME, Kind.ID, Kind.STRING, Kind.TEXT, Kind.CODE
    n, r, b, ss, o = Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN, Kind.STRINGS, Kind.OBJECT

    g = "required"
    yield make(g, "ts", t, plain, "when the request was accepted", column="ts_ms", required=True)
    yield make(g, "request_id", i, pid, "the request's id; clients may choose it, so never unique", required=True)
    yield make(g, "account_id", i, pid, "the account that is scored", required=True)
    yield make(g, "model", i, pid, "the model asked for", required=True)
    yield make(g, "input_tokens", n, plain, "tokens in, cached ones included", required=True)
    yield make(g, "output_tokens", n, plain, "tokens out, reasoning included", required=True)
    yield make(g, "status", n, plain, "HTTP status returned", required=True, high=999)

    g = "when"
    yield make(g, "completed_at", t, plain, "when it was answered: event time where present", column="t_ms")

    g = "who"
    yield make(g, "org_id", i, pid, "organisation")
    yield make(g, "project_id", i, pid, "project or workspace")
    yield make(g, "billing_account_id", i, pid, "who pays")
    yield make(g, "api_key_id", i, pid, "id of the key, never the key")
    yield make(g, "account_created_at", t, plain, "when the account was made", column="account_created_ms")
    yield make(g, "plan", i, plain, "price plan")
    yield make(g, "billing_type", c, plain, "how it is paid")
    yield make(g, "auth_type", s, plain, "how the client authenticated", event=())
    yield make(g, "channel", i, plain, "api, or the name of the marketplace it came through")
    yield make(g, "marketplace_account_id", s, pid, "account at the marketplace", "marketplace_account")
    yield make(g, "reseller_of_record", s, pid, "declared reseller", "reseller")
    yield make(g, "region", s, plain, "region that served it", event=())
    yield make(g, "end_user_id", s, client, "the client's own user, as the client tells it", "end_user")
    yield make(g, "content_policy", c, plain, "what may be looked at: full, sketch or none", event=())

    g = "what"
    yield make(g, "operation", c, plain, "kind of call")
    yield make(g, "delivery", c, plain, "how the answer is delivered")
    yield make(g, "batch_id", s, client, "batch it belongs to", "batch_key")
    yield make(g, "model_served", i, pid, "the model that answered")
    yield make(g, "cached_tokens", n, plain, "tokens in that came from a cache")
    yield make(g, "reasoning_tokens", n, plain, "tokens out that were reasoning")
    yield make(g, "latency_ms", r, plain, "from accepted to answered, milliseconds")
    yield make(g, "cost_usd", r, plain, "price, US dollars", column="cost_microusd", high=1_000_000)
    yield make(g, "finish_reason", c, plain, "why the answer ended")
    yield make(g, "stream", b, plain, "answer was streamed")
    yield make(g, "refused", b, plain, "the model refused")
    yield make(g, "moderation", ss, plain, "array of category:action", column="moderated")

    g = "how"
    yield make(g, "temperature", r, plain, "sampling temperature", column="temperature_milli", high=100)
    yield make(g, "top_p", r, plain, "nucleus sampling", column="top_p_milli", high=1)
    yield make(g, "max_tokens", n, plain, "limit on tokens out")
    yield make(g, "n", n, plain, "answers asked for")
    yield make(g, "seed", n, plain, "seed given: only whether there is one is kept", column="seed_set",
               low=-math.inf, high=math.inf)  # fmt: skip
    yield make(g, "logprobs", b, plain, "log-probabilities asked for")
    yield make(g, "top_logprobs", n, plain, "how many alternatives with them")
    yield make(g, "logit_bias", b, plain, "a logit bias was given")
    yield make(g, "response_format", c, plain, "form asked of the answer")
    yield make(g, "reasoning_effort", c, plain, "effort asked for")
    yield make(g, "tools", ss, client, "array of tool names", ("tools", "n_tools"), ("tools", "n_tools"))
    yield make(g, "tool_schema_fp", s, client, "fingerprint of the tools' schemas", "tool_schema")
    yield make(g, "n_messages", n, plain, "messages in the request")
    yield make(g, "turn_index", n, plain, "turn of the conversation, 0 the first")
    yield make(g, "input_kind", c, plain, "what the last input is")
    yield make(g, "conversation_id", s, client, "conversation it belongs to", "conversation")

    g = "text"
    made_of_system = ("system_exact", "system_skeleton", "system_chars")
    made_of_prompt = (
        "prompt_exact", "prompt_skeleton", "prompt_prefix", "prompt_tail", "simhash", "minhash", "shape", "lexicon",
        "script", "prompt_chars",
    )  # fmt: skip
    yield make(g, "system", x, content, "system prompt", made_of_system)
    yield make(g, "prompt", x, content, "the last input", made_of_prompt)
    yield make(g, "response", x, content, "the answer", "response_chars")
    yield make(g, "sketch", o, content, "what monitor.sketch made of the text at the gateway", ())

    g = "network"
    yield make(g, "ip", s, net, "address of the client", ("ip", "net"))
    yield make(g, "asn", n, net, "number of its autonomous system", high=2**32 - 1)
    yield make(g, "country", s, net, "country of the address")
    yield make(g, "user_agent", s, client, "user agent", ("user_agent", "client"))
    yield make(g, "client_name", s, client, "client library")
    yield make(g, "client_version", s, client, "its version", ())
    yield make(g, "ja4", s, client, "JA4 fingerprint of the TLS handshake")

    g = "links"
    yield make(g, "payment_fp", s, client, "fingerprint of the means of payment", "payment")
    yield make(g, "referral_fp", s, client, "fingerprint of the referral", "referral")
    yield make(g, "contact_domain", s, client, "domain of the contact address", "contact")
    yield make(g, "reasoning_blob_fp", ss, client, "opaque reasoning blobs sent back", "blobs")


FIELDS: Mapping[str, Field] = {f.name: f for f in _fields()}
"""Every field of contract 1 by name, in the contract's order."""
REQUIRED: tuple[str, ...] = tuple(f.name for f in FIELDS.values() if f.required)
OPTIONAL: tuple[str, ...] = tuple(f.name for f in FIELDS.values() if not f.required)
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(f.group for f in FIELDS.values()))
ENTITIES = ("account", "org", "project", "key", "account+end_user")
"""What may be scored (the alert's ``subject_type``; a campaign's is ``campaign``)."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record is not a request: one line of help, and a value that gives this reason.

    ``example`` is what the record's value is; ``example_note`` says what else the example needs.
    """

    help: str
    example: bytes | None
    example_note: str = ""


def _like(**change: object) -> bytes:
    """The smallest good record with fields changed; None drops the field."""
    import json

    good: dict[str, object] = {
        "ts": 1750000000.25, "request_id": "r-1", "account_id": "a-1", "model": "m-1",
        "input_tokens": 10, "output_tokens": 5, "status": 200,
    }  # fmt: skip
    return json.dumps({k: v for k, v in (good | change).items() if v is not None}).encode()


GOOD_EXAMPLE: bytes = _like()

REJECT_REASONS: Mapping[str, Reason] = {
    "empty": Reason("no value (a tombstone) or only white space: compaction or a producer that sends nothing", None),
    "oversize": Reason(
        "longer than decode.max_bytes: raise it, or strip the text to a sketch at the gateway", GOOD_EXAMPLE,
        "with max_bytes below its length",
    ),
    "not_json": Reason("not one JSON value: cut off, NaN or Infinity, or something after its end", b'{"ts": NaN}'),
    "not_utf8": Reason(
        "not UTF-8: the producer writes another encoding, or not JSON at all", GOOD_EXAMPLE.decode().encode("utf-16")
    ),
    "too_deep": Reason(
        "nested too deep to be read: log a fingerprint of the structure instead", b"{\"metadata\": " + b"[" * 20_000
    ),
    "not_object": Reason("a JSON value other than an object: one request is one object", b"[1, 2]"),
    "missing_field": Reason("a required field is absent or null", _like(account_id=None)),
    "wrong_type": Reason("a required field has another type than the contract's", _like(status="200")),
    "bad_id": Reason("account_id is empty or over 256 characters", _like(account_id="")),
    "bad_time": Reason("ts is a string but not RFC 3339 with a zone", _like(ts="2025-06-15T12:00:00")),
    "out_of_range": Reason(
        "a required number outside its range: ts in milliseconds, negative or absurd tokens", _like(ts=1750000000250)
    ),
    "future": Reason(
        "event time lies more than decode.future_s after the record's Kafka timestamp: check the gateway's clock",
        _like(ts=1750001000), "with a Kafka timestamp of 1750000000000",
    ),
}  # fmt: skip
"""Closed list; the order is that in which a record is checked."""

HYPOTHESES = ("distillation", "resale", "account_farm", "stolen_key", "evaluation", "automation", "unknown")
CLASSIFIED = HYPOTHESES[:5]
"""Those that the classifier tells apart, in the order of its outputs."""
SEVERITIES = ("info", "low", "medium", "high", "critical")
ALERT_STATES = ("open", "merged", "withdrawn", "closed")
ALERT_KINDS = ("account", "campaign")
MODES = ("alert", "shadow")
TIERS = ("core", "likely", "peripheral")
ROOTS: Mapping[str, tuple[str, ...]] = {
    "identity": ("linkage", "client"),
    "behaviour": ("timing", "history", "pivot", "volume"),
    "content": ("template", "corpus", "shape", "content"),
    "exact": ("replay", "intel"),
}
"""Families of evidence by root, as contract 2 names them."""
READ_EVERYTHING = ("anomaly", "classifier")
FAMILIES: tuple[str, ...] = tuple(f for root in ROOTS.values() for f in root) + READ_EVERYTHING


@dataclass(frozen=True, slots=True)
class ContextType:
    """One ``type`` of contract 5: what it says, which of the optional keys it needs, and its attributes."""

    doc: str
    needs: tuple[str, ...] = ()
    attrs: tuple[str, ...] = ()


AGREEMENT_KINDS = ("distillation", "router", "reseller", "research", "red_team", "evaluation")

CONTEXT_TYPES: Mapping[str, ContextType] = {
    "account_created": ContextType("the account was made", ("account_id",)),
    "account_closed": ContextType("its owner closed it", ("account_id",)),
    "account_banned": ContextType("the provider banned it", ("account_id",)),
    "account_restored": ContextType("a ban or closing was taken back", ("account_id",)),
    "key_created": ContextType("a key was made", ("account_id",), ("api_key_id",)),
    "key_revoked": ContextType("a key was revoked", ("account_id",), ("api_key_id",)),
    "payment_changed": ContextType("another means of payment", ("account_id",), ("payment_fp",)),
    "product_seen": ContextType("first-party client telemetry saw the account", ("account_id",), ("product",)),
    "model_released": ContextType("a model became available", ("model",)),
    "incident": ContextType("the provider had an incident: traffic of that time is not normal", (), ("until",)),
    "agreement": ContextType("a sanctioned use by an account or an organisation", (), ("kind", "owner", "expires")),
    "intel": ContextType("a partner's indicator, keyed", (), ("indicator", "kind", "expires")),
}
