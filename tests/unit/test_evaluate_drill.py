"""The drill on a log that the simulator did not make: composed here, with its own models, clients and gaps."""

import json

import numpy as np
import polars as pl
import pytest

from monitor.errors import BadInput, NothingReadable
from monitor.evaluate import drill as d
from monitor.evaluate.inputs import read_truth

START, DAYS, CHOSEN = 1_780_000_000.0, 2.0, ("S1", "S7")


@pytest.fixture
def log(tmp_path):
    """60 accounts that call between 8 and 18 UTC; no payment, no JA4; country on half of the accounts."""
    rng, rows = np.random.default_rng(5), []
    for a in range(60):
        for day in range(int(DAYS)):
            for _ in range(12):
                at = START - START % 86_400 + day * 86_400 + float(rng.uniform(8, 18)) * 3600
                row = {"ts": round(at, 3), "request_id": f"r{len(rows)}", "account_id": f"real{a}", "status": 200}
                row |= {"input_tokens": int(rng.integers(10, 900)), "output_tokens": int(rng.integers(10, 400))}
                row |= {"model": ["big", "small"][a % 3 == 0], "prompt": f"please sum up note {rng.integers(99)}"}
                row |= {"user_agent": f"tool/{a % 5}", "client_name": "tool", "client_version": str(a % 5)}
                row |= {"ip": f"10.9.{a}.1", "asn": 64_999, **({"country": "NZ"} if a % 2 else {})}
                rows.append(row)
    rows.sort(key=lambda r: r["ts"])
    path = tmp_path / "real.ndjson"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + "broken\n")
    return path


def knows_payment(log, context, alerts):
    """A detector that finds accounts sharing a payment, and nothing else; and one alert on a real account."""
    users: dict[str, set[str]] = {}
    for line in log.open():
        r = json.loads(line)
        if r.get("payment_fp"):
            users.setdefault(r["payment_fp"], set()).add(r["account_id"])
    found = [
        {"alert_id": p, "kind": "campaign", "severity": "high", "revised_at": START + 7200, "accounts": sorted(who)}
        for p, who in users.items() if len(who) > 2
    ]  # fmt: skip
    found.append({"alert_id": "x", "kind": "account", "severity": "high", "revised_at": START, "accounts": ["real1"]})
    alerts.write_text("".join(json.dumps(f) + "\n" for f in found))
    return {}


def test_study_reads_what_the_overlay_needs(log):
    p = d.study([log])
    assert (p.requests, len(p.accounts)) == (60 * 24, 60)
    assert p.days == pytest.approx(DAYS, abs=0.7)
    assert p.has("country")
    assert not p.has("payment_fp")
    assert p.hours[8:18].sum() == p.requests


def test_a_parquet_log_is_read_as_its_lines_are(log, tmp_path):
    rows = [json.loads(x) for x in log.read_text().splitlines()[:-1]]
    with_dates = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.from_epoch((pl.col("ts") * 1e6).round().cast(pl.Int64), time_unit="us").alias("ts")
    )
    with_dates.write_parquet(tmp_path / "real.parquet")
    (lines, table) = (d.study([p]) for p in (log, tmp_path / "real.parquet"))
    assert lines.first == pytest.approx(table.first, abs=1e-3)
    for name in ("requests", "accounts", "present", "values"):
        assert getattr(lines, name) == getattr(table, name), name
    assert (lines.hours == table.hours).all()
    (tmp_path / "junk.parquet").write_bytes(b"no")
    with pytest.raises(BadInput, match="Parquet"):
        d.study([tmp_path / "junk.parquet"])


def test_overlay_wears_the_logs_clothes(log):
    profile = d.study([log])
    rows, truth = d.overlay(profile, "S5", 3)
    requests = [r for _, r in rows]
    assert len(requests) > 50
    assert {r["model"] for r in requests} <= {"big", "small"}
    assert {r["user_agent"] for r in requests} <= {f"tool/{i}" for i in range(5)}
    assert {r["asn"] for r in requests} == {64_999}
    assert not any("payment_fp" in r or "ja4" in r or "completed_at" in r for r in requests)
    with_country = {r["account_id"] for r in requests if "country" in r}
    assert 0 < len(with_country) < len({r["account_id"] for r in requests})
    assert all(r["account_id"].startswith(d.TAG) and r["request_id"].startswith(d.TAG) for r in requests)
    hour = np.array([r["ts"] % 86_400 // 3600 for r in requests])
    assert np.mean((hour >= 8) & (hour < 18)) > 0.85
    assert {t.account_id for t in truth} == {r["account_id"] for r in requests}
    assert all(profile.first <= at <= profile.last for at, _ in rows)
    assert rows == d.overlay(profile, "S5", 3)[0]


def test_drill_says_what_a_missing_field_is_worth(log, tmp_path):
    report = d.drill([log], knows_payment, tmp_path / "drill", scenarios=CHOSEN)
    assert report.found == ()
    assert report.false_high == 1
    assert report.leaked_share == 1.0
    worth = {w.name: w.found for w in report.missing}
    assert set(worth) == {"payment_fp", "ja4", "account_created_at", "reasoning_blob_fp", "tools"}
    assert worth["payment_fp"] == 1  # S1 shares payments, S7 pays for unique ones
    assert worth["ja4"] == 0
    page = report.page()
    assert "found 0 of 2" in page
    assert "with payment_fp: 1 of 2" in page
    assert all(f"at medium {c.noticed} of {c.accounts}" in page for c in report.overlay.campaigns)
    assert json.loads(json.dumps(report.as_dict()))["scenarios"] == 2


def test_the_undisturbed_run_and_the_users_file_hold_no_drill_traffic(log, tmp_path):
    before = log.read_bytes()
    d.drill([log], knows_payment, tmp_path / "drill", scenarios=CHOSEN, worth=False)
    assert log.read_bytes() == before
    assert d.TAG not in (tmp_path / "drill" / "undisturbed.ndjson").read_text()
    overlaid = [json.loads(x) for x in (tmp_path / "drill" / "overlay" / "log.ndjson").open()]
    assert [r["ts"] for r in overlaid] == sorted(r["ts"] for r in overlaid)
    assert sum(not r["account_id"].startswith(d.TAG) for r in overlaid) == 60 * 24
    assert all(t.account_id.startswith(d.TAG) for t in read_truth(tmp_path / "drill" / "overlay" / "truth.ndjson"))


def test_unreadable_log_and_unknown_scenario(tmp_path):
    (tmp_path / "x.ndjson").write_text("nothing\n")
    with pytest.raises(NothingReadable):
        d.drill([tmp_path / "x.ndjson"], knows_payment, tmp_path / "a", scenarios=CHOSEN)
    with pytest.raises(BadInput, match="no such scenario"):
        d.drill([tmp_path / "x.ndjson"], knows_payment, tmp_path / "b", scenarios=["S99"])
