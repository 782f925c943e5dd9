"""20,000 mutated records against the oracle; ``tests/bench/fuzz_decode.py`` runs the million."""

from __future__ import annotations

import random

import pytest
from decode_oracle import check, same
from records_made import OPTIONS, STAMP, mutant, raw

from monitor.decode import decode, stage

SEED = 20_260_101


def test_mutants_are_decoded_or_rejected_with_a_reason() -> None:
    rng = random.Random(SEED)
    reasons: dict[str, int] = {}
    rows = wrong = mended = 0
    for n in range(40):
        stamp = STAMP if n % 2 else -1
        decoded = check(raw([mutant(rng) for _ in range(500)], stamp=stamp, start=500 * n), OPTIONS)
        rows += decoded.frame.height
        wrong += sum(decoded.wrong_types.values())
        mended += decoded.mended
        for reject in decoded.rejects:
            reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
    # A mutator that only makes rubbish, or only good records, proves nothing.
    assert rows > 4_000
    assert wrong > 1_000
    assert mended > 100
    assert set(reasons) >= {
        "empty", "not_json", "not_utf8", "too_deep", "not_object", "missing_field", "wrong_type", "bad_id", "bad_time",
        "out_of_range", "future",
    }  # fmt: skip


def test_the_fast_path_and_the_tolerant_one_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: bytes) -> object:
        raise ValueError

    rng = random.Random(SEED + 1)
    batches = [raw([mutant(rng) for _ in range(500)], start=500 * n) for n in range(8)]
    fast = [decode(b, OPTIONS) for b in batches]
    monkeypatch.setattr(stage, "read_row", refuse)
    slow = [decode(b, OPTIONS) for b in batches]
    for a, b in zip(fast, slow, strict=True):
        assert a.frame.columns == b.frame.columns
    # A string that only the tolerant path looks at (an unknown name that is not UTF-8) is mended there alone.
    assert 0 <= sum(b.mended - a.mended for a, b in zip(fast, slow, strict=True)) < 200
    same([_unmended(d) for d in fast], [_unmended(d) for d in slow])


def _unmended(decoded: stage.Decoded) -> stage.Decoded:
    return stage.Decoded(decoded.frame, decoded.rejects, decoded.wrong_types, decoded.unknown_fields)
