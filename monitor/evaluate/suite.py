"""Suites: simulate, run what is given, score; one composed world a seed, one report.

The detector comes in as ``backtest(log, context, alerts)``; it may be anything that reads contract 1 and
writes contract 2. Knows nothing of how it detects. Work is spread over local processes, or over whatever
``spread`` hands in (a Ray map, say).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import msgspec

from monitor.errors import BadInput, Problem
from monitor.simulate import Scenario, api

from . import ablation, baselines
from .fairness import TESTS, Fairness, compare, transform
from .groups import GroupCount, by_group
from .inputs import read_alerts, read_log, read_truth
from .mmd_table import MmdRow
from .score import CampaignScore, Evaluation, evaluate
from .semireal import Sources, mmd_rows
from .sizes import (
    LIVES,
    LIVES_ACCOUNTS,
    LIVES_DAYS,
    PAIR_ACCOUNTS,
    PAIRS,
    SIDES,
    SUITES,
    Size,
    batch_cast,
    composed_cast,
    mix_variant,
    pair_cast,
    size_variant,
)

Backtest = Callable[[Path, Path, Path], Mapping[str, Any]]
"""(log, context, alerts to write) to the summary of contract 3; picklable where more than one process runs."""
Spread = Callable[[Callable[["Job"], Any], Sequence["Job"]], Iterable[Any]]
"""As ``map``: of worlds to make first, then of runs."""
Progress = Callable[[int, int, str], None]
"""Called with (worlds made and runs done, how many of both in all, what was just done)."""
Named = tuple[str, int, float]
"""A hypothesis, in how many runs it is named, median hours until it is."""
_Made = TypeVar("_Made")

NO_TEXT = "metadata only"
BASELINES = "baselines"
"""All of them, among the runs that are asked for."""
_MADE = "written.json"
"""Beside a log that is whole: what it was asked to be, and what it holds."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: a world, a change to its log, and the detector (None: the baselines)."""

    name: str
    seed: int
    size: Size
    folder: Path
    backtest: Backtest | None
    variant: str = "composed"
    strip: str | None = None
    baseline: str | None = None
    prompts: tuple[Path, ...] = ()
    trace: tuple[Path, ...] = ()
    keep: bool = True
    """Whether the log may lie there after the run; else whoever is alone in a world takes it away."""
    stamp: str = ""
    """Of code, settings and rules: a run of the same stamp that lies there is not run again. None: all are run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scored run. ``summary`` is what the detector said of itself; ``groups`` whom it names among the honest, for the
    detector on the composed world."""

    name: str
    seed: int
    variant: str
    evaluation: Evaluation
    summary: Mapping[str, Any]
    groups: tuple[GroupCount, ...] = ()


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """All runs of a suite."""

    suite: str
    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    fairness: tuple[Fairness, ...] = ()
    mmd: tuple[MmdRow, ...] = ()
    runs: tuple[str, ...] = ()
    """What it was asked to be confined to; none: everything."""

    def of(self, name: str) -> list[Outcome]:
        """The runs of one name, one a seed."""
        return [o for o in self.outcomes if o.name == name]

    @property
    def names(self) -> list[str]:
        """Names of runs, in order."""
        return list(dict.fromkeys(o.name for o in self.outcomes))

    def time_to_alert(self) -> list[tuple[str, int, int, float | None, list[Named]]]:
        """(mix, size or batch, runs, found, median hours to HIGH, hypotheses named) of the worlds made for it."""
        rows = []
        for name in self.names:
            if name.startswith(("mix ", "size ", "batch ")):
                hits = [c for o in self.of(name) for c in o.evaluation.campaigns]
                hours = [c.hours_to_high for c in hits if c.hours_to_high is not None]
                after = median(hours) if hours else None
                rows.append((name, len(hits), sum(c.found for c in hits), after, _named(hits)))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {"suite": self.suite, "seeds": list(self.seeds), "outcomes": [asdict(o) for o in self.outcomes],
                "time_to_alert": [list(r) for r in self.time_to_alert()],
                "fairness": [asdict(f) | {"holds": f.holds, "reading": f.reading} for f in self.fairness],
                "mmd": [asdict(m) for m in self.mmd], "runs": list(self.runs)}  # fmt: skip

    def to_json(self) -> str:
        """Stable JSON."""
        return json.dumps(self.as_dict(), indent=1, sort_keys=True, default=str) + "\n"


def _named(hits: Sequence[CampaignScore]) -> list[Named]:
    """Hypotheses that alerts name, what most runs name first."""
    hours: dict[str, list[float]] = {}
    for hit in hits:
        for hypothesis, after in hit.named.items():
            hours.setdefault(hypothesis, []).append(after)
    return sorted(((h, len(of), median(of)) for h, of in hours.items()), key=lambda x: (-x[1], x[0]))


def _cast(job: Job) -> list[str | Scenario]:
    for pair in PAIRS:
        if job.variant.startswith(f"{pair.name}, "):
            return pair_cast(pair, job.variant.rsplit(", ")[-1])
    if job.variant.startswith("mix "):
        return [mix_variant(float(job.variant.split()[1]) / 100)]
    if job.variant.startswith("size "):
        return [size_variant(int(job.variant.split()[1]))]
    if job.variant.startswith("batch "):
        return batch_cast(int(job.variant.split()[1]))
    return composed_cast(job.size)


def _asked(job: Job) -> dict[str, Any]:
    """What the job's world was asked to be."""
    return {"accounts": job.size.accounts, "days": job.size.days, "heavy_cap": job.size.heavy_cap,
            "cast": [s if isinstance(s, str) else s.model_dump(mode="json") for s in _cast(job)],
            "prompts": [str(p) for p in job.prompts], "trace": [str(p) for p in job.trace]}  # fmt: skip


def _world(job: Job) -> Path:
    """The world's files, made once for all jobs that share them, and anew where a kept folder holds another world."""
    folder = _folder_of(job)
    done, asked = folder / _MADE, _asked(job)
    if not done.exists() or json.loads(done.read_text()).get("asked") != asked:
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        made = api.simulate(_cast(job), folder / "log.ndjson", accounts=job.size.accounts, days=job.size.days,
                            seed=job.seed, heavy_cap=job.size.heavy_cap, prompts=job.prompts,
                            trace=job.trace)  # fmt: skip
        done.write_text(json.dumps({"asked": asked, **made.as_dict()}))
    return folder


def _kept(job: Job) -> Outcome | None:
    """The run as it lies in a kept folder, of the same world and stamp; None where there is none."""
    file = _folder_of(job) / f"run-{_slug(job.name)}.json"
    if not job.stamp or not file.exists():
        return None
    saved = json.loads(file.read_text())
    if (saved["stamp"], saved["asked"]) != (job.stamp, _asked(job)):
        return None
    return msgspec.convert(saved["outcome"], Outcome)


def run_job(job: Job) -> Outcome:
    """Make the world if need be, run the detector or baseline over it, score; or take a run that lies there."""
    kept = _kept(job)
    if kept is not None:
        return kept
    folder = _world(job)
    log, context, truth = (folder / f"log{part}.ndjson" for part in ("", ".context", ".truth"))
    base = log
    if job.strip is not None:
        log = folder / f"{_slug(job.name)}.ndjson"
        ablation.rewrite(base, log, transform_of(job.strip))
    alerts = _alerts_of(job)
    summary: Mapping[str, Any] = {}
    if job.baseline is not None:
        found = baselines.run(job.baseline, log)
    else:
        assert job.backtest is not None
        summary = job.backtest(log, context, alerts)
        found = read_alerts(alerts)
    if log != base:
        log.unlink()
    # scored on the whole log: what a detector is not shown still leaks
    told = list(read_truth(truth))
    whole = job.name == "detector" and job.variant == "composed"
    groups = by_group(base, found, {t.account_id for t in told if t.abusive}) if whole else ()
    scored = evaluate(found, told, read_log([base]))
    outcome = Outcome(job.name, job.seed, job.variant, scored, summary, groups)
    if not job.keep:
        base.unlink()
        (folder / _MADE).unlink()
    if job.stamp:
        saved = {"stamp": job.stamp, "asked": _asked(job), "outcome": asdict(outcome)}
        file = folder / f"run-{_slug(job.name)}.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps(saved, default=str))
        part.replace(file)
    return outcome


def _slug(name: str) -> str:
    return name.replace(" ", "-").replace("%", "").replace(",", "")


def _folder_of(job: Job) -> Path:
    return job.folder / f"seed{job.seed}" / _slug(job.variant)


def _alerts_of(job: Job) -> Path:
    return _folder_of(job) / f"alerts-{_slug(job.name)}.ndjson"


def transform_of(name: str) -> ablation.Transform:
    """The transform of an ablation's or fairness test's name."""
    if name in ablation.GROUPS:
        return ablation.without(ablation.GROUPS[name])
    return transform(name)


def jobs_of(
    suite: str, seeds: Sequence[int], folder: Path, backtest: Backtest, with_baselines: bool = True,
    switched_off: Mapping[str, Backtest] | None = None, semi_real: Sources | None = None, runs: Sequence[str] = (),
) -> list[Job]:  # fmt: skip
    """All jobs of a suite; ``switched_off`` are the detector with a part of it off. ``BadInput`` for no such suite.

    ``runs``: only those of these names, or whose names begin with one of these words, or ``baselines``; ``BadInput``
    for one of none.
    """
    if suite not in SUITES:
        raise BadInput([Problem("arguments", 0, f"no such suite; there are {', '.join(SUITES)}, nightly", "suite")])
    size, jobs = SUITES[suite], []
    for seed in seeds:
        jobs.append(Job("detector", seed, size, folder, backtest))
        if with_baselines:
            jobs += [Job(name, seed, size, folder, None, baseline=name) for name in baselines.NAMES]
        jobs += [Job(name, seed, size, folder, backtest, strip=name) for name in size.ablations]
        if size.ablations:
            jobs += [Job(name, seed, size, folder, other) for name, other in (switched_off or {}).items()]
        if size.fairness:
            jobs += [Job(n, seed, size, folder, backtest, strip=n) for n in TESTS]
        names = [f"mix {m:.0%}".replace("%", "") for m in size.mixes] + [f"size {n}" for n in size.sizes]
        jobs += [Job(n, seed, size, folder, backtest, variant=n) for n in names]
        for n in size.batches:
            jobs.append(Job(f"batch {n}", seed, size, folder, backtest, variant=f"batch {n}"))
            jobs.append(Job(f"batch {n}, {NO_TEXT}", seed, size, folder, backtest, f"batch {n}", strip=NO_TEXT))
        for pair in PAIRS if size.pairs else ():
            small = replace(size, accounts=min(size.accounts, PAIR_ACCOUNTS), days=pair.days)
            sides = [f"{pair.name}, {side}" for side in SIDES]
            jobs += [Job(n, seed, small, folder, backtest, variant=n) for n in sides]
        if size.lives:
            long = replace(size, accounts=min(size.accounts, LIVES_ACCOUNTS), days=LIVES_DAYS)
            jobs.append(Job(LIVES, seed, long, folder, backtest, variant=LIVES))
        real = semi_real or Sources()
        jobs += [
            Job(n, seed, size, folder, backtest, variant=n, prompts=files, trace=real.trace)
            for n, files in real.worlds.items()
        ]
    words = [name for word in runs for name in (baselines.NAMES if word == BASELINES else (word,))]
    chosen = named(suite, [job.name for job in jobs], words)
    return [job for job in jobs if job.name in chosen]


def named(suite: str, names: Sequence[str], words: Sequence[str]) -> set[str]:
    """Those of ``names`` that are, or begin with, one of ``words``; all where there is none.

    Raises ``BadInput`` for words that none is.
    """

    def called(name: str, word: str) -> bool:
        return name == word or name.startswith((f"{word} ", f"{word}, "))

    there = ", ".join(dict.fromkeys(names))
    problems = [
        Problem("arguments", 0, f"no run of {suite} is called {word!r}; there are {there}", "runs")
        for word in words if not any(called(name, word) for name in names)
    ]  # fmt: skip
    if problems:
        raise BadInput(problems)
    return {name for name in names if not words or any(called(name, word) for word in words)}


def run_suite(
    suite: str,
    backtest: Backtest,
    folder: str | Path,
    *,
    seeds: int = 1,
    first_seed: int = 1,
    processes: int = 1,
    with_baselines: bool = True,
    switched_off: Mapping[str, Backtest] | None = None,
    semi_real: Sources | None = None,
    runs: Sequence[str] = (),
    keep: bool = True,
    stamp: str = "",
    spread: Spread | None = None,
    progress: Progress | None = None,
) -> SuiteReport:
    """Run a suite over ``seeds`` worlds under ``folder``; ``processes`` local ones, or as ``spread`` does.

    ``switched_off`` are further detectors by name, run on the composed world; ``semi_real`` adds a world for each
    source of attack text; ``runs`` leaves out all others (see :func:`jobs_of`). Without ``keep`` the log of a world
    that one run reads goes with it: a suite's logs together are many times its largest. With a ``stamp`` of code and
    settings, runs of the same stamp that lie under ``folder`` are taken as they are: an interrupted suite goes on.
    Raises ``BadInput`` for an unknown suite or run, or no seed.
    """
    if seeds < 1:
        raise BadInput([Problem("arguments", 0, "at least one seed is needed", "seeds")])
    numbers = tuple(range(first_seed, first_seed + seeds))
    jobs = jobs_of(suite, numbers, Path(folder), backtest, with_baselines, switched_off, semi_real, runs)
    # worlds of several runs first, one each: two must not write the same one
    readers = Counter((j.seed, j.variant) for j in jobs)
    jobs = [replace(j, keep=keep or readers[j.seed, j.variant] > 1, stamp=stamp) for j in jobs]
    shared = [j for j in jobs if readers[j.seed, j.variant] > 1 and _kept(j) is None]
    worlds = list({(j.seed, j.variant): j for j in shared}.values())
    done, total = [0], len(worlds) + len(jobs)

    def told(job: Job, what: str) -> None:
        done[0] += 1
        if progress is not None:
            progress(done[0], total, f"{what}, seed {job.seed}")

    if spread is None and processes > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            _each(pool, _world, worlds, lambda job: told(job, f"world {job.variant}"))
            outcomes = _each(pool, run_job, jobs, lambda job: told(job, job.name))
    else:
        for job, _ in zip(worlds, (spread or map)(_world, worlds), strict=True):
            told(job, f"world {job.variant}")
        outcomes = []
        for job, outcome in zip(jobs, (spread or map)(run_job, jobs), strict=True):
            outcomes.append(outcome)
            told(job, job.name)
    mmd = tuple(mmd_rows(semi_real)) if semi_real is not None and any(job.prompts for job in jobs) else ()
    return SuiteReport(suite, numbers, tuple(outcomes), _compared(jobs), mmd, tuple(runs))


def _each(
    pool: ProcessPoolExecutor, work: Callable[[Job], _Made], jobs: Sequence[Job], told: Callable[[Job], None]
) -> list[_Made]:
    """Results in the order of ``jobs``, each told as it ends; the first that fails ends them all."""
    waiting = {pool.submit(work, job): job for job in jobs}
    try:
        for future in as_completed(waiting):
            future.result()
            told(waiting[future])
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return [future.result() for future in waiting]


def _compared(jobs: Sequence[Job]) -> tuple[Fairness, ...]:
    """The alerts of each fairness test against the detector's own on the same world; none where that was left out."""
    own = {job.seed: read_alerts(_alerts_of(job)) for job in jobs if job.name == "detector"}
    return tuple(
        compare(job.name, job.seed, own[job.seed], read_alerts(_alerts_of(job)))
        for job in jobs if job.strip in TESTS and job.seed in own
    )  # fmt: skip
