"""What a person does with a case, for the command line and the console alike: read it, decide on it, hand it on.

Each reading and each decision is noted before anything is shown (``evidence.audit``): where the note can't be written,
nothing is read. This is the people's side, so the clock here is the wall's; no detector looks at it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from monitor import __version__
from monitor.archive import forget as forget_rows
from monitor.errors import BadInput, MonitorError, Problem
from monitor.evidence import Key, RuleNote, build, seal
from monitor.lifecycle import CaseEvent, read_incident, state_of, verdict_of
from monitor.records import Alert
from monitor.settings import EvidenceSettings, Settings
from monitor.store import cases, decisions, readers
from monitor.store.alert_keys import AlertKeys
from monitor.store.cases import Case, Life, Reading
from monitor.store.forget import Forgotten, forget
from monitor.store.redis_link import RedisOptions, connect

if TYPE_CHECKING:
    from monitor.rules import RuleSet

_BENIGN = 500
"""Most cases found benign that a report is compared with: the newest."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: a name, and the way in (``cli``, ``page``, ``api``)."""

    name: str
    via: str


class Desk:
    """Cases in Redis by the settings. Opens its connection with the first question."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time):
        evidence = settings.evidence
        self.settings = settings
        self.client = connect(RedisOptions.of(settings.redis))
        self.keys = AlertKeys(settings.redis.key_prefix, settings.redis.stream)
        self.life = Life(evidence.keep_days, evidence.audit_maxlen)
        self._clock = clock
        self._notes: dict[str, RuleNote] | None = None

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()

    def note(self, reader: Reader, action: str, case: str) -> None:
        """Write down who did what with which case. Raises what keeps it from being written."""
        reading = Reading(at=round(self._clock(), 3), by=reader.name, action=action, case=case, via=reader.via)
        if self.settings.evidence.audit == "redis":
            cases.note(self.client, self.keys, self.life, reading)
        else:
            note_in_file(self.settings.evidence, reading)

    def find(self, name: str) -> str:
        """The alert id behind an alert id, an incident id, a subject (its last alert), or a member of a campaign."""
        if readers.show(self.client, self.keys, name) is not None:
            return name
        state = readers.account(self.client, self.keys, name)
        if state is not None:
            return state.alert_id
        if read_incident(name) is not None:
            return cases.resolve(self.client, self.keys, name)
        if cases.case(self.client, self.keys, name).events:
            return name
        verdict = readers.verdict(self.client, self.keys, name)
        if verdict is not None:
            return verdict.alert_id
        member = readers.naming(self.client, self.keys, name, limit=1)
        if member:
            return member[0].alert_id
        raise MonitorError(f"nothing is known of {name!r}: `monitor alerts list` shows the alerts and their subjects")

    def revisions(self, reader: Reader, action: str, alert_id: str) -> list[Alert]:
        """Every revision that is still kept, oldest first, noted as read; never empty."""
        self.note(reader, action, alert_id)
        found = readers.revisions_of(self.client, self.keys, alert_id)
        if not found:
            last = cases.case(self.client, self.keys, alert_id).alert
            found = [last] if last is not None else []
        if not found:
            raise MonitorError(f"no alert {alert_id} is known (any more): `monitor alerts list` shows those there are")
        return found

    def bundle(self, reader: Reader, action: str, alert_id: str) -> dict[str, Any]:
        """The sealed evidence of a case."""
        revisions = self.revisions(reader, action, alert_id)
        held = cases.case(self.client, self.keys, alert_id)
        return sealed(
            self.settings, revisions, held.events, self.rule_notes(), by=reader.name, at=iso(self._clock()),
            benign=self.benign(),
        )  # fmt: skip

    def benign(self) -> list[Alert]:
        """Alerts that people found to be false, the newest first."""
        found = (c for c in cases.cases(self.client, self.keys) if state_of(c.events) == "false_positive" and c.alert)
        return [c.alert for c, _ in zip(found, range(_BENIGN), strict=False) if c.alert is not None]

    def decide(self, reader: Reader, alert_id: str, state: str, *, why: str, at: float) -> Case:
        """Move a case, in the reader's name. What was decided on a false positive's accounts is undone with it."""
        self.note(reader, state, alert_id)
        moved = cases.add(self.client, self.keys, self.life, alert_id, state, by=reader.name, why=why, at=at)
        if state == "false_positive":
            decisions.lift(self.client, self.keys, self.life, alert_id, by=reader.name, why=why, at=at)
        return moved

    def still_held(self, alert_id: str) -> dict[str, str]:
        """Core accounts of an alert that another one holds a verdict against: account -> that alert."""
        alert = readers.show(self.client, self.keys, alert_id)
        found = {a: readers.verdict(self.client, self.keys, a) for a in (alert.accounts if alert is not None else ())}
        return {a: v.alert_id for a, v in found.items() if v is not None and v.alert_id != alert_id}

    def forget(self, reader: Reader, account: str) -> Forgotten:
        """Take an account out of Redis and the archive; the log says that it happened, not to whom."""
        done = forget(self.client, self.keys, account)
        if self.settings.archive.path is not None:
            done = msgspec.structs.replace(done, archive=forget_rows(self.settings.archive.path, account))
        self.note(reader, "forget", "an account")
        return done

    def rule_notes(self) -> dict[str, RuleNote]:
        """What the rules in force say of themselves; read once."""
        if self._notes is None:
            self._notes = rule_notes(rules_of(self.settings))
        return self._notes


def iso(seconds: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float:
    """Epoch seconds of an ISO time with a zone. Raises BadInput."""
    try:
        at: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise BadInput([Problem("arguments", 0, f"--at {text!r} is no time with a zone: write 2026-11-25T14:05:00Z")])
    return at.timestamp()


def note_in_file(settings: EvidenceSettings, reading: Reading) -> None:
    """Append a line to ``evidence.audit_file``, on disk before anything is shown; nothing where no file is used."""
    if settings.audit != "file" or settings.audit_file is None:
        return
    line = msgspec.json.encode(reading) + b"\n"
    try:
        fd = os.open(settings.audit_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        message = (
            f"{settings.audit_file} can't be written ({error.strerror}): readings must be noted, so nothing is shown"
        )
        raise MonitorError(f"evidence.audit_file: {message}") from None


def rules_of(settings: Settings) -> RuleSet:
    """The rules of the settings; their own tests are not run, ``monitor run`` does that."""
    # Here and not above: a command that reads one case need not load Polars.
    from monitor.features.catalogue import CLIENT_CLASSES
    from monitor.features.vocabulary import CATALOGUE
    from monitor.rules import load_rules, packaged_rules

    dirs = [*settings.rules.dirs] or [packaged_rules()]
    return load_rules(dirs, CATALOGUE, CLIENT_CLASSES, settings.rules.policy, tests=False)


def rule_notes(rules: RuleSet) -> dict[str, RuleNote]:
    """Id -> what a report says of the rule."""
    return {
        r.id: RuleNote(
            r.id, r.title, r.version, r.hypothesis, r.severity, list(r.families), dict(r.params), r.why, r.blind_spots,
            r.false_positives, list(r.runbook), list(r.references),
        )
        for r in rules.rules.values()
    }  # fmt: skip


def signing_key(settings: EvidenceSettings) -> Key | None:
    """The key that signs reports, None where none is set."""
    secret = settings.signing_key
    return None if secret is None else Key(settings.signing_key_id, secret.get_secret_value().strip().encode())


def sealed(
    settings: Settings, revisions: Sequence[Alert], decisions: Sequence[CaseEvent], notes: Mapping[str, RuleNote],
    *, by: str, at: str, benign: Iterable[Alert] = (),
) -> dict[str, Any]:  # fmt: skip
    """A sealed evidence bundle; signed where the settings have a key."""
    body = build(
        revisions, decisions, rules=notes, made_at=at, made_by=by, monitor=__version__,
        viewer_url=settings.evidence.viewer_url, benign=benign,
    )  # fmt: skip
    return seal(body, signing_key(settings.evidence))


def verdict_lines(found: Iterable[Case]) -> list[dict[str, Any]]:
    """One object a decided case, oldest decision first: what training and thresholds read."""
    lines = []
    for held in found:
        verdict, a = verdict_of(held.events), held.alert
        if verdict is None or a is None:
            continue
        features = a.evidence.get("features") or {}
        lines.append(
            {
                "schema": "verdict/v1", "alert_id": held.alert_id, "incident": held.incident, "verdict": verdict.state,
                "at": verdict.at, "by": verdict.by, "case": state_of(held.events), "revision": verdict.revision,
                "kind": a.kind, "subject": a.subject, "subject_type": a.subject_type, "accounts": a.accounts,
                "hypothesis": a.hypothesis, "severity": verdict.severity, "score": verdict.score, "rules": a.rules,
                "families": a.families, "window": a.window,
                "features": {name: entry.get("value") for name, entry in features.items()},
                "versions": a.versions,
            }
        )  # fmt: skip
    return sorted(lines, key=lambda line: (line["at"], line["alert_id"]))


def truth_lines(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts as contract 4's truth: an account each, confirmed as its hypothesis, a false positive as benign.

    An account that is both (alone an error, in a campaign not) counts as what was confirmed.
    """
    truth: dict[str, dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: (line["verdict"] == "confirmed", line["at"])):
        for account in line["accounts"]:
            confirmed = line["verdict"] == "confirmed"
            truth[account] = {
                "account_id": account, "actor": line["hypothesis"] if confirmed else "benign",
                "campaign": line["subject"] if line["kind"] == "campaign" and confirmed else None,
                "first_ts": line["window"]["start"], "last_ts": line["window"]["end"],
            }  # fmt: skip
    return [truth[account] for account in sorted(truth)]


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> int:
    """NDJSON, put in place as a whole; how many lines."""
    text = [json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines]
    try:
        part = path.with_name(f".{path.name}.part")
        part.write_text("".join(f"{t}\n" for t in text), "utf-8")
        part.replace(path)
    except OSError as error:
        raise BadInput([Problem(str(path), 0, f"can't be written: {error.strerror}")]) from None
    return len(text)
