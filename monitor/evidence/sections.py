"""The parts of a page about one alert, as cards: for the report that is handed on and for the console alike.

Each takes an evidence bundle (JSON values) and gives a card, or None where the bundle has nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from . import plots
from .markup import Child, Markup, badge, card, definitions, el, join, number, path, severity, table, when

Bundle = Mapping[str, Any]
Link = Callable[[str, str], Markup]
"""(kind, id) -> how an id is shown: with a link in the console, as code in a report."""

MEANING = {
    "distillation": "collects answers to train another model",
    "resale": "passes access on to others",
    "account_farm": "many accounts used as one",
    "stolen_key": "a key used by somebody else",
    "evaluation": "measures the model",
    "automation": "an unattended program",
    "unknown": "unusual, and no more is known",
}
_MEMBERS = 100


def as_code(kind: str, name: str) -> Markup:
    """An id without a link."""
    return el("code", name)


def linked(kind: str, name: str) -> Markup:
    """An id with a link into the console."""
    return el("a", name, href=path(f"{kind}s", name), class_="id")


def newest(bundle: Bundle) -> Mapping[str, Any]:
    """The alert as it was last written."""
    last: Mapping[str, Any] = bundle["revisions"][-1]
    return last


def summary(bundle: Bundle) -> Markup:
    """What it is, in one line and five figures."""
    a = newest(bundle)
    exposure = a["exposure"]
    total = a.get("accounts_total") or len(a["accounts"])
    cost = exposure.get("cost_usd")
    tiles: list[tuple[str, Child]] = [
        ("severity", severity(a["severity"])),
        (MEANING.get(a["hypothesis"], ""), a["hypothesis"].replace("_", " ")),
        ("accounts that may be acted on", number(total)),
        ("requests", number(exposure.get("requests"))),
        ("output tokens", number(exposure.get("output_tokens"))),
        ("cost in USD", number(None if cost is None else float(cost))),
    ]
    return el(
        "div", [el("div", el("b", value), el("span", name), class_="tile") for name, value in tiles], class_="tiles"
    )


def story(bundle: Bundle) -> Markup:
    """Severity and requests over time, with the decisions."""
    events = [(float(d["at"]), str(d["state"]).replace("_", " ")) for d in bundle["decisions"]]
    a = newest(bundle)
    missing = bundle["revisions_missing"]
    note = f"Event time. The evidence sufficed at {when(a['raised_at'])}."
    if missing:
        note += f" {len(missing)} earlier revisions are no longer kept."
    return card("How it went", plots.timeline(bundle["revisions"], events), note=note, id_="story")


def facts(bundle: Bundle, show: Link = as_code) -> Markup:
    """Ids, times and versions."""
    a = newest(bundle)
    likely = a["expected_false_per_week"]
    pairs: list[tuple[str, Child]] = [
        ("incident", el("strong", bundle["incident"])),
        ("alert", as_code("alert", a["alert_id"])),
        (
            str(a["subject_type"]),
            show("account", a["subject"]) if a["kind"] == "account" else as_code("", a["subject"]),
        ),
        (
            "state",
            join(
                f"{a['state']}, revision {a['revision']}",
                f", merged into {a['merged_into']}" if a.get("merged_into") else None,
            ),
        ),
        ("case", str(bundle["case"]).replace("_", " ")),
        ("mode", a["mode"]),
        ("window", f"{when(a['window']['start'])} to {when(a['window']['end'])}"),
        (
            "calibrated",
            "no: nothing here to calibrate on yet"
            if a["uncalibrated"]
            else f"{number(likely)} as strong a week are false",
        ),
        ("families of evidence", ", ".join(a["families"])),
        ("models", ", ".join(a["exposure"].get("models") or []) or "not known"),
        *((f"version of {k}", as_code("", v)) for k, v in sorted(a["versions"].items())),
    ]
    return card("The case", definitions(pairs), id_="facts")


def hypotheses(bundle: Bundle) -> Markup:
    """Confidence in each hypothesis; they do not exclude one another."""
    a = newest(bundle)
    rows = sorted(a["hypotheses"].items(), key=lambda item: (-item[1], item[0]))
    note = "Confidence that the rules declare together. They do not exclude one another."
    if a["score"] is None:
        note += " A probability is not given: nothing is calibrated yet."
    extra = a["evidence"].get("classifier")
    return card(
        "What it may be",
        plots.bars([(k.replace("_", " "), float(v)) for k, v in rows], "Hypotheses"),
        el("h3", "The classifier's own view") if extra else None,
        plots.bars([(k.replace("_", " "), float(v)) for k, v in sorted(extra.items())], "Classifier")
        if extra
        else None,
        note=note,
        id_="hypotheses",
    )


def features(bundle: Bundle) -> Markup | None:
    """Each feature against its own past and against accounts of its class."""
    entries: Mapping[str, Any] = newest(bundle)["evidence"].get("features") or {}
    if not entries:
        return None
    order = sorted(entries, key=lambda n: (-(entries[n].get("quantile") or -1.0), n))
    ranked = [
        (
            n,
            entries[n].get("quantile"),
            f"quantile {number(entries[n].get('quantile'))}" if entries[n].get("quantile") is not None else "not known",
            (entries[n].get("quantile") or 0) >= 0.99,
        )
        for n in order
    ]
    rows: list[list[Child]] = [
        [
            el("code", n),
            number(entries[n].get("value")),
            number(entries[n].get("baseline")),
            number(entries[n].get("vs_past")),
            number(entries[n].get("quantile")),
        ]
        for n in order
    ]
    heads = ["feature", "value", "own past", "change against it", "quantile among its class"]
    return card(
        "What was measured",
        plots.strips(
            [r for r in ranked if r[1] is not None],
            "Rank of each feature among accounts of its class",
            ("usual for its class", "unusual"),
        )
        if any(r[1] is not None for r in ranked)
        else None,
        table(heads, rows, caption="Features with value, own past and quantile", numeric=(1, 2, 3, 4)),
        note="Features of the rules that fired. The rank is among ordinary accounts of the same class of client; "
        "0.99 and more is marked.",
        id_="features",
    )


def links(bundle: Bundle) -> Markup | None:
    """What the accounts of a campaign share, and how rare that is."""
    a = newest(bundle)
    found: Sequence[Mapping[str, Any]] = a["evidence"].get("links") or []
    if not found:
        return None
    order = sorted(found, key=lambda f: (-(f.get("rarity") or 0.0), str(f.get("kind"))))
    rows: list[list[Child]] = [
        [
            f.get("kind"),
            el("code", f.get("value")),
            number(f.get("accounts")),
            number(f.get("population")),
            number(f.get("rarity")),
            badge("attested", "s-medium") if f.get("attested") else "chosen by the client",
        ]
        for f in order
    ]
    heads = ["what is shared", "which", "accounts here", "accounts in all", "rarity, bits", "who vouches"]
    total = a.get("accounts_total") or len(a["accounts"])
    return card(
        "What links them",
        plots.links(found, total),
        table(heads, rows, caption="Links with their rarity", numeric=(2, 3, 4)),
        note="A link that many share says nothing: its weight is its rarity. Links that the client chooses add no core "
        "member by themselves. A cohort is when its accounts were made, the rest are hashes under your key.",
        id_="links",
    )


def tests(bundle: Bundle) -> Markup | None:
    """The pooled tests of a campaign."""
    found: Mapping[str, Any] = newest(bundle)["evidence"].get("tests") or {}
    if not found:
        return None
    order = sorted(found, key=lambda n: (not found[n].get("holds"), -(found[n].get("quantile") or 0.0), n))
    words = {True: el("span", "holds", class_="bad"), False: "does not hold", None: "ranked only"}
    ranked = []
    rows: list[list[Child]] = []
    for name in order:
        t, shown = found[name], name.replace("_", " ")
        rank, holds = t.get("quantile"), t.get("holds")
        marked = bool(holds) if holds is not None else (rank or 0.0) >= 0.99
        said = f"p {number(t['p'])}" if t.get("p") is not None else f"rank {number(rank)}"
        ranked.append((shown, rank, said, marked))
        figures = [number(t.get(k)) for k in ("value", "baseline", "quantile", "p", "groups")]
        rows.append([shown, t.get("family"), *figures, words[holds if holds is None else bool(holds)]])
    heads = ["test", "family", "value", "usual", "conformal rank", "p", "benign clusters", "result"]
    return card(
        "Tests on all members together",
        plots.strips(ranked, "Conformal rank of each pooled test", ("as benign clusters are", "beyond them")),
        table(heads, rows, caption="Pooled tests", numeric=(2, 3, 4, 5, 6)),
        note="Each is ranked among benign clusters that the same linker found and nothing was fitted on.",
        id_="tests",
    )


def corpus(bundle: Bundle) -> Markup | None:
    """What the accounts ask of a known corpus."""
    found: Mapping[str, Any] = newest(bundle)["evidence"].get("corpus") or {}
    if not found.get("text"):
        return None
    return card(
        "A known corpus",
        el("p", f"The group {found['text']}"),
        note="Told by keyed hashes of the items, of a sample of each account's over one to two days. Which items were "
        "asked is not kept in the alert.",
        id_="corpus",
    )


def growth(bundle: Bundle) -> Markup | None:
    """Members over time."""
    history: Sequence[Mapping[str, Any]] = newest(bundle)["evidence"].get("history") or []
    return card("How it grew", plots.growth(history), id_="growth") if history else None


def members(bundle: Bundle, show: Link = as_code) -> Markup | None:
    """Members by tier; of many, those in front."""
    a = newest(bundle)
    held: Mapping[str, Any] = a["members"]
    if a["kind"] != "campaign" or not held:
        return None
    rank = {"core": 0, "likely": 1, "peripheral": 2}
    order = sorted(held, key=lambda m: (rank.get(held[m]["tier"], 3), -held[m]["membership"], m))
    counts = {tier: sum(held[m]["tier"] == tier for m in order) for tier in rank}
    rows: list[list[Child]] = [
        [show("account", m), held[m]["tier"], number(float(held[m]["membership"])), ", ".join(held[m]["roots"])]
        for m in order[:_MEMBERS]
    ]
    left = (a.get("accounts_total") or 0) > len(a["accounts"]) or len(order) > _MEMBERS
    return card(
        "Members",
        plots.tiers(counts),
        table(["account", "tier", "membership", "roots of evidence"], rows, caption="Members", numeric=(2,)),
        el("p", "Not all are shown here: the alert's own record has them.", class_="small") if left else None,
        note="Only core members may be acted on.",
        id_="members",
    )


def rules(bundle: Bundle, show: Link = as_code) -> Markup:
    """Which rules held, with what they rest on, miss, and hit wrongly."""
    a = newest(bundle)
    held: Mapping[str, Any] = a["evidence"].get("thresholds") or {}
    made: list[Child] = []
    for name in a["rules"]:
        note = bundle["rules"].get(name)
        params = held.get(name) or {}
        shown = [(k.replace("_", " "), number(v)) for k, v in params.items()]
        made += [
            el(
                "h3",
                show("rule", name) if note else el("code", name),
                ": ",
                note["title"] if note else "no longer among the rules",
            ),
            definitions(shown) if shown else None,
            el("p", note["why"]) if note else None,
            el("p", el("strong", "It may be wrong about: "), note["false_positives"]) if note else None,
            el("p", el("strong", "It does not see: "), note["blind_spots"]) if note else None,
            el("ol", [el("li", step) for step in note["runbook"]]) if note else None,
        ]
    return card("Rules that held", *made, note="With the thresholds in force when they fired.", id_="rules")


def counterfactual(bundle: Bundle) -> Markup | None:
    """What would have to be otherwise for another severity."""
    found: Sequence[Mapping[str, Any]] = newest(bundle)["evidence"].get("counterfactual") or []
    if not found:
        return None
    rows: list[list[Child]] = [
        [str(f.get("change")), severity(str(f["severity"])) if f.get("severity") else "no alert"] for f in found
    ]
    return card("What would change it", table(["if", "the severity were"], rows, caption="Counterfactuals"), id_="if")


def unknown(bundle: Bundle) -> Markup:
    """What was not known, and the benign case that is most like this one."""
    names = newest(bundle)["evidence"].get("not_known") or []
    near = bundle["nearest_benign"]
    rows: list[list[Child]] = (
        [[el("code", n), number(d["here"]), number(d["there"])] for n, d in near["differs"].items()] if near else []
    )
    return card(
        "What was not known",
        el("ul", [el("li", el("code", n)) for n in names], class_="plain")
        if names
        else el("p", "Every feature that the rules read was known."),
        el("h3", "The nearest case that was found benign"),
        [
            el("p", near["incident"], f", distance {number(near['distance'])}. They differ most in:"),
            table(
                ["feature", "quantile here", "quantile there"],
                rows,
                caption="Differences to the nearest benign case",
                numeric=(1, 2),
            ),
        ]
        if near
        else el("p", "None has been reviewed that shares three features or more with this one."),
        id_="unknown",
    )


def exemplars(bundle: Bundle) -> Markup:
    """Request ids, for whoever may look at them in the provider's own log."""
    ids, template = newest(bundle)["exemplars"], bundle["viewer_url"]

    def shown(name: str) -> Markup:
        if not template:
            return el("code", name)
        target = str(template).replace("{request_id}", quote(name, safe=""))
        return el("a", name, href=target, rel="noreferrer noopener", class_="id")

    note = "Typical, random and least typical ones, chosen by a keyed hash. The text is in your own log, not here."
    body = el("div", [el("span", shown(i)) for i in ids], class_="chips") if ids else el("p", "none are known")
    return card("Requests to look at", body, note=note, id_="exemplars")


def decisions(bundle: Bundle) -> Markup:
    """Who moved the case, when and why."""
    rows: list[list[Child]] = [
        [
            when(d["at"]),
            str(d["state"]).replace("_", " "),
            d["by"],
            d["why"],
            join(severity(d["severity"]), f" r{d['revision']}"),
        ]
        for d in bundle["decisions"]
    ]
    body = (
        table(["when", "became", "by", "why", "the alert then"], rows, caption="Decisions")
        if rows
        else el("p", "Nobody has decided on it yet.")
    )
    return card("Decisions", body, id_="decisions")


def replay(bundle: Bundle) -> Markup:
    """How to compute it again."""
    r = bundle["replay"]
    needs, expect = r["needs"], r["expect"]
    return card(
        "Compute it again",
        el(
            "p",
            f"With the log from {when(needs['log']['from'])} to {when(needs['log']['to'])} ({needs['log']['why']}), ",
            ", ".join(needs["also"]),
            ", and the versions named above:",
        ),
        el(
            "pre",
            join(*[join(c, Markup("\n")) for c in r["commands"]]),
            tabindex="0",
            role="region",
            aria_label="Commands",
        ),
        el(
            "p",
            "The same alert comes out, raised at ",
            when(expect["raised_at"]),
            " as ",
            severity(expect["severity"]),
            ".",
        ),
        id_="replay",
    )
