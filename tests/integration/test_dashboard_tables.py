"""The dashboards' tables: every address, root and column that they name is one of the API's, and has rows behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from campaign_rows import START, campaign, lone
from serving import TOKEN, Serving, bearer, settings

from monitor.casework import Desk
from monitor.console.tables import WEEK_S, quality
from monitor.store import cases
from monitor.store.alert_keys import AlertKeys
from monitor.store.cases import Life
from monitor.store.redis_link import RedisOptions, connect
from monitor.store.redis_sink import RedisSink

ROOT = Path(__file__).resolve().parents[2]
TABLES: list[tuple[str, dict[str, Any]]] = [
    (f"{path.stem}: {panel['title']}", panel)
    for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))
    for panel in json.loads(path.read_text())["panels"]
    if panel["type"] != "row" and panel["datasource"]["type"] == "yesoreyeram-infinity-datasource"
]
RULE = "campaign-linked"


@pytest.fixture(scope="module")
def serving(_redis: Any) -> Iterator[Serving]:
    from monitor.source.embedded import resp

    resp(_redis.port, "FLUSHALL")
    sink = RedisSink(RedisOptions(url=_redis.url))
    sink.send([campaign(1), campaign(2), campaign(3, rules=[RULE]), lone(1, 1), lone(1, 2, severity="low")])
    sink.close()
    with connect(RedisOptions(url=_redis.url)) as client:
        cases.add(client, AlertKeys(), Life(), campaign(3).alert_id, "false_positive", by="mia", why="a harness",
                  at=START)  # fmt: skip
    with Serving(settings(_redis.url)) as serving:
        yield serving


def rows(serving: Serving, path: str, root: str) -> list[dict[str, Any]]:
    answer = serving.ask(path, **bearer(TOKEN))
    assert answer.status == 200, answer.text
    found: list[dict[str, Any]] = json.loads(answer.body)[root]
    return found


def test_the_tables_of_the_issue_are_there() -> None:
    assert len(TABLES) == 6
    assert {"abuse-monitor: Campaigns", "abuse-monitor: Accounts under suspicion"} <= {title for title, _ in TABLES}


@pytest.mark.redis7
@pytest.mark.parametrize(("title", "panel"), TABLES, ids=[title for title, _ in TABLES])
def test_every_column_of_a_table_is_answered(serving: Serving, title: str, panel: dict[str, Any]) -> None:
    (target,) = panel["targets"]
    assert (target["type"], target["source"], target["parser"]) == ("json", "url", "backend")
    assert target["url"].startswith("/v1/"), "the address of the API is the data source's"
    found = rows(serving, target["url"], target["root_selector"])
    assert found, title
    types = {"string": str, "number": (int, float), "timestamp_epoch_s": (int, float)}
    for column in target["columns"]:
        values = [row[column["selector"]] for row in found]
        known = [v for v in values if v is not None]
        assert all(isinstance(v, types[column["type"]]) for v in known), column  # type: ignore[arg-type]
        unknown = {"cost", "precision", "expected", "tier", "membership", "right, of those decided", "expected false"}
        assert known or column["text"] in unknown, f"{column['text']}: null everywhere"


@pytest.mark.redis7
@pytest.mark.parametrize(("title", "panel"), TABLES, ids=[title for title, _ in TABLES])
def test_links_lead_to_pages_that_the_console_has(serving: Serving, title: str, panel: dict[str, Any]) -> None:
    (target,) = panel["targets"]
    hidden = {
        override["matcher"]["options"]
        for override in panel["fieldConfig"]["overrides"]
        if {"id": "custom.hidden", "value": True} in override["properties"]
    }
    links = [
        link["url"]
        for override in panel["fieldConfig"]["overrides"]
        for entry in override["properties"]
        if entry["id"] == "links"
        for link in entry["value"]
    ]
    columns = {column["selector"] for column in target["columns"]}
    for url in links:
        (field,) = re.fullmatch(r"\$\{console\}\$\{__data\.fields\.(\w+)\}", url).groups()  # type: ignore[union-attr]
        assert field in columns & hidden, f"{title}: the link's path must be among the columns, unseen"
        for row in rows(serving, target["url"], target["root_selector"])[:2]:
            assert serving.ask(row[field], **bearer(TOKEN)).status == 200, row[field]


@pytest.mark.redis7
def test_accounts_are_listed_by_their_strongest_alert(serving: Serving) -> None:
    found = rows(serving, "/v1/accounts?limit=1000", "accounts")
    names = [row["account"] for row in found]
    assert len(set(names)) == len(names) == len({*campaign(3).members, *campaign(3).accounts, "a-1", "a-2"})
    by_name = {row["account"]: row for row in found}
    core = campaign(3).accounts[0]
    assert (by_name[core]["tier"], by_name[core]["severity"], by_name[core]["case"]) == (
        "core", campaign(3).severity, "false_positive")  # fmt: skip
    assert (by_name["a-2"]["kind"], by_name["a-2"]["tier"], by_name["a-2"]["severity"]) == ("account", None, "low")
    assert [r["severity"] for r in found] == sorted((r["severity"] for r in found), key=lambda s: -order(s))
    assert len(rows(serving, "/v1/accounts?limit=3", "accounts")) == 3


def order(severity: str) -> int:
    return ("info", "low", "medium", "high", "critical").index(severity)


@pytest.mark.redis7
def test_weeks_count_what_was_raised_in_them_and_spend_the_budget(serving: Serving) -> None:
    raised = campaign(3).raised_at
    desk = Desk(serving.settings)
    try:
        this, before = quality(desk, 2, raised + 1)["weeks"]
        assert (this["week"], before["week"]) == (raised + 1 - WEEK_S, raised + 1 - 2 * WEEK_S)
        assert (this["high"], this["false_high"], this["budget"], this["spent"]) == (1, 1, 1.0, 1.0)
        assert (before["alerts"], before["spent"]) == (0, 0.0)
        assert quality(desk, 1, raised - 1)["weeks"][0]["high"] == 0, "it was not raised yet"
        assert quality(desk, 1, raised + 1 + WEEK_S)["weeks"][0]["high"] == 0
    finally:
        desk.close()
    cases_of = {row["case"]: row["alerts"] for row in rows(serving, "/v1/quality", "cases")}
    assert cases_of == {"open": 2, "acknowledged": 0, "confirmed": 0, "false_positive": 1, "appealed": 0, "closed": 0}
    for asked, status in (("0", 400), ("53", 400), ("x", 400), ("1", 200)):
        assert serving.ask(f"/v1/quality?weeks={asked}", **bearer(TOKEN)).status == status
    assert serving.ask("/v1/quality").status == 401


@pytest.mark.redis7
def test_rules_are_listed_by_what_people_found(serving: Serving) -> None:
    found = {row["rule"]: row for row in rows(serving, "/v1/rules", "rules")}
    held = found.pop(RULE)
    assert (held["all"], held["strong"], held["false_positive"], held["precision"]) == (1, 1, 1, 0.0)
    assert len(found) > 10
    assert found.pop("trace-harvest")["all"] == 2
    assert {(row["all"], row["precision"]) for row in found.values()} == {(0, None)}, "null where nobody decided"
