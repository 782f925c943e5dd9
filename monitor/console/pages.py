"""The pages: alerts as they come, a case with its evidence and its decision, an account, the rules, the readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from monitor.casework import Desk, Reader
from monitor.evidence import RuleNote
from monitor.evidence import sections as s
from monitor.evidence.markup import (
    Child,
    Markup,
    badge,
    card,
    definitions,
    el,
    join,
    number,
    path,
    prose,
    severity,
    table,
    when,
)
from monitor.evidence.page import content
from monitor.fields import ALERT_KINDS, ALERT_STATES, SEVERITIES
from monitor.lifecycle import CASE_STATES, MOVES
from monitor.store import cases, readers

from . import api
from .access import Visitor

Page = tuple[str, list[Child]]
"""(title, body)."""
_VERBS = {
    "acknowledged": "Acknowledge",
    "confirmed": "Confirm abuse",
    "false_positive": "False positive",
    "appealed": "Record an appeal",
    "closed": "Close",
}


def _plain(word: str) -> str:
    return word.replace("_", " ")


def _options(name: str, label: str, words: Sequence[str], chosen: str) -> Markup:
    options = [el("option", "any", value="", selected=not chosen)]
    options += [el("option", _plain(w), value=w, selected=w == chosen) for w in words]
    return el("div", el("label", label, for_=name), el("select", options, name=name, id=name))


def _again(query: Mapping[str, str], **changed: str | None) -> str:
    """The address of the alerts with the same filters, and these otherwise (None: left out)."""
    asked = {**api.filters(query), **{k: query[k] for k in ("limit", "refresh") if query.get(k)}, **changed}
    said = urlencode({k: v for k, v in asked.items() if v is not None})
    return f"/?{said}" if said else "/"


def _filters(query: Mapping[str, str]) -> Markup:
    asked, refresh = api.filters(query), bool(query.get("refresh"))
    fields = (
        ("severity", "Severity, at least", SEVERITIES),
        ("kind", "About", ALERT_KINDS),
        ("state", "State", ALERT_STATES),
        ("case", "Case", CASE_STATES),
    )
    return el(
        "form",
        [_options(name, label, words, asked.get(name, "")) for name, label, words in fields],
        el("button", "Show"),
        [el("input", type="hidden", name=k, value=query[k]) for k in ("limit", "refresh") if query.get(k)],
        el(
            "a",
            "Stop reloading" if refresh else "Reload every 30 s",
            href=_again(query, refresh=None if refresh else "30"),
        ),
        class_="inline",
        method="get",
        action="/",
    )


def _listed(rows: Sequence[Mapping[str, Any]], caption: str) -> Markup:
    if not rows:
        return el("p", "There are none.")
    made: list[list[Child]] = [
        [
            when(r["revised_at"]).removesuffix(" UTC"),
            severity(r["severity"]),
            _plain(r["hypothesis"]),
            join(
                el("a", r["subject"], href=r["page"], class_="id"), el("br"), el("span", r["incident"], class_="small")
            ),
            ", ".join(r["rules"]),
            number(r["accounts"]),
            number(r["requests"]),
            badge(_plain(r["case"])) if r["case"] != "open" else r["state"],
        ]
        for r in rows
    ]
    heads = ["last revised (UTC)", "severity", "may be", "subject", "rules", "accounts", "requests", "case"]
    return table(heads, made, caption=caption, numeric=(5, 6))


def alerts(desk: Desk, query: Mapping[str, str]) -> Page:
    """What was raised, newest first."""
    asked, most = api.filters(query), api.limit(query)
    rows = api.rows(desk, asked, most)
    counts = {w: sum(r["severity"] == w for r in rows) for w in reversed(SEVERITIES)}
    waiting = sum(r["case"] == "open" and SEVERITIES.index(r["severity"]) >= 2 for r in rows)
    tiles = [el("div", el("b", number(n)), el("span", severity(w)), class_="tile") for w, n in counts.items()]
    tiles.append(el("div", el("b", number(waiting)), el("span", "medium or more, undecided"), class_="tile"))
    body: list[Child] = [
        el("div", tiles, class_="tiles"),
        card("Filter", _filters(query)),
        card("Last revised first", _cut(query, len(rows), most), _listed(rows, "Alerts, last revised first")),
    ]
    return "Alerts", body


def _cut(query: Mapping[str, str], shown: int, most: int) -> Markup | None:
    """That there may be more than is shown, which the figures above then do not count."""
    if shown < most:
        return None
    if most == api.LIMIT:
        return el("p", f"These are the last {number(most)}, and all that is counted here: filter for others.")
    more = el("a", f"Show up to {number(api.LIMIT)}", href=_again(query, limit=str(api.LIMIT)))
    return el("p", f"These are the last {number(most)}, and all that is counted here. ", more, ".")


def campaigns(desk: Desk) -> Page:
    """Campaigns, newest first."""
    rows = api.rows(desk, {"kind": "campaign"}, api.LIMIT)
    note = "Accounts that belong together by rare links, and what tests on all of them say."
    return "Campaigns", [card("Last revised first", _listed(rows, "Campaigns, last revised first"), note=note)]


def case(desk: Desk, reader: Reader, name: str, visitor: Visitor, form_token: str) -> Page:
    """One alert: the whole evidence, and the buttons that decide on it."""
    bundle = desk.bundle(reader, "page", desk.find(name))
    a = s.newest(bundle)
    title = f"{bundle['incident']}: {a['severity']} {_plain(a['hypothesis'])}"
    kind = "Campaign" if a["kind"] == "campaign" else "Account"
    shown = el("code", a["subject"]) if a["kind"] == "campaign" else s.linked("account", a["subject"])
    downloads = el(
        "div",
        el("a", "Report (HTML)", href=path("reports", f"{a['alert_id']}.html")),
        el("a", "Signed bundle (JSON)", href=path("reports", f"{a['alert_id']}.json")),
        el("a", "As the API gives it", href=path("v1", "alerts", a["alert_id"])),
        class_="chips",
    )
    body: list[Child] = [
        el("p", f"{kind} ", shown, f", first raised {when(a['raised_at'])}", class_="lead"),
        s.summary(bundle),
        el("div", _decide(bundle, visitor, form_token), card("Take it along", downloads), class_="grid"),
        content(bundle, s.linked),
    ]
    return title, body


def _decide(bundle: Mapping[str, Any], visitor: Visitor, form_token: str) -> Markup:
    state = str(bundle["case"])
    if not visitor.decides:
        why = (
            "Set console.token_file and sign in to decide here"
            if visitor.role == "visitor"
            else "Sign in to decide here"
        )
        return card("Decide", el("p", prose(f"The case is {_plain(state)}. {why}, or use `monitor alerts confirm`.")))
    buttons = [
        el("button", _VERBS[word], name="state", value=word, class_=None if word == "confirmed" else "second")
        for word in MOVES[state]
    ]
    form = el(
        "form",
        el("input", type="hidden", name="form", value=form_token),
        el("label", "Why (an appeal is read against it)", for_="why"),
        el("textarea", "", id="why", name="why", required=True, maxlength="2000"),
        el("div", buttons, class_="buttons"),
        method="post",
        action=path("alerts", bundle["alert_id"], "decide"),
    )
    return card("Decide", el("p", "The case is ", badge(_plain(state)), "."), form)


def account(desk: Desk, reader: Reader, name: str) -> Page:
    """An account: what gateways read, and every alert that names it."""
    known = api.account(desk, reader, name)
    verdict = known["verdict"]
    pairs: list[tuple[str, Child]] = [("account", el("code", name))]
    if verdict is None:
        pairs.append(("verdict", "nothing is held against it"))
    else:
        pairs += [
            ("verdict", badge(verdict["verdict"], "s-medium")),
            ("severity", severity(verdict["severity"])),
            ("because of", el("a", verdict["alert_id"], href=path("alerts", verdict["alert_id"]), class_="id")),
            ("until", when(verdict["until"])),
        ]
    own = [r for r in known["alerts"] if r["kind"] == "account"]
    member = [r for r in known["alerts"] if r["kind"] == "campaign"]
    rows: list[list[Child]] = [
        [
            el("a", r["subject"], href=r["page"], class_="id"),
            r["tier"] or "not known",
            severity(r["severity"]),
            _plain(r["hypothesis"]),
            number(r["accounts"]),
            _plain(r["case"]),
        ]
        for r in member
    ]
    heads = ["campaign", "its tier there", "severity", "may be", "core accounts", "case"]
    body: list[Child] = [
        card("Now", definitions(pairs), note="What a gateway reads. Advice: the monitor blocks nobody."),
        card("Alerts about it", _listed(own, "Alerts about this account")),
        card("Campaigns it is in", table(heads, rows, caption="Campaigns", numeric=(4,)) if rows else el("p", "None.")),
    ]
    return name, body


def rules(desk: Desk) -> Page:
    """Every rule with what it has fired on."""
    found = readers.list_alerts(desk.client, desk.keys, limit=api.LIMIT)
    counts = api.firings(desk, found)
    empty = dict.fromkeys(("all", "open", "strong", "confirmed", "false_positive"), 0)
    rows: list[list[Child]] = []
    notes = desk.rule_notes()
    for name in sorted(notes, key=lambda n: (-counts.get(n, empty)["all"], n)):
        c, note = counts.get(name, empty), notes[name]
        rows.append(
            [
                el("a", name, href=path("rules", name), class_="id"),
                note.title,
                _plain(note.hypothesis),
                severity(note.severity),
                *(number(c[k]) for k in ("all", "open", "confirmed", "false_positive")),
            ]
        )
    heads = ["rule", "what it says", "points to", "declared", "alerts", "open", "confirmed", "found false"]
    said = f"Counted over the newest {number(len(found))} alerts of mode `alert`."
    made = table(heads, rows, caption="Rules with their firings", numeric=(4, 5, 6, 7))
    return "Rules", [card(f"{len(rows)} rules", made, note=said)]


def rule(desk: Desk, note: RuleNote) -> Page:
    """One rule: reasons, blind spots, and the alerts that it held in."""
    found = readers.list_alerts(desk.client, desk.keys, limit=100, wanted=lambda a: note.id in a.rules)
    states = cases.states(desk.client, desk.keys, [a.alert_id for a in found])
    pairs: list[tuple[str, Child]] = [
        ("points to", _plain(note.hypothesis)),
        ("declared severity", severity(note.severity)),
        ("families of evidence", ", ".join(note.families)),
        ("version", str(note.version)),
        *((_plain(name), number(value)) for name, value in note.params.items()),
    ]
    body: list[Child] = [
        el("p", note.title, class_="lead"),
        card("What it is", definitions(pairs)),
        el(
            "div",
            card("Why", el("p", note.why)),
            card("Whom it may hit wrongly", el("p", note.false_positives)),
            card("What it does not see", el("p", note.blind_spots)),
            card("What to do", el("ol", [el("li", step) for step in note.runbook])),
            class_="grid",
        ),
        card("Alerts", _listed([api.row(a, states[a.alert_id]) for a in found], f"Alerts of {note.id}")),
    ]
    return note.id, body


def readings(desk: Desk) -> Page:
    """Who read or moved which case."""
    if desk.settings.evidence.audit != "redis":
        said = f"They are noted by `evidence.audit: {desk.settings.evidence.audit}`."
        return "Readings", [card("Readings", el("p", prose(said)))]
    rows: list[list[Child]] = [
        [when(r.at), r.by, _plain(r.action), el("code", r.case), r.via]
        for r in cases.readings(desk.client, desk.keys, 200)
    ]
    heads = ["when", "by", "what", "case", "way in"]
    body = table(heads, rows, caption="Readings") if rows else el("p", "None yet.")
    return "Readings", [card("Newest first", body, note="Every reading of a case is noted before anything is shown.")]
