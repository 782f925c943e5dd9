"""``check``, ``formats`` and ``backtest --format`` as a person calls them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import foreign
import pytest
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.decode import load_formats
from monitor.fields import FIELDS

SAMPLES = foreign.HERE


def run(*arguments: object):
    return CliRunner().invoke(build(), [str(a) for a in arguments])


def report(*arguments: object, code: int = 0):
    done = run("check", *arguments, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_check_says_what_a_log_carries_and_what_is_inactive():
    found = report("--input", SAMPLES / "envoy_aigw.ndjson")
    assert found["formats"] == {"envoy_aigw": 9}
    assert (found["messages"], found["requests"], found["rejected"], found["ignored"]) == (9, 8, 0, 1)
    assert found["accounts"] == 2
    assert found["fields"]["latency_ms"] == 1.0
    assert set(found["fields"]) | set(found["absent"]) == set(FIELDS)
    assert "prompt" in found["absent"]
    assert "prompt" in found["inactive"]["rules"]["one-shot-template"]
    whole = report("--input", SAMPLES / "litellm.ndjson")
    assert "one-shot-template" not in whole["inactive"]["rules"]
    assert whole["fields"]["system"] == 0.5


def test_check_of_several_files_by_a_name_and_packed(tmp_path):
    packed = tmp_path / "a.ndjson.gz"
    packed.write_bytes(gzip.compress((SAMPLES / "kong.ndjson").read_bytes()))
    found = report("-i", packed, "-i", SAMPLES / "kong.ndjson", "--format", "kong")
    assert (found["requests"], found["formats"]) == (16, {"kong": 10})
    assert report("-i", SAMPLES / "kong.ndjson", "--limit", "1")["messages"] == 1


def test_check_exits_1_for_rejects_3_for_nothing_and_2_for_bad_arguments(tmp_path):
    log = tmp_path / "log.ndjson"
    log.write_bytes(foreign.lines("native")[0] + b'\n{"ts": 1}\nnot json\n')
    found = report("--input", log, code=1)
    assert found["requests"] == 1
    assert {(r["reason"], r["field"], r["count"]) for r in found["rejects"]} == {
        ("out_of_range", "ts", 1), ("not_json", None, 1),
    }  # fmt: skip
    assert all(r["help"] for r in found["rejects"])
    shown = run("check", "--input", log)
    assert shown.exit_code == 1
    assert "not_json" in shown.output
    log.write_bytes(b"\n\n")
    assert run("check", "--input", log).exit_code == 3
    log.write_bytes(b"not json\n")
    assert run("check", "--input", log).exit_code == 3
    assert run("check", "--input", tmp_path / "absent").exit_code == 2
    done = run("check", "--input", log, "--format", "litelm")
    assert done.exit_code == 2
    assert "litellm" in done.output


def test_check_prints_tables_for_people():
    shown = run("check", "--input", SAMPLES / "otlp.ndjson")
    assert shown.exit_code == 0
    for words in ("otlp 3", "8 of 2 accounts", "requests that say it", "for want of"):
        assert words in re.sub(r"\s+", " ", shown.output), words
    assert "haiku" not in shown.output


def test_formats_list_names_ours_and_the_users(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "schema: monitor.mapping/v1\nid: mine\ntitle: Mine\nextends: kong\nfields: {account_id: [who]}\n"
    )
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"decode: {{mappings: [{tmp_path}/maps]}}\n")
    (tmp_path / "maps").mkdir()
    (tmp_path / "mine.yaml").rename(tmp_path / "maps" / "mine.yaml")
    listed = json.loads(run("formats", "list", "--config", settings, "--json").stdout)
    assert {"mine", "kong", "otlp"} <= {f["id"] for f in listed}
    assert run("formats", "lint", tmp_path / "maps").exit_code == 0
    (tmp_path / "maps" / "mine.yaml").write_text("schema: monitor.mapping/v1\nid: mine\ntitle: Mine\nextends: king\n")
    bad = run("formats", "lint", tmp_path / "maps")
    assert bad.exit_code == 2
    assert "mine.yaml:4" in bad.output
    assert json.loads(run("formats", "schema").stdout)["title"]


@pytest.mark.parametrize("sample", ["otlp", "litellm", "bedrock"])
def test_a_backtest_accounts_for_every_item_and_agrees_with_the_native_log(tmp_path, sample):
    """The decoder sees the same requests, so the summary is the same but for what counts messages."""

    def summary(log: Path, *more: object):
        out = tmp_path / "summary.json"
        done = run("backtest", log, "--alerts", tmp_path / "a.ndjson", "--json", out, "--quiet", *more)
        assert done.exit_code == 0, done.output
        return json.loads(out.read_text())

    native = tmp_path / "native.ndjson"
    native.write_bytes(b"\n".join(foreign.native_of(sample)))
    found = summary(SAMPLES / f"{sample}.ndjson", "--format", sample)
    wanted = summary(native)
    timing = {"seconds", "events_per_second", "peak_rss_mb", "peak_rss_mb_all", "messages", "ignored"}
    assert {k: v for k, v in found.items() if k not in timing} == {k: v for k, v in wanted.items() if k not in timing}
    assert found["events"] == found["decoded"] == wanted["events"] == 8
    assert found["messages"] == len(foreign.lines(sample))
    assert found["ignored"] == foreign.IGNORED.get(sample, 0)
    assert summary(SAMPLES / f"{sample}.ndjson", "--format", "auto")["decoded"] == 8


def test_a_backtest_of_several_foreign_files_counts_rejects(tmp_path):
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"\n".join([*foreign.lines("litellm"), b"not json", b'{"call_type": "x"}']))
    out = tmp_path / "s.json"
    arguments = ["--alerts", tmp_path / "a", "--json", out, "--quiet", "--format", "litellm"]
    assert run("backtest", log, *arguments).exit_code == 0
    found = json.loads(out.read_text())
    assert found["rejects"] == {"missing_field": 1, "not_json": 1}
    assert found["events"] == found["decoded"] + 2 == 10
    done = run("backtest", log, "--alerts", tmp_path / "a", "--format", "litelm")
    assert done.exit_code == 2
    assert "litellm" in done.output


def test_the_mapping_in_the_readme_is_one(tmp_path):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "monitor.mapping/v1" in b]
    (tmp_path / "our_envoy.yaml").write_text(block)
    known = load_formats([tmp_path])
    record = json.loads(foreign.lines("envoy_aigw")[0]) | {"jwt": {"sub": "acme"}, "cost_cents": 2.5}
    frame = foreign.decoded("our_envoy", [json.dumps(record).encode()], known).frame
    assert frame["account_id"].to_list() == ["acme"]
    assert frame["cost_microusd"].to_list() == [25_000]
    named = set(re.findall(r"`(?:--format |decode\.format: |/v1/ingest/)([a-z_]+)", text))
    assert named <= {*known.names}
