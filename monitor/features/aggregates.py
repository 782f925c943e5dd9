"""What one request adds to a pane: integers only, so that no sum depends on its order.

A pane is the sum of the requests of one account in one minute, hour or day. Three kinds of column:

* ``narrow`` (int32): counts and small sums; enough for 540,000 requests an account and hour, and it
  saturates rather than wraps (see :mod:`monitor.features.panes`).
* ``wide`` (int64): tokens, cost, squares.
* ``bits`` (64 bits, joined by OR): which of 64 cells the keyed hashes of a value fell into. Linear counting
  (Whang et al. 1990) reads the number of different values from it.

Columns are ordered so that the minute's are a prefix of the day's and the day's of the hour's: one kernel
serves all three levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

TEMPLATE_BUCKETS = 8
"""Count Sketch (Charikar et al. 2002) of a prompt's first and of its last eight masked words: signed buckets, read for
the second moment. Relative error of the Simpson index: sqrt(2/8) = 50 % for many templates, exact for one. Skeletons
of whole prompts do not serve: a template with one free slot made 2,000 different ones in 2,000 requests."""
MODEL_BUCKETS = 8
"""Plain buckets of the model's hash: the distribution over models, for shifts."""
CELL_LOG = 8
"""log2 of tokens is kept in eighths: 31 * 8 * 2.7 M requests a day fits 32 bits."""

_TEMPLATE = tuple(f"{end}_{i}" for end in ("opening", "closing") for i in range(TEMPLATE_BUCKETS))
_MODEL = tuple(f"model_{i}" for i in range(MODEL_BUCKETS))

NARROW_MINUTE = ("n", "n_limited", "n_latency")
NARROW_DAY = (
    *NARROW_MINUTE,
    "n_batch", "n_follow", "n_turn", "n_text", "question", "first_person", "second_person", "politeness", "wh",
    "length", "log_in", "log_out", "n_template", *_TEMPLATE, *_MODEL, "n_blob", "n_blob_reuse", "n_blob_foreign",
    "n_blob_told",
)  # fmt: skip
NARROW_HOUR = (
    *NARROW_DAY,
    "n_reasoning", "n_cost", "n_error", "n_ok", "n_refused", "n_refused_known", "n_moderated", "n_moderated_known",
    "n_delivery", "n_stream", "n_stream_known", "temperature", "n_temperature", "n_temperature_zero", "choices",
    "n_choices", "n_logprobs", "n_logprobs_known", "n_seed", "n_cap", "n_cap_known", "n_json", "n_json_known",
    "n_tools", "n_tools_known", "n_effort", "n_effort_known", "upper", "upper2", "code", "code2", "newline",
    "newline2", "unique", "unique2", "length2", "url", "lex_reasoning", "lex_rubric", "lex_dataset", "lex_rewrite",
    "lex_benchmark", "lex_wrapper", "n_short", "n_gap", "gap", "phase_cos", "phase_sin", "n_first", "n_exact", "n_near",
    "n_corpus", "n_corpus_known", "n_generator", "n_generator_known",
)  # fmt: skip
WIDE_MINUTE = ("input_tokens", "output_tokens", "latency_ms")
WIDE_DAY = WIDE_MINUTE
WIDE_HOUR = (*WIDE_DAY, "reasoning_tokens", "reasoned_output", "cost", "log_in2", "log_out2", "gap2")
CORPUS_SAMPLES = (1, 16, 512)
"""Items of known corpora, and pairs of an item and a model, are counted three times: all, and one item in so many by
its keyed hash. 64 cells read up to 177 well; a benchmark has thousands of items."""
CORPUS_BITS = tuple(f"{what}_{one_in}" for one_in in CORPUS_SAMPLES for what in ("corpus_items", "corpus_pairs"))
BITS_DAY = ("models", "networks")
BITS_HOUR = (*BITS_DAY, "keys", "clients", "agents", "ja4s", "end_users", "systems", "templates", "scripts",
             *CORPUS_BITS)  # fmt: skip

_MIX = 0x9E3779B97F4A7C15

KERNEL_NARROW = (*_TEMPLATE, *_MODEL, "n_gap", "gap", "n_first", "n_exact", "n_near")
"""Columns that the kernel fills, because they need the account's state or a hash's bits."""
KERNEL_WIDE = ("gap2",)


@dataclass(frozen=True, slots=True)
class TextLayout:
    """Where the sketch keeps what: names of the shape scalars and of the lexicon's bits, in order."""

    shape: Sequence[str]
    lexicon: Sequence[str]

    def scalar(self, name: str) -> pl.Expr:
        """Column of one shape scalar, 0 to 255, null without text."""
        return pl.col("shape").arr.get(self.shape.index(name))

    def flag(self, name: str) -> pl.Expr:
        """True where the lexicon's bit is set."""
        return (pl.col("lexicon") // (1 << self.lexicon.index(name))) % 2 == 1


def _count(condition: pl.Expr) -> pl.Expr:
    return condition.fill_null(False).cast(pl.Int32)


def _known(*columns: str) -> pl.Expr:
    return pl.any_horizontal(pl.col(c).is_not_null() for c in columns).cast(pl.Int32)


def _sum(value: pl.Expr, top: int) -> pl.Expr:
    return value.fill_null(0).clip(0, top).cast(pl.Int32)


def _log(tokens: pl.Expr) -> pl.Expr:
    return ((tokens + 1).log(2.0) * CELL_LOG).round().cast(pl.Int32)


def _phase(function: str) -> pl.Expr:
    angle = (pl.col("t_ms") % 60_000) * (6.283185307179586 / 60_000)
    wave = angle.cos() if function == "cos" else angle.sin()
    return (wave * 100).round().cast(pl.Int32)


def narrow_expressions(text: TextLayout, codes: dict[str, int]) -> dict[str, pl.Expr]:
    """Contribution of one event to each narrow column that Polars fills.

    ``codes`` gives the vocabulary's codes that matter here: ``batch``, ``length`` (finish reason), ``json`` and
    ``json_schema`` (response format), ``high`` (reasoning effort).
    """
    status = pl.col("status")
    ok = (status >= 200) & (status < 300)
    cap = (pl.col("output_tokens") * 50 >= pl.col("max_tokens") * 49) | (
        pl.col("finish_reason") == codes["length"]
    ).fill_null(False)
    follow = pl.coalesce(pl.col("turn_index") > 0, pl.col("n_messages") > 2)
    # A scalar is kept in 6 bits: its square times 540,000 requests still fits 32.
    six = {
        name: (text.scalar(scalar) // 4).fill_null(0).cast(pl.Int32)
        for name, scalar in (
            ("length", "log_chars"), ("upper", "upper_share"), ("code", "code_share"),
            ("newline", "newline_share"), ("unique", "unique_words"),
        )
    }  # fmt: skip
    return {
        "n": pl.lit(1, pl.Int32),
        "n_limited": _count(status == 429),
        "n_latency": _known("latency_ms"),
        "n_batch": _count(pl.col("delivery") == codes["batch"]),
        "n_follow": _count(follow),
        "n_turn": _known("turn_index", "n_messages"),
        "n_text": _known("shape"),
        "question": _count(text.scalar("has_question") > 0),
        "first_person": _count(text.scalar("first_person") > 0),
        "second_person": _count(text.scalar("second_person") > 0),
        "politeness": _count(text.scalar("politeness") > 0),
        "wh": _count(text.scalar("question_first") > 0),
        "log_in": _log(pl.col("input_tokens")),
        "log_out": _log(pl.col("output_tokens")),
        "n_template": _known("prompt_skeleton"),
        "n_blob": _count(pl.col("blobs").list.len() > 0),
        "n_blob_reuse": _count(pl.col("blob_reuse")),
        "n_blob_told": _count((pl.col("blobs").list.len() > 0) & pl.col("conversation").is_not_null()),
        "n_blob_foreign": _count(pl.col("blob_foreign")),
        "n_reasoning": _known("reasoning_tokens"),
        "n_cost": _known("cost_microusd"),
        "n_error": _count((status >= 400) & (status != 429)),
        "n_ok": _count(ok),
        "n_refused": _count(pl.col("refused")),
        "n_refused_known": _known("refused"),
        "n_moderated": _count(pl.col("moderated")),
        "n_moderated_known": _known("moderated"),
        "n_delivery": _known("delivery"),
        "n_stream": _count(pl.col("stream")),
        "n_stream_known": _known("stream"),
        "temperature": _sum(pl.col("temperature_milli"), 10_000),
        "n_temperature": _known("temperature_milli"),
        "n_temperature_zero": _count(pl.col("temperature_milli") == 0),
        "choices": _sum(pl.col("n"), 128),
        "n_choices": _known("n"),
        "n_logprobs": _count(pl.coalesce(pl.col("logprobs"), pl.col("top_logprobs") > 0)),
        "n_logprobs_known": _known("logprobs", "top_logprobs"),
        "n_seed": _count(pl.col("seed_set")),
        "n_cap": _count(cap),
        "n_cap_known": _known("max_tokens", "finish_reason"),
        "n_json": _count(pl.col("response_format").is_in([codes["json"], codes["json_schema"]])),
        "n_json_known": _known("response_format"),
        "n_tools": _count(pl.col("n_tools") > 0),
        "n_tools_known": _known("n_tools"),
        "n_effort": _count(pl.col("reasoning_effort") == codes["high"]),
        "n_effort_known": _known("reasoning_effort"),
        **six,
        **{f"{name}2": six[name] * six[name] for name in six},
        "url": _count(text.scalar("has_url") > 0),
        "lex_reasoning": _count(text.flag("reasoning_elicitation")),
        "lex_rubric": _count(text.flag("rubric_grading") | text.flag("preference_pair") | text.flag("score_only")),
        "lex_dataset": _count(text.flag("dataset_generation")),
        "lex_rewrite": _count(text.flag("rewriting")),
        "lex_benchmark": _count(text.flag("multiple_choice")),
        "lex_wrapper": _count(text.flag("wrapper")),
        "n_short": _count(ok & (pl.col("output_tokens") < 64)),
        "n_corpus": _count(pl.col("corpus") > 0),
        "n_corpus_known": _known("corpus"),
        # a system prompt alone is no prompt: the feature counts those
        "n_generator": _count((pl.col("generator") > 0) & pl.col("shape").is_not_null()),
        "n_generator_known": _count(pl.col("generator").is_not_null() & pl.col("shape").is_not_null()),
        "phase_cos": _phase("cos"),
        "phase_sin": _phase("sin"),
    }


def wide_expressions() -> dict[str, pl.Expr]:
    """Contribution of one event to each wide column that Polars fills."""
    log_in, log_out = _log(pl.col("input_tokens")), _log(pl.col("output_tokens"))
    return {
        "input_tokens": pl.col("input_tokens"),
        "output_tokens": pl.col("output_tokens"),
        "latency_ms": pl.col("latency_ms").fill_null(0),
        "reasoning_tokens": pl.col("reasoning_tokens").fill_null(0),
        "reasoned_output": pl.when(pl.col("reasoning_tokens").is_not_null()).then(pl.col("output_tokens")).otherwise(0),
        "cost": pl.col("cost_microusd").fill_null(0),
        "log_in2": (log_in * log_in).cast(pl.Int64),
        "log_out2": (log_out * log_out).cast(pl.Int64),
    }


def bits_expressions() -> dict[str, pl.Expr]:
    """A 64-bit value whose top six bits choose a cell, 0 unknown. ``key_hash`` and ``model_hash`` are the engine's."""
    hashes = {
        "models": "model_hash", "networks": "net", "keys": "key_hash", "clients": "client", "agents": "user_agent",
        "ja4s": "ja4", "end_users": "end_user", "systems": "system_skeleton", "templates": "prompt_skeleton",
    }  # fmt: skip
    item = pl.col("corpus_item").fill_null(0)
    # The product wraps: its top bits depend on all of the item's and the model's.
    pair = pl.when(item != 0).then((item ^ pl.col("model_hash")) * _MIX).otherwise(0)
    corpus = [pl.when(item % n == 0).then(value).otherwise(0) for n in CORPUS_SAMPLES for value in (item, pair)]
    return {
        **{name: pl.col(column).fill_null(0) for name, column in hashes.items()},
        **dict(zip(CORPUS_BITS, corpus, strict=True)),
        # A script's code is its own cell: 64 are enough for all, and the count is exact.
        "scripts": (pl.col("script").cast(pl.UInt64) * (1 << 58)).fill_null(0),
    }
