"""The features stage against a slow one that keeps every event: same numbers, however the stream is cut."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from feature_events import CODES, DAY, HOUR, T0, TICK, build, engine, event, events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.sketch.vocabulary import SHAPE_NAMES


def oracle(rows: list[dict[str, object]]) -> dict[tuple[str, int], dict[str, float | None]]:
    """Features of each (subject, tick), from all events so far."""
    out: dict[tuple[str, int], dict[str, float | None]] = {}
    for subject in {str(r["subject"]) for r in rows}:
        mine = [r for r in rows if r["subject"] == subject]
        kept: list[dict[str, object]] = []
        ticks = sorted({int(r["t_ms"]) // TICK for r in mine})  # type: ignore[call-overload]
        last = None
        for k in ticks:
            if last is not None and k * TICK - last > 7 * DAY:
                kept = []  # silent for longer than any window: starts afresh
            kept += [r for r in mine if int(r["t_ms"]) // TICK == k]  # type: ignore[call-overload]
            last = max(int(r["t_ms"]) for r in kept)  # type: ignore[call-overload]
            out[subject, k] = window(kept, k)
    return out


def window(kept: list[dict[str, object]], k: int) -> dict[str, float | None]:
    start = k * TICK

    def tick_start(r: dict[str, object]) -> int:
        return int(r["t_ms"]) // TICK * TICK  # type: ignore[call-overload]

    def within(pane: int, count: int) -> list[dict[str, object]]:
        return [r for r in kept if tick_start(r) // pane > start // pane - count]

    began = tick_start(kept[0]) // HOUR * HOUR  # a day of the account's begins at the hour of its first request

    def age(r: dict[str, object]) -> int:
        return (start - began) // DAY - (tick_start(r) - began) // DAY

    hour, day, week = within(60_000, 60), within(HOUR, 24), [r for r in kept if age(r) < 7]
    minute = [r for r in kept if tick_start(r) // TICK > k - 6]
    past = [r for r in week if age(r) > 0]
    past_days = min((start - began) // DAY, 6)
    n = len(day)

    def share(found: list[dict[str, object]], of: list[dict[str, object]], least: int = 5) -> float | None:
        return len(found) / len(of) if of and n >= least else None

    temps = [int(r["temperature_milli"]) for r in day if r["temperature_milli"] is not None]  # type: ignore[call-overload]
    turns = [r for r in day if r["turn_index"] is not None]
    networks = {int(r["net"]) >> 58 for r in day if r["net"] is not None}  # type: ignore[call-overload]
    skeletons = Counter(int(r["prompt_skeleton"]) for r in day)  # type: ignore[call-overload]
    delivered = [r for r in day if r["delivery"] is not None]
    gaps = []
    by_time = sorted(kept, key=lambda r: (int(r["t_ms"]), int(r["_i"])))  # type: ignore[call-overload]
    for before, after in itertools.pairwise(by_time):
        if after["delivery"] != CODES["batch"] and after in day:
            gaps.append(round(math.log2(int(after["t_ms"]) - int(before["t_ms"]) + 1) * 8))  # type: ignore[call-overload]
    hours = Counter((tick_start(r) // HOUR) % 24 for r in week)
    latency = [int(r["latency_ms"]) for r in hour if r["latency_ms"] is not None]  # type: ignore[call-overload]
    peak = max(Counter(tick_start(r) // 60_000 for r in hour).values())
    moment = sum(
        sum((1 if (s >> 4) & 1 else -1) * c for s, c in skeletons.items() if s & 7 == bucket) ** 2
        for bucket in range(8)
    )
    per_day = len(past) / past_days if past_days else None
    return {
        "requests_1m": len(minute),
        "requests_1h": len(hour),
        "requests_24h": n,
        "requests_7d": len(week),
        "output_tokens_24h": sum(int(r["output_tokens"]) for r in day),  # type: ignore[call-overload]
        "output_tokens_7d": sum(int(r["output_tokens"]) for r in week),  # type: ignore[call-overload]
        "error_share_24h": share([r for r in day if r["status"] == 500], day),
        "rate_limited_share_1h": len([r for r in hour if r["status"] == 429]) / len(hour) if len(hour) >= 5 else None,
        "burst_ratio_1h": peak * 60 / len(hour) if len(hour) >= 10 else None,
        "active_hours_24h": len({tick_start(r) // HOUR for r in day}),
        "day_entropy_7d": -sum(c / len(week) * math.log(c / len(week)) for c in hours.values()) / math.log(24)
        if len(week) >= 30
        else None,
        "gap_log_mean_24h": sum(gaps) / len(gaps) / 8 - math.log2(1000) if gaps and n >= 10 else None,
        "concurrency_1h": sum(latency) / HOUR if latency else None,
        "temperature_mean_24h": sum(temps) / len(temps) / 1000 if temps else None,
        "temperature_zero_share_24h": temps.count(0) / len(temps) if temps and n >= 5 else None,
        "follow_up_share_24h": share([r for r in turns if r["turn_index"] == 1], turns),
        "batch_share_24h": share([r for r in delivered if r["delivery"] == CODES["batch"]], delivered),
        "question_share_24h": share([r for r in day if r["shape"][SHAPE_NAMES.index("has_question")]], day),  # type: ignore[index]
        "networks_distinct_24h": -64 * math.log((64 - len(networks)) / 64) if networks else None,
        "template_concentration_24h": min(max((moment - n) / (n * (n - 1)), 0), 1) if n >= 10 else None,
        "requests_vs_past": math.log2((n + 1) / (per_day + 1)) if per_day is not None else None,
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(event, min_size=1, max_size=80), st.lists(st.integers(0, 80), max_size=5))
def test_equals_the_slow_one_however_it_is_cut(drawn: list[dict[str, object]], cuts: list[int]) -> None:
    rows = build(drawn)
    for i, row in enumerate(rows):
        row["_i"] = i
    expected = oracle(rows)
    frame = events([{k: v for k, v in r.items() if k != "_i"} for r in rows])
    whole = engine().update(frame, {0: T0})
    stage, parts = engine(), []
    # A tick closes once: cuts fall between ticks.
    edges = sorted({0, *(int(frame["tick"][c]) for c in cuts if c < len(frame)), 1 << 60})
    for low, high in itertools.pairwise(edges):
        part = frame.filter((pl.col("tick") >= low) & (pl.col("tick") < high))
        part = part.sample(fraction=1.0, shuffle=True, seed=7)
        parts.append(stage.update(part, {0: low * TICK}))
        blob = stage.dump(0)
        stage = engine()
        stage.load(0, blob)
    order = ["tick", "subject"]
    assert whole.drop("origin").sort(order).equals(pl.concat(parts).drop("origin").sort(order))
    for row in whole.iter_rows(named=True):
        for name, value in expected[row["subject"], row["tick"]].items():
            assert row[name] == (pytest.approx(value, abs=1e-9) if value is not None else None), name


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(event, min_size=1, max_size=60), st.integers(1, 23))
def test_the_hour_of_the_day_says_nothing(drawn: list[dict[str, object]], hours: int) -> None:
    """Design's invariant 8: the same requests, all of them so many hours later, make the same numbers."""
    rows, moved = build(drawn), hours * HOUR
    stages = engine(), engine()
    made = stages[0].update(events(rows), {0: T0})
    later = stages[1].update(events([{**r, "t_ms": int(r["t_ms"]) + moved} for r in rows]), {0: T0 + moved})  # type: ignore[call-overload]
    back = later.with_columns(pl.col("tick") - moved // TICK, pl.col("t_ms") - moved)
    assert back.equals(made)
    said = [[stage.exemplars(o) for o in made["origin"].to_list()] for stage in stages]
    assert said[0] == said[1]


def test_changes_alone_restore_the_same_state() -> None:
    """A full dump and the changes after it make the same rows as never having stopped."""
    rng = np.random.default_rng(3)
    drawn = [
        {"subject": f"s{rng.integers(40)}", "t_ms": int(T0 + i * 40_000), "prompt_exact": int(rng.integers(1, 99))}
        for i in range(3_000)
    ]
    frame = events([{**d, "shape": [9] * 24, "minhash": [1] * 64, "lexicon": 1} for d in drawn])
    running, blobs, restored = engine(), [], engine()
    for i, part in enumerate(frame.with_columns(g=frame["tick"] // 1_500).partition_by("g", maintain_order=True)):
        part = part.drop("g")
        rows = running.update(part, {0: int(part["t_ms"][0])})
        assert rows.drop("origin").equals(restored.update(part, {0: int(part["t_ms"][0])}).drop("origin"))
        blobs.append(running.dump(0, full=i == 0))
        restored = engine()
        for blob in blobs:
            restored.load(0, blob)
    assert len(blobs) > 5
    assert len(blobs[-1]) < len(running.dump(0)) * 0.9


def test_every_feature_of_the_catalogue_is_made_and_within_its_bounds() -> None:
    rng = np.random.default_rng(5)
    rows = [
        {
            "subject": f"s{i % 3}", "t_ms": int(T0 + i * 45_000), "latency_ms": 5, "cost_microusd": 3,
            "temperature_milli": 1000, "n": 2, "logprobs": True, "seed_set": True, "max_tokens": 20,
            "response_format": CODES["json"], "n_tools": 1, "stream": True, "delivery": 1, "refused": False,
            "moderated": False, "reasoning_effort": CODES["high"], "reasoning_tokens": 5, "turn_index": 0,
            "account_created_ms": T0 - DAY, "api_key_id": f"k{i % 5}", "end_user": i + 1, "client": 7, "user_agent": 8,
            "ja4": 9, "net": int(rng.integers(1, 2**63)), "conversation": i + 1, "blobs": [int(i // 2 + 1)],
            "prompt_exact": int(rng.integers(1, 2**63)), "prompt_skeleton": int(rng.integers(1, 2**63)),
            "prompt_prefix": 5, "prompt_tail": 6,
            "system_skeleton": 5, "shape": rng.integers(0, 255, 24).tolist(),
            "minhash": rng.integers(0, 255, 64).tolist(), "lexicon": int(rng.integers(0, 2**15)), "script": 1,
            "corpus": 1, "generator": 2, "corpus_item": int(rng.integers(1, 2**63)),
        }
        for i in range(6_000)
    ]  # fmt: skip
    seen = pl.DataFrame({"subject": ["s0", "s1", "s2"], "product_seen_ms": [T0] * 3})
    out = engine().update(events(rows), {0: T0}, seen)
    last = out.tail(1).to_dicts()[0]
    for feature in ACCOUNT_FEATURES:
        value = last[feature.name]
        assert value is not None, feature.name
        assert math.isfinite(value), feature.name
        assert feature.low is None or value >= feature.low, feature.name
        assert feature.high is None or value <= feature.high, feature.name
    assert last["blob_foreign_24h"] > 0
