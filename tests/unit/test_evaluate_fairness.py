"""What a comparison of alerts calls equal, and that each test can fail."""

import json

import pytest
from msgspec import structs

from monitor.evaluate import fairness, groups
from monitor.evaluate.inputs import Revision


def alert(subject="a", at=100.0, **more):
    given = {"alert_id": f"id-{subject}-{at}", "kind": "account", "severity": "medium", "score": 0.25, **more}
    return Revision(subject=subject, revised_at=at, accounts=[subject], **given)


def test_only_what_was_said_counts_not_the_alerts_name():
    one, other = [alert("a"), alert("b", revision=2)], [alert("b", revision=2, alert_id="x"), alert("a", alert_id="y")]
    found = fairness.compare(fairness.RELABELLED, 3, one, other)
    assert (found.seed, found.revisions, found.changed, found.subjects, found.subjects_changed) == (3, 2, 0, 2, 0)
    assert found.holds is True


def test_each_difference_breaks_it():
    for change in ({"severity": "low"}, {"score": 0.26}, {"mode": "shadow"}, {"hypothesis": "resale"}, {"at": 101.0},
                   {"revision": 2}, {"state": "closed"}, {"subject": "b"}):  # fmt: skip
        found = fairness.compare(fairness.RELABELLED, 1, [alert()], [alert(**change)])
        assert (found.changed, found.holds) == (2, False), change
    assert fairness.compare(fairness.RELABELLED, 1, [alert()], []).holds is False


def test_a_shifted_day_is_compared_at_the_same_moment_of_the_log():
    later = 100.0 + fairness.SHIFT_H * 3600
    assert fairness.compare(fairness.SHIFTED, 1, [alert(at=100.0)], [alert(at=later)]).changed == 0
    moved = fairness.compare(fairness.SHIFTED, 1, [alert(at=100.0)], [alert(at=later + 60)])
    assert (moved.changed, moved.subjects_changed, moved.holds) == (2, 0, True)
    assert moved.reading == "the same verdicts"


@pytest.mark.parametrize(
    ("given", "changed"),
    [({"severity": "low"}, {"severity": "info"}), ({"mode": "shadow"}, {"mode": "shadow", "severity": "high"}),
     ({"mode": "shadow"}, {"mode": "alert"}), ({"hypothesis": "resale"}, {"hypothesis": "distillation"})],
)  # fmt: skip
def test_nothing_may_be_said_of_anybody_for_the_hour(given, changed):
    later = 100.0 + fairness.SHIFT_H * 3600
    for one, other in ((given, changed), (changed, given)):
        found = fairness.compare(fairness.SHIFTED, 1, [alert(**one)], [alert(at=later, **other)])
        assert (found.changed, found.subjects_changed, found.holds) == (2, 1, False)
        assert "BROKEN" in found.reading
    assert fairness.compare(fairness.SHIFTED, 1, [alert(**given)], []).holds is False


def test_a_campaign_is_the_same_by_whatever_step_its_id_is_made():
    def campaign(name, at, accounts):
        return structs.replace(alert(name, at), kind="campaign", accounts=accounts)

    grown = structs.replace(campaign("camp_1", 160.0, ["a", "b", "c"]), revision=2)
    first = [campaign("camp_1", 100.0, ["a", "b"]), grown]
    shift = fairness.SHIFT_H * 3600
    moved = [structs.replace(r, subject="camp_2", revised_at=r.revised_at + shift) for r in first]
    assert fairness.compare(fairness.SHIFTED, 1, first, moved[::-1]).changed == 0
    other = [structs.replace(r, accounts=["a", "x"]) for r in moved[:1]] + moved[1:]
    assert fairness.compare(fairness.SHIFTED, 1, first, other).holds is False
    renamed = [structs.replace(r, subject="camp_2") for r in first]
    assert fairness.compare(fairness.RELABELLED, 1, first, renamed).holds is False, "there the steps are the same"


def test_a_merger_that_nothing_sees_is_said():
    assert "can't fail" in fairness.compare(fairness.MERGED, 1, [alert()], [alert()]).reading
    assert fairness.compare(fairness.MERGED, 1, [alert()], [alert("b")]).reading == "sees the merger"


def test_merging_makes_all_networks_one():
    change = fairness.transform(fairness.MERGED)
    assert [change({"asn": n})["asn"] for n in (1, 2, 3)] == [1, 1, 1]
    assert change({"asn": None, "ip": "x"}) == {"asn": None, "ip": "x"}
    assert change({"account_id": "a"}) == {"account_id": "a"}


def test_honest_accounts_are_counted_by_group_at_the_worst_they_were_called(tmp_path):
    log = tmp_path / "log.ndjson"
    calls = {"a": ("SE", "firm", 3, 8), "b": ("SE", "firm", 5, 2), "c": (None, None, 14, 1), "bad": ("SE", None, 3, 9),
             "d": ("NG", None, 20, 4)}  # fmt: skip
    lines = [
        {"account_id": who, "org_id": org, "country": country, "ts": 86_400.0 * day + 3600 * hour}
        for who, (country, org, hour, n) in calls.items() for day in range(n)
    ]  # fmt: skip
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    alerts = [
        alert("a", severity="low"), alert("a", severity="medium", revision=2), alert("b", severity="low"),
        alert("c", severity="high", state="withdrawn"), alert("d", severity="critical", mode="shadow"), alert("bad"),
    ]  # fmt: skip
    found = {(g.by, g.group): (g.accounts, g.named) for g in groups.by_group(log, alerts, {"bad"})}
    none = (0, 0, 0)
    assert found == {
        ("country", "NG"): (1, none), ("country", "SE"): (2, (2, 1, 0)), ("country", "unknown"): (1, none),
        ("hours (UTC)", "0 to 6"): (2, (2, 1, 0)), ("hours (UTC)", "12 to 18"): (1, none),
        ("hours (UTC)", "18 to 24"): (1, none),
        ("organisation", "1 account"): (2, none), ("organisation", "2 to 9 accounts"): (2, (2, 1, 0)),
        ("volume", "least"): (1, none), ("volume", "second"): (1, (1, 0, 0)), ("volume", "third"): (1, none),
        ("volume", "most"): (1, (1, 1, 0)),
    }  # fmt: skip
    twice = groups.added([groups.by_group(log, alerts, {"bad"})] * 2)
    assert next(g for g in twice if g.group == "SE") == groups.GroupCount("country", "SE", 4, (4, 2, 0))
