"""What must hold of the anomaly scores however the stream comes, and defects planted to see that the checks see.

Each check is a function; it runs on the real stage, and then on a stage with a defect, where it must fail.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import score_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import ANOMALY_COLUMNS, Scorer, champion, partition, sample
from monitor.score.blob import unpack
from monitor.score.population import Population

WARM = 8


def scorer(**changed: Any) -> Scorer:
    return Scorer(score_rows.small(**changed), ACCOUNT_FEATURES)


def models(of: Scorer, number: int) -> dict[str, Any]:
    """The learned part of a partition's state."""
    return dict(unpack(unpack(of.dump(number))["models"]))


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return set(one) == set(two) and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return bool(np.array_equal(one, two)) if isinstance(one, np.ndarray) else bool(one == two)


# the checks


def check_cuts(cuts: list[int], seed: int) -> None:
    """Rows of an epoch in one call, or cut and reordered: the same state and the same scores."""
    whole, parts = scorer(), scorer()
    for epoch in range(WARM):
        frame = score_rows.rows(epoch, np.arange(200), ticks_each=2)
        for number in range(4):
            whole.advance(number, epoch)
            parts.advance(number, epoch)
        scored = whole.score(frame)
        whole.collect(scored)
        mixed = frame.sample(fraction=1.0, shuffle=True, seed=seed + epoch)
        edges = [0, *sorted(c % frame.height for c in cuts), frame.height]
        seen = []
        for a, b in itertools.pairwise(edges):
            seen.append(parts.score(mixed[a:b]))
            for number in range(4):  # and partition by partition
                parts.collect(seen[-1], [number])
        assert pl.concat(seen).sort("subject", "tick").equals(scored.sort("subject", "tick"))
    for number in range(4):
        assert same(unpack(whole.dump(number))["sample"], unpack(parts.dump(number))["sample"])
        assert same(models(whole, number), models(parts, number))


def check_score_before_learn() -> None:
    """An epoch's scores are those of a frozen copy made before its rows were seen, and the next hour's too: what
    is young teaches nothing."""
    live, frozen = scorer(), scorer()
    score_rows.run(live, 0, WARM)
    for number in range(4):
        live.advance(number, WARM)
        frozen.load(number, live.dump(number))
    odd = score_rows.rows(WARM, np.arange(200), odd=1.0)
    scored = live.score(odd)
    live.collect(scored)
    assert scored.select(ANOMALY_COLUMNS).equals(frozen.score(odd).select(ANOMALY_COLUMNS))
    again = score_rows.rows(WARM, np.arange(200), seed=5, odd=0.5)
    assert live.score(again).select(ANOMALY_COLUMNS).equals(frozen.score(again).select(ANOMALY_COLUMNS))


def check_quarantine() -> None:
    """What came in the last two hours, however strange, has moved no model."""
    plain, struck = scorer(learn_epochs=1), scorer(learn_epochs=1)
    for of in (plain, struck):
        score_rows.run(of, 0, WARM)
    score_rows.run(plain, WARM, WARM + 2)
    score_rows.run(struck, WARM, WARM + 2, odd=1.0)
    for number in range(4):
        for of in (plain, struck):
            of.advance(number, WARM + 2)
        for part in ("duels", "calibration"):
            assert same(models(plain, number)[part], models(struck, number)[part])
    for number in range(4):  # and it does wait no longer than that, else the check above would prove nothing
        for of in (plain, struck):
            of.advance(number, WARM + 3)
        assert not same(models(plain, number)["duels"], models(struck, number)["duels"])


def check_null_while_warming_up() -> None:
    """The first opinion comes after the quarantine and two windows; until then every score is null."""
    of = scorer(window=64)
    scored = score_rows.run(of, 0, 5)
    assert min(s.learned for s in of.status().partitions[0].models.values()) > 0
    for column in ANOMALY_COLUMNS:
        assert scored[column].null_count() == scored.height


def check_suspects_are_never_learned() -> None:
    """Suspected accounts leave forests and calibration as if they had never been there."""
    wide = {"cold_rows": 500, "warm_rows": 500}
    without, within = scorer(**wide), scorer(**wide)
    bad = np.arange(10_000, 10_040)
    suspects = tuple(f"bad-{a:06d}" for a in bad.tolist())
    for epoch in range(WARM):
        good = score_rows.rows(epoch, np.arange(200))
        evil = score_rows.rows(epoch, bad, odd=0.8, prefix="bad")
        for number in range(4):
            without.advance(number, epoch)
            within.advance(number, epoch, suspects)
        without.collect(without.score(good))
        within.collect(within.score(pl.concat([good, evil])))
    for number in range(4):
        assert same(models(without, number)["duels"], models(within, number)["duels"])
        a, b = (models(of, number)["calibration"] for of in (without, within))
        assert [sorted(r["subject"].tolist()) for r in a] == [sorted(r["subject"].tolist()) for r in b]
        assert within.status().partitions[number].excluded > 0


def check_suspected_later() -> None:
    """A subject that is suspected only now leaves the calibration set and the quantiles at the next boundary."""
    of = scorer()
    score_rows.run(of, 0, WARM)
    known = {f"acct-{a:06d}" for a in range(100)}
    from monitor.score.keys import subject_keys

    hashes = set(subject_keys(known, 1).tolist())
    for number in range(4):
        before = {s for r in models(of, number)["calibration"] for s in r["subject"].tolist()}
        assert before & hashes
        of.advance(number, WARM, known)
        for part in ("calibration", "sketches"):
            assert not {s for r in models(of, number)[part] for s in r["subject"].tolist()} & hashes


def ramp(share: float, epochs: int = 110) -> dict[str, float]:
    """Accounts that drift away from the rest over 50 hours, unsuspected; a world of one class and partition."""
    of = scorer(
        window=64, learn_epochs=1, quarantine_h=1.0, cold_rows=120, warm_rows=60, calibration_min=40,
        calibration_rows=300, calibration_half_life_h=24.0, promote_epochs=3,
    )  # fmt: skip
    bad = np.arange(10_000, 10_000 + int(300 * share))
    scored = pl.DataFrame()
    for epoch in range(epochs):
        odd = min(1.0, max(0.0, (epoch - 30) / 50))
        frame = pl.concat(
            [
                score_rows.rows(epoch, np.arange(300), 1, partitions=1),
                score_rows.rows(epoch, bad, 2, odd=odd, partitions=1, prefix="bad"),
            ]
        ).with_columns(client_class=pl.lit(1, pl.UInt8))
        of.advance(0, epoch)
        scored = of.score(frame)
        of.collect(scored)
    evil = pl.col("subject").str.starts_with("bad")
    rank = scored.filter(~evil)["anomaly_population"].drop_nulls()
    duel = of._population._parts[0].duels[1][0]
    raw = duel.raw(of._population._squash.of(scored.filter(evil))[:, :12])
    assert duel.champion is not None
    return {
        "over": float(np.mean(raw > duel.champion.threshold)),
        "rank": float(scored.filter(evil)["anomaly_population"].median() or 0.0),
        "false": float((rank > 0.95).mean()),
        "drift": float(duel.drift),
        "refused": float(duel.standing().refusals),
    }


def check_a_ramp_leaves_the_champion_behind() -> None:
    """A quarter of the accounts: the champion that finds them unusual stays, and drift is reported."""
    figures = ramp(0.25)
    assert figures["over"] > 0.9
    assert figures["drift"]
    assert figures["refused"] > 0


def check_contamination_is_trimmed() -> None:
    """A tenth of the accounts, in the calibration set as everyone: still ranked at the very top."""
    assert ramp(0.1)["rank"] > 0.99


CHECKS: dict[str, Callable[[], None]] = {
    "cuts": lambda: check_cuts([50, 51, 300], 1),
    "score before learn": check_score_before_learn,
    "quarantine": check_quarantine,
    "null while warming up": check_null_while_warming_up,
    "suspects": check_suspects_are_never_learned,
    "suspected later": check_suspected_later,
    "ramp": check_a_ramp_leaves_the_champion_behind,
    "contamination": check_contamination_is_trimmed,
}


@pytest.mark.parametrize("name", CHECKS)
def test_it_holds(name: str) -> None:
    CHECKS[name]()


# the defects


def learn_before_score(patch: pytest.MonkeyPatch) -> None:
    real = Population.score

    def score(self: Population, frame: pl.DataFrame) -> Any:
        values = self._squash.of(frame)
        for number in frame["partition"].unique().to_list():
            for group, duels in enumerate(self._models(number).duels):
                mine = (frame["partition"] == number).to_numpy() & (self._groups(frame) == group)
                if mine.any():
                    duels[0].learn(values[mine][:, :12])
                    snapshot = duels[0].forest.snapshot()
                    if duels[0].champion and snapshot:
                        duels[0].champion = champion.Champion(snapshot, duels[0].champion.threshold, 0)
            self._publish(number)
        return real(self, frame)

    patch.setattr(Population, "score", score)


def zero_for_null(patch: pytest.MonkeyPatch) -> None:
    real = Population.score
    patch.setattr(Population, "score", lambda self, frame: tuple(np.nan_to_num(x) for x in real(self, frame)))


def suspects_learned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partition, "member", lambda values, of: np.zeros(len(values), np.bool_))


def suspects_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partition.Reservoir, "drop", lambda self, subjects: 0)


def no_quarantine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partition.PartitionModels, "_wait_epochs", lambda self: 0)


def first_come_sample(patch: pytest.MonkeyPatch) -> None:
    def arrival(subject: Any, tick: Any, epoch: Any) -> Any:
        _, first = np.unique(subject, return_index=True)
        order = np.searchsorted(np.unique(subject), subject)
        return first[order].astype(np.uint64), np.arange(len(subject), dtype=np.uint64)

    patch.setattr(sample, "row_keys", arrival)


def learns_on_collect(patch: pytest.MonkeyPatch) -> None:
    real = Population.collect

    def collect(self: Population, frame: pl.DataFrame, partitions: Any = None) -> None:
        real(self, frame, partitions)
        for number, part in self._parts.items():
            part.duels[0][0].learn(self._squash.of(frame.filter(pl.col("partition") == number))[:, :12])

    patch.setattr(Population, "collect", collect)


def champion_follows(patch: pytest.MonkeyPatch) -> None:
    real = champion.Duel._compare
    patch.setattr(champion.Duel, "_compare", lambda self, *rest: (real(self, *rest), True)[1])


def untrimmed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(champion.Duel, "_trimmed", lambda self, ascending: ascending)


DEFECTS: list[tuple[Callable[[pytest.MonkeyPatch], None], str]] = [
    (learn_before_score, "score before learn"),
    (zero_for_null, "null while warming up"),
    (suspects_learned, "suspects"),
    (suspects_kept, "suspected later"),
    (no_quarantine, "quarantine"),
    (first_come_sample, "cuts"),
    (learns_on_collect, "quarantine"),
    (champion_follows, "ramp"),
    (untrimmed, "contamination"),
]


@pytest.mark.parametrize(("defect", "check"), DEFECTS, ids=[d.__name__ for d, _ in DEFECTS])
def test_a_planted_defect_is_seen(defect: Callable[[pytest.MonkeyPatch], None], check: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        defect(patch)
        with pytest.raises(AssertionError):
            CHECKS[check]()


# the same over drawn cases


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 10_000), max_size=6), st.integers(0, 1_000))
def test_polls_do_not_matter(cuts: list[int], seed: int) -> None:
    check_cuts(cuts, seed)


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(st.integers(1, 13), max_size=5), st.integers(1, 4))
def test_boundaries_may_be_passed_together(silent: set[int], every: int) -> None:
    """A partition that was silent for hours opens the next epoch at once, or each in turn: the same models."""
    one, two = scorer(learn_epochs=every), scorer(learn_epochs=every)
    for epoch in range(14):
        frame = score_rows.rows(epoch, np.arange(200))
        for number in range(4):
            one.advance(number, epoch)
            if epoch not in silent:
                two.advance(number, epoch)
        if epoch not in silent:
            one.collect(one.score(frame))
            two.collect(two.score(frame))
    for number in range(4):
        one.advance(number, 20)
        two.advance(number, 20)
        assert same(models(one, number), models(two, number))
