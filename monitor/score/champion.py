"""A frozen champion beside the online learner, its calibration, and the rule by which it is replaced.

The **champion** is a snapshot of the forest: its score is the one that is used. The **challenger** is the forest
that goes on learning. The **anchor** is the champion that was accepted long ago (the first, renewed every four
weeks), against which slow drift is measured.

*Calibration.* A raw score says nothing by itself (half-space trees give 0.76 to 0.97), so it becomes a conformal
rank: with n calibration scores, ``rank = #{calibration < score} / (n + 1)``; a row from the same population gets
a rank over 1 - q with chance q at most (Vovk, Gammerman and Shafer 2005). The set may be contaminated by a
campaign that nobody suspects yet, so its top is trimmed before ranks are taken: always ``trim`` of it (0.5 %),
and, where the share over the *anchor's* frozen threshold exceeds ``alarm_level`` (5 %) by more than two standard
errors, that excess, up to ``contamination`` (10 %). The price: an honest row gets the top rank that much more
often. What exceeds 10 % is a change of the population: it is not trimmed, and is reported as drift.

*Promotion.* Every ``promote_epochs`` at most, on the calibration set, at the champion's frozen threshold: the
challenger's alarm rate must be within ``promote_ratio`` of the champion's, both ways, and there must be no drift.
A learner that has got used to what the champion finds unusual alarms less, so a ramp takes the champion along only
for as much of the population as these bounds leave. Measured with 1,000 accounts and a ramp of two weeks: with 5
or 10 % of the accounts in it they keep a median rank of 0.999, and benign traffic alone stays at rates of 4 to
7 % and is never refused. A population that really changed is held until an operator accepts it; its ranks stay
calibrated meanwhile, since the calibration set rolls on.

Knows nothing of classes, partitions or rows' origin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.score.blob import BadBlob
from monitor.score.forest import Forest, Snapshot
from monitor.score.options import AnomalyOptions

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Champion:
    """A frozen snapshot, the raw score over which ``alarm_level`` of its calibration set lay, and its epoch."""

    snapshot: Snapshot
    threshold: float
    epoch: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How champion and challenger stand, for metrics. Rates are shares of the calibration set over the champion's
    frozen threshold (the anchor's over its own); null before the first comparison."""

    learned: int
    ready: bool
    calibration_rows: int
    promotions: int
    refusals: int
    drift: bool
    champion_epoch: int | None
    champion_rate: float | None
    challenger_rate: float | None
    anchor_rate: float | None


class Duel:
    """Champion and challenger of one forest over ``width`` features.

    ``scores`` are the raw scores last given to :meth:`calibrate`, ascending and trimmed: the array that ranks are
    taken in. Empty while there is no opinion.
    """

    def __init__(self, width: int, options: AnomalyOptions, seed: int):
        self._options = options
        self.forest = Forest(width, trees=options.trees, height=options.height, window=options.window, seed=seed)
        self.champion: Champion | None = None
        self.anchor: Champion | None = None
        self.scores: F64 = np.empty(0)
        self._seen = 0
        self._checked = 0
        self._promotions = self._refusals = 0
        self._excess = 0.0
        self._rates: tuple[float, float, float] | None = None

    @property
    def need(self) -> int:
        """Features a row must have: half of them."""
        return needed(self.forest.width)

    @property
    def drift(self) -> bool:
        """Whether more lies over the anchor's threshold than a contamination may explain."""
        return self._excess > self._options.contamination

    def learn(self, rows: F32) -> None:
        """The challenger learns the rows [n, width] that have enough features, in order."""
        known = rows[known_enough(rows)]
        if len(known):
            self.forest.learn(known)

    def consider(self, epoch: int, rows: F32, raw: F64, accept_drift: bool = False) -> F64 | None:
        """Promote the challenger at this epoch if the rule allows; the new champion's raw scores if it did.

        ``rows`` [n, width] is the calibration set and ``raw`` the champion's scores of it, as :meth:`raw` gives
        them; ``accept_drift`` lets an operator's word stand for the bounds.
        """
        first = self.champion is None
        if not first and not accept_drift and epoch - self._checked < self._options.promote_epochs:
            return None
        known = known_enough(rows)
        snapshot = self.forest.snapshot() if int(known.sum()) >= self._options.calibration_min else None
        if snapshot is None:
            return None
        self._checked = epoch
        new = np.full(len(rows), np.nan)
        new[known] = snapshot.score(rows[known])
        if self.champion is not None:
            within = self._compare(new[known], raw[known], rows[known])
            if not within and not accept_drift:
                self._refusals += 1
                return None
        if accept_drift:
            self._excess = 0.0
        old, self.champion = self.champion, Champion(snapshot, self._threshold(new[known]), epoch)
        if self.anchor is None or accept_drift:
            self.anchor = self.champion
        elif old is not None and epoch - self.anchor.epoch >= self._options.anchor_epochs:
            self.anchor = old
        self._promotions += 0 if first else 1
        return new

    def raw(self, rows: F32) -> F64:
        """The champion's raw scores of rows [n, width]; NaN without a champion or with too few features."""
        out = np.full(len(rows), np.nan)
        if self.champion is not None and len(rows):
            known = known_enough(rows)
            out[known] = self.champion.snapshot.score(rows[known])
        return out

    def calibrate(self, raw: F64) -> None:
        """Take the calibration set anew, as the champion's :meth:`raw` scores of it (NaN: left out)."""
        if self.champion is None:
            return
        self._seen = len(raw) - int(np.isnan(raw).sum())
        ascending = np.sort(raw)[: self._seen]  # NaN sorts last
        self.scores = self._trimmed(ascending)
        if self._seen < self._options.calibration_min:
            self.scores = np.empty(0)

    def standing(self) -> Standing:
        """The figures as they are now."""
        champion, challenger, anchor = self._rates or (None, None, None)
        return Standing(
            self.forest.learned, len(self.scores) > 0, self._seen, self._promotions, self._refusals, self.drift,
            self.champion.epoch if self.champion else None, champion, challenger, anchor,
        )  # fmt: skip

    def _compare(self, new: F64, raw: F64, rows: F32) -> bool:
        """Measure the three alarm rates on the calibration set; whether the challenger is within the bounds."""
        champion, anchor, options = self.champion, self.anchor, self._options
        assert champion is not None
        assert anchor is not None
        theirs = float(np.mean(raw > champion.threshold))
        ours = float(np.mean(new > champion.threshold))
        before = raw if anchor is champion else anchor.snapshot.score(rows)
        then = float(np.mean(before > anchor.threshold))
        self._rates = (theirs, ours, then)
        level = options.alarm_level
        self._excess = max(0.0, then - level - 2.0 * math.sqrt(level * (1.0 - level) / len(rows)))
        slack = 2.0 * math.sqrt(max(theirs, level) / len(rows))
        return (
            theirs <= options.promote_ratio * ours + slack
            and ours <= options.promote_ratio * max(theirs, level) + slack
            and not self.drift
        )

    def _threshold(self, raw: F64) -> float:
        """The score that at most ``alarm_level`` of the (trimmed) set exceeds."""
        kept = self._trimmed(np.sort(raw))
        return float(kept[math.ceil((1.0 - self._options.alarm_level) * len(kept)) - 1])

    def _trimmed(self, ascending: F64) -> F64:
        count = len(ascending)
        cut = math.ceil(self._options.trim * count)
        if not self.drift:
            cut += int(self._excess * count)
        return ascending[: count - cut]

    def dump(self) -> dict[str, Any]:
        """Plain arrays and numbers for :func:`monitor.score.blob.pack`; the calibration set is not part of it."""
        return {
            "forest": self.forest.dump(), "champion": _dump(self.champion), "anchor": _dump(self.anchor),
            "checked": self._checked, "promotions": self._promotions, "refusals": self._refusals,
            "excess": self._excess, "rates": list(self._rates) if self._rates else None,
        }  # fmt: skip

    def load(self, body: Mapping[str, Any]) -> None:
        """Continue where :meth:`dump` left off; :meth:`calibrate` must follow. Raises BadBlob."""
        try:
            self.forest.load(body["forest"])
            self.champion, self.anchor = self._load(body["champion"]), self._load(body["anchor"])
            self._checked, self._promotions = int(body["checked"]), int(body["promotions"])
            self._refusals = int(body["refusals"])
            self._excess = float(body["excess"])
            rates = body["rates"]
            self._rates = (float(rates[0]), float(rates[1]), float(rates[2])) if rates else None
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise BadBlob("a model without its parts") from error

    def _load(self, body: Mapping[str, Any] | None) -> Champion | None:
        if body is None:
            return None
        options = self._options
        snapshot = Snapshot.load(body, options.trees, options.height, options.window)
        return Champion(snapshot, float(body["threshold_score"]), int(body["epoch"]))


def _dump(champion: Champion | None) -> dict[str, Any] | None:
    if champion is None:
        return None
    return {**champion.snapshot.dump(), "threshold_score": champion.threshold, "epoch": champion.epoch}


def needed(width: int) -> int:
    """Features of ``width`` that a row must have to be scored: half, rounded up."""
    return (width + 1) // 2


def known_enough(rows: F32) -> npt.NDArray[np.bool_]:
    """Rows [n, width] with at least :func:`needed` features that are not NaN."""
    known: npt.NDArray[np.bool_] = (~np.isnan(rows)).sum(axis=1) >= needed(rows.shape[1])
    return known
