"""Every account feature: the one source of truth that rules, models, dashboards and docs are checked against.

A feature is a column of the row that an account gets for each tick in which it sent something. Its value
describes the window that ends with that tick. ``null`` means "not known": the log lacks a field, or there
is too little traffic in the window (``min_requests``). Sums, shares and spreads are derived from integer
panes, so a value does not depend on how the stream was cut.

Imports nothing but the record types: the rule compiler and the model loader are *given* this vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Window = Literal["1m", "1h", "24h", "7d", "past"]
Family = Literal[
    "linkage", "client", "timing", "history", "pivot", "volume", "template", "corpus", "shape", "content",
    "replay", "intel", "anomaly", "classifier",
]  # fmt: skip
Kind = Literal["float", "string", "bool"]

WINDOW_SECONDS: Mapping[str, int] = {"1m": 60, "1h": 3_600, "24h": 86_400, "7d": 604_800, "past": 604_800}
"""Length of each window; ``past`` is the six completed days before the current one. An account's days begin at the
hour of its first request (:func:`monitor.features.panes.days_begin_ms`)."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the feature row.

    ``low`` and ``high`` bound the value (``None``: unbounded); a "root share" is the square root of a share;
    ``needs`` names the optional contract fields without which it is null; ``raw`` all contract fields that it is
    computed from, so that two pieces of evidence can be checked for standing on the same fact.
    """

    name: str
    family: Family
    window: Window | None
    unit: str
    meaning: str
    low: float | None = 0.0
    high: float | None = None
    needs: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()
    min_requests: int = 1
    kind: Kind = "float"
    scope: Literal["account", "campaign"] = "account"
    """What a row is of: rules read one or the other."""

    @property
    def fields(self) -> tuple[str, ...]:
        """All contract fields behind the value."""
        return tuple(dict.fromkeys((*self.needs, *self.raw)))


@dataclass(frozen=True)
class Catalogue:
    """An ordered, immutable set of features, looked up by name."""

    features: tuple[Feature, ...]
    by_name: Mapping[str, Feature] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_name = {f.name: f for f in self.features}
        if len(by_name) != len(self.features):
            raise ValueError("a feature name occurs twice in the catalogue")
        object.__setattr__(self, "by_name", by_name)

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __getitem__(self, name: str) -> Feature:
        return self.by_name[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(f.name for f in self.features)

    @property
    def hash(self) -> str:
        """Hash of names, order and units: a model that was trained on another schema is refused."""
        text = "\n".join(f"{f.name}|{f.kind}|{f.unit}|{f.window}" for f in self.features)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def inactive(self, available: frozenset[str]) -> dict[str, tuple[str, ...]]:
        """Features that the log cannot feed -> the optional fields that are missing."""
        missing = ((f.name, tuple(n for n in f.needs if n not in available)) for f in self.features)
        return {name: fields for name, fields in missing if fields}


def _f(name: str, family: Family, unit: str, meaning: str, *, needs: str = "", raw: str = "", low: float | None = 0.0,
       high: float | None = None, n: int = 1) -> Feature:  # fmt: skip
    window = next((w for w in get_args(Window) if name.endswith("_" + w)), None)
    return Feature(
        name=name, family=family, window=window, unit=unit, meaning=meaning, low=low, high=high,
        needs=tuple(needs.split()), raw=tuple(raw.split()), min_requests=n,
    )  # fmt: skip


_VOLUME = (
    _f("requests_1m", "volume", "requests", "requests in the last minute", raw="ts"),
    _f("requests_1h", "volume", "requests", "requests in the last hour", raw="ts"),
    _f("requests_24h", "volume", "requests", "requests in the last 24 hours", raw="ts"),
    _f("requests_7d", "volume", "requests", "requests in the last 7 days", raw="ts"),
    _f("input_tokens_1h", "volume", "tokens", "input tokens in the last hour", raw="input_tokens"),
    _f("output_tokens_1h", "volume", "tokens", "output tokens in the last hour", raw="output_tokens"),
    _f("input_tokens_24h", "volume", "tokens", "input tokens in 24 hours", raw="input_tokens"),
    _f("output_tokens_24h", "volume", "tokens", "output tokens in 24 hours", raw="output_tokens"),
    _f("output_tokens_7d", "volume", "tokens", "output tokens in 7 days", raw="output_tokens"),
    _f("cost_usd_24h", "volume", "USD", "cost in 24 hours", needs="cost_usd"),
    _f("rate_limited_share_1h", "volume", "share", "share of requests answered 429", raw="status", high=1, n=5),
    _f("error_share_24h", "volume", "share", "share of requests answered 4xx or 5xx, 429 left out",
       raw="status", high=1, n=5),
)  # fmt: skip

_TIMING = (
    _f("burst_ratio_1h", "timing", "ratio", "busiest minute of the hour over the mean of its minutes", raw="ts", n=10),
    _f("gap_log_mean_24h", "timing", "log2 s", "mean of log2 of the gap between two requests; batches left out",
       raw="ts delivery", low=-11, n=10),
    _f("gap_log_sd_24h", "timing", "log2 s", "standard deviation of log2 gaps: small is regular; null for batches",
       raw="ts delivery", n=20),
    _f("active_hours_24h", "timing", "hours", "hours of the last 24 with a request", raw="ts", high=24),
    _f("day_entropy_7d", "timing", "share", "entropy of requests over the hours of the day, 1 is round the clock; "
       "the same for any time zone", raw="ts", high=1, n=30),
    _f("minute_phase_24h", "timing", "share", "how far requests gather at one second of the minute (cron), 0 to 1; "
       "length of the mean phase vector", raw="ts", high=1, n=20),
    _f("concurrency_1h", "timing", "requests", "mean number of requests in flight over the hour", needs="latency_ms"),
)  # fmt: skip

_SHAPE = (
    _f("temperature_mean_24h", "shape", "temperature", "mean temperature where given", needs="temperature"),
    _f("temperature_zero_share_24h", "shape", "share", "share with temperature 0 among those that give one",
       needs="temperature", high=1, n=5),
    _f("choices_mean_24h", "shape", "completions", "mean n (completions asked for) where given", needs="n"),
    _f("logprobs_share_24h", "shape", "share", "share that asks for log probabilities; null where none tells",
       needs="logprobs", high=1, n=5),
    _f("seed_share_24h", "shape", "share", "share that sets a seed; null where none does", needs="seed", high=1, n=5),
    _f("output_cap_share_24h", "shape", "share", "share whose output ends at max_tokens or by length",
       needs="max_tokens", raw="output_tokens finish_reason", high=1, n=5),
    _f("structured_share_24h", "shape", "share", "share that asks for JSON or a schema; null where none tells",
       needs="response_format", high=1, n=5),
    _f("tools_share_24h", "shape", "share", "share that offers tools; null where none tells",
       needs="tools", high=1, n=5),
    _f("stream_share_24h", "shape", "share", "share that streams", needs="stream", high=1, n=5),
    _f("batch_share_24h", "shape", "share", "share delivered by batch", needs="delivery", high=1, n=5),
    _f("high_effort_share_24h", "shape", "share", "share that asks for high reasoning effort; null where none tells",
       needs="reasoning_effort", high=1, n=5),
    _f("reasoning_share_24h", "shape", "share", "reasoning tokens over output tokens", needs="reasoning_tokens",
       raw="output_tokens", high=1, n=5),
    _f("follow_up_share_24h", "shape", "share", "share that continues a conversation", needs="turn_index",
       raw="n_messages", high=1, n=5),
    _f("input_tokens_mean_24h", "shape", "tokens", "mean input tokens of a request", raw="input_tokens"),
    _f("output_tokens_mean_24h", "shape", "tokens", "mean output tokens of a request", raw="output_tokens"),
    _f("in_out_log_ratio_24h", "shape", "log2", "log2 of input over output tokens", raw="input_tokens output_tokens",
       low=-31, high=31),
    _f("input_log_sd_24h", "shape", "log2", "standard deviation of log2 input tokens", raw="input_tokens", n=10),
    _f("output_log_sd_24h", "shape", "log2", "standard deviation of log2 output tokens", raw="output_tokens", n=10),
    _f("short_output_share_24h", "shape", "share", "share of answers under 64 tokens among the successful",
       raw="output_tokens status", high=1, n=5),
    _f("prompt_length_mean_24h", "shape", "log2 chars", "mean log2 length of the prompt", needs="prompt", high=32),
    _f("prompt_length_sd_24h", "shape", "log2 chars", "spread of log2 prompt length", needs="prompt", n=10),
    _f("question_share_24h", "shape", "share", "prompts with a question mark", needs="prompt", high=1, n=5),
    _f("first_person_share_24h", "shape", "share", "prompts that say I, my or we", needs="prompt", high=1, n=5),
    _f("second_person_share_24h", "shape", "share", "prompts that say you or your", needs="prompt", high=1, n=5),
    _f("politeness_share_24h", "shape", "share", "prompts that say please, thanks or hello", needs="prompt",
       high=1, n=5),
    _f("wh_share_24h", "shape", "share", "prompts that open with a question word or auxiliary", needs="prompt",
       high=1, n=5),
    _f("upper_share_sd_24h", "shape", "root share", "spread of the upper-case share", needs="prompt", high=1, n=10),
    _f("code_share_mean_24h", "shape", "root share", "mean share of code characters", needs="prompt", high=1, n=5),
    _f("code_share_sd_24h", "shape", "root share", "spread of the share of code characters", needs="prompt", high=1,
       n=10),
    _f("newlines_sd_24h", "shape", "root share", "spread of the share of line ends", needs="prompt", high=1, n=10),
    _f("unique_words_sd_24h", "shape", "root share", "spread of the share of different words", needs="prompt", high=1,
       n=10),
    _f("url_share_24h", "shape", "share", "prompts with a URL", needs="prompt", high=1, n=5),
    _f("scripts_distinct_24h", "shape", "scripts", "different writing systems among the prompts", needs="prompt"),
)  # fmt: skip

_TEMPLATE = (
    _f("template_concentration_24h", "template", "share",
       "chance that two prompts open, or close, with the same eight masked words (Simpson index by Count Sketch)",
       needs="prompt", high=1, n=10),
    _f("templates_distinct_24h", "template", "templates", "different masked skeletons (linear counting, 64 bits)",
       needs="prompt", high=270),
    _f("exact_repeat_share_24h", "template", "share", "first turns equal to one of the account's last 32",
       needs="prompt", high=1, n=10),
    _f("near_repeat_share_24h", "template", "share",
       "first turns whose MinHash agrees with one of the account's last 32 in 10 of 16 bins, equal ones left out",
       needs="prompt", high=1, n=10),
    _f("systems_distinct_24h", "template", "prompts", "different system prompts (linear counting)", needs="system",
       high=270),
)  # fmt: skip

_CONTENT = (
    _f("reasoning_elicitation_share_24h", "content", "share", "prompts that ask for the hidden reasoning",
       needs="prompt", high=1, n=5),
    _f("rubric_share_24h", "content", "share", "prompts that grade by a rubric, compare answers or want only a score",
       needs="prompt", high=1, n=5),
    _f("dataset_generation_share_24h", "content", "share", "prompts that ask for tasks, questions or training data",
       needs="prompt", high=1, n=5),
    _f("rewriting_share_24h", "content", "share", "prompts that ask for a rewrite", needs="prompt", high=1, n=5),
    _f("benchmark_form_share_24h", "content", "share", "prompts in multiple-choice or exam form", needs="prompt",
       high=1, n=5),
    _f("wrapper_share_24h", "content", "share", "prompts in a fine-tuning wrapper", needs="prompt", high=1, n=5),
    _f("generator_share_24h", "content", "share", "prompts with the signature of a known generator family",
       needs="prompt", raw="system", high=1, n=5),
    _f("refused_share_24h", "content", "share", "requests that the model refused", needs="refused", high=1, n=5),
    _f("moderated_share_24h", "content", "share", "requests with a moderation finding", needs="moderation",
       high=1, n=5),
)  # fmt: skip

_CORPUS = (
    _f("corpus_share_24h", "corpus", "share", "prompts that are items of a known corpus; null where none is known",
       needs="prompt corpora", high=1, n=5),
    _f("corpus_items_distinct_24h", "corpus", "items", "different items of known corpora (linear counting, over "
       "about 177 of a sample)", needs="prompt corpora", high=139_000),
    _f("corpus_models_per_item_24h", "corpus", "models", "models that an item of a known corpus was put to, on average "
       "(pairs over items, both by linear counting)", needs="prompt corpora", raw="model", high=270, n=10),
)  # fmt: skip

_PIVOT = (
    _f("models_distinct_24h", "pivot", "models", "different models asked for", raw="model", high=270),
    _f("models_distinct_7d", "pivot", "models", "different models asked for in 7 days", raw="model", high=270),
    _f("model_concentration_24h", "pivot", "share", "chance that two requests ask for the same model (8 buckets)",
       raw="model", high=1, n=5),
    _f("model_shift_past", "pivot", "share", "half the L1 distance between the models of the last 24 hours and of the "
       "six days before (8 buckets): 0 as before, 1 all moved", raw="model", high=1, n=10),
)  # fmt: skip

_LINKAGE = (
    _f("keys_distinct_24h", "linkage", "keys", "different API keys (linear counting)", needs="api_key_id", high=270),
    _f("networks_distinct_24h", "linkage", "prefixes", "different /24 or /48 prefixes (linear counting)", needs="ip",
       high=270),
    _f("networks_distinct_7d", "linkage", "prefixes", "different prefixes in 7 days", needs="ip", high=270),
    _f("end_users_distinct_24h", "linkage", "users", "different end users (linear counting)", needs="end_user_id",
       high=270),
    _f("account_age_days", "linkage", "days", "age of the account at the row's last event", needs="account_created_at"),
)  # fmt: skip

_CLIENT = (
    _f("clients_distinct_24h", "client", "builds", "different client builds", needs="client_name", high=270),
    _f("user_agents_distinct_24h", "client", "agents", "different user agents", needs="user_agent", high=270),
    _f("ja4_distinct_24h", "client", "fingerprints", "different JA4 fingerprints", needs="ja4", high=270),
    _f("product_seen_age_hours", "client", "hours", "time since first-party telemetry of this account (context "
       "product_seen); null where it was never seen", needs="context:product_seen"),
)  # fmt: skip

_REPLAY = (
    _f("blob_share_24h", "replay", "share", "requests that send an opaque reasoning blob back",
       needs="reasoning_blob_fp", high=1),
    _f("blob_reuse_24h", "replay", "requests", "requests with a blob that came in another conversation before",
       needs="reasoning_blob_fp conversation_id"),
    _f("blob_foreign_24h", "replay", "requests", "requests with a blob first seen from another account of the same "
       "partition", needs="reasoning_blob_fp"),
)  # fmt: skip

_HISTORY = (
    _f("requests_vs_past", "history", "log2", "log2 of the last 24 hours' requests over the mean of the six days "
       "before", raw="ts", low=-32, high=32),
    _f("output_tokens_vs_past", "history", "log2", "the same of output tokens", raw="output_tokens", low=-40, high=40),
    _f("output_length_vs_past", "history", "log2", "change of mean log2 output tokens", raw="output_tokens", low=-32,
       high=32, n=10),
    _f("input_length_vs_past", "history", "log2", "change of mean log2 input tokens", raw="input_tokens", low=-32,
       high=32, n=10),
    _f("prompt_length_vs_past", "history", "log2", "change of mean log2 prompt length", needs="prompt", low=-32,
       high=32, n=10),
    _f("template_vs_past", "history", "share", "change of template concentration", needs="prompt", low=-1, high=1,
       n=10),
    _f("follow_up_vs_past", "history", "share", "change of the follow-up share", needs="turn_index",
       raw="n_messages", low=-1, high=1, n=10),
    _f("style_vs_past", "history", "share", "Euclidean distance of the five conversation rates (question, first and "
       "second person, politeness, question word) from the account's own", needs="prompt", high=2.24, n=10),
)  # fmt: skip

_SCORES = (
    _f("anomaly_population", "anomaly", "quantile", "how unusual the account is in its client class: conformal rank of "
       "the river half-space trees, 1 is more unusual than every hour of every account it was calibrated on",
       raw="ts input_tokens output_tokens model delivery turn_index n_messages prompt", high=1),
    _f("anomaly_change", "anomaly", "quantile", "how unusual the account's change against its own past is, by rank",
       raw="ts input_tokens output_tokens model turn_index n_messages prompt", high=1),
    _f("classifier_distillation", "classifier", "probability", "ONNX classifier: distillation; null without a model",
       high=1),
    _f("classifier_resale", "classifier", "probability", "ONNX classifier: resale; null without a model", high=1),
    _f("classifier_account_farm", "classifier", "probability", "ONNX classifier: account farm; null without a model",
       high=1),
    _f("classifier_stolen_key", "classifier", "probability", "ONNX classifier: stolen key; null without a model",
       high=1),
    _f("classifier_evaluation", "classifier", "probability", "ONNX classifier: evaluation; null without a model",
       high=1),
)  # fmt: skip

ACCOUNT_FEATURES = Catalogue(
    (*_VOLUME, *_TIMING, *_SHAPE, *_TEMPLATE, *_CONTENT, *_CORPUS, *_PIVOT, *_LINKAGE, *_CLIENT, *_REPLAY, *_HISTORY)
)
"""What the features stage computes, in column order."""

SCORES = Catalogue(_SCORES)
"""What the score stage adds, in column order."""

ACCOUNT_CATALOGUE = Catalogue((*ACCOUNT_FEATURES.features, *SCORES.features))
"""Everything that a rule over accounts may name; ``monitor.features.vocabulary`` adds what is of campaigns."""

STAND_INS: Mapping[str, tuple[str, ...]] = {
    "turn_index": ("n_messages",),
    "max_tokens": ("finish_reason",),
    "logprobs": ("top_logprobs",),
    "client_name": ("user_agent",),
}
"""Fields that tell the same, less exactly, where the needed one is absent: a feature is inactive without both."""

CLIENT_CLASSES = ("new", "chat", "app", "pipeline", "batch")
"""Closed list of client classes (at most 8): ``new`` until a day is complete, then by the last completed days:
``batch`` (half or more by batch delivery), ``pipeline`` (templated: concentration of 0.2 or more), ``chat``
(a fifth or more follow-ups), else ``app``. The code of a class is its index."""
