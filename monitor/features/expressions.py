"""Features from window sums: one Polars expression for each name of the catalogue.

Column names of the window frame: ``d_`` last 24 hours, ``p_`` the six completed days before, ``h_`` last hour,
``w_`` seven days, each followed by the aggregate's name. All are Int64 (bit sets UInt64); results Float64.

No expression divides by a constant: Polars divides a long column by a scalar as a product with its reciprocal and
a column of one row truly, so that a row's last bit would depend on the other rows of its batch. Nor are floats
added by ``sum_horizontal``: its threads take the columns in an order that differs from run to run.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from functools import reduce

import polars as pl

from monitor.features.aggregates import CELL_LOG, CORPUS_SAMPLES, MODEL_BUCKETS, TEMPLATE_BUCKETS
from monitor.features.catalogue import ACCOUNT_FEATURES

_LENGTH_STEP = 4.0 / 12.0
"""One step of the 6-bit log length in log2 characters: the sketch keeps 12 a doubling, a pane every fourth."""
_SHARE_STEP = 4.0 / 255.0
"""One step of a 6-bit share, which the sketch keeps as its square root."""


def _c(name: str) -> pl.Expr:
    return pl.col(name)


def _sum(terms: Iterable[pl.Expr]) -> pl.Expr:
    """Floats added from left to right; null where one is."""
    return reduce(operator.add, terms)


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """``part / whole``, null where there is no whole."""
    return pl.when(whole > 0).then(part.cast(pl.Float64) / whole)


def _share(part: str, whole: str, window: str = "d") -> pl.Expr:
    return _ratio(_c(f"{window}_{part}"), _c(f"{window}_{whole}")).clip(0.0, 1.0)


def _told(part: str, known: str) -> pl.Expr:
    """Share of all requests that ask for something; null where none in the window tells.

    Most logs write such a field only where it was asked for: a share of those that tell would always be 1.
    """
    return pl.when(_c(f"d_{known}") > 0).then(_share(part, "n"))


def _spread(total: pl.Expr, squares: pl.Expr, n: pl.Expr, step: float) -> pl.Expr:
    """Population standard deviation from integer sums: exact up to the square root."""
    mean = _ratio(total, n)
    return (_ratio(squares, n) - mean * mean).clip(0.0, None).sqrt() * step


def _distinct(bits: str) -> pl.Expr:
    """Linear counting over 64 cells; all set reads as 270, where the estimate ends."""
    zeros = 64 - _c(bits).bitwise_count_ones().cast(pl.Float64)
    return -64.0 * pl.when(zeros > 0).then((zeros * (1 / 64)).log()).otherwise(math.log(1 / 64))


def _known_distinct(bits: str) -> pl.Expr:
    return pl.when(_c(bits) != 0).then(_distinct(bits))


def _readable(bits: str) -> pl.Expr:
    """Whether 64 cells are empty enough: 60 set are about 177 values, to within a sixth."""
    return _c(bits).bitwise_count_ones() <= 60


def _corpus_items() -> pl.Expr:
    """From the densest sample that can be read, else from the thinnest."""
    read: pl.Expr = _distinct(f"d_corpus_items_{CORPUS_SAMPLES[-1]}") * CORPUS_SAMPLES[-1]
    for one_in in CORPUS_SAMPLES[-2::-1]:
        name = f"d_corpus_items_{one_in}"
        read = pl.when(_readable(name)).then(_distinct(name) * one_in).otherwise(read)
    return read


def _models_per_item() -> pl.Expr:
    """Pairs over items, of the densest sample that can be read; null where none can or no item is in it."""
    ratio: pl.Expr = pl.lit(None, pl.Float64)
    for one_in in CORPUS_SAMPLES[::-1]:
        items, pairs = f"d_corpus_items_{one_in}", f"d_corpus_pairs_{one_in}"
        ratio = pl.when(_readable(pairs)).then(_ratio(_distinct(pairs), _distinct(items))).otherwise(ratio)
    return ratio


def _simpson(prefix: str, buckets: int, n: pl.Expr, *, signed: bool) -> pl.Expr:
    """Chance that two different requests share a value, from bucket counts.

    A signed Count Sketch row is an unbiased second moment; plain buckets collide with chance 1/b, taken out.
    """
    moment = pl.sum_horizontal(_c(f"{prefix}{i}") * _c(f"{prefix}{i}") for i in range(buckets)).cast(pl.Float64)
    chance = (moment - n) / (n * (n - 1))
    if not signed:
        chance = (chance - 1 / buckets) * (buckets / (buckets - 1))
    return pl.when(n > 1).then(chance.clip(0.0, 1.0))


def _concentration(window: str) -> pl.Expr:
    """Simpson index of openings or of closings, whichever gathers more: a template keeps at least one of them."""
    n = _c(f"{window}_n_template")
    return pl.max_horizontal(
        _simpson(f"{window}_{end}_", TEMPLATE_BUCKETS, n, signed=True) for end in ("opening", "closing")
    )


def _log_mean(name: str, n: str, window: str) -> pl.Expr:
    return _ratio(_c(f"{window}_{name}"), _c(f"{window}_{n}")) * (1 / CELL_LOG)


def _per_day(name: str) -> pl.Expr:
    return _ratio(_c(f"p_{name}"), _c("past_days"))


def _versus(name: str) -> pl.Expr:
    """log2 of the last 24 hours over a past day, one added to both so that a silent past is finite."""
    return ((_c(f"d_{name}") + 1).cast(pl.Float64) / (_per_day(name) + 1.0)).log(2.0)


def _change(now: pl.Expr, past: pl.Expr, seen: str = "n") -> pl.Expr:
    return pl.when(_c(f"p_{seen}") >= 10).then(now - past)


def _model_shift() -> pl.Expr:
    terms = (
        (_ratio(_c(f"d_model_{i}"), _c("d_n")) - _ratio(_c(f"p_model_{i}"), _c("p_n"))).abs()
        for i in range(MODEL_BUCKETS)
    )
    return _change(_sum(terms) * 0.5, pl.lit(0.0))


def _day_entropy() -> pl.Expr:
    shares = (_ratio(_c(f"w_hour_{i}"), _c("w_n")) for i in range(24))
    return -_sum(pl.when(p > 0).then(p * p.log()).otherwise(0.0) for p in shares) * (1 / math.log(24))


def _style_change() -> pl.Expr:
    names = ("question", "first_person", "second_person", "politeness", "wh")
    squares = ((_share(name, "n_text") - _share(name, "n_text", "p")).pow(2) for name in names)
    return _change(_sum(squares).sqrt(), pl.lit(0.0), "n_text")


def _spread_of(name: str, step: float) -> pl.Expr:
    return _spread(_c(f"d_{name}"), _c(f"d_{name}2"), _c("d_n_text"), step)


def _expressions() -> dict[str, pl.Expr]:
    day_n, gaps = _c("d_n"), _c("d_n_gap")
    phase = (_c("d_phase_cos").cast(pl.Float64).pow(2) + _c("d_phase_sin").cast(pl.Float64).pow(2)).sqrt()
    concentration = {w: _concentration(w) for w in ("d", "p")}
    return {
        "requests_1m": _c("minute_n"),
        "requests_1h": _c("h_n"),
        "requests_24h": day_n,
        "requests_7d": _c("w_n"),
        "input_tokens_1h": _c("h_input_tokens"),
        "output_tokens_1h": _c("h_output_tokens"),
        "input_tokens_24h": _c("d_input_tokens"),
        "output_tokens_24h": _c("d_output_tokens"),
        "output_tokens_7d": _c("w_output_tokens"),
        "cost_usd_24h": pl.when(_c("d_n_cost") > 0).then(_c("d_cost") * 1e-6),
        "rate_limited_share_1h": _share("n_limited", "n", "h"),
        "error_share_24h": _share("n_error", "n"),
        "burst_ratio_1h": _ratio(_c("h_peak") * 60, _c("h_n")),
        # A gap is kept as log2 of milliseconds: less log2(1000) it is of seconds.
        "gap_log_mean_24h": _ratio(_c("d_gap"), gaps) * (1 / CELL_LOG) - math.log2(1000),
        "gap_log_sd_24h": _spread(_c("d_gap"), _c("d_gap2"), gaps, 1 / CELL_LOG),
        "active_hours_24h": _c("active_hours"),
        "day_entropy_7d": _day_entropy(),
        "minute_phase_24h": (_ratio(phase, day_n) * 0.01).clip(0.0, 1.0),
        "concurrency_1h": pl.when(_c("h_n_latency") > 0).then(_c("h_latency_ms") * (1 / 3_600_000)),
        "temperature_mean_24h": _ratio(_c("d_temperature"), _c("d_n_temperature")) * 0.001,
        "temperature_zero_share_24h": _share("n_temperature_zero", "n_temperature"),
        "choices_mean_24h": _ratio(_c("d_choices"), _c("d_n_choices")),
        "logprobs_share_24h": _told("n_logprobs", "n_logprobs_known"),
        "seed_share_24h": _told("n_seed", "n_seed"),
        "output_cap_share_24h": _share("n_cap", "n_cap_known"),
        "structured_share_24h": _told("n_json", "n_json_known"),
        "tools_share_24h": _told("n_tools", "n_tools_known"),
        "stream_share_24h": _share("n_stream", "n_stream_known"),
        "batch_share_24h": _share("n_batch", "n_delivery"),
        "high_effort_share_24h": _told("n_effort", "n_effort_known"),
        "reasoning_share_24h": pl.when(_c("d_n_reasoning") > 0).then(_share("reasoning_tokens", "reasoned_output")),
        "follow_up_share_24h": _share("n_follow", "n_turn"),
        "input_tokens_mean_24h": _ratio(_c("d_input_tokens"), day_n),
        "output_tokens_mean_24h": _ratio(_c("d_output_tokens"), day_n),
        "in_out_log_ratio_24h": ((_c("d_input_tokens") + 1) / (_c("d_output_tokens") + 1)).log(2.0),
        "input_log_sd_24h": _spread(_c("d_log_in"), _c("d_log_in2"), day_n, 1 / CELL_LOG),
        "output_log_sd_24h": _spread(_c("d_log_out"), _c("d_log_out2"), day_n, 1 / CELL_LOG),
        "short_output_share_24h": _share("n_short", "n_ok"),
        "prompt_length_mean_24h": _ratio(_c("d_length"), _c("d_n_text")) * _LENGTH_STEP,
        "prompt_length_sd_24h": _spread_of("length", _LENGTH_STEP),
        "question_share_24h": _share("question", "n_text"),
        "first_person_share_24h": _share("first_person", "n_text"),
        "second_person_share_24h": _share("second_person", "n_text"),
        "politeness_share_24h": _share("politeness", "n_text"),
        "wh_share_24h": _share("wh", "n_text"),
        "upper_share_sd_24h": _spread_of("upper", _SHARE_STEP),
        "code_share_mean_24h": _ratio(_c("d_code"), _c("d_n_text")) * _SHARE_STEP,
        "code_share_sd_24h": _spread_of("code", _SHARE_STEP),
        "newlines_sd_24h": _spread_of("newline", _SHARE_STEP),
        "unique_words_sd_24h": _spread_of("unique", _SHARE_STEP),
        "url_share_24h": _share("url", "n_text"),
        "scripts_distinct_24h": pl.when(_c("d_scripts") != 0).then(_c("d_scripts").bitwise_count_ones()),
        "template_concentration_24h": concentration["d"],
        "templates_distinct_24h": _known_distinct("d_templates"),
        "exact_repeat_share_24h": _share("n_exact", "n_first"),
        "near_repeat_share_24h": _share("n_near", "n_first"),
        "systems_distinct_24h": _known_distinct("d_systems"),
        "reasoning_elicitation_share_24h": _share("lex_reasoning", "n_text"),
        "rubric_share_24h": _share("lex_rubric", "n_text"),
        "dataset_generation_share_24h": _share("lex_dataset", "n_text"),
        "rewriting_share_24h": _share("lex_rewrite", "n_text"),
        "benchmark_form_share_24h": _share("lex_benchmark", "n_text"),
        "wrapper_share_24h": _share("lex_wrapper", "n_text"),
        "generator_share_24h": _share("n_generator", "n_generator_known"),
        "corpus_share_24h": _share("n_corpus", "n_corpus_known"),
        "corpus_items_distinct_24h": pl.when(_c("d_n_corpus_known") > 0).then(_corpus_items()),
        "corpus_models_per_item_24h": _models_per_item(),
        "refused_share_24h": _share("n_refused", "n_refused_known"),
        "moderated_share_24h": _share("n_moderated", "n_moderated_known"),
        "models_distinct_24h": _distinct("d_models"),
        "models_distinct_7d": _distinct("w_models"),
        "model_concentration_24h": _simpson("d_model_", MODEL_BUCKETS, day_n, signed=False),
        "model_shift_past": _model_shift(),
        "keys_distinct_24h": _known_distinct("d_keys"),
        "networks_distinct_24h": _known_distinct("d_networks"),
        "networks_distinct_7d": _known_distinct("w_networks"),
        "end_users_distinct_24h": _known_distinct("d_end_users"),
        "account_age_days": pl.when(_c("created_ms") >= 0).then(
            ((_c("t_ms") - _c("created_ms")) * (1 / 86_400_000)).clip(0.0, None)
        ),
        "clients_distinct_24h": _known_distinct("d_clients"),
        "user_agents_distinct_24h": _known_distinct("d_agents"),
        "ja4_distinct_24h": _known_distinct("d_ja4s"),
        "product_seen_age_hours": ((_c("t_ms") - _c("product_seen_ms")) * (1 / 3_600_000)).clip(0.0, None),
        "blob_share_24h": pl.when(_c("d_n_blob") > 0).then(_share("n_blob", "n")),
        "blob_reuse_24h": pl.when(_c("d_n_blob_told") > 0).then(_c("d_n_blob_reuse")),
        "blob_foreign_24h": pl.when(_c("d_n_blob") > 0).then(_c("d_n_blob_foreign")),
        "requests_vs_past": _versus("n"),
        "output_tokens_vs_past": _versus("output_tokens"),
        "output_length_vs_past": _change(_log_mean("log_out", "n", "d"), _log_mean("log_out", "n", "p")),
        "input_length_vs_past": _change(_log_mean("log_in", "n", "d"), _log_mean("log_in", "n", "p")),
        "prompt_length_vs_past": _change(
            _ratio(_c("d_length"), _c("d_n_text")) * _LENGTH_STEP,
            _ratio(_c("p_length"), _c("p_n_text")) * _LENGTH_STEP,
            "n_text",
        ),
        "template_vs_past": _change(concentration["d"], concentration["p"], "n_template"),
        "follow_up_vs_past": _change(_share("n_follow", "n_turn"), _share("n_follow", "n_turn", "p"), "n_turn"),
        "style_vs_past": _style_change(),
    }


_DENOMINATORS = {"burst_ratio_1h": "h_n", "rate_limited_share_1h": "h_n", "day_entropy_7d": "w_n"}
"""What ``min_requests`` of the catalogue counts where it is not the requests of 24 hours."""


def feature_expressions() -> list[pl.Expr]:
    """The catalogue's columns in its order: null where too little was seen, else Float64."""
    made = _expressions()
    return [
        pl.when(pl.col(_DENOMINATORS.get(f.name, "d_n")) >= f.min_requests)
        .then(made[f.name].cast(pl.Float64))
        .alias(f.name)
        for f in ACCOUNT_FEATURES
    ]


def client_class() -> pl.Expr:
    """Code of the client class, from completed days only: fixed for the day, never from the window being judged."""
    batch = _c("p_n_batch") * 2 >= _c("p_n")
    templated = _concentration("p").fill_null(0.0) >= 0.2
    chat = (_c("p_n_follow") * 5 >= _c("p_n_turn")) & (_c("p_n_turn") > 0)
    return (
        pl.when(_c("p_n") == 0)
        .then(0)
        .when(batch)
        .then(4)
        .when(templated)
        .then(3)
        .when(chat)
        .then(1)
        .otherwise(2)
        .cast(pl.UInt8)
    )
