"""``monitor alerts tail|list|show|top|verdict``: what was raised, out of Redis or out of an alerts file."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ..errors import BadInput, MonitorError, Problem
from ..fields import SEVERITIES
from ..plain import clean, json_shown
from ..records import Alert
from .common import ConfigOption, JsonOption, err, guarded, out, table, write_json

app = typer.Typer(no_args_is_help=True, help="Read alerts.")
FileOption = Annotated[Path | None, typer.Option("--file", help="Read an alerts file instead of Redis.")]
_WIDE = 150
SeverityOption = Annotated[str, typer.Option(help=f"At least this: {', '.join(SEVERITIES)}.")]


@app.command()
@guarded
def tail(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    all_: Annotated[bool, typer.Option("--all", help="From the beginning of the stream.")] = False,
    until_idle: Annotated[float | None, typer.Option(help="Stop after so many seconds without an alert.")] = None,
) -> None:
    """Follow the stream: one line for each alert and revision."""
    from ..store.readers import tail as follow

    client, keys = _redis(config)
    after, silent = ("0" if all_ else "$"), time.monotonic()
    while until_idle is None or time.monotonic() - silent < until_idle:
        for entry, alert in follow(client, keys, after, wait_s=0.5):
            after, silent = entry, time.monotonic()
            text = json_shown(msgspec.json.encode(alert).decode()) if as_json else line(alert)
            out.out(text, highlight=False)


@app.command("list")
@guarded
def list_(
    config: ConfigOption = None,
    file: FileOption = None,
    severity: SeverityOption = "info",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """The newest revision of each alert, newest first."""
    rank = _rank(severity)
    if file is not None:
        found = [a for a in _latest(read_alerts(file)) if _rank(a.severity) >= rank][:limit]
    else:
        from ..store.readers import list_alerts

        client, keys = _redis(config)
        found = list_alerts(client, keys, limit=limit, wanted=lambda a: _rank(a.severity) >= rank)
    if as_json:
        write_json([msgspec.to_builtins(a) for a in found])
        return
    if not found:
        err.print(f"no alert of {severity} or more", markup=False)
        return
    if out.width < _WIDE:  # a table would cut every id into pieces that nobody can copy
        for alert in found:
            out.out(f"{line(alert)}\n", highlight=False)
        return
    columns = ("raised", "severity", "hypothesis", "subject", "rules", "requests", "state", "alert")
    out.print(table(f"{len(found)} alerts", columns, map(_row, found)))


@app.command()
@guarded
def show(
    name: Annotated[str, typer.Argument(metavar="ALERT_ID", help="Alert id, incident id, subject, or a member.")],
    config: ConfigOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """One alert with its reasons: of an account or a campaign, the last one."""
    if file is not None:
        alert = named(file, name)[-1]
    else:
        from ..store.readers import show as read
        from .casework import desk, reader

        cases = desk(config)
        try:
            alert_id = cases.find(name)
        except MonitorError:
            cases.note(reader(), "show", name)  # that nothing is known is an answer too
            raise
        cases.note(reader(), "show", alert_id)
        found = read(cases.client, cases.keys, alert_id)
        if found is None:
            raise MonitorError("only its case is kept, the alert is gone: `monitor report` writes what there is")
        alert = found
    if as_json:
        write_json(msgspec.to_builtins(alert))
    else:
        explain(alert)


@app.command()
@guarded
def top(
    config: ConfigOption = None, limit: Annotated[int, typer.Option(min=1)] = 20, as_json: JsonOption = False
) -> None:
    """Accounts with an open alert, by risk."""
    from ..store.readers import top as ranked

    client, keys = _redis(config)
    states = ranked(client, keys, limit)
    if as_json:
        write_json([msgspec.to_builtins(s) for s in states])
        return
    rows = ((s.account, s.severity, f"{s.risk:.3f}" if s.risk is not None else "", s.alert_id) for s in states)
    out.print(table("Accounts by risk", ("account", "severity", "risk", "alert"), rows))


@app.command()
@guarded
def verdict(account: str, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What a gateway reads about an account."""
    from ..store.readers import verdict as read

    client, keys = _redis(config)
    found = read(client, keys, account)
    if as_json:
        write_json(None if found is None else msgspec.to_builtins(found))
    else:
        out.out("nothing is held against this account" if found is None else str(msgspec.to_builtins(found)))


def line(alert: Alert) -> str:
    """One line on an alert, safe for a terminal."""
    text = (
        f"{when(alert.raised_at)}  {alert.severity:<8}  {alert.hypothesis:<13}  {alert.subject}  "
        f"{', '.join(alert.rules)}  {alert.exposure.get('requests')} requests  {alert.state} r{alert.revision}  "
        f"{alert.alert_id}"
    )
    return clean(text)


def explain(alert: Alert) -> None:
    """An alert with its reasons, for a person."""
    out.print(f"[bold]{alert.severity.upper()}[/bold] {alert.hypothesis} · ", end="")
    out.out(clean(f"{alert.subject_type} {alert.subject}"), highlight=False)
    rows: list[tuple[str, object]] = [
        ("alert", f"{alert.alert_id} revision {alert.revision}, {alert.state}, mode {alert.mode}"),
        ("raised", f"{when(alert.raised_at)} (window from {when(alert.window['start'])})"),
        ("rules", ", ".join(alert.rules)),
        ("families", ", ".join(alert.families)),
        ("hypotheses", ", ".join(f"{k} {v:.2f}" for k, v in alert.hypotheses.items() if v)),
        ("exposure", ", ".join(f"{k} {v}" for k, v in alert.exposure.items() if v is not None)),
        ("calibrated", "no: medium at most" if alert.uncalibrated else alert.expected_false_per_week),
        ("exemplars", ", ".join(alert.exemplars[:8])),
    ]
    if corpus := alert.evidence.get("corpus"):
        rows.append(("corpus", corpus["text"]))
    out.print(table("", ("", ""), rows))
    measured = alert.evidence.get("features", {})
    evidence = (
        (name, *(_number(entry.get(k)) for k in ("value", "baseline", "quantile"))) for name, entry in measured.items()
    )
    out.print(table("Evidence", ("feature", "value", "own past", "quantile"), evidence))
    links = [
        (link["kind"], link["value"], link["accounts"], link["population"], _number(link["rarity"]),
         "yes" if link["attested"] else "")
        for link in alert.evidence.get("links", ())[:6]
    ]  # fmt: skip
    if links:
        out.print(table("Links", ("kind", "which", "members", "in all", "bits", "attested"), links))
    changes = alert.evidence.get("counterfactual", ())[:3]
    nearest = [(change["change"], _number(change.get("from")), _number(change.get("to"))) for change in changes]
    if nearest:
        out.print(table("It would be weaker if", ("statistic", "were not", "but"), nearest))


def read_alerts(path: Path) -> list[Alert]:
    """Every revision in an alerts file. Raises BadInput with each line that is none."""
    decoder = msgspec.json.Decoder(Alert)
    alerts: list[Alert] = []
    problems: list[Problem] = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadInput([Problem(str(path), 0, f"cannot be read: {error.strerror}")]) from None
    for number, text in enumerate(lines, 1):
        try:
            alerts.append(decoder.decode(text))
        except msgspec.MsgspecError:
            problems.append(Problem(str(path), number, "is no alert of version 1"))
    if problems:
        raise BadInput(problems)
    return alerts


def named(file: Path, name: str) -> list[Alert]:
    """Revisions of one alert in a file, oldest first: by alert id, by incident id, else the last on that subject, else
    the last that has it among its members. Raises MonitorError where there is none."""
    from ..lifecycle import incident, read_incident

    alerts = read_alerts(file)
    asked = read_incident(name)
    for fits in (
        lambda a: a.alert_id == name or (asked is not None and incident(a.alert_id) == asked),
        lambda a: a.subject == name,
        lambda a: name in a.accounts or name in a.members,
    ):
        last = max(filter(fits, alerts), key=lambda a: (a.raised_at, a.alert_id), default=None)
        if last is not None:
            return sorted((a for a in alerts if a.alert_id == last.alert_id), key=lambda a: a.revision)
    raise MonitorError(f"{file} has no alert {name!r}: `monitor alerts list --file {file}` shows those there are")


def when(seconds: float) -> str:
    """Event time, in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _row(alert: Alert) -> tuple[object, ...]:
    rules, requests = ", ".join(alert.rules), alert.exposure.get("requests")
    return (
        when(alert.raised_at), alert.severity, alert.hypothesis, alert.subject, rules, requests, alert.state,
        alert.alert_id,
    )  # fmt: skip


def _latest(alerts: Iterable[Alert]) -> list[Alert]:
    newest: dict[str, Alert] = {}
    for alert in alerts:
        if alert.alert_id not in newest or alert.revision >= newest[alert.alert_id].revision:
            newest[alert.alert_id] = alert
    return sorted(newest.values(), key=lambda a: -a.raised_at)


def _number(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _rank(severity: str) -> int:
    if severity not in SEVERITIES:
        raise BadInput([Problem("arguments", 0, f"--severity is one of {', '.join(SEVERITIES)}")])
    return SEVERITIES.index(severity)


def _redis(config: Path | None) -> tuple[Any, Any]:
    from ..settings import load_settings
    from ..store.alert_keys import AlertKeys
    from ..store.redis_link import RedisOptions, connect

    settings = load_settings(config)
    return connect(RedisOptions.of(settings.redis)), AlertKeys(settings.redis.key_prefix, settings.redis.stream)
