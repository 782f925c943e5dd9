"""Features from window sums: one Polars expression for each name of the catalogue.

Column names of the window frame: ``d_`` last 24 hours, ``p_`` the six completed days before, ``h_`` last hour,
``w_`` seven days, each followed by the aggregate's name. All are Int64 (bit sets UInt64), but for the columns of
``readings``; results Float64.

No expression divides by a constant: Polars divides a long column by a scalar as a product with its reciprocal and
a column of one row truly, so that a row's last bit would depend on the other rows of its batch. Nor are floats
added by ``sum_horizontal``: its threads take the columns in an order that differs from run to run.
"""

from __future__ import annotations

import math

import polars as pl

from monitor.features.aggregates import CELL_LOG, MODEL_BUCKETS
from monitor.features.catalogue import ACCOUNT_FEATURES

_LENGTH_STEP = 4.0 / 12.0
"""One step of the 6-bit log length in log2 characters: the sketch keeps 12 a doubling, a pane every fourth."""
_SHARE_STEP = 4.0 / 255.0
"""One step of a 6-bit share, which the sketch keeps as its square root."""


def _c(name: str) -> pl.Expr:
    return pl.col(name)


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


def _read(name: str) -> pl.Expr:
    """A column of :mod:`monitor.features.readings`."""
    return _c(name).fill_nan(None)


def _known_distinct(bits: str) -> pl.Expr:
    return pl.when(_c(bits) != 0).then(_c(f"{bits}_distinct"))


def _simpson(moment: str, n: pl.Expr, buckets: int = 0) -> pl.Expr:
    """Chance that two different requests share a value, from the sum of squared bucket counts.

    A signed Count Sketch row is an unbiased second moment; plain ``buckets`` collide with chance 1/b, taken out.
    """
    chance = (_c(moment) - n) / (n * (n - 1))
    if buckets:
        chance = (chance - 1 / buckets) * (buckets / (buckets - 1))
    return pl.when(n > 1).then(chance.clip(0.0, 1.0))


def _concentration(window: str) -> pl.Expr:
    """Simpson index of openings or of closings, whichever gathers more: a template keeps at least one of them."""
    n = _c(f"{window}_n_template")
    return pl.max_horizontal(_simpson(f"{window}_{end}_moment", n) for end in ("opening", "closing"))


def _log_mean(name: str, n: str, window: str) -> pl.Expr:
    return _ratio(_c(f"{window}_{name}"), _c(f"{window}_{n}")) * (1 / CELL_LOG)


def _per_day(name: str) -> pl.Expr:
    return _ratio(_c(f"p_{name}"), _c("past_days"))


def _versus(name: str) -> pl.Expr:
    """log2 of the last 24 hours over a past day, one added to both so that a silent past is finite."""
    return ((_c(f"d_{name}") + 1).cast(pl.Float64) / (_per_day(name) + 1.0)).log(2.0)


def _change(now: pl.Expr, past: pl.Expr, seen: str = "n") -> pl.Expr:
    return pl.when(_c(f"p_{seen}") >= 10).then(now - past)


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
        "day_entropy_7d": _read("day_entropy"),
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
        "corpus_items_distinct_24h": pl.when(_c("d_n_corpus_known") > 0).then(_c("corpus_items")),
        "corpus_models_per_item_24h": _read("models_per_item"),
        "refused_share_24h": _share("n_refused", "n_refused_known"),
        "moderated_share_24h": _share("n_moderated", "n_moderated_known"),
        "models_distinct_24h": _c("d_models_distinct"),
        "models_distinct_7d": _c("w_models_distinct"),
        "model_concentration_24h": _simpson("d_model_moment", day_n, MODEL_BUCKETS),
        "model_shift_past": pl.when(_c("p_n") >= 10).then(_read("model_distance")),
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
        "style_vs_past": pl.when(_c("p_n_text") >= 10).then(_read("style_distance")),
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
