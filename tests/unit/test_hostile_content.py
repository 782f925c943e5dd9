"""Hostile content in every field, through the whole pipeline, to every place where a person or a tool reads it.

What a client may choose (model, request id, operation, …) and what a careless provider may let it choose (account, org,
plan) hold terminal commands, bidirectional overrides, markup, HTML, formulas, forged lines, numbers that no integer or
float holds. The accounts that raise alerts are renamed to it, so that it is what alerts are about.
"""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path

import msgspec
import polars as pl
import pytest
import spine
from prometheus_client import generate_latest
from typer.testing import CliRunner, Result

from monitor.__main__ import build
from monitor.alerts import FileSink
from monitor.cli import common
from monitor.records import Alert
from monitor.settings import RedisSettings
from monitor.store.redis_link import RedisOptions
from monitor.store.redis_sink import RedisSink

HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31mred",  # sets a terminal's title, clears it
    "\x9b31mc1 \x85next",  # the same in one character, and a line end of its own
    "\u202egnp.exe\u2066 a\u200bb\u2028c\u2029d",  # right to left, and line ends that JSON leaves alone
    "[bold red]x[/bold red][link=file:///etc/passwd]y[/link] :skull:",  # Rich
    "<script>alert(1)</script><img src=x onerror=y>&amp;\"'",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0,\"b\"",
    'x"\n{"level":"critical","event":"forged"}\r\nabusemon_forged{a="b"} 1\n',
    "a} 1\nabusemon_forged 1 # {",
    "}{abm}:alerts \r\n*1\r\n$8\r\nFLUSHALL\r\n",  # Redis
    "../../../../etc/passwd\x00%s%n${jndi:ldap://x}{0.__class__}",
    "\udfff\ud800 lone",
)
NUMBERS = (
    "1e400", "-1e400", "1e308", "-1e308", "5e-324", "9223372036854775808", "-9223372036854775809", "1e22", "-0.0",
    "9" * 400, "NaN", "Infinity", '"12"', "true", "[1]", "[" * 900 + "]" * 900,
)  # fmt: skip
FREE = (
    "request_id", "model", "model_served", "org_id", "project_id", "billing_account_id", "api_key_id", "plan",
    "billing_type", "channel", "operation", "delivery", "batch_id", "finish_reason", "response_format", "end_user_id",
    "user_agent", "client_name", "country", "region", "ja4", "ip", "conversation_id", "input_kind", "payment_fp",
)  # fmt: skip
NUMERIC = (
    "cost_usd", "latency_ms", "reasoning_tokens", "cached_tokens", "temperature", "top_p", "max_tokens", "n", "seed",
    "top_logprobs", "n_messages", "turn_index", "asn", "completed_at", "account_created_at",
)  # fmt: skip


class Run:
    """The alerts and metrics of the hostile log, and the alerts in a file."""

    def __init__(self, folder: Path):
        calm = spine.run(spine.world())
        self.names = dict(zip(sorted({a.subject for a in calm}), HOSTILE, strict=False))
        chance = random.Random(5)
        records = [self.spoiled(r, chance) for r in spine.world()]
        p = spine.pipeline()
        self.alerts: list[Alert] = spine.run(records, range(0, len(records), 700), p)
        p.measure()
        self.counts = p.observe.counts
        self.metrics = generate_latest(p.observe.telemetry.registry).decode()
        self.path = folder / "alerts.ndjson"
        sink = FileSink(self.path)
        sink.send(self.alerts)
        sink.flush()
        sink.close()

    def spoiled(self, record: spine.Record, chance: random.Random) -> spine.Record:
        """One request with hostile text in four fields, and in one of four a number out of range."""
        request = json.loads(record.value)
        request["account_id"] = self.names.get(request["account_id"], request["account_id"])
        for name in chance.sample(FREE, 4):
            request[name] = chance.choice(HOSTILE) + str(chance.randrange(50))
        text = json.dumps(request)
        if chance.random() < 0.25:
            # json.dumps can't write these: by hand, before the closing brace. Of a repeated name the last counts.
            text = f'{text[:-1]}, "{chance.choice(NUMERIC)}": {chance.choice(NUMBERS)}}}'
        return spine.Record(text.encode(), record.partition, record.offset, record.t_ms)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that no cell is folded. Not by COLUMNS alone: the console keeps what that was when it was made.
    monkeypatch.setattr(common.out, "_width", 1_000)


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(build(), [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


def harmless(text: str) -> None:
    """A terminal does nothing with it but show it, and nothing in it makes a line of its own."""
    odd = {c for c in text if not c.isprintable() and c != "\n"}
    assert not odd, odd
    assert not [line for line in text.splitlines() if line.lstrip().startswith(('{"level"', "abusemon_forged"))]


def test_it_is_what_the_alerts_are_about_and_every_record_is_accounted_for(run: Run) -> None:
    subjects = {a.subject for a in run.alerts}
    told = {name for name in run.names.values() if name in subjects or "\ud800" in name}
    assert len(told) >= 2, "the attackers were renamed"
    counts = run.counts
    assert counts.decoded + sum(counts.rejects.values()) == counts.events == len(spine.world())
    assert set(counts.rejects) <= {"not_json", "too_deep"}, "text in an optional field rejects nothing"
    assert counts.rejects["not_json"] > 0


def test_alerts_are_one_json_object_a_line_with_finite_numbers(run: Run) -> None:
    lines = run.path.read_bytes().split(b"\n")
    assert len(lines) - 1 == len(run.alerts)

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} in an alert")

    for line, alert in zip(lines, run.alerts, strict=False):
        body = json.loads(line, parse_constant=refuse)
        assert body["subject"] == alert.subject
        assert all(value is None or not isinstance(value, float) or abs(value) < 1e18
                   for value in body["exposure"].values())  # fmt: skip
    assert {a.alert_id for a in run.alerts if not a.alert_id.isalnum()} == set(), "an id is a hash, nobody's text"


def test_the_commands_show_it_and_obey_nothing(run: Run) -> None:
    listed = call("alerts", "list", "--file", run.path).output
    harmless(listed)
    shown = "".join(call("alerts", "show", a.alert_id, "--file", run.path).output for a in run.alerts[:3])
    harmless(shown)
    subjects = {a.subject for a in run.alerts}
    for name in subjects:
        clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
        assert clean in listed, "as text: markup is not interpreted, nothing is cut away"


def test_json_on_a_terminal_obeys_nothing_and_is_the_same_for_a_program(run: Run) -> None:
    text = call("alerts", "list", "--file", run.path, "--json").output
    harmless(text)
    newest = {a.alert_id: a for a in run.alerts}
    assert {a["alert_id"]: a["subject"] for a in json.loads(text)} == {i: a.subject for i, a in newest.items()}
    one = run.alerts[0]
    text = call("alerts", "show", one.alert_id, "--file", run.path, "--json").output
    harmless(text)
    assert json.loads(text)["subject"] == one.subject


def test_metrics_hold_none_of_it(run: Run) -> None:
    assert "forged" not in run.metrics
    for hostile in (*HOSTILE, *(json.dumps(h)[1:-1] for h in HOSTILE)):
        assert hostile[:12] not in run.metrics


def test_a_table_made_of_alerts_by_the_documented_quoting_starts_no_formula(run: Run) -> None:
    """We write no CSV. THREAT-MODEL.md says what whoever makes one must do; this is that advice, tried."""
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    for alert in run.alerts:
        writer.writerow([f"'{alert.subject}" if alert.subject[:1] in "=+-@\t\r" else alert.subject, alert.severity])
    assert not [row for row in csv.reader(io.StringIO(file.getvalue())) if row[0][:1] in {"=", "+", "-", "@"}]


def test_a_regular_expression_of_a_rule_is_linear_in_what_a_client_wrote() -> None:
    """Polars' engine does not backtrack: this would take Python's longer than the universe has."""
    text = pl.Series(["a" * 100_000 + "!"])
    assert not text.str.contains(r"^(a+)+$").item()
    assert not text.str.contains(r"^(a|aa)+$").item()


@pytest.mark.redis7
def test_in_redis_it_is_data_and_the_commands_read_it_back(
    run: Run, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RedisOptions.of(RedisSettings(url=redis_url))
    sink = RedisSink(options)
    sink.send(run.alerts)
    sink.flush()
    sink.close()
    monkeypatch.setenv("MONITOR__REDIS__URL", redis_url)
    for words in (["list"], ["top"], ["tail", "--all", "--until-idle", "0.3"]):
        harmless(call("alerts", *words).output)
        harmless(call("alerts", *words, "--json").output)
    verdicts = []
    for subject in {a.subject for a in run.alerts}:
        harmless(call("alerts", "verdict", subject).output)
        verdicts.append(json.loads(call("alerts", "verdict", subject, "--json").output))
    assert any(verdicts), "a gateway finds what is held against such an account, under its own name"
    tailed = [msgspec.json.decode(line) for line in
              call("alerts", "tail", "--all", "--until-idle", "0.3", "--json").output.splitlines()]  # fmt: skip
    assert len(tailed) == sum(a.mode == "alert" for a in run.alerts) > 10


def test_a_report_made_with_hostile_names_is_text(run: Run, tmp_path: Path) -> None:
    log, truth, page = (tmp_path / name for name in ("log.ndjson", "truth.ndjson", "e.html"))
    log.write_bytes(b"\n".join(r.value for r in spine.world()[:2_000]))
    first = json.loads(spine.world()[0].value)["ts"]
    truth.write_text("".join(
        json.dumps({"account_id": a.subject, "actor": "distillation", "campaign": h, "scenario": h,
                    "first_ts": first, "last_ts": first + 1}) + "\n"
        for a, h in zip(run.alerts, HOSTILE[:-1], strict=False)
    ))  # fmt: skip
    words = ["evaluate", "--alerts", run.path, "--truth", truth, "--log", log, "--html", page]
    harmless(call(*words).output)
    html = page.read_text(errors="surrogatepass")
    assert "<script" not in html
    assert "onerror=y>" not in html
