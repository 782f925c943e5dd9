"""The shape of what is left of a pool of prompts without its templates: 13 numbers, and a monotone model of them.

People ask, say "I" and "please", come back with a follow-up, and vary; the instructions of a distillation set do none
of that, whatever they are about. A pool is a sum of integers over its requests, so accounts pool by addition.
Method: the pilot on real text (2,000 tenants), with one change. Its "distance to the nearest benign sketch" is gone
(it needs an embedding and earned nothing there), and so is the spread of the URL flag (dropping it changed no figure);
the share of prompts that open with a verb of command came in: the slots of honest pipelines are statements, as uniform
as a campaign's instructions, but no instructions. Leave one source out, 300 requests, at 1 %: .74/.44 of windows with
50/25 % of attacker text without it, .99/.82 with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

COUNTED: Final = (
    "has_question", "first_person", "second_person", "politeness", "question_first", "imperative_first", "follow_up"
)  # fmt: skip
"""What is counted among the kept requests, in order; the last is no scalar of the text."""
SPREAD: Final = ("log_chars", "upper_share", "newline_share", "code_share", "unique_words")
"""Scalars whose sums and sums of squares are kept, in order."""
COLUMN: Final = {
    "has_question": 14, "first_person": 17, "second_person": 18, "politeness": 19, "question_first": 20,
    "imperative_first": 21, "log_chars": 0, "upper_share": 1, "newline_share": 6, "code_share": 5, "unique_words": 8,
}  # fmt: skip
"""Place of each in a sketch's 24 scalars: part of the wire format, which only grows. A test compares the two."""

FEATURES: Final = (
    "question_rate", "first_person_rate", "second_person_rate", "politeness_rate", "wh_rate", "no_command_rate",
    "follow_up_rate", "log_chars_sd", "upper_share_sd", "newline_share_sd", "code_share_sd", "unique_words_sd",
    "kept_share",
)  # fmt: skip
"""Rates from 0 to 1, standard deviations of scalars (0 to 1), share of requests kept. All are lower in campaigns."""
KEPT: Final = FEATURES.index("kept_share")

WHOLE: Final = 255
"""``residual_share`` of a request that is pooled: no word of it was in a heavy gram. Pooling what subtraction leaves of
the others finds nothing: what is left of an honest template is as uniform as a campaign (at 50 % attacker share .11 of
windows with half-heavy requests in, .02 with all of them, .78 with none)."""
MIN_KEPT: Final = 20
"""Fewer kept requests have no shape: their rates are 0 by chance."""


class Sums(NamedTuple):
    """Integer sums of ``m`` pools: add those of two disjoint pools and you have those of their union."""

    n: I64
    """(m,) requests with text."""
    kept: I64
    """(m,) of them without a heavy gram."""
    counts: I64
    """(m, 7) kept requests for which each of ``COUNTED`` holds."""
    sums: I64
    """(m, 5) sums over the kept requests of each of ``SPREAD``."""
    squares: I64
    """(m, 5) sums of their squares."""


def sums_of(scalars: U8, follow: Bools, residual: U8 | None = None, residual_share: U8 | None = None) -> Sums:
    """The sums (m = 1) of ``n`` requests: ``scalars`` (n, 24), ``follow`` (n,): continues a conversation.

    With ``residual`` (n, 24) and ``residual_share`` (n,), as the sketch step makes them, requests with a heavy gram
    count in ``n`` alone.
    """
    kept = np.ones(len(scalars), bool) if residual_share is None else residual_share >= WHOLE
    x = (scalars if residual is None else residual)[kept].astype(np.int64)
    flags = [(x[:, COLUMN[name]] > 0).sum() for name in COUNTED[:-1]]
    spread = x[:, [COLUMN[name] for name in SPREAD]]
    return Sums(
        np.array([len(scalars)]), np.array([len(x)]), np.array([[*flags, np.asarray(follow, bool)[kept].sum()]]),
        spread.sum(axis=0)[None], (spread * spread).sum(axis=0)[None],
    )  # fmt: skip


def pool_from_sums(
    n: npt.ArrayLike, kept: npt.ArrayLike, counts: npt.ArrayLike, sums: npt.ArrayLike, squares: npt.ArrayLike,
    scale: float = 255.0, least: int = MIN_KEPT,
) -> F64:  # fmt: skip
    """``FEATURES`` (m, 13) of pools by their ``Sums``; ``nan`` but for ``kept_share`` where fewer than ``least`` are
    kept.

    Requests may be weighed; then all five are of weights. ``scale`` is the largest value that a scalar takes in the
    sums: 63.75 where they were made of ``scalar // 4``.
    """
    n, kept = np.asarray(n, np.float64), np.asarray(kept, np.float64)
    known = kept >= least
    of = np.where(known, kept, np.nan)[:, None]
    rates = np.asarray(counts, np.float64) / of
    rates[:, COUNTED.index("imperative_first")] = 1.0 - rates[:, COUNTED.index("imperative_first")]
    mean = np.asarray(sums, np.float64) / of
    spread = np.sqrt(np.maximum(np.asarray(squares, np.float64) / of - mean * mean, 0.0)) / scale
    share = np.divide(kept, n, out=np.full(len(n), np.nan), where=n > 0)
    return np.column_stack([rates, spread, share])


def pool(scalars: U8, follow: Bools, residual: U8 | None = None, residual_share: U8 | None = None) -> F64:
    """``FEATURES`` (13,) of the requests of one pool; see :func:`sums_of` and :func:`pool_from_sums`."""
    return np.asarray(pool_from_sums(*sums_of(scalars, follow, residual, residual_share))[0])


@dataclass(frozen=True)
class ShapeModel:
    """A sum of one falling step function for each feature: log odds that a pool holds instructions of a campaign.

    ``edges[j]`` (rising) cut feature ``j`` into ``len(edges[j]) + 1`` bins with ``values[j]``, which never rise.
    ``about`` says what it was trained on. Only ranks among pools of one stratum mean anything: see ``conformal``.
    """

    base: float
    edges: tuple[F64, ...]
    values: tuple[F64, ...]
    about: dict[str, Any]

    def __post_init__(self) -> None:
        if len(self.edges) != len(FEATURES) or len(self.values) != len(FEATURES):
            raise ValueError(f"a shape model has {len(FEATURES)} features: {', '.join(FEATURES)}")
        for name, edges, values in zip(FEATURES, self.edges, self.values, strict=True):
            if len(values) != len(edges) + 1 or (np.diff(edges) <= 0).any() or (np.diff(values) > 0).any():
                raise ValueError(f"{name}: edges must rise, and one more value than edges must never rise")

    def contributions(self, features: F64) -> F64:
        """What each feature adds to the score, (m, 13); a feature that is ``nan`` speaks as its most harmless value."""
        out = np.empty(features.shape)
        for j, (edges, values) in enumerate(zip(self.edges, self.values, strict=True)):
            x = features[:, j]
            out[:, j] = np.where(np.isnan(x), values[-1], values[np.searchsorted(edges, x, side="right")])
        return out

    def score(self, features: F64) -> F64:
        """Log odds (m,) of ``features`` (m, 13); ``nan`` where a pool is too small to have a shape."""
        unknown = np.isnan(features[:, :KEPT]).all(axis=1)
        return np.where(unknown, np.nan, self.base + self.contributions(features).sum(axis=1))

    def to_json(self) -> str:
        """As the package data: six digits are kept, so that a platform's last bit does not show."""
        rows = [
            {"name": name, "edges": [round(float(v), 6) for v in e], "values": [round(float(v), 6) for v in w]}
            for name, e, w in zip(FEATURES, self.edges, self.values, strict=True)
        ]
        return json.dumps({"schema": "monitor.shape/v1", "about": self.about, "base": round(self.base, 6),
                           "features": rows}, indent=1) + "\n"  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> ShapeModel:
        """Read what :meth:`to_json` wrote. Raises ``ValueError`` for anything else."""
        read = json.loads(text)
        if read.get("schema") != "monitor.shape/v1" or [f["name"] for f in read["features"]] != list(FEATURES):
            raise ValueError("not a shape model of this release: write it anew with `monitor evaluate --pilot --fit`")
        edges = tuple(np.array(f["edges"], np.float64) for f in read["features"])
        values = tuple(np.array(f["values"], np.float64) for f in read["features"])
        return cls(float(read["base"]), edges, values, dict(read["about"]))

    @classmethod
    def shipped(cls) -> ShapeModel:
        """The model of the package, trained on simulated text and rows whose licence allows it."""
        return cls.from_json((resources.files("monitor.pooled") / "shape.v1.json").read_text("utf-8"))
