"""Names and layouts of what a sketch holds. Knows nothing of how any of it is computed; imports nothing of the project.

The order of every tuple here is part of the wire format: append with a new version only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

WIRE_VERSION: Final = 1

SHAPE_NAMES: Final[tuple[str, ...]] = (
    "log_chars", "upper_share", "digit_share", "space_share", "punct_share", "code_share", "newline_share",
    "non_ascii_share", "unique_words", "mean_word_chars", "words_per_sentence", "list_share", "quoted_share",
    "has_url", "has_question", "has_exclamation", "has_code_fence", "first_person", "second_person", "politeness",
    "question_first", "imperative_first", "starts_upper", "ends_stopped",
)  # fmt: skip
"""The 24 scalars of a prompt's shape, 0 to 255 each. See :data:`SHAPE_HELP` and :func:`dequantise`."""

SHAPE_HELP: Final[dict[str, str]] = {
    "log_chars": "12 x log2(1 + characters)",
    "upper_share": "upper-case letters of all letters; a share s is kept as 255 x sqrt(s), finer where small",
    "digit_share": "decimal digits of all characters",
    "space_share": "white space of all characters",
    "punct_share": "punctuation of all characters",
    "code_share": "characters that are frequent in code (braces, brackets, operators, _ and \\) of all characters",
    "newline_share": "line ends of all characters",
    "non_ascii_share": "characters outside ASCII of all characters",
    "unique_words": "different words of the first 1,024 words",
    "mean_word_chars": "16 x mean characters of a word",
    "words_per_sentence": "32 x log2(1 + words / sentences)",
    "list_share": "lines that begin with a bullet or a number, of all lines",
    "quoted_share": "bytes inside quotation marks or backticks, of all bytes",
    "has_url": "a URL (0 or 255, as all that follow)",
    "has_question": "a question mark of any script",
    "has_exclamation": "an exclamation mark of any script",
    "has_code_fence": "three backticks",
    "first_person": "I, my, we ... in the language of the text",
    "second_person": "you, your ... in the language of the text",
    "politeness": "please, thanks, a greeting ... in the language of the text",
    "question_first": "begins with a question word or an auxiliary verb (anywhere, where grammar puts it anywhere)",
    "imperative_first": "begins with a verb of command (anywhere, where grammar puts it last)",
    "starts_upper": "the first letter is upper-case",
    "ends_stopped": "the last character that is no space ends a sentence",
}

_SHARES: Final = frozenset(n for n in SHAPE_NAMES if n.endswith("_share") or n == "unique_words")

LEXICON_FLAGS: Final[tuple[str, ...]] = (
    "reasoning_elicitation", "step_by_step", "rubric_grading", "preference_pair", "dataset_generation", "rewriting",
    "translation", "summarising", "code_request", "json_only", "score_only", "multiple_choice", "wrapper",
    "role_override", "role_play",
)  # fmt: skip
"""Bit ``i`` of ``lexicon`` is set where flag ``i`` holds, in the prompt or the system prompt."""

GENERATOR_BITS: Final = 24
"""Bits of ``generator``: families of generators, see ``generators.toml`` and ``Generators.names``."""

SCRIPTS: Final[tuple[str, ...]] = (
    "none", "latin", "cyrillic", "greek", "han", "japanese", "hangul", "arabic", "hebrew", "devanagari", "indic",
    "thai", "other",
)  # fmt: skip
"""``script`` is the index of the script of most of the letters; ``none``: a text without a letter."""

TEXT_HASHES: Final[tuple[str, ...]] = (
    "prompt_exact", "prompt_skeleton", "prompt_prefix", "prompt_tail", "system_exact", "system_skeleton", "simhash",
)  # fmt: skip
"""Keyed 64-bit hashes of text, in the order of the kernel's output and of the wire."""

CHAR_COUNTS: Final[tuple[str, ...]] = ("prompt_chars", "system_chars", "response_chars")

SEALED_IDS: Final[tuple[str, ...]] = (
    "batch_key", "conversation", "end_user", "tools", "tool_schema", "ip", "net", "asn", "country", "user_agent",
    "client", "client_name", "ja4", "payment", "referral", "contact",
)  # fmt: skip
"""Keyed identifiers that a sketch carries in place of the client's strings, in the order of the wire."""

OPEN_IDS: Final[tuple[str, ...]] = ("marketplace_account", "reseller")
"""Keyed identifiers made from the provider's own ids, which stay in a sketched event as they are."""

MAX_BLOBS: Final = 256
"""Most reasoning blobs kept of one request: those with the smallest keyed hashes, so the choice is a fair sample."""


def dequantise(name: str, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The scalar ``name`` in its natural unit: characters, words, a share or rate from 0 to 1.

    >>> dequantise("digit_share", np.array([0, 51, 255], np.uint8)).round(3).tolist()
    [0.0, 0.04, 1.0]
    """
    x = values.astype(np.float64)
    if name in _SHARES:
        return np.square(x / 255.0)
    if name == "log_chars":
        return np.exp2(x / 12.0) - 1.0
    if name == "mean_word_chars":
        return x / 16.0
    if name == "words_per_sentence":
        return np.exp2(x / 32.0) - 1.0
    if name not in SHAPE_NAMES:
        raise KeyError(f"no shape scalar is called {name!r}; they are {', '.join(SHAPE_NAMES)}")
    return x / 255.0
