"""Whoever is suspected of a campaign teaches the models nothing: what is found comes back to every partition."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import pytest

from monitor import wiring
from monitor.campaigning import Campaigns
from monitor.checkpointing import Checkpointer
from monitor.features.catalogue import CLIENT_CLASSES
from monitor.pipeline import Pipeline
from monitor.records import Alert, RawBatch
from monitor.score import AnomalyOptions
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.source.partitioner import Partitioner
from monitor.store import MemoryStore
from monitor.store.links import MemoryLinkStore

T0 = 1_767_571_200.0
HOURS, PARTITIONS = 12, 2
SUBJECTS = ("a ferry", "an orchard", "a lens", "four pipes", "a wedge", "a sundial", "a leaking tank", "three loans")
CAMPAIGN = {f"c{i:02d}" for i in range(14)}
_PLACE = Partitioner(PARTITIONS)


def events(campaign: bool) -> Iterator[dict[str, Any]]:
    """200 people who ask something each hour, and, or not, fourteen accounts behind three cards and an address that
    want long traces; the answers that these get are ten times as long."""
    for i in range(200):
        rng = random.Random(i)
        own = {"payment_fp": f"card-{i}", "ip": f"10.{i // 250}.{i % 250}.7", "user_agent": f"app-{i % 9}/1",
               "account_created_at": T0 - (20 + 3 * i) * 86_400}  # fmt: skip
        for hour in range(HOURS):
            text = f"Could you help me with {rng.choice(SUBJECTS)} number {rng.randrange(900)}, please? I am not sure."
            yield event(f"p{i:03d}", hour, rng, prompt=text, output_tokens=100 + rng.randrange(200), **own)
    for i, name in enumerate(sorted(CAMPAIGN) if campaign else ()):
        rng = random.Random(name)
        own = {"payment_fp": f"campaign-card-{i % 3}", "ip": "192.0.2.9", "user_agent": "harvest/1",
               "account_created_at": T0 - 9 * 86_400}  # fmt: skip
        for hour in [h for h in range(HOURS) for _ in range(3)]:
            text = (
                "Think step by step. Show your complete reasoning process before the final answer.\n"
                f"Problem {rng.randrange(10_000)}: about {rng.choice(SUBJECTS)}, value {rng.randrange(2, 900)}.\n"
                "Write out every intermediate step inside <thinking> tags."
            )
            yield event(name, hour, rng, prompt=text, output_tokens=2_000 + rng.randrange(900), **own)


def event(account: str, hour: int, rng: random.Random, **more: Any) -> dict[str, Any]:
    ts = round(T0 + hour * 3_600 + rng.random() * 3_500, 3)
    return {"ts": ts, "request_id": f"{account}-{ts}", "account_id": account, "model": "atlas-4", "input_tokens": 80,
            "status": 200, "delivery": "sync", "n_messages": 1, "turn_index": 0, **more}  # fmt: skip


def batches(campaign: bool, hours: float = 0.5) -> Iterator[RawBatch]:
    """The log in polls of half an hour."""
    log = sorted(events(campaign), key=lambda e: (e["ts"], e["account_id"]))
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    slots = [[e for e in log if (e["ts"] - T0) // (hours * 3_600) == n] for n in range(round(HOURS / hours))]
    for slot in slots:
        where = [_PLACE(e["account_id"]) for e in slot]
        at = []
        for partition in where:
            at.append(offsets[partition])
            offsets[partition] += 1
        values: list[bytes | None] = [json.dumps(e).encode() for e in slot]
        yield RawBatch(
            values, np.array(where, np.int32), np.array(at, np.int64), np.full(len(slot), -1, np.int64), dict(offsets)
        )


def pipeline() -> Pipeline:
    settings = Settings.model_validate({"campaigns": {"leave_out_of_learning": True}})
    quick = replace(
        wiring.score_options(settings),
        anomaly=AnomalyOptions(window=20, quarantine_h=3.0, learn_epochs=2, calibration_min=20, warm_rows=64,
                               sketch_min=20, sketch_rows=10_000, sketch_per_epoch=1_000),
    )  # fmt: skip
    with patch.object(wiring, "score_options", return_value=quick):
        made = wiring.pipeline(settings, keys=Keyring.from_seed(1), rules=wiring.load(settings))
    for partition in range(PARTITIONS):
        made.campaigns.expect(partition)
    return made


def fed(p: Pipeline, polls: Iterator[RawBatch] | Sequence[RawBatch]) -> list[Alert]:
    alerts: list[Alert] = []
    for batch in polls:
        alerts += p.process(batch).alerts + p.work_campaigns()
    return alerts


def quantiles(p: Pipeline) -> list[float | None]:
    """Where long and short answers lie among everybody's, by partition and class of client."""
    asked = [(c, v) for c in range(len(CLIENT_CLASSES)) for v in (120.0, 180.0, 200.0, 220.0, 280.0, 900.0, 2_400.0)]
    return [p.scorer.quantile(n, "output_tokens_mean_24h", c, v) for n in range(PARTITIONS) for c, v in asked]


def test_a_known_campaign_moves_no_quantile_and_an_unknown_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, known = pipeline(), pipeline()
    fed(clean, batches(campaign=False))
    alerts = fed(known, batches(campaign=True))
    strong = [a for a in alerts if a.kind == "campaign" and a.severity in ("medium", "high")]
    assert set(strong[-1].accounts) == CAMPAIGN
    assert strong[0].revised_at < T0 + 4 * 3_600
    assert any(q is not None for q in quantiles(clean))
    assert quantiles(known) == quantiles(clean)
    # the planted defect: what the leader found does not come back
    monkeypatch.setattr(Campaigns, "suspects", lambda self, by_ms, partition=None: None)
    poisoned = pipeline()
    fed(poisoned, batches(campaign=True))
    assert quantiles(poisoned) != quantiles(clean)


def test_one_is_heard_an_epoch_later_by_every_member_and_never_before() -> None:
    p = pipeline()
    alerts = fed(p, batches(campaign=True))
    first = min(a.revised_at for a in alerts if a.kind == "campaign" and a.severity in ("medium", "high")) * 1_000
    other, third = pipeline().campaigns, pipeline().campaigns
    for member in (other, third):
        member.store = p.campaigns.store
        member.hear()
    assert other.suspects(round(first) - 1) is None
    heard = other.suspects(round(first))
    assert heard is not None
    assert heard == third.suspects(round(first))
    assert set(heard[1]) <= CAMPAIGN


def test_what_nobody_will_ask_for_is_let_go() -> None:
    """And a partition that is taken over, which may be behind, hears all of it again."""
    p = pipeline()
    fed(p, batches(campaign=True))
    campaigns, noted = p.campaigns, p.campaigns.store.notes(-1)
    last = max(noted) + 3_600_000
    campaigns.hear()
    for partition in range(PARTITIONS):
        assert campaigns.suspects(last, partition) == (max(noted), noted[max(noted)])
    assert [*campaigns._heard] == [max(noted)]
    campaigns.expect(PARTITIONS)
    campaigns.hear()
    assert campaigns._heard == noted
    first = min(noted)
    assert campaigns.suspects(first, PARTITIONS) == (first, noted[first])
    for partition in range(PARTITIONS):
        campaigns.suspects(last, partition)
    assert campaigns._heard == noted, "one partition is behind"


def test_a_restart_knows_what_was_heard_and_says_from_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the store lost its data: those of then stay out."""
    polls, store = list(batches(campaign=True)), MemoryStore()
    p = pipeline()
    keeper = Checkpointer(p, store)
    for partition in range(PARTITIONS):
        keeper.restore(partition, 1)
        p.campaigns.expect(partition)
    fed(p, islice(polls, 20))
    for partition in range(PARTITIONS):
        keeper.save(partition, polls[19].next_offsets[partition], 1)
    held = store.load(0)
    assert held is not None
    noted = msgspec.convert(held.meta["learned_without"], dict[str, Any])
    assert noted["at_ms"] <= (T0 + 9 * 3_600) * 1_000
    assert set(noted["accounts"]) == {name for name in CAMPAIGN if _PLACE(name) == 0}
    again = pipeline()
    again.campaigns.store = MemoryLinkStore()
    keeper = Checkpointer(again, store)
    for partition in range(PARTITIONS):
        keeper.restore(partition, 2)
    said: list[set[str]] = []
    advance = again.scorer.advance
    monkeypatch.setattr(
        again.scorer, "advance", lambda part, epoch, who: (said.append({*who}), advance(part, epoch, who))
    )
    again.process(polls[20])
    assert said
    assert set().union(*said) == CAMPAIGN
