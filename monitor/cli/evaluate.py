"""``monitor evaluate`` and ``monitor drill``: what the detector is worth, on made traffic and over one's own.

Exit status 1: an invariant that a suite measures does not hold (a score that depends on geography).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import ConfigOption, EngineOption, err, guarded, out, progress_bar
from .drill_live import PORT, drill_live
from .fitted import show

if TYPE_CHECKING:
    from ..evaluate.suite import Backtest, SuiteReport
    from ..offline import Detector

LogOption = Annotated[list[Path] | None, typer.Option("--log", metavar="LOG...", help="Request logs (contract 1).")]
MoreLogs = Annotated[list[Path] | None, typer.Argument(metavar="[LOG]...", help="Further logs of --log.")]
RulesOption = Annotated[Path | None, typer.Option("--rules", help="Directory of rules instead of the settings'.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Where the figures go as JSON.")]
WorkOption = Annotated[
    Path | None,
    typer.Option(
        "--work",
        help="Directory for logs, alerts and runs, kept: a suite that was stopped goes on there. Else a temporary one.",
    ),
]
ProcessesOption = Annotated[int | None, typer.Option("--processes", min=1, help="Local processes; default: one a CPU.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress, no table.")]


@guarded
def evaluate(
    more: MoreLogs = None,
    alerts: Annotated[Path | None, typer.Option(help="Alerts to score (contract 2).")] = None,
    truth: Annotated[Path | None, typer.Option(help="What is true of the log (contract 4).")] = None,
    log: LogOption = None,
    suite: Annotated[
        str | None, typer.Option(help="smoke, standard, full or nightly: simulate, detect and score.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Worlds of a suite.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first world.")] = 1,
    json_: JsonFile = None,
    html: Annotated[Path | None, typer.Option(help="Where one page with plots goes.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Where a suite's tables go as Markdown.")] = None,
    fill: Annotated[
        Path | None, typer.Option(help="A Markdown page: its marked tables of this suite and seeds are made anew.")
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(help="JSON of a suite that ran before: its tables and pages again, several added up over seeds."),
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Known detectors beside ours.")] = True,
    runs: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: only these runs of a suite, by name or first word (detector, mix, text, baselines); "
            "'campaign steps': these alone, with kinds of link or text taken out."
        ),
    ] = None,
    accounts: Annotated[int | None, typer.Option(min=1_000, help="Ordinary accounts of nightly; a million.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days of nightly; seven.")] = None,
    prompts: Annotated[
        list[Path] | None,
        typer.Option(
            help="Parquet of prompts, or a folder of prompts_*.parquet, benign or hostile by their `kind`: adds a "
            "semi-real world for each hostile file."
        ),
    ] = None,
    trace: Annotated[list[Path] | None, typer.Option(help="Parquet of arrivals and tokens for --prompts.")] = None,
    pilot: Annotated[
        Path | None,
        typer.Option(help="Folder of prompts_*.parquet: tests on text over composed tenants."),
    ] = None,
    fit: Annotated[
        Path | None, typer.Option(help="With --pilot: train the shape model that ships, from ship_ok rows, into FILE.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Measure honest simulated groups: the calibration of campaigns that ships, into FILE."),
    ] = None,
    config: ConfigOption = None,
    rules: RulesOption = None,
    work: WorkOption = None,
    processes: ProcessesOption = None,
    engine: EngineOption = "local",
    quiet: QuietOption = False,
) -> None:
    """Score alerts against the truth of a log, or run a suite that makes log, alerts and score."""
    from ..errors import BadInput, Problem

    logs = [*(log or ()), *(more or ())]
    if calibration is not None:
        if alerts or truth or logs or suite or pilot:
            raise BadInput([Problem("arguments", 0, "--calibration makes its own logs; leave the others out")])
        _calibrate(calibration, config, quiet)
        return
    if pilot is not None:
        if alerts or truth or logs or suite:
            raise BadInput([Problem("arguments", 0, "--pilot reads prompts alone; leave logs, alerts and suites out")])
        _pilot(pilot, fit, first_seed, json_, markdown, quiet)
        return
    if report:
        from ..evaluate.api import read_suites

        if alerts or truth or logs or suite:
            raise BadInput([Problem("arguments", 0, "--report reads what a suite wrote; leave logs and suites out")])
        _tell(read_suites(report), json_, html, markdown, fill, quiet)
        return
    if suite is not None:
        if alerts or truth or logs:
            raise BadInput([Problem("arguments", 0, "--suite makes its own logs; leave --alerts, --truth, --log out")])
        from ..evaluate import nightly

        if suite == nightly.NAME:
            from . import daily_campaigns, daily_links

            if prompts or trace:
                message = "nightly has rows and no requests: leave --prompts and --trace out"
                raise BadInput([Problem("arguments", 0, message)])
            judged = partial(daily_campaigns.judged, _detector(config, rules))
            own: dict[str, nightly.Linker] = {daily_campaigns.NAME: judged, daily_links.NAME: daily_links.linked}
            with _steps(suite, quiet) as progress:
                made = nightly.run_nightly(
                    seeds=seeds, first_seed=first_seed, accounts=accounts or nightly.ACCOUNTS,
                    days=days or nightly.DAYS, linkers=own, runs=_words(runs), progress=progress,
                )  # fmt: skip
            _tell(made, json_, html, markdown, fill, quiet)
            return
        if accounts or days:
            raise BadInput([Problem("arguments", 0, "--accounts and --days size nightly alone")])
        from ..engines import LOCAL, engine_of
        from ..evaluate.semireal import sources
        from ..evaluate.suite import run_suite

        # local: its own processes, as many as --processes says
        spread = engine_of(engine).run if engine != LOCAL else None
        real = sources(prompts or (), trace or ())
        detector = _detector(config, rules)
        with _folder(work) as folder, _steps(suite, quiet) as progress:
            made = run_suite(
                suite, detector, folder, seeds=seeds, first_seed=first_seed, processes=processes or os.cpu_count() or 1,
                with_baselines=baselines, switched_off=_variants(detector, _words(runs)), semi_real=real,
                runs=_words(runs), keep=work is not None, stamp=detector.stamp() if work is not None else "",
                spread=spread, progress=progress,
            )  # fmt: skip
        _tell(made, json_, html, markdown, fill, quiet)
        return
    missing = [n for n, given in (("--alerts", alerts), ("--truth", truth), ("--log", logs)) if not given]
    if missing:
        raise BadInput([Problem("arguments", 0, f"{', '.join(missing)} must be given, or --suite")])
    from ..evaluate import report as single
    from ..evaluate.api import evaluate_files

    result = evaluate_files(alerts or "", truth or "", logs, json_, html)
    if not quiet:
        for table in single.tables(result):
            show(table)
        out.print(single.summary(result), soft_wrap=True)


def _words(given: str | None) -> list[str]:
    """Comma-separated words."""
    return [word.strip() for word in (given or "").split(",") if word.strip()]


def _calibrate(file: Path, config: Path | None, quiet: bool) -> None:
    from ..calibration import SEEDS, measure
    from ..settings import load_settings

    with progress_bar("calibration", float(len(SEEDS)), quiet=quiet) as update:
        done = [0]

        def told(seed: int) -> None:
            done[0] += 1
            update(done[0], f"seed {seed}")

        file.write_bytes(measure(load_settings(config), progress=told))


@guarded
def drill(
    more: MoreLogs = None,
    log: LogOption = None,
    context: Annotated[Path | None, typer.Option(help="Context of the log (contract 5).")] = None,
    scenarios: Annotated[
        str | None, typer.Option(help="Comma-separated names or YAML files; default: the attacks that ship.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Over the topic, for ever, S1 unless told otherwise.")] = False,
    within: Annotated[float, typer.Option(min=0.1, help="--live: hours in which a campaign must be HIGH.")] = 6.0,
    every: Annotated[float, typer.Option(min=0.1, help="--live: hours from one campaign to the next.")] = 24.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="--live: end after so many campaigns.")] = None,
    study: Annotated[int, typer.Option(min=100, help="--live: requests looked at before the first.")] = 20_000,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="--live: of /metrics and health; 0: a free one.")] = PORT,
    earliest: Annotated[bool, typer.Option("--earliest", help="--live: from the beginning of the topic.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the overlay.")] = 1,
    worth: Annotated[bool, typer.Option("--worth/--no-worth", help="Also what each missing field is worth.")] = True,
    json_: JsonFile = None,
    config: ConfigOption = None,
    rules: RulesOption = None,
    work: WorkOption = None,
    processes: ProcessesOption = None,
    quiet: QuietOption = False,
) -> None:
    """Lay attacks over your own log, run the detector on it, and say on one page what it would have found.

    With `--live` one is laid over the topic as it comes, in shadow, again and again: a metric says when it was missed.

    The log is read, never written; the overlay's accounts begin with `drill:` and live in files of the drill alone.
    """
    from ..errors import BadInput, Problem
    from ..evaluate.api import write_drill
    from ..evaluate.drill import SCENARIOS
    from ..evaluate.drill import drill as run_drill

    logs = [*(log or ()), *(more or ())]
    if not logs and not live:
        raise BadInput([Problem("arguments", 0, "--log LOG must be given, or --live")])
    if live:
        from ..drilling import Plan

        plan = Plan(scenarios or "S1", within * 3_600, every * 3_600, study, seed, rounds)
        drill_live(config, plan, port, earliest)
    chosen = _words(scenarios) or list(SCENARIOS)
    detector = _detector(config, rules)
    with _folder(work) as folder, _steps("drill", quiet) as progress:
        report = run_drill(
            logs, detector, folder, context=context, scenarios=chosen, seed=seed, worth=worth,
            processes=processes or os.cpu_count() or 1, progress=progress,
        )  # fmt: skip
    write_drill(report, json_)
    if not quiet:
        out.print(report.page(), markup=False, soft_wrap=True, end="")


def _pilot(folder: Path, fit: Path | None, seed: int, json_: Path | None, markdown: Path | None, quiet: bool) -> None:
    """The pilot's protocol, or the model that ships."""
    from ..errors import BadInput, Problem
    from ..evaluate.pilot import Plan, report, run_pilot
    from ..evaluate.pilot.bank import read
    from ..evaluate.pilot.licensed import fit_shipped
    from ..offline import PromptSketches
    from ..pooled import ShapeModel

    frames, sketching = read(folder), PromptSketches(seed)
    try:
        if fit is not None:
            fit.write_text(fit_shipped(frames, sketching, seed).to_json(), "utf-8")
            return
        with _steps("pilot", quiet) as progress:
            made = run_pilot(frames, sketching, Plan(), seed, ShapeModel.shipped(), progress)
    except ValueError as e:
        raise BadInput([Problem(str(folder), 0, str(e))]) from None
    report.write(made, json_, markdown)
    if not quiet:
        for table in report.tables(made):
            show(table)


def _detector(config: Path | None, rules: Path | None) -> Detector:
    """The pipeline by the settings, whose problems are said before an hour of simulation, not after."""
    from .. import wiring
    from ..offline import Detector
    from ..settings import load_settings

    settings = load_settings(config)
    wiring.load(settings, (rules,) if rules is not None else ())
    return Detector(settings, rules)


def _variants(detector: Detector, runs: list[str]) -> dict[str, Backtest]:
    """The detector with one part off, by name; a part that the settings leave off already is left out.

    And the campaign steps alone, where they are asked for.
    """
    from .. import ablating

    off: dict[str, Backtest] = {}
    if any(word.startswith(ablating.NAME) for word in runs):
        off |= ablating.variants(detector)
    if detector.settings.score.anomaly.enabled:
        off["anomaly off"] = detector.without("score", "anomaly", "enabled")
    if detector.settings.score.classifier.model_dir is not None:
        off["classifier off"] = detector.without("score", "classifier", "model_dir")
    return off


def _tell(
    report: SuiteReport, json_: Path | None, html: Path | None, markdown: Path | None, fill: Path | None, quiet: bool
) -> None:
    """Files, tables, and exit status 1 where an invariant is broken."""
    from ..evaluate.api import fill_page, suite_markdown, suite_tables, write_suite

    write_suite(report, json_, html)
    if fill is not None:
        fill_page(fill, report)
    if markdown is not None:
        markdown.write_text(suite_markdown(report), "utf-8")
    if not quiet:
        for table in suite_tables(report):
            show(table)
    broken = [f for f in report.fairness if f.holds is False]
    for found in broken:
        err.print(f"{found.name}, seed {found.seed}: {found.changed} alerts changed ({found.reading})", style="red")
    if broken:
        raise typer.Exit(1)


@contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="monitor-") as made:
        yield Path(made)


@contextmanager
def _steps(label: str, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """``progress(done, total, note)``: a bar on a terminal, a line a step elsewhere, both on standard error."""
    with progress_bar(label, 1.0, quiet=quiet) as update:

        def step(done: int, total: int, note: str) -> None:
            update(done / max(total, 1), f"{done} of {total} · {note}")
            if not quiet and not err.is_terminal:
                err.print(f"{label}: {done} of {total}: {note}", markup=False, soft_wrap=True)

        yield step
