"""``monitor report`` and ``monitor verify``: a case as files that stand by themselves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import BadInput, MonitorError, Problem
from .alerts import FileOption, named
from .casework import AtOption, moment, reader
from .common import ConfigOption, JsonOption, err, guarded, out, write_json

STIX = "minimal, links or accounts"


@guarded
def report(
    case: Annotated[str, typer.Argument(metavar="CASE", help="Alert id, incident id, subject, or a member.")],
    directory: Annotated[Path, typer.Option("--out", help="Directory to write to; made where it is not there.")],
    config: ConfigOption = None,
    file: FileOption = None,
    by: Annotated[str | None, typer.Option("--by", help="Who makes it; this system's user if not given.")] = None,
    at: AtOption = None,
    stix: Annotated[str | None, typer.Option("--stix", help=f"Also STIX 2.1, naming {STIX}.")] = None,
    tlp: Annotated[
        str, typer.Option("--tlp", help="Marking of the STIX export: clear, green, amber or red.")
    ] = "amber",
    why: Annotated[str, typer.Option("--why", help="Why this may be shared: recorded in the STIX export.")] = "",
) -> None:
    """Write the evidence of a case: HTML to read, a signed JSON bundle to verify, and STIX 2.1 if asked."""
    from ..casework import Desk, iso, note_in_file, rule_notes, rules_of, sealed
    from ..evidence import Redaction, export, render
    from ..settings import load_settings
    from ..store.cases import Reading

    settings, who = load_settings(config), reader(by)
    made_at = iso(moment(at))
    level = _level(stix)
    if file is not None:
        revisions = named(file, case)
        if settings.evidence.audit == "file":
            name = revisions[-1].alert_id
            note_in_file(
                settings.evidence, Reading(at=round(time.time(), 3), by=who.name, action="report", case=name, via="cli")
            )
        notes = rule_notes(rules_of(settings))
        bundle = sealed(settings, revisions, (), notes, by=who.name, at=made_at)
    else:
        desk = Desk(settings, clock=lambda: moment(at))
        bundle = desk.bundle(who, "report", desk.find(case))
    texts = {"json": json.dumps(bundle, ensure_ascii=False, indent=1) + "\n", "html": render(bundle)}
    if level is not None:
        shared = export(bundle, redaction=Redaction(level), by=who.name, why=why, at=made_at, tlp=tlp)
        texts["stix.json"] = json.dumps(shared, ensure_ascii=False, indent=1) + "\n"
    for ending, text in texts.items():
        out.out(str(_write(directory, f"{bundle['incident']}.{ending}", text)), highlight=False)
    if bundle["seal"]["signature"] is None:
        err.print("not signed: set evidence.signing_key_file", style="yellow")


@guarded
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The JSON bundle of a report.")],
    config: ConfigOption = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Key to check with, instead of the settings'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a bundle, and the HTML beside it, are what was sealed. Exit 1 and what was altered, if not."""
    from .. import __version__
    from ..evidence import render
    from ..evidence import verify as check

    held = _bundle(bundle)
    result = check(held, _keys(held, config, key_file))
    findings = list(result.findings)
    page = bundle.with_suffix(".html")
    if page.exists() and not findings:
        if held["made"]["monitor"] != __version__:
            err.print(
                f"{page.name} was made by monitor {held['made']['monitor']}: compare it with that version",
                style="yellow",
            )
        elif page.read_text("utf-8", "replace") != render(held):
            findings.append(f"{page.name}: is not what the bundle gives")
    if as_json:
        write_json({"intact": result.signed and not findings, "signed": result.signed, "findings": findings})
    else:
        for finding in findings:
            out.out(finding, highlight=False)
        if not findings:
            out.out(f"intact, signed with the key {held['seal']['key_id']}", highlight=False)
    raise typer.Exit(1 if findings else 0)


def _level(stix: str | None) -> str | None:
    if stix is not None and stix not in ("minimal", "links", "accounts"):
        raise BadInput([Problem("arguments", 0, f"--stix is {STIX}, not {stix!r}")])
    return stix


def _write(directory: Path, name: str, text: str) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        part = directory / f".{name}.part"
        part.write_text(text, "utf-8", newline="\n")
        return part.replace(directory / name)
    except OSError as error:
        raise BadInput([Problem(str(directory), 0, f"can't be written: {error.strerror}")]) from None


def _bundle(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput([Problem(str(path), 0, f"can't be read: {error.strerror}")]) from None
    except ValueError:
        raise MonitorError(f"{path}: is not JSON: it was cut off or altered") from None
    if not isinstance(held, dict):
        raise MonitorError(f"{path}: is not a bundle: name the .json file of a report")
    return held


def _keys(held: dict[str, Any], config: Path | None, key_file: Path | None) -> dict[str, Any]:
    from ..casework import signing_key
    from ..evidence import Key
    from ..settings import load_settings

    if key_file is not None:
        try:
            secret = key_file.read_bytes().strip()
        except OSError as error:
            raise BadInput([Problem(str(key_file), 0, f"can't be read: {error.strerror}")]) from None
        seal = held.get("seal")
        name = str(seal.get("key_id")) if isinstance(seal, dict) else ""
        return {name: Key(name, secret)}
    key = signing_key(load_settings(config).evidence)
    return {} if key is None else {key.id: key}
