"""Known corpora in the campaign stage: what a sample of items tells of a group, who is named, and who is not."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from campaign_world import FIRST, Act, blob, campaign, people

from monitor.arrays import unpack
from monitor.campaigns import CampaignStage, Candidates, items, sharding
from monitor.campaigns.items import ITEMS, LOOKED, MOST, Asked
from monitor.campaigns.options import KnownCorpus
from monitor.fields import SEVERITIES
from monitor.offline import backtest_files
from monitor.settings import load_settings
from monitor.sketch import CorpusKey, Keyring
from monitor.sketch.corpora import build_corpus

KNOWN = {3: KnownCorpus("exam", 1_200)}


def hashes(n: int, seed: int = 5) -> list[int]:
    """Items of a corpus, as their keyed hashes would be."""
    return np.random.default_rng(seed).integers(1, (1 << 64) - 1, n, dtype=np.uint64).tolist()


def asked_by(parts: Sequence[Sequence[int]], models: Sequence[str] = ("m",)) -> Asked:
    """Accounts 0, 1, ... that asked these items, each of every model, of nothing but items."""
    held = Asked()
    for row, part in enumerate(parts):
        asks = [(item, model) for item in part for model in models]
        events = pl.DataFrame(
            {"corpus": [8] * len(asks), "corpus_item": [i for i, _ in asks], "model": [m for _, m in asks]},
            schema={"corpus": pl.UInt32(), "corpus_item": pl.UInt64(), "model": pl.String()},
        )
        held.add(*(items.renumbered(t, np.full(len(asks), row)) for t in items.of_prompts(events)))
    return held


def swept(parts: Sequence[Sequence[int]], models: Sequence[str] = ("m",), known: bool = True) -> sharding.Sweep:
    n = len(parts)
    (found,) = sharding.sweeps(
        [np.arange(n)], np.arange(n, dtype=np.int32), asked_by(parts, models), KNOWN if known else {}
    )
    return found


# -- what the sample tells


@pytest.mark.parametrize("each", [4, 30, 100])
def test_shards_are_told_from_everybody_asking_all(each: int) -> None:
    corpus = hashes(1_200)
    shards = [corpus[i * each : (i + 1) * each] for i in range(12)]
    found = swept(shards).values
    assert found["corpus_share"] == 1
    # 31 items of an account and more of the others lie under the bound: a sixth, times four
    assert found["corpus_items"] == pytest.approx(12 * each, rel=0 if each < MOST else 0.25)
    assert found["corpus_coverage"] == pytest.approx(min(each / 100, 1), rel=0 if each < MOST else 0.25)
    assert (found["corpus_overlap"], found["corpus_repeats"], found["corpus_models_per_item"]) == (0, 1, 1)
    assert found["corpus_largest_share"] == pytest.approx(1 / 12, abs=0.001 if each < MOST else 0.1)
    alike = swept([corpus[:each]] * 12).values
    assert alike["corpus_items"] == pytest.approx(each, rel=0 if each < MOST else 0.6)
    assert (alike["corpus_overlap"], alike["corpus_largest_share"]) == (pytest.approx(11 / 12), 1)


def test_a_plan_shows_where_chance_would_have_met() -> None:
    corpus = hashes(1_200)
    rng = random.Random(4)
    plan = swept([corpus[i * 60 : (i + 1) * 60] for i in range(20)])
    chance = swept([rng.sample(corpus, 60) for _ in range(20)])
    assert plan.values["corpus_overlap_chance"] == pytest.approx(1 - (1 - (1 - 0.05) ** 20), abs=0.02)
    assert plan.values["corpus_apart_z"] > 8
    assert abs(chance.values["corpus_apart_z"]) < 3
    assert chance.values["corpus_overlap"] == pytest.approx(chance.values["corpus_overlap_chance"], abs=0.06)
    assert "each once; tenants that drew at random would share 36%, so they keep apart by plan" in said(plan)
    assert "so this proves no plan" in said(chance)
    assert swept([corpus[:60]] * 3, known=False).values["corpus_apart_z"] is None


def test_a_busy_neighbour_hides_no_shard() -> None:
    """One who asks all lowers the bound for everybody and is seen as what he is."""
    corpus = hashes(1_200)
    found = swept([corpus, *(corpus[i * 40 : (i + 1) * 40] for i in range(9))])
    assert found.values["corpus_largest_share"] == 1
    assert found.members == frozenset()


def test_models_an_item_and_the_words_for_an_evaluation() -> None:
    corpus = hashes(400)
    lab = swept([corpus, corpus, corpus], models=("a", "b", "c"))
    assert lab.values["corpus_models_per_item"] == 3
    assert lab.values["corpus_repeats"] == 9
    assert said(lab).startswith("asks corpus exam as an evaluation does: 3 accounts of 3 tenants asked ")
    assert said(lab).endswith("one tenant 100% of them, each put to 3.0 models.")
    assert sharding.reading(lab, KNOWN)["reading"] == "evaluation"
    shards = swept([corpus[i * 20 : (i + 1) * 20] for i in range(9)])
    assert said(shards).startswith("shards corpus exam: 9 accounts of 9 tenants asked 180 of its 1,200 items, each")
    unnamed = sharding.reading(swept([corpus[i * 20 : (i + 1) * 20] for i in range(9)], known=False), {})
    assert unnamed is not None
    assert unnamed["text"].startswith("shards corpus of bit 3: 9 accounts of 9 tenants asked 180 items, each once.")


def said(found: sharding.Sweep) -> str:
    words = sharding.reading(found, KNOWN)
    assert words is not None
    return str(words["text"])


def test_an_organisation_is_one_tenant() -> None:
    corpus = hashes(90)
    held = asked_by([corpus[:30], corpus[:30], corpus[30:60], corpus[60:]])
    (found,) = sharding.sweeps([np.arange(4)], np.array([0, 0, 1, 2], np.int32), held, KNOWN)
    assert (found.values["corpus_tenants"], found.values["corpus_overlap"], found.accounts) == (3, 0, 4)


def test_what_is_not_known_is_null_and_no_hit_is_zero() -> None:
    (nothing,) = sharding.sweeps([np.arange(3)], np.arange(3, dtype=np.int32), Asked(), KNOWN)
    assert set(nothing.values.values()) == {None}
    held = Asked()
    held.add(items.none_of(ITEMS), pl.DataFrame({"row": [0, 1], "prompts": [9, 9], "hits": [0, 0]}, schema=LOOKED))
    (none,) = sharding.sweeps([np.arange(3)], np.arange(3, dtype=np.int32), held, KNOWN)
    assert (none.values["corpus_share"], none.values["corpus_items"], none.values["corpus_overlap"]) == (0, 0, None)
    assert sharding.reading(none, KNOWN) is None


def test_parts_merge_to_the_same_whatever_the_cut() -> None:
    rng = random.Random(9)
    rows = [(rng.randrange(4), rng.randrange(1, 90), 1 << rng.randrange(3), 1 << rng.randrange(5), 1)
            for _ in range(2_000)]  # fmt: skip

    def table(part: list[tuple[int, ...]]) -> pl.DataFrame:
        return pl.DataFrame(part, schema=ITEMS, orient="row")

    whole = items.merged([table(rows)])
    assert whole.group_by("row").len()["len"].to_list() == [MOST] * 4
    assert whole.filter(pl.col("row") == 0)["item"].to_list() == sorted({r[1] for r in rows if r[0] == 0})[:MOST]
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        cut = 300 * seed + 100
        assert items.merged([items.merged([table(rows[cut:])]), items.merged([table(rows[:cut])])]).equals(whole)


# -- blobs and state


def test_without_a_corpus_nothing_travels_and_nothing_is_kept() -> None:
    sent = blob(0, people(20))
    assert {"items", "looked"}.isdisjoint(unpack("links", 3, sent.encode())[0])
    stage = CampaignStage()
    stage.step(FIRST, [sent])
    assert not [name for name in unpack("campaigns", 5, stage.dump())[0] if name.startswith(("items", "looked"))]
    known = blob(0, [*people(20), *sharders(4)])
    assert {"items", "looked"} <= set(unpack("links", 3, known.encode())[0])


def sharders(count: int, each: int = 12, split: bool = True, **change: Any) -> list[Act]:
    """A campaign without words that meet a phrase list, whose prompts are items."""
    corpus = hashes(1_200)
    acts = campaign(count, sums={}, **change)
    for i, act in enumerate(acts):
        own = act.links["template_opening"] = [700_000 + i]
        assert own
        part = corpus[i * each : (i + 1) * each] if split else corpus[:each]
        act.asks, act.looked, act.requests = [(item, "m") for item in part], each, each
    return acts


def judged(acts: list[Act], stage: CampaignStage | None = None) -> Candidates:
    stage = stage or CampaignStage()
    stage.corpora = KNOWN
    for act in acts:
        act.looked = act.requests if act.looked is None else act.looked
    found = stage.step(FIRST, [blob(0, acts)])
    assert found is not None
    return found


def test_asking_its_part_is_conduct_and_asking_all_is_not() -> None:
    found = judged(people(400) + sharders(12))
    (what,) = found.findings.values()
    assert {m.account for m in what.members if m.tier == "core"} == {f"c{i:04d}" for i in range(12)}
    assert all("corpus" in m.families for m in what.members)
    assert what.corpus is not None
    assert what.corpus["reading"] == "shards"
    (same,) = judged(people(400) + sharders(12, split=False)).findings.values()
    assert not [m for m in same.members if "corpus" in m.families]
    assert same.corpus is not None
    assert same.corpus["reading"] == "evaluation"


def test_who_does_not_ask_is_not_core() -> None:
    """Framed by the campaign's card and address, with questions of his own."""
    acts = people(400) + sharders(12)
    framed = acts[-1]
    framed.asks, framed.looked, framed.requests = [], 12, 12
    (what,) = judged(acts).findings.values()
    assert {m.account for m in what.members if m.tier == "core"} == {f"c{i:04d}" for i in range(11)}
    assert framed.account in {m.account for m in what.members}


def test_a_restart_and_two_days_forget_as_they_should() -> None:
    stage = CampaignStage()
    judged(people(300) + sharders(9), stage)
    copy = CampaignStage()
    copy.load(stage.dump())
    copy.corpora = KNOWN
    assert copy.dump() == stage.dump()
    day = 144
    shares = []
    for after in (day, 2 * day):
        idle = [Act(a.account, requests=1, links=a.links, looked=0) for a in sharders(9)]
        one, other = (s.step(FIRST + after, [blob(after, people(300) + idle)]) for s in (stage, copy))
        assert one is not None
        assert other is not None
        assert one.rows.equals(other.rows)
        shares.append(one.rows["corpus_items"].to_list())
    assert shares == [[108.0], [None]]


# -- the whole way: text in, alerts out

T0 = 1_767_571_200.0
SUBJECTS = ("a ferry", "an orchard", "a lens", "four pipes", "a wedge", "a sundial", "a leaking tank", "three loans")


def exam(n: int) -> list[str]:
    """Items of a benchmark: each with words of its own."""
    rng = random.Random(77)
    words = ["velt", "morda", "quill", "sarn", "topaz", "undal", "brine", "kesto", "lumen", "ferro", "gant", "hask"]
    return [
        f"Which {rng.choice(words)} of the {rng.choice(words)} {i * 7919 % 10_007} holds {rng.choice(words)}?\n"
        f"A. {rng.choice(words)} {i}\nB. {rng.choice(words)} {i + 1}\nC. {rng.choice(words)}\nAnswer with a letter."
        for i in range(n)
    ]


def request(account: str, ts: float, **more: Any) -> dict[str, Any]:
    base = {
        "ts": round(ts, 3), "request_id": f"{account}-{round(ts * 1000)}", "account_id": account, "model": "atlas-4",
        "input_tokens": 120, "output_tokens": 4, "status": 200, "delivery": "sync", "operation": "chat",
        "n_messages": 1, "turn_index": 0,
    }  # fmt: skip
    return {**base, **more}


def world(collector: str) -> Iterator[dict[str, Any]]:
    """300 people; twelve accounts behind one card and address, of which each asks its ``part`` of an exam or ``all``
    of it; and a laboratory, one account, that puts the exam to three models."""
    rng = random.Random(3)
    questions = exam(600)
    for i in range(300):
        own = {"payment_fp": f"card-{i}", "ip": f"10.{i // 250}.{i % 250}.7", "user_agent": f"app-{i % 9}/1",
               "account_created_at": T0 - (20 + 3 * i) * 86_400}  # fmt: skip
        for _ in range(4):
            text = f"Could you help me with {rng.choice(SUBJECTS)} number {rng.randrange(900)}, please? I am not sure."
            yield request(f"p{i:03d}", T0 + rng.random() * 7_000, prompt=text, **own)
    for i in range(12):
        own = {"payment_fp": f"campaign-card-{i % 3}", "ip": "192.0.2.9", "user_agent": "harvest/1",
               "account_created_at": T0 - 9 * 86_400}  # fmt: skip
        mine = questions[i * 25 : (i + 1) * 25] if collector == "part" else questions[:25]
        for k, text in enumerate(mine):
            yield request(f"c{i:02d}", T0 + 60 + k * 250 + rng.random() * 200, prompt=text, **own)
    lab = {"payment_fp": "lab-card", "ip": "198.51.100.4", "user_agent": "harness/2",
           "account_created_at": T0 - 300 * 86_400}  # fmt: skip
    for k, text in enumerate(questions[:200]):
        for m in range(3):
            yield request("lab", T0 + 100 + k * 30 + m, prompt=text, model=f"atlas-{m}", temperature=0, **lab)


def alerts_of(collector: str, folder: Path) -> list[dict[str, Any]]:
    corpora = folder / "corpora"
    corpora.mkdir()
    key = CorpusKey.of(Keyring.from_seed(1))
    build_corpus("exam", exam(600), key, bit=2, bits=32).save(corpora / "exam.corpus", key)
    log, out = folder / "log.ndjson", folder / "alerts.ndjson"
    events = sorted(world(collector), key=lambda e: (e["ts"], e["account_id"]))
    log.write_text("".join(json.dumps(e) + "\n" for e in events))
    backtest_files([log], out, settings=load_settings(None, {"MONITOR__CORPORA__DIR": str(corpora)}), partitions=2)
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_campaign_that_shards_a_corpus_is_named_and_a_laboratory_is_not(tmp_path: Path) -> None:
    written = alerts_of("part", tmp_path)
    last = {a["alert_id"]: a for a in written}.values()
    (found,) = [a for a in last if a["kind"] == "campaign" and "campaign-shards-corpus" in a["rules"]]
    assert set(found["accounts"]) == {f"c{i:02d}" for i in range(12)}
    assert (found["severity"], found["hypothesis"]) == ("high", "distillation")
    words = found["evidence"]["corpus"]["text"]
    asked = re.match(r"shards corpus exam: 12 accounts of 12 tenants asked (\d+) of its 600 items, each once;", words)
    assert asked is not None
    assert 50 <= int(asked[1]) <= 300
    assert int(asked[1]) == found["evidence"]["features"]["corpus_items"]["value"]
    assert not [item for item in exam(600) if item[:40] in json.dumps(written)]
    accused = {a for alert in last if SEVERITIES.index(alert["severity"]) >= 2 for a in alert["members"]}
    assert "lab" not in accused
    assert not [a for a in accused if a.startswith("p")]


def test_accounts_that_all_ask_the_same_are_not_named_for_it(tmp_path: Path) -> None:
    last = {a["alert_id"]: a for a in alerts_of("all", tmp_path)}.values()
    assert not [a for a in last if "campaign-shards-corpus" in a["rules"]]
    (same,) = [a for a in last if a["kind"] == "campaign" and a["evidence"].get("corpus")]
    assert same["evidence"]["corpus"]["reading"] == "evaluation"
