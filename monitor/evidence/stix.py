"""STIX 2.1 for partners: one bundle of plain JSON about an alert, with the decision on what was left out of it.

What a partner can use is the shape of a campaign, when it ran, how sure we are, and how it behaves. Who the customers
are is another matter: without a decision no account, request or link leaves (``Redaction.MINIMAL``). The decision is an
object of the bundle itself (a ``note``), with who took it and why.

Identifiers are UUIDv5 of content, so that two exports of one revision are one object to whoever receives both.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from monitor.errors import MonitorError

_SPACE = uuid.UUID("d24e29c2-0d6c-5e0b-9d0c-7c1d5f4b8a11")
TLP = {  # fixed by the STIX 2.1 specification (section 7.2.1.4): the same objects for everybody
    "clear": "marking-definition--613f2e26-407d-48c7-9eca-b8e91df99dc9",
    "green": "marking-definition--34098fce-860f-48ae-8e50-ebd3cc5e41da",
    "amber": "marking-definition--f88d31f6-486f-44da-b317-01333bde0b82",
    "red": "marking-definition--5e57c739-391a-4eb3-b6be-7d15ca92d5ed",
}
_OLD_NAMES = {"clear": "white"}
_CONFIDENCE = {"info": 10, "low": 25, "medium": 50, "high": 75, "critical": 90}


class Redaction(Enum):
    """What an export may name."""

    MINIMAL = "minimal"
    """Counts, times, hypotheses and families: nobody and nothing that could be looked up."""
    LINKS = "links"
    """Also the keyed hashes of links: of use to whoever holds the same key, meaningless to others."""
    ACCOUNTS = "accounts"
    """Also the core accounts' ids: for the authority that asked for them, not for an exchange of indicators."""


def export(
    bundle: Mapping[str, Any], *, redaction: Redaction, by: str, why: str, at: str, tlp: str = "amber"
) -> dict[str, Any]:
    """A STIX bundle about the newest revision in an evidence bundle. ``at``: RFC 3339, when it was decided."""
    if tlp not in TLP:
        raise MonitorError(f"{tlp!r} is no TLP level: one of {', '.join(TLP)}")
    if not why.strip():
        raise MonitorError("say why this may be shared: the decision is recorded in the export (--why)")
    alert = bundle["revisions"][-1]
    stamp, marks = _time(alert["revised_at"]), [TLP[tlp]]
    author = _object("identity", "monitor", stamp, marks, name="API abuse monitor", identity_class="system")
    common = {"created_by_ref": author["id"], "confidence": _CONFIDENCE.get(alert["severity"], 0)}
    first, last = _time(alert["window"]["start"]), _time(alert["window"]["end"])
    counts = {
        "accounts": alert.get("accounts_total") or len(alert["accounts"]),
        **{k: v for k, v in alert["exposure"].items() if k != "models"},
    }
    subject = alert["alert_id"]
    campaign = _object(
        "campaign",
        f"campaign {subject}",
        stamp,
        marks,
        **common,
        name=f"{alert['hypothesis']} {bundle['incident']}",
        description=_describe(alert, counts),
        objective=_OBJECTIVES.get(alert["hypothesis"], "not known"),
        **_between(first, last, "first_seen", "last_seen"),
    )
    observed = _object(
        "observed-data",
        f"observed {subject} {alert['revision']}",
        stamp,
        marks,
        **common,
        first_observed=first,
        last_observed=last if last >= first else first,
        number_observed=min(max(int(alert["exposure"].get("requests") or 1), 1), 999_999_999),
        object_refs=[],
    )
    named = [] if redaction is Redaction.MINIMAL else _links(alert, stamp, marks, common)
    people = _accounts(alert, marks) if redaction is Redaction.ACCOUNTS else []
    observed["object_refs"] = [o["id"] for o in people]
    ties = [_tie("indicates", o, campaign, stamp, marks, author) for o in named]
    facts = [observed] if people else []
    left_out = ["text of requests (never kept)", "request ids"]
    left_out += ["links"] if redaction is Redaction.MINIMAL else []
    left_out += ["account ids"] if redaction is not Redaction.ACCOUNTS else []
    note = _object(
        "note",
        f"redaction {subject} {alert['revision']} {redaction.value} {by} {at}",
        stamp,
        marks,
        created_by_ref=author["id"],
        abstract="Redaction decision",
        authors=[by],
        content=f"Level: {redaction.value}. Decided by {by} at {at}: {why}. Left out: {', '.join(left_out)}.",
        object_refs=[campaign["id"]],
    )
    objects = [_marking(tlp), author, campaign, *facts, *people, *named, *ties, note]
    return {
        "type": "bundle",
        "id": f"bundle--{uuid.uuid5(_SPACE, repr([o['id'] for o in objects]))}",
        "objects": objects,
    }


_OBJECTIVES = {
    "distillation": "collect a model's answers to train another model",
    "resale": "resell access to the model",
    "account_farm": "use many accounts as one",
    "stolen_key": "use keys that belong to others",
}


def _object(kind: str, seed: str, stamp: str, marks: list[str], /, **fields: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "spec_version": "2.1",
        "id": f"{kind}--{uuid.uuid5(_SPACE, seed)}",
        "created": stamp,
        "modified": stamp,
        "object_marking_refs": marks,
        **fields,
    }


def _marking(tlp: str) -> dict[str, Any]:
    word = _OLD_NAMES.get(tlp, tlp)
    return {
        "type": "marking-definition",
        "spec_version": "2.1",
        "id": TLP[tlp],
        "created": "2017-01-20T00:00:00.000Z",
        "definition_type": "tlp",
        "name": f"TLP:{word.upper()}",
        "definition": {"tlp": word},
    }


def _links(alert: Mapping[str, Any], stamp: str, marks: list[str], common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One indicator a link: a keyed hash has no standard object, so the pattern is one of ours and says so."""
    made = []
    for link in alert["evidence"].get("links") or []:
        kind, value = str(link.get("kind")), str(link.get("value"))
        made.append(
            _object(
                "indicator",
                f"link {kind} {value}",
                stamp,
                marks,
                **common,
                name=f"shared {kind}",
                description=f"shared by {link.get('accounts')} accounts here, {link.get('population')} in all",
                indicator_types=["anomalous-activity"],
                pattern_type="x-abuse-monitor-link",
                pattern=f"{kind} = {value}",
                valid_from=stamp,
            )
        )
    return made


def _accounts(alert: Mapping[str, Any], marks: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "type": "user-account",
            "spec_version": "2.1",
            "id": f"user-account--{uuid.uuid5(_SPACE, f'account {a}')}",
            "user_id": a,
            "account_type": "api",
            "object_marking_refs": marks,
        }
        for a in alert["accounts"]
    ]


def _tie(
    kind: str,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    stamp: str,
    marks: list[str],
    author: Mapping[str, Any],
) -> dict[str, Any]:
    seed = f"{kind} {source['id']} {target['id']}"
    return _object(
        "relationship",
        seed,
        stamp,
        marks,
        created_by_ref=author["id"],
        relationship_type=kind,
        source_ref=source["id"],
        target_ref=target["id"],
    )


def _describe(alert: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name} {value}" for name, value in counts.items() if value is not None)
    likely = ", ".join(f"{k} {v:.2f}" for k, v in alert["hypotheses"].items() if v)
    return f"{shown}. Evidence: {', '.join(alert['families'])}. Hypotheses: {likely or 'none'}."


def _between(first: str, last: str, low: str, high: str) -> dict[str, str]:
    return {low: first, high: last} if last >= first else {low: first}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
