"""The frame step: every column, the same row from text and from its sketch, rotation, hostile sketches."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import monitor
from monitor.decode import DecodeOptions, decode
from monitor.records import EVENT_SCHEMA, RawBatch
from monitor.sketch import Corpora, CorpusKey, HeavyGrams, Key, Keyring, Sketcher
from monitor.sketch.corpora import build_corpus
from monitor.sketch.frame import KEYED, sketch_frame
from monitor.sketch.lines import sketch_json_lines
from monitor.sketch.received import SketchStats
from monitor.sketch.sketcher import texts_of
from monitor.sketch.vocabulary import MAX_BLOBS

T = 1_750_000_000
DAY = 86_400
_KEY = CorpusKey.of(Keyring.from_seed(1))
_CORPUS = build_corpus("c", ["Please rewrite the text. Why? And of what, by all means?"], _KEY, bit=0, bits=32)
SKETCHER = Sketcher(Keyring.from_seed(1), Corpora.of(_KEY, [_CORPUS]))
BASE = {
    "ts": T, "request_id": "r-1", "account_id": "a-1", "model": "m", "input_tokens": 5, "output_tokens": 7,
    "status": 200,
}  # fmt: skip
FULL = BASE | {
    "completed_at": T + 3.25, "org_id": "o", "plan": "pro", "billing_type": "trial", "operation": "messages",
    "delivery": "stream", "batch_id": "b-1", "finish_reason": "end_turn", "temperature": 0.7, "seed": 1, "n": 1,
    "moderation": ["x:flag"], "tools": ["search", "add", "search"], "tool_schema_fp": "fp", "conversation_id": "c-1",
    "end_user_id": "u-1", "ip": "203.0.113.9", "asn": 64500, "country": "DE", "user_agent": "acme/1.2 (linux)",
    "client_name": "acme", "client_version": "1.2", "ja4": "t13d", "payment_fp": "p", "referral_fp": "rf",
    "contact_domain": "Example.COM", "reasoning_blob_fp": ["z", "y", "z"], "marketplace_account_id": "mk",
    "reseller_of_record": "rs", "response_format": "json", "reasoning_effort": "high", "region": "eu",
    "system": "You are a careful helper.", "prompt": "Please rewrite the text. Why? And of what, by all means?",
    "response": "Gladly.",
}  # fmt: skip


def values_of(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    return [json.dumps(e).encode() for e in events]


def run(
    events: Sequence[Mapping[str, Any]] | Sequence[bytes], sketcher: Sketcher = SKETCHER, **options: Any
) -> tuple[pl.DataFrame, SketchStats]:
    values = [e if isinstance(e, bytes) else json.dumps(e).encode() for e in events]
    n = len(values)
    batch = RawBatch(values, np.zeros(n, np.int32), np.arange(n, dtype=np.int64), np.full(n, -1, np.int64), {0: n})
    decoded = decode(batch, DecodeOptions(b"digest", entity=options.get("entity", "account")))
    assert decoded.rejects == ()
    return sketch_frame(decoded.frame, sketcher, **options)


def equal(a: pl.DataFrame, b: pl.DataFrame) -> list[str]:
    return [c for c in a.columns if not a.get_column(c).equals(b.get_column(c), null_equal=True)]


def test_schema_exactly_for_full_bare_and_no_rows() -> None:
    for events in ([FULL], [BASE], [FULL, BASE], []):
        frame, stats = run(events)
        assert dict(frame.schema) == EVENT_SCHEMA
        assert list(frame.columns) == list(EVENT_SCHEMA)
        assert frame.height == stats.rows == len(events)


def test_every_column_is_known_for_a_full_event() -> None:
    frame, _ = run([FULL | {"account_created_at": T - 5, "project_id": "p", "api_key_id": "k", "channel": "api",
                            "billing_account_id": "ba", "model_served": "m", "input_kind": "user", "cached_tokens": 0,
                            "reasoning_tokens": 0, "latency_ms": 1, "cost_usd": 0.1, "stream": True, "refused": False,
                            "top_p": 1, "max_tokens": 5, "logprobs": False, "top_logprobs": 0, "logit_bias": False,
                            "n_messages": 1, "turn_index": 0}])  # fmt: skip
    nulls = [c for c in frame.columns if frame.get_column(c).null_count()]
    assert nulls == ["residual", "residual_share"]  # known from an epoch's prompts on


def test_absent_is_null_and_empty_is_known() -> None:
    frame, _ = run([BASE, BASE | {"tools": [], "reasoning_blob_fp": [], "prompt": "", "system": "", "response": ""}])
    bare, empty = frame.row(0, named=True), frame.row(1, named=True)
    for name in (*KEYED, "blobs", "n_tools", "shape", "minhash", "lexicon", "script", "prompt_chars"):
        assert bare[name] is None, name
    assert (empty["n_tools"], empty["tools"], empty["blobs"]) == (0, None, [])
    assert (empty["prompt_chars"], empty["lexicon"], empty["script"]) == (0, 0, 0)
    assert empty["prompt_exact"] == empty["system_exact"] != 0
    assert empty["minhash"] is None is empty["prompt_skeleton"]


def test_text_and_its_sketch_give_the_same_row_full() -> None:
    events = [FULL, BASE, FULL | {"prompt": None}, FULL | {"system": None, "response": None}, BASE | {"response": "x"}]
    a, text = run(events)
    for stripped in (sketch_json_lines(values_of(events), SKETCHER), [SKETCHER.sketch_one(e) for e in events]):
        b, sketched = run([s for s in stripped if s is not None])
        assert equal(a, b) == []
    assert (text.texts, text.sketches) == (4, 0)
    assert (sketched.texts, sketched.sketches, sketched.malformed, sketched.unknown_key) == (0, 4, 0, 0)


def test_nothing_but_text_survives_wrong_types() -> None:
    events = [
        FULL | {"tools": "not a list"}, FULL | {"tools": [1]}, FULL | {"ip": 5, "prompt": 3}, FULL | {"asn": "64500"},
        FULL | {"asn": 64500.0}, FULL | {"asn": True}, FULL | {"temperature": "hot", "plan": {"secret": "text"}},
        FULL | {"content_policy": 5}, FULL | {"content_policy": "none"}, FULL | {"content_policy": "sketch"},
        FULL | {"response_format": {"schema": "of the client"}}, FULL | {"operation": "pigeon"}, FULL | {"seed": 1.5},
        FULL | {"completed_at": "2025-06-15T15:06:43Z"}, FULL | {"completed_at": "yesterday"}, FULL | {"extra": "text"},
        FULL | {"sketch": {"v": 1, "note": "text"}}, FULL | {"sketch": "x"}, FULL | {"prompt": "a \ud800 b"},
        FULL | {"n": 10**12}, FULL | {"max_tokens": -1},
    ]  # fmt: skip
    a, _ = run(events)
    b, _ = run([SKETCHER.sketch_one(e) for e in events])
    assert equal(a, b) == []


def test_policy_none_leaves_no_content_but_keeps_identifiers() -> None:
    stripped = SKETCHER.sketch_one(FULL | {"content_policy": "none"})
    assert stripped["sketch"].keys() == {"v", "key_id", "ids", "blobs"}
    row = run([stripped])[0].row(0, named=True)
    assert row["ip"] is not None
    assert [
        n for n in ("prompt_exact", "shape", "lexicon", "prompt_chars", "response_chars") if row[n] is not None
    ] == []


def test_columns_depend_on_the_key_and_scalars_do_not() -> None:
    a, _ = run([FULL])
    b, _ = run([FULL], Sketcher(Keyring.from_seed(2)))
    differing = set(equal(a, b))
    assert differing == {*KEYED, "blobs", "minhash", "request_key", "dedup_key", "corpus", "corpus_item"}


def test_keyed_columns_are_of_different_kinds() -> None:
    same = "203.0.113.9"
    fields = ("batch_id", "tool_schema_fp", "conversation_id", "end_user_id", "ip", "country", "user_agent", "ja4",
              "payment_fp", "referral_fp", "contact_domain", "client_name")  # fmt: skip
    row = run([BASE | dict.fromkeys(fields, same)])[0].row(0, named=True)
    names = ("batch_key", "tool_schema", "conversation", "end_user", "ip", "country", "user_agent", "ja4", "payment",
             "referral", "contact", "client_name", "net", "client")  # fmt: skip
    assert len({row[name] for name in names}) == len(names)


def test_dedup_key_is_of_the_five_fields_alone() -> None:
    changed = [
        FULL, FULL | {"prompt": "other", "completed_at": T + 9, "status": 500, "ip": "198.51.100.1"},
        FULL | {"request_id": "r-2"}, FULL | {"account_id": "a-2"}, FULL | {"ts": T + 0.001},
        FULL | {"input_tokens": 6}, FULL | {"output_tokens": 8}, FULL | {"account_id": "a-1r", "request_id": "-1"},
    ]  # fmt: skip
    keys = run(changed)[0].get_column("dedup_key").to_list()
    assert keys[0] == keys[1]
    assert len(set(keys)) == len(keys) - 1
    request = run(changed)[0].get_column("request_key").to_list()
    assert request[0] == request[1] == request[3] != request[2]


def test_subject_by_entity() -> None:
    events = [FULL, BASE]
    for entity, expected in (("account", ["a-1", "a-1"]), ("org", ["o", "a-1"])):
        assert run(events, entity=entity)[0].get_column("subject").to_list() == expected
    frame, _ = run(events, entity="account+end_user")
    end_user = frame.get_column("end_user").to_list()[0]
    assert frame.get_column("subject").to_list() == [f"a-1:{end_user:016x}", "a-1"]
    again, _ = run([SKETCHER.sketch_one(e) for e in events], entity="account+end_user")
    assert again.get_column("subject").to_list() == frame.get_column("subject").to_list()


def test_invalid_addresses_are_null_and_counted() -> None:
    frame, stats = run([BASE | {"ip": ip} for ip in ("203.0.113.9", "nowhere", "", "2001:db8::1")])
    assert frame.get_column("ip").is_null().to_list() == frame.get_column("net").is_null().to_list()
    assert frame.get_column("ip").is_null().to_list() == [False, True, True, False]
    assert stats.invalid_ip == 2


def test_blobs_are_a_sorted_set_and_bounded() -> None:
    many = [f"blob-{i}" for i in range(MAX_BLOBS + 50)]
    events = [BASE | {"reasoning_blob_fp": many}, BASE, BASE | {"reasoning_blob_fp": ["y", "x", "y", " "]}]
    frame, _ = run(events)
    lists = frame.get_column("blobs").to_list()
    assert len(lists[0]) == MAX_BLOBS
    assert all(row is None or row == sorted(set(row)) for row in lists)
    assert lists[1] is None
    assert len(lists[2]) == 2
    assert run([SKETCHER.sketch_one(e) for e in events])[0].get_column("blobs").to_list() == lists


# -- rotation


def ring() -> Keyring:
    return Keyring([Key("old", b"o" * 32), Key("new", b"n" * 32, T * 1000)], 30 * DAY * 1000)


def test_overlap_keeps_the_old_columns_and_gives_the_new_beside_them() -> None:
    keyring = Sketcher(ring())
    old, new = (Sketcher(Keyring([Key(k.id, k.secret)])) for k in ring().keys)
    times = [T - 9, T + 9, T + 30 * DAY + 9]
    events = [FULL | {"ts": t, "completed_at": t} for t in times]
    frame, _ = run(events, keyring, both=True)
    a, b = run(events, old)[0], run(events, new)[0]
    for name in (*KEYED, "blobs", "request_key", "dedup_key", "minhash"):
        column = frame.get_column(name)
        assert column[:2].equals(a.get_column(name)[:2]), name
        assert column[2:].equals(b.get_column(name)[2:]), name
    for name in (*KEYED, "blobs"):
        column = frame.get_column(f"{name}_next")
        assert column.is_null().to_list() == [True, False, True], name
        assert column[1:2].equals(b.get_column(name).alias(f"{name}_next")[1:2]), name
    assert frame.columns[: len(EVENT_SCHEMA)] == list(EVENT_SCHEMA)
    sketched, stats = run([keyring.sketch_one(e) for e in events], keyring, both=True)
    assert equal(frame, sketched) == []
    assert stats.other_key == 0


def test_gateway_that_rotated_alone_is_read_and_counted() -> None:
    keyring, ahead = Sketcher(ring()), Sketcher(Keyring([Key("new", b"n" * 32)]))
    event = FULL | {"ts": T - 9, "completed_at": T - 9}
    frame, stats = run([ahead.sketch_one(event)], keyring)
    assert (stats.other_key, stats.unknown_key) == (1, 0)
    assert frame.get_column("ip").equals(run([event], ahead)[0].get_column("ip"))


def test_monitor_that_lost_the_old_key_reads_the_next_section() -> None:
    event = FULL | {"ts": T + 9, "completed_at": T + 9}
    stripped = Sketcher(ring()).sketch_one(event)
    assert stripped["sketch"]["key_id"] == "old"
    only_new = Sketcher(Keyring([Key("new", b"n" * 32)]))
    frame, stats = run([stripped], only_new)
    assert stats.unknown_key == 0
    assert equal(frame, run([event], only_new)[0]) == ["marketplace_account", "reseller"][2:]


# -- hostile sketches


SKETCH = SKETCHER.sketch_one(FULL)["sketch"]
SKETCHED = (*KEYED[:16], "blobs", "minhash", "shape", "lexicon", "script", "prompt_chars", "n_tools", "response_chars")


def test_unknown_key_is_null_and_counted() -> None:
    frame, stats = run([BASE | {"sketch": SKETCH | {"key_id": "nobody's"}}, BASE | {"sketch": SKETCH}])
    assert (stats.unknown_key, stats.malformed, stats.sketches) == (1, 0, 2)
    row, good = frame.row(0, named=True), frame.row(1, named=True)
    assert [name for name in SKETCHED if row[name] is not None] == []
    assert [name for name in SKETCHED if good[name] is None] == []


def with_bytes(name: str, at: int, data: bytes) -> str:
    raw = bytearray(base64.b64decode(SKETCH[name]))
    raw[at : at + len(data)] = data
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2}, {"v": "1"}, {"v": None}, {"key_id": 5}, {"form": "AAAA"}, {"form": "*" * 56}, {"form": "é" * 56},
        {"form": 7}, {"text": SKETCH["text"][:-1]}, {"text": SKETCH["text"] + "AAAA"}, {"text": "=" * 160}, {"ids": []},
        {"ids": "A" * 175 + "="}, {"blobs": "xyz"}, {"blobs": "g" * 16}, {"blobs": "0" * 16}, {"blobs": "A" * 16},
        {"blobs": "1" * 16 * (MAX_BLOBS + 1)}, {"next": 5}, {"next": {"key_id": None}},
        {"form": with_bytes("form", 28, b"\xff")}, {"form": with_bytes("form", 27, b"\x80")},
        {"form": with_bytes("form", 29, b"\xff")}, {"form": with_bytes("form", 33, b"\xff")},
        {"ids": with_bytes("ids", 131, b"\xff")},
    ],
)  # fmt: skip
def test_malformed_sketch_is_null_counted_and_harms_no_neighbour(change: dict[str, Any]) -> None:
    good = BASE | {"sketch": SKETCH}
    frame, stats = run([good, BASE | {"sketch": SKETCH | change}, good])
    assert (stats.malformed, stats.unknown_key) == (1, 0), change
    row = frame.row(1, named=True)
    assert [name for name in SKETCHED if row[name] is not None] == []
    alone, _ = run([good])
    for i in (0, 2):
        assert equal(frame[i : i + 1].drop("offset"), alone.drop("offset")) == []


def test_a_field_beside_a_sketch_wins_and_the_rest_comes_from_the_sketch() -> None:
    beside = {"ip": "198.51.100.7", "asn": 64501}
    frame, _ = run([BASE | beside | {"sketch": SKETCH}, FULL | beside])
    sketched, full = frame.row(0, named=True), frame.row(1, named=True)
    assert [c for c in SKETCHED if sketched[c] != full[c]] == []
    assert frame.get_column("ip")[0] != run([FULL])[0].get_column("ip")[0]


def test_second_gateway_adds_what_it_knows_and_passes_on_no_stranger() -> None:
    inner = SKETCHER.sketch_one({k: v for k, v in FULL.items() if k != "ip"})
    inner["sketch"]["note"] = "a secret of the client"
    outer = SKETCHER.sketch_one(inner | {"ip": FULL["ip"]})
    assert "note" not in outer["sketch"]
    assert equal(run([outer])[0], run([FULL])[0]) == []
    stranger = inner | {"sketch": {"v": 9, "note": "a secret"}}
    assert "sketch" not in SKETCHER.sketch_one(stranger)


def test_records_that_are_no_object_are_told_from_others() -> None:
    lines = sketch_json_lines([b"", None, b"[1]", b"{", b'"x"', b"\xff", b"{}", *values_of([FULL])], SKETCHER)
    assert [line is None for line in lines] == [True] * 6 + [False, False]
    assert lines[6] == b"{}"


def test_provider_fields_stay() -> None:
    stripped = SKETCHER.sketch_one(FULL)
    client = {"batch_id", "tools", "tool_schema_fp", "conversation_id", "end_user_id", "ip", "asn", "country",
              "user_agent", "client_name", "client_version", "ja4", "payment_fp", "referral_fp", "contact_domain",
              "reasoning_blob_fp", "system", "prompt", "response"}  # fmt: skip
    assert stripped.keys() - {"sketch"} == FULL.keys() - client
    assert {k: v for k, v in stripped.items() if k in BASE} == BASE
    assert (stripped["operation"], stripped["finish_reason"]) == ("chat", "stop")


# -- heavy grams, without polars


def test_heavy_fills_two_columns_that_are_null_for_sketches() -> None:
    prompt = "one two three four five six. Why do you ask?"
    made = texts_of(["one two three four five six"])
    assert made is not None
    heavy = HeavyGrams(SKETCHER.keyring.keys[0].id, SKETCHER.grams(made, 0)[1])
    event = BASE | {"prompt": prompt}
    frame, _ = run([event, SKETCHER.sketch_one(event), BASE], heavy=heavy)
    assert frame.columns == list(EVENT_SCHEMA)
    assert frame.get_column("residual_share").to_list() == [102, None, None]  # 4 of 10 words are left
    shape, residual = frame.get_column("shape")[0], frame.get_column("residual")[0]
    assert residual[0] < shape[0]
    assert frame.get_column("residual").null_count() == 2


def test_gateway_needs_no_polars() -> None:
    code = """
import sys
for name in ("polars", "pyarrow", "msgspec", "pandas", "kafka", "redis", "river"):
    sys.modules[name] = None
from monitor.sketch import Keyring, Sketcher
out = Sketcher(Keyring.from_seed(1)).sketch_one({"ts": 1, "prompt": "hello there", "ip": "203.0.113.9"})
print(sorted(out), sorted(out["sketch"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(monitor.__file__).parents[1], capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['sketch', 'ts'] ['form', 'generator', 'ids', 'key_id', 'text', 'v']"
