"""The report: one HTML file that needs nothing else. A function of the sealed bundle: made again, it is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import sections as s
from .markup import Markup, card, definitions, el, join, when
from .style import CSS, REPORT_POLICY


def render(bundle: Mapping[str, Any]) -> str:
    """The whole file. ``bundle`` is sealed; the same bundle gives the same bytes."""
    a = s.newest(bundle)
    kind = "Campaign" if a["kind"] == "campaign" else "Account"
    title = f"{bundle['incident']}: {a['severity']} {a['hypothesis'].replace('_', ' ')}"
    body = join(
        el(
            "header",
            el("div", el("strong", "Evidence report"), el("span", f"made {bundle['made']['at']}", class_="who")),
            class_="top",
        ),
        el(
            "main",
            el("h1", title),
            el("p", f"{kind} ", el("code", a["subject"]), f", first raised {when(a['raised_at'])}", class_="lead"),
            s.summary(bundle),
            content(bundle),
            seal(bundle),
        ),
        el(
            "footer",
            "Nothing in this report is text of a request: it holds counts, times, ids that the provider gave, "
            "and hashes under the provider's key. The monitor advises; people decide.",
        ),
    )
    head = join(
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=REPORT_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        el("style", Markup(CSS)),
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def content(bundle: Mapping[str, Any], show: s.Link = s.as_code) -> Markup:
    """The cards in reading order: what happened, what it is, why we think so, what speaks against it, what to do."""
    grown = s.growth(bundle)
    beside = [s.hypotheses(bundle), s.facts(bundle, show)]
    first = el("div", s.story(bundle), grown if grown is not None else beside[0], class_="grid")
    return join(
        first,
        el("div", beside, class_="grid") if grown is not None else beside[1],
        s.links(bundle),
        s.tests(bundle),
        s.corpus(bundle),
        s.features(bundle),
        s.rules(bundle, show),
        s.members(bundle, show),
        el("div", s.counterfactual(bundle), s.unknown(bundle), s.exemplars(bundle), class_="grid"),
        s.decisions(bundle),
        s.replay(bundle),
    )


def seal(bundle: Mapping[str, Any]) -> Markup:
    """What to compare with ``monitor verify``."""
    held = bundle["seal"]
    signed = held["signature"]
    pairs: list[tuple[str, Any]] = [
        ("revisions, last link", el("code", held["revisions"][-1]["link"])),
        ("decisions, last link", el("code", held["decisions"][-1]["link"]) if held["decisions"] else "no decision"),
        ("signature", el("code", signed) if signed else "none: no key was configured"),
        ("key", held["key_id"] or "none"),
        ("made by", f"{bundle['made']['by']}, monitor {bundle['made']['monitor']}"),
    ]
    return card("Seal", definitions(pairs), note="`monitor verify` compares the JSON bundle beside this file with it.")
