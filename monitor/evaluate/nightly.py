"""The nightly suite: a week of a million accounts as daily rows, 25,000 of them a campaign, to bound false alerts.

A linker reads :class:`~monitor.simulate.daily.DayRows` day after day and yields alerts whose accounts are the
decimal numbers of the rows; nothing else of the world is handed to it. Two linkers that anybody would write first
stand beside it. Knows nothing of how the detector links and tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import polars as pl

from monitor.errors import BadInput, Problem
from monitor.simulate.arrivals import DAY
from monitor.simulate.daily import LINKS, DailyWorld, DayRows

from .inputs import Ledger, Revision, Truth
from .score import evaluate
from .suite import Outcome, Progress, SuiteReport, named

Linker = Callable[[Iterator[DayRows], float], Iterable[Revision]]
"""(days, epoch second at which the first begins) to alerts: ``accounts`` as decimal numbers, ``revised_at`` epoch."""

NAME = "nightly"
SCENARIOS = ("S4", *(f"B{i}" for i in range(1, 16)))
ACCOUNTS, DAYS = 1_000_000, 7
_SOMEONE, _CROWD = 3, 2_000
"""A value links from the third account on; what thousands share links nobody (an SDK's build, a carrier's network)."""


class _Recorder:
    """Hands days on and keeps of each only who called how much, for the score."""

    def __init__(self, world: DailyWorld, told: Callable[[int], None]):
        self._world, self._kept, self.links, self._told = world, list[pl.DataFrame](), 0, told

    def days(self) -> Iterator[DayRows]:
        for number, day in enumerate(self._world, 1):
            self.links += len(day.links)
            tokens = (pl.col("input_tokens") + pl.col("output_tokens")).cast(pl.Int64).alias("tokens")
            self._kept.append(day.accounts.select("account", "day", "requests", tokens))
            yield day
            self._told(number)

    def ledger(self) -> Ledger:
        """An account-day stands at the middle of its day."""
        rows = pl.concat(self._kept)
        at = self._world.start_ts + (rows["day"].to_numpy() + 0.5) * DAY
        names = [str(i) for i in range(len(self._world))]
        return Ledger.of_days(names, rows["account"].to_numpy(), at, rows["requests"].to_numpy(), rows["tokens"])


def truth_of(world: DailyWorld) -> list[Truth]:
    """Contract 4 by account number; lives are widened to whole days, as the rows are."""
    first = world.start_ts
    return [
        Truth(str(t["account"]), t["actor"], t["scenario"], t["campaign"], t["also"],
              first + (t["first_s"] - first) // DAY * DAY, t["last_s"])
        for t in world.truth().iter_rows(named=True)
    ]  # fmt: skip


def _sharing(name: str, kinds: tuple[str, ...], days: Iterator[DayRows], start_ts: float) -> Iterator[Revision]:
    """Campaigns of accounts that share a value of every one of ``kinds``, at the end of the day on which they do."""
    known: set[tuple[int, ...]] = set()
    seen: list[pl.DataFrame] = []
    for number, day in enumerate(days):
        pair: pl.DataFrame | None = None
        for kind in kinds:
            rows = day.links.filter(pl.col("kind") == LINKS.index(kind)).select("account", pl.col("value").alias(kind))
            pair = rows if pair is None else pair.join(rows, on="account")
        assert pair is not None
        seen = [pl.concat([*seen, pair]).unique()]
        groups = (
            seen[0].group_by(kinds).agg(pl.col("account").sort()).with_columns(pl.col("account").list.len().alias("n"))
        )
        groups = groups.filter(pl.col("n").is_between(_SOMEONE, _CROWD)).sort(
            "n", pl.col("account").list.first(), *kinds
        )
        for row in groups.iter_rows(named=True):
            key = (*(row[k] for k in kinds), row["n"])
            if key in known:
                continue
            known.add(key)
            yield Revision(
                alert_id=f"{name}/" + "/".join(str(row[k]) for k in kinds), kind="campaign", severity="high",
                revised_at=start_ts + (number + 1) * DAY, revision=number + 1,
                hypothesis="account_farm", accounts=[str(a) for a in row["account"]],
            )  # fmt: skip


def shared_payment(days: Iterator[DayRows], start_ts: float) -> Iterable[Revision]:
    """Three accounts on one payment instrument."""
    return _sharing("payment", ("payment",), days, start_ts)


def shared_prefix_and_template(days: Iterator[DayRows], start_ts: float) -> Iterable[Revision]:
    """Three accounts that share an egress /24 and a template."""
    return _sharing("prefix+template", ("prefix", "template"), days, start_ts)


BASELINES: Mapping[str, Linker] = {
    "shared payment": shared_payment, "shared network and template": shared_prefix_and_template,
}  # fmt: skip


def run_night(
    name: str, linker: Linker, world: DailyWorld, told: Callable[[int], None] = lambda day: None
) -> Outcome:  # fmt: skip
    """Feed ``world`` to ``linker`` and score what it says; ``told`` each day that it has read, from 1."""
    recorder = _Recorder(world, told)
    alerts = list(linker(recorder.days(), world.start_ts))
    log = recorder.ledger()
    read = {"account_days": int(log.account_days.sum()), "links": recorder.links, "alerts": len(alerts)}
    return Outcome(name, world.seed, "composed", evaluate(alerts, truth_of(world), log), read)


def run_nightly(
    *, seeds: int = 1, first_seed: int = 1, accounts: int = ACCOUNTS, days: int = DAYS,
    linkers: Mapping[str, Linker] | None = None, scenarios: tuple[str, ...] = SCENARIOS,
    runs: Sequence[str] = (), progress: Progress | None = None,
) -> SuiteReport:  # fmt: skip
    """A world of each seed, read once by each linker: ``linkers`` (the monitor's own is called detector), baselines.

    ``runs`` as in :func:`~monitor.evaluate.suite.jobs_of`. Raises ``BadInput`` for no seed, or no run of a name.
    """
    if seeds < 1:
        raise BadInput([Problem("arguments", 0, "at least one seed is needed", "seeds")])
    numbers = tuple(range(first_seed, first_seed + seeds))
    every = {**(linkers or {}), **BASELINES}
    chosen = named(NAME, [*every], runs)
    every = {name: linker for name, linker in every.items() if name in chosen}
    outcomes: list[Outcome] = []
    for seed in numbers:
        world = DailyWorld(scenarios, accounts, days, seed)
        for name, linker in every.items():
            before, note = len(outcomes) * days, f"{name}, seed {seed}"

            def told(day: int, before: int = before, note: str = note) -> None:
                if progress is not None:
                    progress(before + day, seeds * len(every) * days, f"day {day} of {note}")

            outcomes.append(run_night(name, linker, world, told))
    return SuiteReport(NAME, numbers, tuple(outcomes), runs=tuple(runs))
