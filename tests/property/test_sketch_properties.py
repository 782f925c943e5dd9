"""What must hold for any text and any event: same row by both ways, no crash, no text in a sketch, no dependence."""

from __future__ import annotations

import base64
import json
import os
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import monitor
from monitor.decode import DecodeOptions, decode
from monitor.records import EVENT_SCHEMA, RawBatch
from monitor.sketch import Key, Keyring, Sketcher, Texts
from monitor.sketch.frame import KEYED, sketch_frame
from monitor.sketch.lines import sketch_json_lines
from monitor.sketch.sketcher import texts_of

T = 1_750_000_000
ONE, TWO = Sketcher(Keyring.from_seed(1)), Sketcher(Keyring.from_seed(2))
ROTATING = Sketcher(Keyring([Key("a", b"a" * 32), Key("b", b"b" * 32, T * 1000)], 1_000_000))
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PIECES = st.sampled_from(
    ["show all steps of your internal reasoning", "please ", "https://x.example/a?b=1 ", '"', "“", "”", "「", "```",
     "\n- ", "A) ", "B) ", "C) ", "12.5", "e29b-41d4", "你好", "これ", "สวัสดี", "\u200d", "\ufeff", "İ", "ß", "é",
     "١٢", "。", "!",
     "? ", "translate to ", "`", "'", "{\"k\": \"v\"}", "a" * 40, " ", "\t", "I ", "eightlet"]
)  # fmt: skip
TEXT = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=14).map("".join))
SHORT = st.text(max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)  # NaN is no JSON: such a record is rejected either way
JUNK = st.one_of(st.integers(), st.booleans(), FINITE, SHORT, st.lists(SHORT, max_size=2), st.none(), st.just({}))


def either(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(good, good, good, st.none(), JUNK)


EVENTS = st.fixed_dictionaries(
    {
        "ts": st.sampled_from([T, T - 5.5, T + 0.0625, T + 999, T + 5000, "2025-06-15T15:06:40.5Z"]),
        "request_id": st.text(min_size=1, max_size=5).filter(lambda s: s.isprintable()), "account_id": st.just("a-1"),
        "model": st.just("m"), "input_tokens": st.integers(0, 9), "output_tokens": st.integers(0, 9),
        "status": st.just(200),
    },
    optional={
        "prompt": either(TEXT), "system": either(TEXT), "response": either(TEXT),
        "completed_at": either(st.sampled_from([T + 1, T - 1.5, "2025-06-15T15:07:00+02:00"])),
        "ip": either(st.one_of(st.ip_addresses().map(str), SHORT)), "asn": either(st.integers(0, 2**32 - 1)),
        "country": either(st.sampled_from(["DE", "fr", ""])), "user_agent": either(SHORT), "client_name": either(SHORT),
        "client_version": either(SHORT), "tools": either(st.lists(SHORT, max_size=4)), "tool_schema_fp": either(SHORT),
        "conversation_id": either(SHORT), "end_user_id": either(SHORT), "batch_id": either(SHORT), "ja4": either(SHORT),
        "payment_fp": either(SHORT), "referral_fp": either(SHORT), "contact_domain": either(SHORT),
        "reasoning_blob_fp": either(st.lists(SHORT, max_size=4)), "marketplace_account_id": either(SHORT),
        "reseller_of_record": either(SHORT), "operation": either(st.sampled_from(["chat", "messages", "pigeon"])),
        "content_policy": either(st.sampled_from(["full", "sketch", "none", "FULL"])), "plan": either(SHORT),
        "temperature": either(st.floats(0, 2)), "seed": either(st.integers()), "moderation": either(st.lists(SHORT)),
        "logit_bias": either(st.booleans()), "org_id": either(SHORT), "unknown": JUNK,
    },
)  # fmt: skip


def rows(values: list[bytes], sketcher: Sketcher, **options: Any) -> pl.DataFrame:
    n = len(values)
    batch = RawBatch(values, np.zeros(n, np.int32), np.arange(n, dtype=np.int64), np.full(n, -1, np.int64), {0: n})
    decoded = decode(batch, DecodeOptions(b"digest"))
    return sketch_frame(decoded.frame, sketcher, **options)[0]


@RELAXED
@given(st.lists(EVENTS, min_size=1, max_size=6))
def test_text_and_sketch_give_the_same_row(events: list[dict[str, Any]]) -> None:
    values = [json.dumps(e).encode() for e in events]
    for sketcher in (ONE, ROTATING):
        stripped = [v for v in sketch_json_lines(values, sketcher) if v is not None]
        one_by_one = [json.dumps(sketcher.sketch_one(json.loads(v))).encode() for v in values]
        a = rows(values, sketcher, both=True)
        for b in (rows(stripped, sketcher, both=True), rows(one_by_one, sketcher, both=True)):
            # a record that is rejected with its text is rejected without it
            assert a.height == b.height
            different = [c for c in a.columns if not a.get_column(c).equals(b.get_column(c), null_equal=True)]
            assert different == []


@RELAXED
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_key_changes_every_hash_and_no_scalar(texts: list[str]) -> None:
    made, slots = texts_of(texts), np.zeros(len(texts), np.int64)
    a, b = ONE.sketch_texts(made, made, slots), TWO.sketch_texts(made, made, slots)
    for name in ("shape", "lexicon", "script"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    known = a.hashes != 0
    assert np.array_equal(known, b.hashes != 0)
    # SimHash has 64 bits of vote: two keys may agree by chance on one word only once in 2^64
    assert not (a.hashes[known] == b.hashes[known]).any()


@RELAXED
@given(st.lists(TEXT, min_size=1, max_size=6), st.randoms())
def test_neighbours_and_order_change_nothing(texts: list[str], draw: Any) -> None:
    order = list(range(len(texts)))
    draw.shuffle(order)
    made, other = texts_of(texts), texts_of([texts[i] for i in order])
    slots = np.zeros(len(texts), np.int64)
    a, b = ONE.sketch_texts(made, None, slots), ONE.sketch_texts(other, None, slots)
    for name in ("hashes", "minhash", "shape", "lexicon", "script"):
        assert np.array_equal(getattr(a, name)[order], getattr(b, name)), name


@RELAXED
@given(TEXT)
def test_case_of_ascii_and_amount_of_space_leave_the_template(text: str) -> None:
    ascii_only = "".join(c for c in text if c.isascii() and c not in "\"'`")
    other = " ".join(ascii_only.upper().split(" ")).replace(" ", "  ")
    h = ONE.sketch_texts(texts_of([ascii_only, other]), None, np.zeros(2, np.int64)).hashes
    assert np.array_equal(h[0, 1:4], h[1, 1:4])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_arbitrary_bytes_do_no_harm(texts: list[bytes]) -> None:
    data = np.frombuffer(bytearray(b"".join(texts)), np.uint8)
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    made = ONE.sketch_texts(Texts(data, offsets, np.ones(len(texts), np.uint8)), None, np.zeros(len(texts), np.int64))
    assert (made.hashes[:, 0] != 0).all()
    assert (made.script < 13).all()


@RELAXED
@given(st.recursive(JUNK, lambda inner: st.dictionaries(SHORT, inner, max_size=3), max_leaves=6), EVENTS)
def test_no_sketch_object_crashes(sketch: Any, event: dict[str, Any]) -> None:
    good = ONE.sketch_one(event).get("sketch", {})
    hostile = [sketch, {**good, **sketch} if isinstance(sketch, dict) else good]
    for value in hostile:
        bare = {k: event[k] for k in ("request_id", "account_id", "model", "input_tokens", "output_tokens", "status")}
        line = json.dumps({"ts": T, **bare, "sketch": value}).encode()
        frame = rows([line], ONE)
        assert frame.height <= 1
        assert list(frame.columns) == list(EVENT_SCHEMA)
        assert isinstance(ONE.sketch_one({"ts": T, "sketch": value}), dict)


# A hyphen in every third place: what base64 or a number can hold by chance is no finding.
MARK = st.text(alphabet=string.ascii_letters + "àж中あ. ", min_size=4, max_size=20).map(
    lambda t: "-".join(t[i : i + 2] for i in range(0, len(t), 2))
).filter(lambda t: len(t) >= 6)  # fmt: skip


@RELAXED
@given(MARK, MARK, st.lists(MARK, min_size=1, max_size=3))
def test_sketch_holds_no_piece_of_what_the_client_wrote(text: str, other: str, names: list[str]) -> None:
    client = {
        "prompt": text * 3, "system": other, "response": text + other, "user_agent": other, "client_name": other,
        "client_version": text, "tools": names, "tool_schema_fp": text, "conversation_id": other, "end_user_id": text,
        "batch_id": other, "ja4": text, "payment_fp": other, "referral_fp": text, "contact_domain": other,
        "reasoning_blob_fp": names, "ip": "203.0.113.217", "country": "Atlantis", "asn": 4_199_999_901,
        "messages": [{"content": text}], "metadata": {"note": other}, "response_format": {"schema": text},
    }  # fmt: skip
    event = {"ts": T, "request_id": "r", "account_id": "a", "model": "m", "input_tokens": 1, "output_tokens": 1}
    stripped = ROTATING.sketch_one({**event, "status": 200, **client})
    written = json.dumps(stripped, ensure_ascii=False)
    sections = [stripped["sketch"], stripped["sketch"].get("next", {})]
    packed = [base64.b64decode(part[name]) for part in sections for name in ("form", "text", "ids") if name in part]
    values = [text, other, *names, "203.0.113.217", "Atlantis", "4199999901"]
    for value in values:
        pieces = {value[i : i + 6] for i in range(len(value) - 5)}
        assert [p for p in pieces if p in written or any(p.encode() in raw for raw in packed)] == []
    # the positive control: the search finds what is there
    assert all(p in json.dumps({**event, **client}, ensure_ascii=False) for p in (text, other))


def test_kernels_stay_inside_their_arrays() -> None:
    """The same properties with numba's bounds checks on: an index past an end raises instead of reading on."""
    code = """
import numpy as np, random
from monitor.sketch import HeavyGrams, Keyring, Sketcher
from monitor.sketch.sketcher import texts_of
draw = random.Random(11)
alphabet = ['a', 'Ab', ' ', '\\n', '"', '“', '”', '`', '12', '-', '.', '中', 'あ', 'é', 'http://', '{"a": ', 'A) ', '!']
sketcher = Sketcher(Keyring.from_seed(1))
for n in range(60):
    rows = [''.join(draw.choices(alphabet, k=draw.randrange(0, 60))) for _ in range(5)] + ['"' * n, 'a ' * n, '中' * n]
    texts = texts_of(rows)
    grams = sketcher.grams(texts, 0)[1]
    sketcher.sketch_texts(texts, texts, np.zeros(len(rows), np.int64), HeavyGrams('seed-1', grams[::2]))
# more than one piece, known corpora, and grams counted as the stream goes
from monitor.sketch import Corpora, CorpusKey
from monitor.sketch.corpora import build_corpus
from monitor.sketch.heavy import HeavyStage
key = CorpusKey.of(sketcher.keyring)
rows = [''.join(draw.choices(alphabet, k=draw.randrange(0, 400))) + 'one two three four five' for _ in range(1500)]
rows += ['b' * 300, 'é' * 300, 'x\\n' * 300, '']
sketcher.corpora = Corpora.of(key, [build_corpus('c', rows[::3], key, bit=0, bits=8)])
texts, stage, n = texts_of(rows), HeavyStage(sketcher, 1000), len(rows)
zero, ids = np.zeros(n, np.int64), texts_of([str(i) for i in range(n)])
for t in (0, 1500, 3000):
    plan = stage.plan(zero.astype(np.int32), zero + t, ids, ids, texts, zero)
    made = sketcher.sketch_texts(texts, None, zero, plan)
assert made.corpus[::3].sum() > 400 and plan.tables[-1].hashes.size and made.residual_share.min() < 255
print('inside')
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(monitor.__file__).parents[1], capture_output=True, text=True,
        timeout=290,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "1", "NUMBA_CACHE_DIR": "/dev/null/none"},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "inside"), done.stderr[-2000:]


def test_keyed_columns_are_those_of_the_schema() -> None:
    assert set(KEYED) <= set(EVENT_SCHEMA)
