"""Known corpora: the filter, what is found in a prompt, the key, the files, the wire, the features, the command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from feature_rows import T0, engine, frame
from spine import batch, pipeline, world
from typer.testing import CliRunner

from monitor.__main__ import build as application
from monitor.decode import DecodeOptions, decode
from monitor.errors import BadInput
from monitor.records import RawBatch
from monitor.sketch import Corpora, CorporaWatch, CorpusKey, Key, Keyring, Sketcher, load_corpora
from monitor.sketch.corpora import build_corpus, read_corpus
from monitor.sketch.frame import sketch_frame
from monitor.sketch.fuse import build, has_many
from monitor.sketch.received import SketchStats
from monitor.sketch.sketcher import texts_of

T = 1_750_000_000
BASE = {
    "ts": T, "request_id": "r-1", "account_id": "a-1", "model": "m", "input_tokens": 5, "output_tokens": 7,
    "status": 200,
}  # fmt: skip
RING = Keyring.from_seed(1)
KEY = CorpusKey.of(RING)
ITEMS = [
    "Name the longest river that crosses the old kingdom of the north.\nA. Elva\nB. Ondra\nC. Tysa",
    "A baker sold 48 rolls on Monday and 24 on Tuesday. How many rolls did she sell in both days?",
    "请写一首关于春天和秋天的诗，要押韵",
    "Опиши зимний лес так, чтобы его увидел тот, кто там не был",
    "Translate into plain words.\nThe committee shall convene upon receipt of notice.",
    "Translate into plain words.\nNotwithstanding the foregoing, the lessee may assign.",
    "too short",
]


def corpora(*texts: str, name: str = "exam", bit: int = 3, key: CorpusKey = KEY, bits: int = 32) -> Corpora:
    return Corpora.of(key, [build_corpus(name, texts or ITEMS, key, bit=bit, bits=bits)])


SKETCHER = Sketcher(RING, corpora())


def look_up(*prompts: str, sketcher: Sketcher = SKETCHER) -> tuple[list[int], list[int]]:
    made = sketcher.sketch_texts(texts_of(prompts), None, np.zeros(len(prompts), np.int64))
    assert made.corpus is not None
    assert made.corpus_item is not None
    return made.corpus.tolist(), made.corpus_item.tolist()


# -- the filter


def found(keys: np.ndarray, bits: int, probes: np.ndarray) -> int:
    made = build(keys, bits)
    seed, segment, spread, mask = made.params()
    return has_many(probes, made.prints, np.uint64(seed), segment, spread, np.uint64(mask))


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1_000, 50_000])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_every_key_is_found_and_others_at_the_stated_rate(n: int, bits: int) -> None:
    rng = np.random.default_rng(n + bits)
    keys = rng.integers(1, 1 << 63, n, dtype=np.uint64)
    assert found(keys, bits, keys) == n
    probes = 1_000_000
    false = found(keys, bits, rng.integers(1 << 63, (1 << 64) - 1, probes, dtype=np.uint64))
    expected = probes / 2**bits
    assert expected - 5 * np.sqrt(expected) - 1 <= false <= expected + 5 * np.sqrt(expected) + 1


def test_a_filter_is_the_same_for_keys_in_any_order() -> None:
    keys = np.random.default_rng(3).integers(1, 1 << 63, 500, dtype=np.uint64)
    again = build(np.concatenate([keys[::-1], keys[:7]]), 16)
    assert np.array_equal(build(keys, 16).prints, again.prints)


# -- what is found


@pytest.mark.parametrize("frame_of", [
    "{}", "Question: {}", "Q: {}\nAnswer:", "1. {}", "Below is a task.\n\n### Instruction:\n{}\n\n### Response:\n",
    "  {}  ",
])  # fmt: skip
def test_an_item_is_known_in_a_frame_by_the_same_hash(frame_of: str) -> None:
    bare = look_up(*ITEMS[:6])
    assert bare[0] == [8] * 6
    assert len(set(bare[1])) == 6
    assert look_up(*(frame_of.format(item) for item in ITEMS[:6])) == bare


def test_case_space_and_punctuation_do_not_count() -> None:
    text = "name the LONGEST river, that crosses -- the old kingdom of the north"
    assert look_up(text) == look_up(ITEMS[0])
    assert look_up(ITEMS[3].upper()) == look_up(ITEMS[3])


def test_other_numbers_are_the_same_task_but_another_item() -> None:
    bits, item = look_up(ITEMS[1].replace("48", "13").replace("24", "977"))
    assert bits == [8]
    assert item != look_up(ITEMS[1])[1]


def test_what_is_nobodys_is_not_found() -> None:
    others = [
        "Name the longest river that crosses the old kingdom of the south.", "too short", "", "?", "A. Elva",
        "Translate into plain words.", "Translate into plain words.\nThe cat shall sit upon the mat all day.",
    ]  # fmt: skip
    assert look_up(*others) == ([0] * len(others), [0] * len(others))


def test_two_corpora_add_up() -> None:
    both = Corpora.of(KEY, [
        build_corpus("one", ITEMS[:2], KEY, bit=0, bits=32), build_corpus("two", ITEMS[1:3], KEY, bit=31, bits=16),
    ])  # fmt: skip
    assert look_up(*ITEMS[:4], sketcher=Sketcher(RING, both))[0] == [1, 1 | 1 << 31, 1 << 31, 0]


def test_rows_and_their_repetition_change_nothing() -> None:
    rng = np.random.default_rng(7)
    prompts = [*ITEMS, *("x" * 9 + f" nothing that anyone asked before {i}" for i in range(3_000))]
    picked = rng.integers(0, len(prompts), 2_000).tolist()
    whole = look_up(*(prompts[i] for i in picked))
    apart = [look_up(prompts[i]) for i in picked[:40]]
    assert [w[:40] for w in whole] == [[a[k][0] for a in apart] for k in (0, 1)]
    assert sum(whole[0]) == 8 * sum(i < 6 for i in picked)


def test_a_hostile_text_stays_bounded() -> None:
    lines = "\n".join(f"line {i} has enough letters to be looked at" for i in range(20_000))
    assert look_up(lines, "a" * 100_000, "\n" * 1000 + ITEMS[0])[0] == [0, 0, 8]


# -- the key


def test_rotation_leaves_the_files_good(tmp_path: Path) -> None:
    old, new = Key("k1", b"1" * 32), Key("k2", b"2" * 32, T * 1000)
    first = CorpusKey.of(Keyring([old]))
    build_corpus("exam", ITEMS, first, bit=0, bits=32).save(tmp_path / "exam.corpus", first)
    rotated = Keyring([old, new], overlap_ms=1000)
    assert len(load_corpora(tmp_path, CorpusKey.of(rotated))) == 1
    with pytest.raises(BadInput, match=r"corpora\.secret_file"):
        load_corpora(tmp_path, CorpusKey.of(Keyring([new])))
    kept = load_corpora(tmp_path, CorpusKey.of(Keyring([new]), old.secret))
    before, after = (Sketcher(ring, kept) for ring in (Keyring([old]), Keyring([new])))
    assert look_up(*ITEMS, sketcher=before) == look_up(*ITEMS, sketcher=after)
    events = [BASE | {"prompt": ITEMS[0], "ts": T + s} for s in (-5, 500)]
    item = run(events, Sketcher(rotated, kept), both=True)[0]["corpus_item"]
    assert item[0] == item[1] != 0


def test_another_key_hashes_otherwise() -> None:
    other = CorpusKey.of(Keyring.from_seed(2))
    assert look_up(ITEMS[0], sketcher=Sketcher(RING, corpora(key=other)))[1] != look_up(ITEMS[0])[1]
    assert KEY.secret not in {RING.keys[0].derive("text 0", 32), RING.keys[0].secret}


# -- the files


def test_a_file_holds_no_text_and_is_refused_when_changed(tmp_path: Path) -> None:
    path = tmp_path / "exam.corpus"
    made = build_corpus("exam", ITEMS, KEY, bit=3, bits=16)
    assert (made.header.items, made.header.short, made.header.repeated) == (6, 1, 0)
    made.save(path, KEY)
    assert [p.name for p in tmp_path.iterdir()] == ["exam.corpus"]
    raw = path.read_bytes()
    assert not any(word in raw for word in (b"river", b"baker", "春天".encode(), KEY.secret, RING.keys[0].secret))
    assert read_corpus(path, KEY).header == read_corpus(path, None).header
    for damaged in (raw[:-1], raw + b"\0", raw[:-1] + bytes([raw[-1] ^ 1]), raw.replace(b'"bit":3', b'"bit":4'),
                    b"", b"{}", raw[:20], raw.replace(b'"spread":', b'"spread":1')):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.raises(BadInput):
            read_corpus(path, KEY)


def test_names_and_bits_are_each_one_corpus() -> None:
    a, b = (build_corpus(name, ITEMS, KEY, bit=1, bits=8) for name in ("a", "b"))
    with pytest.raises(BadInput, match="bit '1'"):
        Corpora.of(KEY, [a, b])
    with pytest.raises(BadInput, match="name 'a'"):
        Corpora.of(KEY, [a, replace(a, header=replace(a.header, bit=2))])
    for bad in ({"name": "../x"}, {"bit": 32}, {"bits": 9}):
        with pytest.raises(BadInput):
            build_corpus(**{"name": "x", "texts": ITEMS, "key": KEY, "bit": 0, "bits": 8} | bad)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="none of 2 texts"):
        build_corpus("x", ["short", ""], KEY, bit=0, bits=8)


def test_a_watch_tells_a_change_once(tmp_path: Path) -> None:
    watch = CorporaWatch(tmp_path, KEY)
    assert watch.poll() is None
    build_corpus("exam", ITEMS, KEY, bit=3, bits=16).save(tmp_path / "exam.corpus", KEY)
    found = watch.poll()
    assert found is not None
    assert found.names == {3: "exam"}
    assert watch.poll() is None
    (tmp_path / "exam.corpus").write_bytes(b"no corpus")
    with pytest.raises(BadInput):
        watch.poll()
    assert watch.poll() is None


def test_new_corpora_take_effect_with_an_epoch() -> None:
    p = pipeline()
    records = world()[:1_200]
    hours = [r.t_ms // 3_600_000 for r in records]
    p.process(batch(records[:100]))
    assert hours[100] < hours[-1]
    p.next_corpora = corpora()
    assert not len(p.sketcher.corpora)
    p.process(batch(records[100:]))
    assert p.next_corpora is None
    assert p.sketcher.corpora.names == {3: "exam"}
    assert p.versions["corpora"] == p.sketcher.corpora.hash


# -- the frame and the wire


def run(
    events: Sequence[Mapping[str, Any]], sketcher: Sketcher, both: bool = False
) -> tuple[pl.DataFrame, SketchStats]:
    n = len(events)
    values: list[bytes | None] = [json.dumps(e).encode() for e in events]
    raw = RawBatch(values, np.zeros(n, np.int32), np.arange(n, dtype=np.int64), np.full(n, -1, np.int64), {0: n})
    return sketch_frame(decode(raw, DecodeOptions(b"digest")).frame, sketcher, both=both)


def columns(events: Sequence[Mapping[str, Any]], sketcher: Sketcher = SKETCHER) -> list[tuple[Any, Any]]:
    return run(events, sketcher)[0].select("corpus", "corpus_item").rows()


def test_text_and_its_sketch_are_known_alike() -> None:
    events = [BASE | {"prompt": p} for p in [*ITEMS, "", "nobody asked for this before, as far as I know"]]
    events += [BASE, BASE | {"system": ITEMS[0]}, BASE | {"prompt": ITEMS[0], "content_policy": "none"}]
    a, _ = run(events, SKETCHER)
    assert a["corpus"].to_list() == [8] * 6 + [0] * 3 + [None] * 3
    assert a["corpus_item"].null_count() == 6
    stripped = SKETCHER.sketch_many(events)
    b, stats = run(stripped, SKETCHER)
    assert stats.malformed == 0
    assert [c for c in a.columns if not a[c].equals(b[c], null_equal=True)] == []
    assert [e.get("sketch") for e in run_twice(stripped)] == [e.get("sketch") for e in stripped]


def run_twice(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A second gateway on the way, which knows no corpus."""
    return Sketcher(RING).sketch_many(events)


def test_null_where_nothing_is_known_of_it() -> None:
    none = Sketcher(RING)
    assert columns([BASE | {"prompt": ITEMS[0]}], none) == [(None, None)]
    old = none.sketch_one(BASE | {"prompt": ITEMS[0]})
    assert "corpus" not in old["sketch"]
    assert columns([old]) == [(None, None)]
    told = SKETCHER.sketch_one(BASE | {"prompt": ITEMS[0]})
    assert columns([told], none) == columns([told])  # a monitor that never sees text needs no file
    other = Sketcher(RING, corpora(key=CorpusKey.of(RING, b"another secret of 32 characters!!")))
    assert columns([told], other) == [(None, None)]


@pytest.mark.parametrize("bad", ["", "A" * 19, "A" * 21, "!" * 20, "AAAAAQAAAAAAAAAAAAAA", "AAAAAAAAAAEAAAAAAAAA"])
def test_a_malformed_member_spoils_the_sketch(bad: str) -> None:
    told = SKETCHER.sketch_one(BASE | {"prompt": ITEMS[0]})
    frame_, stats = run([told | {"sketch": told["sketch"] | {"corpus": bad}}], SKETCHER)
    assert stats.malformed == 1
    assert frame_["corpus"].null_count() == 1


# -- the features


def features_of(items: Sequence[int], models: Sequence[str], known: bool = True) -> dict[str, Any]:
    n = len(items)
    rows = frame(["a0"] * n, T0 + np.arange(n, dtype=np.int64))
    rows = rows.with_columns(
        corpus=pl.Series([(i > 0) * 1 if known else None for i in items], dtype=pl.UInt32),
        corpus_item=pl.Series([i or None for i in items], dtype=pl.UInt64), model=pl.Series(models),
    )  # fmt: skip
    made = engine().update(rows, {0: T0 + 10**7})
    return made.tail(1).to_dicts()[0]


def hashes(n: int) -> list[int]:
    return np.random.default_rng(n).integers(1, (1 << 64) - 1, n, dtype=np.uint64).tolist()


@pytest.mark.parametrize("n", [20, 90, 300, 1_300, 14_000])
@pytest.mark.parametrize("models", [1, 3])
def test_items_and_models_an_item_at_every_size(n: int, models: int) -> None:
    items = hashes(n)
    row = features_of(items * models + [0] * n, [f"m{k}" for k in range(models) for _ in items] + ["m0"] * n)
    assert row["corpus_share_24h"] == pytest.approx(models / (models + 1))
    assert n * 0.6 <= row["corpus_items_distinct_24h"] <= n * 1.6
    assert models * 0.65 <= row["corpus_models_per_item_24h"] <= models * 1.5


def test_no_corpus_is_unknown_and_no_hit_is_zero() -> None:
    row = features_of([0] * 20, ["m"] * 20, known=False)
    assert [row[n] for n in row if n.startswith("corpus_")] == [None, None, None]
    row = features_of([0] * 20, ["m"] * 20)
    assert (row["corpus_share_24h"], row["corpus_items_distinct_24h"]) == (0, 0)
    assert row["corpus_models_per_item_24h"] is None


# -- the command


def monitor(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(application(), [str(w) for w in words])
    return done.exit_code, done.stdout


def test_the_command_reads_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"instruction": item, "input": "with this as input" if i else ""} for i, item in enumerate(ITEMS)]
    files = {n: tmp_path / n for n in ("a.ndjson", "a.json", "a.parquet", "a.txt", "none.ndjson")}
    files["a.ndjson"].write_text("\n".join(map(json.dumps, rows)))
    files["a.json"].write_text(json.dumps(rows, indent=1))
    pl.DataFrame(rows).write_parquet(files["a.parquet"])
    files["a.txt"].write_text("\n".join(item.replace("\n", " ") for item in ITEMS))
    files["none.ndjson"].write_text('{"body": "x"}\n')
    where = ("--dir", tmp_path / "c", "--seed", "1")
    made = {}
    for kind in ("a.ndjson", "a.json", "a.parquet"):
        code, text = monitor("corpus", "build", "exam", files[kind], "-k", "instruction", *where, "--json")
        assert code == 0
        made[kind] = json.loads(text)
        made[kind].pop("mac")
        assert (made[kind]["items"], made[kind]["bit"]) == (6, 0)
    assert made["a.ndjson"] == made["a.json"] == made["a.parquet"]
    code, text = monitor("corpus", "build", "lines", files["a.txt"], *where, "--json")
    assert (code, json.loads(text)["bit"], json.loads(text)["items"]) == (0, 1, 6)
    code, text = monitor("corpus", "list", *where[:2], "--json")
    assert [(h["name"], h["bit"]) for h in json.loads(text)] == [("exam", 0), ("lines", 1)]
    code, text = monitor("corpus", "test", "exam", files["a.ndjson"], *where, "--json")
    assert (code, json.loads(text)) == (0, {"texts": 7, "hits": 6, "share": 6 / 7, "items": 6})
    assert monitor("corpus", "show", "exam", *where)[0] == 0
    for wrong in (
        ("show", "nobody"),
        ("test", "nobody"),
        ("build", "X y", files["a.txt"]),
        ("build", "x", files["none.ndjson"]),
        ("build", "x", tmp_path),
        ("build", "x", tmp_path / "absent"),
    ):
        assert monitor("corpus", *wrong, *where)[0] == 2, wrong
    assert monitor("corpus", "show", "exam", "--dir", tmp_path / "c", "--seed", "2")[0] == 2
