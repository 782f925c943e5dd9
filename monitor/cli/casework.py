"""``monitor alerts ack|confirm|false-positive|appeal|close|history|verdicts``: what people decide about an alert."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ..lifecycle import CASE_STATES, CaseEvent, incident, state_of
from ..plain import clean
from .alerts import app as app
from .alerts import when
from .common import ConfigOption, JsonOption, err, guarded, out, table, write_json

if TYPE_CHECKING:
    from ..casework import Desk, Reader

CaseArgument = Annotated[str, typer.Argument(metavar="ALERT_ID", help="Alert id, incident id, subject, or a member.")]
ByOption = Annotated[str, typer.Option("--by", help="Who decides.")]
WhyOption = Annotated[str, typer.Option("--why", help="Why: an appeal is read against it.")]
AtOption = Annotated[str | None, typer.Option("--at", help="When, as 2026-11-25T14:05:00Z; now if not given.")]


def desk(config: Path | None) -> Desk:
    """The cases of the settings."""
    from ..casework import Desk
    from ..settings import load_settings

    return Desk(load_settings(config))


def reader(name: str | None = None) -> Reader:
    """Who types: the name given, else the user of this system."""
    from ..casework import Reader

    try:
        return Reader(name or getpass.getuser(), "cli")
    except (OSError, KeyError):  # a container's user has a number and no name
        return Reader(f"uid {os.getuid()}", "cli")


def moment(text: str | None) -> float:
    """The time given, or now."""
    from ..casework import parse_time

    return round(time.time(), 3) if text is None else parse_time(text)


def _decide(name: str, state: str, config: Path | None, by: str, why: str, at: str | None, as_json: bool) -> None:
    cases = desk(config)
    alert_id = cases.find(name)
    moved = cases.decide(reader(by), alert_id, state, why=why, at=moment(at))
    _tell(alert_id, moved.events, as_json)
    if state == "false_positive" and not as_json:
        for account, other in cases.still_held(alert_id).items():
            said = f"{account} is still held by {incident(other)}, another alert: decide on that too, if it is wrong"
            err.print(clean(said), style="yellow", markup=False)


def _tell(alert_id: str, events: list[CaseEvent], as_json: bool) -> None:
    if as_json:
        made = {"alert_id": alert_id, "incident": incident(alert_id), "state": state_of(events)}
        write_json({**made, "history": [msgspec.to_builtins(e) for e in events]})
        return
    out.out(f"{incident(alert_id)} is {state_of(events).replace('_', ' ')}", highlight=False)
    rows = ((when(e.at), e.state, clean(e.by), clean(e.why), f"{e.severity} r{e.revision}") for e in events)
    out.print(table(f"Case of {alert_id}", ("when", "became", "by", "why", "the alert then"), rows))


@app.command()
@guarded
def ack(
    alert_id: CaseArgument, by: ByOption, why: WhyOption, at: AtOption = None, config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Somebody looks at it."""
    _decide(alert_id, "acknowledged", config, by, why, at, as_json)


@app.command()
@guarded
def confirm(
    alert_id: CaseArgument, by: ByOption, why: WhyOption, at: AtOption = None, config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """It is abuse."""
    _decide(alert_id, "confirmed", config, by, why, at, as_json)


@app.command("false-positive")
@guarded
def false_positive(
    alert_id: CaseArgument, by: ByOption, why: WhyOption, at: AtOption = None, config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """It was wrong: the verdicts that gateways read are taken back at once, and none is given again."""
    _decide(alert_id, "false_positive", config, by, why, at, as_json)


@app.command()
@guarded
def appeal(
    alert_id: CaseArgument, by: ByOption, why: WhyOption, at: AtOption = None, config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """The customer objects. Shows what has changed since it was confirmed; then confirm it again, or don't."""
    cases = desk(config)
    name = cases.find(alert_id)
    who = reader(by)
    moved = cases.decide(who, name, "appealed", why=why, at=moment(at))
    then = next((e for e in reversed(moved.events) if e.state == "confirmed"), moved.events[0])
    revisions = cases.revisions(who, "appeal", name)
    change = changed(revisions, then.revision)
    if as_json:
        write_json(
            {"alert_id": name, "incident": incident(name), "since": msgspec.to_builtins(then), "changed": change}
        )
        return
    _tell(name, moved.events, False)
    rows = [(n, *map(_said, pair)) for n, pair in change.items()]
    if rows:
        out.print(table(f"Changed since revision {then.revision}", ("what", "then", "now"), rows))
    else:
        out.out("nothing has changed since it was decided", highlight=False)


def changed(revisions: list[Any], since: int) -> dict[str, tuple[Any, Any]]:
    """Name -> (then, now) of what the newest revision says otherwise than revision ``since`` did."""
    now = revisions[-1]
    then = next((a for a in revisions if a.revision >= since), now)
    pairs: dict[str, tuple[Any, Any]] = {
        name: (getattr(then, name), getattr(now, name))
        for name in ("severity", "state", "hypothesis", "score", "rules", "families")
    }
    for name in ("requests", "output_tokens", "cost_usd"):
        pairs[name] = then.exposure.get(name), now.exposure.get(name)
    old, new = then.evidence.get("features") or {}, now.evidence.get("features") or {}
    for name in sorted(old.keys() | new.keys()):
        pairs[name] = (old.get(name) or {}).get("value"), (new.get(name) or {}).get("value")
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _said(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "not known" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


@app.command()
@guarded
def close(
    alert_id: CaseArgument, by: ByOption, why: WhyOption, at: AtOption = None, config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """It is done with. An appeal opens it again."""
    _decide(alert_id, "closed", config, by, why, at, as_json)


@app.command()
@guarded
def history(alert_id: CaseArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Who decided what about a case, when and why."""
    from ..store import cases as store

    cases = desk(config)
    name = cases.find(alert_id)
    cases.note(reader(), "history", name)
    _tell(name, store.case(cases.client, cases.keys, name).events, as_json)


@app.command()
@guarded
def verdicts(
    file: Annotated[Path, typer.Option("--out", help="Where to write them, a JSON object a line.")],
    config: ConfigOption = None,
    truth: Annotated[
        bool, typer.Option("--truth", help="Write contract 4's truth instead: an account a line.")
    ] = False,
) -> None:
    """Write the decided cases for training, thresholds and `monitor evaluate`. A case under appeal is left out."""
    from ..casework import truth_lines, verdict_lines, write_lines
    from ..store import cases as store

    cases = desk(config)
    cases.note(reader(), "verdicts", "all")
    lines = verdict_lines(store.cases(cases.client, cases.keys))
    count = write_lines(file, truth_lines(lines) if truth else lines)
    out.out(f"{count} lines written to {file}", highlight=False)


assert {"acknowledged", "confirmed", "false_positive", "appealed", "closed"} == set(CASE_STATES) - {"open"}
