"""What is added up of an account's requests for pooled tests: integers, so that a pool is a sum over its members."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

SHARED = (
    "n_text", "n_turn", "n_follow", "question",
    "lex_reasoning", "lex_rubric", "lex_dataset", "lex_rewrite", "lex_benchmark", "lex_wrapper",
    "n_ok", "n_error", "n_short", "n_cap", "n_cap_known", "n_stream", "n_stream_known", "n_tools", "n_tools_known",
    "n_json", "n_json_known", "n_effort", "n_effort_known", "n_batch", "n_delivery", "n_temperature",
    "n_temperature_zero", "log_in", "log_out", "n_blob",
)  # fmt: skip
"""Sums that the account features make too; their expressions are handed in."""
OWN = ("n_harvest", "n_human", "log_in2", "log_out2")
SHAPE = (
    "n_told", "n_whole",
    "whole_question", "whole_first_person", "whole_second_person", "whole_politeness", "whole_wh", "whole_command",
    "whole_follow",
    "whole_length", "whole_upper", "whole_newline", "whole_code", "whole_unique",
    "whole_length2", "whole_upper2", "whole_newline2", "whole_code2", "whole_unique2",
)  # fmt: skip
"""``pooled.shape.Sums``, flat: prompts of which it is known whether they hold a heavy gram, those that hold none, and
of the latter the counts, the sums and the sums of squares. A prompt that came as a sketch has no text to look for grams
in, and in a partition's first epoch no gram is known: both add nothing here. Taken for whole, every honest pipeline
would look like a campaign."""
NAMES = (*SHARED, *OWN, *SHAPE)
"""Every sum, in order."""
COLUMN: Mapping[str, int] = {name: i for i, name in enumerate(NAMES)}

HELD = (
    "n_text", "n_turn", "n_follow", "question", "lex_reasoning", "lex_rubric", "lex_dataset", "lex_benchmark", "n_ok",
    "n_error", "n_short", "n_cap", "n_cap_known", "n_stream", "n_stream_known", "n_tools", "n_json", "n_batch",
    "n_delivery", "log_in", "log_out", "n_harvest", "n_human",
)  # fmt: skip
"""Sums that the stage keeps of everybody, three days of each: those that its statistics read. The others are in blobs
and in the archive."""
SHAPE_AT = [COLUMN[name] for name in SHAPE]
HELD_AT = [COLUMN[name] for name in HELD]
PLACE: Mapping[str, int] = {name: i for i, name in enumerate(("requests", *HELD))}
"""Column of each in the stage's tables."""

_HARVEST = ("reasoning_elicitation", "rubric_grading", "preference_pair", "score_only", "dataset_generation")
"""Not ``wrapper``: "answer only from the material" is an ordinary system prompt, which whoever frames a customer copies
with everything else, and then both harvest in each request."""


_FLAGS = {
    "question": "has_question", "first_person": "first_person", "second_person": "second_person",
    "politeness": "politeness", "wh": "question_first", "command": "imperative_first",
}  # fmt: skip
_WHOLE = 255


def expressions(
    shared: Mapping[str, pl.Expr], flag: Callable[[str], pl.Expr], scalar: Callable[[str], pl.Expr]
) -> dict[str, pl.Expr]:
    """What an event adds to each sum. ``shared`` are the feature step's expressions, ``flag`` a lexicon bit,
    ``scalar`` a shape scalar (0 to 255)."""

    def any_of(*terms: pl.Expr) -> pl.Expr:
        return pl.any_horizontal(*terms).fill_null(False).cast(pl.Int32)

    human = ("first_person", "politeness")
    whole = (pl.col("residual_share") == _WHOLE).fill_null(False)

    def where_whole(term: pl.Expr) -> pl.Expr:
        return pl.when(whole).then(term).otherwise(0)

    spread = {name: shared[name] for name in ("length", "upper", "newline", "code", "unique")}
    return {
        **{name: shared[name] for name in SHARED},
        # some channels log the tools' schema and not their names
        "n_tools": any_of(shared["n_tools"] > 0, pl.col("tool_schema").fill_null(0) != 0),
        # requests, not flags: a prompt that asks for reasoning and grades it is one
        "n_harvest": any_of(*(flag(name) for name in _HARVEST)),
        "n_human": any_of(*(scalar(name) > 0 for name in human)),
        "log_in2": shared["log_in"] * shared["log_in"],
        "log_out2": shared["log_out"] * shared["log_out"],
        "n_told": pl.col("residual_share").is_not_null().cast(pl.Int32),
        "n_whole": whole.cast(pl.Int32),
        # of a prompt without a heavy gram the residual is the shape itself
        **{f"whole_{name}": (whole & (scalar(flag) > 0)).fill_null(False).cast(pl.Int32)
           for name, flag in _FLAGS.items()},
        "whole_follow": where_whole(shared["n_follow"]),
        **{f"whole_{name}": where_whole(term) for name, term in spread.items()},
        **{f"whole_{name}2": where_whole(term * term) for name, term in spread.items()},
    }  # fmt: skip
