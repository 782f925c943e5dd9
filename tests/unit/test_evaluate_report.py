"""Reports: stable JSON, self-contained HTML, tables with campaign : population; inputs read from files."""

import gzip
import json
import re

import polars as pl
import pytest
from rich.console import Console

from monitor.errors import BadInput, NothingReadable
from monitor.evaluate import evaluate, read_alerts, read_log, read_truth
from monitor.evaluate.api import evaluate_files
from monitor.evaluate.report import comparison_rows, summary, tables, to_html, to_json, write

ALERT = {
    "schema": "alert/v1", "alert_id": "x", "revision": 1, "revised_at": 7200.0, "state": "open", "kind": "campaign",
    "subject": "c", "subject_type": "campaign", "accounts": ["a", "b"], "members": {"a": {"tier": "core"}},
    "mode": "alert", "hypothesis": "distillation", "severity": "high", "score": None, "expected_false_per_week": None,
    "raised_at": 7200.0,
}  # fmt: skip
TRUTH = [
    {"account_id": n, "actor": "distillation", "campaign": "<c&1>", "scenario": "S4", "first_ts": 0.0, "last_ts": 9e4}
    for n in "ab"
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "alerts.ndjson").write_text(json.dumps(ALERT) + "\n\n")
    (tmp_path / "truth.ndjson").write_text("".join(json.dumps(t) + "\n" for t in TRUTH))
    rows = [
        {
            "account_id": a,
            "ts": h * 3600.0,
            "request_id": str(h),
            "model": "m",
            "input_tokens": 5,
            "output_tokens": 2,
            "status": 200,
        }
        for a in "abc"
        for h in range(24)
    ]
    (tmp_path / "log.ndjson").write_text("".join(json.dumps(r) + "\n" for r in rows) + "not json\n")
    with gzip.open(tmp_path / "log.ndjson.gz", "wt") as out:
        out.write((tmp_path / "log.ndjson").read_text())
    pl.DataFrame(rows).write_parquet(tmp_path / "log.parquet")
    return tmp_path


def _score(folder, log="log.ndjson"):
    return evaluate(
        read_alerts(folder / "alerts.ndjson"), read_truth(folder / "truth.ndjson"), read_log([folder / log])
    )


def test_all_kinds_of_log_give_the_same_score(files):
    plain = _score(files)
    assert plain.campaigns[0].leaks[0].requests == 4
    assert plain.unreadable == 1
    assert _score(files, "log.ndjson.gz") == plain
    assert _score(files, "log.parquet").campaigns == plain.campaigns


def test_event_time_is_completion_where_known(tmp_path):
    line = {
        "account_id": "a",
        "ts": "1970-01-01T00:00:00Z",
        "completed_at": 50.5,
        "input_tokens": 1,
        "output_tokens": 1,
    }
    (tmp_path / "x.ndjson").write_text(json.dumps(line) + "\n")
    assert read_log([tmp_path / "x.ndjson"]).at.tolist() == [50.5]


def test_page_needs_nothing_else_and_escapes_names(files):
    page = to_html(
        _score(files),
        "Run",
        {"baseline": evaluate([], read_truth(files / "truth.ndjson"), read_log([files / "log.ndjson"]))},
    )
    assert "<script" not in page
    assert not re.search(r'(src|href)="http', page)
    assert "<c&1>" not in page
    assert "&lt;c&amp;1&gt;" in page
    assert page.count("<svg") == 3  # leak curve, precision by threshold, one timeline
    assert "first HIGH" in page


def test_json_is_stable_and_complete(files):
    text = to_json(_score(files))
    assert text == to_json(_score(files))
    data = json.loads(text)
    assert data["campaigns"][0]["leaks"][0] == {"delay_h": 0, "requests": 4, "share": 4 / 48, "tokens": 28}


def test_table_shows_ratio_and_bounds(files):
    console = Console(width=220, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in tables(_score(files)):
        console.print(table)
    text = console.export_text()
    assert "2 : 3" in text
    assert "at most" in text
    assert summary(_score(files)).startswith("found 1 of 1 campaigns")


def test_comparison_keeps_the_bad_rows(files):
    truth, log = read_truth(files / "truth.ndjson"), read_log([files / "log.ndjson"])
    _, rows = comparison_rows({"ours": _score(files), "nothing": evaluate([], truth, log)})
    assert [r[:2] for r in rows] == [["ours", "1 of 1"], ["nothing", "0 of 1"]]
    assert rows[1][3] == "100.0%"


def test_files_are_written(files):
    write(_score(files), files / "p.json", None)
    done = evaluate_files(files / "alerts.ndjson", files / "truth.ndjson", [files / "log.ndjson"], files / "o.json",
                          files / "o.html")  # fmt: skip
    assert done == _score(files)
    assert (files / "p.json").read_text() == (files / "o.json").read_text()
    assert (files / "o.json").stat().st_size > 500
    assert (files / "o.html").read_text().startswith("<!doctype html>")


def test_bad_files_are_named_with_their_lines(files):
    (files / "bad.ndjson").write_text('{"account_id": 5}\n{}\n')
    with pytest.raises(BadInput) as caught:
        read_truth(files / "bad.ndjson")
    assert [p.line for p in caught.value.problems] == [1, 2]
    with pytest.raises(BadInput, match="can't be read"):
        read_alerts(files / "none.ndjson")
    with pytest.raises(NothingReadable):
        read_log([files / "bad.ndjson"])
    (files / "bad.parquet").write_bytes(b"PAR")
    with pytest.raises(BadInput, match="Parquet"):
        read_log([files / "bad.parquet"])
