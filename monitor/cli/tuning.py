"""``monitor rules backtest|explain|shadow|promote`` and ``monitor explain``: from a log to a rule that fits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BadInput, MonitorError, Problem
from .common import ConfigOption, EngineOption, JsonOption, err, guarded, out, progress_bar, table, write_json
from .tuned import missing, show_changes, show_curve, show_looked, when

if TYPE_CHECKING:
    from ..rules import RuleSet
    from ..settings import Settings
    from ..tuning import Looked, Rows

InputOption = Annotated[list[Path] | None, typer.Option("--input", help="Log to read; may be given again.")]
RowsOption = Annotated[
    Path | None, typer.Option("--rows", help="Directory that keeps the log's rows: a second command needs no --input.")
]
ContextOption = Annotated[list[Path] | None, typer.Option("--context", help="Context events; may be given again.")]
FormatOption = Annotated[str | None, typer.Option("--format", help="Format of the log; the settings' without.")]
WarmupOption = Annotated[list[Path] | None, typer.Option("--warmup", help="Logs that fill the baselines first.")]
FromOption = Annotated[
    str | None, typer.Option("--from", help="Judge from here on, as 2026-11-25T14:05:00Z; the log before it warms up.")
]
ToOption = Annotated[str | None, typer.Option("--to", help="Judge up to here.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the sketch key where the settings have none.")]
DirsOption = Annotated[list[Path] | None, typer.Option("--rules", help="Directory of rules; may be given again.")]
FileOption = Annotated[Path | None, typer.Option("--file", help="Alerts of a backtest: explain from their evidence.")]
AtOption = Annotated[str | None, typer.Option("--at", help="The row at this event time, not the one that says most.")]


@guarded
def backtest(
    input: InputOption = None,
    rows: RowsOption = None,
    rules: DirsOption = None,
    against: Annotated[
        list[Path] | None, typer.Option("--against", help="Rules to compare with, as --rules; without: the settings'.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="rule.param=FROM:TO:POINTS: try a range of values instead.")
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    context: ContextOption = None,
    format: FormatOption = None,
    warmup: WarmupOption = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="Who is what (contract 4): shown beside.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Where the same goes as one HTML file.")] = None,
    seed: SeedOption = 1,
    engine: EngineOption = "local",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which alerts NEW rules gain and lose against OLD ones, or how a param's value changes what a rule finds.

    The log is read once, under the OLD rules; the rows are then judged by each set, the sets beside each other on an
    engine that has several slots (Ray: the rows must lie where every node sees them). Scores that learn (anomaly) are
    those of the OLD rules' run.
    """
    from ..engines import engine_of
    from ..evaluate.inputs import read_truth
    from ..tuning import Alone, compare, judged_alone, parse_sweep, replay
    from ..tuning import sweep as run_sweep
    from ..tuning.page import comparison_page, curve_page

    settings = _settings(config)
    old_dirs = _dirs(settings, against)
    old = _load(settings, old_dirs)
    new = _load(settings, rules) if rules else old
    if sweep is None and not rules:
        raise BadInput([Problem("arguments", 0, "name --rules NEW to compare, or --sweep rule.param=FROM:TO:POINTS")])
    asked = parse_sweep(sweep, new) if sweep is not None else None
    known = read_truth(truth) if truth is not None else []
    on = engine_of(engine)
    with _rows(settings, old_dirs, input, rows, context, format, warmup, seed, from_, to) as held:
        if asked is not None:
            curve = run_sweep(held, new, asked, known, on.run, on.slots())
            _write(html, lambda: curve_page(curve))
            write_json(curve.as_dict()) if as_json else show_curve(curve)
            return
        sets = [old, new]
        # one pass for both, where they would only take turns
        before, after = replay(held, sets) if on.slots() == 1 else on.run(judged_alone, [Alone(held, s) for s in sets])
        found = compare(before, after, known)
        _write(html, lambda: comparison_page(found))
        write_json(found.as_dict()) if as_json else show_changes(found)


@guarded
def explain_rule(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Id of the rule.")],
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account, or a campaign's id.")],
    input: InputOption = None,
    rows: RowsOption = None,
    file: FileOption = None,
    at: AtOption = None,
    rules: DirsOption = None,
    context: ContextOption = None,
    format: FormatOption = None,
    seed: SeedOption = 1,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a rule apart on an account: each term with its value and margin, on the row that says most.

    From a log (--input), from kept rows (--rows), or from the evidence of an alert: of a file, else out of Redis.
    """
    settings = _settings(config)
    loaded = _load(settings, rules)
    if rule not in loaded.rules:
        raise BadInput([Problem(rule, 0, f"no such rule; there are {', '.join(loaded.rules)}")])
    alone = replace(loaded, rules={rule: loaded.rules[rule]})
    looked = _looked(settings, alone, account, input, rows, file, at, rules, context, format, seed)
    if not looked:
        over = loaded.rules[rule].over
        raise MonitorError(f"{account} has no row of {over}s here, so {rule} had nothing to look at")
    write_json([found.as_dict() for found in looked]) if as_json else show_looked(looked)


@guarded
def explain_account(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account, or a campaign's id.")],
    input: InputOption = None,
    rows: RowsOption = None,
    file: FileOption = None,
    at: AtOption = None,
    rules: DirsOption = None,
    context: ContextOption = None,
    format: FormatOption = None,
    seed: SeedOption = 1,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What every rule makes of an account: which fired and when, and what is missing where one came near."""
    settings = _settings(config)
    loaded = _load(settings, rules)
    looked = _looked(settings, loaded, account, input, rows, file, at, rules, context, format, seed)
    if not looked:
        raise MonitorError(f"nothing is known of {account} here: it has no row and no alert")
    looked.sort(key=lambda f: (-f.fired, -f.true, f.open_terms, f.rule.id))
    if as_json:
        write_json([found.as_dict() for found in looked])
        return
    lines = [
        (f.rule.id, f.rule.mode, f.subject if f.rule.over == "campaign" else "", f"{f.rows:,}", f"{f.true:,}",
         f"{f.fired:,}", when(f.first), missing(f)) for f in looked
    ]  # fmt: skip
    columns = ("rule", "mode", "campaign", "rows", "true", "fired", "first", "what is missing")
    out.print(table(f"{account}: {len(looked)} rules", columns, lines))
    show_looked([f for f in looked if f.fired])


@guarded
def shadow(
    file: Annotated[Path | None, typer.Option("--file", help="Alerts of a backtest instead of Redis.")] = None,
    rules: DirsOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the rules in shadow would have said: alerts, whom, how many were known already, what people decided."""
    from ..tuning import statistics
    from .alerts import read_alerts

    settings = _settings(config)
    loaded = _load(settings, rules)
    alerts, states = (read_alerts(file), None) if file is not None else _live(settings)
    found = statistics(alerts, loaded, states)
    if as_json:
        write_json([s.as_dict() for s in found])
        return
    lines = [
        (s.rule, s.status, s.alerts, s.subjects, " ".join(f"{k} {v}" for k, v in s.severity.items()), s.also, s.new,
         s.confirmed, s.false_positive, "" if s.per_week is None else f"{s.per_week:g}") for s in found
    ]  # fmt: skip
    columns = ("rule", "status", "alerts", "subjects", "severities", "known already", "new", "confirmed",
               "false positive", "a week")  # fmt: skip
    out.print(table(f"{len(found)} rules in shadow", columns, lines))


@guarded
def promote(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Id of the rule.")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Its directories; none: those of the settings.")] = None,
    to: Annotated[str, typer.Option("--to", help="alert, shadow or off.")] = "alert",
    dry: Annotated[bool, typer.Option("--dry-run", help="Say what would be changed.")] = False,
    config: ConfigOption = None,
) -> None:
    """Set a rule's mode in its file (or in the override that sets it), in place, and say what to do next."""
    from ..features.catalogue import CLIENT_CLASSES
    from ..features.vocabulary import CATALOGUE
    from ..rules.promote import promote as change

    if to not in ("alert", "shadow", "off"):
        raise BadInput([Problem("arguments", 0, f"--to is alert, shadow or off, not {to!r}")])
    settings = _settings(config)
    dirs = [*(paths or settings.rules.dirs)]
    if not dirs:
        why = "name the directories of your rules, or set rules.dirs: those of the package stay as they are"
        raise BadInput([Problem("arguments", 0, why)])
    loaded = _load(settings, dirs)
    done = change(rule, loaded, dirs, CATALOGUE, CLIENT_CLASSES, settings.rules.policy, to, dry)
    word = "would change" if dry else "changed"
    out.out(f"{done.path}:{done.line}: {word} mode {done.before} to {done.after}", highlight=False)
    if not dry:
        for line in _next_steps(loaded.rules[rule].severity, done.after):
            out.out(line, highlight=False)


@guarded
def export(
    destination: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    input: InputOption = None,
    rows: RowsOption = None,
    every: Annotated[str, typer.Option(help="tick: all rows; hour or day: the last of each subject in it.")] = "tick",
    from_: FromOption = None,
    to: ToOption = None,
    context: ContextOption = None,
    format: FormatOption = None,
    warmup: WarmupOption = None,
    seed: SeedOption = 1,
    config: ConfigOption = None,
) -> None:
    """Write a log's feature rows and scores to a Parquet file, for a notebook.

    Columns: subject, at (end of the tick, UTC), partition, tick, client_class, running totals, then every name of
    `monitor features list` and every score. Null means not known. No text, no IP address.
    """
    from ..tuning.export import EVERY
    from ..tuning.export import export as write

    if every not in EVERY:
        raise BadInput([Problem("arguments", 0, f"--every is {', '.join(EVERY)}, not {every!r}")])
    settings = _settings(config)
    with _rows(settings, _dirs(settings, None), input, rows, context, format, warmup, seed, from_, to) as held:
        count = write(held, destination, every)
    out.out(f"{count:,} rows to {destination}", highlight=False)


def _next_steps(severity: str, mode: str) -> list[str]:
    steps = [
        "1. review and commit the file; `monitor rules lint` and `monitor rules test` must pass",
        "2. a running monitor takes it at the next epoch, within rules.reload_s and an hour of event time; "
        "abusemon_rules_last_reload_successful stays 1",
    ]
    if mode == "alert":
        steps += [
            f"3. its alerts (at most {severity}) reach the sinks from then on: watch abusemon_rule_firings_total",
            "4. back, if it was wrong: the same command with --to shadow",
        ]
    return steps


# ------------------------------------------------------------------------------------------------------- inside


def _settings(config: Path | None) -> Settings:
    from ..settings import load_settings

    return load_settings(config)


def _dirs(settings: Settings, given: Sequence[Path] | None) -> list[Path]:
    from ..wiring import rule_paths

    return rule_paths(settings, given or ())


def _load(settings: Settings, given: Sequence[Path] | None) -> RuleSet:
    from ..features.catalogue import CLIENT_CLASSES
    from ..features.vocabulary import CATALOGUE
    from ..rules import load_rules

    # their examples are for `rules test`: a value that is on trial may well break one
    return load_rules(_dirs(settings, given), CATALOGUE, CLIENT_CLASSES, settings.rules.policy, tests=False)


@contextmanager
def _rows(
    settings: Settings, dirs: Sequence[Path], logs: Sequence[Path] | None, directory: Path | None,
    context: Sequence[Path] | None, format: str | None, warmup: Sequence[Path] | None, seed: int,
    from_: str | None = None, to: str | None = None, subject: str | None = None,
) -> Iterator[Rows]:  # fmt: skip
    """Rows made of the logs, kept in ``directory`` where one is named, or those that lie there already."""
    from ..tuning import Rows, record

    if not logs:
        if directory is None:
            raise BadInput([Problem("arguments", 0, "name --input LOG, or --rows DIRECTORY with rows in it")])
        if from_ or to or warmup or context:
            raise BadInput([Problem("arguments", 0, "--from, --to, --warmup and --context go with --input")])
        yield Rows.open(directory)
        return
    with TemporaryDirectory(prefix="monitor-rows-") as made, progress_bar("rows", None) as update:
        ruled = settings.model_copy(update={"rules": settings.rules.model_copy(update={"dirs": list(dirs)})})
        yield record(
            logs, directory or Path(made), settings=ruled, context=context or (), format=format, warmup=warmup or (),
            seed=seed, from_ms=_ms(from_), to_ms=_ms(to), subject=subject,
            progress=lambda events, raised: update(events, f"{events:,} requests"),
        )  # fmt: skip


def _ms(text: str | None) -> int:
    from ..casework import parse_time

    return 0 if text is None else round(parse_time(text) * 1000)


def _looked(
    settings: Settings, loaded: RuleSet, account: str, logs: list[Path] | None, directory: Path | None,
    file: Path | None, at: str | None, dirs: list[Path] | None, context: list[Path] | None, format: str | None,
    seed: int,
) -> list[Looked]:  # fmt: skip
    from ..tuning import look, of_alert
    from .alerts import read_alerts

    if logs or directory is not None:
        subject = account if directory is None else None
        ruled = _dirs(settings, dirs)
        with _rows(settings, ruled, logs, directory, context, format, None, seed, subject=subject) as held:
            return look(held, loaded, account, None if at is None else _ms(at) / 1000)
    if at is not None:
        raise BadInput([Problem("arguments", 0, "--at goes with --input or --rows: an alert has its last values only")])
    alerts = read_alerts(file) if file is not None else _live(settings, account)[0]
    last = {a.alert_id: a for a in sorted(alerts, key=lambda a: a.revision)}
    mine = [a for a in last.values() if a.subject == account or account in a.members]
    if not mine:
        where = str(file) if file is not None else "Redis"
        raise MonitorError(f"{where} has no alert on {account}: give --input LOG to look at a log")
    err.print("from the evidence of alerts: what they do not carry is unknown here", style="yellow")
    if file is None:
        from ..casework import Desk
        from .casework import reader

        for a in mine:
            Desk(settings).note(reader(), "explain", a.alert_id)
    return [found for a in mine for found in of_alert(a, loaded, account)]


def _live(settings: Settings, account: str | None = None) -> tuple[list[Any], dict[str, str]]:
    """Newest revisions out of both streams, and the states of their cases."""
    from ..store.alert_keys import AlertKeys
    from ..store.cases import states
    from ..store.readers import list_alerts
    from ..store.redis_link import RedisOptions, connect

    client, keys = connect(RedisOptions.of(settings.redis)), AlertKeys(settings.redis.key_prefix, settings.redis.stream)
    found = []
    for mode in ("alert", "shadow"):
        found += list_alerts(
            client, keys, limit=1 << 30, mode=mode,
            wanted=lambda a: account is None or a.subject == account or account in a.members,
        )  # fmt: skip
    return found, states(client, keys, [a.alert_id for a in found])


def _write(path: Path | None, text: Any) -> None:
    if path is not None:
        path.write_text(text(), "utf-8", newline="\n")
        err.print(f"written to {path}", markup=False, highlight=False)
