"""Evidence that stands by itself: bundles show every change, pages escape everything, exports name nobody unasked."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from campaign_rows import accounts, campaign, lone
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from monitor.__main__ import build as cli
from monitor.casework import rule_notes, rules_of
from monitor.errors import MonitorError
from monitor.evidence import CaseEvent, Key, Redaction, RuleNote, build, export, render, seal, verify
from monitor.evidence.markup import el
from monitor.evidence.seal import CHAINS, canonical, chain, digest
from monitor.evidence.style import CSS
from monitor.lifecycle import incident
from monitor.records import Alert
from monitor.settings import EvidenceSettings, Settings

KEY = Key("e1", b"0123456789abcdef0123456789abcdef")
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'&\u202e\x00"


@pytest.fixture(scope="module")
def notes() -> dict[str, RuleNote]:
    return rule_notes(rules_of(Settings()))


def decisions() -> list[CaseEvent]:
    at = campaign(2).revised_at
    return [
        CaseEvent(state="acknowledged", at=at, by="mia", why="looking", revision=2, severity="medium"),
        CaseEvent(state="confirmed", at=at + 60, by="mia", why="read 12 requests", revision=2, severity="medium"),
    ]


def body(notes: dict[str, RuleNote], alerts: list[Alert] | None = None, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"rules": notes, "made_at": "2026-01-05T20:00:00Z", "made_by": "mia", "monitor": "0.1.0"}
    return build(alerts or [campaign(i) for i in (1, 2, 3)], decisions(), **{**given, **options})


def bundle(notes: dict[str, RuleNote], **options: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(seal(body(notes, **options), KEY)))
    return made


def findings(held: dict[str, Any]) -> tuple[str, ...]:
    return verify(held, {KEY.id: KEY}).findings


# ------------------------------------------------------------------------------------------------------- the seal


def test_what_was_sealed_is_intact_after_a_round_trip_through_a_file(notes: dict[str, RuleNote]) -> None:
    result = verify(bundle(notes), {KEY.id: KEY})
    assert (result.intact, result.signed, result.findings) == (True, True, ())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in leaves(v, (*path, k))] or [path]
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in leaves(v, (*path, i))] or [path]
    return [path]


def test_a_change_of_any_single_value_is_found(notes: dict[str, RuleNote]) -> None:
    whole = bundle(notes)
    paths = leaves(whole)
    assert len(paths) > 300
    for path in paths:
        altered = copy.deepcopy(whole)
        target = altered
        for step in path[:-1]:
            target = target[step]
        old = target[path[-1]]
        target[path[-1]] = not old if isinstance(old, bool) else old + 1 if isinstance(old, (int, float)) else f"{old}x"
        assert findings(altered), path


def test_it_says_what_was_altered(notes: dict[str, RuleNote]) -> None:
    altered = bundle(notes)
    altered["revisions"][1]["severity"] = "info"
    assert "revision 2: was altered" in findings(altered)
    assert not any(f.startswith(("rules", "signature")) for f in findings(altered))
    altered = bundle(notes)
    altered["rules"]["trace-harvest"]["why"] = "because"
    assert findings(altered) == ("rules: was altered",)
    altered = bundle(notes)
    altered["decisions"][0]["why"] = "somebody else said so"
    assert "decision 1: was altered" in findings(altered)


@pytest.mark.parametrize("name", CHAINS)
def test_nothing_is_taken_out_put_in_or_moved(notes: dict[str, RuleNote], name: str) -> None:
    for change in (lambda x: x.pop(0), lambda x: x.pop(), lambda x: x.reverse(), lambda x: x.append(x[0])):
        altered = bundle(notes)
        change(altered[name])
        assert findings(altered)
        both = bundle(notes)  # with the seal's own list changed in the same way
        change(both[name])
        change(both["seal"][name])
        assert findings(both), change
        if len(both[name]) >= len(bundle(notes)[name]):  # what is cut off at the end, the signature shows
            assert any("chain is broken" in f for f in findings(both)), change


def test_whoever_has_no_key_cannot_make_another_seal(notes: dict[str, RuleNote]) -> None:
    held = bundle(notes)
    held["revisions"][0]["severity"] = "critical"
    without = {name: value for name, value in held.items() if name != "seal"}
    forged = seal(without, Key("e1", b"another key of thirty-two bytes!"))
    assert findings(forged) == (
        "signature: it does not fit: the seal itself was altered, or another key has this name",
    )
    unsigned = verify(seal(without, None), {KEY.id: KEY})
    assert (unsigned.signed, unsigned.intact) == (False, False)
    assert "anybody could have made this" in unsigned.findings[0]
    unknown = verify(bundle(notes), {})
    assert "not known here" in unknown.findings[0]


def test_a_chain_hangs_on_its_alert() -> None:
    assert chain("a", ["1", "2"]) != chain("b", ["1", "2"])
    assert chain("a", ["1", "2"])[0] == chain("a", ["1"])[0]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(deadline=None)
@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_a_value_has_one_canonical_text_whatever_file_it_went_through(value: Any) -> None:
    assert digest(json.loads(json.dumps(value, ensure_ascii=True))) == digest(value)
    assert b"\n" not in canonical(value).replace(b"\\n", b"")


# ------------------------------------------------------------------------------------------------------ the body


def test_a_bundle_holds_what_a_reader_needs(notes: dict[str, RuleNote]) -> None:
    near, far = lone(1, 2), lone(1, 9)
    made = body(notes, benign=[far, near], viewer_url="https://logs.example/r/{request_id}")
    assert made["rules"]["trace-harvest"]["false_positives"].startswith("Tutors")
    assert made["rules_unknown"] == ["campaign-of-yesterday"]
    assert made["case"] == "confirmed"
    assert made["nearest_benign"]["alert_id"] == near.alert_id
    assert next(iter(made["nearest_benign"]["differs"])) == "follow_up_share_24h"
    assert made["replay"]["needs"]["versions"] == campaign().versions
    assert made["replay"]["expect"]["alert_id"] == campaign().alert_id
    assert body(notes, alerts=[campaign(3), campaign(1)])["revisions_missing"] == [2]
    with pytest.raises(MonitorError, match="one alert"):
        body(notes, alerts=[campaign(), lone()])


def test_the_case_itself_is_not_its_own_nearest_benign(notes: dict[str, RuleNote]) -> None:
    assert body(notes, alerts=[lone(1, 2)], benign=[lone(1, 2)])["nearest_benign"] is None


# ------------------------------------------------------------------------------------------------------ the page


class Reader(HTMLParser):
    """Collects tags, attributes and text, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_needs_nothing_else_and_runs_nothing(notes: dict[str, RuleNote]) -> None:
    page = render(bundle(notes))
    seen = Reader(page)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(seen.tags)
    assert not [n for n, _ in seen.attributes if n.startswith("on") or n in ("src", "style", "srcset")]
    assert not re.findall(r"url\(|@import|https?:", CSS)
    assert [v for n, v in seen.attributes if n == "href"] == []
    policy = next(v for n, v in seen.attributes if n == "content" and v and "src" in v)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert render(bundle(notes)) == page


def test_the_report_shows_all_parts(notes: dict[str, RuleNote]) -> None:
    seen = Reader(render(bundle(notes, benign=[lone(1, 2)])))
    text = " ".join(seen.text)
    for wanted in (
        "How it went", "How it grew", "What links them", "Tests on all members", "What was measured", "Members",
        "Rules that held", "What would change it", "What was not known", "Requests to look at", "Decisions",
        "Compute it again", "Seal", incident(campaign().alert_id), "0.9999", "12.5", "without the payment link",
        "Tutors that love steps", "read 12 requests", "camp-7f3a", "4782f6cd33f33d56",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert seen.tags.count("svg") >= 6
    titles = [v for n, v in seen.attributes if n == "aria-label"]
    assert any(v and "payment shared by 5" in v for v in titles)  # plots have words


@pytest.mark.parametrize(
    "alert", [lone(), campaign(), lone(evidence={}), campaign(evidence={}), campaign(accounts=[], members={})]
)
def test_a_report_is_made_of_whatever_evidence_there_is(notes: dict[str, RuleNote], alert: Alert) -> None:
    assert Reader(render(bundle(notes, alerts=[alert]))).tags.count("section") >= 6


def hostile() -> Alert:
    """Every string of an alert that comes from outside is an attack."""
    plain = msgspec.to_builtins(campaign(3))

    named = ("features", "tests", "thresholds", "members", "versions", "trace-harvest")  # whose keys are names

    def poisoned(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k + HOSTILE if key in named else k: poisoned(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [poisoned(v, key) for v in value]
        if isinstance(value, str) and key not in ("schema", "severity", "kind", "state", "alert_id", "hypothesis"):
            return value + HOSTILE
        return value

    return msgspec.convert(poisoned(plain), Alert)


def test_hostile_strings_are_text(notes: dict[str, RuleNote]) -> None:
    seen = Reader(render(bundle(notes, alerts=[hostile()], viewer_url="https://logs.example/{request_id}")))
    assert not {"script", "img"} & set(seen.tags)
    assert not [n for n, _ in seen.attributes if n.startswith("on")]
    text = " ".join(seen.text)
    assert "<script>alert(1)</script>" in text
    assert "\u202e" not in text
    assert "\x00" not in text
    links = [v for n, v in seen.attributes if n == "href"]
    assert links
    assert all(v and re.fullmatch(r"https://logs\.example/[A-Za-z0-9_.%~-]+", v) for v in links)


def test_attributes_are_escaped_too() -> None:
    made = el("a", "x", title='" onclick="alert(1)', href="&<>")
    assert made == '<a title="&quot; onclick=&quot;alert(1)" href="&amp;&lt;&gt;">x</a>'


def colours(scheme: str) -> dict[str, str]:
    light, dark = CSS.split("@media (prefers-color-scheme:dark)")
    found = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6})", light[: light.index("*")] if "*" in light else light))
    if scheme == "dark":
        found |= dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6})", dark))
    return found


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_people_need(scheme: str) -> None:
    c = colours(scheme)
    pairs = [(ink, ground) for ink in ("ink", "dim", "accent", "hot", "good") for ground in ("bg", "card")]
    pairs += [("ink", "soft"), ("accent-ink", "accent"), ("card", "hot")]
    pairs += [(f"s-{s}", f"s-{s}-bg") for s in ("info", "low", "medium", "high", "critical")]
    for ink, ground in pairs:
        assert contrast(c[ink], c[ground]) >= 4.5, (scheme, ink, ground, contrast(c[ink], c[ground]))
    for mark in ("hot", "cool", "warm"):  # parts of plots: WCAG asks for 3
        assert contrast(c[mark], c["card"]) >= 3.0, (scheme, mark)


# ------------------------------------------------------------------------------------------------------ STIX 2.1

_ID = re.compile(r"[a-z][a-z-]+--[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_NEEDS = {
    "identity": ["name"], "campaign": ["name"], "note": ["content", "object_refs"],
    "indicator": ["pattern", "pattern_type", "valid_from"], "user-account": [], "marking-definition": ["definition"],
    "observed-data": ["first_observed", "last_observed", "number_observed", "object_refs"],
    "relationship": ["relationship_type", "source_ref", "target_ref"],
}  # fmt: skip


def stix(notes: dict[str, RuleNote], level: Redaction) -> dict[str, Any]:
    return export(bundle(notes), redaction=level, by="mia", why="agreed with the forum", at="2026-01-06T08:00:00Z")


@pytest.mark.parametrize("level", list(Redaction))
def test_an_export_is_stix_of_version_2_1(notes: dict[str, RuleNote], level: Redaction) -> None:
    made = stix(notes, level)
    objects = made["objects"]
    ids = {o["id"] for o in objects}
    assert _ID.fullmatch(made["id"])
    assert len(ids) == len(objects)
    for o in objects:
        assert _ID.fullmatch(o["id"]), o["id"]
        assert o["id"].startswith(o["type"] + "--")
        assert o["spec_version"] == "2.1"
        assert all(name in o for name in _NEEDS[o["type"]]), o
        if o["type"] not in ("user-account", "marking-definition"):
            assert _TIME.fullmatch(o["created"])
            assert _TIME.fullmatch(o["modified"])
        references = [v for k, v in o.items() if k.endswith("_ref")]
        references += [v for k, vs in o.items() if k.endswith("_refs") for v in vs]
        assert set(references) <= ids, o
        assert 0 <= o.get("confidence", 0) <= 100
    assert stix(notes, level) == made


def test_an_export_names_nobody_unless_it_was_decided_so_and_says_what_was_decided(notes: dict[str, RuleNote]) -> None:
    names = {"account": accounts(13), "link": [campaign().evidence["links"][0]["value"]], "request": ["req_"]}

    def named(level: Redaction) -> set[str]:
        text = json.dumps(stix(notes, level))
        return {kind for kind, values in names.items() if any(v in text for v in values)}

    assert named(Redaction.MINIMAL) == set()
    assert named(Redaction.LINKS) == {"link"}
    assert named(Redaction.ACCOUNTS) == {"link", "account"}
    for level in Redaction:
        note = next(o for o in stix(notes, level)["objects"] if o["type"] == "note")
        assert (
            f"Level: {level.value}. Decided by mia at 2026-01-06T08:00:00Z: agreed with the forum." in note["content"]
        )
    with pytest.raises(MonitorError, match="--why"):
        export(bundle(notes), redaction=Redaction.MINIMAL, by="mia", why=" ", at="2026-01-06T08:00:00Z")


# --------------------------------------------------------------------------------------------------- the commands


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "key").write_text(KEY.secret.decode())
    alerts = [campaign(1), lone(1), campaign(2), campaign(3)]
    (tmp_path / "alerts.ndjson").write_bytes(b"".join(msgspec.json.encode(a) + b"\n" for a in alerts))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONITOR__EVIDENCE__SIGNING_KEY_FILE", "key")
    monkeypatch.setenv("MONITOR__EVIDENCE__AUDIT", "file")
    monkeypatch.setenv("MONITOR__EVIDENCE__AUDIT_FILE", "readings.ndjson")
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli(), list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("name", [campaign().alert_id, "camp-7f3a", incident(campaign().alert_id).lower()])
def test_report_and_verify(case: Path, name: str) -> None:
    code, said = run("report", name, "--file", "alerts.ndjson", "--out", "out", "--by", "mia", "--stix", "minimal",
                     "--why", "agreed", "--at", "2026-01-06T08:00:00Z")  # fmt: skip
    assert code == 0, said
    stem = case / "out" / incident(campaign().alert_id)
    assert sorted(p.suffix for p in (case / "out").iterdir()) == [".html", ".json", ".json"]
    held = json.loads(stem.with_suffix(".json").read_bytes())
    assert [r["revision"] for r in held["revisions"]] == [1, 2, 3]
    assert held["made"] == {"at": "2026-01-06T08:00:00Z", "by": "mia", "monitor": held["made"]["monitor"]}
    assert run("verify", f"{stem}.json")[0] == 0
    note = json.loads((case / "readings.ndjson").read_text().splitlines()[-1])
    assert (note["by"], note["action"], note["case"], note["via"]) == ("mia", "report", campaign().alert_id, "cli")

    page = stem.with_suffix(".html")
    page.write_text(page.read_text().replace("critical", "harmless").replace("high", "low"))
    code, said = run("verify", f"{stem}.json")
    assert (code, said) == (1, f"{page.name}: is not what the bundle gives\n")
    page.unlink()
    held["revisions"][2]["accounts"] = ["acct_innocent"]
    stem.with_suffix(".json").write_text(json.dumps(held))
    code, said = run("verify", f"{stem}.json", "--json")
    assert code == 1
    assert "revision 3: was altered" in json.loads(said)["findings"]


def test_a_report_is_not_made_where_its_reading_cannot_be_noted(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONITOR__EVIDENCE__AUDIT_FILE", "no/such/folder/readings.ndjson")
    code, said = run("report", "camp-7f3a", "--file", "alerts.ndjson", "--out", "out", "--by", "mia")
    assert code == 1
    assert "nothing is shown" in said
    assert not (case / "out").exists()


def test_what_is_no_bundle_is_said_so(case: Path) -> None:
    (case / "x.json").write_text("{}")
    assert run("verify", "x.json") == (1, "is not a bundle of evidence/v1: it has no seal\n"
                                       "signature: there is none, anybody could have made this\n") or run(
        "verify", "x.json")[0] == 1  # fmt: skip
    (case / "y.json").write_text('{"sch')
    assert run("verify", "y.json")[0] == 1
    assert run("verify", "missing.json")[0] == 2
    code, said = run("report", "nobody", "--file", "alerts.ndjson", "--out", "out", "--by", "mia")
    assert code == 1
    assert "has no alert 'nobody'" in said
    assert run("report", "camp-7f3a", "--file", "alerts.ndjson", "--out", "out", "--stix", "all")[0] == 2


def test_settings_refuse_a_viewer_without_a_place_and_a_key_that_is_guessed() -> None:
    with pytest.raises(ValueError, match=r"has no \{request_id\}"):
        EvidenceSettings(viewer_url="https://logs.example/")
    with pytest.raises(ValueError, match="must begin with http"):
        EvidenceSettings(viewer_url="javascript:alert({request_id})")
    with pytest.raises(ValueError, match="shorter than 32"):
        EvidenceSettings(signing_key="secret")  # type: ignore[arg-type]
