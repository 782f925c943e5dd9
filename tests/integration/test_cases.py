"""Cases in a real Redis 7 and Valkey 9: decided by one person at a time, taken back at once, forgotten, preserved."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from campaign_rows import START, accounts, campaign, lone
from campaign_world import STEP_MS, Act, blob
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from monitor.__main__ import build as cli
from monitor.archive import Archive
from monitor.casework import parse_time
from monitor.errors import DependencyDown, MonitorError
from monitor.lifecycle import incident
from monitor.records import Alert
from monitor.schemas import load
from monitor.store import cases, decisions, readers
from monitor.store.alert_keys import AlertKeys
from monitor.store.cases import Life, Reading
from monitor.store.forget import forget
from monitor.store.inventory import REDIS
from monitor.store.redis_checkpoints import RedisCheckpointStore
from monitor.store.redis_link import RIGHTS, RedisOptions, connect
from monitor.store.redis_links import RedisLinkStore
from monitor.store.redis_sink import RedisSink

KEYS, LIFE = AlertKeys(), Life(keep_days=400)
WHO: dict[str, Any] = {"by": "mia", "why": "read 12 requests"}


@pytest.fixture
def options(any_redis_url: str) -> RedisOptions:
    return RedisOptions(url=any_redis_url)


@pytest.fixture
def client(options: RedisOptions) -> Iterator[redis.Redis]:
    with connect(options) as client:
        yield client


@pytest.fixture
def sink(options: RedisOptions) -> Iterator[RedisSink]:
    sink = RedisSink(options, max_accounts=5)
    yield sink
    sink.close()


def decide(client: redis.Redis, alert: Alert, *states: str) -> None:
    for i, state in enumerate(states):
        cases.add(client, KEYS, LIFE, alert.alert_id, state, at=START + i, **WHO)


def decide_on(
    client: redis.Redis, alert: Alert | None = None, action: str = "throttle", **more: Any
) -> decisions.Decision:
    """A proposal of Mia's on the alert, for a day."""
    hit = decisions.whom(client, KEYS, (alert or campaign()).alert_id, action, **more)
    return decisions.propose(client, KEYS, LIFE, hit, by="mia", why="it goes on", at=START, until=START + 86_400)


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    """Every key with all that is in it, as bytes."""
    found: dict[bytes, bytes] = {}
    for name in client.scan_iter("*"):
        match client.type(name):
            case b"string":
                value: Any = client.get(name)
            case b"hash":
                value = client.hgetall(name)
            case b"zset":
                value = client.zrange(name, 0, -1)
            case b"stream":
                value = client.xrange(name)
        found[name] = name + b" " + repr(value).encode()
    return found


# ---------------------------------------------------------------------------------------------------- decisions


def test_a_case_is_moved_and_its_incident_id_finds_it(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([campaign(1), campaign(2)])
    name = campaign().alert_id
    assert cases.resolve(client, KEYS, incident(name)) == name  # before anybody has moved it
    decide(client, campaign(), "acknowledged")
    sink.send([campaign(3)])
    cases.add(client, KEYS, LIFE, name, "confirmed", at=START + 9, **WHO)
    held = cases.case(client, KEYS, name)
    assert [(e.state, e.revision, e.severity) for e in held.events] == [
        ("acknowledged", 2, "medium"), ("confirmed", 3, "high")]  # fmt: skip
    assert held.events[1].by == "mia"
    assert cases.states(client, KEYS, [name, "0" * 32]) == {name: "confirmed", "0" * 32: "open"}
    client.delete(KEYS.alert(name))
    assert cases.resolve(client, KEYS, incident(name).lower()) == name
    assert cases.case(client, KEYS, name).alert is not None  # a verdict outlives its alert
    with pytest.raises(MonitorError, match="no case has the incident id"):
        cases.resolve(client, KEYS, "INC-0000-0000")
    with pytest.raises(MonitorError, match="is known"):
        cases.add(client, KEYS, LIFE, "f" * 32, "confirmed", at=START, **WHO)


def test_two_people_who_decide_at_once_see_each_other(
    options: RedisOptions, client: redis.Redis, sink: RedisSink
) -> None:
    sink.send([lone()])
    for attempt in range(10):
        said: list[str] = []
        barrier = threading.Barrier(2)

        def one(name: str, state: str, at: float) -> None:
            with connect(options) as mine:
                barrier.wait()  # noqa: B023
                try:
                    cases.add(mine, KEYS, LIFE, lone().alert_id, state, by=name, why="because", at=at)
                    said.append(f"{name}: moved")  # noqa: B023 - joined before the next round
                except MonitorError as error:
                    said.append(f"{name}: {error}")  # noqa: B023

        at = START + attempt * 10
        people = [threading.Thread(target=one, args=(n, "confirmed", at)) for n in ("mia", "noah")]
        for person in people:
            person.start()
        for person in people:
            person.join()
        assert sum("moved" in s and "somebody" not in s for s in said) == 1, said
        cases.add(client, KEYS, LIFE, lone().alert_id, "false_positive", at=at + 5, **WHO)
    assert len(cases.case(client, KEYS, lone().alert_id).events) == 20


def test_a_false_positive_takes_its_verdicts_back_and_gives_none_while_it_stands(
    client: redis.Redis, sink: RedisSink
) -> None:
    other = lone(1, 2, accounts=["a-1"], severity="low")  # holds the same account for something else
    sink.send([lone(1, 1), campaign(1)])
    core = campaign(1).accounts
    assert readers.verdict(client, KEYS, "a-1") is not None
    decide(client, lone(1, 1), "acknowledged", "false_positive")
    assert readers.verdict(client, KEYS, "a-1") is None
    sink.send([lone(2, 1)])  # the monitor goes on revising
    assert readers.verdict(client, KEYS, "a-1") is None
    sink.send([other])
    held = readers.verdict(client, KEYS, "a-1")
    assert held is not None
    assert held.alert_id == other.alert_id
    cases.add(client, KEYS, LIFE, lone().alert_id, "confirmed", at=START + 60, **WHO)
    sink.send([lone(3, 1)])
    assert readers.verdict(client, KEYS, "a-1").alert_id == lone(1, 1).alert_id  # type: ignore[union-attr]

    assert client.exists(*map(KEYS.verdict, core[:5])) == 5
    decide(client, campaign(), "false_positive")
    assert client.exists(*map(KEYS.verdict, core)) == 0
    assert len(core) > 5  # also of members that the alert in Redis is too short for


def test_every_revision_that_is_kept_is_found(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([campaign(1), lone(1), campaign(2), lone(2), campaign(3), lone(1, 3, mode="shadow")])
    assert [a.revision for a in readers.revisions_of(client, KEYS, campaign().alert_id)] == [1, 2, 3]
    assert [a.mode for a in readers.revisions_of(client, KEYS, lone(1, 3).alert_id)] == ["shadow"]
    assert readers.revisions_of(client, KEYS, "f" * 32) == []


# ------------------------------------------------------------------------------------------ forgotten, preserved


def test_a_forgotten_account_is_nowhere_in_redis(client: redis.Redis, sink: RedisSink) -> None:
    gone, kept = accounts(1)[0], accounts(2)[1]
    own = [lone(i, 7, subject=gone, accounts=[gone], members={}) for i in (1, 2)]
    sink.send([campaign(1), campaign(2), *own, lone(1, 1), lone(1, 8, subject=kept, accounts=[kept], mode="shadow")])
    decide(client, campaign(), "confirmed")
    decide(client, own[0], "acknowledged")
    before = everything(client)
    assert sum(gone.encode() in value for value in before.values()) >= 7  # the search would find it
    done = forget(client, KEYS, gone)
    after = everything(client)
    assert [name for name, value in after.items() if gone.encode() in value] == []
    assert (done.alerts, done.campaigns) == ([own[0].alert_id], [campaign().alert_id])
    assert done.entries == 4
    # what is about others is as it was
    left = {n: v for n, v in after.items() if n in before and n.split(b":")[2] not in (b"alerts", b"top", b"cases")}
    changed = {n for n, v in left.items() if before[n] != v}
    assert changed == {KEYS.alert(campaign().alert_id).encode(), KEYS.members(campaign().alert_id).encode(),
                       KEYS.case(campaign().alert_id).encode()}  # fmt: skip
    again = readers.show(client, KEYS, campaign().alert_id)
    assert again is not None
    assert (again.revision, kept in again.accounts) == (2, True)
    entries = readers.list_alerts(client, KEYS)
    assert {(a.alert_id, a.revision) for a in entries} == {(campaign().alert_id, 2), (lone(1, 1).alert_id, 1)}
    assert [e.state for e in cases.case(client, KEYS, campaign().alert_id).events] == ["confirmed"]
    assert 0 < client.ttl(KEYS.alert(campaign().alert_id)) <= 30 * 86_400
    assert forget(client, KEYS, gone).keys == 0


def test_an_account_in_members_alone_is_forgotten_too(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([campaign(1)])
    last = accounts(40)[-1]
    assert last.encode() in everything(client)[KEYS.members(campaign().alert_id).encode()]
    forget(client, KEYS, last)
    assert not [n for n, v in everything(client).items() if last.encode() in v]


def test_a_hold_preserves_request_ids_and_goes_before_forgetting(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([campaign(1), campaign(2)])
    name, member = campaign().alert_id, accounts(40)[-1]
    held = cases.hold(client, KEYS, LIFE, name, at=START, **WHO)
    assert held.request_ids == sorted(f"req_{r}_{i}" for r in (1, 2) for i in range(6))
    assert (held.start, held.end) == (START, campaign(2).revised_at)
    with pytest.raises(MonitorError, match="hold ALERT_ID --release"):
        forget(client, KEYS, member)
    client.delete(KEYS.alert(name), KEYS.stream_of("alert"))
    assert [a.revision for a in cases.holds(client, KEYS)[0].revisions] == [1, 2]
    assert cases.release(client, KEYS, name)
    assert not cases.release(client, KEYS, name)
    assert cases.holds(client, KEYS) == []
    forget(client, KEYS, member)


def test_every_key_is_in_the_inventory_and_lives_no_longer_than_it_says(
    options: RedisOptions, client: redis.Redis, sink: RedisSink
) -> None:
    sink.was_flushed()
    sink.send([campaign(1), lone(1, 2), lone(1, 3, mode="shadow")])
    decide(client, campaign(), "confirmed")
    cases.hold(client, KEYS, LIFE, campaign().alert_id, at=START, **WHO)
    cases.note(client, KEYS, LIFE, Reading(at=START, by="mia", action="report", case="x", via="cli"))
    decided = decide_on(client)
    for person in ("noah", "ada"):
        decisions.approve(client, KEYS, LIFE, decided.decision, by=person, why="yes", at=START)
    RedisLinkStore(options).put([(0, 1, b"x")], {0: 1})
    store = RedisCheckpointStore(options)
    store.claim(0, 1)
    store.put_meta({"partitions": 1})
    lives = {"redis.ttl_s": 30 * 86_400, "redis.verdict_ttl_s": 6 * 3_600, "evidence.keep_days": 400 * 86_400,
             "features.idle_days": 366 * 86_400, "three days": 3 * 86_400}  # fmt: skip
    used = set()
    for name in client.scan_iter("*"):
        text = name.decode()
        other = {"abm:{cp:": "{cp:…}", "abm:{links:": "{links:…}"}
        kind = next((k for p, k in other.items() if text.startswith(p)), "") or text.split("}:")[1].split(":")[0]
        rows = [k for k in REDIS if k.key.split(":<")[0] == kind]
        assert len(rows) == 1, text
        assert 0 < client.ttl(name) <= lives[rows[0].life], text
        used.add(rows[0].key)
    assert used == {k.key for k in REDIS}


def test_a_user_with_the_rights_of_the_readme_can_do_all_of_it(any_redis_url: str, client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "monitor", "on", ">pass-1", "resetkeys", "~abm:*", "-@all", *RIGHTS)
    options = RedisOptions(url=any_redis_url, username="monitor", password="pass-1")
    sink = RedisSink(options, max_accounts=5)
    sink.send([campaign(1), campaign(2)])
    with connect(options) as mine:
        decide(mine, campaign(), "acknowledged", "confirmed", "false_positive")
        cases.hold(mine, KEYS, LIFE, campaign().alert_id, at=START, **WHO)
        cases.release(mine, KEYS, campaign().alert_id)
        cases.note(mine, KEYS, LIFE, Reading(at=START, by="mia", action="x", case="x", via="cli"))
        assert len(cases.readings(mine, KEYS)) == 1
        assert len(list(cases.cases(mine, KEYS))) == 1
        cases.resolve(mine, KEYS, incident(campaign().alert_id))
        sink.send([lone(1, 2)])
        held = decide_on(mine, lone(1, 2), "throttle")
        decisions.approve(mine, KEYS, LIFE, held.decision, by="noah", why="yes", at=START)
        decisions.lift(mine, KEYS, LIFE, lone(1, 2).alert_id, by="noah", why="no", at=START)
        readers.revisions_of(mine, KEYS, campaign().alert_id)
        forget(mine, KEYS, accounts(1)[0])
    sink.close()
    client.execute_command("ACL", "DELUSER", "monitor")


def test_a_server_that_is_away_is_said_so() -> None:
    with connect(RedisOptions(url="redis://127.0.0.1:1/0")) as client, pytest.raises(DependencyDown, match="start it"):
        cases.case(client, KEYS, "x")


# ---------------------------------------------------------------------------------------------------- decisions


def test_two_people_put_a_decision_on_a_campaign_in_force_and_it_ends(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([campaign(1), lone(1, 2)])
    core, spared = campaign(1).accounts, campaign(1).accounts[3]
    held = decide_on(client, protected=[spared])
    assert (len(held.accounts), held.spared, held.needs) == (12, [spared], 2)
    enforced = [KEYS.enforce(a) for a in core]
    assert client.exists(*enforced) == 0  # a proposal hits nobody
    held = decisions.approve(client, KEYS, LIFE, held.decision, by="noah", why="yes", at=START + 1)
    assert (held.state, client.exists(*enforced)) == ("proposed", 0)
    with pytest.raises(MonitorError, match="noah has approved it already"):
        decisions.approve(client, KEYS, LIFE, held.decision, by="noah", why="yes", at=START + 2)
    with pytest.raises(MonitorError, match="time is over"):
        decisions.approve(client, KEYS, LIFE, held.decision, by="ada", why="yes", at=START + 86_400)
    held = decisions.approve(client, KEYS, LIFE, held.decision, by="ada", why="yes", at=START + 3_600)
    assert (held.state, client.exists(*enforced)) == ("approved", 12)
    assert not client.exists(KEYS.enforce(spared))
    assert 0 < client.ttl(KEYS.enforce(core[0])) <= 86_400 - 3_600
    peripheral = accounts(40)[-1]
    assert not client.exists(KEYS.enforce(peripheral))
    other = decide_on(client, lone(1, 2, accounts=[core[0]]))
    assert other.needs == 1
    decisions.undo(client, KEYS, LIFE, held.decision, by="mia", why="an error", at=START + 9)
    assert client.exists(*enforced) == 0
    with pytest.raises(MonitorError, match="undone already"):
        decisions.undo(client, KEYS, LIFE, held.decision, by="mia", why="an error", at=START + 9)
    assert [s.what for s in decisions.get(client, KEYS, held.decision).steps] == [
        "proposed", "approved", "approved", "undone"]  # fmt: skip


def test_what_stands_against_a_decision(client: redis.Redis, sink: RedisSink) -> None:
    sink.send([campaign(1), lone(1, 1), lone(1, 2, mode="shadow")])

    def said(alert: Alert, action: str = "throttle", **more: Any) -> str:
        return "; ".join(decisions.whom(client, KEYS, alert.alert_id, action, **more).objections)

    assert said(campaign()) == ""
    assert "before a person has confirmed" in said(campaign(), "suspend_account")
    assert "13 accounts, 12 at most" in said(campaign(), max_accounts=12)
    assert "hits nobody" in said(lone(1, 1), protected=["a-1"])
    assert "on trial" in said(lone(1, 2))
    with pytest.raises(MonitorError, match="is no action"):
        said(campaign(), "delete")
    decide(client, campaign(), "confirmed")
    assert said(campaign(), "suspend_account") == ""
    with pytest.raises(MonitorError, match="12 at most"):
        decide_on(client, max_accounts=12)
    hit = decisions.whom(client, KEYS, campaign().alert_id, "throttle")
    for until in (START, START + 91 * 86_400):
        with pytest.raises(MonitorError, match="at most 90 days"):
            decisions.propose(client, KEYS, LIFE, hit, by="mia", why="x", at=START, until=until)


def test_a_decision_ends_with_the_case_and_an_account_leaves_it(
    shell: Path, client: redis.Redis, sink: RedisSink
) -> None:
    sink.send([lone(1, 1), lone(1, 2)])
    until = ("--until", "2026-02-01T00:00:00Z", "--at", "2026-01-05T20:00:00Z")
    for n in ("a-1", "a-2"):
        code, told = run(
            "decisions", "propose", n, "--action", "throttle", "--by", "mia", "--why", "on", *until, "--json"
        )
        assert code == 0, told
        name = json.loads(told)["decision"]
        code, told = run("decisions", "approve", name, "--by", "noah", "--why", "yes", "--at", "2026-01-05T21:00:00Z")
        assert told == f"{name} is approved: throttle on 1 accounts\n"
        assert client.exists(KEYS.enforce(n))
    assert run("alerts", "false-positive", "a-1", "--by", "ada", "--why", "a harness")[0] == 0
    assert not client.exists(KEYS.enforce("a-1"))
    forget(client, KEYS, "a-2")
    assert not [n for n, v in everything(client).items() if b"a-2" in v]
    assert {d["state"] for d in json.loads(run("decisions", "list", "--json")[1])} == {"undone", "approved"}


def test_takedown_shows_everybody_at_once_and_does_nothing(shell: Path, client: redis.Redis, sink: RedisSink) -> None:
    sink.send([campaign(1)])
    before = everything(client)
    code, told = run("takedown", "camp-7f3a", "--dry-run")
    assert code == 1
    assert "would hit 13 core accounts at once" in told
    assert "against it: nobody is suspended before a person has confirmed the case" in told
    assert set(campaign(1).accounts) <= set(told.splitlines())
    assert run("takedown", "camp-7f3a")[0] == 2
    changed = {n for n, v in everything(client).items() if before.get(n) != v}
    assert changed == {KEYS.audit().encode()}


# --------------------------------------------------------------------------------------------------- the commands


@pytest.fixture
def shell(any_redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONITOR__REDIS__URL", any_redis_url)
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli(), list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_from_alert_to_appeal_to_verdicts_by_command(shell: Path, sink: RedisSink, client: redis.Redis) -> None:
    sink.send([lone(1, 1), lone(1, 2), campaign(1), campaign(2)])
    why = ("--by", "mia", "--why", "read 12 requests")
    assert run("alerts", "ack", "camp-7f3a", *why, "--at", "2026-01-05T20:00:00Z")[0] == 0
    assert run("alerts", "confirm", incident(campaign().alert_id), *why, "--at", "2026-01-05T21:00:00Z")[0] == 0
    assert run("alerts", "false-positive", "a-2", *why)[0] == 0
    code, said = run("alerts", "ack", "a-2", *why)
    assert (code, said) == (1, "the case is false_positive: it can become confirmed, closed, not acknowledged\n")
    assert run("alerts", "confirm", "a-1", *why, "--at", "yesterday")[0] == 2
    assert run("alerts", "confirm", "nobody", *why)[0] == 1
    sink.send([campaign(3)])
    code, said = run("alerts", "appeal", "camp-7f3a", "--by", "support", "--why", "the customer objects", "--json")
    told = json.loads(said)
    assert told["since"]["state"] == "confirmed"
    assert told["changed"]["severity"] == ["medium", "high"]
    assert told["changed"]["requests"] == [1_800, 2_700]
    assert run("alerts", "verdicts", "--out", "v.ndjson")[0] == 0
    lines = [json.loads(x) for x in (shell / "v.ndjson").read_text().splitlines()]
    assert [(x["subject"], x["verdict"]) for x in lines] == [("a-2", "false_positive")]  # an appeal is open
    assert run("alerts", "confirm", "camp-7f3a", *why)[0] == 0
    assert run("alerts", "close", "camp-7f3a", *why)[0] == 0
    run("alerts", "verdicts", "--out", "v.ndjson")
    lines = [json.loads(x) for x in (shell / "v.ndjson").read_text().splitlines()]
    assert [x["verdict"] for x in lines] == ["false_positive", "confirmed"]
    assert lines[1]["features"]["template_concentration_24h"] == 0.93
    assert run("alerts", "verdicts", "--out", "t.ndjson", "--truth")[0] == 0
    truth = [json.loads(x) for x in (shell / "t.ndjson").read_text().splitlines()]
    validator = Draft202012Validator(load("truth.v1"))
    assert [list(validator.iter_errors(t)) for t in truth] == [[]] * len(truth)
    assert {t["account_id"]: t["actor"] for t in truth}["a-2"] == "benign"
    assert sum(t["actor"] == "distillation" for t in truth) == 5
    code, said = run("alerts", "history", "camp-7f3a", "--json")
    assert [e["state"] for e in json.loads(said)["history"]] == [
        "acknowledged", "confirmed", "appealed", "confirmed", "closed"]  # fmt: skip
    assert json.loads(said)["history"][0]["at"] == parse_time("2026-01-05T20:00:00+00:00")


def test_who_acquits_an_account_hears_what_still_holds_it(shell: Path, sink: RedisSink) -> None:
    sink.send([lone(1), campaign(3, accounts=["a-1", "a-7"])])
    why = ["--by", "noah", "--why", "agreement 17"]
    code, said = run("alerts", "false-positive", lone().alert_id, *why)
    assert code == 0
    assert f"a-1 is still held by {incident(campaign().alert_id)}" in said
    assert "'verdict': 'restrict'" in run("alerts", "verdict", "a-1")[1]
    assert "still held" not in run("alerts", "false-positive", campaign().alert_id, *why)[1]
    assert "nothing is held" in run("alerts", "verdict", "a-1")[1]


def test_report_out_of_redis_notes_who_read_it(shell: Path, sink: RedisSink, client: redis.Redis) -> None:
    sink.send([campaign(1), campaign(2), lone(1, 2)])
    decide(client, lone(1, 2), "false_positive")
    code, said = run("report", "camp-7f3a", "--out", "out", "--by", "mia")
    assert code == 0, said
    held = json.loads((shell / "out" / f"{incident(campaign().alert_id)}.json").read_bytes())
    assert [r["revision"] for r in held["revisions"]] == [1, 2]
    assert held["nearest_benign"]["alert_id"] == lone(1, 2).alert_id
    last = cases.readings(client, KEYS)[0]
    assert (last.by, last.action, last.case, last.via) == ("mia", "report", campaign().alert_id, "cli")
    assert run("verify", f"out/{incident(campaign().alert_id)}.json")[0] == 1  # nobody signed it
    assert run("alerts", "show", "nobody")[0] == 1
    assert run("alerts", "show", campaign().alert_id)[0] == 0
    assert [(r.action, r.case) for r in cases.readings(client, KEYS)][:3] == [
        ("show", campaign().alert_id), ("show", "nobody"), ("report", campaign().alert_id)]  # fmt: skip
    by_file = ["--file", "alerts.ndjson"]
    (shell / "alerts.ndjson").write_bytes(b"".join(msgspec.json.encode(a) + b"\n" for a in (campaign(2), lone(1, 2))))
    names = (campaign().alert_id, "camp-7f3a", incident(campaign().alert_id), accounts(1)[0])
    for where in ([], by_file):  # by its id, its subject, what support quotes, and a member
        found = [json.loads(run("alerts", "show", name, "--json", *where)[1]) for name in names]
        assert [(a["alert_id"], a["revision"]) for a in found] == [(campaign().alert_id, 2)] * 4
        assert json.loads(run("alerts", "show", lone(1, 2).subject, "--json", *where)[1])["kind"] == "account"
    assert run("alerts", "show", "nobody", *by_file)[0] == 1
    last = cases.readings(client, KEYS)[0]
    code, said = run("readings", "--json")
    assert json.loads(said)[0] == msgspec.to_builtins(last)


def test_forget_and_hold_by_command(shell: Path, sink: RedisSink, client: redis.Redis) -> None:
    sink.send([campaign(1)])
    member = accounts(1)[0]
    code, said = run("hold", "camp-7f3a", "--why", "court order 12", "--by", "mia")
    assert code == 0
    assert [x for x in said.splitlines() if not x.startswith("#")] == [f"req_1_{i}" for i in range(6)]
    assert run("hold", "camp-7f3a")[0] == 2
    assert run("forget", member, "--by", "mia")[0] == 1
    assert run("hold", "camp-7f3a", "--release", "--by", "mia") == (0, "the hold has ended\n")
    code, said = run("forget", member, "--by", "mia")
    assert code == 0
    assert "its name from 1 campaigns" in said
    assert "checkpoints (directory): until 7 days" in said
    assert not [n for n, v in everything(client).items() if member.encode() in v]
    assert [r.action for r in cases.readings(client, KEYS)] == ["forget", "release", "hold"]


def test_forget_reaches_the_archive(shell: Path, sink: RedisSink, monkeypatch: pytest.MonkeyPatch) -> None:
    sink.send([lone(1, 1)])
    monkeypatch.setenv("MONITOR__ARCHIVE__PATH", str(shell / "archive"))
    Archive(shell / "archive", STEP_MS).put([blob(s, [Act("a-1"), Act("a-2")]) for s in (0, 1, 200)])
    code, said = run("forget", "a-1", "--json")
    assert code == 0, said
    assert json.loads(said)["removed"]["archive"] == 2  # a day that is over, and a step of the next
    code, said = run("hunt", "--seed", "a-1")
    assert code == 2
    assert "no row of a-1" in said
    assert run("hunt", "--seed", "a-2")[0] == 0


def test_rules_in_shadow_and_what_they_say_out_of_the_stream(shell: Path, sink: RedisSink, client: redis.Redis) -> None:
    """Statistics count both streams and what people decided; an explanation is a reading, and noted."""
    trial = {"mode": "shadow", "rules": ["one-shot-template"]}
    sink.send([lone(1, 1), lone(1, 2), lone(1, 11, subject="a-1", **trial), lone(1, 12, subject="a-9", **trial)])
    decide(client, lone(1, 1), "confirmed")
    code, said = run("rules", "shadow", "--json")
    assert code == 0, said
    found = next(s for s in json.loads(said) if s["rule"] == "one-shot-template")
    assert (found["subjects"], found["also"], found["new"], found["confirmed"]) == (2, 1, 1, 1)
    code, said = run("rules", "explain", "trace-harvest", "a-1", "--json")
    assert code == 0, said
    terms = {t["term"]: t for t in json.loads(said[said.index("[") :])[0]["terms"]}
    assert terms["template_concentration_24h >= 0.05"]["margin"] == pytest.approx(0.85)
    assert terms["requests_24h >= min_requests=20"]["outcome"] is True
    assert any(r.action == "explain" for r in cases.readings(client, KEYS))
    assert run("explain", "a-404")[0] == 1
